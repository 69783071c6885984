// @ts-check
/** What can be done with a chunk or a slot. */

import { element, on } from "../lib/dom.mjs";
import { place } from "./floating.mjs";

/** @typedef {{label: string, act: () => void}} Item */

export class Menu {
  constructor() {
    this.element = element("div", { class: "gloria-menu", popover: "auto", role: "menu" });
    on(this.element, "keydown", (event) => this.#key(event));
    on(this.element, "contextmenu", (event) => event.preventDefault());
  }

  get is_open() {
    return this.element.matches(":popover-open");
  }

  /**
   * @param {HTMLElement} anchor
   * @param {string} label
   * @param {(Item | false)[]} items
   */
  open(anchor, label, items) {
    this.anchor = anchor;
    this.element.ariaLabel = label;
    this.element.replaceChildren(...items.filter((item) => item !== false).map((item) => this.#button(item)));
    this.element.showPopover();
    place(this.element, anchor);
    this.#buttons()[0]?.focus();
  }

  /** @param {Item} item */
  #button({ label, act }) {
    const button = element("button", { type: "button", role: "menuitem", tabIndex: -1 }, label);
    on(button, "click", () => {
      this.#close();
      act();
    });
    return button;
  }

  #buttons() {
    return /** @type {HTMLButtonElement[]} */ ([...this.element.children]);
  }

  #close() {
    this.element.hidePopover();
    this.anchor?.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const buttons = this.#buttons();
    const now = buttons.findIndex((button) => button === document.activeElement);
    const last = buttons.length - 1;
    const to = { ArrowDown: now >= last ? 0 : now + 1, ArrowUp: now <= 0 ? last : now - 1, Home: 0, End: last }[event.key];
    event.stopPropagation(); // the host has keys of its own
    if (event.key === "Escape" || event.key === "Tab") this.#close();
    else if (to !== undefined) buttons[to].focus();
    else return;
    event.preventDefault();
  }
}
