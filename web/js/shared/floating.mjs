// @ts-check
/** Cards and menus lie above everything, at any zoom of the canvas. */

const GAP_PX = 6;

/**
 * Put a popover below an element, or above where there is no room.
 * @param {HTMLElement} floating
 * @param {HTMLElement} anchor
 */
export function place(floating, anchor) {
  const at = anchor.getBoundingClientRect();
  const { width, height } = floating.getBoundingClientRect();
  const below = at.bottom + GAP_PX;
  const top = below + height > window.innerHeight ? at.top - GAP_PX - height : below;
  const left = Math.min(at.left, window.innerWidth - width - GAP_PX);
  floating.style.left = `${Math.max(GAP_PX, left)}px`;
  floating.style.top = `${Math.max(GAP_PX, top)}px`;
}
