import assert from "node:assert/strict";
import { test } from "node:test";

import { asked, chooseTake, rollAgain, takeBack } from "../../../web/js/lib/timeline_reroll.mjs";

const SPANS = [0, 1, 2, 3, 4, 5, 6].map((number) => ({ start_s: number * 4, end_s: number * 4 + 4 }));

const AGAIN = [
  ["", "7 try 1"],
  ["7", "7 try 2"],
  ["7 try 4", "7 try 5"],
  ["0:24 try 3", "0:24 try 4"],
  ["chunk 7 bridge", "chunk 7 try 2 bridge"],
  ["7 seed 99 bridge", "7 try 1 bridge"],
  ["7 take 1", "7 try 1"],
  ["7 prompt turns left, angry", "7 try 1 prompt turns left, angry"],
  ["7 try=2 anchors: global, back prompt takes the seed back", "7 try 3 anchors global, back prompt takes the seed back"],
];

for (const [before, after] of AGAIN) {
  test(`rolling chunk 7 again: ${JSON.stringify(before)}`, () => {
    assert.equal(rollAgain(before, 7, SPANS, "again"), after);
  });
}

test("what becomes of the later chunks is written", () => {
  assert.equal(rollAgain("", 2, SPANS, "bridge"), "2 try 1 bridge");
  assert.equal(rollAgain("2 bridge", 2, SPANS, "onward"), "2 try 2 onward");
});

test("other lines stay as they are", () => {
  const text = "3 prompt 7 dwarfs\n0:24 try 1\n  5 seed 8 ";
  assert.equal(rollAgain(text, 7, SPANS, "again"), "3 prompt 7 dwarfs\n0:24 try 2\n  5 seed 8 ");
  assert.equal(rollAgain(text, 1, SPANS, "again"), `${text}\n1 try 1`);
});

test("choosing a take leaves out what a take may not have beside it", () => {
  assert.equal(chooseTake("", 7, SPANS, 2), "7 take 2");
  assert.equal(chooseTake("7 try 3 bridge prompt laughs", 7, SPANS, 1), "7 take 1 bridge");
  assert.equal(chooseTake("0:25 seed 4", 7, SPANS, 1), "0:25 take 1");
});

test("a line is taken back", () => {
  assert.equal(takeBack("3 try 1\n0:24\n5", 7, SPANS), "3 try 1\n5");
  assert.equal(takeBack("7", 7, SPANS), "");
});

test("what is asked of which chunk", () => {
  assert.deepEqual([...asked("3 try 1\n\n0:24 bridge\nwhat", SPANS)], [[3, "3 try 1"], [7, "0:24 bridge"]]);
  assert.deepEqual([...asked("", SPANS)], []);
});
