// @ts-check
/** Small helpers to build a page's elements; text always goes in as text, never as markup. */

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag name of the element.
 * @param {Record<string, any>} [props] properties; `class`, `data`, `style` (as objects), `aria-...`, `role` and any
 *   other name that the element has no property for become attributes; undefined is left out.
 * @param {...(Node | string | null | undefined)} children what lies in it.
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "style") Object.assign(made.style, value);
    else if (name in made) /** @type {any} */ (made)[name] = value;
    else made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * Listen to an event.
 * @param {EventTarget} target who it happens to.
 * @param {string} type name of the event.
 * @param {(event: any) => void} hear what to do.
 * @param {AddEventListenerOptions} [options]
 * @returns {() => void} stops listening.
 */
export function on(target, type, hear, options) {
  target.addEventListener(type, hear, options);
  return () => target.removeEventListener(type, hear, options);
}

/**
 * Return what asks for a drawing: once at the next frame, however often it is asked before.
 * @param {() => void} draw
 * @returns {() => void}
 */
export function onceAFrame(draw) {
  let frame = 0;
  return () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  };
}

/**
 * Add a style sheet to the page, once.
 * @param {URL | string} url its address.
 */
export function stylesheet(url) {
  const href = String(url);
  const known = [...document.querySelectorAll("link[rel=stylesheet]")];
  if (known.some((link) => /** @type {HTMLLinkElement} */ (link).href === href)) return;
  document.head.append(element("link", { rel: "stylesheet", href }));
}

/**
 * Write a text where it is another one: the page lays out anew whatever is written.
 * @param {HTMLElement} target
 * @param {string} text
 */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
