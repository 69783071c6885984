import assert from "node:assert/strict";
import { test } from "node:test";

import { duration } from "../../../web/js/lib/duration.mjs";
import {
  bars, cardLines, headline, heightOf, runName, share, spoken, totalOf, waveformPath,
} from "../../../web/js/lib/timeline_layout.mjs";
import { parseSchedule } from "../../../web/js/lib/timeline_schedule.mjs";
import { empty } from "../../../web/js/lib/timeline_state.mjs";

const CELL = {
  number: 2, start_s: 2, end_s: 4, state: "done", part: 1, is_ready: true, take: 2, seed: "42", prompt: "walks",
  similarity: 0.912, seconds: 75, attempts: 2, segment: "x", takes: [{}, {}],
};

test("spans reach to the next one, and only borders that can be moved have an edge", () => {
  const cues = parseSchedule("0:00 all\n0:02-0:03 hide back\n0:05 none\n0:20 all", "anchors");
  assert.deepEqual(bars(cues, 10).map(({ index, left, width, edges }) => [index, left, width, edges]), [
    [0, 0, 50, []], [2, 50, 50, ["start"]], [3, 100, 0, ["start"]],
  ]);
  const [hidden] = bars(cues, 10, true);
  assert.deepEqual([hidden.index, hidden.left, Math.round(hidden.width), hidden.edges], [1, 20, 10, ["start", "stop"]]);
});

test("the timeline shows the longer of what is wanted and what was made", () => {
  assert.equal(totalOf({ ...empty(), cells: [CELL] }, 10), 10);
  assert.equal(totalOf({ ...empty(), cells: [CELL] }, 1), 4);
  assert.equal(totalOf(empty(), NaN), 0.1);
  assert.equal(share(20, 10), 100);
});

test("a waveform is mirrored at its middle", () => {
  assert.equal(waveformPath([]), "");
  assert.equal(waveformPath([0, 100]), "M0,49.5L1,0L1,100L0,50.5Z");
});

test("how far a run is, in words", () => {
  assert.match(headline(empty()), /^Queue to see/);
  const cells = [CELL, { ...CELL, number: 3, state: "sampling", is_ready: false }];
  const running = { ...empty(), run: "film", phase: "running", cells };
  assert.equal(headline(running), "Chunk 3 of 2 · film");
  assert.equal(headline({ ...running, left_s: 200 }), "Chunk 3 of 2 · about 3 min 20 s left · film");
  assert.equal(headline({ ...running, phase: "failed", reason: "full" }), "Failed; queue again to go on · 1 of 2 chunks · film · full");
  assert.deepEqual([0.44, 12, 59.7, 3900].map(duration), ["0.4 s", "12 s", "1 min 0 s", "1 h 5 min"]);
});

test("a chunk's card tells what is known, and nothing that is not", () => {
  assert.deepEqual(cardLines(CELL, "drifting", "2 try 1"), [
    ["Chunk", "2, 0:02 to 0:04"], ["State", "drifting, 2 tries"], ["Prompt", "walks"], ["Similarity", "0.912"],
    ["Seed", "42"], ["Take", "2 of 2"], ["Made in", "1 min 15 s"], ["Re-roll", "2 try 1"],
  ]);
  const waiting = { ...CELL, state: "waiting", take: null, seed: "", prompt: "", similarity: null, seconds: null, attempts: 0 };
  assert.deepEqual(cardLines(waiting, "waiting", undefined).map(([name]) => name), ["Chunk", "State"]);
  assert.equal(spoken(CELL, "done"), "Chunk 2, done, similarity 0.91. Press Enter to play");
});

test("rows and the player make it higher", () => {
  const low = heightOf({ rows: 0, is_playing: false });
  assert.ok(heightOf({ rows: 2, is_playing: false }) > low);
  assert.ok(heightOf({ rows: 0, is_playing: true }) > low + 100);
});

test("runs are called as the sampler calls them", () => {
  assert.equal(runName(" my-film ", "gloria/video"), "my-film");
  assert.equal(runName("", "gloria/video"), "gloria_video");
  assert.equal(runName("", "über uns/Mädchen 2.mp4"), "über_uns_Mädchen_2.mp4");
  assert.equal(runName("", "../.."), "video");
  assert.equal(runName("", "x".repeat(81)), "", "only the sampler shortens");
});
