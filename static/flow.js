// What flows through the node that answers this page: events a second, and how long they take from
// stage to stage.

import { Chart } from "./chart.js";
import { $, say } from "./dom.js";
import { buckets, growth, parse, quantile, seconds, since, total } from "./metrics.js";

/** What a chart shows. */
const SPAN_MS = 60_000;
/** Latency is told from what came in this many readings, for most hold nothing. */
const WINDOW = 5;
const STAGES = {
  published_to_queued: "Published → in the queue",
  queued_to_consumed: "In the queue → at the node",
  consumed_to_written: "At the node → written to clients",
};
/** What is counted, and which of its outcomes: what failed or found nobody did not flow. */
const COUNTS = {
  published: ["mailpush_events_published_total", ["sent", "everyone"]],
  "taken from the queue": ["mailpush_records_consumed_total"],
  deliveries: ["mailpush_deliveries_total", ["queued"]],
};

export class Flow {
  #node;
  #readings = [];
  #rate = new Chart("Events a second", Object.keys(COUNTS), SPAN_MS, perSecond);
  #stages = new Map(Object.entries(STAGES).map(([stage, words]) => [stage, new Chart(words, ["half within", "99 % within"], SPAN_MS, seconds, { decades: true })]));

  constructor() {
    $("charts").replaceChildren(...this.#charts().map(({ element }) => element));
  }

  #charts() {
    return [this.#rate, ...this.#stages.values()];
  }

  /** The next reading is a new beginning: nothing is known of the time between. */
  pause() {
    this.#readings = [];
    for (const chart of this.#charts()) chart.gap(performance.now());
  }

  async read() {
    try {
      const response = await fetch("/metrics", { cache: "no-store" });
      if (!response.ok) throw new Error(`the node answered with ${response.status}`);
      this.take(response.headers.get("mailpush-node"), parse(await response.text()), performance.now());
      say($("rates-of"), `of ${this.#node === null ? "the node that answers this page" : `node ${this.#node}`}, over the last minute`);
    } catch (error) {
      say($("rates-of"), `cannot be read: ${error.message}`);
    }
  }

  /**
   * Behind a load balancer each reading may be of another node, and two nodes' counters have
   * nothing to do with each other: the first node that answered is told of for as long as it does
   * so now and then.
   */
  take(node, samples, at) {
    const last = this.#readings.at(-1);
    if (last && node !== this.#node) {
      if (at - last.at < SPAN_MS / 2) return;
      this.pause();
    }
    this.#node = node;
    const reading = { at, samples };
    const before = this.#readings.at(-1);
    this.#readings.push(reading);
    if (this.#readings.length > WINDOW + 1) this.#readings.shift();
    if (before) this.#draw(before, reading);
  }

  #draw(before, reading) {
    const took = (reading.at - before.at) / 1_000;
    const sum = ({ samples }, [name, outcomes = [undefined]]) =>
      outcomes.reduce((count, outcome) => count + total(samples, name, outcome === undefined ? {} : { outcome }), 0);
    this.#rate.add(reading.at, Object.values(COUNTS).map((count) => growth(sum(before, count), sum(reading, count)) / took));
    const oldest = this.#readings[0];
    for (const [stage, chart] of this.#stages) {
      const of = ({ samples }) => buckets(samples, "mailpush_stage_latency_seconds", { stage });
      const recent = since(of(oldest), of(reading));
      chart.add(reading.at, [quantile(recent, 0.5), quantile(recent, 0.99)]);
    }
  }
}

function perSecond(value) {
  if (value === undefined) return "–";
  return `${value >= 10 || value === 0 ? Math.round(value).toLocaleString() : value.toFixed(1)}/s`;
}
