import assert from "node:assert/strict";
import { test } from "node:test";

import { HANDLES, WHOLE, dragged, drawable, drawn, framed, inPixels, stored } from "../../../web/js/lib/board_crop.mjs";

const BOX = [0.25, 0.25, 0.5, 0.5];

test("moving keeps the size, and stops at the border", () => {
  assert.deepEqual(dragged(BOX, "move", 0.1, -0.1), [0.35, 0.15, 0.5, 0.5]);
  assert.deepEqual(dragged(BOX, "move", 9, -9), [0.5, 0, 0.5, 0.5]);
});

test("a handle moves its own sides and no others", () => {
  assert.deepEqual(dragged(BOX, "e", 0.1, 0.9), [0.25, 0.25, 0.6, 0.5]);
  assert.deepEqual(dragged(BOX, "nw", -0.25, -0.05), [0, 0.2, 0.75, 0.55]);
});

test("whatever is dragged wherever, the box stays in the picture and does not vanish", () => {
  for (const handle of [...HANDLES, "move"]) {
    for (const dx of [-3, -0.4, 0, 0.4, 3]) {
      for (const dy of [-3, -0.4, 0, 0.4, 3]) {
        const [x, y, width, height] = dragged(BOX, handle, dx, dy);
        assert.ok(x >= 0 && y >= 0 && width > 0.01 && height > 0.01, handle);
        assert.ok(x + width <= 1.0001 && y + height <= 1.0001, handle);
      }
    }
  }
});

test("a box is drawn from any corner to any other, also beyond the picture", () => {
  assert.deepEqual(drawn([0.6, 0.7], [0.1, 0.2]), [0.1, 0.2, 0.5, 0.5]);
  assert.deepEqual(drawn([-1, -1], [2, 2]), WHOLE);
  const [x, , width] = drawn([1, 1], [1, 1]);
  assert.ok(x + width <= 1 && width > 0);
});

test("the whole picture is not written", () => {
  assert.equal(stored(WHOLE), null);
  assert.equal(stored([0, 0, 0.99999, 1]), null);
  assert.deepEqual(stored(BOX), BOX);
});

test("what cannot be drawn is drawn whole", () => {
  for (const crop of [undefined, null, "x", [0, 0, 1], [0, 0, Number.NaN, 1], [0, 0, 0, 1]]) assert.deepEqual(drawable(crop), WHOLE);
  assert.deepEqual(drawable(BOX), BOX);
});

test("a frame shows only the crop, in its own shape", () => {
  const { ratio, picture } = framed([0.5, 0, 0.5, 1], 200, 100);
  assert.equal(ratio, 1);
  assert.deepEqual(picture, { left: "-100%", top: "0%", width: "200%", height: "100%" });
  assert.equal(inPixels([0.5, 0, 0.5, 1], 201, 100), "101 × 100 px");
});
