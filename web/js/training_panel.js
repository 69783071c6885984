// @ts-check
/** The training panel on the nodes that follow a training: adds it to them and hands it what the host tells. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { stylesheet } from "./lib/dom.mjs";
import { FOLLOWERS } from "./lib/training_state.mjs";
import { Trainings } from "./training/trainings.mjs";

const trainings = new Trainings(app, api);

app.registerExtension({
  name: "gloria.training_panel",
  setup() {
    stylesheet(new URL("../css/shared.css", import.meta.url));
    stylesheet(new URL("../css/training.css", import.meta.url));
    trainings.listen();
  },
  /** @param {any} node */
  nodeCreated(node) {
    if (FOLLOWERS.includes(node.comfyClass)) trainings.add(node);
  },
  afterConfigureGraph() {
    trainings.fill();
  },
});
