// @ts-check
/** The editor of a crop: a box with handles on the picture, presets, and the arrow keys. */

import { HANDLES, WHOLE, dragged, drawable, drawn, inPixels, stored } from "../lib/board_crop.mjs";
import { titleOf } from "../lib/board_layout.mjs";
import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { ask } from "../shared/dialog.mjs";

/** @typedef {import("../lib/board_state.mjs").Crop} Crop */
/** @typedef {import("../lib/board_state.mjs").Entry} Entry */
/** @typedef {import("./host.mjs").BoardHost} BoardHost */

const STEP = 0.01;
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/**
 * Let the artist crop the picture of a slot.
 * @param {BoardHost} host
 * @param {string} slot
 * @param {Entry} entry
 * @returns {Promise<{crop: Crop | null} | null>} null where nothing was decided.
 */
export async function cropPicture(host, slot, entry) {
  const editor = new CropEditor(host, slot, entry);
  const choices = [{ label: t("Cancel"), value: null }, { label: t("Crop"), value: "crop", is_main: true }];
  const chosen = await ask(t("Crop {slot}", { slot: titleOf(slot) }), [editor.element], choices);
  return chosen && { crop: stored(editor.box) };
}

class CropEditor {
  /** @param {BoardHost} host @param {string} slot @param {Entry} entry */
  constructor(host, slot, entry) {
    this.host = host;
    this.slot = slot;
    this.entry = entry;
    this.box = drawable(entry.crop);
    this.asked = /** @type {object | null} */ (null); // the proposal that is waited for
    this.picture = element("img", { src: host.pictureUrl(entry.image), alt: entry.image, draggable: false });
    this.selection = element("div", { class: "gloria-selection", tabIndex: 0, role: "group", data: { handle: "move" },
      "aria-label": t("Crop. Arrow keys move it, Shift and an arrow key sizes it.") },
      ...HANDLES.map((handle) => element("i", { data: { handle } })));
    this.stage = element("div", { class: "gloria-stage" }, this.picture, this.selection);
    this.told = element("output", { class: "gloria-told" });
    this.element = element("div", { class: "gloria-crop" }, this.stage, this.#presets(), this.told);
    on(this.picture, "load", () => this.#draw());
    on(this.stage, "pointerdown", (event) => this.#grab(event));
    on(this.selection, "keydown", (event) => this.#key(event));
    this.#draw();
  }

  #presets() {
    /** @type {[string, string, string, () => void][]} */
    const presets = [
      ["body", t("Body"), t("The body with a little room around it"), () => this.#propose("body")],
      ["head", t("Head"), t("The head with a little room around it"), () => this.#propose("head")],
      ["whole", t("Whole"), t("The whole picture"), () => this.#set([...WHOLE])],
      ["auto", t("Auto"), t("What this slot needs"), () => this.#propose(kindOf(this.slot))],
    ];
    const buttons = presets.map(([preset, label, title, act]) => {
      const button = element("button", { type: "button", title, data: { preset } }, label);
      on(button, "click", act);
      return button;
    });
    return element("div", { class: "gloria-presets", role: "group", "aria-label": t("Presets") }, ...buttons);
  }

  /** @param {"body" | "head" | "whole"} preset */
  async #propose(preset) {
    const asked = (this.asked = {});
    const found = await this.host.attempt(() => this.host.autocrop(this.entry.image, preset, this.slot));
    if (found && this.asked === asked) this.#set(found.crop ? drawable(found.crop) : [...WHOLE], foundBy(found.by));
  }

  /** @param {PointerEvent} event */
  #grab(event) {
    if (event.button !== 0) return;
    const held = /** @type {HTMLElement} */ (event.target).dataset.handle;
    const handle = held === "move" && !stored(this.box) ? undefined : held; // the whole picture cannot be moved
    const [from, before] = [this.#point(event), this.box];
    const move = (/** @type {PointerEvent} */ moved) => {
      const to = this.#point(moved);
      this.#set(handle ? dragged(before, handle, to[0] - from[0], to[1] - from[1]) : drawn(from, to));
    };
    const stop = [on(this.stage, "pointermove", move)];
    stop.push(...["pointerup", "pointercancel"].map((type) => on(this.stage, type, () => stop.forEach((end) => end()))));
    this.stage.setPointerCapture(event.pointerId);
    this.selection.focus();
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const by = ARROWS[event.key];
    if (!by) return;
    event.preventDefault();
    this.#set(dragged(this.box, event.shiftKey ? "se" : "move", by[0], by[1]));
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  #point(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  /** @param {Crop} box @param {string} [note] */
  #set(box, note = "") {
    this.box = box;
    this.asked = null;
    this.#draw(note);
  }

  #draw(note = "") {
    const [x, y, width, height] = this.box.map((value) => `${100 * value}%`);
    Object.assign(this.selection.style, { left: x, top: y, width, height });
    const { naturalWidth, naturalHeight } = this.picture;
    this.told.textContent = naturalWidth ? `${inPixels(this.box, naturalWidth, naturalHeight)} ${note}` : "";
  }
}

/** @param {string} by how the host found a crop. */
function foundBy(by) {
  if (by === "analysis") return t("Found in the picture.");
  if (by === "background") return t("Found by its plain background.");
  return by === "centre" ? t("Centred: nothing was found in the picture.") : "";
}

/** @param {string} slot */
function kindOf(slot) {
  if (slot === "global") return "whole";
  return slot.startsWith("views.") ? "body" : "head";
}
