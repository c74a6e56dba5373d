/**
 * Push for webmail: a client of mailpush for browsers (and Node 22). No dependencies, no build step, nothing global, no eval.
 *
 *     import { Mailpush } from "/mailpush.js";
 *
 *     const client = new Mailpush({
 *       token: async () => {
 *         const answer = await fetch("/api/push-token", { method: "POST" });
 *         return answer.ok ? answer.text() : Promise.reject(new Error("no token now")); // it is asked for again later
 *       },
 *     });
 *     const inbox = client.subscribe({ mailbox: "#private:alice@example.org:INBOX", fields: ["from", "subject"] }, {
 *       onready: () => loadMessages(),        // every change from now on is told: read your state now
 *       onevent: (event) => apply(event),     // a type you do not know: read the mailbox's state
 *       onresync: (reason) => loadMessages(), // something may have been missed; left out, onready is called again
 *       onrevoked: () => showNoAccess(),      // the subscription has ended
 *       onerror: (error) => error.temporary || showNoAccess(),
 *     });
 *     // later: inbox.close(); client.close();
 *
 * **Callbacks, not an EventTarget**: they are in place before the first event can come, a subscription without `onready` and
 * `onevent` is refused at once, and closing it is all there is to clean up. None is called within `subscribe`, and none after
 * `close`. What a callback throws is reported like any uncaught error and harms nothing here.
 *
 * **What you can rely on.** Between `onready` and the end of the subscription each change comes as an event, or `onresync` is
 * called. An event comes once; only one older than the last thousand could come again, and has the same `id` then. Lost
 * connections come back by themselves: at the time the server names, or spread by exponential backoff with full jitter, so that
 * a node's thousands of clients do not return at once; not while the browser is offline, and soon when the page is seen again.
 *
 * **States** (`client.state`, `onstate`): `idle` (nothing subscribed), `connecting`, `connected`, `waiting` (for the next try),
 * `offline`, and `closed`, which is final: by `close()`, or because the server does not want this client back (`detail.code`,
 * such as 4500 for a bad token or 4505 for a session that was ended). Make another client once that is settled.
 *
 * **Tokens.** `token` is called when one is needed: for the first connection, before the token expires, and after it was said to
 * have expired. It should give a new one each time. If it fails it is called again later, and the client's `onerror` is told; a
 * text that is no token ends the client for good. When the user signs out, call `close()`.
 *
 * **Networks without WebSockets.** Where they never open the same pushes come by Server-Sent Events, read with `fetch`: the
 * token stays in a header (`EventSource` would need a ticket in the URL), and a refusal can be told from a broken network. Now
 * and then a WebSocket is tried again. The node must have the page's origin then, or a proxy in front of both.
 *
 * **Renames and deletions.** After `MailboxRename` a mailbox's subscription goes on under the new path (`key`), after
 * `AccountRename` an account's under the new name. After `MailboxDelete` a mailbox's has ended (`closed`): subscribe again if the
 * mailbox comes back.
 *
 * The protocol is described in asyncapi.yaml, which every node serves beside this file.
 */

const PROTOCOL = "mailpush.v1";
/** How long a connection may take to open, and to answer `connect`: the server gives up earlier. Milliseconds, like all here. */
const OPEN_MS = 15_000;
const CONNECT_MS = 45_000;
const TOKEN_MS = 30_000;
/** Beyond the heartbeat's time: first for a late heartbeat, then for the answer to a ping. */
const GRACE_MS = 3_000;
const PING_MS = 5_000;
const HEARTBEAT_MS = 25_000;
/** A stream does not say how often it beats; longer than any sensible setting, and an idle one still ends in about a minute. */
const STREAM_HEARTBEAT_MS = 60_000;
const BASE_MS = 4_000;
const MAX_MS = 60_000;
/** The longest that the server can make a client stay away. */
const AWAY_MS = 3_600_000;
/** A connection that lived this long was a good one: the backoff begins anew. */
const GOOD_MS = 10_000;
/** A token that is good for less is not shown again. */
const TOKEN_LEFT_MS = 30_000;
/** How soon, and how often at most, a page that is seen again or back online tries. */
const SOON_MS = 1_000;
/** WebSockets that never opened before a stream is tried; how often a WebSocket is tried while a stream works. */
const BLOCKED = 2;
const PROBE_MS = 300_000;
/** Streams are reopened no more often than this. */
const REOPEN_MS = 2_000;
const SEEN = 1_000;
const SUBSCRIPTIONS = 1_000;
const COMMAND_CHARACTERS = 4_096;
const FRAME_BYTES = 16_384;
const STREAM_CHARACTERS = 1 << 20;
/** Codes below 4000 that the server uses for what will not work the next time either. All from 4500 to 4999 are final too. */
const FINAL = [1000, 1002, 1003, 1007, 1009];
/** Needed to follow a mailbox and an account, whatever types of events the page asks for. */
const FOLLOWED = { mailbox: ["MailboxRename", "MailboxDelete"], account: ["AccountRename"] };
/** These are of an account, even where a mailbox that is named in them is watched too. */
const OF_ACCOUNTS = ["AccountRename", "MailboxCreate", "MailboxSubscribe", "MailboxUnSubscribe"];

/** Why something was refused. `name` is a stable word such as `not_found`; `code` is like a status of HTTP, or 0. */
export class MailpushError extends Error {
  constructor({ code = 0, name = "error", message = "", temporary = false, retry_after_ms }, cause) {
    super(String(message), { cause });
    this.name = String(name);
    this.code = code;
    this.temporary = temporary === true;
    this.retryAfterMs = retry_after_ms;
  }
}

/** One subscription, as the page sees it. */
class Subscription {
  #record;
  #close;
  constructor(record, close) {
    this.#record = record;
    this.#close = close;
  }
  /** What is watched, in the server's spelling once it is ready, and under its new path after a rename. */
  get key() {
    return { ...this.#record.key };
  }
  /** Letters of RFC 4314; undefined until it is ready. */
  get rights() {
    return this.#record.rights;
  }
  get closed() {
    return this.#record.closed;
  }
  close() {
    this.#close();
  }
}

export class Mailpush {
  #env;
  #timers;
  #urls;
  #askToken;
  #onstate;
  #onerror;
  #backoff;
  #state = "idle";
  #records = new Set();
  /** The connection in use, those that it replaces without a gap, and a WebSocket tried beside a stream. */
  #link = null;
  #olds = [];
  #probing = null;
  /** The attempt under way; whatever a former one still brings is of no interest. */
  #attempt = null;
  #attempts = 0;
  #lastAttempt = -Infinity;
  /** The next attempt: `{ due, cancel }`. Not before `#stayAway`, for the server said so. */
  #retry = null;
  #stayAway = 0;
  #socketFailures = 0;
  #socketTried = 0;
  #preferStream = false;
  #reopenAt = 0;
  #reopenings = 0;
  #reopening = false;
  #token = null;
  #tokenUntil = 0;
  #pos;
  #seen = new Set();
  #notBefore = new Map();
  #refusals = new Map();
  #frameBytes = FRAME_BYTES;
  #heartbeat;
  #reconciling = false;
  #unlisten = () => {};

  constructor(options) {
    known(options, ["url", "token", "onstate", "onerror", "backoff", "environment"], "option");
    const { url, token, onstate, onerror, backoff = {}, environment } = options;
    known(backoff, ["baseMs", "maxMs"], "backoff's option");
    if (typeof token !== "function") throw new TypeError("token must be a function that gives a token");
    callbacks({ onstate, onerror }, []);
    const { baseMs = BASE_MS, maxMs = MAX_MS } = backoff;
    if (!(baseMs >= 100 && maxMs >= baseMs && maxMs <= AWAY_MS)) {
      throw new RangeError("backoff: baseMs is at least 100, maxMs no less than that and at most an hour");
    }
    this.#env = withDefaults(environment);
    this.#timers = new Timers(this.#env);
    this.#urls = endpoints(url, this.#env.location);
    this.#askToken = token;
    this.#onstate = onstate;
    this.#onerror = onerror;
    this.#backoff = { baseMs, maxMs };
    this.#listen();
  }

  get state() {
    return this.#state;
  }

  /** Watches a mailbox or an account; connects if that has not happened yet. */
  subscribe(what, handlers) {
    const record = newRecord(what, handlers);
    if (this.#state === "closed") throw new Error("this client is closed");
    if (this.#records.size >= SUBSCRIPTIONS) throw new RangeError(`at most ${SUBSCRIPTIONS} subscriptions a client`);
    this.#records.add(record);
    this.#soon();
    return new Subscription(record, () => {
      this.#end(record);
      this.#soon();
    });
  }

  /** Ends everything, for good. */
  close() {
    this.#stop({ code: 1000, reason: "closed by the page" });
  }

  // Connecting and coming back

  async #open() {
    this.#retry?.cancel();
    this.#retry = null;
    if (!this.#records.size) return this.#tell("idle");
    if (!this.#env.online()) return this.#tell("offline");
    const attempt = {};
    this.#attempt = attempt;
    this.#lastAttempt = this.#env.now();
    this.#tell("connecting");
    const token = await this.#getToken();
    if (this.#attempt !== attempt) return;
    this.#attempt = null;
    if (token === undefined) return this.#later({ reason: "no token" });
    const stream = this.#preferStream && this.#env.now() - this.#socketTried < PROBE_MS;
    if (stream || !this.#env.WebSocket) this.#openStream(token);
    else this.#openSocket(token);
  }

  /** The token at hand as long as it is good, or a new one; undefined if there is none, which is told. */
  async #getToken(fresh = false) {
    if (!fresh && this.#token !== null && this.#env.date() < this.#tokenUntil - TOKEN_LEFT_MS) return this.#token;
    let cancel;
    const late = new Promise((_, reject) => {
      cancel = this.#timers.after(TOKEN_MS, () => reject(new Error("token took too long")));
    });
    try {
      const token = await Promise.race([(async () => this.#askToken())(), late]);
      if (typeof token !== "string" || !token.trim()) throw new TypeError("token must give a text that is not empty");
      this.#token = token.trim();
      this.#tokenUntil = Infinity;
      return this.#token;
    } catch (cause) {
      this.#fault({ name: "token", message: `no token: ${cause?.message ?? cause}`, temporary: true }, cause);
      return undefined;
    } finally {
      cancel();
    }
  }

  #jitter(attempts) {
    return this.#env.random() * Math.min(this.#backoff.maxMs, this.#backoff.baseMs * 2 ** Math.min(attempts, 30));
  }

  /** Waits for the next attempt: as long as the server said, or as chance has it. */
  #later(detail, after) {
    const jitter = this.#jitter(this.#attempts);
    const delay = after === undefined ? jitter : this.#attempts ? Math.max(after, jitter) : after;
    this.#attempts += 1;
    this.#stayAway = this.#env.now() + (after ?? 0);
    if (!this.#records.size) return this.#tell("idle");
    if (!this.#env.online()) return this.#tell("offline", detail);
    this.#schedule(delay);
    this.#tell("waiting", { ...detail, retryInMs: Math.round(delay) });
  }

  #schedule(delay) {
    this.#retry?.cancel();
    this.#retry = { due: this.#env.now() + delay, cancel: this.#timers.after(delay, () => this.#open()) };
  }

  /** The page is seen again, or back online: tries soon, unless the server wants it away. */
  #hasten() {
    const now = this.#env.now();
    const due = Math.max(this.#stayAway, this.#lastAttempt + SOON_MS, now + this.#env.random() * SOON_MS);
    if (this.#retry ? due < this.#retry.due : this.#state === "offline") this.#schedule(due - now);
  }

  #listen() {
    const { window, document } = this.#env;
    const online = () => (this.#link ? this.#check(this.#link) : this.#hasten());
    const offline = () => {
      if (this.#link) return this.#check(this.#link);
      if (!this.#retry) return;
      this.#retry.cancel();
      this.#retry = null;
      this.#tell("offline");
    };
    // A hidden page's timers are slow: when it is seen again, what they would have found is looked for at once.
    const visible = () => document.visibilityState === "visible" && this.#env.online() && online();
    window?.addEventListener("online", online);
    window?.addEventListener("offline", offline);
    document?.addEventListener("visibilitychange", visible);
    this.#unlisten = () => {
      window?.removeEventListener("online", online);
      window?.removeEventListener("offline", offline);
      document?.removeEventListener("visibilitychange", visible);
    };
  }

  /** A connection, not open yet. `asked` has what was asked for on it, by name, and whether it stands. */
  #newLink(kind, shut) {
    const now = this.#env.now();
    const timers = new Timers(this.#env);
    const heartbeat = this.#heartbeat ?? (kind === "sse" ? STREAM_HEARTBEAT_MS : HEARTBEAT_MS);
    return { kind, shut, timers, heartbeat, ready: false, over: false, since: now, heard: now, signs: 0, asked: new Map() };
  }

  #dispose(link) {
    if (!link || link.over) return;
    link.over = true;
    link.timers.stop();
    link.shut();
  }

  #isReady(link, detail) {
    link.ready = true;
    link.since = this.#env.now();
    this.#reopenings = 0;
    this.#tell("connected", { transport: link.kind, ...detail });
    this.#watch(link);
  }

  /** A connection is gone. `goodbye` has the words of a `disconnect` or of a close frame. */
  #lost(link, goodbye) {
    if (link.over) return;
    this.#dispose(link);
    const final = isFinal(goodbye.code) || goodbye.reconnect === false;
    if (link.kind === "websocket" && !link.ready && !(goodbye.code >= 4000)) {
      this.#socketFailures += 1;
      if (this.#socketFailures >= BLOCKED && this.#env.fetch) this.#preferStream = true;
    } else if (link.kind === "sse" && !link.ready && this.#env.WebSocket) {
      // A stream does not work either, so it is not that WebSockets are blocked.
      this.#preferStream = false;
    }
    if (goodbye.code === 4401) this.#token = null;
    if (link === this.#probing) {
      this.#probing = null;
      return this.#probeLater();
    }
    if (this.#olds.includes(link)) {
      this.#olds.splice(this.#olds.indexOf(link), 1);
      if (final) return this.#stop({ code: goodbye.code, reason: goodbye.reason });
      // It may have been silent for long: whether it told everything until it was replaced is not known.
      for (const record of this.#records) if (link.asked.get(record.id)?.standing) this.#interrupt(record);
      for (const [id, asked] of this.#link.asked) if (asked.standing) this.#settled(id, asked.rights);
      return;
    }
    if (!link.ready && this.#olds.length && goodbye.code !== 4504) {
      // The one that it should have replaced goes on, unless it takes the last place that the user has.
      this.#link = this.#olds.pop();
      this.#link.replaced = undefined;
      this.#reopenAt = this.#env.now() + REOPEN_MS + this.#jitter((this.#reopenings += 1) - 1);
      if (this.#link.kind === "sse") this.#preferStream = true;
      if (link.kind === "websocket") this.#probeLater();
      return this.#soon();
    }
    if (final && (link.ready || !this.#olds.length)) return this.#stop({ code: goodbye.code, reason: goodbye.reason });
    const served = this.#olds.at(-1) ?? link;
    this.#drop();
    if (served.ready && this.#env.now() - served.since >= GOOD_MS) this.#attempts = 0;
    const after = goodbye.reconnect_after_ms;
    this.#later({ code: goodbye.code, reason: goodbye.reason }, after >= 0 ? Math.min(after, AWAY_MS) : undefined);
  }

  /** Lets go of every connection. */
  #drop() {
    for (const link of [this.#link, ...this.#olds, this.#probing]) this.#dispose(link);
    this.#link = this.#probing = this.#attempt = null;
    this.#olds = [];
    for (const record of this.#records) this.#interrupt(record);
  }

  #stop(detail) {
    if (this.#state === "closed") return;
    this.#drop();
    this.#timers.stop();
    this.#unlisten();
    for (const record of this.#records) record.closed = true;
    this.#records.clear();
    this.#token = null;
    this.#tell("closed", detail);
  }

  // Whether the server is there

  #watch(link) {
    const quiet = this.#env.now() - link.heard;
    const patience = link.heartbeat + GRACE_MS;
    link.timers.cancel?.();
    const wake = () => (this.#env.now() - link.heard < patience ? this.#watch(link) : this.#check(link));
    link.timers.cancel = link.timers.after(Math.max(0, patience - quiet), wake);
  }

  #heard(link) {
    link.heard = this.#env.now();
    link.signs += 1;
    // What comes this long after the new one stood was sent after it: the old one has told everything until then.
    if (link.heard - link.replaced >= GRACE_MS) {
      this.#olds.splice(this.#olds.indexOf(link), 1);
      this.#dispose(link);
    }
  }

  /** Another connection takes over. The one that stands goes on until there can be no gap between the two. */
  #replace(link) {
    const former = this.#link;
    this.#link = link;
    if (former?.ready) this.#olds.push(former);
    else this.#dispose(former);
    if (this.#olds.length > 2) this.#lost(this.#olds[0], { code: 1006, reason: "too many streams" });
  }

  /** Asks for a sign of life. A stream cannot be asked: if it is late, what is on its way is given time to come. */
  #check(link) {
    if (!link.ready || link.checking) return;
    if (link.kind === "sse" && this.#env.now() - link.heard < link.heartbeat + GRACE_MS) return;
    link.checking = true;
    const { signs } = link;
    if (link.kind === "websocket") this.#command(link, "ping", {}, () => {});
    link.timers.after(PING_MS, () => {
      link.checking = false;
      if (link.signs !== signs) return this.#watch(link);
      this.#lost(link, { code: 1006, reason: "the server is silent" });
    });
  }

  // The WebSocket

  #openSocket(token, probe = false) {
    let socket;
    const link = this.#newLink("websocket", () => {
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      // One that is not open yet may say so once more, to nobody.
      socket.close(1000);
    });
    Object.assign(link, { pending: new Map(), id: 0, refusals: 0, until: 0, rate: 1, credit: 1, counted: 0 });
    link.send = (frame) => socket.send(JSON.stringify(frame));
    this.#socketTried = this.#env.now();
    if (probe) this.#probing = link;
    else this.#link = link;
    const late = link.timers.after(OPEN_MS, () => this.#lost(link, { code: 1006, reason: "the WebSocket does not open" }));
    try {
      socket = new this.#env.WebSocket(this.#urls.socket, PROTOCOL);
    } catch (error) {
      return this.#lost(link, { code: 1006, reason: String(error) });
    }
    socket.onopen = () => {
      late();
      if (link === this.#probing) {
        this.#replace(link);
        this.#probing = null;
      }
      link.timers.after(CONNECT_MS, () => link.ready || this.#lost(link, { code: 1006, reason: "no answer to connect" }));
      this.#connect(link, token, true);
    };
    socket.onmessage = ({ data }) => this.#receive(link, data);
    // Some runtimes tell of a WebSocket that does not open by an error alone.
    socket.onerror = () => socket.readyState === 0 && this.#lost(link, { code: 1006, reason: "the WebSocket does not open" });
    socket.onclose = ({ code, reason }) => this.#lost(link, { code, reason });
  }

  /** Tries a WebSocket beside a stream that works, now and then. */
  #probeLater() {
    if (!this.#env.WebSocket || this.#link?.kind !== "sse") return;
    const link = this.#link;
    link.timers.probe?.();
    link.timers.probe = link.timers.after(PROBE_MS * (0.75 + this.#env.random() / 2), async () => {
      const token = await this.#getToken();
      if (link.over || link !== this.#link || this.#olds.length || this.#probing || token === undefined) return this.#probeLater();
      this.#openSocket(token, true);
    });
  }

  #command(link, name, body, onreply) {
    link.id = (link.id + 1) >>> 0;
    link.pending.set(link.id, onreply);
    link.send({ id: link.id, [name]: body });
  }

  /** The first frame: with all that this client had, as far as it fits into a frame. */
  #connect(link, token, resuming) {
    const subscriptions = [];
    let room = this.#frameBytes - 256 - bytes(token) - bytes(this.#pos ?? "");
    for (const id of resuming ? this.#ids() : []) {
      const group = this.#group(id);
      if (!group.some((record) => record.ready)) continue;
      const { key } = group[0];
      const wish = wishOf(group);
      room -= bytes(JSON.stringify({ ...key, ...wish })) + 1;
      if (room < 0) break;
      subscriptions.push({ ...key, ...wish });
      link.asked.set(id, { id, key, text: JSON.stringify(wish), standing: false });
    }
    const resume = subscriptions.length ? { pos: this.#pos, subscriptions } : undefined;
    this.#command(link, "connect", { token, resume }, ({ connect, error }) => {
      if (error) {
        // One bad subscription or too many of them: connected without, each is answered by itself.
        if (resume && (error.code === 400 || error.code === 429)) {
          link.asked.clear();
          return this.#connect(link, token, false);
        }
        // A disconnect follows, and says what to do.
        return this.#fault(error);
      }
      if (!connect) return;
      this.#socketFailures = 0;
      this.#preferStream = false;
      this.#heartbeat = link.heartbeat = connect.heartbeat_ms > 0 ? connect.heartbeat_ms : HEARTBEAT_MS;
      this.#frameBytes = connect.limits?.frame_bytes ?? FRAME_BYTES;
      // Less than the server allows, for heartbeats are counted too.
      link.rate = link.credit = Math.max(1, (connect.limits?.commands_per_second ?? 1) * 0.8);
      link.counted = this.#env.now();
      link.until = this.#tokenUntil = connect.token_expires_at;
      const { session, node, user } = connect;
      // Later servers may say where their telling begins: where nothing is told again, what was before has been read by now.
      if (typeof connect.pos === "string" && !connect.resumed?.some(({ recovered }) => recovered)) this.#pos = connect.pos;
      this.#isReady(link, { session, node, user });
      for (const { key, recovered, rights, error: refusal } of connect.resumed ?? []) {
        const asked = link.asked.get(idOf(key));
        if (!asked) continue;
        if (refusal) this.#refused(link, asked, refusal);
        else this.#stands(link, asked, key, rights, recovered === true ? { from: resume.pos } : undefined);
      }
      for (const [id, asked] of link.asked) if (!asked.standing) link.asked.delete(id);
      this.#soon();
    });
  }

  /** A newer token, in-band. A server that was given the same one again asks at once again: the backoff is for that too. */
  #refresh(link) {
    if (link.refreshing || link.kind !== "websocket") return;
    link.refreshing = true;
    const again = (error) => {
      if (error) this.#fault(error);
      link.refreshing = false;
      link.refusals += 1;
      this.#refresh(link);
    };
    link.timers.after(link.refusals ? SOON_MS + this.#jitter(link.refusals - 1) : 0, async () => {
      const token = await this.#getToken(true);
      if (link.over) return;
      if (token === undefined) return again();
      this.#command(link, "refresh", { token }, ({ refresh, error }) => {
        if (!refresh) return again(error);
        link.refreshing = false;
        link.refusals = refresh.token_expires_at > link.until ? 0 : link.refusals + 1;
        link.until = this.#tokenUntil = refresh.token_expires_at;
      });
    });
  }

  // The stream

  #streamRequest(ids, wish, token, signal) {
    const url = new URL(this.#urls.stream);
    for (const id of ids) for (const [name, value] of Object.entries(this.#group(id)[0].key)) url.searchParams.append(name, value);
    for (const name of ["types", "fields"]) if (wish[name]) url.searchParams.set(name, wish[name].join());
    if (wish.shared) url.searchParams.set("shared", "true");
    const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
    if (this.#pos !== undefined) headers["last-event-id"] = this.#pos;
    return this.#env.fetch(url.href, { headers, signal, cache: "no-store" });
  }

  async #openStream(token) {
    const ids = this.#ids();
    if (!ids.length) return this.#tell("idle");
    const abort = new AbortController();
    const link = this.#newLink("sse", () => abort.abort());
    const wish = wishOf([...this.#records]);
    link.text = JSON.stringify(wish);
    link.entries = ids.map((id) => ({ id, key: this.#group(id)[0].key, text: link.text, standing: false }));
    link.entries.forEach((entry) => link.asked.set(entry.id, entry));
    this.#replace(link);
    this.#reopenAt = this.#env.now() + REOPEN_MS;
    const late = link.timers.after(OPEN_MS, () => this.#lost(link, { code: 1006, reason: "the stream does not open" }));
    try {
      const response = await this.#streamRequest(ids, wish, token, abort.signal);
      if (link.over) return;
      const goodbye = await refusal(response);
      if (link.over) return;
      late();
      if (goodbye?.subscription) return await this.#blame(link, token, goodbye);
      if (goodbye) return this.#lost(link, goodbye);
      link.heard = this.#env.now();
      this.#isReady(link, {});
      this.#probeLater();
      const decoder = new TextDecoder();
      const feed = eventStream((data) => this.#receive(link, data));
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (link.over) return;
        if (done) break;
        this.#heard(link);
        feed(decoder.decode(value, { stream: true }));
      }
      this.#lost(link, { code: 1006, reason: "the stream ended" });
    } catch (error) {
      this.#lost(link, { code: 1006, reason: String(error) });
    }
  }

  /** A stream is refused as a whole for one mailbox, and not told for which: each that is not known to be good is tried alone. */
  async #blame(link, token, { subscription: error }) {
    const suspects = link.entries.filter(({ id }) => !this.#olds.some(({ asked }) => asked.get(id)?.standing));
    const guilty = suspects.length === 1 ? suspects : [];
    for (const entry of suspects.length === 1 ? [] : suspects) {
      if (link.over) return;
      if (!this.#group(entry.id).length) continue;
      const abort = new AbortController();
      const late = link.timers.after(OPEN_MS, () => abort.abort());
      const response = await this.#streamRequest([entry.id], wishOf(this.#group(entry.id)), token, abort.signal);
      const why = (await refusal(response))?.subscription;
      late();
      abort.abort();
      if (why) guilty.push({ ...entry, error: why });
      await new Promise((resolve) => link.timers.after(SOON_MS / 4, resolve));
    }
    if (link.over) return;
    for (const entry of guilty) this.#refused(link, entry, entry.error ?? error);
    this.#lost(link, { code: 1006, reason: error.message });
  }

  // What the server says

  #receive(link, text) {
    if (link.over) return;
    this.#heard(link);
    try {
      this.#obey(link, JSON.parse(text));
    } catch (error) {
      this.#lost(link, { code: 1006, reason: `not a frame of mailpush: ${error.message}` });
    }
  }

  #obey(link, frame) {
    if (link.kind === "websocket" && frame.id !== undefined) {
      const onreply = link.pending.get(frame.id);
      link.pending.delete(frame.id);
      onreply?.(frame);
    } else if (frame.event) this.#event(link, frame.event);
    else if (frame.resync) this.#resync(frame.resync);
    else if (frame.revoked) this.#revoked(frame.revoked.key);
    else if (frame.expiring) this.#refresh(link);
    else if (frame.disconnect) this.#lost(link, frame.disconnect);
    else if (frame.subscribe) this.#streamed(link, frame);
    else if (frame.error) this.#streamFailed(link, frame);
    else if (link.kind === "websocket" && !Object.keys(frame).length) link.send({});
  }

  #streamed(link, { id, subscribe: { key, rights } }) {
    const asked = link.asked.get(idOf(key)) ?? link.entries?.[id];
    if (asked && link.asked.get(asked.id) === asked) this.#stands(link, asked, key, rights);
  }

  #streamFailed(link, { id, error }) {
    const asked = link.entries?.[id];
    if (asked && !error.temporary) this.#refused(link, asked, error);
    else this.#fault(error);
    if (link.kind === "sse") this.#lost(link, { code: 1006, reason: error.message, reconnect_after_ms: error.retry_after_ms });
  }

  #event(link, { event, pos }) {
    if (typeof pos === "string" && (link === this.#link || !this.#link?.ready)) this.#pos = pos;
    const moves = event.type === "MailboxRename" || event.type === "AccountRename";
    if (typeof event.mailbox !== "string" || (moves && typeof event.to !== "string")) return;
    // What becomes of one mailbox by another's new name has the id of that one's event.
    const name = `${event.id} ${event.type} ${event.mailbox}`;
    if (this.#seen.has(name)) return;
    if (event.id !== undefined) this.#seen.add(name);
    if (this.#seen.size > SEEN) this.#seen.delete(this.#seen.values().next().value);
    const concerned = [...this.#records].filter((record) => record.ready && concerns(record, event));
    if (moves) this.#moved(event);
    for (const record of concerned) {
      const { types } = record.wish;
      if (!types || types.includes(event.type) || event.type === "MailboxChange") this.#call(record, "onevent", event);
      if (event.type === "MailboxDelete" && record.key.mailbox !== undefined) this.#end(record);
    }
    if (event.type === "MailboxDelete" || moves) this.#soon();
  }

  /** Moves what stands under the old name, as the server does; it tells of each mailbox below a renamed one by itself. */
  #moved(event) {
    for (const record of this.#records) {
      const [from, key] = [record.id, movedKey(record.key, event)];
      if (!key) continue;
      record.key = key;
      record.id = idOf(key);
      for (const { asked } of [this.#link, ...this.#olds]) {
        const entry = asked.get(from);
        if (!entry) continue;
        asked.delete(from);
        if (!asked.has(record.id)) asked.set(record.id, Object.assign(entry, { id: record.id, key }));
      }
    }
  }

  #resync({ keys, reason }) {
    for (const record of [...this.#records]) {
      const mine = record.ready ? keys.filter((key) => covers(record, key)) : [];
      if (mine.length) this.#readAgain(record, reason, mine);
    }
  }

  #readAgain(record, reason, keys) {
    if (record.handlers.onresync) this.#call(record, "onresync", reason, keys);
    else this.#call(record, "onready", { key: record.key, rights: record.rights });
  }

  #revoked(key) {
    const id = idOf(key);
    for (const link of [this.#link, ...this.#olds]) link.asked.delete(id);
    for (const record of [...this.#records]) {
      if (record.id === id) this.#end(record, "onrevoked", key);
      else if (record.wish.shared && record.ready && key.mailbox !== undefined) this.#call(record, "onrevoked", key);
    }
    this.#soon();
  }

  // What is asked for, and what stands

  #group(id) {
    return [...this.#records].filter((record) => record.id === id);
  }

  #ids() {
    return [...new Set([...this.#records].map((record) => record.id))];
  }

  #soon() {
    if (this.#reconciling) return;
    this.#reconciling = true;
    queueMicrotask(() => {
      this.#reconciling = false;
      this.#reconcile();
    });
  }

  /** Brings what the server was asked for to what the page wants. */
  #reconcile() {
    const link = this.#link;
    if (this.#state === "closed" || this.#attempt || this.#retry) return;
    if (!link) {
      if (!this.#records.size || this.#state !== "idle") return;
      const away = this.#stayAway - this.#env.now();
      return void (away > 0 ? this.#schedule(away) : this.#open());
    }
    if (link.kind === "sse") this.#reconcileStream(link);
    else if (link.ready) this.#reconcileSocket(link);
    if (this.#olds.length && this.#ids().every((id) => this.#link?.asked.get(id)?.standing)) {
      for (const old of this.#olds) old.replaced ??= this.#env.now();
    }
  }

  #reconcileSocket(link) {
    for (const [id, { key }] of link.asked) {
      if (this.#group(id).length) continue;
      if (!this.#spend(link)) return;
      link.asked.delete(id);
      this.#command(link, "unsubscribe", key, () => {});
    }
    for (const id of this.#ids()) {
      const group = this.#group(id);
      const wish = wishOf(group);
      const before = link.asked.get(id);
      const asked = { id, key: group[0].key, text: JSON.stringify(wish), standing: before?.standing ?? false };
      if (before?.text === asked.text) {
        if (before.standing) this.#settled(id, before.rights);
        continue;
      }
      if (this.#notBefore.get(id) > this.#env.now()) continue;
      if (!this.#spend(link)) return;
      link.asked.set(id, asked);
      this.#command(link, "subscribe", { ...asked.key, ...wish }, ({ subscribe, error }) => {
        if (link.asked.get(asked.id) !== asked) {
          // Asked for again, or given up, meanwhile; by a name that has ended, it would go on unseen.
          const unseen = subscribe && !link.asked.has(idOf(subscribe.key));
          if (unseen) this.#command(link, "unsubscribe", subscribe.key, () => {});
          return;
        }
        if (subscribe) this.#stands(link, asked, subscribe.key, subscribe.rights);
        else if (error) this.#refused(link, asked, error);
      });
    }
  }

  /** What a stream watches is in its URL: another set, another stream. The old one goes on until the new one stands. */
  #reconcileStream(link) {
    const ids = this.#ids();
    if (!ids.length) {
      this.#drop();
      return this.#tell("idle");
    }
    const same = ids.length === link.asked.size && ids.every((id) => link.asked.has(id));
    if (same && JSON.stringify(wishOf([...this.#records])) === link.text) {
      for (const [id, asked] of link.asked) if (asked.standing) this.#settled(id, asked.rights);
      return;
    }
    if (this.#reopening) return;
    this.#reopening = true;
    this.#timers.after(Math.max(0, this.#reopenAt - this.#env.now()), async () => {
      const token = await this.#getToken();
      this.#reopening = false;
      const current = this.#link;
      if (current?.kind !== "sse" || this.#state === "closed") return;
      if (token === undefined) {
        this.#reopenAt = this.#env.now() + REOPEN_MS + this.#jitter((this.#reopenings += 1) - 1);
        return this.#soon();
      }
      this.#openStream(token);
    });
  }

  /** A little less than the server allows; the rest waits. */
  #spend(link) {
    const now = this.#env.now();
    link.credit = Math.min(link.rate, link.credit + ((now - link.counted) * link.rate) / 1_000);
    link.counted = now;
    if (link.credit < 1) {
      link.timers.credit?.();
      link.timers.credit = link.timers.after(Math.ceil(((1 - link.credit) * 1_000) / link.rate), () => this.#soon());
      return false;
    }
    link.credit -= 1;
    return true;
  }

  #stands(link, asked, key, rights, recovered) {
    const id = idOf(key);
    if (id !== asked.id) {
      // The server's spelling.
      for (const record of this.#group(asked.id)) Object.assign(record, { id, key });
      link.asked.delete(asked.id);
      link.asked.set(id, asked);
    }
    Object.assign(asked, { id, key, rights, standing: true });
    this.#notBefore.delete(id);
    this.#refusals.delete(id);
    this.#settled(id, rights, recovered);
    this.#soon();
  }

  /** Nothing is told of it for now. What comes after the position at which that began can be replayed, if anything can. */
  #interrupt(record) {
    if (record.current) record.interrupted = this.#pos;
    record.current = false;
  }

  /** It stands; `recovered` has the position from which the server has told everything again. */
  #settled(id, rights, recovered) {
    for (const record of this.#group(id)) {
      record.rights = rights;
      if (record.current) continue;
      record.current = true;
      if (!record.ready) {
        record.ready = true;
        this.#call(record, "onready", { key: record.key, rights });
      } else if (!recovered || recovered.from !== record.interrupted) this.#readAgain(record, "reconnected", [record.key]);
    }
  }

  #refused(link, { id, standing }, error) {
    // A mailbox that was renamed or deleted before it settled: under its new name it may.
    const temporary = error.temporary === true || error.name === "not_subscribed";
    // One that stood before and still may is given up by its name.
    if (temporary || !standing) link.asked.delete(id);
    const why = new MailpushError({ ...error, temporary });
    if (temporary) {
      const refusals = this.#refusals.get(id) ?? 0;
      const delay = Math.min(AWAY_MS, Math.max(error.retry_after_ms ?? 0, this.#jitter(refusals)));
      this.#refusals.set(id, refusals + 1);
      this.#notBefore.set(id, this.#env.now() + delay);
      this.#timers.after(delay, () => {
        this.#notBefore.delete(id);
        this.#soon();
      });
    }
    for (const record of this.#group(id)) {
      this.#interrupt(record);
      if (temporary) this.#call(record, "onerror", why);
      else this.#end(record, "onerror", why);
    }
    this.#soon();
  }

  // Telling the page

  #end(record, name, ...words) {
    if (!this.#records.delete(record)) return;
    record.closed = true;
    if (name) guarded(record.handlers[name], words);
    if (!this.#group(record.id).length) this.#refusals.delete(record.id);
  }

  #call({ handlers, closed }, name, ...words) {
    if (!closed) guarded(handlers[name], words);
  }

  #fault(error, cause) {
    guarded(this.#onerror, [new MailpushError(error, cause)]);
  }

  #tell(state, detail = {}) {
    if (this.#state === state && state !== "connected" && state !== "waiting") return;
    this.#state = state;
    guarded(this.#onstate, [state, detail]);
  }
}

/** Timers that are stopped together, for good. */
class Timers {
  #env;
  #ids = new Set();
  #stopped = false;
  constructor(env) {
    this.#env = env;
  }
  /** Gives what stops it. */
  after(delay, act) {
    if (this.#stopped) return () => {};
    const id = this.#env.setTimeout(() => {
      this.#ids.delete(id);
      act();
    }, delay);
    this.#ids.add(id);
    return () => {
      this.#ids.delete(id);
      this.#env.clearTimeout(id);
    };
  }
  stop() {
    this.#stopped = true;
    for (const id of this.#ids) this.#env.clearTimeout(id);
    this.#ids.clear();
  }
}

/** Reads an event stream (WHATWG HTML 9.2) from texts cut anywhere. Only `data` matters: it has all that the other fields say. */
function eventStream(ondata) {
  let [line, data, afterReturn] = ["", [], false];
  return (text) => {
    if (!text) return;
    const rest = afterReturn && text[0] === "\n" ? text.slice(1) : text;
    afterReturn = text.endsWith("\r");
    const lines = (line + rest).split(/\r\n|\r|\n/);
    line = lines.pop();
    for (const one of lines) {
      if (one === "" && data.length) ondata(data.splice(0).join("\n"));
      const [, value] = /^data(?:: ?(.*))?$/s.exec(one) ?? [];
      if (value !== undefined || one === "data") data.push(value ?? "");
    }
    const held = data.reduce((sum, part) => sum + part.length, line.length);
    if (held > STREAM_CHARACTERS) throw new RangeError("an event of the stream is too long");
  };
}

/** What a stream's answer means if it is none: a goodbye, or one for a subscription. Only a node's own words count. */
async function refusal(response) {
  const kind = response.headers.get("content-type") ?? "";
  if (response.status === 200 && kind.startsWith("text/event-stream")) return undefined;
  const problem = kind.startsWith("application/problem+json") ? await response.json() : null;
  if (!problem) response.body?.cancel().catch(() => {});
  const reason = problem?.detail ?? `the stream was answered with ${response.status}`;
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const lost = { code: 1006, reason, reconnect_after_ms: seconds >= 0 ? seconds * 1_000 : undefined };
  if (!problem) return lost;
  if (response.status === 401) return { code: problem.code === "token_expired" ? 4401 : 4500, reason };
  if (response.status === 403) return { code: 4503, reason };
  if (response.status === 429) return { code: 4504, reason };
  const name = { 400: "bad_request", 404: "not_found" }[response.status];
  return name ? { subscription: { code: response.status, name, message: reason } } : lost;
}

function isFinal(code) {
  return FINAL.includes(code) || (code >= 4500 && code <= 4999);
}

function idOf(key) {
  return key.mailbox === undefined ? `account ${key.account}` : `mailbox ${key.mailbox}`;
}

/** Whose mailbox it is: `#namespace:owner:name`. */
function ownerOf(path) {
  return path.split(":", 2)[1];
}

function isInbox(path) {
  return path.split(":").slice(2).join(":") === "INBOX";
}

/** The key after a move; undefined where it is not touched. INBOX stays where it is (RFC 9051 6.3.6), unless its owner moves. */
function movedKey(key, { type, mailbox, to }) {
  if (type === "AccountRename") return key.account !== undefined && key.account === ownerOf(mailbox) ? { account: to } : undefined;
  return key.mailbox === mailbox && (!isInbox(mailbox) || isInbox(to)) ? { mailbox: to } : undefined;
}

function concerns({ key, wish }, { type, mailbox, to }) {
  const paths = type === "MailboxRename" ? [mailbox, to] : [mailbox];
  if (key.mailbox !== undefined) return paths.includes(key.mailbox) && !OF_ACCOUNTS.includes(type);
  return wish.shared || paths.some((path) => ownerOf(path) === key.account) || (type === "AccountRename" && to === key.account);
}

/** Whether a `resync` of a key is about a subscription: a mailbox alone may stand for a part of an account, and the other way. */
function covers({ id, key, wish }, other) {
  if (idOf(other) === id) return true;
  if (other.mailbox !== undefined) return key.account !== undefined && (wish.shared || ownerOf(other.mailbox) === key.account);
  return key.mailbox !== undefined && ownerOf(key.mailbox) === other.account;
}

/** What several subscriptions want together. `types` left out means all, `fields` none. */
function wishOf(records) {
  const union = (name) => [...new Set(records.flatMap(({ wish }) => wish[name] ?? []))].sort();
  const follow = records.flatMap(({ key }) => FOLLOWED[key.mailbox === undefined ? "account" : "mailbox"]);
  const types = records.every(({ wish }) => wish.types) ? [...new Set([...union("types"), ...follow])].sort() : undefined;
  const fields = union("fields");
  const shared = records.some(({ wish }) => wish.shared) || undefined;
  return { types, fields: fields.length ? fields : undefined, shared };
}

function newRecord(what, handlers) {
  known(what, ["mailbox", "account", "shared", "types", "fields"], "part of a subscription");
  known(handlers, ["onready", "onevent", "onresync", "onrevoked", "onerror"], "callback");
  callbacks(handlers, ["onready", "onevent"]);
  const { mailbox, account, shared, types, fields } = what;
  const name = mailbox ?? account;
  if ((mailbox === undefined) === (account === undefined) || typeof name !== "string" || !name) {
    throw new TypeError("name either a mailbox or an account");
  }
  if (shared !== undefined && (typeof shared !== "boolean" || mailbox !== undefined)) {
    throw new TypeError("shared is true or false, and for accounts only");
  }
  for (const list of [types, fields]) {
    if (list !== undefined && !(Array.isArray(list) && list.length && list.every((word) => typeof word === "string"))) {
      throw new TypeError("types and fields are lists of texts; leave them out for all types, and for no fields");
    }
  }
  const key = mailbox === undefined ? { account } : { mailbox };
  const wish = { types: types && [...types], fields: fields && [...fields], shared: shared || undefined };
  if (JSON.stringify({ ...key, ...wish }).length > COMMAND_CHARACTERS) throw new RangeError("the subscription is too long");
  return { id: idOf(key), key, wish, handlers: { ...handlers }, ready: false, current: false, closed: false };
}

function known(object, names, what) {
  if (object === null || typeof object !== "object") throw new TypeError(`expected an object, of ${names.join(", ")}`);
  const strange = Object.keys(object).find((name) => !names.includes(name));
  if (strange !== undefined) throw new TypeError(`${strange} is no ${what}: there are ${names.join(", ")}`);
}

function callbacks(handlers, needed) {
  for (const [name, handler] of Object.entries(handlers)) {
    if (handler !== undefined && typeof handler !== "function") throw new TypeError(`${name} must be a function`);
  }
  const missing = needed.find((name) => !handlers[name]);
  if (missing) throw new TypeError(`${missing} is needed`);
}

/** Calls the page; what it throws is its own affair, and is reported as such. */
function guarded(act, words) {
  try {
    act?.(...words);
  } catch (error) {
    if (globalThis.reportError) globalThis.reportError(error);
    else console.error(error);
  }
}

function bytes(text) {
  return new TextEncoder().encode(text).length;
}

/** The WebSocket's and the stream's URL, from the node's. */
function endpoints(url, location) {
  const base = new URL(url ?? location?.origin ?? "", location?.href);
  if (!/^(https?|wss?):$/.test(base.protocol)) throw new TypeError("url must begin with https:, or http:");
  const at = (scheme, path) => {
    const end = new URL(path, `${base.origin === "null" ? "" : base.origin}${base.pathname.replace(/\/*$/, "/")}`);
    end.protocol = scheme + (/^(https|wss):$/.test(base.protocol) ? "s:" : ":");
    return end.href;
  };
  return { socket: at("ws", "v1/ws"), stream: at("http", "v1/stream") };
}

/** What of the surroundings is used. Tests bring their own; so may programs in a runtime without a WebSocket. */
function withDefaults(environment = {}) {
  const { navigator, document, location, WebSocket, fetch } = globalThis;
  const window = typeof globalThis.addEventListener === "function" ? globalThis : undefined;
  return {
    WebSocket,
    fetch: fetch && ((...request) => fetch(...request)),
    setTimeout: (act, delay) => setTimeout(act, delay),
    clearTimeout: (id) => clearTimeout(id),
    now: () => performance.now(),
    date: () => Date.now(),
    random: () => Math.random(),
    online: () => navigator?.onLine !== false,
    window,
    document,
    location,
    ...environment,
  };
}
