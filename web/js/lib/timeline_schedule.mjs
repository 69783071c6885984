// @ts-check
/**
 * Schedules of prompts and of anchors as the nodes write them: where each entry's time stands, and how to move it.
 * Only the time is ever written anew; whatever else a person wrote stays as it is.
 */

/**
 * @typedef {{from: number, to: number, text: string}} Token characters of the whole text.
 * @typedef {{start_s: number, stop_s: number | null, label: string, start: Token | null, stop: Token | null}} Cue
 *   `stop_s` only where something is hidden from one time to another; a token is null where no time is written.
 * @typedef {"prompts" | "anchors"} Kind
 */

const LINE = /[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+/g;
const SEPARATOR = /(?:^|\s)\/(?:\s|$)|\/(?=\d+:\d\d)/g;
const TIME = String.raw`\d{1,5}(?::\d{1,5}){0,2}(?:\.\d{1,5})?`;
const CUE = new RegExp(String.raw`^(${TIME})s?(?=\s|$)\s*(.*)$`, "s");
const HIDING = new RegExp(String.raw`^(${TIME})s?\s*[-\u2013]\s*(${TIME})s?(?=\s|$)\s*(.*)$`, "s");
/** Two entries are at least this far apart, in seconds. */
const APART = 0.01;

/**
 * Read a schedule.
 * @param {string} text
 * @param {Kind} kind
 * @returns {Cue[] | null} null where it cannot be read; the node says why when it is queued.
 */
export function parseSchedule(text, kind) {
  /** @type {Cue[]} */
  const cues = [];
  for (const entry of entriesOf(text)) {
    const cue = (kind === "anchors" && hidingOf(entry)) || cueOf(entry, !cues.some((one) => one.stop_s === null));
    if (!cue || !cue.label) return null;
    const last = cue.stop_s === null ? cues.findLast((one) => one.stop_s === null) : undefined;
    if (last && cue.start_s <= last.start_s) return null;
    cues.push(cue);
  }
  return cues.length || kind === "anchors" ? cues : null;
}

/**
 * Return the text with one time moved; the text itself where that time is not written anywhere.
 * @param {string} text
 * @param {Cue} cue an entry of just this text.
 * @param {"start" | "stop"} edge
 * @param {number} seconds
 * @param {string} [snap] how the sampler moves entries to chunks; rounding must not move one to another chunk.
 * @returns {string}
 */
export function moveCue(text, cue, edge, seconds, snap = "nearest") {
  const token = cue[edge];
  if (!token) return text;
  const round = snap === "early" ? Math.ceil : snap === "late" ? Math.floor : Math.round;
  const hundredths = round(Number((seconds * 100).toFixed(4)));
  const written = token.text.includes(":") ? clock(hundredths / 100) : String(hundredths / 100);
  return text.slice(0, token.from) + written + text.slice(token.to);
}

/**
 * Return the moments between which an entry's time may be moved.
 * @param {Cue[]} cues
 * @param {number} index
 * @param {"start" | "stop"} edge
 * @param {number} total_s length of the video.
 * @returns {[number, number] | null} null where it cannot be moved.
 */
export function room(cues, index, edge, total_s) {
  const cue = cues[index];
  if (!cue[edge]) return null;
  if (cue.stop_s !== null) return edge === "start" ? [0, cue.stop_s - APART] : [cue.start_s + APART, total_s];
  const others = cues.filter((one) => one.stop_s === null);
  const place = others.indexOf(cue);
  if (place === 0) return null;
  const next = others[place + 1]?.start_s ?? total_s;
  return [others[place - 1].start_s + APART, next - APART];
}

/**
 * Return where a dragged time comes to lie: at the nearest start of a chunk, or freely.
 * @param {number} seconds
 * @param {number[]} starts the chunks' starts; none leaves it free.
 * @param {[number, number]} room
 * @param {boolean} is_free
 * @returns {number | null} null where there is no room for it.
 */
export function snapped(seconds, starts, [low, high], is_free) {
  if (high < low) return null;
  if (is_free || !starts.length) return Math.min(high, Math.max(low, Math.round(seconds * 20) / 20));
  const fitting = starts.filter((start) => start >= low && start <= high);
  const nearest = (/** @type {number} */ a, /** @type {number} */ b) =>
    Math.abs(b - seconds) < Math.abs(a - seconds) ? b : a;
  return fitting.length ? fitting.reduce(nearest) : null;
}

/**
 * Return the next start of a chunk on one side of a written time; a time is at a start that it was rounded from.
 * @param {number} seconds
 * @param {number[]} starts
 * @param {number} way 1 for later, -1 for earlier.
 * @returns {number | undefined}
 */
export function nextStart(seconds, starts, way) {
  const beyond = starts.filter((start) => (start - seconds) * way > APART + 1e-6);
  return way > 0 ? beyond.at(0) : beyond.at(-1);
}

/**
 * Return a time as m:ss or h:mm:ss, with hundredths where it has any.
 * @param {number} seconds
 */
export function clock(seconds) {
  const hundredths = Math.round(seconds * 100);
  const [whole, fraction] = [Math.floor(hundredths / 100), hundredths % 100];
  const [minutes, s] = [Math.floor(whole / 60), whole % 60];
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const hours = Math.floor(minutes / 60);
  const text = hours ? `${hours}:${two(minutes % 60)}:${two(s)}` : `${minutes}:${two(s)}`;
  return fraction ? `${text}.${two(fraction).replace(/0$/, "")}` : text;
}

/**
 * @param {string} text
 * @returns {number | null} seconds.
 */
export function secondsOf(text) {
  const parts = text.split(":");
  const is_clock = parts.slice(1).every((part) => part.split(".")[0].length === 2 && Number(part) < 60);
  return is_clock ? parts.reduce((sum, part) => sum * 60 + Number(part), 0) : null;
}

/**
 * Yield the entries, one on each line or several with " / " between, with their places.
 * @param {string} text
 * @returns {Generator<{from: number, text: string}>}
 */
function* entriesOf(text) {
  for (const line of text.matchAll(LINE)) {
    let start = 0;
    for (const bound of [...line[0].matchAll(SEPARATOR), null]) {
      const piece = line[0].slice(start, bound ? bound.index : undefined);
      if (piece.trim()) yield { from: line.index + start + piece.search(/\S/), text: piece.trim() };
      start = bound ? bound.index + bound[0].length : start;
    }
  }
}

/**
 * @param {{from: number, text: string}} entry
 * @param {boolean} is_first
 * @returns {Cue | null}
 */
function cueOf({ from, text }, is_first) {
  const match = CUE.exec(text);
  if (!match) return is_first && !/^\d/.test(text) ? cue(0, null, text, null, null) : null;
  const start_s = secondsOf(match[1]);
  return start_s === null ? null : cue(start_s, null, match[2], token(from, match[1]), null);
}

/**
 * @param {{from: number, text: string}} entry
 * @returns {Cue | null}
 */
function hidingOf({ from, text }) {
  const match = HIDING.exec(text);
  if (!match) return null;
  const [start_s, stop_s] = [secondsOf(match[1]), secondsOf(match[2])];
  if (start_s === null || stop_s === null || stop_s <= start_s) return null;
  const behind = match[1].length + text.slice(match[1].length).search(/\d/);
  return cue(start_s, stop_s, match[3], token(from, match[1]), token(from + behind, match[2]));
}

/**
 * @param {number} start_s
 * @param {number | null} stop_s
 * @param {string} label
 * @param {Token | null} start
 * @param {Token | null} stop
 * @returns {Cue}
 */
function cue(start_s, stop_s, label, start, stop) {
  return { start_s, stop_s, label, start, stop };
}

/**
 * @param {number} from
 * @param {string} text
 * @returns {Token}
 */
function token(from, text) {
  return { from, to: from + text.length, text };
}
