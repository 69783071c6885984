// @ts-check
/** The words of the page: English as it stands in the code, or what `locales/LANGUAGE/main.json` says in its place. */

/** @typedef {Record<string, string>} Words translations by their English */

/** @type {Words} */
let words = {};

/**
 * Speak another language from now on.
 * @param {Words} [translated] what is missing in it stays English; nothing for English.
 */
export function speak(translated = {}) {
  words = translated;
}

/**
 * Return a text in the language of the page. Call it where the text is shown: while modules load no language is known.
 * @param {string} english may hold places for values, such as {count}.
 * @param {Record<string, string | number>} [values] by the names of their places.
 */
export function t(english, values = {}) {
  return (words[english] ?? english).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}
