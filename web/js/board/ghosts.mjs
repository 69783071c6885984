// @ts-check
/** The silhouettes of empty slots: a body from four sides, eight faces, a scene. */

const SVG = "http://www.w3.org/2000/svg";

const BODY = "M40 48 Q50 44 60 48 L66 92 L60 94 L58 74 L59 140 L51 140 L50 98 L49 140 L41 140 L42 74 L40 94 L34 92 Z";
const SIDE = "M45 48 Q52 44 57 50 L58 92 L55 140 L46 140 L45 96 Z";
const HEAD = "M50 14 A13 14 0 1 1 49.9 14 Z";

/** Strokes on the head or the body that say where it faces; left is the mirror image of right. */
const VIEWS = {
  front: [BODY, HEAD, "M45 27 h1 M54 27 h1 M46 34 Q50 36 54 34"],
  back: [BODY, HEAD, "M38 30 Q38 14 50 14 Q62 14 62 30 Q56 24 50 24 Q44 24 38 30", "M50 50 V72"],
  right: [SIDE, HEAD, "M62.5 26 L67 31 L62.5 32", "M57 26 h1"],
};

/** Brows, eyes and mouth of each face, on a field of 100 by 100. */
const FACES = {
  neutral: ["M33 40 H43 M57 40 H67", "M40 66 H60"],
  happy: ["M33 40 Q38 35 43 40 M57 40 Q62 35 67 40", "M36 61 Q50 78 64 61"],
  sad: ["M33 42 L43 36 M57 36 L67 42", "M38 70 Q50 58 62 70"],
  angry: ["M33 35 L44 42 M56 42 L67 35", "M39 68 Q50 62 61 68"],
  surprise: ["M33 33 Q38 29 43 33 M57 33 Q62 29 67 33", "M50 60 A6 8 0 1 1 49.9 60"],
  fear: ["M33 38 L43 32 M57 32 L67 38", "M38 68 Q44 62 50 68 Q56 62 62 68"],
  disgust: ["M33 38 L44 41 M56 41 L67 37", "M39 66 Q46 61 50 65 Q55 70 61 63", "M46 54 Q50 51 54 54"],
  contempt: ["M33 40 H43 M57 36 L67 38", "M40 67 Q54 68 62 60"],
};

/**
 * Draw the silhouette of a slot.
 * @param {string} slot
 * @returns {SVGElement}
 */
export function ghost(slot) {
  const [group, name] = slot.split(".");
  if (group === "global") return drawing("0 0 160 90", [scene()]);
  if (group === "expressions") return drawing("0 0 100 100", face(/** @type {keyof typeof FACES} */ (name)));
  const strokes = VIEWS[/** @type {keyof typeof VIEWS} */ (name)] ?? VIEWS.right;
  const body = part("g", name === "left" ? { transform: "translate(100 0) scale(-1 1)" } : {}, strokes.map(line));
  return drawing("20 8 60 138", [body]);
}

/** @param {keyof typeof FACES} name */
function face(name) {
  const [brows, ...rest] = FACES[name];
  const eyes = [38, 62].map((cx) => part("circle", { cx, cy: 48, r: name === "surprise" || name === "fear" ? 4 : 2.5 }));
  return [part("ellipse", { cx: 50, cy: 52, rx: 30, ry: 37 }), ...[brows, ...rest].map(line), ...eyes];
}

function scene() {
  const head = part("circle", { cx: 80, cy: 34, r: 13 });
  const strokes = ["M50 90 Q52 54 80 52 Q108 54 110 90", "M8 74 L38 44 L58 64", "M102 64 L126 36 L152 66"];
  return part("g", {}, [head, part("circle", { cx: 26, cy: 22, r: 7 }), ...strokes.map(line)]);
}

/** @param {string} viewBox @param {SVGElement[]} parts */
function drawing(viewBox, parts) {
  return part("svg", { viewBox, class: "gloria-ghost", "aria-hidden": "true" }, parts);
}

/** @param {string} d */
function line(d) {
  return part("path", { d });
}

/** @param {string} tag @param {Record<string, string | number>} attributes @param {SVGElement[]} [parts] */
function part(tag, attributes, parts = []) {
  const made = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...parts);
  return made;
}
