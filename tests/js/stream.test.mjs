// The client over Server-Sent Events: where WebSockets are blocked, and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BUSY, INBOX, MISSING, SENT, World, event, settle } from "./world.mjs";

/** A world whose WebSockets never open. */
function blocked(options) {
  const world = new World(options);
  world.onsocket = (socket) => queueMicrotask(() => socket.end(1006));
  world.onstream = (stream) => {
    stream.open();
    stream.stand();
  };
  return world;
}

/** A client that has ended up with a stream. */
async function streaming(world = blocked(), what = { mailbox: INBOX }) {
  const log = world.client();
  const watch = world.watch(log.client, what);
  await world.pass(30_000);
  assert.equal(log.client.state, "connected");
  return { world, ...log, ...watch };
}

/** Time passes, and the server keeps what is open alive. */
async function beat(world, ms) {
  for (let left = ms; left > 0; left -= 20_000) {
    for (const stream of world.streams) if (stream.controller && !stream.aborted) stream.raw(":\n\n");
    if (!world.socket?.closed) world.socket?.say("{}");
    await settle();
    await world.pass(Math.min(left, 20_000));
  }
}

test("where WebSockets never open, a stream is taken, with the token in a header", async () => {
  const { world, states, calls } = await streaming(blocked(), { mailbox: INBOX, types: ["MessageNew"], fields: ["from", "subject"] });
  assert.equal(world.sockets.length, 2);
  assert.equal(world.streams.length, 1);
  const { url, headers } = world.stream;
  assert.equal(url.origin + url.pathname, "https://push.example.org/v1/stream");
  assert.deepEqual([...url.searchParams], [
    ["mailbox", INBOX],
    ["types", "MessageNew"],
    ["fields", "from,subject"],
  ]);
  assert.deepEqual(headers, { accept: "text/event-stream", authorization: "Bearer token-1" });
  assert.deepEqual(states.at(-1), ["connected", { transport: "sse" }]);
  assert.deepEqual(calls, [["onready", { key: { mailbox: INBOX }, rights: "lr" }]]);
});

test("a runtime without WebSocket begins with a stream; shared is a parameter", async () => {
  const world = blocked({ sockets: false });
  await streaming(world, { account: "alice", shared: true });
  assert.deepEqual([...world.stream.url.searchParams], [["account", "alice"], ["shared", "true"]]);
});

test("a server that is down is not taken for one that blocks WebSockets", async () => {
  const world = blocked();
  world.onstream = (stream) => stream.fail();
  const { client } = world.client();
  world.watch(client, { mailbox: INBOX });
  await world.pass(600_000);
  assert.ok(world.sockets.length > 5 && world.streams.length > 5, "by turns");
  assert.ok(world.sockets.length + world.streams.length < 60);
  delete world.onsocket;
  world.onstream = (stream) => stream.fail();
  await world.pass(120_000);
  assert.equal(client.state, "connected");
  assert.equal(world.socket.closed, false);
});

test("events, resync and revoked come as on the WebSocket, cut anywhere", async () => {
  const world = blocked();
  const { calls, client } = await streaming(world, { account: "alice", shared: true });
  const inbox = world.watch(client, { mailbox: INBOX });
  await world.pass(3_000);
  calls.splice(0);
  inbox.clear();
  const push = event(INBOX, "MessageNew", { messages: [{ uid: 1, flags: [], envelope: { subject: "naïve 🎉" } }] });
  const text =
    `: comment\r\n\r\nretry: 3000\n\nid: ${push.event.pos}\revent: event\rdata: ${JSON.stringify(push)}\r\r` +
    `event: resync\r\ndata: {"resync":\r\ndata:{"keys":[{"mailbox":"${INBOX}"}],"reason":"overflow"}}\r\n\r\n` +
    `:\n\nevent: event\ndata: ${JSON.stringify(push)}\n\nunknown\nevent: greeting\ndata: {"greeting":{}}\n\ndata\n`;
  const bytes = new TextEncoder().encode(text);
  for (const byte of bytes) world.stream.raw(new Uint8Array([byte]));
  await settle();
  await world.pass(0);
  for (let i = 0; i < 200; i += 1) await settle();
  const expected = [["onevent", push.event.event], ["onresync", "overflow", [{ mailbox: INBOX }]]];
  assert.deepEqual(inbox.calls, expected);
  assert.deepEqual(calls, expected);
  world.stream.say({ revoked: { key: { mailbox: INBOX } } });
  await world.pass(10_000);
  assert.deepEqual(inbox.calls.at(-1), ["onrevoked", { mailbox: INBOX }]);
  assert.deepEqual(calls.at(-1), ["onrevoked", { mailbox: INBOX }]);
  assert.equal(world.streams.length, 2, "what the server has ended needs no other stream");
});

test("any cutting of a stream into chunks gives the same events", async () => {
  const pushes = Array.from({ length: 5 }, () => event(INBOX));
  const text = pushes.map((push, i) => `id: ${i}\r\ndata: ${JSON.stringify(push)}${["\n\n", "\r\n\r\n", "\r\r"][i % 3]}`).join(":\n");
  for (let size = 1; size < 40; size += 3) {
    const world = blocked({ sockets: false });
    const { calls } = await streaming(world);
    for (let at = 0; at < text.length; at += size) world.stream.raw(text.slice(at, at + size));
    for (let i = 0; i < 300 && calls.length < 6; i += 1) await settle();
    assert.deepEqual(calls.slice(1).map(([, { id }]) => id), pushes.map((push) => push.event.event.id), `by ${size}`);
  }
});

test("a stream without end of line is given up before it fills the memory", async () => {
  const { world, client } = await streaming(blocked({ sockets: false }));
  for (let i = 0; i < 17; i += 1) world.stream.raw(`data: ${"x".repeat(65_536)}`);
  for (let i = 0; i < 20; i += 1) await settle();
  assert.equal(client.state, "waiting");
});

test("another set is another stream, without a gap, and not too often", async () => {
  const { world, client, calls } = await streaming();
  const first = world.stream;
  let open;
  world.onstream = (stream) => (open = () => (stream.open(), stream.stand()));
  const more = Array.from({ length: 20 }, (_, i) => world.watch(client, { mailbox: `#private:alice:${i}` }));
  await world.pass(2_000);
  assert.equal(world.streams.length, 2);
  assert.equal(world.stream.keys().length, 21);
  assert.equal(first.aborted, false, "the old one goes on until the new one stands");
  const meanwhile = event(INBOX);
  first.say(meanwhile);
  await settle();
  open();
  await world.pass(2_000);
  first.raw(":\n\n");
  await settle();
  assert.equal(first.aborted, false, "that may have been on its way for long");
  await world.pass(1_000);
  first.raw(":\n\n");
  await settle();
  assert.equal(first.aborted, true, "it has told all that came before the new one stood");
  assert.ok(more.every(({ names }) => names().join() === "onready"));
  world.stream.say(meanwhile);
  await settle();
  assert.deepEqual(calls.map(([name]) => name), ["onready", "onevent"], "neither read again nor told twice");
  for (let i = 0; i < 20; i += 1) {
    world.watch(client, { mailbox: `#private:alice:more-${i}` });
    await world.pass(100);
    open?.();
  }
  await world.pass(4_000);
  open();
  await world.pass(4_000);
  assert.ok(world.streams.length <= 5, `${world.streams.length} streams`);
  assert.equal(world.stream.keys().length, 41);
  more[0].sub.close();
  await world.pass(4_000);
  assert.equal(world.stream.keys().length, 40);
});

test("an old stream that had fallen silent is not believed", async () => {
  const { world, client, names } = await streaming();
  const [first] = world.streams;
  const more = world.watch(client, { mailbox: SENT });
  for (let i = 0; i < 5; i += 1) {
    await world.pass(16_000);
    world.stream.raw(":\n\n");
  }
  assert.equal(first.aborted, true);
  assert.deepEqual([names(), more.names()], [["onready", "onresync"], ["onready"]]);
});

test("the last subscription closed ends the stream, the next begins one", async () => {
  const { world, client, sub } = await streaming();
  sub.close();
  await settle();
  assert.deepEqual([client.state, world.stream.aborted], ["idle", true]);
  world.watch(client, { mailbox: SENT });
  await world.pass(10_000);
  assert.deepEqual(world.stream.keys(), [["mailbox", SENT]]);
});

test("a stream that ends comes back with its position, and the state is read again", async () => {
  const { world, calls } = await streaming();
  const push = event(INBOX);
  world.stream.say(push);
  await settle();
  world.stream.end();
  await world.pass(4_000);
  assert.equal(world.streams.length, 2);
  assert.equal(world.sockets.length, 2);
  assert.equal(world.stream.headers["last-event-id"], push.event.pos);
  assert.deepEqual(calls.at(-1), ["onresync", "reconnected", [{ mailbox: INBOX }]]);
});

test("disconnect is obeyed: an expired token is replaced, an ended session stays ended", async () => {
  const { world, client } = await streaming();
  world.stream.say({ disconnect: { code: 4401, reason: "expired", reconnect: true } });
  await world.pass(4_000);
  assert.equal(world.stream.headers.authorization, "Bearer token-2");
  world.stream.say({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 30_000 } });
  await world.pass(29_000);
  assert.equal(world.streams.length, 2);
  await world.pass(1_000);
  assert.equal(world.streams.length, 3);
  world.stream.say({ disconnect: { code: 4505, reason: "ended", reconnect: false } });
  await world.pass(600_000);
  assert.deepEqual([client.state, world.streams.length], ["closed", 3]);
});

test("a stream's refusals are those of the table, if a node says them", async () => {
  const problem = (status, code) => ({ type: "about:blank", title: "no", status, detail: "no", code });
  const cases = [
    [401, problem(401, "token_bad_signature"), "closed", 4500],
    [401, problem(401, "token_expired"), "waiting", 4401],
    [403, problem(403, "forbidden"), "closed", 4503],
    [401, problem(401, "token_not_yet_valid"), "waiting", 4401],
    [429, problem(429, "too_many_sessions"), "waiting", 4414],
    [503, problem(503, "unavailable"), "waiting", 1006],
    [500, problem(500, "x"), "waiting", 1006],
    [401, null, "waiting", 1006],
    [403, null, "waiting", 1006],
    [404, null, "waiting", 1006],
    [200, null, "waiting", 1006],
  ];
  for (const [status, body, state, code] of cases) {
    const world = blocked({ sockets: false });
    world.onstream = (stream) => stream.refuse(status, body, [429, 503].includes(status) ? { "retry-after": "20" } : {});
    const { client, states } = world.client();
    world.watch(client, { mailbox: INBOX });
    await settle();
    assert.deepEqual([client.state, states.at(-1)[1].code], [state, code], `${status} ${body?.code}`);
    if (status === 429 || status === 503) assert.equal(states.at(-1)[1].retryInMs, 20_000);
  }
});

test("a user with too many sessions comes back when the server says, and a stream that needs the last place frees it", async () => {
  const world = blocked({ sockets: false });
  const problem = { status: 429, detail: "too many sessions of this user", code: "too_many_sessions" };
  world.onstream = (stream) => stream.refuse(429, problem, { "retry-after": "33" });
  const { client } = world.client();
  const { calls } = world.watch(client, { mailbox: INBOX });
  await world.pass(32_999);
  assert.deepEqual([client.state, world.streams.length], ["waiting", 1]);
  world.onstream = (stream) => {
    stream.open();
    stream.stand();
  };
  await world.pass(1);
  assert.deepEqual([client.state, calls.length], ["connected", 1]);

  world.onstream = (stream) => {
    if (world.streams.some((other) => other !== stream && other.controller && !other.aborted)) return stream.refuse(429, problem, { "retry-after": "33" });
    stream.open();
    stream.stand();
  };
  const other = world.watch(client, { mailbox: SENT });
  await world.pass(10_000);
  assert.deepEqual([client.state, other.names()], ["connected", ["onready"]], "its own place is free at once");
});

function hundred(world, client, length = 40) {
  const watches = [];
  for (let n = 0; n < 100; n += 1) watches.push(world.watch(client, { mailbox: `#private:alice:${"x".repeat(length)}${n}` }));
  return watches;
}

test("what is too long for a URL is sent as a form", async () => {
  const world = blocked({ sockets: false });
  const { client } = world.client();
  const watches = hundred(world, client);
  await settle();
  const { method, url, parameters, headers } = world.stream;
  assert.deepEqual([method, url.href, [...parameters].length], ["POST", "https://push.example.org/v1/stream", 100]);
  assert.equal(headers.authorization, "Bearer token-1");
  assert.deepEqual([client.state, watches.every(({ names }) => names().join() === "onready")], ["connected", true]);
});

test("a proxy that takes shorter URLs than we thought gets forms from then on", async () => {
  const world = blocked({ sockets: false });
  world.onstream = (stream) => {
    if (stream.method === "GET" && stream.url.href.length > 100) return stream.refuse(414);
    stream.open();
    stream.stand();
  };
  const { client } = world.client();
  world.watch(client, { mailbox: INBOX });
  const { names } = world.watch(client, { mailbox: `#private:alice:${"x".repeat(100)}` });
  await settle();
  assert.deepEqual([client.state, names(), world.streams.map(({ method }) => method)], ["connected", ["onready"], ["GET", "POST"]]);
  world.watch(client, { mailbox: SENT });
  await world.pass(2_000);
  assert.deepEqual(world.streams.map(({ method }) => method), ["GET", "POST", "POST"]);
});

test("where forms are not taken a URL is tried, and where neither goes the page is told, and it goes on in a while", async () => {
  const old = blocked({ sockets: false });
  old.onstream = (stream) => {
    if (stream.method === "POST") return stream.refuse(405, { status: 405, detail: "this path does not take this method" });
    stream.open();
    stream.stand();
  };
  const before = old.client();
  const watches = hundred(old, before.client, 1);
  await settle();
  assert.deepEqual([before.client.state, watches[99].names(), before.errors], ["connected", ["onready"], []], "a node of before");

  for (const [form, url] of [[405, 414], [413, 431], [404, 400], [501, 414]]) {
    const world = blocked({ sockets: false });
    world.onstream = (stream) => stream.refuse(stream.method === "POST" ? form : url);
    const { client, errors, states } = world.client();
    const { calls } = hundred(world, client)[0];
    await settle();
    assert.deepEqual([errors.length, errors[0].name, errors[0].code, errors[0].temporary], [1, "stream_too_long", url, true]);
    assert.match(errors[0].message, new RegExp(`${form} and ${url}`));
    assert.deepEqual([client.state, states.at(-1)[1].code, calls.length], ["waiting", 1006, 0]);
    world.onstream = (stream) => {
      stream.open();
      stream.stand();
    };
    await world.pass(60_000);
    assert.deepEqual([client.state, calls.length], ["connected", 1], "once the proxy is another");
  }
});

test("a node's own 400 and 404 are no refusal of a form", async () => {
  for (const status of [400, 404]) {
    const world = blocked({ sockets: false });
    world.onstream = (stream) => stream.refuse(status, { status, detail: "no" });
    const { client, errors } = world.client();
    const watches = hundred(world, client);
    await settle();
    assert.deepEqual([world.streams.length, errors.length, watches.every(({ sub }) => sub.closed)], [1, 0, true], `${status}`);
  }
});

test("one bad mailbox ends alone, and at once", async () => {
  const bad = "#private:bob:Secret";
  const world = blocked();
  const { client, calls, sub } = await streaming(world);
  world.onstream = (stream) => {
    stream.open();
    stream.stand({ [bad]: MISSING });
  };
  const lost = world.watch(client, { mailbox: bad });
  const good = world.watch(client, { mailbox: SENT });
  await world.pass(2_000);
  assert.deepEqual(lost.calls.map(([name, { name: why, code }]) => [name, why, code]), [["onerror", "not_found", 404]]);
  assert.deepEqual([lost.sub.closed, good.sub.closed, sub.closed], [true, false, false]);
  assert.deepEqual(good.names(), ["onready"]);
  await beat(world, 60_000);
  assert.deepEqual(calls.map(([name]) => name), ["onready"], "the one that stood has missed nothing");
  assert.equal(world.streams.length, 2, "nothing is tried again");
});

test("more mailboxes than a stream may have: the rest are refused, each by itself", async () => {
  const world = blocked({ sockets: false });
  const full = { code: 429, name: "limit_reached", message: "at most 128", temporary: false };
  world.onstream = (stream) => {
    stream.open();
    stream.stand(Object.fromEntries(stream.keys().slice(128).map(([, path]) => [path, full])));
  };
  const { client } = world.client();
  const watches = Array.from({ length: 130 }, (_, i) => world.watch(client, { mailbox: `#private:alice:${i}` }));
  await beat(world, 600_000);
  assert.equal(watches.filter(({ names }) => names().join() === "onready").length, 128);
  assert.deepEqual(watches.slice(128).map(({ calls }) => calls[0][1].name), ["limit_reached", "limit_reached"]);
  assert.equal(world.streams.length, 1);
});

test("a stream of which nothing can be watched ends what it was for, not what stands", async () => {
  const { world, client, calls } = await streaming();
  const stand = world.onstream;
  world.onstream = (stream) => stream.refuse(404, { status: 404, detail: "no such mailbox" });
  const lost = world.watch(client, { mailbox: SENT });
  await beat(world, 60_000);
  assert.deepEqual([lost.sub.closed, lost.calls[0][1].name, world.streams.length], [true, "not_found", 2]);
  world.onstream = stand;
  world.streams[0].say(event(INBOX));
  await settle();
  assert.deepEqual(calls.map(([name]) => name), ["onready", "onevent"]);
});

test("a wrong wish ends whom it is from, whatever stands on the same mailbox", async () => {
  const { world, client, calls } = await streaming();
  const stand = world.onstream;
  world.onstream = (stream) => {
    if (stream.url.searchParams.get("fields")?.includes("to")) return stream.refuse(400, { status: 400, detail: "fields: from" });
    stand(stream);
  };
  const wrong = world.watch(client, { mailbox: INBOX, fields: ["to"] });
  await world.pass(10_000);
  assert.deepEqual([wrong.sub.closed, wrong.names(), wrong.calls[0][1].code], [true, ["onerror"], 400]);
  const later = world.watch(client, { mailbox: SENT });
  await beat(world, 60_000);
  assert.deepEqual([later.names(), calls.map(([name]) => name)], [["onready"], ["onready"]]);
  assert.equal(world.streams.length, 3);
  // From the start it is the same: whoever names nothing is not to blame.
  const fresh = blocked({ sockets: false });
  fresh.onstream = world.onstream;
  const log = fresh.client();
  const watches = [{}, { fields: ["to"] }].map((more) => fresh.watch(log.client, { mailbox: INBOX, ...more }));
  await fresh.pass(10_000);
  assert.deepEqual(watches.map(({ names }) => names()), [["onready"], ["onerror"]]);
});

test("two spellings of one mailbox are one, and each is answered by its place", async () => {
  const spell = (path) => path.replace("ALICE", "alice").replace(":inbox", ":INBOX").replace(":sent", ":Sent");
  for (const paths of [["#private:ALICE:inbox", INBOX, SENT], [INBOX, "#private:ALICE:inbox", "#private:ALICE:sent"]]) {
    const world = blocked({ sockets: false });
    world.onstream = (stream) => {
      stream.open();
      stream.stand({}, spell);
    };
    const { client } = world.client();
    const watches = paths.map((mailbox) => world.watch(client, { mailbox }));
    await beat(world, 60_000);
    assert.deepEqual(watches.map(({ sub }) => sub.key.mailbox), [INBOX, INBOX, SENT]);
    assert.deepEqual(watches.map(({ names }) => names().join()), ["onready", "onready", "onready"]);
    assert.equal(world.streams.length, 1);
  }
});

test("a subscription that cannot be settled now is asked for with another stream; the rest goes on", async () => {
  const { world, client, calls } = await streaming();
  world.onstream = (stream) => {
    stream.open();
    stream.stand(world.streams.length === 2 ? { [SENT]: BUSY } : {});
  };
  const late = world.watch(client, { mailbox: SENT });
  await world.pass(6_000);
  assert.deepEqual([late.names(), world.streams.length], [["onerror"], 2], "there is time until the first one has told everything");
  await beat(world, 40_000);
  assert.deepEqual([late.names(), world.streams.length], [["onerror", "onready"], 3]);
  assert.deepEqual(calls.map(([name]) => name), ["onready"]);
});

test("a stream of which nothing could be settled ends, and comes back", async () => {
  const world = blocked({ sockets: false });
  world.onstream = (stream) => {
    stream.open();
    if (world.streams.length > 1) return stream.stand();
    stream.stand({ [INBOX]: BUSY });
    stream.end();
  };
  const { client } = world.client();
  const { names } = world.watch(client, { mailbox: INBOX });
  await world.pass(4_000);
  assert.deepEqual([names(), world.streams.length], [["onerror", "onready"], 2]);
});

test("an expiring token is replaced by another stream, without a gap", async () => {
  const { world, calls, states } = await streaming(blocked({ sockets: false }));
  const [first] = world.streams;
  first.say({ expiring: { in_ms: 60_000 } });
  await world.pass(30_000);
  assert.equal(world.streams.length, 2);
  assert.equal(world.stream.headers.authorization, "Bearer token-2");
  assert.equal(first.aborted, false);
  first.raw(":\n\n");
  await settle();
  assert.equal(first.aborted, true);
  await beat(world, 60_000);
  assert.deepEqual([world.streams.length, world.tokens], [2, 2]);
  assert.deepEqual(calls.map(([name]) => name), ["onready"]);
  assert.equal(states.filter(([state]) => state === "connected").length, 1, "a stream that takes over is no return");
});

test("a replaced stream whose token ends does not cost the new token", async () => {
  const { world } = await streaming(blocked({ sockets: false }));
  world.streams[0].say({ expiring: { in_ms: 1_000 } });
  await world.pass(1_000);
  world.streams[0].say({ disconnect: { code: 4401, reason: "expired", reconnect: true } });
  await settle();
  world.stream.end();
  await world.pass(4_000);
  assert.deepEqual(world.streams.map(({ headers }) => headers.authorization.slice(-1)), ["1", "2", "2"]);
});

test("an expiring token of a stream is asked for again if it cannot be had, or the other stream fails", async () => {
  const world = blocked({ sockets: false });
  const answers = ["first", new Error("none"), "second", "third"];
  const token = async () => {
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const { client } = world.client({ token });
  world.watch(client, { mailbox: INBOX });
  await settle();
  const stand = world.onstream;
  world.onstream = (stream) => (stream.headers.authorization === "Bearer second" ? stream.fail() : stand(stream));
  world.stream.say({ expiring: { in_ms: 60_000 } });
  await beat(world, 50_000);
  assert.deepEqual(world.streams.map(({ headers }) => headers.authorization.slice(7)), ["first", "second", "third"]);
  assert.equal(client.state, "connected");
});

test("a stream that says nothing is left; comments keep it", async () => {
  const { world, client } = await streaming(blocked({ sockets: false }));
  await beat(world, 400_000);
  assert.equal(world.streams.length, 1);
  world.show(true);
  await world.pass(10_000);
  assert.equal(client.state, "connected");
  assert.equal(world.streams.length, 1, "seen again: a stream cannot be asked, but it is not late");
  await world.pass(63_000 + 5_000);
  assert.equal(world.streams[0].aborted, true);
});

test("a WebSocket is tried now and then, and takes over without a gap once it opens", async () => {
  const { world, calls, states } = await streaming();
  await beat(world, 750_000);
  assert.ok(world.sockets.length >= 3 && world.sockets.length <= 7, `${world.sockets.length - 2} tries in 12 minutes`);
  assert.equal(world.streams.length, 1, "meanwhile the stream goes on");
  delete world.onsocket;
  await beat(world, 400_000);
  assert.equal(states.at(-1)[1].transport, "websocket");
  assert.equal(world.stream.aborted, true);
  assert.deepEqual(world.socket.sent[0].connect.resume.subscriptions, [{ mailbox: INBOX }]);
  assert.deepEqual(calls.map(([name]) => name), ["onready"], "nothing was missed");
});

test("a WebSocket that opens but never answers does not cost the stream", async () => {
  const { world, client, states } = await streaming();
  delete world.onsocket;
  world.on_connect = () => {};
  await beat(world, 800_000);
  assert.ok(world.sockets.length > 3);
  assert.deepEqual([client.state, world.streams.length, world.stream.aborted], ["connected", 1, false]);
  assert.equal(states.at(-1)[1].transport, "sse");
});

test("streams that break often do not keep it from trying a WebSocket", async () => {
  const { world, client } = await streaming();
  for (let i = 0; i < 8; i += 1) {
    await world.pass(50_000);
    world.stream.end();
    await settle();
  }
  assert.ok(world.sockets.length > 2, "the sixth minute");
  delete world.onsocket;
  await world.pass(300_000);
  assert.equal(client.state, "connected");
  assert.ok(world.socket.commands("connect").length === 1);
});

test("the user's last session is given up for the one that shall replace it", async () => {
  const { world, client, calls } = await streaming();
  world.onstream = (stream) => {
    if (!world.streams[0].aborted) return stream.refuse(429, { status: 429, detail: "too many sessions" });
    stream.open();
    stream.stand();
  };
  const { names } = world.watch(client, { mailbox: SENT });
  await world.pass(12_000);
  assert.equal(client.state, "connected");
  assert.deepEqual(names(), ["onready"]);
  assert.equal(calls.at(-1)[0], "onresync", "there was a gap");
});

test("a session that is ended while another stream shall replace it stays ended", async () => {
  const { world, client } = await streaming();
  world.onstream = () => {};
  world.watch(client, { mailbox: SENT });
  await world.pass(5_000);
  const [first, second] = world.streams;
  first.say({ disconnect: { code: 4505, reason: "ended", reconnect: false } });
  await settle();
  assert.deepEqual([client.state, second.aborted], ["closed", true]);
  assert.equal(world.pending(), 0);
});

test("where WebSockets are found to be blocked, the stream is taken at once", async () => {
  const waits = [];
  for (let seed = 1; seed <= 20; seed += 1) {
    const world = blocked({ seed });
    world.watch(world.client().client, { mailbox: INBOX });
    await world.pass(4_000);
    waits.push(world.streams[0].at - world.sockets[1].at);
  }
  assert.ok(waits.every((wait) => wait === 0), `${waits}`);
});

test("a stream has one former beside it, not more", async () => {
  const { world, client } = await streaming(blocked({ sockets: false }));
  let most = 0;
  for (let i = 0; i < 10; i += 1) {
    world.watch(client, { mailbox: `#private:alice:${i}` });
    await world.pass(2_500);
    most = Math.max(most, world.streams.filter(({ aborted }) => !aborted).length);
  }
  assert.equal(most, 2);
});

test("a WebSocket is tried even if subscriptions change all the time", async () => {
  const { world, client } = await streaming();
  let current;
  for (let i = 0; i < 10; i += 1) {
    current?.sub.close();
    current = world.watch(client, { mailbox: `#private:alice:${i}` });
    await beat(world, 100_000);
  }
  assert.ok(world.sockets.length - 2 >= 2 && world.sockets.length - 2 <= 5, `${world.sockets.length - 2} in 17 minutes`);
});

/** A stream that stands, and another that shall replace it: open, if not otherwise said, and nothing on it answered yet. */
async function handingOver(paths, onstream = (stream) => stream.open()) {
  const world = blocked({ sockets: false });
  const { client } = world.client();
  const watches = paths.map((mailbox) => world.watch(client, { mailbox }));
  await world.pass(3_000);
  world.onstream = onstream;
  const more = world.watch(client, { mailbox: SENT });
  await world.pass(3_000);
  const [former, link] = world.streams;
  assert.deepEqual([world.streams.length, former.aborted, link.keys().length], [2, false, paths.length + 1]);
  return { world, client, watches, more, former, link };
}

const [WORK, JOB] = ["#private:alice:Work", "#private:alice:Job"];

test("a replaced stream's positions are not the last ones", async () => {
  const { world, former, link } = await handingOver([INBOX]);
  link.stand();
  await settle();
  const push = event(SENT);
  link.say(push);
  await settle();
  former.say(event(INBOX));
  await settle();
  link.end();
  await world.pass(4_000);
  assert.equal(world.stream.headers["last-event-id"], push.event.pos);
});

test("what is renamed while a stream is replaced is still known to both", async () => {
  const { world, watches, former, link } = await handingOver([WORK]);
  former.say(event(WORK, "MailboxRename", { to: JOB }));
  await settle();
  assert.deepEqual(watches[0].sub.key, { mailbox: JOB });
  former.end();
  await settle();
  watches[0].clear();
  link.say({ id: 0, subscribe: { key: { mailbox: JOB }, rights: "lr" } });
  await settle();
  assert.deepEqual(watches[0].names(), ["onresync"], "between the two there may have been something");
  await world.pass(10_000);
  assert.equal(world.streams.length, 2);
});

test("what is revoked while a stream is replaced does not stand on the former either", async () => {
  const team = "#private:bob:Team";
  const { world, client, watches, more, former, link } = await handingOver([WORK, team], () => {});
  former.say({ revoked: { key: { mailbox: team } } });
  await settle();
  assert.equal(watches[1].sub.closed, true);
  more.sub.close();
  const again = world.watch(client, { mailbox: team });
  link.fail();
  await settle();
  assert.deepEqual(again.names(), []);
  world.onstream = (stream) => {
    stream.open();
    stream.stand({ [team]: MISSING });
  };
  await world.pass(10_000);
  assert.deepEqual(again.names(), ["onerror"]);
});
