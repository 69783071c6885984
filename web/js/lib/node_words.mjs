// @ts-check
/**
 * Names and tooltips of nodes in the page's language, as `locales/LANGUAGE/nodeDefs.json` has them. Newer pages do the
 * same; older ones (1.32) forget what a pack says as soon as they load their own file of that language.
 */

/**
 * @typedef {{name?: string, tooltip?: string}} Told
 * @typedef {{display_name?: string, description?: string, inputs?: Record<string, Told>, outputs?: Record<string, Told>}} NodeWords
 */

/**
 * Translate what the host tells of a node; to be done before the page makes its class.
 * @param {any} definition as `GET /object_info` gives it.
 * @param {NodeWords} words
 */
export function translateDefinition(definition, { display_name, description, inputs = {}, outputs = {} }) {
  definition.display_name = display_name ?? definition.display_name;
  definition.description = description ?? definition.description;
  for (const [name, spec] of Object.entries({ ...definition.input?.required, ...definition.input?.optional })) {
    if (spec[1]?.tooltip) spec[1].tooltip = inputs[name]?.tooltip ?? spec[1].tooltip;
  }
  definition.output_tooltips = definition.output_tooltips?.map(
    (/** @type {string} */ tooltip, /** @type {number} */ index) => outputs[index]?.tooltip ?? tooltip,
  );
}

/**
 * Name the inputs, widgets and outputs of a new node; what a saved workflow calls them comes later and wins.
 * @param {any} node
 * @param {NodeWords} words
 */
export function nameSlots(node, { inputs = {}, outputs = {} }) {
  for (const input of node.inputs ?? []) input.localized_name = inputs[input.name]?.name ?? input.localized_name;
  for (const widget of node.widgets ?? []) widget.label = inputs[widget.name]?.name ?? widget.label;
  for (const [index, output] of (node.outputs ?? []).entries()) {
    output.localized_name = outputs[index]?.name ?? output.localized_name;
  }
}
