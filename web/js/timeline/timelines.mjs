// @ts-check
/** All timelines of the page: who is told which event, and what each is filled with after the page was loaded. */

import { on } from "../lib/dom.mjs";
import { runName } from "../lib/timeline_layout.mjs";
import { chunked, empty, ended, planned, progressed, viewed } from "../lib/timeline_state.mjs";
import { isLinked, nodeAt, widgetOf } from "../lib/graph.mjs";
import { Panels } from "../shared/panels.mjs";
import { TimelineView } from "./view.mjs";

export const SAMPLER = "GloriaChunkedLongSampler";
const WIDGET = "chunk_timeline";
/** After so many seconds without an event a run that seems to work is looked up when somebody comes near. */
const SILENCE_S = 5;

/** @extends {Panels<TimelineView>} */
export class Timelines extends Panels {
  /**
   * @param {any} app the host's.
   * @param {any} api the host's.
   */
  constructor(app, api) {
    super(app, api, [SAMPLER]);
  }

  /** Hear what the host tells. */
  listen() {
    this.followGraphs();
    const heard = { "gloria.plan": planned, "gloria.progress": progressed, "gloria.chunk": chunked };
    for (const [type, change] of Object.entries(heard)) {
      on(this.api, type, ({ detail }) => this.#hear(type, detail, change));
    }
    on(this.api, "execution_success", () => this.#end("finished"));
    on(this.api, "execution_interrupted", () => this.#end("stopped"));
    on(this.api, "execution_error", ({ detail }) => this.#end("failed", detail?.exception_message));
    on(this.api, "executed", ({ detail }) => this.#executed(detail));
    on(this.api, "reconnected", () => this.fill());
    on(this.api, "graphChanged", () => this.all().forEach((view) => this.#look(view)));
  }

  /**
   * Give a new sampler its timeline.
   * @param {any} node
   */
  add(node) {
    const view = new TimelineView(node, { api: this.api, root: () => this.root(), changed: () => this.changed() });
    this.put(view, WIDGET);
    on(view.element, "pointerenter", () => this.#near(view));
  }

  /** Ask for the run of every sampler, once for each name. */
  fill() {
    this.replaceOldSoon();
    const byName = new Map();
    for (const view of this.all()) {
      view.refresh();
      const name = nameOf(view.node);
      if (name) byName.set(name, [...(byName.get(name) ?? []), view]);
    }
    return this.#ask(byName);
  }

  /**
   * @param {string} type
   * @param {any} event
   * @param {(before: any, event: any) => any} change
   */
  #hear(type, event, change) {
    const view = this.of(nodeAt(this.root(), event.node));
    if (!view || !this.#isOurs(view, event)) return;
    view.heard_s = performance.now() / 1000;
    if (type === "gloria.plan") view.is_silent = true;
    view.show(change(view.timeline, event));
    if (type !== "gloria.plan" && view.is_silent) this.#askWaveform(view);
  }

  /**
   * Tell whether an event is of the node's run: another workflow of the same page has nodes with the same numbers.
   * @param {TimelineView} view
   * @param {any} event
   */
  #isOurs(view, { run }) {
    if (run === undefined) return view.timeline.phase === "running";
    const name = nameOf(view.node);
    return name === "" || name === run || (view.timeline.phase === "running" && view.timeline.run === run);
  }

  /**
   * @param {"finished" | "stopped" | "failed"} phase
   * @param {string} [reason]
   */
  #end(phase, reason) {
    for (const view of this.all()) view.show(ended(view.timeline, phase, reason));
  }

  /**
   * A node that was not run again, because nothing had changed, tells only its run.
   * @param {any} detail
   */
  #executed(detail) {
    const run = detail?.output?.gloria_run?.[0];
    const view = run && this.of(nodeAt(this.root(), detail.node));
    if (!view || !this.#isOurs(view, { run })) return;
    if (view.timeline.run !== run || view.timeline.phase !== "running") this.#ask(new Map([[run, [view]]]));
    else view.show(ended(view.timeline, "finished"));
  }

  /**
   * Show what the graph says now: schedules, length, another run's name.
   * @param {TimelineView} view
   */
  #look(view) {
    view.refresh();
    const name = nameOf(view.node);
    if (name && name !== view.asked && view.timeline.phase !== "running") this.#ask(new Map([[name, [view]]]));
  }

  /** @param {TimelineView} view */
  #near(view) {
    this.#look(view);
    const silent_s = performance.now() / 1000 - view.heard_s;
    if (view.timeline.phase === "running" && silent_s > SILENCE_S) this.#ask(new Map([[view.timeline.run, [view]]]));
  }

  /**
   * Ask which runs there are, and fill the timelines of those.
   * @param {Map<string, TimelineView[]>} byName
   */
  async #ask(byName) {
    if (!byName.size) return;
    const heard = new Map();
    for (const [name, views] of byName)
      for (const view of views) {
        view.asked = name;
        heard.set(view, view.heard_s);
      }
    const found = await this.get(`/gloria/runs?${new URLSearchParams([...byName.keys()].map((name) => ["name", name]))}`);
    if (!found) return;
    const names = new Set(found.map((/** @type {any} */ run) => run.name));
    await Promise.all([...byName].map(([name, views]) => this.#fill(name, views, names.has(name), heard)));
  }

  /**
   * @param {string} run
   * @param {TimelineView[]} views
   * @param {boolean} is_there
   * @param {Map<TimelineView, number>} heard when each had heard of a run last, as it was asked for
   */
  async #fill(run, views, is_there, heard) {
    const path = `/gloria/runs/${encodeURIComponent(run)}`;
    const [told, drawn] = is_there ? await Promise.all([this.get(path), this.get(`${path}/waveform`)]) : [];
    views.forEach((view) => {
      if (view.heard_s !== heard.get(view) || view.asked !== run) return; // what it hears is newer than the answer
      view.is_silent = false;
      view.show(told ? viewed(told) : empty());
      view.draw(drawn ?? { peaks: [], seconds: 0 });
    });
  }

  /** @param {TimelineView} view */
  async #askWaveform(view) {
    view.is_silent = false;
    const drawn = await this.get(`/gloria/runs/${encodeURIComponent(view.timeline.run)}/waveform`);
    if (drawn) view.draw(drawn);
  }
}

/**
 * Return the run that a sampler works in; "" where only the sampler knows.
 * @param {any} node
 */
function nameOf(node) {
  if (isLinked(node, "run") || isLinked(node, "filename_prefix")) return "";
  return runName(String(widgetOf(node, "run")?.value ?? ""), String(widgetOf(node, "filename_prefix")?.value ?? ""));
}
