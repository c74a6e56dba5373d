// A small line chart. It is drawn for the eyes; what it says stands beside it as text.

import { h, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 72;

export class Chart {
  #lines;
  #length;
  #format;
  #plot;
  #legend;
  #top;

  /** `lines` are their names; each has up to `length` values. */
  constructor(title, lines, length, format) {
    this.#lines = lines.map((name) => ({ name, values: [] }));
    this.#length = length;
    this.#format = format;
    this.#plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.#legend = h("div", { class: "legend" });
    this.#top = h("span", { class: "muted small-text" });
    this.element = h("div", { class: "chart" }, h("h3", {}, title), this.#plot, this.#legend, this.#top);
  }

  /** A value for each line; `undefined` where there is none, which is a gap. */
  add(values) {
    this.#lines.forEach((line, at) => {
      line.values.push(values[at]);
      if (line.values.length > this.#length) line.values.shift();
    });
    this.#draw();
  }

  #draw() {
    const all = this.#lines.flatMap(({ values }) => values.filter((value) => value !== undefined));
    const highest = Math.max(...all, 0);
    const x = (at, { length }) => WIDTH - (length - 1 - at) * (WIDTH / (this.#length - 1));
    const y = (value) => HEIGHT - 2 - (highest ? (value / highest) * (HEIGHT - 8) : 0);
    const parts = [svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 })];
    for (const [number, { values }] of this.#lines.entries()) {
      for (const run of runs(values)) {
        const points = run.map(([at, value]) => `${x(at, values).toFixed(1)},${y(value).toFixed(1)}`);
        // A lone value is a short stroke: a line of one point is nothing.
        if (points.length === 1) points.push(`${(x(run[0][0], values) - 2).toFixed(1)},${y(run[0][1]).toFixed(1)}`);
        parts.push(svg("polyline", { class: `line-${number}`, points: points.join(" ") }));
      }
    }
    this.#plot.replaceChildren(...parts);
    this.#legend.replaceChildren(
      ...this.#lines.map(({ name, values }, number) => {
        const key = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("circle", { class: `line-${number}`, cx: 5, cy: 5, r: 4 }));
        return h("span", {}, key, ` ${name} ${this.#format(values.findLast((value) => value !== undefined))}`);
      }),
    );
    this.#top.textContent = all.length ? `highest in sight ${this.#format(highest)}` : "nothing yet";
  }
}

/** `[index, value]` of neighbours that are there. */
function runs(values) {
  const list = [];
  values.forEach((value, at) => {
    if (value === undefined) return;
    if (at > 0 && values[at - 1] !== undefined) list.at(-1).push([at, value]);
    else list.push([[at, value]]);
  });
  return list;
}
