// @ts-check
/** The language of the board and the timeline: that of the page, where the pack has it. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { on } from "./lib/dom.mjs";
import { speak } from "./lib/words.mjs";

const SETTING = "Comfy.Locale";
const ENGLISH = "en";

/** @type {Promise<Record<string, {gloria?: import("./lib/words.mjs").Words}>> | undefined} */
let translations;

/** Learn the words of a language. @param {string} language */
async function learn(language) {
  translations = language === ENGLISH ? translations : (translations ?? ask());
  speak((await translations)?.[language]?.gloria);
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

app.registerExtension({
  name: "gloria.language",
  /** The page waits for it before it makes any node; after a change of language it makes all nodes anew. */
  async init() {
    on(app.ui.settings, `${SETTING}.change`, ({ detail }) => learn(detail.value));
    await learn(app.extensionManager.setting.get(SETTING));
  },
});
