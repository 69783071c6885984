// @ts-check
/** The samples of a training: the latest on the node, all of them large. */

import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { ask } from "../shared/dialog.mjs";

/** @typedef {import("../lib/training_state.mjs").Training} Training */

export class Sheets {
  #shown = "";

  /** @param {(path: string) => string} url makes an address of a path. */
  constructor(url) {
    this.url = url;
    this.element = element("button", { type: "button", class: "gloria-sheet", hidden: true, title: t("Show it large, and step through all samples") });
    on(this.element, "click", () => this.#open());
    for (const type of ["pointerenter", "focus"]) on(this.element, type, () => this.#play());
    for (const type of ["pointerleave", "blur"]) on(this.element, type, () => this.#rest());
  }

  /** @param {Training} training */
  show(training) {
    this.training = training;
    const { name, samples, films } = training;
    const number = samples.at(-1) ?? 0;
    this.element.hidden = !number;
    const shown = `${name} ${number} ${films.includes(number)}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (!number) return;
    const sheet = this.#sheet(number);
    const film = this.#film(number, { preload: "none", poster: sheet.src });
    this.element.replaceChildren(film ?? sheet, element("span", {}, this.#title(number)));
  }

  /** @param {number} number */
  #title(number) {
    return t("Sample {number} of {total}", { number, total: this.training?.samples.length ?? 0 });
  }

  /** @param {number} number */
  #sheet(number) {
    return element("img", { src: this.url(this.#path("samples", number)), alt: this.#title(number), draggable: false });
  }

  /**
   * Return the film of a sample; null where it has none.
   * @param {number} number
   * @param {Record<string, any>} props
   */
  #film(number, props) {
    if (!this.training?.films.includes(number)) return null;
    const film = { src: this.url(this.#path("films", number)), "aria-label": this.#title(number), playsInline: true };
    return element("video", { ...film, loop: true, muted: true, ...props });
  }

  /**
   * @param {"samples" | "films"} kind
   * @param {number} number
   */
  #path(kind, number) {
    return `/gloria/training/${encodeURIComponent(this.training?.name ?? "")}/${kind}/${number}`;
  }

  /** Let the film move, where the sample has one. */
  #play() {
    // Refused where the pointer is gone again at once.
    this.element.querySelector("video")?.play().catch(() => undefined);
  }

  #rest() {
    this.element.querySelector("video")?.pause();
  }

  #open() {
    const numbers = this.training?.samples ?? [];
    let index = numbers.length - 1;
    const place = element("div", { class: "gloria-large" });
    const title = element("span", { role: "status" });
    const [back, forth] = [[t("Earlier"), -1, "◂"], [t("Later"), 1, "▸"]].map(([label, way, sign]) => {
      const button = element("button", { type: "button", "aria-label": String(label), title: String(label) }, String(sign));
      on(button, "click", () => turn(Number(way)));
      return button;
    });
    const turn = (/** @type {number} */ way) => {
      index = Math.min(numbers.length - 1, Math.max(0, index + way));
      const film = this.#film(numbers[index], { controls: true, autoplay: true });
      place.replaceChildren(this.#sheet(numbers[index]), ...(film ? [film] : []));
      title.textContent = this.#title(numbers[index]);
      [back.disabled, forth.disabled] = [index === 0, index === numbers.length - 1];
    };
    const body = element("div", { class: "gloria-turn" }, back, title, forth);
    turn(0);
    ask(t("Samples of {name}", { name: this.training?.name ?? "" }), [body, place], [{ label: t("Close"), value: null }], () => {
      const dialog = body.closest("dialog");
      dialog?.classList.add("is-wide");
      const key = (/** @type {KeyboardEvent} */ event) => {
        const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (way && !(event.target instanceof HTMLVideoElement)) turn(way);
      };
      if (dialog) on(dialog, "keydown", key);
    });
  }
}
