// @ts-check
/** What a training panel knows of a job: what `GET /gloria/training/NAME` and the event `gloria.training` tell. Pure. */

import { isLinked, sourceOf, widgetOf } from "./graph.mjs";

/**
 * @typedef {"none" | "new" | "running" | "stopping" | "stopped" | "finished" | "failed" | "lost"} State `none` where
 *   there is no such job; `lost` where the process ended without a word.
 * @typedef {[number, number, number, number]} Point a step, and the mean, lowest and highest loss around it.
 * @typedef {{trained: Point[], held_out: Point[], stages: [string, number][]}} Curve a stage has a name and a first step.
 * @typedef {{
 *   name: string, state: State, stage: string, step: number, total_steps: number, done: number, loss: number | null,
 *   held_out: number | null, lr: number | null, samples_per_s: number | null, memory_mb: number | null,
 *   eta_s: number | null, error: string, lines: string[], samples: number[], films: number[], curve: Curve
 * }} Training `samples` are numbers of sheets, oldest first, and `films` those of them that move; `done` is 0..1.
 */

/** Nodes that show a job. */
export const FOLLOWERS = ["GloriaTrainLoRA", "GloriaTrainFull", "GloriaWatchTraining", "GloriaResumeTraining"];
/** Nodes whose output `job` is the name of the job that they have. */
const NAMERS = [...FOLLOWERS, "GloriaStopTraining"];
/** The job that changed last; nodes with an empty name take it. */
export const NEWEST = "";

/** @returns {Curve} */
function noCurve() {
  return { trained: [], held_out: [], stages: [] };
}

/** @returns {Training} */
export function none() {
  const numbers = { loss: null, held_out: null, lr: null, samples_per_s: null, memory_mb: null, eta_s: null };
  const lists = { lines: [], samples: [], films: [], curve: noCurve() };
  return { name: "", state: "none", stage: "", step: 0, total_steps: 0, done: 0, error: "", ...numbers, ...lists };
}

/**
 * Return the training after something was told of it; what is not told, such as the curve, stays.
 * @param {Training} before
 * @param {Partial<Training> & {name: string}} news
 * @returns {Training}
 */
export function told(before, news) {
  return { ...(before.name === news.name ? before : none()), ...news };
}

/**
 * Tell whether a process works on it.
 * @param {Training} training
 */
export function isLive({ state }) {
  return state === "running" || state === "stopping";
}

/**
 * Tell whether it can go on.
 * @param {Training} training
 */
export function canResume({ state }) {
  return state === "stopped" || state === "failed" || state === "lost";
}

/**
 * Return the name of the job that a node has.
 * @param {any} root the workflow's graph.
 * @param {any} node
 * @param {Set<any>} [seen] nodes on the way, as links may lead round until somebody queues.
 * @returns {string | null} `NEWEST`, or null where only the node itself will know.
 */
export function jobOf(root, node, seen = new Set()) {
  if (!isLinked(node, "job")) return nameIn(widgetOf(node, "job"));
  if (seen.has(node)) return null;
  const source = sourceOf(root, node, "job");
  if (NAMERS.includes(source?.type)) return jobOf(root, source, seen.add(node));
  return isLinked(source, "value") ? null : nameIn(widgetOf(source, "value"));
}

/** @param {any} widget */
function nameIn(widget) {
  return typeof widget?.value === "string" ? widget.value.trim().normalize("NFC") : null;
}
