// @ts-check
/** Where each slot lies on the board, what it is called, and what its card says. */

import { EXPRESSIONS, SLOTS, VIEWS } from "./board_state.mjs";
import { t } from "./words.mjs";

/** @typedef {{width?: number, height?: number, crop_px?: number[], tokens?: number, rope_position?: number, bytes?: number, warnings?: string[], error?: string}} Look what the host found in a slot's picture */

const COLUMNS = 8;
const WIDE = COLUMNS - VIEWS.length;

/** Column, span and row of each slot in the grid of the board, from 1. */
export const PLACES = Object.fromEntries([
  ["global", { column: 1, span: WIDE, row: 1 }],
  ...VIEWS.map((view, index) => [`views.${view}`, { column: WIDE + 1 + index, span: 1, row: 1 }]),
  ...EXPRESSIONS.map((expression, index) => [`expressions.${expression}`, { column: 1 + index, span: 1, row: 2 }]),
]);

/**
 * Return the slot that an arrow key, Home or End leads to.
 * @param {string} slot
 * @param {string} key as keyboard events name it.
 * @returns {string | null} null where the key is none of these.
 */
export function neighbour(slot, key) {
  const at = SLOTS.indexOf(slot);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: SLOTS.length - 1 }[key];
  if (to !== undefined) return SLOTS[Math.max(0, Math.min(SLOTS.length - 1, to))];
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  const { column, row } = PLACES[slot];
  const wanted = row + (key === "ArrowDown" ? 1 : -1);
  const covers = (/** @type {string} */ other) =>
    PLACES[other].row === wanted && PLACES[other].column <= column && column < PLACES[other].column + PLACES[other].span;
  return SLOTS.find(covers) ?? slot;
}

/**
 * Return a slot's name for people.
 * @param {string} slot
 */
export function titleOf(slot) {
  return told()[slot][0];
}

/**
 * Return what belongs into a slot.
 * @param {string} slot
 */
export function hintOf(slot) {
  return told()[slot][1];
}

/**
 * Return what a screen reader says of a slot.
 * @param {string} slot
 * @param {{image?: string, origin?: string, look?: Look | null}} state
 */
export function labelOf(slot, { image, origin, look }) {
  const title = titleOf(slot);
  const what = origin ? t("{title}: connected to {origin}", { title, origin })
    : image ? t("{title}: picture {image}", { title, image }) : t("{title}: empty. Enter chooses a picture", { title });
  return [what, ...complaints(look)].join(". ");
}

/**
 * Return what is wrong with a slot, worst first.
 * @param {Look | null | undefined} look
 * @returns {string[]}
 */
export function complaints(look) {
  return [...(look?.error ? [look.error] : []), ...(look?.warnings ?? [])];
}

/**
 * Return the lines of a slot's card as names and values.
 * @param {string} slot
 * @param {{image?: string, origin?: string, look?: Look | null}} state
 * @returns {[string, string][]}
 */
export function cardLines(slot, { image, origin, look }) {
  /** @type {[string, string][]} */
  const lines = [[titleOf(slot), hintOf(slot)]];
  if (origin) lines.push([t("Connected"), t("{origin}: it wins over the board", { origin })]);
  if (image) lines.push([t("Picture"), image]);
  if (look?.width) lines.push([t("Size"), `${look.width} × ${look.height} px, ${size(look.bytes ?? 0)}`]);
  if (look?.crop_px) {
    const [x, y, width, height] = look.crop_px;
    lines.push([t("Cropped to"), t("{width} × {height} px at {x}, {y}", { width, height, x, y })]);
  }
  if (look?.tokens !== undefined) lines.push([t("Tokens"), t("{count} in every chunk", { count: look.tokens })]);
  if (look?.rope_position !== undefined) lines.push([t("RoPE position"), String(look.rope_position)]);
  return [...lines, ...complaints(look).map((text) => /** @type {[string, string]} */ (["⚠", text]))];
}

/**
 * Return the line below the board.
 * @param {(string | undefined)[]} used pictures that are used, one for each slot that has any.
 * @param {(Look | null | undefined)[]} looks
 * @param {boolean} is_chained whether a chain of anchors is connected as well.
 * @param {{name: string | null, problems: string[]} | null} [analysis] which part looks at pictures, once the host has told.
 */
export function summary(used, looks, is_chained, analysis) {
  const tokens = looks.reduce((sum, look) => sum + (look?.tokens ?? 0), 0);
  const warnings = looks.reduce((sum, look) => sum + complaints(look).length, 0);
  const parts = [used.length ? pictures(used.length) : t("Drop pictures here, or a .gloria file. The large slot is needed.")];
  if (tokens) parts.push(t("{count} tokens in every chunk", { count: tokens }));
  if (warnings) parts.push(warnings === 1 ? t("1 warning") : t("{count} warnings", { count: warnings }));
  if (is_chained) parts.push(t("pictures of the input 'anchors' win in their slots"));
  if (analysis) parts.push(analysis.name ? t("seen by {name}", { name: analysis.name }) : t("no picture analysis"));
  parts.push(...(analysis?.problems ?? []).map((problem) => `⚠ ${problem}`));
  return parts.join(" · ");
}

/** @param {number} count */
export function pictures(count) {
  return count === 1 ? t("1 picture") : t("{count} pictures", { count });
}

/** Return each slot's name for people and what belongs into it. @returns {Record<string, [string, string]>} */
function told() {
  return {
    global: [t("Global"), t("The whole scene at the video's size")],
    "views.front": [t("Front"), t("The body from the front")],
    "views.right": [t("Right"), t("The body, facing right as the camera sees it")],
    "views.back": [t("Back"), t("The body from behind")],
    "views.left": [t("Left"), t("The body, facing left as the camera sees it")],
    "expressions.neutral": [t("Neutral"), t("The head, neutral")],
    "expressions.happy": [t("Happy"), t("The head, happy")],
    "expressions.sad": [t("Sad"), t("The head, sad")],
    "expressions.angry": [t("Angry"), t("The head, angry")],
    "expressions.surprise": [t("Surprise"), t("The head, surprise")],
    "expressions.fear": [t("Fear"), t("The head, fear")],
    "expressions.disgust": [t("Disgust"), t("The head, disgust")],
    "expressions.contempt": [t("Contempt"), t("The head, contempt")],
  };
}

/** @param {number} bytes */
function size(bytes) {
  return bytes < 1e6 ? t("{size} kB", { size: Math.max(1, Math.round(bytes / 1e3)) }) : t("{size} MB", { size: (bytes / 1e6).toFixed(1) });
}
