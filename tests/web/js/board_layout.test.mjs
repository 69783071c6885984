import assert from "node:assert/strict";
import { test } from "node:test";

import { PLACES, cardLines, complaints, hintOf, labelOf, neighbour, summary, titleOf } from "../../../web/js/lib/board_layout.mjs";
import { SLOTS } from "../../../web/js/lib/board_state.mjs";

test("no two slots lie on each other", () => {
  const cells = SLOTS.flatMap((slot) => Array.from({ length: PLACES[slot].span }, (_, step) => `${PLACES[slot].row}/${PLACES[slot].column + step}`));
  assert.equal(new Set(cells).size, cells.length);
  assert.equal(cells.length, 16);
});

test("views stand in turntable order", () => {
  const order = ["front", "right", "back", "left"].map((view) => PLACES[`views.${view}`].column);
  assert.deepEqual(order, [...order].sort());
});

test("arrow keys reach every slot and never leave the board", () => {
  const reached = new Set(["global"]);
  for (const slot of reached) for (const key of ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"]) reached.add(neighbour(slot, key));
  assert.deepEqual([...reached].sort(), [...SLOTS].sort());
  assert.equal(neighbour("global", "ArrowLeft"), "global");
  assert.equal(neighbour("views.left", "ArrowDown"), "expressions.contempt");
  assert.equal(neighbour("expressions.happy", "ArrowUp"), "global");
  assert.equal(neighbour("global", "Home"), "global");
  assert.equal(neighbour("global", "x"), null);
});

test("slots are named as the artist thinks of them", () => {
  assert.equal(titleOf("views.front"), "Front");
  assert.match(hintOf("views.left"), /facing left/);
  assert.match(labelOf("expressions.sad", {}), /^Sad: empty/);
  assert.match(labelOf("global", { image: "a.png", look: { warnings: ["It is small"] } }), /a\.png\. It is small/);
  assert.match(labelOf("global", { image: "a.png", origin: "Load Image" }), /connected to Load Image/);
});

test("a card tells size, crop, tokens, position, and what is wrong", () => {
  const look = { width: 800, height: 600, bytes: 1_500_000, crop_px: [10, 20, 300, 400], tokens: 420, rope_position: -5, warnings: ["The face is 60 px."] };
  const text = cardLines("views.front", { image: "a.png", look }).flat().join("|");
  for (const part of ["800 × 600 px, 1.5 MB", "300 × 400 px at 10, 20", "420 in every chunk", "-5", "The face is 60 px."]) assert.ok(text.includes(part), part);
  assert.deepEqual(complaints({ error: "gone", warnings: ["small"] }), ["gone", "small"]);
  assert.deepEqual(complaints(null), []);
});

test("the line below counts pictures, tokens and warnings", () => {
  assert.match(summary([], [], false), /Drop pictures/);
  assert.equal(summary(["global"], [{ tokens: 10 }], false), "1 picture · 10 tokens in every chunk");
  assert.match(summary(["global", "views.left"], [{ warnings: ["a"] }, null], true), /2 pictures · 1 warning · .*'anchors'/);
  assert.match(summary(["global"], [], false, { name: "faces", problems: [] }), / · seen by faces$/);
  assert.match(summary(["global"], [], false, { name: null, problems: ["It is left out."] }), / · no picture analysis · ⚠ It is left out\.$/);
});
