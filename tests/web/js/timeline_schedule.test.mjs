import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, moveCue, nextStart, parseSchedule, room, secondsOf, snapped } from "../../../web/js/lib/timeline_schedule.mjs";

const PROMPTS = "0:00 smiling, talks\n\n  0:12 [text 3, audio 2] turns to the back / 20 angry, 10/10\n1:02:30 walks away";

test("prompts: lines, slashes, guidance and all ways to write a time", () => {
  const cues = parseSchedule(PROMPTS, "prompts");
  assert.deepEqual(cues.map((cue) => cue.start_s), [0, 12, 20, 3750]);
  assert.deepEqual(cues.map((cue) => cue.label), ["smiling, talks", "[text 3, audio 2] turns to the back", "angry, 10/10", "walks away"]);
  for (const { start } of cues) assert.equal(PROMPTS.slice(start.from, start.to), start.text);
});

test("a time is moved and nothing else is touched", () => {
  const cues = parseSchedule(PROMPTS, "prompts");
  assert.equal(moveCue(PROMPTS, cues[1], "start", 9.5), PROMPTS.replace("0:12", "0:09.5"));
  assert.equal(moveCue(PROMPTS, cues[2], "start", 30.25), PROMPTS.replace("/ 20 angry", "/ 30.25 angry"));
  assert.equal(moveCue(PROMPTS, cues[3], "start", 3600), PROMPTS.replace("1:02:30", "1:00:00"));
});

test("rounding to hundredths does not move an entry to another chunk", () => {
  const text = "0:00 a\n0:05 b";
  const [, cue] = parseSchedule(text, "prompts");
  assert.match(moveCue(text, cue, "start", 2.0625, "early"), /0:02\.07 b/);
  assert.match(moveCue(text, cue, "start", 2.0625, "late"), /0:02\.06 b/);
  assert.match(moveCue(text, cue, "start", 2.1, "early"), /0:02\.1 b/);
  assert.match(moveCue(text, cue, "start", 2.1, "late"), /0:02\.1 b/);
});

test("a plain prompt has no time to move", () => {
  const [cue] = parseSchedule("just talks", "prompts");
  assert.deepEqual([cue.start_s, cue.start], [0, null]);
  assert.equal(moveCue("just talks", cue, "start", 3), "just talks");
  assert.equal(room([cue], 0, "start", 10), null);
});

test("anchors: cues, strengths and hidings with both their ends", () => {
  const text = "all / 0:12 global, -back\n0:12-0:15.5 hide back, front\n3s \u2013 4s hide left";
  const cues = parseSchedule(text, "anchors");
  assert.deepEqual(cues.map((cue) => [cue.start_s, cue.stop_s]), [[0, null], [12, null], [12, 15.5], [3, 4]]);
  for (const cue of cues.slice(2)) {
    for (const token of [cue.start, cue.stop]) assert.equal(text.slice(token.from, token.to), token.text);
  }
  assert.equal(moveCue(text, cues[2], "stop", 14), text.replace("0:15.5", "0:14"));
  assert.equal(moveCue(text, cues[3], "stop", 5), text.replace("4s", "5s"));
  assert.equal(moveCue(text, cues[3], "start", 2), text.replace("3s", "2s"));
});

test("what the node would refuse is not drawn", () => {
  for (const text of ["", "0:00 a\n0:00 b", "0:10 a\n0:05 b", "0:00 a\nno time", "0:00", "0:99 a", "0:00 a\n5x b"]) {
    assert.equal(parseSchedule(text, "prompts"), null, JSON.stringify(text));
  }
  assert.equal(parseSchedule("0:05-0:04 hide back", "anchors"), null);
  assert.deepEqual(parseSchedule("", "anchors"), []);
});

test("an entry stays between its neighbours, and a hiding between its own ends", () => {
  const cues = parseSchedule("0:00 all\n0:05-0:07 hide back\n0:10 none\n0:20 all", "anchors");
  assert.equal(room(cues, 0, "start", 30), null);
  assert.deepEqual(room(cues, 2, "start", 30), [0.01, 19.99]);
  assert.deepEqual(room(cues, 3, "start", 30), [10.01, 29.99]);
  assert.deepEqual(room(cues, 1, "start", 30), [0, 6.99]);
  assert.deepEqual(room(cues, 1, "stop", 30), [5.01, 30]);
});

test("a dragged border comes to lie at a chunk, or freely", () => {
  const starts = [0, 2.0625, 4.3125];
  assert.equal(snapped(2.5, starts, [0.01, 9.99], false), 2.0625);
  assert.equal(snapped(0.1, starts, [0.01, 9.99], false), 2.0625, "0 is taken");
  assert.equal(snapped(2.52, starts, [0.01, 9.99], true), 2.5);
  assert.equal(snapped(99, [], [0.01, 9.99], false), 9.99);
  assert.equal(snapped(3, starts, [2.1, 4], false), null);
  assert.equal(snapped(3, starts, [4, 3], true), null);
});

test("the next chunk is another one than that a rounded time stands for", () => {
  const starts = [0, 2.0625, 3.3125];
  assert.equal(nextStart(2.06, starts, 1), 3.3125);
  assert.equal(nextStart(2.07, starts, -1), 0);
  assert.equal(nextStart(2.5, starts, -1), 2.0625);
  assert.equal(nextStart(3.31, starts, 1), undefined);
});

test("times as the project writes them", () => {
  assert.deepEqual([0, 9.5, 62.06, 3723, 59.999].map(clock), ["0:00", "0:09.5", "1:02.06", "1:02:03", "1:00"]);
  assert.deepEqual(["12", "12.5", "1:05", "1:02:30", "1:5", "0:60"].map(secondsOf), [12, 12.5, 65, 3750, null, null]);
});
