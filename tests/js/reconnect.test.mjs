// Who comes back, and when: the documented table of close codes, backoff, and storms.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { INBOX, World, settle } from "./world.mjs";

const document = readFileSync(new URL("../../openapi/asyncapi.yaml", import.meta.url), "utf8");
const row = /^ *- \{ code: (\d+), name: (\w+), reason: (.+), reconnect: (true|false) \}$/gm;
const TABLE = [...document.matchAll(row)].map(([, code, name, reason, reconnect]) => ({
  code: Number(code),
  name,
  reason: reason.replace(/^'|'$/g, ""),
  reconnect: reconnect === "true",
}));

async function connected(options) {
  const world = new World(options);
  const log = world.client();
  const watch = world.watch(log.client, { mailbox: INBOX });
  await world.pass(20_000);
  assert.equal(log.client.state, "connected");
  return { world, ...log, ...watch };
}

async function stays({ world, client, sub, states, calls }, { code, reason }) {
  assert.deepEqual([client.state, states.at(-1)[1], sub.closed], ["closed", { code, reason }, true]);
  const [name, error] = calls.at(-1);
  assert.deepEqual([name, error.name, error.code, error.message, error.temporary], ["onerror", "closed", code, reason, false]);
  world.show(true);
  world.go(true);
  await world.pass(3_600_000);
  assert.equal(world.sockets.length + world.streams.length, 1);
  assert.throws(() => client.subscribe({ mailbox: INBOX }, { onready() {}, onevent() {} }), /closed/);
}

async function returns({ world, client }, code) {
  assert.equal(client.state, "waiting");
  await world.pass(4_000);
  assert.equal(client.state, "connected");
  assert.equal(world.sockets.length, 2);
  assert.equal(world.tokens, code === 4401 ? 2 : 1, "an expired token is replaced first");
}

test("the table of close codes could be read", () => {
  assert.equal(TABLE.length, document.split("x-close-codes:")[1].split("\n\n")[0].split("- {").length - 1);
  assert.ok(TABLE.length >= 17);
});

for (const { code, name, reason, reconnect } of TABLE) {
  // 1000 alone may be a proxy's.
  const closed = reconnect || code === 1000;
  test(`${code} ${name}: ${reconnect ? "comes back" : "stays away"}`, async () => {
    const disconnect = { code, reason, reconnect };
    const ways = {
      "said and closed": (socket) => {
        socket.say({ disconnect });
        socket.end(code, reason);
      },
      "said, and the code lost on the way": (socket) => {
        socket.say({ disconnect });
        socket.end(1006);
      },
      "closed without a word": (socket) => socket.end(code, reason),
    };
    for (const [way, act] of Object.entries(ways)) {
      const all = await connected();
      act(all.world.socket);
      await ((way === "closed without a word" ? closed : reconnect) ? returns(all, code) : stays(all, disconnect));
    }
  });
}

test("reconnect: false is obeyed whatever the code, and 4500 to 4999 whatever is said", async () => {
  for (const disconnect of [{ code: 4444, reason: "new", reconnect: false }, { code: 4777, reason: "new", reconnect: true }]) {
    const all = await connected();
    all.world.socket.say({ disconnect });
    await stays(all, disconnect);
  }
});

test("codes of proxies and of later versions come back", async () => {
  for (const code of [1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 4000, 4499]) {
    const all = await connected();
    all.world.socket.end(code, "");
    await returns(all, code);
  }
});

test("reconnect_after_ms is obeyed to the millisecond, within reason", async () => {
  const { world } = await connected();
  world.socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 12_345 } });
  await world.pass(12_344);
  assert.equal(world.sockets.length, 1);
  await world.pass(1);
  assert.equal(world.sockets.length, 2);
  await world.pass(20_000);
  world.socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 1e15 } });
  await world.pass(3_600_000);
  assert.equal(world.sockets.length, 3, "an hour is the most");
});

test("a refused connect: the disconnect behind it says what to do", async () => {
  const world = new World();
  const names = { 4401: "token_expired", 4500: "token_bad_signature" };
  let code = 4401;
  world.on_connect = (socket, id) => {
    socket.say({ id, error: { code: 401, name: names[code], message: "no", temporary: false } });
    socket.say({ disconnect: { code, reason: "no", reconnect: code < 4500 } });
  };
  const { client, errors } = world.client();
  world.watch(client, { mailbox: INBOX });
  await world.pass(30_000);
  assert.deepEqual(world.sockets.map((socket) => socket.sent[0].connect.token).slice(0, 3), ["token-1", "token-2", "token-3"]);
  assert.ok(world.sockets.length < 10, `a token that is always expired is no reason to hurry: ${world.sockets.length}`);
  assert.ok(errors.every(({ name }) => name === "token_expired"));
  code = 4500;
  await world.pass(120_000);
  assert.equal(client.state, "closed");
  assert.equal(errors.at(-1).name, "token_bad_signature");
});

test("too many sessions: with what it had, it comes back when the server says", async () => {
  const { world, client, errors } = await connected();
  world.socket.end(1006);
  world.on_connect = (socket, id) => {
    const error = { code: 429, name: "too_many_sessions", message: "no", temporary: true, retry_after_ms: 33_000 };
    socket.say({ id, error });
    socket.say({ disconnect: { code: 4414, reason: "no", reconnect: true, reconnect_after_ms: 33_000 } });
  };
  await world.pass(4_000);
  assert.deepEqual([client.state, world.sockets.length, world.socket.commands("connect").length], ["waiting", 2, 1]);
  assert.deepEqual(errors.map(({ name, temporary }) => [name, temporary]), [["too_many_sessions", true]]);
  delete world.on_connect;
  await world.pass(33_000);
  assert.deepEqual([client.state, world.sockets.length], ["connected", 3]);
});

test("a node that takes shorter frames than the last one is told less at first, and only then is 1009 final", async () => {
  const { world, client, calls } = await connected();
  for (let n = 0; n < 50; n += 1) world.watch(client, { mailbox: `#private:alice:a folder with a name/${n}` });
  await world.pass(60_000);
  world.socket.end(1006);
  const { on_connect } = World.prototype;
  world.on_connect = (socket, id, body) => {
    if (JSON.stringify({ id, connect: body }).length <= 1_024) return on_connect.call(world, socket, id, body);
    socket.say({ disconnect: { code: 1009, reason: "frame over the limit", reconnect: false } });
  };
  await world.pass(30_000);
  assert.equal(client.state, "connected");
  assert.equal(calls[0][0], "onready");
  world.on_connect = (socket) => socket.say({ disconnect: { code: 1009, reason: "frame over the limit", reconnect: false } });
  world.socket.end(1006);
  await world.pass(30_000);
  assert.equal(client.state, "closed");
});

test("a server that never answers connect, or never opens, is left", async () => {
  for (const [part, most] of [["onsocket", 15_000], ["onframe", 45_000]]) {
    const world = new World({ streams: false });
    world[part] = () => {};
    const { client } = world.client();
    world.watch(client, { mailbox: INBOX });
    await world.pass(most - 1);
    assert.deepEqual([client.state, world.sockets[0].closed], ["connecting", false]);
    await world.pass(1);
    assert.deepEqual([client.state, world.sockets[0].closed], ["waiting", true]);
  }
});

test("the backoff grows to its bound, and begins anew after a good connection", async () => {
  const world = new World({ streams: false, seed: 7 });
  world.onsocket = (socket) => queueMicrotask(() => socket.end(1006));
  const { client, states } = world.client({ backoff: { baseMs: 1_000, maxMs: 16_000 } });
  world.watch(client, { mailbox: INBOX });
  await world.pass(300_000);
  const waits = states.filter(([state]) => state === "waiting").map(([, { retryInMs }]) => retryInMs);
  waits.forEach((wait, i) => assert.ok(wait <= Math.min(16_000, 1_000 * 2 ** i), `${wait} at ${i}`));
  assert.ok(Math.max(...waits) > 8_000);
  assert.ok(waits.slice(5).some((wait) => wait < 4_000), "full jitter: short ones too");
  delete world.onsocket;
  await world.pass(16_000);
  assert.equal(client.state, "connected");
  world.socket.end(1006);
  const [hasty] = states.at(-1)[1].retryInMs > 1_000 ? [true] : [false];
  await world.pass(40_000);
  assert.equal(client.state, "connected");
  world.socket.end(1006);
  assert.ok(states.at(-1)[1].retryInMs <= 1_000, `after a long one, unlike after a short one (${hasty})`);
});

test("a server that takes everybody and throws them out at once is not hammered", async () => {
  const world = new World();
  const { client } = world.client();
  world.watch(client, { mailbox: INBOX });
  world.on_subscribe = (socket) => queueMicrotask(() => socket.end(1011));
  await world.pass(600_000);
  assert.ok(world.sockets.length < 60, `${world.sockets.length} times in ten minutes`);
});

const CLIENTS = 1_000;

/** A thousand clients of one node, each with its own chance; gives when each of them is back after `end`. */
async function storm(end) {
  const world = new World({ seed: 42 });
  for (let i = 0; i < CLIENTS; i += 1) world.watch(world.client().client, { mailbox: INBOX });
  await world.pass(20_000);
  assert.equal(world.sockets.length, CLIENTS);
  const began = world.time;
  world.sockets.slice().forEach(end);
  await world.pass(3_000 + 4_000 * 4);
  const back = world.sockets.slice(CLIENTS).map(({ at }) => at - began);
  assert.equal(back.length, CLIENTS, "each comes back once");
  return back;
}

function buckets(times) {
  const counts = new Map();
  for (const time of times) counts.set(Math.floor(time / 100), (counts.get(Math.floor(time / 100)) ?? 0) + 1);
  return counts;
}

test("a thousand clients of a node that is killed spread their returns", async () => {
  const back = await storm((socket) => socket.end(1006));
  assert.ok(Math.max(...back) <= 4_000);
  const counts = buckets(back);
  assert.equal(counts.size, 40, "over all of the four seconds");
  // 25 each on average; 50 would be five standard deviations more.
  assert.ok(Math.max(...counts.values()) < 50, `${Math.max(...counts.values())} in 100 ms`);
});

test("a thousand clients of a node that drains come when each is told to", async () => {
  const told = (i) => i * 16;
  const back = await storm((socket, i) => {
    socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: told(i) } });
    socket.end(4412);
  });
  const expected = Array.from({ length: CLIENTS }, (_, i) => told(i));
  assert.deepEqual(back.map(Math.round).sort((a, b) => a - b), expected);
});

test("a thousand clients that are back online at once spread their returns over a second", async () => {
  const world = new World({ seed: 42 });
  for (let i = 0; i < CLIENTS; i += 1) world.watch(world.client().client, { mailbox: INBOX });
  await world.pass(20_000);
  world.isOnline = false;
  world.sockets.slice().forEach((socket) => socket.end(1006));
  await world.pass(50_000);
  assert.equal(world.sockets.length, CLIENTS);
  const began = world.time;
  world.go(true);
  await world.pass(1_000);
  const back = world.sockets.slice(CLIENTS).map(({ at }) => at - began);
  assert.equal(back.length, CLIENTS);
  const counts = buckets(back);
  assert.equal(counts.size, 10);
  // 100 each on average.
  assert.ok(Math.max(...counts.values()) < 150, `${Math.max(...counts.values())} in 100 ms`);
});

test("a server that wants everybody back soon, again and again, is not obeyed to the letter", async () => {
  const world = new World();
  world.on_connect = (socket) => {
    socket.say({ disconnect: { code: 4413, reason: "busy", reconnect: true, reconnect_after_ms: 10 } });
  };
  world.watch(world.client().client, { mailbox: INBOX });
  await world.pass(600_000);
  assert.ok(world.sockets.length < 60, `${world.sockets.length} times in ten minutes`);
});

test("an idle client stays away as long as it was told, whatever is subscribed to meanwhile", async () => {
  const all = await connected();
  all.sub.close();
  await settle();
  all.world.socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 30_000 } });
  all.world.watch(all.client, { mailbox: INBOX });
  await all.world.pass(29_900);
  assert.equal(all.world.sockets.length, 1);
  await all.world.pass(200);
  assert.equal(all.world.sockets.length, 2);
});
