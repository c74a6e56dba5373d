// Late and reordered replies, renames, deletions, revoked rights, shared and respelt keys, callbacks that close and subscribe:
// whatever happens, each page ends up with what its mailbox has, and the server holds what is wanted and nothing else.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BUSY, MISSING, World, settle } from "./world.mjs";

const WITHDRAWN = { ...MISSING, name: "not_subscribed" };
/** The server's spelling of a path. */
const norm = (path) => path.toLowerCase();

/** A server; `boxes` has each mailbox's version, by path. */
class Node {
  boxes = new Map(Array.from({ length: 6 }, (_, i) => [`#private:alice:${i}`, { version: 0 }]));
  sessions = [];
  socketsOpen = true;
  streamsOpen = true;
  busy = 0;
  #made = 0;
  #told = 0;

  constructor(world) {
    this.world = world;
    world.onsocket = (socket) =>
      queueMicrotask(() => {
        if (!this.socketsOpen) return socket.end(1006);
        this.#admit(socket);
        socket.open();
      });
    world.on_connect = (socket, id, { resume }) => {
      const session = this.#of(socket);
      const taken = resume?.subscriptions.map(({ mailbox }) => this.#resume(session, norm(mailbox)));
      this.#later(session, () => {
        session.connected = true;
        const resumed = taken?.map(({ path, error, holding }) =>
          error || holding.gone
            ? { key: { mailbox: path }, recovered: false, error: error ?? MISSING }
            : { key: { mailbox: holding.path }, recovered: false, rights: "lr" },
        );
        this.#say(session, { id, connect: { ...world.hello(), resumed } });
      });
    };
    world.on_subscribe = (socket, id, { mailbox }) => this.#subscribe(this.#of(socket), id, norm(mailbox));
    world.on_unsubscribe = (socket, id, { mailbox }) => {
      const session = this.#of(socket);
      const holding = session.held.get(norm(mailbox));
      if (!holding) return this.#say(session, { id, error: WITHDRAWN });
      this.#withdraw(session, holding, WITHDRAWN);
      this.#say(session, { id, unsubscribe: { key: { mailbox: norm(mailbox) } } });
    };
    world.on_ping = (socket, id) => this.#say(this.#of(socket), { id, ping: {} });
    world.on_refresh = (socket, id) =>
      this.#say(this.#of(socket), { id, refresh: { token_expires_at: world.epoch + world.time + 600_000 } });
    world.onstream = (stream) => {
      if (!this.streamsOpen) return stream.fail();
      const paths = stream.keys().map(([, path]) => norm(path));
      if (!paths.some((path) => this.boxes.has(path))) return stream.refuse(404, { status: 404, detail: "no such mailbox" });
      const session = this.#admit(stream);
      session.connected = true;
      stream.open();
      paths.forEach((path, id) => this.#subscribe(session, id, path));
    };
  }

  #admit(end) {
    const session = { end, held: new Map(), deaf: false, connected: false };
    this.sessions.push(session);
    return session;
  }
  #of(end) {
    return this.sessions.find((session) => session.end === end) ?? { end, held: new Map(), over: true };
  }
  all() {
    return (this.sessions = this.sessions.filter(({ end }) => !end.closed && !end.aborted));
  }
  #say(session, frame) {
    if (this.all().includes(session) && !session.deaf) session.end.say(frame);
  }
  #later(session, act) {
    const delay = this.world.random() < 0.4 ? 0 : this.world.random() * 4_000;
    this.world.environment.setTimeout(() => this.all().includes(session) && act(), delay);
  }

  #resume(session, path) {
    if (!this.boxes.has(path)) return { path, error: MISSING };
    if (this.world.random() < this.busy) return { path, error: BUSY };
    const holding = { path, settled: true, waiting: [] };
    session.held.set(path, holding);
    return { path, holding };
  }
  #subscribe(session, id, path) {
    if (!this.boxes.has(path)) return this.#later(session, () => this.#say(session, { id, error: MISSING }));
    const holding = session.held.get(path) ?? { path, settled: false, waiting: [] };
    session.held.set(path, holding);
    holding.waiting.push(id);
    const busy = this.world.random() < this.busy;
    this.#later(session, () => {
      const at = holding.waiting.indexOf(id);
      if (at < 0) return;
      holding.waiting.splice(at, 1);
      if (busy) {
        if (!holding.settled && !holding.waiting.length) session.held.delete(holding.path);
        return this.#say(session, { id, error: BUSY });
      }
      holding.settled = true;
      this.#say(session, { id, subscribe: { key: { mailbox: holding.path }, rights: "lr" } });
    });
  }
  #withdraw(session, holding, why) {
    session.held.delete(holding.path);
    holding.gone = true;
    for (const id of holding.waiting.splice(0)) this.#say(session, { id, error: why });
  }

  #event(type, mailbox, more) {
    this.#made += 1;
    return { v: 1, type, id: `e${this.#made}`, at: 1, origin: "m", mailbox, ...more };
  }
  #tell(session, event) {
    this.#told += 1;
    if (session.connected) this.#say(session, { event: { event, pos: `q@${this.#told}` } });
  }
  /** Every session that holds a mailbox, with its holding. */
  #holders(path) {
    return this.all().flatMap((session) => (session.held.has(path) ? [[session, session.held.get(path)]] : []));
  }
  change(path) {
    const box = this.boxes.get(path);
    box.version += 1;
    const event = this.#event("MessageNew", path, { version: box.version });
    for (const [session, { settled }] of this.#holders(path)) if (settled) this.#tell(session, event);
  }
  rename(path, to) {
    this.boxes.set(to, this.boxes.get(path));
    this.boxes.delete(path);
    const event = this.#event("MailboxRename", path, { to });
    for (const [session, holding] of this.#holders(path)) {
      this.#tell(session, event);
      if (!holding.settled || !session.connected) this.#withdraw(session, holding, WITHDRAWN);
      else {
        session.held.delete(path);
        session.held.set(to, Object.assign(holding, { path: to }));
      }
    }
  }
  remove(path) {
    this.boxes.delete(path);
    const event = this.#event("MailboxDelete", path);
    for (const [session, holding] of this.#holders(path)) {
      this.#tell(session, event);
      this.#withdraw(session, holding, WITHDRAWN);
    }
  }
  revoke(path) {
    for (const [session, holding] of this.#holders(path)) {
      this.#withdraw(session, holding, MISSING);
      if (session.connected) this.#say(session, { revoked: { key: { mailbox: path } } });
    }
  }
  beat() {
    for (const session of this.all()) this.#say(session, session.end.raw ? { comment: true } : "{}");
  }
  cut(goodbye) {
    for (const session of this.all()) {
      if (goodbye === "deaf") {
        session.deaf = true;
        continue;
      }
      this.sessions = this.sessions.filter((one) => one !== session);
      if (goodbye) session.end.say({ disconnect: goodbye });
      if (!session.end.raw) session.end.end(1006);
      else if (!session.end.aborted) session.end.end();
    }
  }
}

/** A mailbox on the screen: what it read, and the versions that were passed over since. */
class Page {
  version = -1;
  missing = new Set();
  ready = false;
  /** No such mailbox, or no right, or it is deleted: the page has been told. */
  over = false;
  error = undefined;

  read(version) {
    this.missing.clear();
    this.version = version;
  }
  apply({ version }) {
    for (let passed = this.version + 1; passed < version; passed += 1) this.missing.add(passed);
    this.missing.delete(version);
    this.version = Math.max(this.version, version);
  }
}

async function play(seed) {
  const world = new World({ seed, streams: seed % 3 > 0 });
  const node = new Node(world);
  const { client } = world.client({ backoff: { baseMs: 500, maxMs: 8_000 } });
  const pick = (list) => list[Math.floor(world.random() * list.length)];
  const some = (list, act) => list.length && act(pick(list));
  const paths = () => [...node.boxes.keys()];
  const pages = new Set();
  let made = 0;
  const shut = (page) => {
    page.sub.close();
    pages.delete(page);
  };
  const open = () =>
    some(paths(), (path) => {
      const page = new Page();
      const read = () => {
        const look = () => page.read(node.boxes.get(norm(page.sub.key.mailbox))?.version ?? -2);
        if (world.random() < 0.1) some([...pages], shut);
        if (world.random() < 0.05) open();
        if (world.random() < 0.7) return look();
        return new Promise((resolve) => {
          world.environment.setTimeout(() => {
            look();
            resolve();
          }, world.random() * 2_000);
        });
      };
      const more = world.random() < 0.3 ? { types: ["MessageNew"] } : world.random() < 0.3 ? { fields: ["from"] } : {};
      const mailbox = world.random() < 0.2 ? path.replace("alice", "ALICE") : path;
      page.sub = client.subscribe({ mailbox, ...more }, {
        onready: () => {
          page.ready = true;
          return read();
        },
        onresync: read,
        onevent: (event) => {
          assert.ok(page.ready, "no event before it is ready");
          if (event.type === "MailboxDelete") page.over = true;
          else if (event.type === "MessageNew") page.apply(event);
        },
        onrevoked: () => (page.over = true),
        onerror: (error) => {
          page.error = error.name;
          page.over = !error.temporary;
        },
      });
      pages.add(page);
    });
  const acts = [
    ...Array(12).fill(() => some(paths(), (path) => node.change(path))),
    ...Array(8).fill(() => world.pass(world.random() * 20_000).then(() => node.beat())),
    ...Array(6).fill(() => world.pass(world.random() * 500)),
    ...Array(4).fill(open),
    ...Array(2).fill(() => some([...pages], shut)),
    () => some(paths(), (path) => node.rename(path, `#private:alice:r${(made += 1)}`)),
    () => {
      if (world.random() < 0.3) some(paths(), (path) => node.remove(path));
      node.boxes.set(`#private:alice:n${(made += 1)}`, { version: 0 });
    },
    () => world.random() < 0.5 && some(paths(), (path) => node.revoke(path)),
    () => node.cut(),
    () => node.cut({ code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 1_000 }),
    () => node.cut("deaf"),
    () => (node.socketsOpen = world.random() < 0.6),
    () => (node.streamsOpen = world.random() < 0.8),
    () => (node.busy = pick([0, 0, 0.3])),
    () => node.all().forEach(({ end }) => world.random() < 0.5 && end.say({ expiring: { in_ms: 20_000 } })),
    () => world.go(world.random() < 0.7),
    () => world.show(world.random() < 0.7),
  ];
  for (let i = 0; i < 250; i += 1) {
    await pick(acts)();
    if (world.random() < 0.5) await settle();
  }
  Object.assign(node, { socketsOpen: true, streamsOpen: true, busy: 0 });
  world.go(true);
  open();
  for (let i = 0; i < 40; i += 1) {
    await world.pass(15_000);
    node.beat();
  }
  await settle();
  const wrong = [];
  const standing = [...pages].filter((page) => {
    if (page.sub.closed !== page.over) wrong.push(`closed ${page.sub.closed}, told ${page.over} (${page.error})`);
    return !page.sub.closed;
  });
  if (standing.length && client.state !== "connected") wrong.push(`it is ${client.state}`);
  for (const { ready, version, missing, sub, error } of standing) {
    const box = node.boxes.get(norm(sub.key.mailbox));
    const at = `${sub.key.mailbox}: `;
    if (!ready) wrong.push(`${at}never ready (${error})`);
    else if (!box) wrong.push(`${at}there is no such mailbox, and nobody told`);
    else if (box.version !== version || missing.size) wrong.push(`${at}${version}, not ${box.version}; ${missing.size} missing`);
  }
  const wanted = new Set(standing.map(({ sub }) => norm(sub.key.mailbox)));
  const live = node.all();
  if (live.length > 1) wrong.push(`${live.length} sessions`);
  for (const { held } of live) for (const path of held.keys()) if (!wanted.has(path)) wrong.push(`nobody wants ${path}, which is held`);
  client.close();
  await world.pass(10_000);
  if (world.pending()) wrong.push(`${world.pending()} timers are left behind`);
  assert.deepEqual(wrong, [], `seed ${seed}`);
}

test("every page ends up with what is there, and the server with what is wanted", async (t) => {
  const uncaught = [];
  const note = (error) => uncaught.push(error);
  process.on("uncaughtException", note);
  t.after(() => process.off("uncaughtException", note));
  const from = Number(process.env.FROM ?? 1);
  for (let seed = from; seed < from + Number(process.env.SEEDS ?? 60); seed += 1) await play(seed);
  assert.deepEqual(uncaught, []);
});
