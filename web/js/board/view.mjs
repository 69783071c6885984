// @ts-check
/** The anchor board of one node: shows the text of the widget `board`, and writes it. */

import { cardLines, neighbour, summary, titleOf } from "../lib/board_layout.mjs";
import { SLOTS, cleared, cropped, entryOf, filled, inputOf, put, read, swap, write, writtenFor } from "../lib/board_state.mjs";
import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { Card } from "../shared/card.mjs";
import { Menu } from "../shared/menu.mjs";
import { openCharacter, saveCharacter } from "./characters_dialog.mjs";
import { cropPicture } from "./crop_dialog.mjs";
import { ask, chooseFiles } from "../shared/dialog.mjs";
import { fillBoard } from "./fill_dialog.mjs";
import { Incoming } from "./incoming.mjs";
import { SlotView } from "./slot.mjs";
import { listenToSlots } from "./slot_events.mjs";

/** @typedef {import("../lib/board_state.mjs").Board} Board */
/** @typedef {import("../lib/board_state.mjs").Entry} Entry */
/** @typedef {import("./host.mjs").BoardHost} BoardHost */

const LOOK_AFTER_MS = 250;

export class BoardView {
  /**
   * @param {any} node
   * @param {any} widget the one that holds the text.
   * @param {BoardHost} host
   */
  constructor(node, widget, host) {
    this.node = node;
    this.widget = widget;
    this.host = host;
    this.id = `board-${Math.random()}`; // a drag may come from another window, which has boards of its own
    this.incoming = new Incoming(this);
    this.looks = /** @type {Record<string, any>} */ ({});
    this.looked = "";
    this.refusal = ""; // of the text that was looked at
    this.analysis = /** @type {{name: string | null, problems: string[]} | null} */ (null);
    this.slots = SLOTS.map((slot) => new SlotView(slot));
    this.current = SLOTS[0];
    this.menu = new Menu();
    this.card = new Card();
    const named = t("Name of the character");
    this.name = element("input", { class: "gloria-called", type: "text", placeholder: named, "aria-label": named, maxLength: 80 });
    this.status = element("div", { class: "gloria-status", role: "status" });
    const grid = element("div", { class: "gloria-slots", role: "group", "aria-label": t("Anchor pictures") }, ...this.slots.map((view) => view.element));
    this.element = element("div", { class: "gloria-board" }, this.#toolbar(), grid, this.status, this.card.element, this.menu.element);
    on(this.name, "change", () => this.edit((board) => ({ ...board, name: this.name.value.trim() || undefined })));
    on(this.name, "keydown", (event) => event.stopPropagation());
    listenToSlots(this);
    this.refresh();
  }

  /** @returns {Board} what the widget says. */
  get board() {
    return read(this.widget.value).board;
  }

  /** Show what the widget and the connections say now. */
  refresh() {
    const { board, error } = read(this.widget.value);
    this.element.dataset.node = String(this.node.id);
    if (document.activeElement !== this.name) this.name.value = board.name ?? "";
    for (const view of this.slots) this.#show(view, board);
    this.select(this.current);
    const problem = error || (this.looked === this.widget.value && this.refusal);
    this.status.title = this.status.textContent = problem || this.#summary(board);
    this.status.classList.toggle("is-bad", Boolean(problem));
    if (this.looked !== this.widget.value) this.#lookSoon();
  }

  /**
   * Write a board: into the widget, where the host's undo finds it.
   * @param {Board} board
   */
  commit(board) {
    const text = write(board);
    if (text === this.widget.value) return;
    if (!this.host.holds(this.node)) return this.host.say(t("This board is not open any more. Nothing was put on it: open its workflow, and do it again."));
    this.widget.value = text;
    this.widget.callback?.(text);
    this.host.changed();
    this.refresh();
  }

  /** Change the board, unless its text is broken: then only Clear may. @param {(board: Board) => Board} change */
  edit(change) {
    const { board, error } = read(this.widget.value);
    if (error) this.host.say(error);
    else this.commit(change(board));
  }

  /** @param {string} slot @param {Entry | null} entry */
  put(slot, entry) {
    this.edit((board) => put(board, slot, entry));
  }

  /** @param {string} one @param {string} other */
  swap(one, other) {
    this.edit((board) => swap(board, one, other));
  }

  /** Make a slot the one that Tab leads to. @param {string} slot */
  select(slot) {
    this.current = slot;
    for (const view of this.slots) view.element.tabIndex = view.slot === slot ? 0 : -1;
  }

  /** @param {string} slot */
  focus(slot) {
    this.select(slot);
    this.view(slot).element.focus();
  }

  /** @param {string} slot @returns {SlotView} */
  view(slot) {
    return /** @type {SlotView} */ (this.slots.find((view) => view.slot === slot));
  }

  /** @param {string} slot */
  async crop(slot) {
    const entry = entryOf(this.board, slot);
    const decided = entry && (await cropPicture(this.host, slot, entry));
    if (decided) this.edit((board) => cropped(board, slot, decided.crop));
  }

  /** @param {string} slot */
  async choose(slot) {
    const files = await chooseFiles("image/*,.gloria", true);
    await this.incoming.take(files.map((file) => ({ file, name: file.name })), slot);
  }

  /** Enter or a click: the picker for an empty slot, else what can be done with its picture. @param {string} slot */
  open(slot) {
    const { element: anchor, state } = this.view(slot);
    this.card.hide();
    if (!state.entry) return this.choose(slot);
    const free = SLOTS.filter((other) => other !== slot && neighbour(slot, "ArrowRight") === other);
    return this.menu.open(anchor, titleOf(slot), [
      { label: t("Crop…"), act: () => this.crop(slot) },
      { label: t("Other picture…"), act: () => this.choose(slot) },
      ...free.map((other) => ({ label: t("Swap with {slot}", { slot: titleOf(other) }), act: () => this.swap(slot, other) })),
      { label: t("Remove"), act: () => this.put(slot, null) },
    ]);
  }

  /** @param {string} slot */
  tell(slot) {
    const { element: anchor, state } = this.view(slot);
    if (this.menu.is_open) return;
    this.card.show(anchor, cardLines(slot, { image: state.entry?.image, origin: state.origin, look: state.look }));
  }

  /** Take a board from a file or a folder in place of this one. @param {Board | null | undefined} board */
  replace(board) {
    if (board) this.commit(board);
  }

  /** @param {{image?: string, video?: string}} source */
  async fillFrom(source) {
    const entries = await fillBoard(this.host, source);
    if (entries) this.edit((board) => Object.entries(entries).reduce((made, [slot, entry]) => put(made, slot, entry), board));
  }

  #toolbar() {
    /** @type {[string, string, string, () => unknown][]} */
    const tools = [
      ["open", t("Open"), t("Open a saved character"), async () => this.replace(await openCharacter(this.host))],
      ["save", t("Save"), t("Save this character for other workflows"), () => saveCharacter(this.host, this.board)],
      ["import", t("Import"), t("Read a .gloria file"), async () => this.incoming.take((await chooseFiles(".gloria")).map((file) => ({ file, name: file.name })), null)],
      ["fill", t("Fill"), t("Fill the slots from a turnaround sheet or a video"), async () => this.incoming.fill(await chooseFiles("image/*,video/*"))],
      ["clear", t("Clear"), t("Empty every slot"), () => this.#clear()],
    ];
    const buttons = tools.map(([tool, label, title, act]) => {
      const button = element("button", { type: "button", title, data: { tool } }, label);
      on(button, "click", act);
      return button;
    });
    return element("div", { class: "gloria-tools", role: "toolbar", "aria-label": t("Character") }, this.name, ...buttons);
  }

  async #clear() {
    const { board, error } = read(this.widget.value);
    const count = filled(board).length;
    if (!count && !error) return;
    const question = count === 1 ? t("Take the picture from the board? The files stay.")
      : t("Take all {count} pictures from the board? The files stay.", { count });
    const choices = [{ label: t("Cancel"), value: false }, { label: t("Clear"), value: true, is_main: true }];
    if (await ask(t("Clear the board"), [element("p", {}, error || question)], choices)) this.commit(error ? {} : cleared(board));
  }

  /** @param {SlotView} view @param {Board} board */
  #show(view, board) {
    const entry = entryOf(board, view.slot);
    const from = this.#source(inputOf(view.slot));
    const url = entry ? this.host.pictureUrl(entry.image) : "";
    const seen = this.looks[view.slot];
    const look = seen?.written === JSON.stringify(writtenFor(board, view.slot)) ? (seen?.told ?? null) : null;
    view.show({ entry, url, origin: from?.title ?? "", preview: from?.preview ?? "", look });
  }

  /** What an input is connected to. @param {string} name */
  #source(name) {
    const at = this.node.inputs?.findIndex((/** @type {any} */ input) => input.name === name) ?? -1;
    if (at < 0 || this.node.inputs[at].link == null) return null;
    const origin = this.node.graph ? this.node.getInputNode(at) : null;
    const file = origin?.comfyClass === "LoadImage" ? origin.widgets?.find((/** @type {any} */ w) => w.name === "image")?.value : "";
    const preview = typeof file === "string" && file && !file.includes("[") ? this.host.pictureUrl(file) : "";
    return { title: origin?.title ?? t("an input"), preview };
  }

  /** @param {Board} board */
  #summary(board) {
    const used = this.slots.filter((view) => view.state.entry || view.state.origin).map((view) => view.slot);
    const looks = this.slots.filter((view) => !view.state.origin).map((view) => view.state.look);
    return summary(used, filled(board).length ? looks : [], Boolean(this.#source("anchors")), this.analysis);
  }

  /** Ask the host about the pictures, once the artist has paused. */
  #lookSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#look(), LOOK_AFTER_MS);
  }

  async #look() {
    const text = this.widget.value;
    const { board, error } = read(text);
    this.looked = text;
    this.refusal = "";
    if (error || write(board) === "{}") return;
    const found = await this.host.attempt(() => this.host.look(board));
    if (!found || text !== this.widget.value) return;
    this.analysis = found.analysis ?? null;
    this.looks = Object.fromEntries(Object.entries(found.slots ?? {}).map(([slot, told]) => [slot, { told, written: JSON.stringify(writtenFor(board, slot)) }]));
    this.refusal = found.error ?? "";
    this.refresh();
  }
}
