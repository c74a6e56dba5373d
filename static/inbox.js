// The view of mailboxes: one subscription to the account and what is shared with it, one more for
// each mailbox added by its path.

import { $, Kept, h, lay, moment, plural, say, set, when } from "./dom.js";
import { Mailboxes, cause, isUnread, parts, sender, sentence } from "./mailboxes.js";
import { Mailpush } from "./mailpush.js";

const FIELDS = ["from", "subject"];
const ADDED = "mailpush.mailboxes";
const LOG = 200;
/** A change is seen at once; a flood of them no more often than this. */
const DRAW_MS = 150;
const TOASTS = 3;
const TOAST_MS = 7_000;
/**
 * Event ids that are remembered: a mailbox added by its path may be the account's too, and both
 * tell.
 */
const IDS = 1_000;
const SHOWN_FLAGS = new Map([["\\Flagged", "flagged"], ["\\Answered", "answered"], ["\\Draft", "draft"], ["\\Deleted", "deleted"]]);

export class Inbox {
  #session;
  #mailboxes = new Mailboxes();
  #client = null;
  /** Whether this client's server has said whose session it is. */
  #named = false;
  #selected;
  /** The mailbox that is on the screen. */
  #drawn;
  #drawnAt = -Infinity;
  #list;
  #added = new Map();
  #ids = new Set();
  #rows = new Map();
  #drawing = false;
  #state = "idle";
  #detail = {};
  #connections = 0;
  #gaps = 0;
  #resyncs = 0;
  /** Resyncs that were told just now: one is told to each subscription that it concerns. */
  #resynced = new Set();
  #clean = new AbortController();
  /** Called with each event that this page hears. */
  onevent = () => {};

  constructor(session) {
    this.#session = session;
    this.#list = new Kept($("mailboxes"), (key) => (key.startsWith("#") ? this.#item(key) : group(key)));
    this.#wire();
    this.#connect();
  }

  stop() {
    this.#clean.abort();
    this.#client.close();
    try {
      sessionStorage.removeItem(ADDED);
    } catch {
      // There is nothing in it then.
    }
  }

  #wire() {
    const { signal } = this.#clean;
    $("again").addEventListener("click", () => this.#connect(), { signal });
    $("settle").addEventListener("click", () => {
      this.#mailboxes.settle(this.#selected);
      $("main").focus();
      this.#draw();
    }, { signal });
    $("unwatch").addEventListener("click", () => this.#unwatch(this.#selected), { signal });
    $("add-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add($("add-path").value.trim(), true);
    }, { signal });
  }

  // The connection

  #connect() {
    this.#client?.close();
    this.#named = false;
    this.#session.again();
    for (const { path } of this.#connections ? this.#mailboxes.list() : []) this.#mailboxes.doubt("this page was not connected", [path]);
    this.#client = new Mailpush({
      token: () => this.#session.next(),
      onstate: (state, detail) => this.#onstate(state, detail),
      onerror: (error) => this.#note(`${error.message}`),
    });
    const account = { account: this.#session.user, shared: true, fields: FIELDS };
    // By a stream the server says nothing of the user but this.
    const onready = ({ key }) => this.#itIs(key.account);
    this.#client.subscribe(account, { ...this.#handlers(), onready, onerror: (error) => this.#refused(account, error) });
    const paths = this.#stored();
    this.#added.clear();
    for (const path of paths) this.#add(path, false);
  }

  #handlers() {
    return {
      onready: () => this.#draw(),
      onevent: (event) => this.#event(event),
      onresync: (reason, keys) => this.#resync(reason, keys),
      onrevoked: (key) => this.#revoked(key),
    };
  }

  /** The user as the server spells the name, which tells whose mailboxes are whose. */
  #itIs(user) {
    if (user === undefined || this.#named) return;
    this.#named = true;
    this.#session.named(user);
    this.#mailboxes.belongTo(user);
    this.#draw();
  }

  #onstate(state, detail) {
    if (state === "connected") {
      // A stream that is opened anew for another set of mailboxes is no return: nothing was lost.
      const { session } = this.#detail;
      if (this.#state !== "connected" || (detail.session !== undefined && detail.session !== session)) this.#connections += 1;
      this.#detail = detail;
      this.#itIs(detail.user);
      document.dispatchEvent(new CustomEvent("good-token"));
    }
    this.#state = state;
    if (state === "closed" && detail.code === 4500) {
      // Not from within the client's own call.
      setTimeout(() => document.dispatchEvent(new CustomEvent("bad-token", { detail: `The server refuses the token: ${detail.reason}` })));
      return;
    }
    const { node, transport } = this.#detail;
    const by = { websocket: "WebSocket", sse: "event stream" }[transport];
    const why = detail.reason ? `: ${detail.reason}` : "";
    const words = {
      idle: "Nothing is watched.",
      connecting: "Connecting…",
      connected: node ? `Connected to node ${node} by ${by}` : `Connected by ${by}`,
      waiting: `Not connected${why}. Trying again in ${Math.max(1, Math.round((detail.retryInMs ?? 0) / 1_000))} s.`,
      offline: "The browser is offline.",
      closed: `Disconnected${why}${detail.code === 4505 ? ", by an administrator" : ""}.`,
    };
    if (state !== "closed" || detail.code !== 1000) this.#note(words[state]);
    $("connection").dataset.state = state;
    say($("state"), words[state]);
    $("again").hidden = state !== "closed" || detail.code === 1000;
    this.#counts();
  }

  #counts() {
    const returns = Math.max(0, this.#connections - 1);
    const counts = [`${returns - this.#gaps} resumed`, plural(this.#gaps, "gap"), plural(this.#resyncs, "resync")];
    const { session } = this.#detail;
    say($("counts"), `${session ? `session ${session} · ` : ""}${counts.join(" · ")}`);
  }

  // What is told

  #event(event) {
    if (this.#ids.has(event.id)) return;
    this.#ids.add(event.id);
    if (this.#ids.size > IDS) this.#ids.delete(this.#ids.values().next().value);
    const { box, arrived } = this.#mailboxes.apply(event);
    this.#note(sentence(event), event.at);
    if (event.type === "MailboxRename" && this.#selected === event.mailbox) this.#selected = event.to;
    if (event.type === "AccountRename" && parts(this.#selected).owner === parts(event.mailbox).owner) {
      const { namespace, name } = parts(this.#selected);
      this.#selected = `${namespace}:${event.to}:${name}`;
    }
    if (event.type === "MailboxDelete") this.#forgetAdded(event.mailbox);
    // What a user's own program put there, read already, is no news.
    const news = arrived.filter(({ flags }) => event.type === "MessageNew" || (flags && isUnread({ flags })));
    if (box && box.path !== this.#selected) for (const { uid } of news) box.fresh.add(uid);
    if (news.length) this.#toast(box, news);
    this.#draw();
    this.onevent(event);
  }

  #resync(reason, keys) {
    const paths = keys.flatMap(({ mailbox }) => mailbox ?? []);
    const account = keys.some((key) => key.account !== undefined);
    this.#mailboxes.doubt(cause(reason), account ? undefined : paths);
    this.#draw();
    if (this.#resynced.has(reason)) return;
    this.#resynced.add(reason);
    queueMicrotask(() => this.#resynced.delete(reason));
    if (reason === "reconnected") this.#gaps = Math.min(Math.max(0, this.#connections - 1), this.#gaps + (account ? 1 : 0));
    else this.#resyncs += 1;
    this.#note(`Something may have been missed: ${cause(reason)}`);
    this.#counts();
  }

  #revoked({ mailbox, account }) {
    if (mailbox === undefined) return this.#note(`You may not watch ${account} any more`);
    // Of a mailbox that is watched by its path too it is told twice.
    if (!this.#mailboxes.get(mailbox)) return;
    this.#mailboxes.remove(mailbox);
    this.#forgetAdded(mailbox);
    this.#note(`${mailbox} is not shared with you any more`);
    this.#pop(`${mailbox} is not shared with you any more`, "");
    this.#draw();
  }

  #refused({ account, mailbox }, error) {
    // That the whole client is at its end, its state tells; what was added is wanted again by the
    // next one.
    if (error.name === "closed") return;
    this.#note(`${mailbox ?? account}: ${error.message}`);
    if (mailbox === undefined || error.temporary) return;
    this.#forgetAdded(mailbox);
    this.#mailboxes.remove(mailbox);
    say($("add-error"), `${mailbox}: ${error.message}`);
    this.#draw();
  }

  // Mailboxes added by their path

  #stored() {
    try {
      return JSON.parse(sessionStorage.getItem(ADDED) ?? "[]");
    } catch {
      return [];
    }
  }

  #store() {
    try {
      sessionStorage.setItem(ADDED, JSON.stringify([...this.#added.keys()]));
    } catch {
      // For this time, then.
    }
  }

  #add(path, chosen) {
    say($("add-error"), "");
    if (!/^#[^:]+:[^:]*:./s.test(path)) return say($("add-error"), "A path looks like #private:alice@example.org:Team");
    if (chosen) $("add-path").value = "";
    if (!this.#added.has(path)) {
      const handlers = {
        ...this.#handlers(),
        onready: ({ key, rights }) => {
          this.#mailboxes.add(key.mailbox).rights = rights;
          if (chosen) this.#selected = key.mailbox;
          this.#draw();
        },
        onerror: (error) => this.#refused({ mailbox: path }, error),
      };
      this.#added.set(path, this.#client.subscribe({ mailbox: path, fields: FIELDS }, handlers));
      this.#store();
    } else this.#select(path);
  }

  #forgetAdded(path) {
    for (const [asked, subscription] of this.#added) {
      if (asked !== path && subscription.key.mailbox !== path) continue;
      subscription.close();
      this.#added.delete(asked);
    }
    this.#store();
  }

  #unwatch(path) {
    this.#forgetAdded(path);
    this.#mailboxes.remove(path);
    $("main").focus();
    this.#draw();
  }

  #select(path) {
    this.#selected = path;
    this.#draw();
  }

  // The screen

  /** Once for all that comes together. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    setTimeout(() => {
      this.#drawing = false;
      if (this.#clean.signal.aborted) return;
      const { user } = this.#mailboxes;
      if (user === undefined) return;
      // Everybody has an INBOX.
      if (!this.#mailboxes.get(this.#selected)) this.#selected = this.#mailboxes.add(`#private:${user}:INBOX`).path;
      const box = this.#mailboxes.get(this.#selected);
      // What is looked at is not new.
      box.fresh.clear();
      this.#drawMailboxes();
      this.#drawMailbox(box);
      this.#drawnAt = performance.now();
    }, Math.max(0, this.#drawnAt + DRAW_MS - performance.now()));
  }

  #drawMailboxes() {
    const items = [];
    let above;
    for (const box of this.#mailboxes.list()) {
      const words = box.own ? "Yours" : "Shared with you";
      if (words !== above) items.push([(above = words), null]);
      items.push([box.path, box]);
    }
    this.#list.show(items);
  }

  /** A mailbox in the list; a path begins with `#`, and names of groups do not. */
  #item(path) {
    const [name, owner, count] = [h("span"), h("span", { class: "owner" }), h("span")];
    const fresh = h("span", { class: "badge" }, count, h("span", { class: "visually-hidden" }, " new"));
    const stale = h("span", { class: "badge doubt" }, "stale?");
    const button = h("button", { type: "button", "data-path": path, click: () => this.#select(path) }, h("span", { class: "name" }, name, owner), fresh, stale);
    const show = (box) => {
      set(button, "aria-current", path === this.#selected && "true");
      say(name, box.name);
      say(owner, box.owner || "shared by all");
      owner.hidden = box.own;
      say(count, String(box.fresh.size));
      fresh.hidden = box.fresh.size === 0;
      stale.hidden = box.stale === null;
    };
    return { element: h("li", {}, button), show };
  }

  #drawMailbox(box) {
    say($("mailbox-title"), box.own ? box.name : `${box.name} · ${box.owner || "shared"}`);
    const { messages, unseen } = box.status ?? {};
    const known = [
      messages !== undefined && plural(messages, "message"),
      unseen !== undefined && `${unseen} unread`,
      box.status && `as of ${when(box.status.at, true)}`,
      box.quota && `${box.quota.exceeded ? "over quota, " : ""}${box.quota.used}${box.quota.limit === undefined ? "" : ` of ${box.quota.limit}`} used`,
      box.rights && `rights ${box.rights}`,
    ];
    say($("mailbox-status"), known.filter(Boolean).join(" · "));
    $("unwatch").hidden = ![...this.#added.values()].some(({ key }) => key.mailbox === box.path);
    $("stale").hidden = box.stale === null;
    if (box.stale !== null) {
      const words = `What is shown may be stale: ${box.stale}. This page hears of changes, and cannot read the mailbox itself.`;
      say($("stale-words"), words);
    }
    const list = [...box.messages.values()].sort((a, b) => b.uid - a.uid);
    const rows = new Map();
    // From one day to the next a time may have to be said otherwise.
    const today = new Date().toDateString();
    for (const message of list) {
      const key = `${box.path} ${message.uid}`;
      const text = today + JSON.stringify(message);
      const before = this.#rows.get(key);
      if (before?.text === text) rows.set(key, before);
      // What another mailbox has held all along is no arrival.
      else rows.set(key, { text, element: this.#row(message, !before && box.path === this.#drawn) });
    }
    this.#rows = rows;
    this.#drawn = box.path;
    lay($("messages"), [...rows.values()].map(({ element }) => element));
    set($("empty"), "class", list.length ? "muted small-text heard" : "muted empty");
    const words = list.length
      ? "Only what this page has heard of is listed, not all that the mailbox holds."
      : "Nothing heard yet. What arrives, changes or goes from now on appears here at once.";
    say($("empty"), words);
  }

  #row(message, isNew) {
    const { uid, from, subject, flags = [], at, stale } = message;
    const classes = [isUnread(message) && "unread", stale && "doubtful", isNew && at !== undefined && !stale && "arrived"];
    const unread = isUnread(message) && h("span", { class: "visually-hidden" }, "unread: ");
    const chips = flags.flatMap((flag) => {
      const word = SHOWN_FLAGS.get(flag) ?? (flag.startsWith("\\") ? null : flag);
      return word === null ? [] : [" ", h("span", { class: `chip ${word === "flagged" ? "flagged" : ""}` }, word)];
    });
    const title = at === undefined
      ? h("span", { class: "unknown" }, `Message ${uid}, from before this page listened`)
      : subject === undefined
        ? h("span", { class: "unknown" }, `Message ${uid}, no subject told`)
        : subject;
    return h(
      "li",
      { class: classes.filter(Boolean).join(" "), "data-uid": String(uid) },
      h("span", { class: "mark", "aria-hidden": "true" }),
      h("span", { class: "from", title: from }, sender(from)),
      h("span", { class: "subject" }, unread, title, ...chips),
      at !== undefined && moment(at),
    );
  }

  #note(words, at = Date.now()) {
    $("log").prepend(h("li", {}, moment(at, true), h("span", {}, words)));
    while ($("log").children.length > LOG) $("log").lastChild.remove();
  }

  #toast(box, [first, ...others]) {
    const more = others.length ? ` and ${plural(others.length, "other")}` : "";
    const where = box.own ? box.name : `${box.name} of ${box.owner || "all"}`;
    this.#pop(`${first.subject ?? "New mail"}${more}`, `${first.from ? `${sender(first.from)} · ` : ""}${where}`);
  }

  #pop(what, where) {
    let timer;
    let from = null;
    const close = () => {
      clearTimeout(timer);
      const focused = element.contains(document.activeElement);
      element.remove();
      // Whoever dismissed it by the keyboard goes on where they were before.
      if (focused) (from?.isConnected ? from : $("main")).focus({ preventScroll: true });
    };
    const wait = () => (timer = setTimeout(close, TOAST_MS));
    const enter = ({ relatedTarget }) => {
      clearTimeout(timer);
      if (!element.contains(relatedTarget)) from = relatedTarget;
    };
    const element = h(
      "div",
      { mouseenter: () => clearTimeout(timer), mouseleave: wait, focusin: enter, focusout: wait },
      h("p", { class: "what" }, what),
      h("button", { type: "button", class: "small quiet", "aria-label": `Dismiss: ${what}`, click: close }, "✕"),
      h("p", { class: "muted small-text" }, where),
    );
    $("toasts").append(element);
    while ($("toasts").children.length > TOASTS) $("toasts").firstChild.remove();
    wait();
  }
}

function group(words) {
  return { element: h("li", { class: "group" }, words), show: () => {} };
}
