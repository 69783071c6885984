// @ts-check
/** The geometry of a crop: boxes are x, y, width, height as parts of the upright picture, 0 to 1. */

/** @typedef {import("./board_state.mjs").Crop} Crop */

/** @type {Crop} */
export const WHOLE = [0, 0, 1, 1];
/** Letters of the sides that a handle moves. */
export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const SMALLEST = 0.02;
const DIGITS = 4;

/**
 * Move a box, or the sides that a handle holds; the box stays inside the picture.
 * @param {Crop} box
 * @param {string} handle one of HANDLES, or "move".
 * @param {number} dx part of the picture's width.
 * @param {number} dy part of the picture's height.
 * @returns {Crop}
 */
export function dragged([x, y, width, height], handle, dx, dy) {
  if (handle === "move") return rounded([between(x + dx, 0, 1 - width), between(y + dy, 0, 1 - height), width, height]);
  let [left, top, right, bottom] = [x, y, x + width, y + height];
  if (handle.includes("w")) left = between(left + dx, 0, right - SMALLEST);
  if (handle.includes("e")) right = between(right + dx, left + SMALLEST, 1);
  if (handle.includes("n")) top = between(top + dy, 0, bottom - SMALLEST);
  if (handle.includes("s")) bottom = between(bottom + dy, top + SMALLEST, 1);
  return rounded([left, top, right - left, bottom - top]);
}

/**
 * Return the box between two points, as a pointer draws it.
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {Crop}
 */
export function drawn(from, to) {
  const [a, b] = [from, to].map((point) => point.map((value) => between(value, 0, 1)));
  const [x, y] = [Math.min(a[0], b[0], 1 - SMALLEST), Math.min(a[1], b[1], 1 - SMALLEST)];
  const size = [Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])].map((value) => Math.max(value, SMALLEST));
  return rounded([x, y, Math.min(size[0], 1 - x), Math.min(size[1], 1 - y)]);
}

/**
 * Return what is written on the board: null for the whole picture.
 * @param {Crop} box
 * @returns {Crop | null}
 */
export function stored(box) {
  return rounded(box).every((value, index) => value === WHOLE[index]) ? null : rounded(box);
}

/**
 * Return a crop that can be drawn, whatever was written by hand.
 * @param {unknown} crop
 * @returns {Crop}
 */
export function drawable(crop) {
  const box = Array.isArray(crop) && crop.length === 4 && crop.every(Number.isFinite) ? crop : WHOLE;
  return box[2] > 0 && box[3] > 0 ? /** @type {Crop} */ (box) : WHOLE;
}

/**
 * Return where a picture lies in a frame that shows only its crop, and the frame's width over height.
 * @param {Crop} crop
 * @param {number} width of the picture in pixels.
 * @param {number} height
 */
export function framed([x, y, w, h], width, height) {
  const percent = (/** @type {number} */ value) => `${+(100 * value).toFixed(3)}%`;
  const picture = { left: percent(-x / w), top: percent(-y / h), width: percent(1 / w), height: percent(1 / h) };
  return { ratio: (w * width) / (h * height), picture };
}

/**
 * Return a box in whole pixels, as text for people.
 * @param {Crop} box
 * @param {number} width of the picture in pixels.
 * @param {number} height
 */
export function inPixels([, , w, h], width, height) {
  return `${Math.round(w * width)} × ${Math.round(h * height)} px`;
}

/** @param {number} value @param {number} low @param {number} high */
function between(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

/** @param {number[]} box @returns {Crop} */
function rounded(box) {
  return /** @type {Crop} */ (box.map((value) => +value.toFixed(DIGITS)));
}
