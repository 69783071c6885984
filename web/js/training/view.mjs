// @ts-check
/** One node's training panel: its elements, kept in step with what is known of the job. */

import { element, on, onceAFrame, write } from "../lib/dom.mjs";
import * as layout from "../lib/training_layout.mjs";
import { canResume, isLive, none } from "../lib/training_state.mjs";
import { t } from "../lib/words.mjs";
import { fit, keepPointer } from "../shared/panels.mjs";
import { Chart } from "./chart.mjs";
import { Sheets } from "./sheets.mjs";

/** @typedef {import("../lib/training_state.mjs").Training} Training */
/** @typedef {{url: (path: string) => string, stop: () => Promise<string>, resume: () => Promise<string>}} Page
 *   `stop` and `resume` return why it could not be; "" where it could. */

/** Height before anything was drawn. */
const EMPTY_PX = 24;

export class TrainingView {
  training = none();
  /** The name of the job that the node has, as far as it is known. @type {string | null} */
  wanted = null;
  /** Whether it is in view. */
  is_seen = false;
  /** When something was last told of it, on the page's clock. */
  told_s = 0;
  /** Height that the node was given for it. */
  fitted = EMPTY_PX;
  #later = onceAFrame(() => this.#render());
  #height = EMPTY_PX;
  #refusal = "";

  /**
   * @param {any} node
   * @param {Page} page
   */
  constructor(node, page) {
    this.node = node;
    this.page = page;
    this.state = element("span", { class: "gloria-state" });
    this.head = element("span", { class: "gloria-job" });
    this.outlook = element("span", { class: "gloria-outlook" });
    this.bar = element("div", { class: "gloria-part", role: "progressbar", ariaValueMin: "0", ariaValueMax: "100", "aria-label": t("Progress") });
    this.facts = element("dl", { class: "gloria-facts" });
    this.chart = new Chart();
    this.sheets = new Sheets(page.url);
    this.sentence = element("p", { class: "gloria-sentence", role: "alert" });
    this.lines = element("pre", { tabIndex: 0 });
    this.said = element("summary");
    this.details = element("details", {}, this.said, this.lines);
    this.stop = this.#button(() => page.stop());
    this.resume = this.#button(() => page.resume());
    this.spoken = element("span", { class: "gloria-spoken", role: "status" });
    this.body = element(
      "div", { class: "gloria-body" },
      element("div", { class: "gloria-top-line" }, this.state, this.head, this.outlook, this.stop, this.resume),
      this.bar, this.facts, this.chart.element, this.sheets.element, this.sentence, this.details, this.spoken,
    );
    this.element = element("div", { class: "gloria-training", role: "group", "aria-label": t("Training") }, this.body);
    keepPointer(this.element);
    on(this.lines, "wheel", (event) => event.stopPropagation());
    on(this.details, "toggle", () => (this.lines.scrollTop = this.lines.scrollHeight));
    new ResizeObserver(() => this.#measure()).observe(this.body);
    this.show(this.training);
  }

  /** Height in pixels that the node keeps for it. */
  get height() {
    return this.#height;
  }

  /** @param {Training} training */
  show(training) {
    if (training.state !== this.training.state) this.#refusal = "";
    this.training = training;
    this.#later();
  }

  #render() {
    const { training } = this;
    const is_there = training.state !== "none";
    Object.assign(this.element.dataset, { state: training.state, node: this.node.id });
    write(this.state, layout.called(training.state));
    write(this.head, layout.headline(training));
    this.head.title = this.head.textContent ?? "";
    write(this.outlook, layout.outlook(training));
    this.bar.hidden = !is_there;
    this.bar.style.setProperty("--part", String(training.done));
    this.bar.ariaValueNow = String(Math.round(100 * training.done));
    this.#renderFacts();
    this.chart.show(training.curve);
    this.sheets.show(training);
    this.#renderError();
    this.#renderButtons();
    write(this.spoken, is_there ? layout.spoken(training) : "");
    this.#measure();
  }

  #renderFacts() {
    this.facts.hidden = this.training.loss === null;
    const facts = layout.facts(this.training);
    if (!this.facts.childElementCount) {
      this.facts.append(...facts.map(({ name, about }) => element("div", { title: about }, element("dt", {}, name), element("dd"))));
    }
    facts.forEach(({ value }, index) => write(/** @type {HTMLElement} */ (this.facts.children[index].lastElementChild), value));
  }

  #renderError() {
    const { error, lines } = this.training;
    const sentence = this.#refusal || error;
    this.sentence.hidden = !sentence;
    write(this.sentence, sentence);
    this.details.hidden = !lines.length;
    write(this.said, t("Its last {count} lines", { count: lines.length }));
    write(this.lines, lines.join("\n"));
  }

  #renderButtons() {
    const { training } = this;
    const is_stopping = training.state === "stopping";
    this.stop.hidden = !isLive(training);
    write(this.stop, is_stopping ? t("End at once") : t("Stop"));
    this.stop.title = is_stopping
      ? t("Ends it now; what came after its last checkpoint is lost")
      : t("Makes a checkpoint after this step and stops");
    this.resume.hidden = !canResume(training);
    write(this.resume, t("Resume"));
    this.resume.title = t("Goes on from the last checkpoint, by itself");
  }

  /** @param {() => Promise<string>} act */
  #button(act) {
    const button = element("button", { type: "button", hidden: true });
    on(button, "click", async () => {
      button.disabled = true;
      this.#refusal = await act();
      button.disabled = false;
      this.#later();
    });
    return button;
  }

  #measure() {
    const height = this.body.offsetHeight;
    if (!height || height === this.#height) return; // not in the page, or nothing to do
    this.#height = height;
    fit(this);
  }
}
