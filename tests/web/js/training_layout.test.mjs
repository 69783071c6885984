import assert from "node:assert/strict";
import { test } from "node:test";

import { facts, fine, headline, outlook, spoken } from "../../../web/js/lib/training_layout.mjs";
import { none } from "../../../web/js/lib/training_state.mjs";

const running = { ...none(), name: "mira", state: "running", step: 1200, total_steps: 40000, done: 0.034, eta_s: 200 };

test("the line above says which job it is and how far", () => {
  assert.equal(headline(none()), "Queue to see the training here.");
  assert.equal(headline(running), "mira · step 1\u202f200 of 40\u202f000");
  assert.equal(headline({ ...running, stage: "2-scene" }), "mira · stage 2-scene · step 1\u202f200 of 40\u202f000");
  assert.equal(headline({ ...none(), name: "mira", state: "failed" }), "mira");
});

test("what comes next is said while a process works", () => {
  assert.equal(outlook(running), "about 3 min 20 s left");
  assert.equal(outlook({ ...running, eta_s: null }), "getting ready");
  assert.equal(outlook({ ...running, state: "stopping" }), "makes a checkpoint, then stops");
  assert.equal(outlook({ ...running, state: "stopped" }), "");
});

test("numbers are as trainers write them", () => {
  const given = { ...running, loss: 0.123456, held_out: 0.000123, lr: 1e-4, samples_per_s: 0.0312, memory_mb: 15234 };
  assert.deepEqual(facts(given).map(({ value }) => value), ["0.1235", "1.23e-4", "1e-4", "0.031", "15.2 GB"]);
  assert.deepEqual(facts(running).map(({ value }) => value), ["–", "–", "–", "–", "–"]);
  assert.deepEqual([fine(12.34567), fine(1), fine(2e-5)], ["12.35", "1.000", "2e-5"]);
  assert.equal(facts({ ...given, lr: 0 })[2].value, "0");
});

test("a screen reader hears of the state and of every tenth of the way, not of every step", () => {
  assert.equal(spoken(running), "mira, Training, 0 %");
  assert.equal(spoken({ ...running, done: 0.57 }), "mira, Training, 50 %");
  assert.equal(spoken({ ...running, state: "failed", error: "It broke." }), "mira, Failed, It broke.");
});
