import assert from "node:assert/strict";
import { test } from "node:test";

import * as curves from "../../../web/js/lib/training_curve.mjs";

const point = (step, loss, low = loss, high = loss) => [step, loss, low, high];
const curve = { trained: [point(0, 1), point(50, 0.1), point(100, 0.01)], held_out: [point(100, 0.2)], stages: [["", 0]] };

test("both curves lie within the scale, and nothing gives none", () => {
  assert.equal(curves.scaleOf({ trained: [], held_out: [], stages: [] }, true), null);
  for (const is_log of [true, false]) {
    const scale = curves.scaleOf(curve, is_log);
    for (const [step, loss] of [...curve.trained, ...curve.held_out]) {
      assert.ok(curves.up(scale, loss) > 0 && curves.up(scale, loss) < 1);
      assert.ok(curves.across(scale, step) >= 0 && curves.across(scale, step) <= 1);
    }
  }
});

test("a logarithmic axis gives every tenfold the same room", () => {
  const scale = curves.scaleOf(curve, true);
  const [a, b, c] = [1, 0.1, 0.01].map((loss) => curves.up(scale, loss));
  assert.ok(Math.abs(a - b - (b - c)) < 1e-9);
});

test("one loss alone, or equal ones, can be drawn", () => {
  for (const is_log of [true, false]) {
    const scale = curves.scaleOf({ trained: [point(7, 0.5)], held_out: [], stages: [] }, is_log);
    assert.match(curves.linePath(scale, [point(7, 0.5)]), /^M500,[\d.]+$/);
    assert.ok(curves.lossTicks(scale).every(({ part }) => Number.isFinite(part)));
    assert.deepEqual(curves.stepTicks(scale), [{ part: 0.5, label: "7" }]);
  }
});

test("smoothing begins with the first loss and stays between the losses", () => {
  const points = [point(1, 4), point(2, 0), point(3, 0)];
  assert.deepEqual(curves.smoothed(points, 0).map(([, loss]) => loss), [4, 0, 0]);
  const [first, second, third] = curves.smoothed(points, 0.5).map(([, loss]) => loss);
  assert.equal(first, 4);
  assert.ok(Math.abs(second - 4 / 3) < 1e-9);
  assert.ok(third < second && third > 0);
});

test("thinned losses have a band, others none", () => {
  const scale = curves.scaleOf(curve, true);
  assert.equal(curves.bandPath(scale, curve.trained), "");
  const path = curves.bandPath(scale, [point(0, 0.5, 0.1, 0.9), point(100, 0.5, 0.2, 0.8)]);
  assert.equal(path.split("L").length, 4);
  assert.match(path, /^M.*Z$/);
});

test("marks, and lines between stages", () => {
  const scale = curves.scaleOf(curve, false);
  assert.match(curves.dotsPath(scale, curve.held_out), /^M1000,[\d.]+h0$/);
  assert.equal(curves.uprights(scale, [0, 50, 100]), "M500,0V100", "the borders of the axis are no marks");
});

test("labels are few and round", () => {
  const labels = (low, high, is_log) => curves.lossTicks({ first: 0, last: 1, low, high, is_log }).map(({ label }) => label);
  assert.deepEqual(labels(0.02, 1.1, true), ["0.03", "0.1", "0.3", "1"]);
  assert.deepEqual(labels(0.09, 1.1, true), ["0.1", "0.2", "0.5", "1"]);
  assert.deepEqual(labels(0.31, 0.39, true), ["0.32", "0.34", "0.36", "0.38"]);
  assert.deepEqual(labels(0, 1, false), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
  assert.ok(labels(1e-7, 10, true).length <= 9);
  const steps = (first, last) => curves.stepTicks({ first, last, low: 0, high: 1, is_log: false }).map(({ label }) => label);
  assert.deepEqual(steps(1, 3), ["1", "2", "3"]);
  assert.deepEqual(steps(20, 100000), ["20k", "40k", "60k", "80k", "100k"]);
  assert.deepEqual(steps(20, 4000), ["1000", "2000", "3000", "4000"]);
});

test("the point under a pointer is the nearest", () => {
  assert.deepEqual(curves.nearest(curve.trained, 70), point(50, 0.1));
  assert.equal(curves.nearest([], 1), undefined);
});
