// @ts-check
/** Where everything lies along the timeline, and how it is put into words. Pure. */

import { duration } from "./duration.mjs";
import { clock } from "./timeline_schedule.mjs";
import { t } from "./words.mjs";

/**
 * @typedef {import("./timeline_schedule.mjs").Cue} Cue
 * @typedef {import("./timeline_state.mjs").Timeline} Timeline
 * @typedef {import("./timeline_state.mjs").Cell} Cell
 * @typedef {import("./timeline_state.mjs").ChunkState} ChunkState
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
  if (phase === "empty") return t("Queue to see the chunks here. Each one plays as soon as it is finished.");
  const total = cells.length;
  const done = t("{count} of {total} chunks", { count: cells.filter((one) => one.is_ready).length, total });
  if (phase !== "running") return joined(ending(phase), done, run, reason);
  const now = cells.find((one) => one.state === "sampling" || one.state === "drifting");
  const left = left_s === null ? "" : t("about {time} left", { time: duration(left_s) });
  return joined(now ? t("Chunk {number} of {total}", { number: now.number, total }) : done, left, run);
}

/** @param {"finished" | "stopped" | "failed"} phase */
function ending(phase) {
  return {
    finished: t("Finished"),
    stopped: t("Stopped; queue again to go on"),
    failed: t("Failed; queue again to go on"),
  }[phase];
}

/** @param {...string} parts what is empty is left out. */
function joined(...parts) {
  return parts.filter(Boolean).join(" · ");
}

/** @param {ChunkState} state */
function called(state) {
  return {
    waiting: t("waiting"),
    sampling: t("being made"),
    done: t("done"),
    reused: t("used again"),
    drifting: t("drifting"),
  }[state];
}

/**
 * Return what a chunk's card tells, by name.
 * @param {Cell} cell
 * @param {ChunkState} state as it is shown.
 * @param {string | undefined} asked the re-roll that stands in the input for it.
 * @returns {[string, string][]}
 */
export function cardLines(cell, state, asked) {
  const share = cell.state === "sampling" ? ` (${Math.round(cell.part * 100)} %)` : "";
  const tries = cell.attempts > 1 ? `, ${t("{count} tries", { count: cell.attempts })}` : "";
  const { number, take, takes } = cell;
  const [from, to] = [clock(cell.start_s), clock(cell.end_s)];
  /** @type {[string, string | false][]} */
  const lines = [
    [t("Chunk"), t("{number}, {from} to {to}", { number, from, to })],
    [t("State"), `${called(state)}${share}${tries}`],
    [t("Prompt"), cell.prompt],
    [t("Similarity"), cell.similarity !== null && cell.similarity.toFixed(3)],
    [t("Seed"), cell.seed],
    [t("Take"), take !== null && (takes.length > 1 ? t("{number} of {total}", { number: take, total: takes.length }) : String(take))],
    [t("Made in"), cell.seconds !== null && duration(cell.seconds)],
    [t("Re-roll"), asked ?? false],
  ];
  return /** @type {[string, string][]} */ (lines.filter(([, value]) => value));
}

/**
 * Return what a screen reader says of a chunk.
 * @param {Cell} cell
 * @param {ChunkState} state
 */
export function spoken(cell, state) {
  const alike = cell.similarity === null ? "" : `, ${t("similarity {value}", { value: cell.similarity.toFixed(2) })}`;
  const play = cell.is_ready ? `. ${t("Press Enter to play")}` : "";
  return `${t("Chunk {number}", { number: cell.number })}, ${called(state)}${alike}${play}`;
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
