// @ts-check
/** Re-rolls as the sampler's input has them, a line for a chunk: read, and written for one chunk without touching others. */

/**
 * @typedef {{start_s: number, end_s: number}} Span
 * @typedef {"again" | "bridge" | "onward"} How
 */

const WHERE = /^\s*(?:chunk\s+)?(?:(\d{1,6})(?=\s|$)|(\d{1,5}(?::\d{2}){1,2}(?:\.\d{1,5})?)(?=\s|$))/i;
const WORD = /\b(try|seed|take|bridge|onward|anchors|prompt)\b/i;
const ALONE = new Set(["bridge", "onward"]);

/**
 * Return the text in which a chunk is rolled again: with the seed after the one that it has now.
 * @param {string} text
 * @param {number} number of the chunk, from 1.
 * @param {Span[]} spans where the chunks lie, to know lines that name a time.
 * @param {How} how what becomes of the later chunks: as the node says, bridged back to, or made anew.
 */
export function rollAgain(text, number, spans, how) {
  return rewritten(text, number, spans, (words) => {
    const next = new Map([["try", String(attemptOf(words) + 1)]]);
    if (how !== "again") next.set(how, "");
    const kept = how === "again" ? ["bridge", "onward", "anchors", "prompt"] : ["anchors", "prompt"];
    for (const word of kept) if (words?.has(word)) next.set(word, words.get(word) ?? "");
    return next;
  });
}

/**
 * Return the text in which a chunk is a take that is on disk.
 * @param {string} text
 * @param {number} number
 * @param {Span[]} spans
 * @param {number} take
 */
export function chooseTake(text, number, spans, take) {
  return rewritten(text, number, spans, (words) => {
    const kept = [...(words ?? [])].filter(([word]) => ALONE.has(word));
    return new Map([["take", String(take)], ...kept]);
  });
}

/**
 * Return the text without a chunk's line: the chunk is as before.
 * @param {string} text
 * @param {number} number
 * @param {Span[]} spans
 */
export function takeBack(text, number, spans) {
  const lines = text.split("\n").filter((line) => chunkOf(line, spans) !== number);
  return lines.join("\n").replace(/\n+$/, "");
}

/**
 * Return what is asked of each chunk that has a line, as written.
 * @param {string} text
 * @param {Span[]} spans
 * @returns {Map<number, string>}
 */
export function asked(text, spans) {
  const found = text.split("\n").map((line) => /** @type {[number, string]} */ ([chunkOf(line, spans), line.trim()]));
  return new Map(found.filter(([number]) => number > 0));
}

/**
 * @param {string} text
 * @param {number} number
 * @param {Span[]} spans
 * @param {(words: Map<string, string> | null) => Map<string, string>} change gets null where the chunk has no line yet.
 */
function rewritten(text, number, spans, change) {
  const lines = text.split("\n");
  const index = lines.findIndex((line) => chunkOf(line, spans) === number);
  if (index < 0) {
    return [...lines.filter((line) => line.trim()), lineOf(String(number), change(null))].join("\n");
  }
  const place = WHERE.exec(lines[index])?.[0].trim() ?? String(number);
  lines[index] = lineOf(place, change(wordsOf(lines[index])));
  return lines.join("\n");
}

/**
 * @param {string} line
 * @param {Span[]} spans
 * @returns {number} of the chunk, from 1; 0 where the line names none.
 */
function chunkOf(line, spans) {
  const match = WHERE.exec(line);
  if (!match) return 0;
  if (match[1]) return Number(match[1]);
  const seconds = match[2].split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  return spans.findIndex(({ start_s, end_s }) => start_s <= seconds && seconds < end_s) + 1;
}

/**
 * Return the words behind the place and what follows each; a prompt takes all that follows it.
 * @param {string} line
 * @returns {Map<string, string>}
 */
function wordsOf(line) {
  const words = new Map();
  let rest = line.slice(WHERE.exec(line)?.[0].length ?? 0);
  for (let match = WORD.exec(rest); match; match = WORD.exec(rest)) {
    const word = match[1].toLowerCase();
    rest = rest.slice(match.index + word.length).replace(/^[ =:]+/, "");
    const following = word === "prompt" ? null : WORD.exec(rest);
    words.set(word, (following ? rest.slice(0, following.index) : rest).replace(/^[ ,]+|[ ,]+$/g, ""));
    rest = following ? rest.slice(following.index) : "";
  }
  return words;
}

/**
 * Return which other seed a line asks for; 0 is the film's own, or one that was written out.
 * @param {Map<string, string> | null} words
 */
function attemptOf(words) {
  if (words === null) return 0;
  if (words.has("try")) return Number(words.get("try"));
  return ["seed", "take", "anchors", "prompt"].some((word) => words.has(word)) ? 0 : 1;
}

/**
 * @param {string} place
 * @param {Map<string, string>} words
 */
function lineOf(place, words) {
  return [place, ...[...words].map(([word, value]) => (value ? `${word} ${value}` : word))].join(" ");
}
