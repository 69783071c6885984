// @ts-check
/** Times in words. */

import { t } from "./words.mjs";

/**
 * Return a time in words: "0.4 s", "12 s", "3 min 20 s", "1 h 5 min".
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 9.95) return t("{seconds} s", { seconds: Math.round(seconds * 10) / 10 });
  const whole = Math.round(seconds);
  if (whole < 60) return t("{seconds} s", { seconds: whole });
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return t("{minutes} min {seconds} s", { minutes, seconds: whole % 60 });
  return t("{hours} h {minutes} min", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}
