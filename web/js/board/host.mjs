// @ts-check
/** What the board asks of the host: routes, uploads, pictures, messages, undo. */

import { nodesOfType, rootOf } from "../lib/graph.mjs";
import { t } from "../lib/words.mjs";
import { changed } from "../shared/panels.mjs";

/** @typedef {import("../lib/board_state.mjs").Board} Board */

/** An answer of the host that says no, in words for the artist. */
export class Refused extends Error {}

export class BoardHost {
  /**
   * @param {any} app the host's.
   * @param {any} api the host's.
   */
  constructor(app, api) {
    this.app = app;
    this.api = api;
  }

  /**
   * Learn sizes, tokens and warnings of every picture.
   * @param {Board} board
   */
  look(board) {
    return this.#post("/gloria/board/look", { board });
  }

  /**
   * Have a crop proposed.
   * @param {string} image
   * @param {"body" | "head" | "whole"} preset
   * @param {string} slot
   */
  autocrop(image, preset, slot) {
    return this.#post("/gloria/board/autocrop", { image, preset, slot });
  }

  /**
   * Have pictures for the slots proposed, from a sheet or a video.
   * @param {{image?: string, video?: string, grid?: [number, number]}} source
   */
  fill(source) {
    return this.#post("/gloria/board/fill", source);
  }

  /** @returns {Promise<{id: string, name: string, slots: string[], size: number, changed: number}[]>} */
  async characters() {
    return (await this.#ask("/gloria/characters")).characters;
  }

  /** @param {string} id */
  thumbnail(id) {
    return this.api.apiURL(`/gloria/characters/${encodeURIComponent(id)}/thumbnail`);
  }

  /** @param {string} id @returns {Promise<Board>} */
  async open(id) {
    return (await this.#post(`/gloria/characters/${encodeURIComponent(id)}/open`, {})).board;
  }

  /** @param {string} name @param {Board} board @param {boolean} overwrite */
  save(name, board, overwrite) {
    return this.#post("/gloria/characters", { name, board, overwrite });
  }

  /**
   * Put the pictures of a .gloria file into the input folder.
   * @param {File} file
   * @returns {Promise<Board>}
   */
  async import(file) {
    const body = new FormData();
    body.append("file", file);
    return (await this.#ask("/gloria/board/import", { method: "POST", body })).board;
  }

  /**
   * Put a file into the input folder.
   * @param {Blob} file
   * @param {string} name
   * @param {string} subfolder
   * @returns {Promise<string>} its path below the input folder; the host renames where the name is taken.
   */
  async upload(file, name, subfolder) {
    const body = new FormData();
    body.append("image", file, name);
    body.append("subfolder", subfolder);
    body.append("type", "input");
    const kept = await this.#ask("/upload/image", { method: "POST", body });
    return [kept.subfolder, kept.name].filter(Boolean).join("/").replaceAll("\\", "/");
  }

  /**
   * Return the address of a picture of the input folder. A preview forgets which way a camera was held, so that files
   * which may say it (JPEG) are shown as they are.
   * @param {string} image
   */
  pictureUrl(image) {
    const at = image.lastIndexOf("/");
    const query = new URLSearchParams({ filename: image.slice(at + 1), subfolder: image.slice(0, Math.max(0, at)), type: "input" });
    if (!/\.jpe?g$/i.test(image)) query.set("preview", "webp;70");
    return this.api.apiURL(`/view?${query}`);
  }

  /** Tell whether a node is part of the open workflow: an undo and another workflow make all nodes anew. @param {any} node */
  holds(node) {
    return nodesOfType(rootOf(this.app), node.type).includes(node);
  }

  /** Let the host's undo know that something was written. */
  changed() {
    changed(this.app);
  }

  /**
   * Show a message.
   * @param {string} detail
   * @param {"error" | "warn" | "success"} [severity]
   */
  say(detail, severity = "error") {
    this.app.extensionManager.toast.add({ severity, summary: t("Anchor board"), detail, life: severity === "error" ? 9000 : 4000 });
  }

  /**
   * Do something that the host may refuse, and show why it did.
   * @template T
   * @param {() => Promise<T>} act
   * @returns {Promise<T | undefined>} undefined where it was refused.
   */
  async attempt(act) {
    try {
      return await act();
    } catch (problem) {
      if (!(problem instanceof Refused)) throw problem;
      this.say(problem.message);
      return undefined;
    }
  }

  /** @param {string} path @param {object} data */
  #post(path, data) {
    const headers = { "Content-Type": "application/json" };
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(data) });
  }

  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async #ask(path, options) {
    const answer = await this.api.fetchApi(path, options).catch((/** @type {unknown} */ problem) => {
      if (problem instanceof TypeError) throw new Refused(t("ComfyUI does not answer. Is it still running?"));
      throw problem;
    });
    const text = await answer.text();
    const data = answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : {};
    if (answer.ok) return data;
    if (data.error) throw new Refused(data.error);
    const { status } = answer;
    throw new Refused(status === 413 ? t("The file is too large for this ComfyUI.") : t("ComfyUI refused ({status}).", { status }));
  }
}
