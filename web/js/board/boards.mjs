// @ts-check
/** Puts a board on each node that has one. */

import { on } from "../lib/dom.mjs";
import { BoardView } from "./view.mjs";

export const ANCHOR_SET = "GloriaAnchorSet";
const STATE = "board";
const WIDGET = "anchor_board";
const HEIGHT_PX = 372;
const WIDTH_PX = 620;
/** @type {[number, number]} what takes up the gap below a widget that is not there. */
const NO_ROOM = [0, -4];

/** The slot from which something was undone: the host makes its node anew, and it gets the focus back. */
let undone = { node: "", slot: "" };

/**
 * Give a new node its board. Its text is the widget `board`, which stays hidden.
 * @param {any} node
 * @param {import("./host.mjs").BoardHost} host
 * @returns {BoardView}
 */
export function addBoard(node, host) {
  const state = node.widgets.find((/** @type {any} */ widget) => widget.name === STATE);
  state.hidden = true;
  Object.assign(state, { computeLayoutSize: undefined, computeSize: () => NO_ROOM }); // older pages lay out what is hidden
  const view = new BoardView(node, state, host);
  // Last, and never written into the workflow: saved files hold their values by position.
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT_PX };
  node.addDOMWidget(WIDGET, "GLORIA_BOARD", view.element, options).serialize = false;
  node.setSize([Math.max(node.size[0], WIDTH_PX), node.computeSize()[1]]);
  after(state, "callback", () => view.refresh());
  after(node, "onConnectionsChange", () => queueMicrotask(() => view.refresh()));
  after(node, "onConfigure", () => {
    view.refresh();
    giveFocusBack(node, view);
  });
  on(view.element, "keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key)) undone = { node: String(node.id), slot: view.current };
  });
  // Files that fall on the node beside its board; the host asks the node itself.
  node.onDragOver = (/** @type {DragEvent} */ event) => Boolean(event.dataTransfer?.types.includes("Files"));
  node.onDragDrop = (/** @type {DragEvent} */ event) => {
    if (!event.dataTransfer?.files.length) return false;
    view.incoming.transfer(event.dataTransfer, null);
    return true;
  };
  return view;
}

/**
 * Call something after a hook of this one object.
 * @param {any} object
 * @param {string} name
 * @param {() => void} then
 */
function after(object, name, then) {
  const before = object[name];
  object[name] = function (/** @type {any[]} */ ...words) {
    const answer = before?.apply(this, words);
    then();
    return answer;
  };
}

/** @param {any} node @param {BoardView} view */
function giveFocusBack(node, view) {
  if (undone.node !== String(node.id)) return;
  const { slot } = undone;
  undone = { node: "", slot: "" };
  requestAnimationFrame(() => requestAnimationFrame(() => view.element.isConnected && view.focus(slot)));
}
