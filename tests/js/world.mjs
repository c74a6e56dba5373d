// A world for clients under test: a clock that stands still until it is told to go, chance from a seed, WebSockets and streams
// whose other end is the test.

import { Mailpush } from "../../static/mailpush.js";

/** Lets everything happen that waits for no clock. */
export async function settle() {
  for (let i = 0; i < 4; i += 1) await new Promise(setImmediate);
}

/** mulberry32: the same numbers every time. */
function chance(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

class FakeSocket {
  sent = [];
  /** Whether this end has closed it. */
  closed = false;
  constructor(world, url, protocol) {
    Object.assign(this, { world, url, protocol, at: world.time });
    world.sockets.push(this);
    world.onsocket(this);
  }
  send(text) {
    const frame = JSON.parse(text);
    this.sent.push(frame);
    this.world.onframe(this, frame);
  }
  close(code) {
    this.closed = true;
    this.closedWith = code;
  }
  // The server's side.
  open() {
    this.onopen?.({});
  }
  say(frame) {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }
  end(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
  /** The commands of a name, as bodies. */
  commands(name) {
    return this.sent.filter((frame) => frame[name] !== undefined).map((frame) => frame[name]);
  }
}

class FakeStream {
  constructor(world, href, { headers, signal, method = "GET", body }) {
    const url = new URL(href);
    Object.assign(this, { world, url, method, headers, at: world.time, aborted: false });
    this.parameters = method === "POST" ? body : url.searchParams;
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
      signal.addEventListener("abort", () => {
        this.aborted = true;
        reject(new Error("aborted"));
        this.controller?.error(new Error("aborted"));
      });
    });
    world.streams.push(this);
    world.onstream(this);
  }
  keys() {
    return [...this.parameters].filter(([name]) => name === "mailbox" || name === "account");
  }
  open() {
    const body = new ReadableStream({ start: (controller) => (this.controller = controller) });
    this.resolve(new Response(body, { status: 200, headers: { "content-type": "text/event-stream" } }));
  }
  refuse(status, problem, headers = {}) {
    const kind = problem ? "application/problem+json" : "text/html";
    this.resolve(new Response(JSON.stringify(problem ?? {}), { status, headers: { "content-type": kind, ...headers } }));
  }
  fail() {
    this.reject(new TypeError("fetch failed"));
  }
  raw(bytes) {
    if (!this.aborted) this.controller.enqueue(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
  }
  say(frame) {
    this.raw(`event: ${Object.keys(frame).at(-1)}\ndata: ${JSON.stringify(frame)}\n\n`);
  }
  /** Every mailbox and account of the URL stands, but those for which there is an error. */
  stand(errors = {}, spell = (path) => path) {
    this.keys().forEach(([name, value], id) => {
      if (errors[value]) this.say({ id, error: errors[value] });
      else this.say({ id, subscribe: { key: { [name]: spell(value) }, rights: "lr" } });
    });
  }
  end() {
    this.controller.close();
  }
}

export class World {
  time = 0;
  /** What the wall's clock shows at time 0. */
  epoch = 1_795_467_000_000;
  sockets = [];
  streams = [];
  isOnline = true;
  tokens = 0;
  #timers = new Map();
  #next = 1;

  constructor({ seed = 1, sockets = true, streams = true } = {}) {
    const world = this;
    this.random = chance(seed);
    this.window = new EventTarget();
    this.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    this.environment = {
      WebSocket: sockets
        ? function (url, protocol) {
            return new FakeSocket(world, url, protocol);
          }
        : undefined,
      fetch: streams ? (href, options) => new FakeStream(world, href, options).answer : undefined,
      setTimeout: (act, delay) => {
        this.#timers.set(this.#next, { due: this.time + Math.max(0, delay), act });
        return this.#next++;
      },
      clearTimeout: (id) => this.#timers.delete(id),
      now: () => this.time,
      date: () => this.epoch + this.time,
      random: () => this.random(),
      online: () => this.isOnline,
      window: this.window,
      document: this.document,
      location: undefined,
    };
  }

  /** What the server does by itself; a test may put something else in place. */
  onsocket(socket) {
    queueMicrotask(() => socket.open());
  }
  onframe(socket, frame) {
    const [name] = Object.keys(frame).filter((key) => key !== "id");
    this[`on_${name}`]?.(socket, frame.id, frame[name]);
  }
  on_connect(socket, id, { resume }) {
    const resumed = resume?.subscriptions.map(({ mailbox, account }) => ({ key: { mailbox, account }, recovered: true, rights: "lr" }));
    queueMicrotask(() => socket.say({ id, connect: { ...this.hello(), resumed } }));
  }
  on_subscribe(socket, id, { mailbox, account }) {
    queueMicrotask(() => socket.say({ id, subscribe: { key: { mailbox, account }, rights: "lr" } }));
  }
  on_unsubscribe(socket, id, key) {
    queueMicrotask(() => socket.say({ id, unsubscribe: { key } }));
  }
  on_refresh(socket, id) {
    queueMicrotask(() => socket.say({ id, refresh: { token_expires_at: this.epoch + this.time + 600_000 } }));
  }
  on_ping(socket, id) {
    queueMicrotask(() => socket.say({ id, ping: {} }));
  }
  onstream(stream) {
    stream.fail();
  }

  hello() {
    return {
      session: "n1.1",
      node: "n1",
      user: "alice",
      heartbeat_ms: 25_000,
      token_expires_at: this.epoch + this.time + 600_000,
      limits: { frame_bytes: 16_384, subscriptions: 128, commands_per_second: 20 },
    };
  }

  /** A client, and all that it says, in `states` and `errors`. */
  client(options = {}) {
    const log = { states: [], errors: [] };
    const client = new Mailpush({
      url: "https://push.example.org",
      token: async () => `token-${(this.tokens += 1)}`,
      onstate: (state, detail) => log.states.push([state, detail]),
      onerror: (error) => log.errors.push(error),
      environment: this.environment,
      ...options,
    });
    return Object.assign(log, { client });
  }

  /** Subscribes, and writes down every callback. */
  watch(client, what, handlers = {}) {
    const calls = [];
    const note = (name) => (...words) => calls.push([name, ...words]);
    const names = ["onready", "onevent", "onresync", "onrevoked", "onerror"];
    const sub = client.subscribe(what, { ...Object.fromEntries(names.map((name) => [name, note(name)])), ...handlers });
    return { sub, calls, names: () => calls.map(([name]) => name), clear: () => calls.splice(0) };
  }

  /** Lets time pass, one timer after the other. */
  async pass(ms) {
    const until = this.time + ms;
    await settle();
    for (;;) {
      const [id, next] = [...this.#timers].reduce((a, b) => (b[1].due < a[1].due ? b : a), [0, { due: Infinity }]);
      if (next.due > until) break;
      this.#timers.delete(id);
      this.time = Math.max(this.time, next.due);
      next.act();
      await settle();
    }
    this.time = until;
  }

  /** Timers that are set. */
  pending() {
    return this.#timers.size;
  }

  get socket() {
    return this.sockets.at(-1);
  }
  get stream() {
    return this.streams.at(-1);
  }

  go(online) {
    this.isOnline = online;
    this.window.dispatchEvent(new Event(online ? "online" : "offline"));
  }
  show(visible) {
    this.document.visibilityState = visible ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }
}

/** A client that is connected, by WebSocket, and watches something. */
export async function connected(options, what = { mailbox: INBOX }) {
  const world = new World(options);
  const log = world.client();
  const watch = world.watch(log.client, what);
  await settle();
  if (log.client.state !== "connected") throw new Error(`it is ${log.client.state}`);
  return { world, ...log, log, ...watch };
}

export const INBOX = "#private:alice:INBOX";
export const SENT = "#private:alice:Sent";
export const MISSING = { code: 404, name: "not_found", message: "no such mailbox", temporary: false };
export const BUSY = { code: 503, name: "unavailable", message: "later", temporary: true, retry_after_ms: 3_000 };
let made = 0;

/** An `event` push. */
export function event(mailbox, type = "MessageNew", more = {}) {
  made += 1;
  return { event: { event: { v: 1, type, id: `event-${made}`, at: 1, origin: "mail1", mailbox, ...more }, pos: `q@${made}` } };
}
