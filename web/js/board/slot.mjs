// @ts-check
/** One slot of the board: a named ghost until a picture lies in it. */

import { drawable, framed } from "../lib/board_crop.mjs";
import { PLACES, complaints, hintOf, labelOf, titleOf } from "../lib/board_layout.mjs";
import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { ghost } from "./ghosts.mjs";

/** @typedef {import("../lib/board_state.mjs").Entry} Entry */
/** @typedef {import("../lib/board_layout.mjs").Look} Look */
/** @typedef {{entry: Entry | null, url: string, origin: string, preview: string, look: Look | null}} State */

export class SlotView {
  /** @param {string} slot */
  constructor(slot) {
    this.slot = slot;
    /** @type {State} */
    this.state = { entry: null, url: "", origin: "", preview: "", look: null };
    this.image = element("img", { alt: "", draggable: false, decoding: "async" });
    this.frame = element("span", { class: "gloria-frame" }, this.image);
    this.message = element("span", { class: "gloria-message" });
    this.badge = element("span", { class: "gloria-badge" });
    const { column, span, row } = PLACES[slot];
    const art = element("span", { class: "gloria-art" }, ghost(slot), this.frame, this.message);
    this.element = element(
      "button",
      { type: "button", class: "gloria-slot", tabIndex: -1, data: { slot }, style: { gridArea: `${row} / ${column} / auto / span ${span}` } },
      art,
      element("span", { class: "gloria-name" }, titleOf(slot)),
      this.badge,
    );
    on(this.image, "load", () => this.#fit());
    on(this.image, "error", () => this.#say(this.state.look?.error ?? t("This picture cannot be shown: it may have been deleted.")));
  }

  /** @param {State} state */
  show(state) {
    this.state = state;
    const { entry, origin, look } = state;
    const source = origin ? state.preview : state.url;
    this.element.dataset.state = origin ? "connected" : entry ? "filled" : "empty";
    this.element.draggable = Boolean(entry && !origin);
    this.element.setAttribute("aria-label", labelOf(this.slot, { image: entry?.image, origin, look }));
    this.element.setAttribute("aria-description", hintOf(this.slot));
    this.badge.textContent = origin ? t("linked") : complaints(look).length ? "⚠" : "";
    this.frame.hidden = !source;
    if (!source) this.image.removeAttribute("src");
    else if (this.image.getAttribute("src") !== source || this.#isBack()) this.image.src = source;
    this.#say((!origin && look?.error) || (origin && !source && t("from {origin}", { origin })) || "");
    this.#fit();
  }

  /** Show the crop of the picture, once its size is known. */
  #fit() {
    const { naturalWidth, naturalHeight } = this.image;
    if (!naturalWidth) return;
    const crop = drawable(this.state.origin ? undefined : this.state.entry?.crop);
    const { ratio, picture } = framed(crop, naturalWidth, naturalHeight);
    this.frame.style.setProperty("--ratio", String(ratio));
    Object.assign(this.image.style, picture);
  }

  /** Whether the host can read the picture now, after it could not be shown. */
  #isBack() {
    const { look } = this.state;
    return Boolean(look && !look.error && this.image.complete && !this.image.naturalWidth);
  }

  /** @param {string} text */
  #say(text) {
    this.message.textContent = text;
    this.element.classList.toggle("is-bad", Boolean(text && !this.state.origin));
    if (text && !this.state.origin) this.frame.hidden = true;
  }
}
