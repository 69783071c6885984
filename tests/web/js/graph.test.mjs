import assert from "node:assert/strict";
import { test } from "node:test";

import { isLinked, nodeAt, nodesOfType, sourceOf, widgetOf } from "../../../web/js/lib/graph.mjs";

/** A graph as the host has it: nodes and links by number. */
function graph(nodes, links = [], more = {}) {
  const made = { nodes, links: new Map(links.map((link) => [link.id, link])), ...more };
  for (const node of nodes) node.graph = made;
  return made;
}
const link = (id, origin_id, origin_slot = 0) => ({ id, origin_id, origin_slot });
const input = (name, number = null) => ({ name, link: number });

test("nodes are found by execution id, numbers and strings alike", () => {
  const [inner, outer, plain] = [{ id: "2" }, { id: 5 }, { id: 12 }];
  outer.subgraph = graph([inner]);
  const root = graph([outer, plain]);
  assert.equal(nodeAt(root, "12"), plain);
  assert.equal(nodeAt(root, 12), plain);
  assert.equal(nodeAt(root, "5:2"), inner);
  for (const id of ["5:9", "12:2", "9", ""]) assert.equal(nodeAt(root, id), null);
  assert.equal(nodeAt(undefined, "1"), null);
});

test("a subgraph that is shown twice has its nodes once", () => {
  const inner = { id: 1, type: "S" };
  const subgraph = graph([inner]);
  const top = { id: 3, type: "S" };
  assert.deepEqual(nodesOfType(graph([{ id: 1, subgraph }, { id: 2, subgraph }, top]), "S"), [top, inner]);
});

test("a source is found behind a reroute", () => {
  const schedule = { id: 1, type: "P" };
  const reroute = { id: 2, type: "Reroute", inputs: [input("", 10)] };
  const sampler = { id: "3", type: "S", inputs: [input("anchors"), input("prompts", 11)] };
  const root = graph([schedule, reroute, sampler], [link(10, "1"), link(11, 2)]);
  assert.equal(sourceOf(root, sampler, "prompts"), schedule);
  assert.equal(sourceOf(root, sampler, "anchors"), null);
  assert.equal(sourceOf(root, sampler, "nothing"), null);
});

test("a source is found outside of the subgraph that the sampler is in, two borders up", () => {
  const schedule = { id: 1, type: "P" };
  const sampler = { id: 7, type: "S", inputs: [input("prompts", 1)] };
  const deep = graph([sampler], [link(1, -10, 0)], { inputs: [{ name: "p" }] });
  const middle = { id: 8, inputs: [input("p", 2)], subgraph: deep };
  const mid = graph([middle], [link(2, "-10", 1)], { inputs: [{ name: "x" }, { name: "q" }] });
  const outer = { id: 9, inputs: [input("x"), input("q", 3)], subgraph: mid };
  const root = graph([schedule, outer], [link(3, 1)]);
  assert.equal(sourceOf(root, sampler, "prompts"), schedule);
});

test("a source is found inside of a subgraph", () => {
  const schedule = { id: 1, type: "P" };
  const subgraph = graph([schedule], [link(4, 1)], { outputs: [{ linkIds: [] }, { linkIds: [4] }] });
  const sampler = { id: 2, inputs: [input("prompts", 5)] };
  const root = graph([{ id: 6, subgraph }, sampler], [link(5, 6, 1)]);
  assert.equal(sourceOf(root, sampler, "prompts"), schedule);
});

test("reroutes in a ring end", () => {
  const one = { id: 1, type: "Reroute", inputs: [input("", 1)] };
  const sampler = { id: 2, inputs: [input("prompts", 1)] };
  assert.equal(sourceOf(graph([one, sampler], [link(1, 1)]), sampler, "prompts"), null);
});

test("widgets, and inputs that take their place", () => {
  const node = { widgets: [{ name: "run", value: "x" }], inputs: [input("run", 4), input("seed"), { name: "steps" }] };
  assert.equal(widgetOf(node, "run").value, "x");
  assert.equal(widgetOf(node, "seed"), undefined);
  assert.deepEqual(["run", "seed", "steps"].map((name) => isLinked(node, name)), [true, false, false]);
});
