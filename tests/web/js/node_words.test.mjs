import assert from "node:assert/strict";
import { test } from "node:test";

import { nameSlots, translateDefinition } from "../../../web/js/lib/node_words.mjs";

const WORDS = {
  display_name: "Figur laden", description: "Lädt eine Figur.",
  inputs: { character: { name: "Figur", tooltip: "Die Datei." }, vae: { name: "VAE" } }, outputs: { 1: { name: "Bild", tooltip: "Die Szene." } },
};
const definition = () => ({
  name: "GloriaLoadCharacter", display_name: "Load Character", description: "Loads.",
  input: { required: { character: [["a", "b"], { tooltip: "The file.", default: "a" }] }, optional: { vae: ["VAE", { tooltip: "The VAE." }], plain: ["INT"] } },
  output_tooltips: ["Anchors.", "The scene."],
});

test("a definition gets its texts and keeps what has none", () => {
  const made = definition();
  translateDefinition(made, WORDS);
  assert.deepEqual(made, {
    name: "GloriaLoadCharacter", display_name: "Figur laden", description: "Lädt eine Figur.",
    input: { required: { character: [["a", "b"], { tooltip: "Die Datei.", default: "a" }] }, optional: { vae: ["VAE", { tooltip: "The VAE." }], plain: ["INT"] } },
    output_tooltips: ["Anchors.", "Die Szene."],
  });
});

test("slots are named, never renamed: values and links find them as before", () => {
  const node = {
    inputs: [{ name: "character", localized_name: "character" }, { name: "other", localized_name: "other" }],
    widgets: [{ name: "character" }, { name: "anchor_board", label: "kept" }], outputs: [{ name: "anchors", localized_name: "anchors" }, { name: "image" }],
  };
  nameSlots(node, WORDS);
  assert.deepEqual(node, {
    inputs: [{ name: "character", localized_name: "Figur" }, { name: "other", localized_name: "other" }],
    widgets: [{ name: "character", label: "Figur" }, { name: "anchor_board", label: "kept" }],
    outputs: [{ name: "anchors", localized_name: "anchors" }, { name: "image", localized_name: "Bild" }],
  });
});

test("in English nothing changes", () => {
  const [made, node] = [definition(), { inputs: [{ name: "a", localized_name: "a" }], widgets: [{ name: "a", label: "b" }] }];
  translateDefinition(made, {});
  nameSlots(node, {});
  assert.deepEqual(made, definition());
  assert.deepEqual(node, { inputs: [{ name: "a", localized_name: "a" }], widgets: [{ name: "a", label: "b" }] });
});
