// A small line chart over the last minute. It is drawn for the eyes; what it says stands beside it
// as text.

import { h, say, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 72;
/** Room above and below, for the strokes. */
const EDGE = 4;

export class Chart {
  #lines;
  #span;
  #format;
  #decades;
  #plot;
  #high = h("span");
  #low = h("span");

  /**
   * `lines` are their names; values of the last `span` milliseconds are seen. `decades` draws by
   * powers of ten: of latencies the slowest would press all others flat otherwise.
   */
  constructor(title, lines, span, format, { decades = false } = {}) {
    this.#span = span;
    this.#format = format;
    this.#decades = decades;
    this.#plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.#lines = lines.map((name, number) => {
      const key = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("circle", { class: `line-${number}`, cx: 5, cy: 5, r: 4 }));
      const words = h("span");
      return { key: h("span", {}, key, " ", words), name, words, values: [] };
    });
    const scale = h("div", { class: "scale", "aria-hidden": "true" }, this.#high, this.#low);
    const legend = h("div", { class: "legend" }, ...this.#lines.map(({ key }) => key));
    this.element = h("div", { class: "chart" }, h("h3", {}, title), h("div", { class: "plot" }, this.#plot, scale), legend);
    this.#draw(0);
  }

  /** A value for each line at a time; `undefined` where there is none, which is a gap. */
  add(at, values) {
    this.#lines.forEach((line, number) => {
      line.values.push([at, values[number]]);
      while (line.values[0][0] < at - this.#span) line.values.shift();
    });
    this.#draw(at);
  }

  /** No line is drawn over what was not read. */
  gap(at) {
    this.add(at, []);
  }

  #draw(now) {
    const all = this.#lines.flatMap(({ values }) => values.map(([, value]) => value)).filter((value) => value !== undefined);
    const [low, high] = this.#decades ? decades(all) : [0, Math.max(...all, 0)];
    const share = (value) => (this.#decades ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : high && value / high);
    const x = (at) => (WIDTH - ((now - at) / this.#span) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - EDGE - share(value) * (HEIGHT - 2 * EDGE)).toFixed(1);
    const across = (value, name) => svg("line", { class: name, x1: 0, x2: WIDTH, y1: y(value), y2: y(value) });
    const parts = [across(low, "axis")];
    if (this.#decades) for (let value = low * 10; value < high * 1.01; value *= 10) parts.push(across(value, "grid"));
    for (const [number, { values }] of this.#lines.entries()) {
      for (const run of runs(values)) {
        const points = run.map(([at, value]) => `${x(at)},${y(value)}`);
        // A lone value is a short stroke: a line of one point is nothing.
        if (points.length === 1) points.push(`${(x(run[0][0]) - 2).toFixed(1)},${y(run[0][1])}`);
        parts.push(svg("polyline", { class: `line-${number}`, points: points.join(" ") }));
      }
    }
    this.#plot.replaceChildren(...parts);
    say(this.#high, all.length ? this.#format(high) : "");
    say(this.#low, all.length ? this.#format(low) : "");
    for (const { name, words, values } of this.#lines) say(words, `${name} ${this.#format(values.at(-1)?.[1])}`);
  }
}

/** The powers of ten around values, at least two of them apart. */
function decades(values) {
  const positive = values.filter((value) => value > 0);
  if (!positive.length) return [0.0001, 0.01];
  const low = Math.floor(Math.log10(Math.min(...positive)));
  return [10 ** low, 10 ** Math.max(low + 2, Math.ceil(Math.log10(Math.max(...positive))))];
}

/** Neighbours that are there. */
function runs(values) {
  const list = [];
  values.forEach(([at, value], number) => {
    if (value === undefined) return;
    if (number > 0 && values[number - 1][1] !== undefined) list.at(-1).push([at, value]);
    else list.push([[at, value]]);
  });
  return list;
}
