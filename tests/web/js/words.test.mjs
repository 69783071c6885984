import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { afterEach, test } from "node:test";

import { labelOf, summary } from "../../../web/js/lib/board_layout.mjs";
import { headline } from "../../../web/js/lib/timeline_layout.mjs";
import { empty } from "../../../web/js/lib/timeline_state.mjs";
import { speak, t } from "../../../web/js/lib/words.mjs";

const ROOT = new URL("../../../", import.meta.url);
const CODE = new URL("web/js/", ROOT);
const LITERAL = /"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g;
/** Comments, and literals, which may hold what looks like one. */
const COMMENT = new RegExp(`(${LITERAL.source})|/\\*[^]*?\\*/|(?<=^|\\s)//.*$`, "gm");
/** Names of keys, types, settings and classes: words that people never read. */
const NAMES = /^"(?:Arrow\w+|Backspace|Content-Type|ContextMenu|Delete|Enter|Escape|Files|LoadImage|Reroute|Tab|Gloria\w*|Comfy\.\w+|gloria-.+)"$/;
/** Where people read whatever stands there. */
const SHOWN = /(?:\b(?:title|placeholder|label|summary|textContent|ariaLabel)|"aria-label")\s*[:=]\s*["`]\w.*/g;

const files = readdirSync(CODE, { recursive: true }).filter((name) => /\.m?js$/.test(name));
const sources = files.map((name) => [name, readFileSync(new URL(name.replaceAll("\\", "/"), CODE), "utf8").replace(COMMENT, (_, literal) => literal ?? "")]);
const calls = sources.flatMap(([name, source]) => [...source.matchAll(/(?<!function |[\w.])t\(/g)].map((call) => [name, argumentsOf(source, call.index + 1)]));
const languages = readdirSync(new URL("locales/", ROOT));
const places = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

afterEach(() => speak());

/** What stands between a bracket and its end. */
function argumentsOf(source, from) {
  let depth = 0;
  const literal = new RegExp(LITERAL.source, "y");
  for (let at = from; ; at++) {
    literal.lastIndex = at;
    if (literal.test(source)) at = literal.lastIndex - 1;
    else if (source[at] === "(") depth++;
    else if (source[at] === ")" && --depth === 0) return source.slice(from + 1, at);
  }
}

/** The words of a language's file. */
function translated(language) {
  return JSON.parse(readFileSync(new URL(`locales/${language}/main.json`, ROOT), "utf8")).gloria;
}

test("a text is said in English, then in another language, then in English again", () => {
  assert.equal(t("Open"), "Open");
  speak({ Open: "Öffnen" });
  assert.equal(t("Open"), "Öffnen");
  assert.equal(t("Save"), "Save");
  speak();
  assert.equal(t("Open"), "Open");
});

test("values stand where the language has their places, as they are", () => {
  speak({ "{count} of {total}": "{total} 中 {count}, {other}" });
  assert.equal(t("{count} of {total}", { count: 0, total: 9 }), "9 中 0, {other}");
  assert.equal(t("'{name}'", { name: "$& {name}" }), "'$& {name}'");
});

test("board and timeline speak the language", () => {
  speak(translated("de"));
  assert.equal(labelOf("views.left", {}), "Links: leer. Eingabetaste wählt ein Bild");
  assert.equal(summary(["global"], [{ tokens: 10 }], false), "1 Bild · 10 Token in jedem Abschnitt");
  assert.match(headline(empty()), /^Einreihen/);
});

test("every text is written out where it is said, and its values have its places", () => {
  assert.ok(calls.length > 100);
  for (const [name, said] of calls) {
    const [text] = said.match(/^"[^"]*"/) ?? [];
    assert.ok(text, `${name}: t(${said})`);
    for (const place of places(text)) assert.match(said.slice(text.length), new RegExp(`\\b${place.slice(1, -1)}\\b`), `${name}: ${said}`);
  }
});

test("nothing that people read is left in English", () => {
  for (const [name, source] of sources) {
    const rest = calls.filter(([where]) => where === name).reduce((left, [, said]) => left.replace(`t(${said})`, ""), source);
    const sentences = [...rest.matchAll(LITERAL)].map(([literal]) => literal.replace(/\$\{[^}]*\}/g, "")).filter(isRead);
    assert.deepEqual([...sentences, ...(rest.match(SHOWN) ?? [])], [], name);
  }
});

/** Whether a literal looks like words: two in a row, or one that begins as a sentence does. */
function isRead(literal) {
  return (/[a-z]{2,}[,;.:…]? [a-z]{2,}/i.test(literal) || /^["`][A-Z][a-z]+/.test(literal)) && !NAMES.test(literal);
}

for (const language of languages) {
  test(`${language} has every text of the page, and nothing else`, () => {
    const said = new Set(calls.map(([, words]) => words.match(/^"([^"]*)"/)?.[1]));
    const told = new Set(Object.keys(translated(language)));
    const difference = { missing: [...said].filter((text) => !told.has(text)), unused: [...told].filter((text) => !said.has(text)) };
    assert.deepEqual(difference, { missing: [], unused: [] });
  });

  test(`${language} says it with the same places`, () => {
    for (const [english, text] of Object.entries(translated(language))) {
      assert.deepEqual(places(text), places(english), english);
      assert.ok(text && text === text.trim(), english);
    }
  });
}
