// @ts-check
/** Where everything lies along the timeline, and how it is put into words. Pure. */

import { clock } from "./timeline_schedule.mjs";

/**
 * @typedef {import("./timeline_schedule.mjs").Cue} Cue
 * @typedef {import("./timeline_state.mjs").Timeline} Timeline
 * @typedef {import("./timeline_state.mjs").Cell} Cell
 * @typedef {{index: number, left: number, width: number, label: string, edges: ("start" | "stop")[]}} Bar
 *   `left` and `width` in percent; `index` is the cue's.
 */

const LEAST_CELL_PX = 12;
const MOST_LETTERS = 80;
const HEAD_PX = 24;
const CELLS_PX = 46;
const ROW_PX = 20;
const FOOT_PX = 24;
const PLAYER_PX = 190;
const STATES = { waiting: "waiting", sampling: "being made", done: "done", reused: "used again", drifting: "drifting" };
const STOPPED = "queue again to go on";
const PHASES = { finished: "Finished", stopped: `Stopped; ${STOPPED}`, failed: `Failed; ${STOPPED}` };

/**
 * Return the seconds that the timeline shows: the video as it is wanted and as it was made.
 * @param {Timeline} timeline
 * @param {number} wanted_s
 */
export function totalOf({ cells }, wanted_s) {
  return Math.max(cells.at(-1)?.end_s ?? 0, Number.isFinite(wanted_s) ? wanted_s : 0, 0.1);
}

/**
 * Return cues as bars. What holds from a moment on reaches to the next; what is hidden has two edges.
 * @param {Cue[]} cues
 * @param {number} total_s
 * @param {boolean} is_hidden which of the two kinds.
 * @returns {Bar[]}
 */
export function bars(cues, total_s, is_hidden = false) {
  const chosen = cues.map((cue, index) => ({ cue, index })).filter(({ cue }) => (cue.stop_s !== null) === is_hidden);
  return chosen.map(({ cue, index }, place) => {
    const stop_s = Math.min(total_s, cue.stop_s ?? chosen[place + 1]?.cue.start_s ?? total_s);
    const left = share(cue.start_s, total_s);
    const edges = /** @type {("start" | "stop")[]} */ (is_hidden ? ["start", "stop"] : place && cue.start ? ["start"] : []);
    return { index, left, width: Math.max(0, share(stop_s, total_s) - left), label: cue.label, edges };
  });
}

/**
 * Return a moment as percent of the timeline.
 * @param {number} seconds
 * @param {number} total_s
 */
export function share(seconds, total_s) {
  return (100 * Math.min(Math.max(seconds, 0), total_s)) / total_s;
}

/**
 * Return how wide the timeline must be for every chunk to be hit.
 * @param {number} num_cells
 */
export function leastWidth(num_cells) {
  return num_cells * LEAST_CELL_PX;
}

/**
 * Return the height of the whole in pixels.
 * @param {{rows: number, is_playing: boolean}} shown
 */
export function heightOf({ rows, is_playing }) {
  return HEAD_PX + CELLS_PX + rows * ROW_PX + FOOT_PX + (is_playing ? PLAYER_PX : 0);
}

/**
 * Return a waveform as an SVG path, mirrored at its middle, 100 high and as wide as there are peaks.
 * @param {number[]} peaks 0 to 100.
 */
export function waveformPath(peaks) {
  if (!peaks.length) return "";
  const half = (/** @type {number} */ peak) => Math.max(0.5, peak / 2);
  const above = peaks.map((peak, x) => `${x},${50 - half(peak)}`);
  const below = peaks.map((peak, x) => `${x},${50 + half(peak)}`).reverse();
  return `M${[...above, ...below].join("L")}Z`;
}

/**
 * Return how far a run is, in a line.
 * @param {Timeline} timeline
 */
export function headline({ phase, cells, left_s, run, reason }) {
  if (phase === "empty") return "Queue to see the chunks here. Each one plays as soon as it is finished.";
  const done = cells.filter((one) => one.is_ready).length;
  const name = run ? ` · ${run}` : "";
  if (phase !== "running") return `${PHASES[phase]} · ${done} of ${cells.length} chunks${name}${reason && ` · ${reason}`}`;
  const now = cells.find((one) => one.state === "sampling" || one.state === "drifting");
  const place = now ? `Chunk ${now.number} of ${cells.length}` : `${done} of ${cells.length} chunks`;
  return `${place}${left_s === null ? "" : ` · about ${duration(left_s)} left`}${name}`;
}

/**
 * Return what a chunk's card tells, by name.
 * @param {Cell} cell
 * @param {keyof typeof STATES} state as it is shown.
 * @param {string | undefined} asked the re-roll that stands in the input for it.
 * @returns {[string, string][]}
 */
export function cardLines(cell, state, asked) {
  const share = cell.state === "sampling" ? ` (${Math.round(cell.part * 100)} %)` : "";
  const tries = cell.attempts > 1 ? `, ${cell.attempts} tries` : "";
  /** @type {[string, string | false][]} */
  const lines = [
    ["Chunk", `${cell.number}, ${clock(cell.start_s)} to ${clock(cell.end_s)}`],
    ["State", `${STATES[state]}${share}${tries}`],
    ["Prompt", cell.prompt],
    ["Similarity", cell.similarity !== null && cell.similarity.toFixed(3)],
    ["Seed", cell.seed],
    ["Take", cell.take !== null && `${cell.take}${cell.takes.length > 1 ? ` of ${cell.takes.length}` : ""}`],
    ["Made in", cell.seconds !== null && duration(cell.seconds)],
    ["Re-roll", asked ?? false],
  ];
  return /** @type {[string, string][]} */ (lines.filter(([, value]) => value));
}

/**
 * Return what a screen reader says of a chunk.
 * @param {Cell} cell
 * @param {keyof typeof STATES} state
 */
export function spoken(cell, state) {
  const alike = cell.similarity === null ? "" : `, similarity ${cell.similarity.toFixed(2)}`;
  return `Chunk ${cell.number}, ${STATES[state]}${alike}${cell.is_ready ? ". Press Enter to play" : ""}`;
}

/**
 * Return a time in words: "0.4 s", "12 s", "3 min 20 s", "1 h 5 min".
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * Return the name of the run that a sampler works in; "" where only the sampler knows.
 * @param {string} run the input of that name.
 * @param {string} prefix the file's name, which a run without a name is called after.
 */
export function runName(run, prefix) {
  const named = run.trim().normalize("NFC");
  if (named) return named;
  const made = prefix.replace(/[^\p{L}\p{N}_.-]+/gu, "_").replace(/^[._-]+|[._-]+$/g, "") || "video";
  const bytes = new TextEncoder().encode(made).length;
  return [...made].length <= MOST_LETTERS && bytes <= 2 * MOST_LETTERS ? made.normalize("NFC") : "";
}
