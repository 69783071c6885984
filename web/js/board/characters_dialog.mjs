// @ts-check
/** The characters of the model folder: open one, save one. */

import { pictures } from "../lib/board_layout.mjs";
import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { ask } from "../shared/dialog.mjs";

/** @typedef {import("../lib/board_state.mjs").Board} Board */
/** @typedef {import("./host.mjs").BoardHost} BoardHost */

/**
 * Let the artist choose a saved character.
 * @param {BoardHost} host
 * @returns {Promise<Board | null | undefined>} its board; null where none was chosen.
 */
export async function openCharacter(host) {
  const found = await host.attempt(() => host.characters());
  if (!found) return null;
  const list = element("div", { class: "gloria-characters" });
  const body = found.length ? list : element("p", {}, t("No character has been saved yet. Fill a board and press Save."));
  const id = await ask(t("Open a character"), [body], [{ label: t("Cancel"), value: null }], (close) => {
    list.append(...found.map((character) => card(host, character, () => close(character.id))));
  });
  return id === null ? null : host.attempt(() => host.open(id));
}

/**
 * Save a board under its name; asks before another is replaced.
 * @param {BoardHost} host
 * @param {Board} board
 */
export async function saveCharacter(host, board) {
  const name = String(board.name ?? "").trim();
  if (!name) return host.say(t("Give the character a name first: it is what the file is called."), "warn");
  await host.attempt(async () => {
    const there = (await host.characters()).some((character) => character.id === name || character.name === name);
    const question = element("p", {}, t("There is a character '{name}' already. Replace it?", { name }));
    const choices = [{ label: t("Cancel"), value: false }, { label: t("Replace"), value: true, is_main: true }];
    if (there && !(await ask(t("Save the character"), [question], choices))) return;
    await host.save(name, board, there);
    host.say(t("Saved '{name}'.", { name }), "success");
  });
}

/** @param {BoardHost} host @param {{id: string, name: string, slots: string[]}} character @param {() => void} choose */
function card(host, { id, name, slots }, choose) {
  const picture = element("img", { src: host.thumbnail(id), alt: "", loading: "lazy" });
  const button = element("button", { type: "button", data: { character: id } }, picture, element("b", {}, name || id), element("span", {}, pictures(slots.length)));
  on(button, "click", choose);
  return button;
}
