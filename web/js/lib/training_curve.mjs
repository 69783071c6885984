// @ts-check
/** A training's losses as paths of an SVG that is WIDTH by HEIGHT, and the labels of its axes. Pure. */

/**
 * @typedef {import("./training_state.mjs").Point} Point
 * @typedef {import("./training_state.mjs").Curve} Curve
 * @typedef {{first: number, last: number, low: number, high: number, is_log: boolean}} Scale losses as they are, also
 *   where the axis is logarithmic.
 * @typedef {{part: number, label: string}} Tick `part` (0..1) of the axis, from its beginning.
 */

export const WIDTH = 1000;
export const HEIGHT = 100;
const SMALLEST = 1e-8;
/** Room above and below the curves, as part of what they span. */
const ROOM = 0.05;
const MOST_TICKS = 5;

/**
 * Return the ranges that hold both curves; null where there is nothing to draw.
 * @param {Curve} curve
 * @param {boolean} is_log
 * @returns {Scale | null}
 */
export function scaleOf({ trained, held_out }, is_log) {
  const points = [...trained, ...held_out];
  if (!points.length) return null;
  const lows = points.map(([, , low]) => Math.max(low, SMALLEST));
  const highs = points.map(([, , , high]) => Math.max(high, SMALLEST));
  const steps = points.map(([step]) => step);
  const [bottom, top] = [Math.min(...lows), Math.max(...highs)];
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  if (is_log) {
    const room = Math.max((top / bottom) ** ROOM, 1.01);
    return { first, last, low: bottom / room, high: top * room, is_log };
  }
  const room = Math.max((top - bottom) * ROOM, top * 0.01);
  return { first, last, low: Math.max(0, bottom - room), high: top + room, is_log };
}

/**
 * Return a step's place from the left, 0..1.
 * @param {Scale} scale
 * @param {number} step
 */
export function across({ first, last }, step) {
  return last > first ? (step - first) / (last - first) : 0.5;
}

/**
 * Return a loss's place from below, 0..1.
 * @param {Scale} scale
 * @param {number} loss
 */
export function up({ low, high, is_log }, loss) {
  const on = (/** @type {number} */ value) => (is_log ? Math.log(Math.max(value, SMALLEST)) : value);
  return (on(loss) - on(low)) / (on(high) - on(low));
}

/**
 * Return losses that follow their running mean. It begins with the first loss, not with nothing.
 * @param {Point[]} points
 * @param {number} weight of what was before, 0 (as they are) to below 1.
 * @returns {Point[]}
 */
export function smoothed(points, weight) {
  let [sum, total] = [0, 0];
  return points.map(([step, loss, low, high]) => {
    sum = weight * sum + (1 - weight) * loss;
    total = weight * total + (1 - weight);
    return [step, sum / total, low, high];
  });
}

/**
 * Return a line through the losses.
 * @param {Scale} scale
 * @param {Point[]} points
 */
export function linePath(scale, points) {
  return points.length ? `M${points.map(([step, loss]) => at(scale, step, loss)).join("L")}` : "";
}

/**
 * Return the area between the lowest and the highest losses; empty where each point is one loss.
 * @param {Scale} scale
 * @param {Point[]} points
 */
export function bandPath(scale, points) {
  if (points.every(([, , low, high]) => low === high)) return "";
  const above = points.map(([step, , , high]) => at(scale, step, high));
  const below = points.map(([step, , low]) => at(scale, step, low)).reverse();
  return `M${[...above, ...below].join("L")}Z`;
}

/**
 * Return a mark at each loss, for a stroke with round ends.
 * @param {Scale} scale
 * @param {Point[]} points
 */
export function dotsPath(scale, points) {
  return points.map(([step, loss]) => ["M", at(scale, step, loss), "h0"].join("")).join("");
}

/**
 * Return upright lines at steps within the scale.
 * @param {Scale} scale
 * @param {number[]} steps
 */
export function uprights(scale, steps) {
  const inside = steps.filter((step) => step > scale.first && step < scale.last);
  return inside.map((step) => `M${round(across(scale, step) * WIDTH)},0V${HEIGHT}`).join("");
}

/**
 * Return a few round losses of the axis.
 * @param {Scale} scale
 * @returns {Tick[]}
 */
export function lossTicks(scale) {
  const { low, high, is_log } = scale;
  const found = is_log ? powers(low, high) : [];
  const values = found.length > 1 ? found : multiples(low, high);
  return values.map((value) => ({ part: up(scale, value), label: String(Number(value.toPrecision(3))) }));
}

/**
 * Return a few round steps of the axis.
 * @param {Scale} scale
 * @returns {Tick[]}
 */
export function stepTicks(scale) {
  const { first, last } = scale;
  if (last === first) return [{ part: 0.5, label: String(first) }];
  const values = multiples(first, last).filter(Number.isInteger);
  return values.map((value) => ({ part: across(scale, value), label: short(value) }));
}

/**
 * Return the point nearest to a step.
 * @param {Point[]} points in order.
 * @param {number} step
 * @returns {Point | undefined}
 */
export function nearest(points, step) {
  const distance = (/** @type {Point | undefined} */ point) => (point ? Math.abs(point[0] - step) : Infinity);
  return points.reduce((/** @type {Point | undefined} */ best, one) => (distance(one) < distance(best) ? one : best), undefined);
}

/**
 * Return 1, 2 and 5 times powers of ten; fewer of them where they are many.
 * @param {number} low
 * @param {number} high
 */
function powers(low, high) {
  const decades = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) decades.push(power);
  const within = (/** @type {number[]} */ factors) =>
    decades.flatMap((power) => factors.map((factor) => factor * 10 ** power)).filter((value) => value >= low && value <= high);
  const fitting = [[1, 2, 5], [1, 3]].map(within).find((values) => values.length <= MOST_TICKS);
  return fitting ?? within([1]);
}

/**
 * Return multiples of a round distance.
 * @param {number} low
 * @param {number} high
 */
function multiples(low, high) {
  const rough = (high - low) / MOST_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const distance = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const found = [];
  for (let count = Math.ceil(low / distance); count * distance <= high; count++) found.push(Number((count * distance).toPrecision(6)));
  return found;
}

/** @param {number} step */
function short(step) {
  if (step >= 1e6) return `${step / 1e6}M`;
  return step >= 1e4 ? `${step / 1e3}k` : String(step);
}

/**
 * @param {Scale} scale
 * @param {number} step
 * @param {number} loss
 */
function at(scale, step, loss) {
  return `${round(across(scale, step) * WIDTH)},${round((1 - up(scale, loss)) * HEIGHT)}`;
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 100) / 100;
}
