// @ts-check
/** How a training is put into words. Pure. */

import { duration } from "./duration.mjs";
import { isLive } from "./training_state.mjs";
import { t } from "./words.mjs";

/** @typedef {import("./training_state.mjs").Training} Training */
/** @typedef {import("./training_state.mjs").State} State */

/** @param {State} state */
export function called(state) {
  return {
    none: t("No training yet"),
    new: t("Waiting"),
    running: t("Training"),
    stopping: t("Stopping"),
    stopped: t("Stopped"),
    finished: t("Finished"),
    failed: t("Failed"),
    lost: t("Lost"),
  }[state];
}

/**
 * Return which job it is and how far.
 * @param {Training} training
 */
export function headline({ name, state, stage, step, total_steps }) {
  if (state === "none") return t("Queue to see the training here.");
  const place = total_steps ? t("step {step} of {total}", { step: spaced(step), total: spaced(total_steps) }) : "";
  return [name, stage && t("stage {stage}", { stage }), place].filter(Boolean).join(" · ");
}

/**
 * Return what comes next, or what can be done.
 * @param {Training} training
 */
export function outlook({ state, eta_s }) {
  if (state === "stopping") return t("makes a checkpoint, then stops");
  if (state === "running") return eta_s === null ? t("getting ready") : t("about {time} left", { time: duration(eta_s) });
  return "";
}

/**
 * Return the numbers by name, each with a sentence about it.
 * @param {Training} training
 * @returns {{name: string, value: string, about: string}[]}
 */
export function facts({ loss, held_out, lr, samples_per_s, memory_mb }) {
  const shown = (/** @type {number | null} */ value, /** @type {(value: number) => string} */ write) =>
    value === null ? "–" : write(value);
  return [
    { name: t("Loss"), value: shown(loss, fine), about: t("On the clips that it learns from") },
    { name: t("Held-out loss"), value: shown(held_out, fine), about: t("On clips that it never sees; the best moment is where this is lowest") },
    { name: t("Learning rate"), value: shown(lr, rate), about: t("How large each correction is now") },
    { name: t("Clips a second"), value: shown(samples_per_s, (value) => String(Number(value.toPrecision(2)))), about: t("How fast clips are learned from") },
    { name: t("Memory"), value: shown(memory_mb || null, (value) => `${(value / 1000).toFixed(1)} GB`), about: t("The most that the training's process has used") },
  ];
}

/**
 * Return what a screen reader says when the state changes.
 * @param {Training} training
 */
export function spoken(training) {
  const { name, state, error } = training;
  const percent = isLive(training) ? `${Math.floor(10 * training.done) * 10} %` : "";
  return [name, called(state), percent, error].filter(Boolean).join(", ");
}

/** @param {number} loss */
export function fine(loss) {
  return loss >= 0.001 ? loss.toPrecision(4) : rate(loss);
}

/** @param {number} value */
function rate(value) {
  return value ? value.toExponential(2).replace(/\.?0+e/, "e") : "0";
}

/** @param {number} count */
function spaced(count) {
  return String(count).replace(/(?<=\d)(?=(\d{3})+$)/g, "\u202f");
}
