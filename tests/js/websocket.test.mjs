// The client over WebSockets, in a world without time of its own: connecting, coming back, what is told.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Mailpush } from "../../static/mailpush.js";
import { INBOX, SENT, World, connected, event, settle } from "./world.mjs";

test("connects in-band, subscribes, and tells when it is settled", async () => {
  const { world, client, calls, states, sub } = await connected({}, { mailbox: INBOX, fields: ["subject"] });
  const { socket } = world;
  assert.equal(socket.url, "wss://push.example.org/v1/ws");
  assert.equal(socket.protocol, "mailpush.v1");
  assert.deepEqual(socket.sent[0], { id: 1, connect: { token: "token-1" } });
  assert.deepEqual(socket.commands("subscribe"), [{ mailbox: INBOX, fields: ["subject"] }]);
  assert.deepEqual(calls, [["onready", { key: { mailbox: INBOX }, rights: "lr" }]]);
  assert.equal(sub.rights, "lr");
  assert.deepEqual(states.map(([state]) => state), ["connecting", "connected"]);
  assert.deepEqual(states[1][1], { transport: "websocket", session: "n1.1", node: "n1", user: "alice" });
  client.close();
  assert.equal(socket.closedWith, 1000);
  assert.equal(world.pending(), 0, "nothing is left behind");
});

test("nothing is connected to until something is subscribed to, and no callback comes within subscribe", async () => {
  const world = new World();
  const { client } = world.client();
  await world.pass(60_000);
  assert.equal(world.sockets.length, 0);
  const { calls } = world.watch(client, { account: "alice" });
  assert.deepEqual(calls, []);
  await settle();
  assert.deepEqual(world.socket.commands("subscribe"), [{ account: "alice" }]);
});

test("shared is passed through", async () => {
  const { world } = await connected({}, { account: "alice", shared: true });
  assert.deepEqual(world.socket.commands("subscribe"), [{ account: "alice", shared: true }]);
});

test("events reach whom they concern, once", async () => {
  const { world, client, calls } = await connected();
  const account = world.watch(client, { account: "alice", types: ["MessageNew"] });
  const shared = world.watch(client, { account: "alice", shared: true });
  const sent = world.watch(client, { mailbox: SENT });
  await settle();
  for (const one of [{ clear: () => calls.splice(0) }, account, shared, sent]) one.clear();
  const push = event(INBOX);
  world.socket.say(push);
  world.socket.say(push);
  assert.deepEqual(calls, [["onevent", push.event.event]]);
  assert.deepEqual(account.names(), ["onevent"]);
  assert.deepEqual(shared.names(), ["onevent"]);
  assert.deepEqual(sent.names(), []);
  world.socket.say(event(INBOX, "FlagsSet"));
  world.socket.say(event(INBOX, "MailboxChange"));
  assert.equal(account.calls.length, 2, "a type it does not want is left out, a change without details is not");
  world.socket.say(event("#shared::Support"));
  assert.equal(shared.calls.length, 4);
  assert.equal(account.calls.length, 2);
});

test("the memory of events is bounded", async () => {
  const { world, calls } = await connected();
  const first = event(INBOX);
  world.socket.say(first);
  for (let i = 0; i < 999; i += 1) world.socket.say(event(INBOX));
  world.socket.say(first);
  assert.equal(calls.length, 1 + 1000);
  world.socket.say(event(INBOX));
  world.socket.say(first);
  assert.equal(calls.length, 1 + 1002, "forgotten by now");
});

test("one round trip on return: the token, the last position, and all that stood", async () => {
  const { world, client, calls } = await connected({}, { mailbox: INBOX, types: ["MessageNew"], fields: ["from"] });
  const account = world.watch(client, { account: "alice" });
  await settle();
  const push = event(INBOX);
  world.socket.say(push);
  calls.splice(0);
  account.clear();
  world.on_connect = (socket, id, { resume }) => {
    const [one, two] = resume.subscriptions.map(({ mailbox, account }) => ({ mailbox, account }));
    const resumed = [{ key: two, recovered: false, rights: "lr" }, { key: one, recovered: true, rights: "l" }];
    socket.say({ id, connect: { ...world.hello(), resumed } });
  };
  world.socket.end(1006);
  await world.pass(4_000);
  const { sent } = world.socket;
  assert.equal(sent.length, 1, JSON.stringify(sent));
  assert.deepEqual(sent[0].connect.resume, {
    pos: push.event.pos,
    subscriptions: [
      { mailbox: INBOX, types: ["MessageNew"], fields: ["from"] },
      { account: "alice" },
    ],
  });
  assert.equal(sent[0].connect.token, "token-1", "a token that is good is not asked for again");
  assert.deepEqual(calls, [], "recovered: nothing to do");
  assert.deepEqual(account.calls, [["onresync", "reconnected", [{ account: "alice" }]]]);
});

test("without onresync, onready is called again", async () => {
  const { world, client } = await connected();
  const { calls } = world.watch(client, { mailbox: SENT }, { onresync: undefined });
  await settle();
  world.socket.say({ resync: { keys: [{ mailbox: SENT }], reason: "overflow" } });
  const ready = ["onready", { key: { mailbox: SENT }, rights: "lr" }];
  assert.deepEqual(calls, [ready, ready]);
});

test("resync names mailboxes and accounts, and reaches all that watch them", async () => {
  const { world, client, calls } = await connected();
  const account = world.watch(client, { account: "alice" });
  const shared = world.watch(client, { account: "alice", shared: true });
  const sent = world.watch(client, { mailbox: SENT });
  await settle();
  [account, shared, sent, { clear: () => calls.splice(0) }].forEach((one) => one.clear());
  const [inbox, other] = [{ mailbox: INBOX }, { mailbox: "#shared::Support" }];
  world.socket.say({ resync: { keys: [inbox, other], reason: "queue_gap" } });
  assert.deepEqual(calls, [["onresync", "queue_gap", [inbox]]]);
  assert.deepEqual(account.calls, [["onresync", "queue_gap", [inbox]]]);
  assert.deepEqual(shared.calls, [["onresync", "queue_gap", [inbox, other]]]);
  assert.deepEqual(sent.calls, []);
  world.socket.say({ resync: { keys: [{ account: "alice" }], reason: "registry_lost" } });
  assert.deepEqual(sent.names(), ["onresync"], "an account's loss is each of its mailboxes'");
});

test("what cannot be taken up on return is refused alone too", async () => {
  const { world, client, calls, sub } = await connected();
  const sent = world.watch(client, { mailbox: SENT });
  await settle();
  world.on_connect = (socket, id) => {
    const error = { code: 404, name: "not_found", message: "no", temporary: false };
    const resumed = [{ key: { mailbox: INBOX }, recovered: false, error }, { key: { mailbox: SENT }, recovered: true, rights: "lr" }];
    socket.say({ id, connect: { ...world.hello(), resumed } });
  };
  world.socket.end(1006);
  await world.pass(4_000);
  assert.deepEqual([calls.at(-1)[0], sub.closed, sent.sub.closed], ["onerror", true, false]);
  assert.equal(client.state, "connected");
});

test("a position in the reply to connect is the last one, where nothing is told again", async () => {
  const { world } = await connected();
  const positions = ["q1@7", "q2@3", "q2@9"];
  let recovered = false;
  world.on_connect = (socket, id) => {
    const resumed = [{ key: { mailbox: INBOX }, recovered, rights: "lr" }];
    socket.say({ id, connect: { ...world.hello(), pos: positions.shift(), resumed } });
  };
  const back = async () => {
    world.socket.end(1006);
    await world.pass(60_000);
    return world.socket.sent[0].connect.resume.pos;
  };
  assert.equal(await back(), undefined);
  assert.equal(await back(), "q1@7");
  recovered = true;
  assert.equal(await back(), "q2@3");
  assert.equal(await back(), "q2@3", "what is told again has positions of its own");
});

test("what was not taken up between two interruptions is read again, whatever is recovered", async () => {
  const { world, client, calls } = await connected();
  const sent = world.watch(client, { mailbox: SENT });
  await settle();
  world.socket.say(event(INBOX));
  const busy = { code: 503, name: "unavailable", message: "later", temporary: true, retry_after_ms: 60_000 };
  const connect = world.on_connect;
  world.on_connect = (socket, id) => {
    const resumed = [{ key: { mailbox: INBOX }, recovered: true, rights: "lr" }, { key: { mailbox: SENT }, recovered: false, error: busy }];
    socket.say({ id, connect: { ...world.hello(), resumed } });
  };
  world.socket.end(1006);
  await world.pass(4_000);
  // Replayed from here on, next time: what came for the other before it is lost.
  world.socket.say(event(INBOX));
  [sent, { clear: () => calls.splice(0) }].forEach((one) => one.clear());
  world.on_connect = connect;
  world.socket.end(1006);
  await world.pass(8_000);
  assert.deepEqual(calls, []);
  assert.deepEqual(sent.calls, [["onresync", "reconnected", [{ mailbox: SENT }]]]);
});

test("a refused resume is given up, and each subscription asked for by itself", async () => {
  const { world, calls, errors } = await connected();
  const connect = world.on_connect;
  world.on_connect = (socket, id, body) => {
    if (!body.resume) return connect.call(world, socket, id, body);
    socket.say({ id, error: { code: 429, name: "limit_reached", message: "too many", temporary: false } });
  };
  world.socket.end(1006);
  await world.pass(4_000);
  assert.deepEqual(world.socket.sent.map((frame) => Object.keys(frame)[1]), ["connect", "connect", "subscribe"]);
  assert.deepEqual(calls.at(-1), ["onresync", "reconnected", [{ mailbox: INBOX }]]);
  assert.deepEqual(errors, []);
});

test("a first frame stays within the server's limit", async () => {
  const { world, client } = await connected();
  const path = (i) => `#private:alice:${"é".repeat(120)}${i}`;
  for (let i = 0; i < 100; i += 1) world.watch(client, { mailbox: path(i) });
  await world.pass(20_000);
  assert.equal(world.socket.commands("subscribe").length, 101);
  world.socket.end(1006);
  await world.pass(4_000);
  const [first] = world.socket.sent;
  assert.ok(Buffer.byteLength(JSON.stringify(first)) <= 16_384);
  assert.ok(first.connect.resume.subscriptions.length > 40);
  await world.pass(20_000);
  const rest = world.socket.commands("subscribe").length;
  assert.equal(first.connect.resume.subscriptions.length + rest, 101);
});

test("commands stay below the server's rate", async () => {
  const { world, client } = await connected();
  for (let i = 0; i < 60; i += 1) world.watch(client, { mailbox: `#private:alice:${i}` });
  await settle();
  assert.ok(world.socket.commands("subscribe").length <= 20);
  await world.pass(1_000);
  assert.ok(world.socket.commands("subscribe").length <= 40);
  await world.pass(3_000);
  assert.equal(world.socket.commands("subscribe").length, 61);
});

test("heartbeats are answered, and keep the connection", async () => {
  const { world, client } = await connected();
  const before = world.socket.sent.length;
  for (let i = 0; i < 4; i += 1) {
    await world.pass(25_000);
    world.socket.say("{}");
  }
  assert.deepEqual(world.socket.sent.slice(before), [{}, {}, {}, {}]);
  assert.equal(client.state, "connected");
});

test("a server that says nothing is asked, and left if it does not answer", async () => {
  const { world, client, states } = await connected();
  await world.pass(28_000);
  assert.equal(world.socket.commands("ping").length, 1);
  await world.pass(27_000);
  assert.equal(client.state, "connected", "it answered");
  world.on_ping = () => {};
  await world.pass(28_000 + 5_000 + 1_000);
  assert.equal(world.sockets[0].closed, true);
  const waiting = states.find(([state]) => state === "waiting");
  assert.deepEqual([waiting[1].code, waiting[1].reason], [1006, "the server is silent"]);
  await world.pass(4_000);
  assert.equal(world.sockets.length, 2);
});

test("the server's own heartbeat counts", async () => {
  const world = new World();
  world.hello = () => ({ ...World.prototype.hello.call(world), heartbeat_ms: 5_000 });
  world.watch(world.client().client, { mailbox: INBOX });
  await settle();
  await world.pass(7_999);
  assert.equal(world.socket.commands("ping").length, 0);
  await world.pass(1);
  assert.equal(world.socket.commands("ping").length, 1);
});

test("a closed client listens to nothing any more", async () => {
  const { world, client } = await connected();
  const listening = new Set();
  for (const target of [world.window, world.document]) {
    const { removeEventListener } = target;
    target.removeEventListener = (name, listener) => {
      listening.add(name);
      removeEventListener.call(target, name, listener);
    };
  }
  client.close();
  assert.deepEqual([...listening].sort(), ["offline", "online", "visibilitychange"]);
});

test("a page that is seen again asks at once whether the server is there", async () => {
  const { world, client } = await connected();
  world.on_ping = () => {};
  world.show(false);
  assert.equal(world.socket.commands("ping").length, 0);
  await world.pass(10_000);
  world.show(true);
  assert.equal(world.socket.commands("ping").length, 1);
  world.show(true);
  assert.equal(world.socket.commands("ping").length, 1, "once");
  await world.pass(5_000);
  assert.notEqual(client.state, "connected");
});

test("a page that is seen again, or back online, does not wait for the backoff", async () => {
  for (const wake of [(world) => world.show(true), (world) => world.go(true)]) {
    const world = new World({ seed: 3 });
    const { client, states } = world.client({ backoff: { baseMs: 60_000, maxMs: 60_000 } });
    world.watch(client, { mailbox: INBOX });
    await settle();
    await world.pass(20_000);
    world.socket.end(1006);
    assert.ok(states.at(-1)[1].retryInMs > 2_000, "with this seed");
    wake(world);
    await world.pass(1_000);
    assert.equal(world.sockets.length, 2);
  }
});

test("however often a page is seen again, it tries once a second at most", async () => {
  const world = new World({ streams: false });
  world.onsocket = (socket) => queueMicrotask(() => socket.end(1006));
  world.watch(world.client().client, { mailbox: INBOX });
  for (let i = 0; i < 100; i += 1) {
    await world.pass(100);
    world.show(true);
  }
  assert.ok(world.sockets.length > 5 && world.sockets.length <= 11, `${world.sockets.length} in ten seconds`);
});

test("but for as long as the server wants it away, it stays away", async () => {
  const { world } = await connected();
  world.socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 30_000 } });
  world.show(true);
  world.go(true);
  await world.pass(29_900);
  assert.equal(world.sockets.length, 1);
  await world.pass(1_200);
  assert.equal(world.sockets.length, 2);
});

test("nothing is tried while offline; back online at once, with a little jitter", async () => {
  const { world, client } = await connected();
  world.on_ping = () => {};
  world.go(false);
  assert.equal(client.state, "connected", "which may be wrong, so the server is asked");
  await world.pass(5_000);
  assert.equal(client.state, "offline");
  await world.pass(600_000);
  assert.equal(world.sockets.length, 1);
  world.go(true);
  assert.equal(world.sockets.length, 1);
  await world.pass(1_000);
  assert.equal(world.sockets.length, 2);
  assert.equal(client.state, "connected");
});

test("back online without a word: it is seen within a minute", async () => {
  const { world, client } = await connected();
  world.socket.end(1006);
  world.go(false);
  await world.pass(600_000);
  world.isOnline = true;
  await world.pass(60_000);
  assert.equal(client.state, "connected");
});

test("nor does it come back from offline before the server wants it", async () => {
  const { world } = await connected();
  world.socket.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 300_000 } });
  world.go(false);
  world.isOnline = true;
  await world.pass(299_000);
  assert.equal(world.sockets.length, 1);
  await world.pass(1_000);
  assert.equal(world.sockets.length, 2);
});

test("offline while waiting, and from the start", async () => {
  const { world, client } = await connected();
  world.socket.end(1006);
  world.go(false);
  assert.equal(client.state, "offline");
  await world.pass(60_000);
  assert.equal(world.sockets.length, 1);
  const other = new World();
  other.isOnline = false;
  const late = other.client();
  other.watch(late.client, { mailbox: INBOX });
  await other.pass(60_000);
  assert.deepEqual([late.client.state, other.sockets.length, other.tokens], ["offline", 0, 0]);
  other.go(true);
  await other.pass(1_000);
  assert.equal(late.client.state, "connected");
});

test("what is not a frame ends the connection, and it comes back", async () => {
  for (const nonsense of ["nonsense", "null", '{"resync":{}}', '{"revoked":{}}', '{"event":{}}', "7"]) {
    const { world, client } = await connected();
    world.socket.say(nonsense);
    if (nonsense !== "7") assert.equal(client.state, "waiting", nonsense);
    await world.pass(4_000);
    assert.equal(client.state, "connected", nonsense);
  }
});

test("later versions' pushes and fields are ignored", async () => {
  const { world, client, calls } = await connected();
  world.socket.say({ greeting: { from: "the future" }, and: 1 });
  world.socket.say(event(INBOX, "MessageSnooze", { until: 5 }));
  assert.equal(client.state, "connected");
  assert.equal(calls.at(-1)[1].type, "MessageSnooze", "the page is told, and reads the mailbox's state");
});

test("a callback that throws is reported, and harms nothing", async (t) => {
  const reported = t.mock.method(console, "error", () => {});
  const world = new World();
  const { client } = world.client({ onstate: () => assert.fail("onstate") });
  const bad = world.watch(client, { mailbox: INBOX }, { onready: () => assert.fail("onready") });
  const good = world.watch(client, { mailbox: SENT });
  await settle();
  assert.deepEqual(good.names(), ["onready"]);
  assert.deepEqual(bad.names(), []);
  assert.ok(reported.mock.callCount() >= 2);
});

test("a callback that closes what the client is about to look at harms nothing", async (t) => {
  const uncaught = t.mock.fn();
  process.on("uncaughtException", uncaught);
  t.after(() => process.off("uncaughtException", uncaught));
  for (const close of [({ second }) => second.sub.close(), ({ client }) => client.close()]) {
    const world = new World();
    const { client } = world.client();
    world.watch(client, { mailbox: INBOX });
    const second = world.watch(client, { mailbox: SENT });
    await settle();
    world.watch(client, { mailbox: INBOX }, { onready: () => close({ client, second }) });
    await settle();
    assert.equal(second.sub.closed, true);
  }
  assert.equal(uncaught.mock.callCount(), 0);
});

test("callbacks may close, and subscribe", async () => {
  const world = new World();
  const { client } = world.client();
  let inner;
  const outer = world.watch(client, { mailbox: INBOX }, {
    onready: () => {
      outer.sub.close();
      inner = world.watch(client, { mailbox: SENT });
    },
  });
  await settle();
  assert.deepEqual(inner.names(), ["onready"]);
  assert.deepEqual(world.socket.commands("unsubscribe"), [{ mailbox: INBOX }]);
  inner.sub.close();
  client.close();
  client.close();
  assert.throws(() => world.watch(client, { mailbox: SENT }), /closed/);
  await world.pass(60_000);
  assert.equal(world.sockets.length, 1);
});

test("misuse is refused at once, in words", async () => {
  const world = new World();
  const { client } = world.client();
  const handlers = { onready() {}, onevent() {} };
  const bad = [
    [{}, handlers, /either a mailbox or an account/],
    [{ mailbox: INBOX, account: "alice" }, handlers, /either/],
    [{ mailbox: "" }, handlers, /either/],
    [{ mailbox: INBOX, shared: true }, handlers, /accounts only/],
    [{ mailbox: INBOX, types: [] }, handlers, /leave them out/],
    [{ mailbox: INBOX, fields: "from" }, handlers, /lists/],
    [{ mailbox: INBOX, feilds: ["from"] }, handlers, /feilds is no/],
    [{ mailbox: INBOX }, { onready() {} }, /onevent is needed/],
    [{ mailbox: INBOX }, { onready() {}, onEvent() {} }, /onEvent is no callback/],
    [{ mailbox: INBOX }, { ...handlers, onerror: 7 }, /must be a function/],
    [{ mailbox: "x".repeat(5_000) }, handlers, /too long/],
  ];
  for (const [what, how, words] of bad) assert.throws(() => client.subscribe(what, how), words);
  assert.throws(() => new Mailpush({ url: "https://x" }), /token must be a function/);
  assert.throws(() => new Mailpush({ url: "file:///x", token() {} }), /must begin with https/);
  assert.throws(() => new Mailpush({ url: "https://x", token() {}, backoff: { baseMs: 1 } }), /at least 100/);
  assert.throws(() => new Mailpush({ url: "https://x", token() {}, tokn: 1 }), /tokn is no option/);
});

test("URLs: plain, below a path, and the page's own", async () => {
  const cases = [
    ["http://localhost:8080", undefined, "ws://localhost:8080/v1/ws"],
    ["wss://mail.example.org/push/?x=1#y", undefined, "wss://mail.example.org/push/v1/ws"],
    ["/push", { href: "https://mail.example.org/app/inbox", origin: "https://mail.example.org" }, "wss://mail.example.org/push/v1/ws"],
    [undefined, { href: "https://mail.example.org/app/inbox", origin: "https://mail.example.org" }, "wss://mail.example.org/v1/ws"],
  ];
  for (const [url, location, expected] of cases) {
    const world = new World();
    const { client } = world.client({ url, environment: { ...world.environment, location } });
    world.watch(client, { mailbox: INBOX });
    await settle();
    assert.equal(world.socket.url, expected);
  }
});

test("without anything to watch a lost connection is not made anew until there is", async () => {
  const { world, client, sub } = await connected();
  sub.close();
  await settle();
  assert.equal(client.state, "connected", "the page may subscribe to something else any moment");
  world.socket.end(1006);
  await world.pass(60_000);
  assert.deepEqual([client.state, world.sockets.length], ["idle", 1]);
  const { names } = world.watch(client, { mailbox: SENT });
  await world.pass(4_000);
  assert.deepEqual(names(), ["onready"]);
});

test("after close nothing is asked, and nothing told", async () => {
  const world = new World();
  let fail;
  const { client, errors } = world.client({ token: () => new Promise((_, reject) => (fail = reject)) });
  world.watch(client, { mailbox: INBOX });
  await settle();
  client.close();
  fail(new Error("too late"));
  await settle();
  assert.deepEqual(errors, []);
  const other = new World();
  const late = other.client({ onstate: (state) => state === "connecting" && late.client.close() });
  other.watch(late.client, { mailbox: INBOX });
  await settle();
  assert.equal(other.tokens, 0);
});

test("closed from within any callback, nothing goes on", async () => {
  const ways = [
    (close) => ({ onstate: (state) => state === "connected" && close() }),
    (close) => ({ onstate: (state) => state === "waiting" && close() }),
    (close) => {
      let failing = false;
      const token = async () => (failing ? Promise.reject(new Error("gone")) : ((failing = true), "token"));
      return { onerror: close, token };
    },
  ];
  for (const way of ways) {
    const world = new World();
    const { client } = world.client(way(() => client.close()));
    world.watch(client, { mailbox: INBOX });
    await settle();
    world.socket.say({ expiring: { in_ms: 60_000 } });
    await world.pass(1_000);
    world.socket.end(1006);
    await world.pass(120_000);
    assert.deepEqual([client.state, world.pending(), world.sockets.length], ["closed", 0, 1]);
  }
});
