// @ts-check
/** What pointers, keys, drags and the clipboard do on a board. */

import { neighbour } from "../lib/board_layout.mjs";
import { on } from "../lib/dom.mjs";
import { lift, mayHold } from "./transfer.mjs";

/** @typedef {import("./view.mjs").BoardView} BoardView */

/** @param {BoardView} board */
export function listenToSlots(board) {
  const { element } = board;
  on(element, "click", (event) => act(event, (slot) => board.open(slot)));
  on(element, "contextmenu", (event) => act(event, (slot) => board.open(slot)));
  on(element, "pointerover", (event) => tell(board, slotAt(event)));
  on(element, "pointerleave", () => board.card.hide());
  on(element, "focusin", (event) => {
    const slot = slotAt(event);
    if (slot) board.select(slot);
    tell(board, event.target.matches?.(":focus-visible") ? slot : null);
  });
  on(element, "focusout", () => board.card.hide());
  on(element, "keydown", (event) => act(event, (slot) => key(board, slot, event)));
  on(element, "paste", (event) => paste(board, event));
  for (const type of ["pointerdown", "pointermove", "pointerup"]) on(element, type, (event) => pan(board, event));
  on(element, "wheel", (event) => zoom(board, event), { passive: false });
  listenToDrags(board);
}

/** @param {BoardView} board */
function listenToDrags(board) {
  const { element } = board;
  const mark = (/** @type {string | null} */ slot) => board.slots.forEach((view) => view.element.classList.toggle("is-over", view.slot === slot));
  on(element, "dragstart", (event) => {
    const slot = slotAt(event);
    const state = slot && board.view(slot).state;
    if (!state || !state.entry || !event.dataTransfer) return;
    board.card.hide();
    event.stopPropagation();
    lift(event.dataTransfer, { board: board.id, slot, entry: state.entry }, new URL(state.url, location.href).href);
  });
  for (const type of ["dragenter", "dragover"]) {
    on(element, type, (event) => {
      if (!mayHold(event.dataTransfer)) return;
      own(event);
      mark(slotAt(event));
    });
  }
  on(element, "dragleave", (event) => !element.contains(event.relatedTarget) && mark(null));
  on(element, "dragend", () => mark(null));
  on(element, "drop", (event) => {
    own(event);
    mark(null);
    if (event.dataTransfer) board.incoming.transfer(event.dataTransfer, slotAt(event));
  });
}

/** @param {BoardView} board @param {string} slot @param {KeyboardEvent} event @returns {unknown} false where the key is not the board's. */
function key(board, slot, event) {
  if (event.ctrlKey || event.metaKey) return false; // undo, copy and paste are the host's
  const next = neighbour(slot, event.key);
  const state = board.view(slot).state;
  if (next && event.altKey) {
    if (state.entry && next !== slot) board.swap(slot, next);
    return board.focus(next);
  }
  if (next) return board.focus(next);
  if (event.key === "Enter" || event.key === " ") return board.open(slot);
  if (event.key === "Delete" || event.key === "Backspace") return board.put(slot, null);
  return false;
}

/** Do something with the slot that an event happened on; the host then hears nothing of it. */
function act(/** @type {any} */ event, /** @type {(slot: string) => unknown} */ deed) {
  const slot = slotAt(event);
  if (slot && deed(slot) !== false) own(event);
}

/** @param {BoardView} board @param {ClipboardEvent} event */
function paste(board, event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches("input") || !event.clipboardData?.files.length) return;
  own(event);
  board.incoming.transfer(event.clipboardData, slotAt(event) ?? board.current);
}

/** @param {BoardView} board @param {string | null} slot */
function tell(board, slot) {
  if (slot) board.tell(slot);
  else board.card.hide();
}

/** The middle button moves the canvas, also from above a board. @param {BoardView} board @param {PointerEvent} event */
function pan(board, event) {
  const { canvas } = board.host.app;
  const is_middle = event.button === 1 || (event.type === "pointermove" && (event.buttons & 4) === 4);
  if (is_middle && !isVue()) canvas[{ pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" }[event.type] ?? ""](event);
  else if (event.type === "pointerdown") event.stopPropagation();
}

/** The wheel zooms the canvas, also above a board; Vue nodes see to that themselves. @param {BoardView} board @param {WheelEvent} event */
function zoom(board, event) {
  if (!isVue()) board.host.app.canvas.processMouseWheel(event);
}

function isVue() {
  return Boolean(/** @type {any} */ (globalThis).LiteGraph?.vueNodesMode);
}

/** @param {Event} event */
function own(event) {
  event.preventDefault();
  event.stopPropagation();
}

/** @param {any} event @returns {string | null} */
function slotAt(event) {
  return event.target?.closest?.(".gloria-slot")?.dataset.slot ?? null;
}
