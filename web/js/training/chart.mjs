// @ts-check
/** The loss curve, with the held-out loss beside it; a pointer or the arrow keys read it. */

import { element, on, write } from "../lib/dom.mjs";
import * as curves from "../lib/training_curve.mjs";
import { fine } from "../lib/training_layout.mjs";
import { t } from "../lib/words.mjs";

/** @typedef {import("../lib/training_state.mjs").Curve} Curve */
/** @typedef {import("../lib/training_state.mjs").Point} Point */

const SVG = "http://www.w3.org/2000/svg";
const LAYERS = ["stages", "band", "raw", "trained", "held-out", "dots", "cursor"];
/** How much a smoothed loss keeps of what was before. */
const WEIGHTS = [0, 0.6, 0.9, 0.97];

export class Chart {
  /** @type {Curve} */
  #curve = { trained: [], held_out: [], stages: [] };
  /** @type {Point[]} */
  #smooth = [];
  /** @type {import("../lib/training_curve.mjs").Scale | null} */
  #scale = null;
  /** @type {number | null} number of the point that is read. */
  #read = null;

  constructor() {
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${curves.WIDTH} ${curves.HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.paths = Object.fromEntries(LAYERS.map((layer) => [layer, this.#path(layer)]));
    this.losses = element("div", { class: "gloria-losses", "aria-hidden": "true" });
    this.steps = element("div", { class: "gloria-steps", "aria-hidden": "true" });
    this.plot = element("div", { class: "gloria-plot", role: "slider", tabIndex: 0, "aria-label": t("Loss over the steps") });
    this.plot.append(this.svg);
    this.reading = element("span", { class: "gloria-reading" });
    this.log = element("button", { type: "button", ariaPressed: "true", title: t("Logarithmic losses: small improvements are seen too") }, t("log"));
    this.weight = element("select", { "aria-label": t("Smoothing"), title: t("How much the line is smoothed; the pale line is as measured") });
    this.weight.append(...WEIGHTS.map((weight) => element("option", { value: String(weight), selected: weight === 0.6 }, weight ? t("smooth {weight}", { weight }) : t("not smoothed"))));
    this.element = element(
      "div", { class: "gloria-chart", hidden: true },
      element("div", { class: "gloria-legend" }, this.reading, this.weight, this.log),
      element("div", { class: "gloria-axes" }, this.losses, this.plot, this.steps),
    );
    this.#listen();
  }

  /** @param {Curve} curve */
  show(curve) {
    this.#curve = curve;
    this.#draw();
  }

  #draw() {
    const { trained, held_out, stages } = this.#curve;
    const scale = curves.scaleOf(this.#curve, this.log.ariaPressed === "true");
    this.#scale = scale;
    this.element.hidden = scale === null;
    if (!scale) return;
    this.#smooth = curves.smoothed(trained, Number(this.weight.value));
    this.#set("stages", curves.uprights(scale, stages.map(([, step]) => step)));
    this.#set("band", curves.bandPath(scale, trained));
    this.#set("raw", curves.linePath(scale, trained));
    this.#set("trained", curves.linePath(scale, this.#smooth) + (trained.length === 1 ? curves.dotsPath(scale, trained) : ""));
    this.#set("held-out", curves.linePath(scale, held_out));
    this.#set("dots", curves.dotsPath(scale, held_out));
    label(this.losses, curves.lossTicks(scale), "bottom");
    label(this.steps, curves.stepTicks(scale), "left");
    this.#tell();
  }

  /** Say what is read: the point under the cursor, or the last one. */
  #tell() {
    const { trained, held_out } = this.#curve;
    const scale = this.#scale;
    if (!scale) return;
    const index = Math.min(this.#read ?? trained.length - 1, trained.length - 1);
    const point = this.#smooth[index] ?? held_out.at(-1);
    const kept = curves.nearest(held_out, this.#read === null ? scale.last : point[0]);
    const value = fine(point[1]);
    const parts = [element("b", { class: "is-trained" }, this.weight.value === "0" ? t("loss {value}", { value }) : t("smoothed loss {value}", { value }))];
    if (kept) parts.push(element("b", { class: "is-held-out" }, t("held out {value}", { value: fine(kept[1]) })));
    const step = this.#read === null ? "" : t("step {number}", { number: Math.round(point[0]) });
    this.reading.replaceChildren(...parts, step);
    this.#set("cursor", this.#read === null ? "" : curves.uprights({ ...scale, first: scale.first - 1, last: scale.last + 1 }, [point[0]]));
    const [least, most] = [Math.round(scale.first), Math.round(scale.last)];
    Object.assign(this.plot, {
      ariaValueMin: String(least), ariaValueMax: String(most), ariaValueNow: String(Math.round(point[0])),
      ariaValueText: `${t("step {number}", { number: Math.round(point[0]) })}, ${parts.map((part) => part.textContent).join(", ")}`,
    });
  }

  #listen() {
    on(this.log, "click", () => {
      this.log.ariaPressed = String(this.log.ariaPressed !== "true");
      this.#draw();
    });
    on(this.weight, "change", () => this.#draw());
    on(this.plot, "pointermove", (event) => this.#point(event));
    on(this.plot, "pointerleave", () => this.#readAt(null));
    on(this.plot, "blur", () => this.#readAt(null));
    on(this.plot, "keydown", (event) => this.#key(event));
  }

  /** @param {PointerEvent} event */
  #point({ clientX }) {
    const { left, width } = this.plot.getBoundingClientRect();
    const scale = this.#scale;
    if (!scale || !width) return;
    const step = scale.first + ((clientX - left) / width) * (scale.last - scale.first);
    const point = curves.nearest(this.#smooth, step);
    this.#readAt(point ? this.#smooth.indexOf(point) : null);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#smooth.length - 1;
    const now = this.#read ?? last;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    event.stopPropagation();
    this.#readAt(Math.min(last, Math.max(0, to)));
  }

  /** @param {number | null} index */
  #readAt(index) {
    if (this.#read === index) return;
    this.#read = index;
    this.#tell();
  }

  /** @param {string} layer */
  #path(layer) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", `is-${layer}`);
    this.svg.append(path);
    return path;
  }

  /**
   * @param {string} layer
   * @param {string} path
   */
  #set(layer, path) {
    if (this.paths[layer].getAttribute("d") !== path) this.paths[layer].setAttribute("d", path);
  }
}

/**
 * Write the labels of an axis.
 * @param {HTMLElement} axis
 * @param {import("../lib/training_curve.mjs").Tick[]} ticks
 * @param {"left" | "bottom"} side that parts are measured from.
 */
function label(axis, ticks, side) {
  while (axis.childElementCount > ticks.length) axis.lastElementChild?.remove();
  ticks.forEach(({ part, label }, index) => {
    const tick = /** @type {HTMLElement} */ (axis.children[index] ?? axis.appendChild(element("span")));
    write(tick, label);
    tick.style[side] = `${100 * part}%`;
  });
}
