import assert from "node:assert/strict";
import { test } from "node:test";

import {
  chunked, empty, ended, planned, progressed, progressOf, shownState, viewed,
} from "../../../web/js/lib/timeline_state.mjs";

const PLAN = {
  run: "film", lines: ["3 chunks."], threshold: 0,
  chunks: [
    { chunk: 1, start_s: 0, end_s: 2, state: "reused" },
    { chunk: 2, start_s: 2, end_s: 4, state: "waiting" },
    { chunk: 3, start_s: 4, end_s: 5, state: "waiting" },
  ],
};
const step = (chunk, number, more = {}) => ({ chunk, chunks: 3, step: number, steps: 4, prompt: "walks", left_s: null, ...more });
const done = (chunk, more = {}) => ({
  run: "film", chunk, take: 1, seed: "18446744073709551615", prompt: "walks", state: "done", attempts: 1,
  drift: { similarity: 0.9 }, seconds: 1.5, segment: `000${chunk}.mp4`, ...more,
});
const states = (timeline) => timeline.cells.map((cell) => cell.state);

test("a chunk waits, is sampled, and is done", () => {
  let now = planned(empty(), PLAN);
  assert.deepEqual([now.phase, states(now)], ["running", ["reused", "waiting", "waiting"]]);
  now = progressed(now, step(2, 1));
  assert.deepEqual([states(now), now.cells[1].part], [["reused", "sampling", "waiting"], 0.25]);
  now = chunked(now, done(2));
  assert.deepEqual(states(now), ["reused", "done", "waiting"]);
  assert.equal(now.cells[1].seed, "18446744073709551615");
  assert.equal(now.cells[1].is_ready, true);
  assert.equal(progressOf(now), 1 / 3);
});

test("the last step of a chunk that is used again does not make it sampled", () => {
  let now = progressed(planned(empty(), PLAN), step(1, 4));
  assert.equal(now.cells[0].state, "reused");
  now = chunked(now, done(1, { state: "reused", seconds: 0 }));
  assert.deepEqual([now.cells[0].state, now.cells[0].is_ready, now.cells[0].seconds], ["reused", true, null]);
});

test("a chunk that drifts is sampled again, and says how alike it was", () => {
  const now = chunked(planned(empty(), PLAN), { run: "film", chunk: 2, state: "drifting", attempts: 1, drift: { similarity: 0.4 } });
  assert.deepEqual([now.cells[1].state, now.cells[1].similarity, now.cells[1].is_ready], ["drifting", 0.4, false]);
  assert.equal(progressed(now, step(2, 1)).cells[1].state, "sampling");
});

test("what is used again is known from before, of the same run alone", () => {
  const first = chunked(planned(empty(), PLAN), done(1, { state: "reused", seconds: 0, seed: "7" }));
  assert.equal(planned(first, PLAN).cells[0].seed, "7");
  assert.equal(planned(first, PLAN).cells[0].is_ready, false, "its clip is part of the film only when it was put in");
  assert.equal(planned(first, { ...PLAN, run: "other" }).cells[0].seed, "");
});

test("another take is kept beside those that are known", () => {
  let now = chunked(planned(empty(), PLAN), done(2));
  now = chunked(planned(now, PLAN), done(2, { take: 2, seed: "8" }));
  assert.deepEqual(now.cells[1].takes.map(({ take, in_film }) => [take, in_film]), [[1, false], [2, true]]);
});

test("stopping leaves the chunk that was sampled waiting, and what is over stays as it was", () => {
  const running = progressed(planned(empty(), PLAN), step(2, 2));
  const stopped = ended(running, "stopped");
  assert.deepEqual([stopped.phase, states(stopped)], ["stopped", ["reused", "waiting", "waiting"]]);
  assert.equal(ended(stopped, "finished"), stopped);
});

test("events of chunks that nobody knows change nothing", () => {
  assert.deepEqual(progressed(empty(), step(9, 1)).cells, []);
  assert.deepEqual(states(chunked(planned(empty(), PLAN), done(9))), ["reused", "waiting", "waiting"]);
});

test("a run on disk, while it works", () => {
  const entry = { ...done(1), reused: false, start_s: 0, end_s: 2 };
  const now = viewed({
    name: "film", state: "running", plan: ["3 chunks."], planned: ["make", "make", "disk"], meter: { threshold: 0.8 },
    spans: [[0, 2], [2, 4], [4, 5]], chunks: [entry], takes: { 1: [{ take: 1, in_film: true }] }, reason: null,
  });
  assert.deepEqual([now.phase, states(now), now.threshold], ["running", ["done", "sampling", "reused"], 0.8]);
  assert.deepEqual([now.cells[0].is_ready, now.cells[2].is_ready], [true, false]);
  assert.deepEqual([now.cells[1].start_s, now.cells[1].end_s], [2, 4]);
});

test("a run of an older version, which tells no spans, shows what is finished", () => {
  const entry = { ...done(1), reused: true, start_s: 0, end_s: 2 };
  const now = viewed({ name: "film", state: "stopped", chunks: [entry], takes: {}, reason: "full" });
  assert.deepEqual([states(now), now.reason, now.threshold], [["reused"], "full", 0]);
});

test("a finished chunk below the threshold is shown as drifting", () => {
  const cell = { state: "done", similarity: 0.72 };
  assert.equal(shownState(cell, 0), "done");
  assert.equal(shownState(cell, 0.8), "drifting");
  assert.equal(shownState({ ...cell, similarity: 0.5 }, 0), "drifting");
  assert.equal(shownState({ ...cell, similarity: null }, 0.8), "done");
  assert.equal(shownState({ ...cell, state: "waiting" }, 0.8), "waiting");
});
