// @ts-check
/** Dialogs above the page, at no zoom. The element `dialog` holds the focus and closes on Escape by itself. */

import { element, on } from "../lib/dom.mjs";

/** @typedef {{label: string, value: any, is_main?: boolean}} Choice */

/**
 * Show a dialog until a choice was made.
 * @param {string} title
 * @param {Node[]} body
 * @param {Choice[]} choices buttons below; the value of the chosen one is returned.
 * @param {(close: (value: any) => void) => void} [begin] gets what closes the dialog from within.
 * @returns {Promise<any>} null where it was closed without a choice.
 */
export function ask(title, body, choices, begin) {
  return new Promise((resolve) => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    const buttons = choices.map(({ label, is_main }) => element("button", { type: "button", class: is_main ? "is-main" : "" }, label));
    const shown = element("dialog", { class: "gloria-dialog", "aria-label": title },
      element("h2", {}, title), ...body, element("div", { class: "gloria-choices" }, ...buttons));
    /** @type {any} */
    let chosen = null;
    const close = (/** @type {any} */ value) => {
      chosen = value;
      shown.close();
    };
    buttons.forEach((button, index) => on(button, "click", () => close(choices[index].value)));
    for (const type of ["keydown", "keyup", "paste", "copy", "pointerdown", "wheel", "drop"]) {
      on(shown, type, (event) => event.stopPropagation()); // the canvas below has uses of its own for these
    }
    on(shown, "close", () => {
      shown.remove();
      if (before?.isConnected) before.focus();
      resolve(chosen);
    });
    document.body.append(shown);
    begin?.(close);
    shown.showModal();
    (buttons.find((button) => button.className) ?? buttons.at(-1))?.focus();
  });
}

/**
 * Have a file chosen.
 * @param {string} accept
 * @param {boolean} [multiple]
 * @returns {Promise<File[]>}
 */
export function chooseFiles(accept, multiple = false) {
  return new Promise((resolve) => {
    const input = element("input", { type: "file", accept, multiple, class: "gloria-file", style: { display: "none" } });
    const end = () => {
      input.remove();
      resolve([...(input.files ?? [])]);
    };
    on(input, "change", end);
    on(input, "cancel", end);
    document.body.append(input);
    input.click();
  });
}
