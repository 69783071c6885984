// @ts-check
/** Where each slot lies on the board, what it is called, and what its card says. */

import { EXPRESSIONS, SLOTS, VIEWS } from "./board_state.mjs";

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
  const name = slot.split(".").pop() ?? slot;
  return name[0].toUpperCase() + name.slice(1);
}

/**
 * Return what belongs into a slot.
 * @param {string} slot
 */
export function hintOf(slot) {
  const [group, name] = slot.split(".");
  if (group === "global") return "The whole scene at the video's size";
  if (name === "front") return "The body from the front";
  if (name === "back") return "The body from behind";
  if (group === "views") return `The body, facing ${name} as the camera sees it`;
  return `The head, ${name}`;
}

/**
 * Return what a screen reader says of a slot.
 * @param {string} slot
 * @param {{image?: string, origin?: string, look?: Look | null}} state
 */
export function labelOf(slot, { image, origin, look }) {
  const what = origin ? `connected to ${origin}` : image ? `picture ${image}` : "empty. Enter chooses a picture";
  return [`${titleOf(slot)}: ${what}`, ...complaints(look)].join(". ");
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
  if (origin) lines.push(["Connected", `${origin}: it wins over the board`]);
  if (image) lines.push(["Picture", image]);
  if (look?.width) lines.push(["Size", `${look.width} × ${look.height} px, ${size(look.bytes ?? 0)}`]);
  if (look?.crop_px) lines.push(["Crop", `${look.crop_px[2]} × ${look.crop_px[3]} px at ${look.crop_px[0]}, ${look.crop_px[1]}`]);
  if (look?.tokens !== undefined) lines.push(["Tokens", `${look.tokens} in every chunk`]);
  if (look?.rope_position !== undefined) lines.push(["RoPE position", String(look.rope_position)]);
  return [...lines, ...complaints(look).map((text) => /** @type {[string, string]} */ (["⚠", text]))];
}

/**
 * Return the line below the board.
 * @param {(string | undefined)[]} used pictures that are used, one for each slot that has any.
 * @param {(Look | null | undefined)[]} looks
 * @param {boolean} is_chained whether a chain of anchors is connected as well.
 */
export function summary(used, looks, is_chained) {
  const tokens = looks.reduce((sum, look) => sum + (look?.tokens ?? 0), 0);
  const warnings = looks.reduce((sum, look) => sum + complaints(look).length, 0);
  const count = used.length === 1 ? "1 picture" : `${used.length} pictures`;
  const parts = [used.length ? count : "Drop pictures here, or a .gloria file. The large slot is needed"];
  if (tokens) parts.push(`${tokens} tokens in every chunk`);
  if (warnings) parts.push(warnings === 1 ? "1 warning" : `${warnings} warnings`);
  if (is_chained) parts.push("pictures of the input 'anchors' win in their slots");
  return `${parts.join(" · ")}${used.length ? "" : "."}`;
}

/** @param {number} bytes */
function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
