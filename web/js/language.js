// @ts-check
/** The language of the pack on the page: that of the page, where the pack has it. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { on } from "./lib/dom.mjs";
import { nameSlots, translateDefinition } from "./lib/node_words.mjs";
import { speak } from "./lib/words.mjs";

/** @typedef {{gloria?: import("./lib/words.mjs").Words, nodeDefs?: Record<string, import("./lib/node_words.mjs").NodeWords>}} Translations */

const SETTING = "Comfy.Locale";
const ENGLISH = "en";

/** @type {Promise<Record<string, Translations>> | undefined} */
let asked;
/** @type {NonNullable<Translations["nodeDefs"]>} */
let nodes = {};

/** Learn the words of a language. @param {string} language */
async function learn(language) {
  if (language !== ENGLISH) asked ??= ask();
  const { gloria, nodeDefs = {} } = (await asked)?.[language] ?? {};
  speak(gloria);
  nodes = nodeDefs;
}

/** Ask the host for the translations of all packs; where it does not answer, the page speaks English. */
async function ask() {
  try {
    const answer = await api.fetchApi("/i18n");
    return answer.ok ? await answer.json() : {};
  } catch (problem) {
    if (problem instanceof TypeError) return {};
    throw problem;
  }
}

/** Return what is known of a node of this pack. @param {string} name */
function wordsOf(name) {
  return name?.startsWith("Gloria") ? (nodes[name] ?? {}) : {};
}

app.registerExtension({
  name: "gloria.language",
  /** The page waits for it before it makes any node; after a change of language it makes all nodes anew. */
  async init() {
    on(app.ui.settings, `${SETTING}.change`, ({ detail }) => learn(detail.value));
    await learn(app.extensionManager.setting.get(SETTING));
  },
  /** @param {any} _type @param {any} definition */
  beforeRegisterNodeDef(_type, definition) {
    translateDefinition(definition, wordsOf(definition.name));
  },
  /** @param {any} node */
  nodeCreated(node) {
    nameSlots(node, wordsOf(node.comfyClass));
  },
});
