// @ts-check
/** The characters of the model folder: open one, save one. */

import { element, on } from "../lib/dom.mjs";
import { ask } from "./dialog.mjs";

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
  const body = found.length ? list : element("p", {}, "No character has been saved yet. Fill a board and press Save.");
  const id = await ask("Open a character", [body], [{ label: "Cancel", value: null }], (close) => {
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
  if (!name) return host.say("Give the character a name first: it is what the file is called.", "warn");
  await host.attempt(async () => {
    const there = (await host.characters()).some((character) => character.id === name || character.name === name);
    const question = element("p", {}, `There is a character '${name}' already. Replace it?`);
    const choices = [{ label: "Cancel", value: false }, { label: "Replace", value: true, is_main: true }];
    if (there && !(await ask("Save the character", [question], choices))) return;
    await host.save(name, board, there);
    host.say(`Saved '${name}'.`, "success");
  });
}

/** @param {BoardHost} host @param {{id: string, name: string, slots: string[]}} character @param {() => void} choose */
function card(host, { id, name, slots }, choose) {
  const picture = element("img", { src: host.thumbnail(id), alt: "", loading: "lazy" });
  const count = slots.length === 1 ? "1 picture" : `${slots.length} pictures`;
  const button = element("button", { type: "button", data: { character: id } }, picture, element("b", {}, name || id), element("span", {}, count));
  on(button, "click", choose);
  return button;
}
