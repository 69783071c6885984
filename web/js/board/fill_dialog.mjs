// @ts-check
/** Fill the board from a turnaround sheet or a video: a proposal for each slot, to accept or to change. */

import { titleOf } from "../lib/board_layout.mjs";
import { SLOTS } from "../lib/board_state.mjs";
import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";
import { ask } from "../shared/dialog.mjs";

/** @typedef {import("../lib/board_state.mjs").Entry} Entry */
/** @typedef {import("./host.mjs").BoardHost} BoardHost */
/** @typedef {{id: string, image: string, at_s?: number, crops?: Record<string, any>, scores?: Record<string, number>}} Candidate */
/** @typedef {{grid: [number, number] | null, candidates: Candidate[], proposal: Record<string, string>, by: string}} Proposal */

/**
 * Let the artist accept or change what the host proposes.
 * @param {BoardHost} host
 * @param {{image?: string, video?: string}} source path of a sheet or a video below the input folder.
 * @returns {Promise<Record<string, Entry> | null>} pictures by slot; null where nothing was accepted.
 */
export async function fillBoard(host, source) {
  const proposal = await host.attempt(() => host.fill(source));
  if (!proposal) return null;
  const chooser = new FillChooser(host, source, proposal);
  const choices = [{ label: t("Cancel"), value: null }, { label: t("Fill the board"), value: "fill", is_main: true }];
  const chosen = await ask(t("Fill the board"), [chooser.element], choices);
  return chosen && chooser.entries();
}

class FillChooser {
  /** @param {BoardHost} host @param {{image?: string, video?: string}} source @param {Proposal} proposal */
  constructor(host, source, proposal) {
    this.host = host;
    this.source = source;
    this.proposal = proposal;
    this.chosen = /** @type {Record<string, string>} */ ({});
    this.slot = SLOTS[0];
    this.columns = sideOf(t("Columns of the sheet"));
    this.rows = sideOf(t("Rows of the sheet"));
    this.slots = element("div", { class: "gloria-targets", role: "listbox", "aria-label": t("Slots") });
    this.shown = element("div", { class: "gloria-candidates", role: "listbox", "aria-label": t("Pictures") });
    this.told = element("p", { class: "gloria-told" });
    this.element = element("div", { class: "gloria-fill" }, this.told, this.#grid(), this.slots, this.shown);
    this.#take(proposal);
  }

  /** @returns {Record<string, Entry>} */
  entries() {
    /** @type {Record<string, Entry>} */
    const entries = {};
    for (const [slot, id] of Object.entries(this.chosen)) {
      const found = this.#candidate(id);
      const crop = found?.crops?.[slot.split(".")[0]];
      if (found) entries[slot] = crop ? { image: found.image, crop } : { image: found.image };
    }
    return entries;
  }

  /** @param {Proposal} proposal */
  #take(proposal) {
    this.proposal = proposal;
    this.chosen = { ...proposal.proposal };
    this.slot = Object.keys(this.chosen)[0] ?? SLOTS[0];
    const count = proposal.candidates.length;
    this.told.textContent = proposal.by === "analysis"
      ? t("{count} pictures, laid into the slots by what they show. Choose a slot, then its picture.", { count })
      : t("{count} pictures, laid into the slots by their order; look at each. Choose a slot, then its picture.", { count });
    if (proposal.grid) [this.columns.value, this.rows.value] = proposal.grid.map(String);
    this.#draw();
  }

  #grid() {
    const again = element("button", { type: "button" }, t("Cut again"));
    on(again, "click", () => this.#cut());
    const row = element("div", { class: "gloria-grid" }, `${t("Columns")} `, this.columns, ` ${t("Rows")} `, this.rows, again);
    row.hidden = !this.source.image;
    return row;
  }

  async #cut() {
    const grid = /** @type {[number, number]} */ ([this.columns.valueAsNumber, this.rows.valueAsNumber]);
    const proposal = await this.host.attempt(() => this.host.fill({ ...this.source, grid }));
    if (proposal) this.#take(proposal);
  }

  #draw() {
    this.slots.replaceChildren(...SLOTS.map((slot) => this.#option(titleOf(slot), this.#candidate(this.chosen[slot]), slot === this.slot, () => (this.slot = slot))));
    const none = this.#option(t("none"), undefined, !this.chosen[this.slot], () => delete this.chosen[this.slot]);
    this.shown.replaceChildren(none, ...this.proposal.candidates.map((found) =>
      this.#option(caption(found, this.slot), found, this.chosen[this.slot] === found.id, () => (this.chosen[this.slot] = found.id))));
  }

  /** @param {string} label @param {Candidate | undefined} found @param {boolean} is_chosen @param {() => void} choose */
  #option(label, found, is_chosen, choose) {
    const picture = found ? element("img", { src: this.host.pictureUrl(found.image), alt: "", loading: "lazy" }) : null;
    const option = element("button", { type: "button", role: "option", "aria-selected": String(is_chosen) }, picture, element("span", {}, label));
    on(option, "click", () => {
      const at = [...(option.parentElement?.children ?? [])].indexOf(option);
      const list = option.parentElement;
      choose();
      this.#draw();
      /** @type {HTMLElement} */ (list?.children[at])?.focus();
    });
    return option;
  }

  /** @param {string | undefined} id */
  #candidate(id) {
    return this.proposal.candidates.find((found) => found.id === id);
  }
}

/** @param {string} label */
function sideOf(label) {
  return element("input", { type: "number", min: "1", max: "12", value: "1", "aria-label": label });
}

/** @param {Candidate} found @param {string} slot */
function caption({ id, at_s, scores }, slot) {
  const where = at_s === undefined ? id : t("{seconds} s", { seconds: at_s.toFixed(1) });
  const score = scores?.[slot];
  return score === undefined ? where : `${where}, ${Math.round(100 * score)} %`;
}
