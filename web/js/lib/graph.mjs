// @ts-check
/** Finding nodes in the host's graph, through subgraphs and reroutes; it reads the graph and changes nothing. */

/** The host's number for the inputs of a subgraph, seen from inside. */
const SUBGRAPH_INPUT = "-10";
const MOST_STEPS = 100;

/**
 * Return the workflow's graph, also where a subgraph is shown.
 * @param {any} app the host's.
 */
export function rootOf(app) {
  return app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
}

/**
 * Return a node by its execution id, such as "12", or "5:2" for node 2 of the subgraph that node 5 shows.
 * @param {any} root the workflow's graph.
 * @param {string | number} id
 * @returns {any} null where there is none.
 */
export function nodeAt(root, id) {
  let [graph, node] = [root, null];
  for (const part of String(id).split(":")) {
    node = nodesOf(graph).find((one) => String(one.id) === part) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/**
 * Return all nodes of a type, those in subgraphs too, each once.
 * @param {any} root
 * @param {string} type
 * @returns {any[]}
 */
export function nodesOfType(root, type) {
  const [found, seen, waiting] = [new Set(), new Set(), [root]];
  for (let graph = waiting.pop(); graph; graph = waiting.pop()) {
    if (seen.has(graph)) continue;
    seen.add(graph);
    for (const node of nodesOf(graph)) {
      if (node.type === type) found.add(node);
      if (node.subgraph) waiting.push(node.subgraph);
    }
  }
  return [...found];
}

/**
 * Return the node that an input's value comes from, behind reroutes and the borders of subgraphs.
 * @param {any} root
 * @param {any} node
 * @param {string} name of the input.
 * @returns {any} null where nothing is connected.
 */
export function sourceOf(root, node, name) {
  let step = into(node, (one) => one.name === name);
  for (let steps = 0; step && steps < MOST_STEPS; steps++) {
    const { graph, link } = step;
    if (String(link.origin_id) === SUBGRAPH_INPUT) {
      step = outOf(root, graph, link.origin_slot);
      continue;
    }
    const origin = nodesOf(graph).find((one) => String(one.id) === String(link.origin_id));
    if (origin?.subgraph) step = inside(origin.subgraph, link.origin_slot);
    else if (origin?.type === "Reroute") step = into(origin, () => true);
    else return origin ?? null;
  }
  return null;
}

/**
 * @param {any} node
 * @param {string} name
 * @returns {any} the node's widget, or undefined.
 */
export function widgetOf(node, name) {
  return node?.widgets?.find((/** @type {any} */ widget) => widget.name === name);
}

/**
 * Tell whether a widget's value comes from another node, so that what the widget holds says nothing.
 * @param {any} node
 * @param {string} name
 */
export function isLinked(node, name) {
  return (node?.inputs ?? []).some((/** @type {any} */ input) => input.name === name && hasLink(input));
}

/** @param {any} input */
function hasLink(input) {
  return input.link !== null && input.link !== undefined;
}

/**
 * @param {any} graph
 * @returns {any[]}
 */
function nodesOf(graph) {
  return graph?.nodes ?? graph?._nodes ?? [];
}

/**
 * @param {any} graph
 * @param {any} id
 * @returns {any}
 */
function linkOf(graph, id) {
  return graph?.getLink?.(id) ?? graph?.links?.get?.(id) ?? graph?.links?.[id];
}

/**
 * Return the link into the first input of a node that fits, with its graph.
 * @param {any} node
 * @param {(input: any) => boolean} fits
 */
function into(node, fits) {
  const input = (node?.inputs ?? []).find((/** @type {any} */ one) => fits(one) && hasLink(one));
  const link = input && linkOf(node.graph, input.link);
  return link ? { graph: node.graph, link } : null;
}

/**
 * Return the link that feeds an input of a subgraph from outside.
 * @param {any} root
 * @param {any} subgraph
 * @param {number} slot
 */
function outOf(root, subgraph, slot) {
  const shown = [root, ...graphsIn(root)].flatMap(nodesOf).find((node) => node.subgraph === subgraph);
  const name = subgraph.inputs?.[slot]?.name;
  return shown ? into(shown, (input) => input === shown.inputs[slot] || input.name === name) : null;
}

/**
 * Return the link that feeds an output of a subgraph from inside.
 * @param {any} subgraph
 * @param {number} slot
 */
function inside(subgraph, slot) {
  const link = linkOf(subgraph, subgraph.outputs?.[slot]?.linkIds?.[0]);
  return link ? { graph: subgraph, link } : null;
}

/**
 * @param {any} root
 * @returns {any[]}
 */
function graphsIn(root) {
  const found = new Set();
  const waiting = [root];
  for (let graph = waiting.pop(); graph; graph = waiting.pop()) {
    for (const { subgraph } of nodesOf(graph)) {
      if (!subgraph || found.has(subgraph)) continue;
      found.add(subgraph);
      waiting.push(subgraph);
    }
  }
  return [...found];
}
