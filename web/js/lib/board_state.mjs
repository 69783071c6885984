// @ts-check
/** What is on a board: pure functions from one board to the next. The text in the workflow is the whole state. */

import { t } from "./words.mjs";

/** @typedef {[number, number, number, number]} Crop x, y, width, height as parts of the upright picture, 0 to 1 */
/** @typedef {{image: string, crop?: Crop}} Entry a picture below the input folder */
/** @typedef {Record<string, any>} Board as docs/characters.md describes it */

/** In the order in which a turntable shows them. */
export const VIEWS = ["front", "right", "back", "left"];
export const EXPRESSIONS = ["neutral", "happy", "sad", "angry", "surprise", "fear", "disgust", "contempt"];
/** Every slot, in reading order. */
export const SLOTS = [
  "global",
  ...VIEWS.map((view) => `views.${view}`),
  ...EXPRESSIONS.map((expression) => `expressions.${expression}`),
];
const VERSION = 1;

/**
 * Read the text of the widget.
 * @param {string} text
 * @returns {{board: Board, error: string}} an empty board and a sentence where the text is no board.
 */
export function read(text) {
  try {
    const board = JSON.parse(text || "{}");
    if (isObject(board) && [board.views ?? {}, board.expressions ?? {}].every(isObject)) return { board, error: "" };
  } catch (problem) {
    if (!(problem instanceof SyntaxError)) throw problem;
  }
  return { board: {}, error: t("The text of the board is no board: mend it by hand, or press Clear to begin anew.") };
}

/**
 * Write the text of the widget: what is known first, in reading order, empty parts left out.
 * @param {Board} board
 * @returns {string}
 */
export function write(board) {
  const { version = VERSION, name, notes, global, views, expressions, ...others } = board;
  const groups = { views: ordered(views, VIEWS), expressions: ordered(expressions, EXPRESSIONS) };
  const parts = { version, name: name || undefined, notes: notes || undefined, global, ...groups, ...others };
  const text = JSON.stringify(parts);
  return text === JSON.stringify({ version: VERSION }) ? "{}" : text;
}

/**
 * Return what is written for a slot, whatever it is.
 * @param {Board} board
 * @param {string} slot
 * @returns {unknown}
 */
export function writtenFor(board, slot) {
  const [group, name] = slot.split(".");
  return name ? board[group]?.[name] : board[group];
}

/**
 * Return what lies in a slot; null where it is empty.
 * @param {Board} board
 * @param {string} slot
 * @returns {Entry | null}
 */
export function entryOf(board, slot) {
  const entry = /** @type {any} */ (writtenFor(board, slot));
  if (typeof entry === "string") return { image: entry };
  return isObject(entry) && typeof entry.image === "string" ? entry : null;
}

/**
 * Put a picture into a slot, or empty the slot.
 * @param {Board} board
 * @param {string} slot
 * @param {Entry | null} entry
 * @returns {Board}
 */
export function put(board, slot, entry) {
  const [group, name] = slot.split(".");
  const value = entry ?? undefined;
  return { ...board, [group]: name ? { ...board[group], [name]: value } : value };
}

/**
 * Exchange what lies in two slots.
 * @param {Board} board
 * @param {string} one
 * @param {string} other
 * @returns {Board}
 */
export function swap(board, one, other) {
  const [first, second] = [entryOf(board, one), entryOf(board, other)];
  return put(put(board, one, second), other, first);
}

/**
 * Crop the picture of a slot.
 * @param {Board} board
 * @param {string} slot
 * @param {Crop | null} crop null for the whole picture.
 * @returns {Board}
 */
export function cropped(board, slot, crop) {
  const entry = entryOf(board, slot);
  if (!entry) return board;
  const { crop: _before, ...rest } = entry;
  return put(board, slot, crop ? { ...rest, crop } : rest);
}

/**
 * Empty every slot; name and notes stay.
 * @param {Board} board
 * @returns {Board}
 */
export function cleared({ version = VERSION, name, notes }) {
  return { version, name, notes };
}

/**
 * Return the slots that hold a picture.
 * @param {Board} board
 */
export function filled(board) {
  return SLOTS.filter((slot) => entryOf(board, slot));
}

/**
 * Choose slots for several files: the wanted one for the first, then what a name says, then whatever is empty.
 * @param {Board} board
 * @param {string[]} names names of the files.
 * @param {string | null} wanted the slot that they were dropped on.
 * @returns {(string | null)[]} a slot for each file; null where no slot is left.
 */
export function slotsFor(board, names, wanted) {
  const taken = new Set(filled(board));
  return names.map((name, index) => {
    const free = SLOTS.filter((slot) => !taken.has(slot));
    const slot = (index === 0 && wanted) || slotNamed(name, free) || free[0] || null;
    if (slot) taken.add(slot);
    return slot;
  });
}

/**
 * Return the folder below the input folder for the pictures of a board.
 * @param {Board} board
 */
export function folderOf(board) {
  const name = typeof board.name === "string" ? board.name : "";
  const plain = name.normalize("NFKC").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `gloria/${plain.slice(0, 60) || "board"}`;
}

/**
 * Return the node's input that wins over a slot.
 * @param {string} slot
 */
export function inputOf(slot) {
  return slot === "global" ? "global_image" : slot.split(".")[1];
}

/** @param {string} name @param {string[]} free */
function slotNamed(name, free) {
  const words = name.toLowerCase().split(/[^a-z]+/);
  return free.find((slot) => words.includes(slot === "global" ? "global" : inputOf(slot)));
}

/** @param {Record<string, any> | undefined} group @param {string[]} order */
function ordered(group, order) {
  const names = Object.keys(group ?? {}).sort((a, b) => rank(order, a) - rank(order, b));
  const kept = names.filter((name) => group?.[name] !== undefined);
  return kept.length ? Object.fromEntries(kept.map((name) => [name, group?.[name]])) : undefined;
}

/** @param {string[]} order @param {string} name */
function rank(order, name) {
  const at = order.indexOf(name);
  return at < 0 ? order.length : at;
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
