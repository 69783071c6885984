// @ts-check
/** What a timeline knows of a run, from the host's events or from `GET /gloria/runs/NAME`. Pure: each gives a new one. */

/**
 * @typedef {"waiting" | "sampling" | "done" | "reused" | "drifting"} ChunkState
 * @typedef {{take: number, seed: string, prompt: string, drift: {similarity?: number} | null, in_film: boolean}} Take
 * @typedef {{
 *   number: number, start_s: number, end_s: number, state: ChunkState, part: number, is_ready: boolean,
 *   take: number | null, seed: string, prompt: string, similarity: number | null, seconds: number | null,
 *   attempts: number, segment: string, takes: Take[]
 * }} Cell `number` counts from 1; `part` (0..1) of it is sampled; `is_ready` where its clip can be played.
 * @typedef {{
 *   run: string, phase: "empty" | "running" | "finished" | "stopped" | "failed", cells: Cell[], lines: string[],
 *   left_s: number | null, threshold: number, reason: string
 * }} Timeline
 */

/** Below this a chunk is marked where the user has set no threshold of their own. Source: docs/decisions/009. */
export const USUAL_THRESHOLD = 0.7;

/** @returns {Timeline} */
export function empty() {
  return { run: "", phase: "empty", cells: [], lines: [], left_s: null, threshold: 0, reason: "" };
}

/**
 * @param {number} number
 * @param {Partial<Cell>} known
 * @returns {Cell}
 */
function cell(number, known) {
  const nothing = { take: null, seed: "", prompt: "", similarity: null, seconds: null, attempts: 0, segment: "" };
  return {
    number, start_s: 0, end_s: 0, state: "waiting", part: 0, is_ready: false, ...nothing, takes: [], ...known,
  };
}

/**
 * Return the timeline of a run that begins, from `gloria.plan`. What is used again is known from before.
 * @param {Timeline} before
 * @param {any} event
 * @returns {Timeline}
 */
export function planned(before, event) {
  const known = before.run === event.run ? before.cells : [];
  const cells = event.chunks.map((/** @type {any} */ { chunk, start_s, end_s, state }) => {
    const old = known[chunk - 1];
    const kept = state === "reused" && old ? { ...old, part: 1 } : { takes: old?.takes ?? [] };
    return cell(chunk, { ...kept, start_s, end_s, state, is_ready: false });
  });
  const { run, lines, threshold = 0 } = event;
  return { run, phase: "running", cells, lines, left_s: null, threshold, reason: "" };
}

/**
 * Return the timeline after a solver step, from `gloria.progress`. The host tells the last step of a chunk once more
 * when the chunk is part of the film, also of one that is used again.
 * @param {Timeline} before
 * @param {any} event
 * @returns {Timeline}
 */
export function progressed(before, event) {
  const part = event.steps ? event.step / event.steps : 0;
  const cells = before.cells.map((old) => {
    const is_over = part >= 1 && (old.state === "reused" || old.state === "done");
    if (old.number !== event.chunk || is_over) return old;
    return { ...old, state: /** @type {ChunkState} */ ("sampling"), part, prompt: event.prompt, is_ready: false };
  });
  return { ...before, phase: "running", cells, left_s: event.left_s ?? null };
}

/**
 * Return the timeline after a chunk became part of the film, or drifts and is sampled again, from `gloria.chunk`.
 * @param {Timeline} before
 * @param {any} event
 * @returns {Timeline}
 */
export function chunked(before, event) {
  const cells = before.cells.map((old) => {
    if (old.number !== event.chunk) return old;
    const similarity = event.drift?.similarity ?? null;
    if (event.state === "drifting") return { ...old, state: event.state, similarity, attempts: event.attempts, part: 0 };
    const { take, seed, prompt, state, attempts, segment } = event;
    const seconds = state === "reused" ? old.seconds : event.seconds;
    const told = { take, seed, prompt, state, attempts, segment, similarity, seconds, part: 1, is_ready: true };
    return { ...old, ...told, takes: withTake(old.takes, { take, seed, prompt, drift: event.drift, in_film: true }) };
  });
  return { ...before, cells };
}

/**
 * Return the timeline when nothing works on the run any more.
 * @param {Timeline} before
 * @param {"finished" | "stopped" | "failed"} phase
 * @param {string} [reason]
 * @returns {Timeline}
 */
export function ended(before, phase, reason = "") {
  if (before.phase !== "running") return before;
  const cells = before.cells.map((old) =>
    old.state === "sampling" ? { ...old, state: /** @type {ChunkState} */ ("waiting"), part: 0 } : old,
  );
  return { ...before, phase, cells, left_s: null, reason };
}

/**
 * Return the timeline of a run as the disk tells it, from `GET /gloria/runs/NAME`.
 * @param {any} view
 * @returns {Timeline}
 */
export function viewed(view) {
  const made = new Map(view.chunks.map((/** @type {any} */ entry) => [entry.chunk, entry]));
  const spans = view.spans?.length ? view.spans : view.chunks.map((/** @type {any} */ e) => [e.start_s, e.end_s]);
  const next = view.state === "running" ? view.chunks.length + 1 : 0;
  const cells = spans.map((/** @type {number[]} */ [start_s, end_s], /** @type {number} */ index) => {
    const number = index + 1;
    const span = { start_s, end_s, takes: view.takes?.[number] ?? [] };
    const entry = made.get(number);
    if (entry) return cell(number, { ...span, ...entryOf(entry) });
    const state = number === next ? "sampling" : view.planned?.[index] === "disk" ? "reused" : "waiting";
    return cell(number, { ...span, state });
  });
  const { name: run, state: phase, plan: lines = [], meter, reason } = view;
  return { run, phase, cells, lines, left_s: null, threshold: meter?.threshold ?? 0, reason: reason ?? "" };
}

/**
 * @param {any} entry
 * @returns {Partial<Cell>}
 */
function entryOf(entry) {
  const { take, seed, prompt, attempts, segment, drift, seconds, reused } = entry;
  const told = { take, seed, prompt, attempts, segment, seconds: reused ? null : seconds };
  const state = /** @type {ChunkState} */ (reused ? "reused" : "done");
  return { ...told, similarity: drift?.similarity ?? null, state, part: 1, is_ready: true };
}

/**
 * Return the takes with one that is in the film.
 * @param {Take[]} takes
 * @param {Take} chosen
 * @returns {Take[]}
 */
function withTake(takes, chosen) {
  const others = takes.filter((one) => one.take !== chosen.take).map((one) => ({ ...one, in_film: false }));
  return [...others, chosen].sort((a, b) => a.take - b.take);
}

/**
 * Return what a cell is shown as: a finished chunk that looks too unlike the character is drifting.
 * @param {Cell} cell
 * @param {number} threshold the user's; 0 takes the usual one.
 * @returns {ChunkState}
 */
export function shownState({ state, similarity }, threshold) {
  const is_made = state === "done" || state === "reused";
  return is_made && similarity !== null && similarity < (threshold || USUAL_THRESHOLD) ? "drifting" : state;
}

/**
 * Return how much of a video is made, 0..1.
 * @param {Timeline} timeline
 */
export function progressOf({ cells }) {
  const done = cells.reduce((sum, one) => sum + one.part, 0);
  return cells.length ? done / cells.length : 0;
}
