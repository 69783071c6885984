// @ts-check
/** The chunk timeline on the Chunked Long Sampler: adds it to the nodes and hands it what the host tells. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { stylesheet } from "./lib/dom.mjs";
import { SAMPLER, Timelines } from "./timeline/timelines.mjs";

const timelines = new Timelines(app, api);

app.registerExtension({
  name: "gloria.chunk_timeline",
  setup() {
    stylesheet(new URL("../css/shared.css", import.meta.url));
    stylesheet(new URL("../css/timeline.css", import.meta.url));
    timelines.listen();
  },
  /** @param {any} node */
  nodeCreated(node) {
    if (node.comfyClass === SAMPLER) timelines.add(node);
  },
  afterConfigureGraph() {
    timelines.fill();
  },
});
