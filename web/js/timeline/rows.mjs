// @ts-check
/** Schedules as rows of spans below the chunks; their borders are dragged, or moved with the arrow keys. */

import { element, on } from "../lib/dom.mjs";
import { bars } from "../lib/timeline_layout.mjs";
import { clock, moveCue, nextStart, parseSchedule, room, snapped } from "../lib/timeline_schedule.mjs";
import { t } from "../lib/words.mjs";

/**
 * @typedef {import("../lib/timeline_schedule.mjs").Cue} Cue
 * @typedef {{kind: "prompts" | "anchors", widget: any, text: string}} Schedule
 * @typedef {{schedules: Schedule[], starts: number[], total_s: number, snap: string}} Shown
 * @typedef {{schedule: Schedule, cues: Cue[], index: number, edge: "start" | "stop", moment_s: number}} Move
 */

const FREE_STEP_S = 0.25;

export class Rows {
  /** @type {Move | null} */
  #move = null;
  #drawn = "";
  /** @type {Shown} */
  #shown = { schedules: [], starts: [], total_s: 1, snap: "nearest" };

  /** @param {(schedule: Schedule, text: string) => void} write told the text with a moved entry. */
  constructor(write) {
    this.write = write;
    this.element = element("div", { class: "gloria-rows" });
    this.count = 0;
  }

  /** @param {Shown} shown */
  show(shown) {
    if (this.#move) return; // until the border is let go of
    this.#shown = shown;
    const { schedules, starts, total_s, snap } = shown;
    const drawn = JSON.stringify([schedules.map(({ kind, text }) => [kind, text]), starts, total_s, snap]);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.edge;
    const rows = schedules.flatMap((schedule) => this.#rows(schedule));
    this.count = rows.length;
    this.element.replaceChildren(...rows);
    if (focused) /** @type {HTMLElement | null} */ (this.element.querySelector(`[data-edge="${focused}"]`))?.focus();
  }

  /** @param {Schedule} schedule */
  #rows(schedule) {
    const cues = parseSchedule(schedule.text, schedule.kind);
    const name = schedule.kind === "prompts" ? t("Prompts") : t("Anchors");
    if (cues === null) {
      const sentence = t("This schedule cannot be read yet; the node says why when you queue.");
      return [element("div", { class: "gloria-row is-odd", "aria-label": name }, sentence)];
    }
    const has_hidings = cues.some((cue) => cue.stop_s !== null);
    return [false, ...(has_hidings ? [true] : [])].map((is_hidden) => {
      const found = bars(cues, this.#shown.total_s, is_hidden);
      const props = { class: "gloria-row", data: { kind: is_hidden ? "hidden" : schedule.kind }, role: "group" };
      const spans = found.map((bar) => this.#span(schedule, cues, bar));
      return element("div", { ...props, "aria-label": is_hidden ? t("Hidden anchors") : name }, ...spans);
    });
  }

  /**
   * @param {Schedule} schedule
   * @param {Cue[]} cues
   * @param {import("../lib/timeline_layout.mjs").Bar} bar
   */
  #span(schedule, cues, { index, left, width, label, edges }) {
    const cue = cues[index];
    const from = clock(cue.start_s);
    const when = cue.stop_s === null ? from : t("{from} to {to}", { from, to: clock(cue.stop_s) });
    const style = { left: `${left}%`, width: `${width}%` };
    const span = element("div", { class: "gloria-span", style, title: `${when}  ${label}` }, element("span", {}, label));
    for (const edge of edges) span.append(this.#edge({ schedule, cues, index, edge, moment_s: cue.start_s }));
    return span;
  }

  /** @param {Move} move */
  #edge(move) {
    const { schedule, cues, index, edge } = move;
    const [limits, cue] = [room(cues, index, edge, this.#shown.total_s), cues[index]];
    const seconds = (edge === "start" ? cue.start_s : cue.stop_s) ?? 0;
    const handle = element("div", {
      class: "gloria-edge", role: "slider", tabIndex: 0, data: { edge: `${schedule.kind} ${index} ${edge}`, side: edge },
      "aria-label": edge === "start" ? t("Start of {label}", { label: cue.label }) : t("End of {label}", { label: cue.label }), "aria-valuenow": seconds,
      "aria-valuemin": limits?.[0] ?? 0, "aria-valuemax": limits?.[1] ?? 0, "aria-valuetext": clock(seconds),
      title: t("Drag to another chunk; with Shift to any moment"),
    });
    on(handle, "pointerdown", (event) => this.#grab(event, handle, move));
    on(handle, "keydown", (event) => this.#key(event, move, seconds));
    return handle;
  }

  /**
   * @param {PointerEvent} event
   * @param {HTMLElement} handle
   * @param {Move} move
   */
  #grab(event, handle, move) {
    event.preventDefault();
    event.stopPropagation();
    const limits = room(move.cues, move.index, move.edge, this.#shown.total_s);
    if (event.button !== 0 || !limits) return;
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    const before_s = Number(handle.ariaValueNow);
    this.#move = { ...move, moment_s: before_s };
    const follow = (/** @type {PointerEvent} */ { clientX, shiftKey }) => this.#drag(handle, clientX, shiftKey, limits);
    const stops = [on(handle, "pointermove", follow)];
    const finish = (/** @type {boolean} */ is_kept) => {
      stops.forEach((stop) => stop());
      const made = this.#move;
      this.#move = null;
      this.#drawn = ""; // what the drag has moved is drawn anew
      const moment_s = is_kept && made ? made.moment_s : before_s;
      if (moment_s === before_s) this.show(this.#shown);
      else this.#put(move, moment_s);
    };
    stops.push(on(handle, "pointerup", () => finish(true)), on(handle, "pointercancel", () => finish(false)));
    stops.push(on(handle, "keydown", ({ key }) => key === "Escape" && finish(false)));
  }

  /**
   * @param {HTMLElement} handle
   * @param {number} x in pixels of the page; the canvas may be zoomed.
   * @param {boolean} is_free
   * @param {[number, number]} limits
   */
  #drag(handle, x, is_free, limits) {
    const row = /** @type {HTMLElement} */ (handle.parentElement?.parentElement).getBoundingClientRect();
    const { starts, total_s } = this.#shown;
    const moment_s = snapped((total_s * (x - row.left)) / row.width, starts, limits, is_free);
    if (moment_s === null || !this.#move) return;
    this.#move.moment_s = moment_s;
    const offset = ((moment_s - Number(handle.ariaValueNow)) / total_s) * row.width;
    const scale = row.width / Math.max(1, /** @type {HTMLElement} */ (handle.parentElement?.parentElement).offsetWidth);
    handle.style.translate = `${offset / scale}px`;
    handle.dataset.moment = clock(moment_s);
  }

  /**
   * @param {KeyboardEvent} event
   * @param {Move} move
   * @param {number} seconds
   */
  #key(event, move, seconds) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const { starts, total_s } = this.#shown;
    const limits = room(move.cues, move.index, move.edge, total_s);
    if (way === undefined || !limits || this.#move) return;
    event.preventDefault();
    event.stopPropagation();
    const is_free = event.shiftKey || !starts.length;
    const aim_s = is_free ? seconds + way * FREE_STEP_S : nextStart(seconds, starts, way);
    const moment_s = aim_s === undefined ? null : snapped(aim_s, starts, limits, is_free);
    if (moment_s !== null && (moment_s - seconds) * way > 0) this.#put(move, moment_s);
  }

  /**
   * @param {Move} move
   * @param {number} moment_s
   */
  #put({ schedule, cues, index, edge }, moment_s) {
    this.write(schedule, moveCue(schedule.text, cues[index], edge, moment_s, this.#shown.snap));
  }
}
