// @ts-check
/** All training panels of the page: who is told which event, and when the host is asked. */

import { on } from "../lib/dom.mjs";
import { nodeAt } from "../lib/graph.mjs";
import { FOLLOWERS, NEWEST, isLive, jobOf, none, told } from "../lib/training_state.mjs";
import { t } from "../lib/words.mjs";
import { Panels } from "../shared/panels.mjs";
import { TrainingView } from "./view.mjs";

const WIDGET = "training_panel";
const POINTS = 300;
/** While a training works and somebody sees it, it is asked about so often. */
const PAUSE_S = 2;
/** Long trainings take long to answer: the host is not kept busier than one part in so many. */
const SHARE = 10;
/** After so many seconds without news a job is looked up when somebody comes near. */
const SILENCE_S = 5;

/** @typedef {import("../lib/training_state.mjs").Training} Training */

/** @extends {Panels<TrainingView>} */
export class Trainings extends Panels {
  /** By the names of jobs. @type {Map<string, number>} */
  #timers = new Map();
  /** Jobs that are being asked about, and whether to ask once more then. @type {Map<string, boolean>} */
  #asked = new Map();
  #pause_s = PAUSE_S;

  /**
   * @param {any} app the host's.
   * @param {any} api the host's.
   */
  constructor(app, api) {
    super(app, api, FOLLOWERS);
    this.sight = new IntersectionObserver((entries) => entries.forEach((entry) => this.#seen(entry)));
    /** @type {WeakMap<Element, TrainingView>} */
    this.byElement = new WeakMap();
  }

  /** Hear what the host tells. */
  listen() {
    this.followGraphs();
    on(this.api, "gloria.training", ({ detail: { node, ...news } }) => this.#hear(node, news));
    on(this.api, "executed", ({ detail }) => {
      const news = detail?.output?.gloria_training?.[0];
      if (news) this.#hear(detail.node, news);
    });
    on(this.api, "reconnected", () => this.fill());
    on(this.api, "graphChanged", () => this.fill(this.all().filter((view) => view.wanted !== this.#wanted(view))));
    on(document, "visibilitychange", () => document.hidden || this.fill());
  }

  /**
   * Give a new node its panel.
   * @param {any} node
   */
  add(node) {
    const view = new TrainingView(node, {
      url: (path) => this.api.apiURL(path),
      stop: () => this.#stop(view),
      resume: () => this.#post(view.training.name, "resume"),
    });
    this.put(view, WIDGET);
    this.byElement.set(view.element, view);
    this.sight.observe(view.element);
    on(view.element, "pointerenter", () => this.#near(view));
  }

  /**
   * Ask which job each node has, and how it stands.
   * @param {TrainingView[]} [views]
   */
  async fill(views = this.all()) {
    if (!views.length) return;
    this.replaceOldSoon();
    for (const view of views) view.wanted = this.#wanted(view);
    const wanted = new Set(views.map((view) => view.wanted).filter((name) => name !== null));
    const found = await Promise.all([...wanted].map((name) => this.#find(name)));
    const jobs = new Map([...wanted].map((name, index) => [name, found[index]]));
    for (const view of views) {
      const job = view.wanted !== null && view.wanted === this.#wanted(view) ? jobs.get(view.wanted) : undefined;
      if (job !== undefined) view.told_s = performance.now() / 1000;
      if (job === "") view.show(none());
      else if (job !== undefined && job !== view.training.name) view.show(told(view.training, { name: job }));
    }
    await Promise.all([...new Set(jobs.values())].map((name) => name && this.#ask(name)));
  }

  /**
   * Return the name of a job that is there; "" where it is not, undefined where nobody answers.
   * @param {string} name
   * @returns {Promise<string | undefined>}
   */
  async #find(name) {
    const query = new URLSearchParams(name === NEWEST ? { count: "1" } : { name });
    const found = await this.get(`/gloria/training?${query}`);
    return found ? (found[0]?.name ?? "") : undefined;
  }

  /** @param {TrainingView} view */
  #wanted(view) {
    return jobOf(this.root(), view.node);
  }

  /**
   * @param {string} id of the node that told it.
   * @param {Training} news
   */
  #hear(id, news) {
    const teller = nodeAt(this.root(), id);
    const meant = this.all().filter((view) => {
      const wanted = this.#wanted(view);
      return wanted === news.name || wanted === NEWEST || (wanted === null && view.node === teller);
    });
    for (const view of meant) {
      view.wanted = this.#wanted(view);
      this.#show(view, news);
    }
    if (meant.length && !isLive(news)) this.#ask(news.name); // the end of the curve: nothing more will be told
    this.#follow();
  }

  /**
   * @param {TrainingView} view
   * @param {Partial<Training> & {name: string}} news
   */
  #show(view, news) {
    view.told_s = performance.now() / 1000;
    view.show(told(view.training, news));
  }

  /**
   * Ask how a job stands, and show it on all its panels.
   * @param {string} name
   */
  async #ask(name) {
    const is_asked = this.#asked.has(name);
    this.#asked.set(name, is_asked);
    if (is_asked) return;
    const began_s = performance.now() / 1000;
    const answer = await this.get(`/gloria/training/${encodeURIComponent(name)}?points=${POINTS}`);
    const once_more = this.#asked.get(name);
    this.#asked.delete(name);
    this.#pause_s = Math.max(PAUSE_S, SHARE * (performance.now() / 1000 - began_s));
    if (!answer) return; // "reconnected" asks again, and so does who comes near
    for (const view of this.all().filter((view) => view.training.name === name)) {
      // What was heard while the host was asked is newer than its answer.
      this.#show(view, view.told_s > began_s ? { name, curve: answer.curve } : answer);
    }
    if (once_more) await this.#ask(name);
    this.#follow();
  }

  /** Ask again after a while about what works and is seen. */
  #follow() {
    if (document.hidden) return;
    const names = this.all().filter((view) => view.is_seen && isLive(view.training)).map((view) => view.training.name);
    for (const name of new Set(names)) {
      if (this.#timers.has(name)) continue;
      this.#timers.set(name, setTimeout(() => this.#again(name), 1000 * this.#pause_s));
    }
  }

  /** @param {string} name */
  #again(name) {
    this.#timers.delete(name);
    const is_followed = this.all().some((view) => view.training.name === name && view.is_seen && isLive(view.training));
    if (is_followed && !document.hidden) this.#ask(name);
  }

  /** @param {IntersectionObserverEntry} entry */
  #seen({ target, isIntersecting }) {
    const view = this.byElement.get(target);
    if (!view) return;
    view.is_seen = isIntersecting;
    if (isIntersecting && isLive(view.training)) this.#ask(view.training.name);
  }

  /** @param {TrainingView} view */
  #near(view) {
    const silent_s = performance.now() / 1000 - view.told_s;
    if (view.wanted !== this.#wanted(view) || silent_s > SILENCE_S) this.fill([view]);
  }

  /**
   * Stop a training. Asked again it is ended at once: not by a person who has not seen that it stops already.
   * @param {TrainingView} view
   */
  async #stop(view) {
    const { name, state } = view.training;
    const now = await this.get(`/gloria/training/${encodeURIComponent(name)}`);
    if (!now || now.state === state) return this.#post(name, "stop");
    this.#show(view, now);
    return "";
  }

  /**
   * @param {string} name of the job.
   * @param {"stop" | "resume"} wish
   * @returns {Promise<string>} why it could not be; "" where it could.
   */
  async #post(name, wish) {
    const path = `/gloria/training/${encodeURIComponent(name)}/${wish}`;
    try {
      const request = { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } };
      const answer = await this.api.fetchApi(path, request);
      if (!answer.ok) return await refusal(answer);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#ask(name); // where nobody answers, the page itself says that the connection is lost
    return "";
  }
}

/**
 * Return why the host refused; not every refusal is one of the pack, with a sentence.
 * @param {Response} answer
 * @returns {Promise<string>}
 */
async function refusal(answer) {
  const is_ours = answer.headers.get("content-type")?.includes("json");
  return (is_ours && (await answer.json()).error) || t("ComfyUI refused ({status}).", { status: answer.status });
}
