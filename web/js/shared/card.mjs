// @ts-check
/** The card that tells about a chunk or a slot while a pointer is on it, or the keyboard. */

import { element } from "../lib/dom.mjs";
import { place } from "./floating.mjs";

export class Card {
  constructor() {
    this.element = element("dl", { class: "gloria-card", popover: "manual", role: "tooltip" });
  }

  /**
   * @param {HTMLElement} anchor
   * @param {[string, string][]} lines
   */
  show(anchor, lines) {
    if (!this.element.isConnected) return;
    this.element.replaceChildren(
      ...lines.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    );
    this.element.showPopover();
    place(this.element, anchor);
  }

  /** Take it away. */
  hide() {
    if (this.element.matches(":popover-open")) this.element.hidePopover();
  }
}
