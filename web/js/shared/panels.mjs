// @ts-check
/** What is the same for all panels of one kind: how they are put on nodes and found again, and what they ask the host. */

import { on } from "../lib/dom.mjs";
import { nodesOfType, rootOf } from "../lib/graph.mjs";

const MARGIN_PX = 8;

/** @typedef {{node: any, element: HTMLElement, height: number}} Panel */

/** @template {{node: any, element: HTMLElement}} T */
export class Panels {
  /** @type {WeakMap<object, T>} */
  #views = new WeakMap();

  /**
   * @param {any} app the host's.
   * @param {any} api the host's.
   * @param {string[]} types of the nodes that have a panel.
   */
  constructor(app, api, types) {
    this.app = app;
    this.api = api;
    this.types = types;
  }

  /**
   * Put a panel on its node: last, and never written into the workflow, as saved files hold their values by position.
   * @param {T & Panel} view
   * @param {string} name of its widget.
   */
  put(view, name) {
    this.keep(view);
    const height = () => view.height + 2 * MARGIN_PX;
    const options = { serialize: false, hideOnZoom: false, margin: MARGIN_PX, getMinHeight: height, getMaxHeight: height };
    view.node.addDOMWidget(name, `GLORIA_${name.toUpperCase()}`, view.element, options).serialize = false;
  }

  /** Know a panel by its node. @param {T} view */
  keep(view) {
    this.#views.set(view.node, view);
  }

  /** The workflow's graph, also where a subgraph is shown. */
  root() {
    return rootOf(this.app);
  }

  /**
   * Return a node's panel.
   * @param {any} node
   * @returns {T | undefined}
   */
  of(node) {
    return this.#views.get(node);
  }

  /** @returns {T[]} */
  all() {
    const nodes = this.types.flatMap((type) => nodesOfType(this.root(), type));
    return nodes.map((node) => this.#views.get(node)).filter((view) => view !== undefined);
  }

  /** Show the panels of the nodes that are there whenever the page turns to another graph, a new subgraph's among them. */
  followGraphs() {
    on(this.app.canvas.canvas, "litegraph:set-graph", () => this.replaceOldSoon());
  }

  /** Do so when the page has drawn. */
  replaceOldSoon() {
    requestAnimationFrame(() => this.replaceOld());
  }

  /**
   * Put panels in the place of those of nodes that are gone. When the host undoes, or makes a subgraph, it makes nodes
   * anew, and one of its two renderers goes on showing what belonged to the node that had the same number before.
   */
  replaceOld() {
    const views = this.all();
    for (const { element, node } of views.filter((view) => !view.element.isConnected)) {
      const alike = [...document.querySelectorAll(`.${element.classList[0]}[data-node="${node.id}"]`)];
      alike.find((one) => views.every((view) => view.element !== one))?.replaceWith(element);
    }
  }

  /** Let the host's undo know that something was written. */
  changed() {
    changed(this.app);
  }

  /**
   * @param {string} path
   * @returns {Promise<any>} null where there is nothing, or nobody answers.
   */
  async get(path) {
    try {
      const answer = await this.api.fetchApi(path);
      return answer.ok ? await answer.json() : null;
    } catch (error) {
      if (error instanceof TypeError) return null; // the server is away; "reconnected" asks again
      throw error;
    }
  }
}

/** Let the host's undo know that something was written. @param {any} app the host's. */
export function changed(app) {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
  app.graph?.setDirtyCanvas?.(true, true);
}

/**
 * Give a node the height that its panel needs now, and take back what was given before and is not needed any more.
 * @param {Panel & {fitted?: number, given?: number}} view
 */
export function fit(view) {
  const { node, element, height, given = 0 } = view;
  const added = height - (view.fitted ?? height);
  view.fitted = height;
  element.style.minHeight = `${height}px`;
  if (!added || !node.graph) return;
  const before = node.size[1];
  const kept = before - Math.min(given, Math.max(0, -added));
  node.setSize?.([node.size[0], Math.max(kept, node.computeSize()[1])]);
  view.given = Math.max(0, given + node.size[1] - before);
}

/**
 * Keep the pointer for a panel: the host drags the node with one that nobody has stopped.
 * @param {HTMLElement} element
 */
export function keepPointer(element) {
  for (const type of ["pointerdown", "mousedown", "dblclick"]) on(element, type, (event) => event.stopPropagation());
}
