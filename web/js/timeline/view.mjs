// @ts-check
/** One sampler's timeline: its elements, kept in step with what is known of the run and with the graph. */

import { element, on, onceAFrame, write } from "../lib/dom.mjs";
import * as layout from "../lib/timeline_layout.mjs";
import { asked, chooseTake, rollAgain, takeBack } from "../lib/timeline_reroll.mjs";
import { empty, progressOf, shownState } from "../lib/timeline_state.mjs";
import { isLinked, sourceOf, widgetOf } from "../lib/graph.mjs";
import { t } from "../lib/words.mjs";
import { Card } from "../shared/card.mjs";
import { Menu } from "../shared/menu.mjs";
import { fit, keepPointer } from "../shared/panels.mjs";
import { Player } from "./player.mjs";
import { Rows } from "./rows.mjs";

const SVG = "http://www.w3.org/2000/svg";
/** Inputs of the sampler with the nodes whose schedules can be moved. */
const SCHEDULES = /** @type {const} */ ([
  ["prompts", "GloriaPromptSchedule"],
  ["anchors", "GloriaAnchorSchedule"],
]);

/**
 * @typedef {import("../lib/timeline_state.mjs").Cell} Cell
 * @typedef {{api: any, root: () => any, changed: () => void}} Page
 */

export class TimelineView {
  timeline = empty();
  /** Name of the run that was last asked for. */
  asked = "";
  /** When an event was last heard, on the page's clock. */
  heard_s = 0;
  /** Whether the waveform of this run is still unknown. */
  is_silent = false;
  /** @type {HTMLButtonElement[]} */
  #cells = [];
  #current = 0;
  #later = onceAFrame(() => this.#render());

  /**
   * @param {any} node
   * @param {Page} page
   */
  constructor(node, page) {
    this.node = node;
    this.page = page;
    this.head = element("div", { class: "gloria-head", role: "status" });
    this.bar = element("div", { class: "gloria-bar", "aria-hidden": "true" });
    this.wave = document.createElementNS(SVG, "svg");
    this.wave.setAttribute("preserveAspectRatio", "none");
    this.wave.append(document.createElementNS(SVG, "path"));
    this.list = element("div", { class: "gloria-cells", role: "listbox", "aria-label": t("Chunks") });
    this.rows = new Rows((row, text) => this.#writeSchedule(row, text));
    this.track = element(
      "div", { class: "gloria-track" }, element("div", { class: "gloria-lane" }, this.wave, this.list), this.rows.element,
    );
    this.foot = element("div", { class: "gloria-foot" });
    this.player = new Player((is_playing) => this.#resize(is_playing));
    this.card = new Card();
    this.menu = new Menu();
    this.element = element(
      "div", { class: "gloria-timeline", role: "group", "aria-label": t("Chunk timeline") },
      element("div", { class: "gloria-top" }, this.head, this.bar), element("div", { class: "gloria-scroll" }, this.track),
      this.foot, this.player.element, this.card.element, this.menu.element,
    );
    this.#listen();
    this.refresh();
  }

  /** Height in pixels that the node keeps for it. */
  get height() {
    return layout.heightOf({ rows: this.rows.count, is_playing: this.player.is_playing });
  }

  /** @param {import("../lib/timeline_state.mjs").Timeline} timeline */
  show(timeline) {
    this.timeline = timeline;
    this.#later();
  }

  /**
   * Draw the sound.
   * @param {{peaks: number[], seconds: number}} waveform
   */
  draw({ peaks, seconds }) {
    this.sound_s = seconds;
    this.wave.setAttribute("viewBox", `0 0 ${Math.max(1, peaks.length - 1)} 100`);
    this.wave.firstElementChild?.setAttribute("d", layout.waveformPath(peaks));
    this.#later();
  }

  /** Look at the graph again: what is connected, and what stands in the inputs. */
  refresh() {
    this.#later();
  }

  #render() {
    const { timeline } = this;
    const total_s = layout.totalOf(timeline, Number(widgetOf(this.node, "seconds")?.value ?? 0));
    Object.assign(this.element.dataset, { phase: timeline.phase, node: this.node.id });
    write(this.head, layout.headline(timeline));
    this.head.title = this.head.textContent ?? "";
    this.bar.style.setProperty("--part", String(progressOf(timeline)));
    write(this.foot, timeline.lines.join(" "));
    this.foot.title = timeline.lines.join("\n");
    this.track.style.minWidth = `${layout.leastWidth(timeline.cells.length)}px`;
    this.wave.style.width = `${layout.share(this.sound_s ?? 0, total_s)}%`;
    this.#renderCells(total_s);
    this.#renderRows(total_s);
    this.element.style.minHeight = `${this.height}px`;
  }

  /** @param {number} total_s */
  #renderCells(total_s) {
    const { cells, threshold } = this.timeline;
    if (this.#cells.length !== cells.length) {
      this.#cells = cells.map((_, index) => this.#newCell(index));
      this.list.replaceChildren(...this.#cells);
      this.#current = Math.min(this.#current, Math.max(0, cells.length - 1));
    }
    const rerolls = asked(this.#reroll(), cells);
    cells.forEach((cell, index) => {
      const button = this.#cells[index];
      const state = shownState(cell, threshold);
      const left = layout.share(cell.start_s, total_s);
      button.style.left = `${left}%`;
      button.style.width = `${layout.share(cell.end_s, total_s) - left}%`;
      button.style.setProperty("--part", String(cell.part));
      Object.assign(button.dataset, { state, asked: rerolls.has(cell.number), ready: cell.is_ready });
      button.tabIndex = index === this.#current ? 0 : -1;
      button.ariaLabel = layout.spoken(cell, state);
      write(/** @type {HTMLElement} */ (button.firstElementChild), cell.similarity?.toFixed(2) ?? "");
      button.ariaSelected = String(this.player.number === cell.number);
    });
  }

  /** @param {number} total_s */
  #renderRows(total_s) {
    const starts = this.timeline.cells.map((cell) => cell.start_s);
    const snap = String(widgetOf(this.node, "snap")?.value ?? "nearest");
    const before = this.rows.count;
    this.rows.show({ schedules: this.#schedules(), starts, total_s, snap });
    if (this.rows.count !== before) fit(this);
  }

  /** Return the schedules that are connected and whose text is known. */
  #schedules() {
    return SCHEDULES.flatMap(([kind, type]) => {
      const source = sourceOf(this.page.root(), this.node, kind);
      const widget = widgetOf(source, "schedule");
      if (source?.type !== type || !widget || isLinked(source, "schedule")) return [];
      return [{ kind, widget, text: String(widget.value ?? "") }];
    });
  }

  #reroll() {
    return String(widgetOf(this.node, "reroll")?.value ?? "");
  }

  /** @param {number} index */
  #newCell(index) {
    const button = element("button", { class: "gloria-cell", type: "button", role: "option" }, element("span"));
    on(button, "click", () => this.#play(index));
    on(button, "contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.#openMenu(index);
    });
    on(button, "pointerenter", () => this.#showCard(index));
    on(button, "focus", () => this.#focused(index));
    on(button, "pointerleave", () => this.card.hide());
    on(button, "blur", () => this.card.hide());
    return button;
  }

  #listen() {
    on(this.list, "keydown", (event) => this.#key(event));
    keepPointer(this.element);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#cells.length - 1;
    const to = { ArrowLeft: this.#current - 1, ArrowRight: this.#current + 1, Home: 0, End: last }[event.key];
    if (to !== undefined) this.#focus(Math.min(last, Math.max(0, to)));
    else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) this.#openMenu(this.#current);
    else if (event.key === "Escape") this.player.close();
    else if (event.key !== "Enter" && event.key !== " ") return;
    else this.#play(this.#current);
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} index */
  #focus(index) {
    this.#current = index;
    this.#cells.forEach((button, place) => (button.tabIndex = place === index ? 0 : -1));
    this.#cells[index]?.focus();
    this.#cells[index]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {number} index */
  #play(index) {
    const cell = this.timeline.cells[index];
    this.#current = index;
    if (!cell.is_ready) return;
    const run = encodeURIComponent(this.timeline.run);
    const path = `/gloria/runs/${run}/chunks/${cell.number}?segment=${encodeURIComponent(cell.segment)}`;
    this.player.play(cell.number, this.page.api.apiURL(path));
    this.#later();
  }

  /** @param {number} index */
  #focused(index) {
    const button = this.#cells[index];
    // A menu that closes gives the focus back before the page lets anything else be shown.
    requestAnimationFrame(() => button.matches(":focus-visible") && this.#showCard(index));
  }

  /** @param {number} index */
  #showCard(index) {
    const { cells, threshold } = this.timeline;
    const cell = cells[index];
    if (this.menu.is_open || !cell) return;
    const written = asked(this.#reroll(), cells).get(cell.number);
    this.card.show(this.#cells[index], layout.cardLines(cell, shownState(cell, threshold), written));
  }

  /** @param {number} index */
  #openMenu(index) {
    this.card.hide();
    this.#current = index;
    const { cells } = this.timeline;
    const { number, takes, is_ready } = cells[index];
    const text = this.#reroll();
    const write = (/** @type {string} */ changed) => () => this.#writeReroll(changed);
    const others = takes.filter((take) => !take.in_film);
    this.menu.open(this.#cells[index], t("Chunk {number}", { number }), [
      is_ready && { label: t("Play"), act: () => this.#play(index) },
      { label: t("Re-roll this chunk"), act: write(rollAgain(text, number, cells, "again")) },
      { label: t("Re-roll and bridge to the later chunks"), act: write(rollAgain(text, number, cells, "bridge")) },
      { label: t("Re-roll from here, later chunks anew"), act: write(rollAgain(text, number, cells, "onward")) },
      ...others.map(({ take, drift }) => ({
        label: `${t("Choose take {take}", { take })}${alike(drift?.similarity)}`,
        act: write(chooseTake(text, number, cells, take)),
      })),
      asked(text, cells).has(number) && { label: t("As without a re-roll"), act: write(takeBack(text, number, cells)) },
    ]);
  }

  /** @param {string} text */
  #writeReroll(text) {
    const widget = widgetOf(this.node, "reroll");
    if (widget) this.#write(widget, text);
  }

  /**
   * @param {{widget: any}} row
   * @param {string} text
   */
  #writeSchedule(row, text) {
    this.#write(row.widget, text);
  }

  /**
   * Write an input as a person would, so that the host's undo takes it back.
   * @param {any} widget
   * @param {string} text
   */
  #write(widget, text) {
    widget.value = text;
    widget.callback?.(text);
    this.page.changed();
    this.#later();
  }

  /** @param {boolean} is_playing */
  #resize(is_playing) {
    this.element.classList.toggle("is-playing", is_playing);
    this.#later();
    fit(this);
  }
}

/** @param {number | undefined} similarity */
function alike(similarity) {
  return similarity === undefined ? "" : ` (${t("similarity {value}", { value: similarity.toFixed(2) })})`;
}
