// @ts-check
/** What comes onto a board from outside: files, pictures of the page, pictures of other slots. */

import { folderOf, put, slotsFor } from "../lib/board_state.mjs";
import { t } from "../lib/words.mjs";
import { Refused } from "./host.mjs";
import { brought, contents, isCharacter, isPicture, isVideo, lifted, pathOf } from "./transfer.mjs";

/** @typedef {import("./transfer.mjs").Named} Named */
/** @typedef {import("./view.mjs").BoardView} BoardView */

export class Incoming {
  /** @param {BoardView} view */
  constructor(view) {
    this.view = view;
    this.host = view.host;
  }

  /**
   * Take what was dropped or pasted.
   * @param {DataTransfer} transfer
   * @param {string | null} slot
   */
  async transfer(transfer, slot) {
    const own = lifted(transfer);
    if (own) return this.#fromSlot(own, slot);
    const { files, address } = contents(transfer);
    const path = address && pathOf(address, location.origin);
    if (path) return this.#lay([path], [path], slot);
    if (files.length || !address) return this.take(files, slot);
    return this.host.attempt(async () => this.take([await brought(address)], slot));
  }

  /**
   * Take files: pictures into slots, a character in place of the board, a video as a source.
   * @param {Named[]} files
   * @param {string | null} slot
   */
  async take(files, slot) {
    const character = files.find(isCharacter);
    if (character) return this.view.replace(await this.host.attempt(() => this.host.import(asFile(character))));
    const video = files.find(isVideo);
    if (video) return this.fill([asFile(video)]);
    return this.host.attempt(() => this.#pictures(files, slot));
  }

  /**
   * Propose pictures for the slots from a sheet or a video.
   * @param {File[]} files
   */
  async fill([file]) {
    if (!file) return;
    const path = await this.host.attempt(() => this.#upload({ file, name: file.name }));
    if (path) await this.view.fillFrom(isVideo({ file, name: file.name }) ? { video: path } : { image: path });
  }

  /** @param {Named[]} files @param {string | null} slot */
  async #pictures(files, slot) {
    const pictures = files.filter(isPicture);
    const other = files.find((named) => !isPicture(named));
    if (other) this.host.say(t("'{name}' is no picture. Drop a PNG, JPEG or WebP, or a .gloria file.", { name: other.name }));
    const paths = [];
    for (const named of pictures) paths.push(await this.#upload(named));
    this.#lay(paths, pictures.map(({ name }) => name), slot);
  }

  /** @param {Named} named */
  #upload({ file, name }) {
    if (!file.size) throw new Refused(t("'{name}' is empty.", { name }));
    return this.host.upload(file, name, folderOf(this.view.board));
  }

  /** @param {string[]} paths @param {string[]} names @param {string | null} wanted */
  #lay(paths, names, wanted) {
    if (!paths.length) return;
    this.view.edit((board) => {
      const slots = slotsFor(board, names, wanted);
      if (slots.includes(null)) this.host.say(t("There were more pictures than empty slots."), "warn");
      return slots.reduce((made, slot, index) => (slot ? put(made, slot, { image: paths[index] }) : made), board);
    });
  }

  /** @param {import("./transfer.mjs").Lifted} own @param {string | null} slot */
  #fromSlot(own, slot) {
    if (!slot) return;
    if (own.board !== this.view.id) this.view.put(slot, own.entry);
    else if (own.slot !== slot) this.view.swap(own.slot, slot);
  }
}

/** @param {Named} named */
function asFile({ file, name }) {
  return file instanceof File ? file : new File([file], name, { type: file.type });
}
