/**
 * Push for webmail: a client of mailpush for browsers (and Node 22). One file, no dependencies, no
 * build step, nothing global, no eval. How to use it, and what you can rely on, is said in
 * mailpush.d.ts beside it; the protocol in asyncapi.yaml, which every node serves too.
 */

const PROTOCOL = "mailpush.v1";
/**
 * How long a connection may take to open, and to answer `connect`: the server gives up earlier.
 * Milliseconds, like all here.
 */
const OPEN_MS = 15_000;
const CONNECT_MS = 45_000;
const TOKEN_MS = 30_000;
/** Beyond the heartbeat's time: first for a late heartbeat, then for the answer to a ping. */
const GRACE_MS = 3_000;
const PING_MS = 5_000;
const HEARTBEAT_MS = 25_000;
/**
 * A stream does not say how often it beats; longer than any sensible setting, and an idle one still
 * ends in about a minute.
 */
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
/**
 * WebSockets that never opened before a stream is tried; how often a WebSocket is tried while a
 * stream works.
 */
const BLOCKED = 2;
const PROBE_MS = 300_000;
const PROBE_AGAIN_MS = 5_000;
/** How often a page that is offline looks whether it still is, at least. */
const OFFLINE_MS = 60_000;
/** Streams are reopened no more often than this. */
const REOPEN_MS = 2_000;
const SEEN = 1_000;
/** What waits for a page that reads its state; more than that, and it is told to read again. */
const HELD = 1_000;
const SUBSCRIPTIONS = 1_000;
const COMMAND_CHARACTERS = 4_096;
const FRAME_BYTES = 16_384;
/** The smallest limit of frames that a server can have. */
const LEAST_FRAME_BYTES = 1_024;
/**
 * What a stream watches goes into its URL up to this length, which every proxy takes; beyond it,
 * into a form.
 */
const URL_CHARACTERS = 4_096;
/** What is answered, and not by a node, where a URL is too long. */
const URL_REFUSED = [400, 413, 414, 431];
/**
 * What is answered where no form is taken, or none as long as this: by a node, and by what stands
 * before it.
 */
const FORM_REFUSED = { node: [405, 413, 415], proxy: [400, 404, 405, 411, 413, 414, 415, 431, 501] };
const STREAM_CHARACTERS = 1 << 20;
/**
 * Codes below 4000 that the server uses for what will not work the next time either. All from 4500
 * to 4999 are final too.
 */
const FINAL = [1002, 1003, 1007, 1009];
/** Why a token is not valid at this time; another one may be. */
const OUT_OF_TIME = ["token_expired", "token_not_yet_valid"];
const TOKEN_EXPIRED = 4401;
const TOO_MANY_SESSIONS = 4414;
const FRAME_TOO_BIG = 1009;
/**
 * What moves or ends a subscription is told whatever types of events the page asks for: by the
 * server too.
 */
const OWN = { mailbox: ["MailboxRename", "MailboxDelete"], account: ["AccountRename"] };
/** These are of an account, even where a mailbox that is named in them is watched too. */
const OF_ACCOUNTS = ["AccountRename", "MailboxCreate", "MailboxSubscribe", "MailboxUnSubscribe"];

/**
 * Why something was refused. `name` is a stable word such as `not_found`; `code` is like a status
 * of HTTP, or 0.
 */
export class MailpushError extends Error {
  constructor({ code = 0, name = "error", message = "", temporary = false, retry_after_ms }, cause) {
    super(String(message), { cause });
    this.name = String(name);
    this.code = code;
    this.temporary = temporary === true;
    this.retryAfterMs = retry_after_ms;
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
  /**
   * The connection in use, the one that it replaces without a gap, and a WebSocket tried beside a
   * stream.
   */
  #link = null;
  #former = null;
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
  #probeAt = 0;
  #transport;
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
  /** A proxy takes no URL as long as we thought. */
  #sendForms = false;
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
    this.#reconcileSoon();
    return {
      get key() {
        return { ...record.key };
      },
      get rights() {
        return record.rights;
      },
      get closed() {
        return record.closed;
      },
      close: () => {
        this.#end(record);
        this.#reconcileSoon();
      },
    };
  }

  /** Ends everything, for good. */
  close() {
    this.#stop({ code: 1000, reason: "closed by the page" });
  }

  // Connecting and coming back

  async #open() {
    this.#retry?.cancel();
    this.#retry = null;
    if (!this.#records.size) return this.#setState("idle");
    if (!this.#env.online()) return this.#offline();
    const attempt = {};
    this.#attempt = attempt;
    this.#lastAttempt = this.#env.now();
    this.#setState("connecting");
    if (this.#attempt !== attempt) return;
    const token = await this.#getToken();
    if (this.#attempt !== attempt) return;
    this.#attempt = null;
    if (token === undefined) return this.#retryLater({ reason: "no token" });
    const stream = this.#preferStream && this.#env.now() - this.#socketTried < PROBE_MS;
    if (stream || !this.#env.WebSocket) this.#openStream(token);
    else this.#openSocket(token);
  }

  /**
   * The token at hand as long as it is good, or a new one; undefined if there is none, which is
   * told.
   */
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
      this.#reportError({ name: "token", message: `no token: ${cause?.message ?? cause}`, temporary: true }, cause);
      return undefined;
    } finally {
      cancel();
    }
  }

  #jitter(attempts) {
    return this.#env.random() * Math.min(this.#backoff.maxMs, this.#backoff.baseMs * 2 ** Math.min(attempts, 30));
  }

  /** Waits for the next attempt: as long as the server said, or as chance has it. */
  #retryLater(detail, after, jitter = this.#jitter(this.#attempts)) {
    const delay = after === undefined ? jitter : this.#attempts ? Math.max(after, jitter) : after;
    this.#attempts += 1;
    this.#stayAway = this.#env.now() + (after ?? 0);
    if (!this.#records.size) return this.#setState("idle");
    if (!this.#env.online()) return this.#offline(detail);
    this.#schedule(delay);
    this.#setState("waiting", { ...detail, retryInMs: Math.round(delay) });
  }

  #schedule(delay) {
    this.#retry?.cancel();
    this.#retry = { due: this.#env.now() + delay, cancel: this.#timers.after(delay, () => this.#open()) };
  }

  /**
   * Waits for the browser to say that it is online again, and looks now and then: a page that was
   * frozen is not told.
   */
  #offline(detail) {
    this.#schedule(Math.max(this.#stayAway - this.#env.now(), (OFFLINE_MS * (1 + this.#env.random())) / 2));
    this.#setState("offline", detail);
  }

  /** The page is seen again, or back online: tries soon, unless the server wants it away. */
  #retrySoon() {
    const now = this.#env.now();
    const due = Math.max(this.#stayAway, this.#lastAttempt + SOON_MS, now + this.#env.random() * SOON_MS);
    if (this.#retry && due < this.#retry.due) this.#schedule(due - now);
  }

  #listen() {
    const { window, document } = this.#env;
    const online = () => (this.#link ? this.#check(this.#link) : this.#retrySoon());
    const offline = () => {
      if (this.#link) return this.#check(this.#link);
      if (this.#retry) this.#offline();
    };
    // A hidden page's timers are slow: when it is seen again, what they would have found is looked
    // for at once.
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

  /**
   * A connection, not open yet. `asked` has what was asked for on it, by name, and whether it
   * stands.
   */
  #newLink(kind, shut) {
    const now = this.#env.now();
    const timers = new Timers(this.#env);
    const heartbeat = this.#heartbeat ?? (kind === "sse" ? STREAM_HEARTBEAT_MS : HEARTBEAT_MS);
    const states = { ready: false, over: false, since: now, heard: now, signs: 0, refusals: 0 };
    return { kind, shut, timers, heartbeat, ...states, asked: new Map() };
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
    // A stream that takes over from another is no return.
    const again = this.#state === "connected" && this.#transport === link.kind;
    this.#transport = link.kind;
    if (!again) this.#setState("connected", { transport: link.kind, ...detail });
    this.#watch(link);
  }

  /** A connection is gone. `goodbye` has the words of a `disconnect` or of a close frame. */
  #connectionLost(link, goodbye) {
    if (link.over) return;
    this.#dispose(link);
    const { code, reason } = goodbye;
    // Another node may take shorter frames than the last one did: not all that this client had fits
    // into the first then.
    const shrinks = code === FRAME_TOO_BIG && !link.ready && this.#frameBytes > LEAST_FRAME_BYTES;
    if (shrinks) this.#frameBytes = LEAST_FRAME_BYTES;
    const final = !shrinks && (isFinal(code) || goodbye.reconnect === false);
    let after = goodbye.reconnect_after_ms >= 0 ? Math.min(goodbye.reconnect_after_ms, AWAY_MS) : undefined;
    let found = false;
    if (link.kind === "websocket" && !link.ready && !(code >= 4000)) {
      this.#socketFailures += 1;
      this.#preferStream = this.#socketFailures >= BLOCKED && this.#env.fetch !== undefined;
      // Found out just now: the other way is tried at once. These moments are spread already.
      found = this.#preferStream && this.#socketFailures === BLOCKED;
    } else if (link.kind === "sse" && !link.ready && this.#env.WebSocket) {
      // A stream does not work either, so it is not that WebSockets are blocked.
      this.#preferStream = false;
    }
    // A stream that is replaced had the former token.
    if (code === TOKEN_EXPIRED && link !== this.#former) this.#token = null;
    if (link === this.#probing) {
      this.#probing = null;
      return this.#probeLater();
    }
    if (link === this.#former) {
      this.#former = null;
      if (final) return this.#stop({ code, reason }, true);
      // It may have been silent for long: whether it told everything until it was replaced is not
      // known.
      for (const record of this.#records) if (link.asked.get(record.id)?.standing) this.#interrupt(record);
      for (const [id, asked] of this.#link.asked) if (asked.standing) this.#settled(id, asked.rights);
      return;
    }
    // A stream that should replace another may find that the other has the user's last place, which
    // is free in a moment.
    const needsPlace = code === TOO_MANY_SESSIONS && link.kind === "sse" && this.#former !== null;
    if (needsPlace) after = undefined;
    if (!link.ready && this.#former && !needsPlace) {
      // The one that it should have replaced goes on.
      this.#link = this.#former;
      this.#former = null;
      this.#link.replaced = undefined;
      this.#reopenAt = this.#env.now() + REOPEN_MS + this.#jitter((this.#reopenings += 1) - 1);
      if (this.#link.kind === "sse") this.#preferStream = true;
      if (link.kind === "websocket") this.#probeLater();
      return this.#reconcileSoon();
    }
    if (final && (link.ready || !this.#former)) return this.#stop({ code, reason }, true);
    const served = this.#former ?? link;
    this.#drop();
    if (served.ready && this.#env.now() - served.since >= GOOD_MS) this.#attempts = 0;
    this.#retryLater({ code, reason }, after, found ? 0 : undefined);
  }

  /** Lets go of every connection. */
  #drop() {
    for (const link of [this.#link, this.#former, this.#probing]) this.#dispose(link);
    this.#link = this.#former = this.#probing = this.#attempt = null;
    for (const record of this.#records) this.#interrupt(record);
  }

  /** The end of this client; where the server wants it, each subscription is told. */
  #stop(detail, told = false) {
    if (this.#state === "closed") return;
    this.#drop();
    this.#timers.stop();
    this.#unlisten();
    this.#state = "closed";
    this.#token = null;
    const why = new MailpushError({ name: "closed", code: detail.code, message: detail.reason });
    for (const record of [...this.#records]) this.#end(record, told && "onerror", why);
    guarded(this.#onstate, [this.#state, detail]);
  }

  // Whether the server is there

  #watch(link) {
    const quiet = this.#env.now() - link.heard;
    const patience = link.heartbeat + GRACE_MS;
    link.timers.cancel?.();
    const wake = () => (this.#env.now() - link.heard < patience ? this.#watch(link) : this.#check(link));
    link.timers.cancel = link.timers.after(Math.max(0, patience - quiet), wake);
  }

  #noteSignOfLife(link) {
    link.heard = this.#env.now();
    link.signs += 1;
    // What comes this long after the new one stood was sent after it: the old one has told
    // everything until then.
    if (link === this.#former && link.heard - link.replaced >= GRACE_MS) {
      this.#former = null;
      this.#dispose(link);
      this.#reconcileSoon();
    }
  }

  /**
   * Another connection takes over. The one that stands goes on until there can be no gap between
   * the two.
   */
  #replace(link) {
    const former = this.#link;
    this.#link = link;
    if (!former?.ready) return this.#dispose(former);
    // One at a time: a browser has few connections to an origin.
    if (this.#former) this.#connectionLost(this.#former, { code: 1006, reason: "too many streams" });
    this.#former = former;
  }

  /**
   * Asks for a sign of life. A stream cannot be asked: if it is late, what is on its way is given
   * time to come.
   */
  #check(link) {
    if (!link.ready || link.checking) return;
    if (link.kind === "sse" && this.#env.now() - link.heard < link.heartbeat + GRACE_MS) return;
    link.checking = true;
    const { signs } = link;
    if (link.kind === "websocket") this.#command(link, "ping", {}, () => {});
    link.timers.after(PING_MS, () => {
      link.checking = false;
      if (link.signs !== signs) return this.#watch(link);
      this.#connectionLost(link, { code: 1006, reason: "the server is silent" });
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
    Object.assign(link, { pending: new Map(), id: 0, until: 0, rate: 1, credit: 1, counted: 0 });
    link.send = (frame) => socket.send(JSON.stringify(frame));
    this.#socketTried = this.#env.now();
    this.#probeAt = this.#socketTried + PROBE_MS * (0.75 + this.#env.random() / 2);
    if (probe) this.#probing = link;
    else this.#link = link;
    const late = link.timers.after(OPEN_MS, () => this.#connectionLost(link, { code: 1006, reason: "the WebSocket does not open" }));
    try {
      socket = new this.#env.WebSocket(this.#urls.socket, PROTOCOL);
    } catch (error) {
      return this.#connectionLost(link, { code: 1006, reason: String(error) });
    }
    socket.onopen = () => {
      late();
      if (link === this.#probing) {
        this.#replace(link);
        this.#probing = null;
      }
      link.timers.after(CONNECT_MS, () => link.ready || this.#connectionLost(link, { code: 1006, reason: "no answer to connect" }));
      this.#connect(link, token, true);
    };
    socket.onmessage = ({ data }) => this.#receive(link, data);
    // Some runtimes tell of a WebSocket that does not open by an error alone.
    socket.onerror = () => socket.readyState === 0 && this.#connectionLost(link, { code: 1006, reason: "the WebSocket does not open" });
    socket.onclose = ({ code, reason }) => this.#connectionLost(link, { code, reason });
  }

  /**
   * Tries a WebSocket beside a stream that works, now and then, however often the stream is
   * another.
   */
  #probeLater() {
    if (!this.#env.WebSocket || this.#link?.kind !== "sse") return;
    const link = this.#link;
    link.timers.probe?.();
    const delay = Math.max(PROBE_AGAIN_MS, this.#probeAt - this.#env.now());
    link.timers.probe = link.timers.after(delay, async () => {
      if (this.#former || this.#probing) return this.#probeLater();
      const token = await this.#getToken();
      if (link.over || link !== this.#link || this.#former || this.#probing) return this.#probeLater();
      if (token !== undefined) return this.#openSocket(token, true);
      this.#probeAt = this.#env.now() + PROBE_MS;
      this.#probeLater();
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
        if (resume && !error.temporary && (error.code === 400 || error.code === 429)) {
          link.asked.clear();
          return this.#connect(link, token, false);
        }
        // A disconnect follows, and says what to do: with another token than an expired one it is
        // back by itself.
        return this.#reportError({ ...error, temporary: error.temporary || OUT_OF_TIME.includes(error.name) });
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
      // Later servers may say where their telling begins: where nothing is told again, what was
      // before has been read by now.
      if (typeof connect.pos === "string" && !connect.resumed?.some(({ recovered }) => recovered)) this.#pos = connect.pos;
      this.#isReady(link, { session, node, user });
      for (const { key, recovered, rights, error: refusal } of connect.resumed ?? []) {
        const asked = link.asked.get(idOf(key));
        if (!asked) continue;
        if (refusal) this.#refused(link, asked, refusal);
        else this.#subscriptionStands(link, asked, key, rights, recovered === true ? { from: resume.pos } : undefined);
      }
      for (const [id, asked] of link.asked) if (!asked.standing) link.asked.delete(id);
      this.#reconcileSoon();
    });
  }

  /**
   * A newer token: in-band, or with a stream that replaces this one. Not at once, for all clients
   * of a node may be told at once, and a token that lives for less than the server's notice would
   * be asked for without pause. A server that was given the same one again tells at once again: the
   * backoff is for that.
   */
  #refresh(link, within) {
    if (link.refreshing) return;
    link.refreshing = true;
    const again = (error) => {
      // Nobody accepted it, so nobody else shall be shown it.
      if (error && !error.temporary) this.#token = null;
      if (error) this.#reportError(error);
      link.refreshing = false;
      link.refusals += 1;
      this.#refresh(link, within);
    };
    const soon = (this.#env.random() * Math.min(Math.max(within, 0), AWAY_MS)) / 2;
    link.timers.after(link.refusals ? SOON_MS + this.#jitter(link.refusals - 1) : soon, async () => {
      // Replaced by a stream that has a newer one: looked at again should that fail.
      if (link.kind === "sse" && link !== this.#link) return again();
      const token = await this.#getToken(true);
      if (link.over) return;
      if (token === undefined) return again();
      if (link.kind === "sse") {
        if (link === this.#link) this.#openStream(token);
        return again();
      }
      this.#command(link, "refresh", { token }, ({ refresh, error }) => {
        if (!refresh) return again(error);
        link.refreshing = false;
        link.refusals = refresh.token_expires_at > link.until ? 0 : link.refusals + 1;
        link.until = this.#tokenUntil = refresh.token_expires_at;
      });
    });
  }

  // The stream

  /** What is watched goes into the URL, or into a form where it would be too long for one. */
  async #streamResponse(entries, wish, token, signal) {
    const form = new URLSearchParams();
    for (const { key } of entries) for (const [name, value] of Object.entries(key)) form.append(name, value);
    for (const name of ["types", "fields"]) if (wish[name]) form.set(name, wish[name].join());
    if (wish.shared) form.set("shared", "true");
    const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
    if (this.#pos !== undefined) headers["last-event-id"] = this.#pos;
    const request = { headers, signal, cache: "no-store" };
    const href = `${this.#urls.stream}?${form}`;
    const byUrl = async () => {
      const response = await this.#env.fetch(href, request);
      return [response, !isProblem(response) && URL_REFUSED.includes(response.status)];
    };
    const byForm = async () => {
      const response = await this.#env.fetch(this.#urls.stream, { ...request, method: "POST", body: form });
      return [response, FORM_REFUSED[isProblem(response) ? "node" : "proxy"].includes(response.status)];
    };
    const formFirst = this.#sendForms || href.length > URL_CHARACTERS;
    const [first, second] = formFirst ? [byForm, byUrl] : [byUrl, byForm];
    const [response, refused] = await first();
    if (!refused) return response;
    response.body?.cancel().catch(() => {});
    const [other, otherRefused] = await second();
    // A proxy's limit that was not known; where neither goes, it is looked at anew the next time.
    this.#sendForms = !formFirst && !otherRefused;
    if (otherRefused) {
      const message = `what is watched fits neither into a URL nor into a form: answered with ${response.status} and ${other.status}`;
      this.#reportError({ code: other.status, name: "stream_too_long", message, temporary: true });
    }
    return other;
  }

  async #openStream(token) {
    const ids = this.#ids();
    if (!ids.length) return this.#setState("idle");
    const abort = new AbortController();
    const link = this.#newLink("sse", () => abort.abort());
    const wish = wishOf([...this.#records]);
    link.text = JSON.stringify(wish);
    link.entries = ids.map((id) => ({ id, key: this.#group(id)[0].key, text: link.text, standing: false }));
    link.entries.forEach((entry) => link.asked.set(entry.id, entry));
    this.#replace(link);
    this.#reopenAt = this.#env.now() + REOPEN_MS;
    const late = link.timers.after(OPEN_MS, () => this.#connectionLost(link, { code: 1006, reason: "the stream does not open" }));
    try {
      const response = await this.#streamResponse(link.entries, wish, token, abort.signal);
      if (link.over) return;
      const goodbye = await refusal(response);
      if (link.over) return;
      late();
      if (goodbye?.subscription) this.#refuseAll(goodbye.subscription);
      if (goodbye) return this.#connectionLost(link, goodbye);
      link.heard = this.#env.now();
      this.#isReady(link, {});
      this.#probeLater();
      const decoder = new TextDecoder();
      const feed = eventStream((data) => this.#receive(link, data));
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (link.over) return;
        if (done) break;
        this.#noteSignOfLife(link);
        feed(decoder.decode(value, { stream: true }));
      }
      this.#connectionLost(link, { code: 1006, reason: "the stream ended" });
    } catch (error) {
      this.#connectionLost(link, { code: 1006, reason: String(error) });
    }
  }

  /**
   * A stream is refused as a whole where nothing can be watched, or the wish is wrong: what stands
   * already is not to blame.
   */
  #refuseAll(error) {
    const stood = (record) => {
      const asked = this.#former?.asked.get(record.id);
      return asked?.standing && within(record.wish, asked.stood);
    };
    const blamed = [...this.#records].filter((record) => !stood(record));
    // A wish is wrong by what it names; those without are tried by themselves first.
    const naming = blamed.filter(({ wish }) => error.code === 400 && (wish.types || wish.fields));
    for (const record of naming.length ? naming : blamed) this.#end(record, "onerror", new MailpushError(error));
  }

  // What the server says

  #receive(link, text) {
    if (link.over) return;
    this.#noteSignOfLife(link);
    try {
      this.#handleFrame(link, JSON.parse(text));
    } catch (error) {
      this.#connectionLost(link, { code: 1006, reason: `not a frame of mailpush: ${error.message}` });
    }
  }

  #handleFrame(link, frame) {
    if (link.kind === "websocket" && frame.id !== undefined) {
      const onreply = link.pending.get(frame.id);
      link.pending.delete(frame.id);
      onreply?.(frame);
    } else if (frame.event) this.#event(link, frame.event);
    else if (frame.resync) this.#resync(frame.resync);
    else if (frame.revoked) this.#revoked(frame.revoked.key);
    else if (frame.expiring) this.#refresh(link, frame.expiring.in_ms ?? 0);
    else if (frame.disconnect) this.#connectionLost(link, frame.disconnect);
    else if (frame.subscribe || frame.error) this.#answered(link, frame);
    else if (link.kind === "websocket" && !Object.keys(frame).length) link.send({});
  }

  /** A stream answers by places in its URL. */
  #answered(link, { id, subscribe, error }) {
    const asked = link.entries?.[id];
    if (!asked || link.asked.get(asked.id) !== asked) return void (error && !link.entries && this.#reportError(error));
    if (subscribe) this.#subscriptionStands(link, asked, subscribe.key, subscribe.rights);
    else this.#refused(link, asked, error);
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
      const kind = kindOf(record.key);
      const { types } = record.wish;
      // A mailbox that is gone has no state to wait for.
      if (event.type === "MailboxDelete" && kind === "mailbox") this.#end(record, "onevent", event);
      else if (!types || [...types, "MailboxChange", ...OWN[kind]].includes(event.type)) this.#call(record, "onevent", event);
    }
    if (event.type === "MailboxDelete" || moves) this.#reconcileSoon();
  }

  /**
   * Moves what stands under the old name, as the server does; it tells of each mailbox below a
   * renamed one by itself.
   */
  #moved(event) {
    for (const record of this.#records) {
      const [from, key] = [record.id, movedKey(record.key, event)];
      if (!key) continue;
      record.key = key;
      record.id = idOf(key);
      for (const link of [this.#link, this.#former]) {
        const entry = link?.asked.get(from);
        if (!entry) continue;
        link.asked.delete(from);
        if (!link.asked.has(record.id)) link.asked.set(record.id, Object.assign(entry, { id: record.id, key }));
      }
    }
  }

  #resync({ keys, reason }) {
    for (const record of [...this.#records]) {
      const mine = record.ready ? keys.filter((key) => covers(record, key)) : [];
      if (mine.length) this.#askToReadAgain(record, reason, mine);
    }
  }

  #askToReadAgain(record, reason, keys) {
    if (record.handlers.onresync) this.#call(record, "onresync", reason, keys);
    else this.#call(record, "onready", { key: record.key, rights: record.rights });
  }

  #revoked(key) {
    const id = idOf(key);
    for (const link of [this.#link, this.#former]) link?.asked.delete(id);
    for (const record of [...this.#records]) {
      if (record.id === id) this.#end(record, "onrevoked", key);
      else if (record.wish.shared && record.ready && key.mailbox !== undefined) this.#call(record, "onrevoked", key);
    }
    this.#reconcileSoon();
  }

  // What is asked for, and what stands

  #group(id) {
    return [...this.#records].filter((record) => record.id === id);
  }

  #ids() {
    return [...new Set([...this.#records].map((record) => record.id))];
  }

  #reconcileSoon() {
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
    const stands = (id) => !this.#group(id).length || this.#link.asked.get(id)?.standing;
    if (this.#former && [...this.#former.asked].every(([id, { standing }]) => !standing || stands(id))) {
      this.#former.replaced ??= this.#env.now();
    }
  }

  #reconcileSocket(link) {
    for (const [id, { key, standing }] of link.asked) {
      // What is not answered yet may be another spelling of what others want.
      if (!standing || this.#group(id).length) continue;
      if (!this.#takeCredit(link)) return;
      link.asked.delete(id);
      this.#command(link, "unsubscribe", key, () => {});
    }
    for (const id of this.#ids()) {
      const group = this.#group(id);
      // Closed by a callback, meanwhile.
      if (!group.length) continue;
      const wish = wishOf(group);
      const before = link.asked.get(id);
      const { standing = false, stood } = before ?? {};
      const asked = { id, key: group[0].key, text: JSON.stringify(wish), standing, stood };
      if (before?.text === asked.text) {
        if (before.standing) this.#settled(id, before.rights);
        continue;
      }
      if (this.#notBefore.get(id) > this.#env.now()) continue;
      if (!this.#takeCredit(link)) return;
      link.asked.set(id, asked);
      this.#command(link, "subscribe", { ...asked.key, ...wish }, ({ subscribe, error }) => {
        if (link.asked.get(asked.id) !== asked) {
          // Asked for again, or given up, meanwhile; by a name that has ended, it would go on
          // unseen.
          const unseen = subscribe && !link.asked.has(idOf(subscribe.key));
          if (unseen) this.#command(link, "unsubscribe", subscribe.key, () => {});
          return;
        }
        if (subscribe) this.#subscriptionStands(link, asked, subscribe.key, subscribe.rights);
        else if (error) this.#refused(link, asked, error);
      });
    }
  }

  /**
   * What a stream watches is in its URL: another set, another stream. The old one goes on until the
   * new one stands.
   */
  #reconcileStream(link) {
    const ids = this.#ids();
    if (!ids.length) {
      this.#drop();
      return this.#setState("idle");
    }
    // What was refused for now can wait until the former stream has told everything.
    const handing = this.#former?.replaced !== undefined;
    const due = (id) => !(this.#notBefore.get(id) > this.#env.now()) && !(handing && this.#refusals.has(id));
    const there = ids.every((id) => link.asked.has(id) || !due(id));
    const wanted = [...link.asked.keys()].every((id) => this.#group(id).length);
    if (there && wanted && JSON.stringify(wishOf([...this.#records])) === link.text) {
      for (const [id, asked] of link.asked) if (asked.standing) this.#settled(id, asked.rights);
      return;
    }
    if (this.#reopening) return;
    this.#reopening = true;
    this.#timers.after(Math.max(0, this.#reopenAt - this.#env.now()), async () => {
      // Another one may have been opened meanwhile.
      const token = this.#reopenAt > this.#env.now() ? null : await this.#getToken();
      this.#reopening = false;
      if (this.#state === "closed") return;
      if (token === undefined) this.#reopenAt = this.#env.now() + REOPEN_MS + this.#jitter((this.#reopenings += 1) - 1);
      if (token && link === this.#link) this.#openStream(token);
      else this.#reconcileSoon();
    });
  }

  /** A little less than the server allows; the rest waits. */
  #takeCredit(link) {
    const now = this.#env.now();
    link.credit = Math.min(link.rate, link.credit + ((now - link.counted) * link.rate) / 1_000);
    link.counted = now;
    if (link.credit < 1) {
      link.timers.credit?.();
      link.timers.credit = link.timers.after(Math.ceil(((1 - link.credit) * 1_000) / link.rate), () => this.#reconcileSoon());
      return false;
    }
    link.credit -= 1;
    return true;
  }

  #subscriptionStands(link, asked, key, rights, recovered) {
    const id = idOf(key);
    let other;
    if (id !== asked.id) {
      // The server's spelling.
      for (const record of this.#group(asked.id)) Object.assign(record, { id, key });
      link.asked.delete(asked.id);
      other = link.asked.get(id);
      link.asked.set(id, asked);
      if (other && other.text !== asked.text) {
        // One of the two wishes has displaced the other: nothing is sure until both are asked for
        // in one.
        asked.text = undefined;
        for (const record of this.#group(id)) this.#interrupt(record);
      }
    }
    Object.assign(asked, { id, key, rights, standing: true, stood: asked.text ?? other?.stood });
    this.#notBefore.delete(id);
    this.#refusals.delete(id);
    if (asked.text !== undefined) this.#settled(id, rights, recovered);
    this.#reconcileSoon();
  }

  /**
   * Nothing is told of it for now. What comes after the position at which that began can be
   * replayed, if anything can.
   */
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
      } else if (!recovered || recovered.from !== record.interrupted) this.#askToReadAgain(record, "reconnected", [record.key]);
    }
  }

  #refused(link, asked, error) {
    const { id, standing, stood } = asked;
    const group = this.#group(id);
    // A wrong wish ends those that have it; the others go on as before.
    const wrong = standing && error.code === 400 ? group.filter(({ wish }) => !within(wish, stood)) : [];
    if (wrong.length && wrong.length < group.length) {
      link.asked.set(id, { ...asked, text: stood });
      for (const record of wrong) this.#end(record, "onerror", new MailpushError(error));
      return this.#reconcileSoon();
    }
    // A mailbox that was renamed or deleted before it settled: under its new name it may.
    const temporary = error.temporary === true || error.name === "not_subscribed";
    // One that stood before and still may is given up by its name.
    if (temporary || !standing || link.kind === "sse") link.asked.delete(id);
    const why = new MailpushError({ ...error, temporary });
    if (temporary) {
      const refusals = this.#refusals.get(id) ?? 0;
      const delay = Math.min(AWAY_MS, Math.max(error.retry_after_ms ?? 0, this.#jitter(refusals)));
      this.#refusals.set(id, refusals + 1);
      this.#notBefore.set(id, this.#env.now() + delay);
      this.#timers.after(delay, () => {
        this.#notBefore.delete(id);
        this.#reconcileSoon();
      });
    }
    for (const record of group) {
      this.#interrupt(record);
      if (temporary) this.#call(record, "onerror", why);
      else this.#end(record, "onerror", why);
    }
    this.#reconcileSoon();
  }

  // Telling the page

  #end(record, name, ...words) {
    if (!this.#records.delete(record)) return;
    record.closed = true;
    record.held = undefined;
    if (name) guarded(record.handlers[name], words);
    if (!this.#group(record.id).length) this.#refusals.delete(record.id);
  }

  /**
   * Calls the page, or later: while it reads its state, what it is told of changes would be
   * overwritten.
   */
  #call(record, name, ...words) {
    if (record.closed) return;
    if (record.held?.length >= HELD) {
      record.held = [];
      this.#askToReadAgain(record, "overflow", [record.key]);
    } else if (record.held) record.held.push([name, words]);
    else {
      const reading = guarded(record.handlers[name], words);
      if (record.closed || !["onready", "onresync"].includes(name) || typeof reading?.then !== "function") return;
      record.held = [];
      Promise.resolve(reading).catch(report).then(() => this.#release(record));
    }
  }

  #release(record) {
    const held = record.held ?? [];
    record.held = undefined;
    while (held.length && !record.held) {
      const [name, words] = held.shift();
      this.#call(record, name, ...words);
    }
    if (record.held) record.held = held;
  }

  #reportError(error, cause) {
    if (this.#state !== "closed") guarded(this.#onerror, [new MailpushError(error, cause)]);
  }

  #setState(state, detail = {}) {
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

/**
 * Reads an event stream (WHATWG HTML 9.2) from texts cut anywhere. Only `data` matters: it has all
 * that the other fields say.
 */
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

function kindOfBody(response) {
  return response.headers.get("content-type") ?? "";
}

/** Whether a node says why, and not a proxy. */
function isProblem(response) {
  return kindOfBody(response).startsWith("application/problem+json");
}

/**
 * What a stream's answer means if it is none: a goodbye, or one for a subscription. Only a node's
 * own words count.
 */
async function refusal(response) {
  if (response.status === 200 && kindOfBody(response).startsWith("text/event-stream")) return undefined;
  const problem = isProblem(response) ? await response.json() : null;
  if (!problem) response.body?.cancel().catch(() => {});
  const reason = problem?.detail ?? `the stream was answered with ${response.status}`;
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const lost = { code: 1006, reason, reconnect_after_ms: seconds >= 0 ? seconds * 1_000 : undefined };
  if (!problem) return lost;
  if (response.status === 401) return { code: OUT_OF_TIME.includes(problem.code) ? TOKEN_EXPIRED : 4500, reason };
  if (response.status === 403) return { code: 4503, reason };
  if (response.status === 429) return { ...lost, code: TOO_MANY_SESSIONS };
  const name = { 400: "bad_request", 404: "not_found" }[response.status];
  return name ? { subscription: { code: response.status, name, message: reason } } : lost;
}

function isFinal(code) {
  return FINAL.includes(code) || (code >= 4500 && code <= 4999);
}

function idOf(key) {
  return `${kindOf(key)} ${key[kindOf(key)]}`;
}

function kindOf(key) {
  return key.mailbox === undefined ? "account" : "mailbox";
}

/** Whose mailbox it is: `#namespace:owner:name`. */
function ownerOf(path) {
  return path.split(":", 2)[1];
}

function isInbox(path) {
  return path.split(":").slice(2).join(":") === "INBOX";
}

/**
 * The key after a move; undefined where it is not touched. INBOX stays where it is (RFC 9051
 * 6.3.6), unless its owner moves.
 */
function movedKey(key, { type, mailbox, to }) {
  if (type === "AccountRename") return key.account !== undefined && key.account === ownerOf(mailbox) ? { account: to } : undefined;
  return key.mailbox === mailbox && (!isInbox(mailbox) || isInbox(to)) ? { mailbox: to } : undefined;
}

function concerns({ key, wish }, { type, mailbox, to }) {
  const paths = type === "MailboxRename" ? [mailbox, to] : [mailbox];
  if (key.mailbox !== undefined) return paths.includes(key.mailbox) && !OF_ACCOUNTS.includes(type);
  return wish.shared || paths.some((path) => ownerOf(path) === key.account) || (type === "AccountRename" && to === key.account);
}

/**
 * Whether a `resync` of a key is about a subscription: a mailbox alone may stand for a part of an
 * account, and the other way.
 */
function covers({ id, key, wish }, other) {
  if (idOf(other) === id) return true;
  if (other.mailbox !== undefined) return key.account !== undefined && (wish.shared || ownerOf(other.mailbox) === key.account);
  return key.mailbox !== undefined && ownerOf(key.mailbox) === other.account;
}

/** What several subscriptions want together. `types` left out means all, `fields` none. */
function wishOf(records) {
  const union = (name) => [...new Set(records.flatMap(({ wish }) => wish[name] ?? []))].sort();
  const types = records.every(({ wish }) => wish.types) ? union("types") : undefined;
  const fields = union("fields");
  const shared = records.some(({ wish }) => wish.shared) || undefined;
  return { types, fields: fields.length ? fields : undefined, shared };
}

/** Whether a wish is a part of one that the server has taken. */
function within(wish, text) {
  if (text === undefined) return false;
  const { types, fields = [], shared } = JSON.parse(text);
  if (wish.shared && !shared) return false;
  if (types && !wish.types?.every((type) => types.includes(type))) return false;
  return (wish.fields ?? []).every((field) => fields.includes(field));
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
  return { id: idOf(key), key, wish, handlers: { ...handlers }, ready: false, current: false, closed: false, held: undefined };
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

/**
 * Calls the page; what it throws is its own affair, and is reported as such. Gives what it gives.
 */
function guarded(act, words) {
  try {
    return act?.(...words);
  } catch (error) {
    return report(error);
  }
}

function report(error) {
  if (globalThis.reportError) globalThis.reportError(error);
  else console.error(error);
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

/**
 * What of the surroundings is used. Tests bring their own; so may programs in a runtime without a
 * WebSocket.
 */
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
