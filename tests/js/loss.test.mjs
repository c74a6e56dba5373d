// Whatever happens to connections, a page that reads its state when it is told to, and applies every event, ends up right.

import assert from "node:assert/strict";
import { test } from "node:test";
import { World, settle } from "./world.mjs";

const BOXES = Array.from({ length: 6 }, (_, i) => `#private:alice:${i}`);

/** A node, and mailboxes with a version each that every change raises. */
class Node {
  versions = new Map(BOXES.map((box) => [box, 0]));
  links = [];
  socketsOpen = true;
  streamsOpen = true;
  busy = false;
  made = 0;

  constructor(world) {
    this.world = world;
    const temporary = { code: 503, name: "unavailable", message: "later", temporary: true, retry_after_ms: 1_000 };
    world.onsocket = (socket) => queueMicrotask(() => (this.socketsOpen ? this.#admit(socket).open() : socket.end(1006)));
    world.on_connect = (socket, id, { resume }) => {
      const resumed = resume?.subscriptions.map(({ mailbox }) => {
        const key = { mailbox };
        if (this.busy) return { key, recovered: false, error: temporary };
        this.#watch(socket, mailbox);
        return { key, recovered: false, rights: "lr" };
      });
      queueMicrotask(() => this.#say(socket, { id, connect: { ...world.hello(), resumed } }));
    };
    world.on_subscribe = (socket, id, { mailbox }) => {
      if (this.busy) return this.#say(socket, { id, error: temporary });
      this.#watch(socket, mailbox);
      queueMicrotask(() => this.#say(socket, { id, subscribe: { key: { mailbox }, rights: "lr" } }));
    };
    world.on_unsubscribe = (socket, id, { mailbox }) => {
      this.#linkOf(socket).keys.delete(mailbox);
      this.#say(socket, { id, unsubscribe: { key: { mailbox } } });
    };
    world.on_ping = (socket, id) => this.#say(socket, { id, ping: {} });
    world.on_refresh = (socket, id) =>
      this.#say(socket, { id, refresh: { token_expires_at: world.epoch + world.time + 600_000 } });
    world.onstream = (stream) => {
      if (!this.streamsOpen) return stream.fail();
      this.#admit(stream).open();
      stream.keys().forEach(([, mailbox], id) => {
        this.#watch(stream, mailbox);
        queueMicrotask(() => this.#say(stream, { id, subscribe: { key: { mailbox }, rights: "lr" } }));
      });
    };
  }

  #admit(end) {
    this.links.push({ end, keys: new Set(), deaf: false });
    return end;
  }
  #linkOf(end) {
    return this.links.find((link) => link.end === end) ?? { keys: new Set() };
  }
  #watch(end, mailbox) {
    this.#linkOf(end).keys.add(mailbox);
  }
  #say(end, frame) {
    if (this.links.some((link) => link.end === end && !link.deaf)) end.say(frame);
  }
  live() {
    return this.links.filter(({ end }) => !end.closed && !end.aborted);
  }

  change(mailbox) {
    const version = this.versions.get(mailbox) + 1;
    this.versions.set(mailbox, version);
    this.made += 1;
    const event = { v: 1, type: "MessageNew", id: `e${this.made}`, at: 1, origin: "m", mailbox, version };
    for (const { end, keys } of this.live()) if (keys.has(mailbox)) this.#say(end, { event: { event, pos: `q@${this.made}` } });
  }
  beat() {
    for (const { end } of this.live()) this.#say(end, end.raw ? { comment: true } : "{}");
  }
  /** Cuts all connections, or only lets them fall silent. */
  cut(goodbye) {
    for (const link of this.live()) {
      if (goodbye === "deaf") link.deaf = true;
      else {
        this.links.splice(this.links.indexOf(link), 1);
        if (goodbye) link.end.say({ disconnect: goodbye });
        if (link.end.raw) link.end.aborted || link.end.end();
        else link.end.end(1006);
      }
    }
  }
}

async function chaos(seed) {
  const world = new World({ seed });
  const node = new Node(world);
  const { client } = world.client({ backoff: { baseMs: 500, maxMs: 8_000 } });
  const pages = new Set();
  let events = 0;
  const pick = (list) => list[Math.floor(world.random() * list.length)];
  const open = () => {
    const mailbox = pick(BOXES);
    // A version that was passed over may still come; a later one does not make up for it.
    const page = { mailbox, version: -1, missing: new Set(), events: 0 };
    const read = () => {
      page.missing.clear();
      page.version = node.versions.get(mailbox);
    };
    const onevent = ({ version }) => {
      assert.ok(page.version >= 0, "no event before it is ready");
      page.events += 1;
      for (let passed = page.version + 1; passed < version; passed += 1) page.missing.add(passed);
      page.missing.delete(version);
      page.version = Math.max(page.version, version);
    };
    page.sub = client.subscribe({ mailbox }, { onready: read, onevent, onresync: read });
    pages.add(page);
  };
  const shut = () => {
    if (!pages.size) return;
    const page = pick([...pages]);
    page.sub.close();
    pages.delete(page);
    events += page.events;
  };
  const acts = [
    ...Array(12).fill(() => node.change(pick(BOXES))),
    ...Array(8).fill(() => world.pass(world.random() * 20_000).then(() => node.beat())),
    open, open, open, shut, shut,
    () => node.cut(),
    () => node.cut({ code: 4412, reason: "down", reconnect: true, reconnect_after_ms: Math.floor(world.random() * 5_000) }),
    () => node.cut({ code: 4401, reason: "expired", reconnect: true }),
    () => node.cut("deaf"),
    () => (node.socketsOpen = !node.socketsOpen),
    () => (node.streamsOpen = world.random() < 0.8),
    () => (node.busy = world.random() < 0.3),
    () => world.go(world.random() < 0.7),
    () => world.show(world.random() < 0.7),
  ];
  for (let i = 0; i < 250; i += 1) {
    await pick(acts)();
    if (world.random() < 0.5) await settle();
  }
  Object.assign(node, { socketsOpen: true, streamsOpen: true, busy: false });
  world.go(true);
  if (!pages.size) open();
  for (let i = 0; i < 20; i += 1) {
    await world.pass(15_000);
    node.beat();
  }
  await settle();
  assert.equal(client.state, "connected", `seed ${seed}`);
  for (const { mailbox, version, missing } of pages) {
    assert.deepEqual([version, [...missing]], [node.versions.get(mailbox), []], `seed ${seed}: ${mailbox}`);
  }
  for (const page of pages) events += page.events;
  client.close();
  assert.equal(world.pending(), 0, `seed ${seed}: nothing is left behind`);
  return events;
}

test("nothing is missed, whatever happens to the connections", async () => {
  let events = 0;
  for (let seed = 1; seed <= Number(process.env.SEEDS ?? 40); seed += 1) events += await chaos(seed);
  assert.ok(events > 500, `and much of it as events: ${events}`);
});
