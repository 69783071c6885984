// @ts-check
/** The small player that shows one chunk. */

import { element, on } from "../lib/dom.mjs";
import { t } from "../lib/words.mjs";

export class Player {
  /** Number of the chunk that is shown; 0 where none is. */
  number = 0;

  /** @param {(is_playing: boolean) => void} toggled told when the player opens or closes. */
  constructor(toggled) {
    this.toggled = toggled;
    this.video = element("video", { controls: true, loop: true, muted: true, playsInline: true, preload: "auto" });
    this.title = element("span");
    const close = element("button", { type: "button", "aria-label": t("Close the player"), title: t("Close") }, "✕");
    this.element = element(
      "div", { class: "gloria-player", hidden: true }, element("div", {}, this.title, close), this.video,
    );
    on(close, "click", () => this.close());
    on(this.video, "error", () => this.#failed());
    on(this.element, "keydown", (event) => event.stopPropagation());
  }

  get is_playing() {
    return this.number > 0;
  }

  /**
   * @param {number} number of the chunk.
   * @param {string} url of its clip.
   */
  play(number, url) {
    const was_playing = this.is_playing;
    this.number = number;
    this.title.textContent = t("Chunk {number}", { number });
    this.element.hidden = false;
    this.video.src = url;
    // Refused where it is closed again at once, or where the browser plays nothing by itself.
    this.video.play().catch(() => undefined);
    if (!was_playing) this.toggled(true);
  }

  /** Stop and close. */
  close() {
    if (!this.is_playing) return;
    this.number = 0;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.element.hidden = true;
    this.toggled(false);
  }

  #failed() {
    if (!this.is_playing) return;
    this.title.textContent = t("Chunk {number} cannot be played: its clip is gone. Queue again.", { number: this.number });
  }
}
