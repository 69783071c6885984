import assert from "node:assert/strict";
import { test } from "node:test";

import { SLOTS, cleared, cropped, entryOf, filled, folderOf, inputOf, put, read, slotsFor, swap, write } from "../../../web/js/lib/board_state.mjs";

const MIRA = {
  version: 1,
  name: "Mira",
  global: { image: "gloria/mira/scene.png", crop: [0.1, 0, 0.8, 1] },
  views: { back: "gloria/mira/back.png" },
  expressions: { happy: { image: "gloria/mira/happy.png" } },
};

test("there are thirteen slots", () => assert.equal(new Set(SLOTS).size, 13));

test("a slot may be a path alone", () => {
  assert.deepEqual(entryOf(MIRA, "views.back"), { image: "gloria/mira/back.png" });
  assert.deepEqual(entryOf(MIRA, "global"), MIRA.global);
  assert.equal(entryOf(MIRA, "views.front"), null);
  assert.equal(entryOf({ global: 7 }, "global"), null);
});

test("what is no board is told and edited by nobody", () => {
  for (const text of ["{", "[]", "null", "7", '{"views": []}', '{"expressions": 1}']) {
    assert.match(read(text).error, /Clear/, text);
    assert.deepEqual(read(text).board, {});
  }
  for (const text of ["", "{}", JSON.stringify(MIRA)]) assert.equal(read(text).error, "");
});

test("an empty board is written as the default of the input", () => {
  assert.equal(write({}), "{}");
  assert.equal(write(put(put({}, "global", { image: "a.png" }), "global", null)), "{}");
  assert.equal(write(cleared({ version: 1, global: "a.png" })), "{}");
});

test("what is written is read again, also what this page does not know", () => {
  const board = { ...MIRA, later: { x: 1 } };
  assert.deepEqual(JSON.parse(write(board)), board);
  assert.equal(read(write(board)).error, "");
});

test("slots are written in reading order, whatever order they were filled in", () => {
  const board = put(put({}, "expressions.happy", { image: "h.png" }), "views.front", { image: "f.png" });
  const other = put(put({}, "views.front", { image: "f.png" }), "expressions.happy", { image: "h.png" });
  assert.equal(write(board), write(other));
});

test("a change leaves the board before it as it was", () => {
  const before = structuredClone(MIRA);
  swap(put(cropped(MIRA, "global", null), "views.front", { image: "x.png" }), "global", "views.back");
  assert.deepEqual(MIRA, before);
});

test("swapping exchanges pictures with their crops, and moves into empty slots", () => {
  const board = swap(MIRA, "global", "expressions.happy");
  assert.deepEqual(entryOf(board, "expressions.happy"), MIRA.global);
  assert.deepEqual(entryOf(board, "global"), MIRA.expressions.happy);
  const moved = swap(MIRA, "global", "views.left");
  assert.equal(entryOf(moved, "global"), null);
  assert.deepEqual(entryOf(moved, "views.left"), MIRA.global);
});

test("a crop is set and taken away", () => {
  const board = cropped(MIRA, "views.back", [0, 0, 0.5, 0.5]);
  assert.deepEqual(entryOf(board, "views.back"), { image: "gloria/mira/back.png", crop: [0, 0, 0.5, 0.5] });
  assert.deepEqual(entryOf(cropped(board, "views.back", null), "views.back"), { image: "gloria/mira/back.png" });
  assert.equal(cropped(MIRA, "views.left", [0, 0, 1, 1]), MIRA);
});

test("clearing keeps name and version", () => {
  assert.deepEqual(JSON.parse(write(cleared(MIRA))), { version: 1, name: "Mira" });
  assert.deepEqual(filled(cleared(MIRA)), []);
});

test("the first of several files goes where it was dropped, the others where their names say", () => {
  assert.deepEqual(slotsFor({}, ["any.png", "mira_happy.png", "BACK.jpg", "4.png"], "views.front"),
    ["views.front", "expressions.happy", "views.back", "global"]);
  assert.deepEqual(slotsFor(MIRA, ["happy.png"], null), ["views.front"]);
  assert.deepEqual(slotsFor(MIRA, ["x.png"], "expressions.happy"), ["expressions.happy"]);
});

test("where no slot is empty the rest is left over", () => {
  const names = Array.from({ length: 15 }, (_, index) => `${index}.png`);
  const slots = slotsFor({}, names, null);
  assert.deepEqual(slots.slice(0, 13), SLOTS);
  assert.deepEqual(slots.slice(13), [null, null]);
});

test("pictures lie in a folder of the character's name, which is never a path", () => {
  assert.equal(folderOf({ name: "Mira" }), "gloria/mira");
  assert.equal(folderOf({ name: "../../etc" }), "gloria/etc");
  assert.equal(folderOf({ name: "美羅 2" }), "gloria/美羅-2");
  for (const name of ["", "..", undefined, 7]) assert.equal(folderOf({ name }), "gloria/board");
});

test("each slot has an input that wins over it", () => {
  assert.equal(inputOf("global"), "global_image");
  assert.equal(inputOf("views.left"), "left");
});
