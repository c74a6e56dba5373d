// The view of operators: nodes, flow, subscriptions that come and go, a session's end, and an event to try it all.

import { Chart } from "./chart.js";
import { $, ago, h, plural, say, time } from "./dom.js";
import { buckets, growth, parse, quantile, seconds, since, total } from "./metrics.js";
import { wirePublish } from "./publish.js";

const POLL_MS = 2_000;
/** Readings that a chart shows: one minute. */
const READINGS = 30;
/** Latency is told from what came in this many readings, for most hold nothing. */
const WINDOW = 5;
const LATER_MS = 2_000;
const PAGE = 25;
const STAGES = {
  published_to_queued: "published → in the queue",
  queued_to_consumed: "in the queue → at the node",
  consumed_to_written: "at the node → written to clients",
};

export class Cluster {
  #session;
  #inbox;
  #seen = false;
  #clean = new AbortController();
  #poll;
  #readings = [];
  #charts = {};
  #nodes = [];
  /** Subscriptions on this page of the list, by session and key. */
  #rows = new Map();
  #following = null;
  #later;
  #cursors = [];
  #after = null;
  #next = null;
  #silent = new Map();
  #shown = null;

  constructor(session, inbox) {
    this.#session = session;
    this.#inbox = inbox;
    this.#wire();
  }

  /** Only a view that is seen asks for anything. */
  seen(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    if (seen) {
      this.#tick();
      this.#list();
    } else this.#pause();
  }

  /** With a newer token. */
  resume() {
    if (this.#seen) this.#list();
  }

  stop() {
    this.#seen = false;
    this.#pause();
    this.#clean.abort();
    this.#inbox.onevent = () => {};
    if ($("session").open) $("session").close();
    for (const id of ["nodes", "charts", "subscriptions", "published"]) $(id).replaceChildren();
  }

  #pause() {
    clearTimeout(this.#poll);
    clearTimeout(this.#later);
    this.#following?.abort();
  }

  #wire() {
    const { signal } = this.#clean;
    const on = (id, type, act) => $(id).addEventListener(type, act, { signal });
    on("filters", "submit", (event) => {
      event.preventDefault();
      this.#cursors = [];
      this.#after = null;
      this.#list();
    });
    on("next", "click", () => {
      this.#cursors.push(this.#after);
      this.#after = this.#next;
      this.#list();
    });
    on("previous", "click", () => {
      this.#after = this.#cursors.pop() ?? null;
      this.#list();
    });
    on("close-session", "click", () => $("session").close());
    on("disconnect", "click", () => this.#disconnect());
    const read = this.#session.may("subscriptions:read");
    const note = "Your token lacks the scope subscriptions:read: this shows your own subscriptions, and not the nodes.";
    $("cluster-note").hidden = read;
    say($("cluster-note"), read ? "" : note);
    wirePublish({ session: this.#session, inbox: this.#inbox, nodes: () => this.#nodes, open: (one) => this.#open(one), signal });
    $("disconnect").disabled = false;
    this.#charts.rate = new Chart("Events a second", ["published", "taken from the queue", "deliveries"], READINGS, perSecond);
    for (const [stage, words] of Object.entries(STAGES)) {
      this.#charts[stage] = new Chart(words, ["half within", "99 % within"], READINGS, seconds);
    }
    $("charts").replaceChildren(...Object.values(this.#charts).map(({ element }) => element));
  }

  // Nodes and numbers

  async #tick() {
    clearTimeout(this.#poll);
    await Promise.all([this.#session.may("subscriptions:read") && this.#askNodes(), this.#read()]);
    if (this.#seen) this.#poll = setTimeout(() => this.#tick(), document.hidden ? 5 * POLL_MS : POLL_MS);
  }

  async #askNodes() {
    try {
      const { nodes, left, partial } = await this.#session.api("/v1/nodes");
      if (!this.#seen) return;
      this.#nodes = nodes;
      const silent = partial.map(({ node, reason }) => h("li", { class: "silent" }, head(node, "does not answer"), h("p", {}, reason)));
      $("nodes").replaceChildren(...nodes.map(nodeCard), ...silent);
      const sessions = nodes.reduce((sum, node) => sum + node.sessions, 0);
      say($("nodes-summary"), `${plural(nodes.length, "node")} · ${plural(sessions, "session")}${partial.length ? " · not all answer" : ""}`);
      const gone = left.slice(-5).reverse();
      say($("left"), gone.length ? `Left: ${gone.map(({ id, at }) => `${id} at ${time(at)}`).join(", ")}` : "");
    } catch (error) {
      if (this.#seen) say($("nodes-summary"), `cannot be asked: ${error.message}`);
    }
  }

  async #read() {
    try {
      const response = await fetch("/metrics", { cache: "no-store" });
      if (!response.ok) throw new Error(`the node answered with ${response.status}`);
      this.#draw({ at: performance.now(), samples: parse(await response.text()) });
      say($("rates-of"), "of the node that answers this page, over the last minute");
    } catch (error) {
      say($("rates-of"), `cannot be read: ${error.message}`);
    }
  }

  #draw(reading) {
    const before = this.#readings.at(-1);
    this.#readings.push(reading);
    if (this.#readings.length > WINDOW + 1) this.#readings.shift();
    if (!before) return;
    const took = (reading.at - before.at) / 1_000;
    const names = ["mailpush_events_published_total", "mailpush_records_consumed_total", "mailpush_deliveries_total"];
    this.#charts.rate.add(names.map((name) => growth(total(before.samples, name), total(reading.samples, name)) / took));
    const oldest = this.#readings[0];
    for (const stage of Object.keys(STAGES)) {
      const of = ({ samples }) => buckets(samples, "mailpush_stage_latency_seconds", { stage });
      const recent = since(of(oldest), of(reading));
      this.#charts[stage].add([quantile(recent, 0.5), quantile(recent, 0.99)]);
    }
  }

  // Subscriptions

  #filters() {
    const form = new FormData($("filters"));
    const given = (name) => form.get(name).trim();
    const key = given("key");
    const filters = { user: given("user"), node: given("node"), transport: given("transport") };
    if (key) filters[key.startsWith("#") ? "mailbox" : "account"] = key;
    return Object.fromEntries(Object.entries(filters).filter(([, value]) => value));
  }

  async #list() {
    this.#following?.abort();
    clearTimeout(this.#later);
    const filters = this.#filters();
    const query = new URLSearchParams({ ...filters, limit: PAGE });
    if (this.#after !== null) query.set("after", this.#after);
    try {
      const { subscriptions, next, stream, partial } = await this.#session.api(`/v1/subscriptions?${query}`);
      if (!this.#seen) return;
      say($("subscriptions-error"), "");
      this.#rows = new Map(subscriptions.map((subscription) => [idOf(subscription), subscription]));
      this.#next = next;
      this.#silent = new Map(partial.map(({ node, reason }) => [node, reason]));
      this.#drawRows();
      this.#follow(filters, stream);
    } catch (error) {
      if (!this.#seen) return;
      say($("subscriptions-error"), error.message);
      say($("following"), "");
      // What makes no sense will make none later.
      if (!(error.status >= 400 && error.status < 500)) this.#listLater();
    }
  }

  #listLater() {
    clearTimeout(this.#later);
    if (this.#seen) this.#later = setTimeout(() => this.#list(), LATER_MS * (1 + Math.random()));
  }

  async #follow({ user, node, transport, mailbox, account }, cursor) {
    const abort = new AbortController();
    this.#following = abort;
    const given = Object.entries({ user, node, transport, since: cursor }).filter(([, value]) => value);
    const path = `/v1/subscriptions/stream?${new URLSearchParams(given)}`;
    const wanted = ({ key }) => (mailbox ? key.mailbox === mailbox : account ? key.account === account : true);
    try {
      const response = await this.#session.api(path, { signal: abort.signal, raw: true });
      say($("following"), "live");
      for await (const { name, data } of messages(response.body)) {
        if (abort.signal.aborted) return;
        if (name === "reset") break;
        this.#change(name, data, wanted);
      }
    } catch {
      // Broken, refused or ended: the next listing tells which.
    }
    if (abort.signal.aborted) return;
    say($("following"), "listing anew…");
    this.#listLater();
  }

  #change(name, data, wanted) {
    if (name === "snapshot") this.#silent.delete(data.node);
    else if (name === "partial") this.#silent.set(data.node, data.reason);
    else if (name === "gone") {
      this.#silent.delete(data.node);
      for (const [id, { node }] of this.#rows) if (node === data.node) this.#rows.delete(id);
    } else if (name === "unsubscribed") this.#rows.delete(idOf(data.subscription));
    else if (name === "subscribed" && wanted(data.subscription)) {
      const id = idOf(data.subscription);
      const shown = [...this.#rows.keys()].sort();
      // What belongs on another page is seen there.
      const above = this.#after === null || id > shown[0];
      const below = this.#next === null || id < shown.at(-1);
      if (this.#rows.has(id) || (above && below)) this.#rows.set(id, data.subscription);
    } else return;
    this.#drawRows();
  }

  #drawRows() {
    const focused = document.activeElement?.dataset.row;
    const rows = [...this.#rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([id, subscription]) => this.#row(id, subscription));
    const none = h("tr", { role: "row" }, h("td", { role: "cell", colspan: "6", class: "muted" }, "Nobody watches what is asked for."));
    $("subscriptions").replaceChildren(...(rows.length ? rows : [none]));
    if (focused !== undefined) document.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
    $("previous").disabled = this.#after === null;
    $("next").disabled = this.#next === null;
    const silent = [...this.#silent].map(([node, reason]) => `${node} is not in it: ${reason}`).join("; ");
    say($("page-words"), `page ${this.#cursors.length + 1}, ${plural(rows.length, "subscription")}${silent ? ` · ${silent}` : ""}`);
  }

  #row(id, { session, node, user, transport, key, since }) {
    const open = h("button", { type: "button", class: "link", "data-row": id, click: () => this.#open({ session, node, user }) }, session);
    const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, ...content);
    return h("tr", { role: "row" }, cell("User", user), cell("Watches", nameOf(key)), cell("By", transport), cell("Node", node),
      cell("Since", h("time", {}, time(since))), cell("Session", open));
  }

  // One session

  async #open({ session: id, node, user }) {
    this.#shown = id;
    say($("session-error"), "");
    say($("session-title"), `Session ${id}`);
    say($("disconnect"), "Disconnect");
    $("session-facts").replaceChildren();
    $("session-keys").replaceChildren();
    $("disconnect").hidden = !(this.#session.may("sessions:write") || user === this.#session.user);
    $("session").showModal();
    try {
      const query = new URLSearchParams({ user, node });
      const [session, keys] = await Promise.all([
        this.#session.find(`/v1/sessions?${query}`, "sessions", (one) => one.id === id, 1),
        this.#session.find(`/v1/subscriptions?${query}`, "subscriptions", (one) => one.session === id, 100),
      ]);
      if (this.#shown !== id) return;
      if (!session.length) return say($("session-error"), "It has ended.");
      const { transport, peer, connected_at, subscriptions } = session[0];
      const facts = { User: user, Node: node, Transport: transport, From: peer, Connected: `${new Date(connected_at).toLocaleString()}, ${ago(connected_at)}`, Subscriptions: subscriptions };
      $("session-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
      $("session-keys").replaceChildren(...keys.map(({ key }) => h("li", {}, nameOf(key))));
    } catch (error) {
      say($("session-error"), error.message);
    }
  }

  async #disconnect() {
    if ($("disconnect").textContent === "Disconnect") return say($("disconnect"), "Really? It will not come back by itself");
    try {
      await this.#session.api(`/v1/sessions/${encodeURIComponent(this.#shown)}`, { method: "DELETE" });
      $("session").close();
    } catch (error) {
      say($("disconnect"), "Disconnect");
      say($("session-error"), error.message);
    }
  }
}

function head(id, words) {
  return h("div", { class: "head" }, h("span", { class: "dot", "aria-hidden": "true" }), id, h("span", { class: "chip" }, words));
}

function nodeCard({ id, url, queue, version, started_at, state, registry, queue_reachable, lag, sessions, keys, registrations }) {
  const figures = { sessions, keys, registered: registrations, lag: lag ?? "–" };
  const pairs = Object.entries(figures).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))));
  const words = [`registry ${registry}`, `queue ${queue_reachable ? "reachable" : "not reachable"}`, `up ${ago(started_at)}`, `version ${version}`];
  return h("li", { class: state, "data-node": id }, head(id, state), h("dl", { class: "figures" }, ...pairs),
    h("p", { class: "where" }, `${queue} · ${url}`), h("p", { class: "where" }, words.join(" · ")));
}

function nameOf({ mailbox, account }) {
  return mailbox ?? `all of ${account}`;
}

function idOf({ session, key }) {
  return `${session} ${key.mailbox === undefined ? `a${key.account}` : `m${key.mailbox}`}`;
}

function perSecond(value) {
  if (value === undefined) return "–";
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)}/s`;
}

/** The messages of an event stream (WHATWG HTML 9.2), as this server writes them: JSON in `data`. */
async function* messages(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = field("data");
      if (data !== undefined) yield { name: field("event"), data: JSON.parse(data) };
    }
  }
}
