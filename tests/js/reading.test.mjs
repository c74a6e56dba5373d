// What a page is told while it reads its state: afterwards, in order, and never more than can be held.

import assert from "node:assert/strict";
import { test } from "node:test";
import { INBOX, World, event, settle } from "./world.mjs";

/** A page whose reading takes until the test ends it. */
async function reading(handlers = {}) {
  const world = new World();
  const { client } = world.client();
  const reads = [];
  const calls = [];
  const read = (name) => (...words) => {
    calls.push([name, ...words]);
    return new Promise((resolve, reject) => reads.push({ resolve, reject }));
  };
  const note = (name) => (...words) => void calls.push([name, ...words]);
  const what = { onready: read("onready"), onresync: read("onresync"), onevent: note("onevent"), onrevoked: note("onrevoked") };
  const sub = client.subscribe({ mailbox: INBOX }, { ...what, onerror: note("onerror"), ...handlers });
  await settle();
  assert.equal(reads.length, 1);
  return { world, client, sub, reads, calls, names: () => calls.map(([name]) => name) };
}

test("events wait until the page has read its state", async () => {
  const { world, reads, calls, names } = await reading();
  const [one, two] = [event(INBOX), event(INBOX, "FlagsSet")];
  world.socket.say(one);
  world.socket.say(two);
  await settle();
  assert.deepEqual(names(), ["onready"]);
  reads[0].resolve();
  await settle();
  assert.deepEqual(calls.slice(1), [["onevent", one.event.event], ["onevent", two.event.event]]);
  const three = event(INBOX);
  world.socket.say(three);
  assert.deepEqual(calls.at(-1), ["onevent", three.event.event], "at once from now on");
});

test("a resync among them is read before what comes after it", async () => {
  const { world, reads, names } = await reading();
  world.socket.say(event(INBOX));
  world.socket.say({ resync: { keys: [{ mailbox: INBOX }], reason: "overflow" } });
  world.socket.say(event(INBOX));
  reads[0].resolve();
  await settle();
  assert.deepEqual(names(), ["onready", "onevent", "onresync"]);
  world.socket.say(event(INBOX));
  reads[1].resolve();
  await settle();
  assert.deepEqual(names(), ["onready", "onevent", "onresync", "onevent", "onevent"]);
});

test("one subscription's reading keeps nothing from another", async () => {
  const { world, client } = await reading();
  const other = world.watch(client, { mailbox: INBOX });
  await settle();
  world.socket.say(event(INBOX));
  assert.deepEqual(other.names(), ["onready", "onevent"]);
});

test("more than can be held becomes a resync", async () => {
  const { world, reads, calls, names } = await reading();
  for (let i = 0; i < 1_500; i += 1) world.socket.say(event(INBOX));
  reads[0].resolve();
  await settle();
  assert.deepEqual(names().slice(0, 2), ["onready", "onresync"]);
  assert.deepEqual(calls[1].slice(1), ["overflow", [{ mailbox: INBOX }]]);
  reads[1].resolve();
  await settle();
  assert.equal(names().filter((name) => name === "onevent").length, 499, "what came after that");
});

test("a reading that fails is reported, and what waited is told", async (t) => {
  const reported = t.mock.method(console, "error", () => {});
  const { world, reads, names } = await reading();
  world.socket.say(event(INBOX));
  reads[0].reject(new Error("the mail server is away"));
  await settle();
  assert.deepEqual(names(), ["onready", "onevent"]);
  assert.equal(reported.mock.callCount(), 1);
});

test("the end does not wait, and nothing comes after it", async () => {
  for (const [end, said] of [
    [({ sub }) => sub.close(), []],
    [({ client }) => client.close(), []],
    [({ world }) => world.socket.say({ revoked: { key: { mailbox: INBOX } } }), ["onrevoked"]],
    [({ world }) => world.socket.say(event(INBOX, "MailboxDelete")), ["onevent"]],
    [({ world }) => world.socket.end(4505), ["onerror"]],
  ]) {
    const all = await reading();
    all.world.socket.say(event(INBOX));
    end(all);
    all.reads[0].resolve();
    await settle();
    assert.deepEqual(all.names(), ["onready", ...said]);
    assert.equal(all.sub.closed, true);
  }
});

test("a promise of another callback, and what is no promise, hold nothing", async () => {
  const world = new World();
  let told = 0;
  const onevent = () => {
    told += 1;
    return new Promise(() => {});
  };
  world.watch(world.client().client, { mailbox: INBOX }, { onready: () => ({ then: "soon" }), onevent });
  await settle();
  for (let i = 0; i < 3; i += 1) world.socket.say(event(INBOX));
  assert.equal(told, 3);
});
