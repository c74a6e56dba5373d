// The view of operators: nodes, flow, subscriptions that come and go, a session's end, and an event
// to try it all.

import { SessionDialog } from "./dialog.js";
import { $, Kept, ago, h, number, plural, say, set, when } from "./dom.js";
import { Flow } from "./flow.js";
import { wirePublish } from "./publish.js";
import { Subscriptions } from "./subscriptions.js";

const POLL_MS = 2_000;
/** Nodes that have left and are told of, at most. */
const LEFT = 5;

export class Cluster {
  #session;
  #inbox;
  #seen = false;
  #clean = new AbortController();
  #poll;
  #nodes = [];
  #cards;
  #flow;
  #subscriptions;

  constructor(session, inbox) {
    this.#session = session;
    this.#inbox = inbox;
    const { signal } = this.#clean;
    const dialog = new SessionDialog({ session, signal });
    const open = (one) => dialog.open(one);
    this.#flow = new Flow();
    this.#subscriptions = new Subscriptions({ session, open, signal });
    this.#cards = new Kept($("nodes"), nodeCard);
    wirePublish({ session, inbox, nodes: () => this.#nodes, open, signal });
    const read = session.may("subscriptions:read");
    $("cluster-note").hidden = read;
    $("nodes-card").hidden = !read;
    say($("cluster-note"), read ? "" : "Your token lacks the scope subscriptions:read: this shows your own subscriptions, and not the nodes.");
  }

  /** Only a view that is seen asks for anything. */
  seen(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#subscriptions.seen(seen);
    clearTimeout(this.#poll);
    if (seen) this.#tick();
    else this.#flow.pause();
  }

  /** With a newer token. */
  resume() {
    this.#subscriptions.list();
  }

  stop() {
    this.seen(false);
    this.#clean.abort();
    this.#inbox.onevent = () => {};
  }

  async #tick() {
    clearTimeout(this.#poll);
    await Promise.all([this.#session.may("subscriptions:read") && this.#askNodes(), this.#flow.read()]);
    if (this.#seen) this.#poll = setTimeout(() => this.#tick(), document.hidden ? 5 * POLL_MS : POLL_MS);
  }

  async #askNodes() {
    try {
      const { nodes, left, partial } = await this.#session.api("/v1/nodes");
      if (!this.#seen) return;
      this.#nodes = nodes;
      this.#cards.show([...nodes.map((node) => [node.id, node]), ...partial.map((silent) => [`silent ${silent.node}`, silent])]);
      const sessions = nodes.reduce((sum, node) => sum + node.sessions, 0);
      say($("nodes-summary"), `${plural(nodes.length, "node")} · ${plural(sessions, "session")}${partial.length ? " · not all answer" : ""}`);
      const gone = left.slice(-LEFT).reverse();
      say($("left"), gone.length ? `Left: ${gone.map(({ id, at }) => `${id} at ${when(at, true)}`).join(", ")}` : "");
    } catch (error) {
      if (this.#seen) say($("nodes-summary"), `cannot be asked: ${error.message}`);
    }
  }
}

/** A node's card, or that of one that does not answer. */
function nodeCard(_, { id, node }) {
  const name = h("span", { class: "node-name" }, id ?? node);
  const chip = h("span", { class: "chip" });
  const figures = ["sessions", "keys", "registered", "lag"].map((label) => {
    const value = h("dd");
    return { value, element: h("div", {}, h("dt", {}, label), value) };
  });
  const [queue, url] = [h("span"), h("span")];
  const words = h("p", { class: "where" });
  const head = h("div", { class: "head" }, h("span", { class: "dot", "aria-hidden": "true" }), name, chip);
  const facts = [h("dl", { class: "figures" }, ...figures.map(({ element }) => element)), h("p", { class: "where names" }, queue, " ", url)];
  const element = h("li", { "data-node": id ?? node }, head, ...(id === undefined ? [] : facts), words);
  const show = (now) => {
    set(element, "class", id === undefined ? "silent" : now.state);
    say(chip, id === undefined ? "does not answer" : now.state);
    if (id === undefined) return say(words, now.reason);
    [now.sessions, now.keys, now.registrations, now.lag].forEach((value, at) => say(figures[at].value, value === null ? "–" : number(value)));
    say(queue, now.queue);
    say(url, now.url);
    const parts = [`registry ${now.registry}`, `queue ${now.queue_reachable ? "reachable" : "not reachable"}`, `up ${ago(now.started_at)}`, `version ${now.version}`];
    say(words, parts.join(" · "));
  };
  return { element, show };
}
