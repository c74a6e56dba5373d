// The list of live subscriptions: filters, pages, and each page live.

import { $, Kept, h, moment, plural, say, set, when } from "./dom.js";
import { Listing, idOf } from "./listing.js";

const PAGE = 25;
/** The screen follows a storm of changes no faster than this. */
const DRAW_MS = 200;
/** A new listing after trouble, or where a change makes one needed: no sooner, and spread. */
const LATER_MS = 2_000;

export class Subscriptions {
  #session;
  #open;
  #seen = false;
  #listing = null;
  /** The listing that is asked for, and the stream that follows it: one at a time. */
  #asking = null;
  #busy = false;
  #later = null;
  #drawing = null;
  /** For each page before this one: where it begins, and the last row before it. */
  #before = [];
  #at = { cursor: null, after: undefined };
  #heard = new Set();
  #table;

  /** `open` shows a session. */
  constructor({ session, open, signal }) {
    this.#session = session;
    this.#open = open;
    this.#table = new Kept($("subscriptions"), (id) => this.#row(id));
    const on = (id, type, act) => $(id).addEventListener(type, act, { signal });
    on("filters", "submit", (event) => {
      event.preventDefault();
      this.#before = [];
      this.#at = { cursor: null, after: undefined };
      this.list();
    });
    on("next", "click", () => {
      if ($("next").getAttribute("aria-disabled") === "true") return;
      this.#before.push(this.#at);
      this.#at = { cursor: this.#listing.next, after: this.#listing.last };
      this.list();
    });
    on("previous", "click", () => {
      if ($("previous").getAttribute("aria-disabled") === "true") return;
      this.#at = this.#before.pop();
      this.list();
    });
    signal.addEventListener("abort", () => this.seen(false));
    this.#buttons();
  }

  /** Only a list that is seen is asked for. */
  seen(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    if (seen) return void this.list();
    clearTimeout(this.#later);
    clearTimeout(this.#drawing);
    this.#later = this.#drawing = null;
    this.#busy = false;
    this.#asking?.abort();
  }

  #filters() {
    const form = new FormData($("filters"));
    const given = (name) => form.get(name).trim();
    const key = given("key");
    const filters = { user: given("user"), node: given("node"), transport: given("transport") };
    if (key) filters[key.startsWith("#") ? "mailbox" : "account"] = key;
    return Object.fromEntries(Object.entries(filters).filter(([, value]) => value));
  }

  /**
   * Lists this page anew and follows it. Whatever was asked before is given up: its answer is of no
   * use any more.
   */
  async list() {
    if (!this.#seen) return;
    this.#asking?.abort();
    clearTimeout(this.#later);
    this.#later = null;
    const asking = (this.#asking = new AbortController());
    const { signal } = asking;
    this.#busy = true;
    this.#buttons();
    const filters = this.#filters();
    const query = new URLSearchParams({ ...filters, limit: PAGE });
    const { cursor, after } = this.#at;
    if (cursor !== null) query.set("after", cursor);
    try {
      const page = await this.#session.api(`/v1/subscriptions?${query}`, { signal });
      if (signal.aborted) return;
      say($("subscriptions-error"), "");
      this.#busy = false;
      this.#listing = new Listing(page, { size: PAGE, typed: filters.mailbox ?? filters.account, after });
      this.#draw();
      this.#follow(filters, page.stream, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#busy = false;
      this.#buttons();
      say($("subscriptions-error"), error.message);
      say($("following"), "");
      // What makes no sense will make none later.
      if (!(error.status >= 400 && error.status < 500)) this.#listLater();
    }
  }

  /** Once for all that asks for it meanwhile. */
  #listLater() {
    if (this.#seen) this.#later ??= setTimeout(() => this.list(), LATER_MS * (1 + Math.random()));
  }

  async #follow({ user, node, transport }, since, signal) {
    const given = Object.entries({ user, node, transport, since }).filter(([, value]) => value);
    try {
      const response = await this.#session.api(`/v1/subscriptions/stream?${new URLSearchParams(given)}`, { signal, raw: true });
      if (signal.aborted) return;
      say($("following"), "live");
      for await (const { name, data } of messages(response.body)) {
        if (signal.aborted) return;
        if (name === "reset") break;
        const seen = this.#listing.take(name, data, this.#heard);
        if (seen !== "same") this.#drawSoon();
        if (seen === "anew") this.#listLater();
      }
    } catch {
      // Broken, refused or ended: the next listing tells which.
    }
    if (signal.aborted) return;
    say($("following"), "listing anew…");
    this.#listLater();
  }

  // The screen

  #drawSoon() {
    this.#drawing ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw() {
    clearTimeout(this.#drawing);
    this.#drawing = null;
    const rows = this.#listing.rows();
    this.#table.show(rows.length ? rows.map((one) => [idOf(one), one]) : [["", null]]);
    const silent = [...this.#listing.silent].map(([node, reason]) => `${node} is not in it: ${reason}`).join("; ");
    say($("page-words"), `page ${this.#before.length + 1}, ${plural(rows.length, "subscription")}${silent ? ` · ${silent}` : ""}`);
    this.#buttons();
  }

  /** Not `disabled`: that would take the focus away from who has just pressed one. */
  #buttons() {
    set($("previous"), "aria-disabled", String(this.#busy || !this.#before.length));
    set($("next"), "aria-disabled", String(this.#busy || (this.#listing?.next ?? null) === null));
  }

  #row(id) {
    if (!id) {
      const none = h("td", { role: "cell", colspan: "6", class: "muted" }, "Nobody watches what is asked for.");
      return { element: h("tr", { role: "row" }, none), show: () => {} };
    }
    let shown;
    const open = h("button", { type: "button", class: "link", "data-row": id, click: () => this.#open(shown) });
    const cell = (label) => h("td", { role: "cell", "data-label": label });
    const [user, key, transport, node, since, session] = ["User", "Mailbox or account", "Transport", "Node", "Since", "Session"].map(cell);
    session.append(open);
    const show = (one) => {
      shown = one;
      if (since.textContent !== when(one.since)) since.replaceChildren(moment(one.since));
      for (const [place, text] of [[user, one.user], [key, nameOf(one.key)], [transport, one.transport], [node, one.node], [open, one.session]]) say(place, text);
    };
    return { element: h("tr", { role: "row" }, user, key, transport, node, since, session), show };
  }
}

export function nameOf({ mailbox, account }) {
  return mailbox ?? `all of ${account}`;
}

/**
 * The messages of an event stream (WHATWG HTML 9.2), as this server writes them: JSON in `data`.
 */
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
