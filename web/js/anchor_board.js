// @ts-check
/** The anchor board on Gloria Anchor Set: adds it to the nodes. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { ANCHOR_SET, addBoard } from "./board/boards.mjs";
import { BoardHost } from "./board/host.mjs";
import { stylesheet } from "./lib/dom.mjs";
import { Panels } from "./shared/panels.mjs";

const host = new BoardHost(app, api);
const boards = new Panels(app, api, [ANCHOR_SET]);

app.registerExtension({
  name: "gloria.anchor_board",
  setup() {
    stylesheet(new URL("../css/shared.css", import.meta.url));
    stylesheet(new URL("../css/anchor_board.css", import.meta.url));
    boards.followGraphs();
  },
  /** @param {any} node */
  nodeCreated(node) {
    if (node.comfyClass === ANCHOR_SET) boards.keep(addBoard(node, host));
  },
  afterConfigureGraph() {
    boards.replaceOldSoon();
  },
});
