import assert from "node:assert/strict";
import { test } from "node:test";

import { NEWEST, canResume, isLive, jobOf, none, told } from "../../../web/js/lib/training_state.mjs";

/** A node whose input `job` is linked to the first output of another, or holds a text. */
function node(id, type, { job, value, from } = {}) {
  const widgets = [["job", job], ["value", value]].filter(([, text]) => text !== undefined);
  return {
    id, type, widgets: widgets.map(([name, text]) => ({ name, value: text })),
    inputs: from ? [{ name: "job", link: from }] : [],
  };
}

function graph(nodes, links = {}) {
  const made = { nodes, links: Object.fromEntries(Object.entries(links).map(([id, origin]) => [id, { origin_id: origin, origin_slot: 0 }])) };
  nodes.forEach((one) => (one.graph = made));
  return made;
}

test("a node's own name is taken without the space around it, composed", () => {
  const [train, watch] = [node(1, "GloriaTrainLoRA", { job: " re\u0301ne\u0301 " }), node(2, "GloriaWatchTraining", { job: "" })];
  const root = graph([train, watch]);
  assert.equal(jobOf(root, train), "r\u00e9n\u00e9");
  assert.equal(jobOf(root, watch), NEWEST);
});

test("a connected name is that of the node it comes from", () => {
  const train = node(1, "GloriaTrainLoRA", { job: "mira" });
  const stop = node(2, "GloriaStopTraining", { job: "old", from: 7 });
  const watch = node(3, "GloriaWatchTraining", { job: "older", from: 8 });
  assert.equal(jobOf(graph([train, stop, watch], { 7: 1, 8: 2 }), watch), "mira");
  const text = node(4, "PrimitiveString", { value: "bruno" });
  const other = node(5, "GloriaWatchTraining", { job: "", from: 9 });
  assert.equal(jobOf(graph([text, other], { 9: 4 }), other), "bruno");
});

test("links that lead round give no name", () => {
  const watch = node(1, "GloriaWatchTraining", { job: "", from: 7 });
  const resume = node(2, "GloriaResumeTraining", { job: "", from: 8 });
  assert.equal(jobOf(graph([watch, resume], { 7: 2, 8: 1 }), watch), null);
});

test("a name that is made while the queue works is not known", () => {
  const watch = node(1, "GloriaWatchTraining", { job: "old", from: 7 });
  assert.equal(jobOf(graph([watch, node(2, "StringConcatenate")], { 7: 2 }), watch), null);
});

test("what is not told stays, but not for another job", () => {
  const curve = { trained: [[1, 0.5, 0.5, 0.5]], held_out: [], stages: [] };
  const first = told(none(), { name: "mira", state: "running", step: 3, curve });
  assert.deepEqual(told(first, { name: "mira", state: "stopped" }), { ...first, state: "stopped" });
  const other = told(first, { name: "bruno", state: "new" });
  assert.deepEqual([other.step, other.curve.trained], [0, []]);
});

test("a job can be stopped while a process works on it, and resumed when it ended early", () => {
  const states = ["none", "new", "running", "stopping", "stopped", "finished", "failed", "lost"];
  assert.deepEqual(states.filter((state) => isLive({ state })), ["running", "stopping"]);
  assert.deepEqual(states.filter((state) => canResume({ state })), ["stopped", "failed", "lost"]);
});
