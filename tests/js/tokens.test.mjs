// Tokens: when they are asked for, shown, refreshed and thrown away.

import assert from "node:assert/strict";
import { test } from "node:test";
import { INBOX, World, connected, settle } from "./world.mjs";

test("an expiring token is refreshed on the same connection", async () => {
  const { world, calls } = await connected();
  world.socket.say({ expiring: { in_ms: 60_000 } });
  await world.pass(27_000);
  await world.pass(3_000);
  assert.deepEqual(world.socket.commands("refresh"), [{ token: "token-2" }]);
  assert.equal(world.sockets.length, 1);
  assert.deepEqual(calls.map(([name]) => name), ["onready"]);
  world.socket.end(1006);
  await world.pass(4_000);
  assert.equal(world.socket.sent[0].connect.token, "token-2");
});

test("a token that cannot be had, or is refused, is asked for again and told", async () => {
  const world = new World();
  let fail = false;
  const token = async () => {
    if (fail) throw new Error("no session");
    return `token-${(world.tokens += 1)}`;
  };
  const { client, errors } = world.client({ token });
  world.watch(client, { mailbox: INBOX });
  await settle();
  fail = true;
  world.socket.say({ expiring: { in_ms: 60_000 } });
  await world.pass(30_000);
  assert.ok(errors.length >= 2 && errors.length <= 20, `${errors.length} times`);
  assert.ok(errors.every(({ name, temporary, message }) => name === "token" && temporary && message.includes("no session")));
  fail = false;
  const answer = world.on_refresh;
  world.on_refresh = (socket, id) => {
    world.on_refresh = answer;
    socket.say({ id, error: { code: 403, name: "forbidden", message: "another user's", temporary: false } });
  };
  await world.pass(120_000);
  assert.equal(errors.at(-1).name, "forbidden");
  assert.equal(world.socket.commands("refresh").length, 2);
  assert.equal(client.state, "connected");
});

test("a token that the server refuses is shown to nobody again", async () => {
  const world = new World();
  const tokens = ["good-1", "<html>sign in</html>"];
  const { client, errors } = world.client({ token: async () => tokens.shift() ?? "good-2" });
  const malformed = { code: 401, name: "token_malformed", message: "no", temporary: false };
  const { on_connect, on_refresh } = world;
  world.on_connect = (socket, id, body) => {
    if (body.token.startsWith("good")) return on_connect.call(world, socket, id, body);
    socket.say({ id, error: malformed });
    socket.say({ disconnect: { code: 4500, reason: "the token is not valid", reconnect: false } });
  };
  world.on_refresh = (socket, id, body) => {
    if (body.token.startsWith("good")) on_refresh.call(world, socket, id, body);
    else socket.say({ id, error: malformed });
  };
  world.watch(client, { mailbox: INBOX });
  await settle();
  world.socket.say({ expiring: { in_ms: 100 } });
  await world.pass(100);
  assert.deepEqual(errors.map(({ name }) => name), ["token_malformed"]);
  world.socket.end(1006);
  await world.pass(4_000);
  assert.equal(client.state, "connected");
  assert.equal(world.socket.sent[0].connect.token, "good-2");
});

test("a token that the server cannot check now is kept", async () => {
  const { world } = await connected();
  world.on_refresh = (socket, id) =>
    socket.say({ id, error: { code: 503, name: "unavailable", message: "later", temporary: true } });
  world.socket.say({ expiring: { in_ms: 100 } });
  await world.pass(100);
  world.socket.end(1006);
  await world.pass(4_000);
  assert.equal(world.socket.sent[0].connect.token, "token-2");
});

test("a token whose key the server does not know yet is shown again, on a socket and on a stream", async () => {
  const world = new World();
  const { on_connect } = world;
  world.on_connect = (socket, id) => {
    socket.say({ id, error: { code: 503, name: "unavailable", message: "not known yet", temporary: true, retry_after_ms: 2_000 } });
    socket.say({ disconnect: { code: 4413, reason: "tokens cannot be checked at the moment", reconnect: true } });
    socket.end(4413);
  };
  const { client, errors } = world.client();
  world.watch(client, { mailbox: INBOX });
  await world.pass(8_000);
  assert.notEqual(client.state, "closed");
  assert.ok(errors.length > 0 && errors.every(({ temporary }) => temporary));
  world.on_connect = on_connect;
  await world.pass(60_000);
  assert.equal(client.state, "connected");
  assert.equal(world.socket.sent[0].connect.token, "token-1");
  assert.equal(world.tokens, 1);

  const streaming = new World({ sockets: false });
  const second = streaming.client();
  streaming.watch(second.client, { mailbox: INBOX });
  await settle();
  streaming.streams.at(-1).refuse(503, { status: 503, detail: "not known yet", code: "token_key_pending" }, { "retry-after": "2" });
  await streaming.pass(4_000);
  assert.notEqual(second.client.state, "closed");
  assert.ok(streaming.streams.length > 1, "it came back");
  assert.equal(streaming.streams.at(-1).headers.authorization, "Bearer token-1");
});

test("a token that lives for no longer than the server's notice is not asked for without pause", async () => {
  const world = new World();
  const until = () => world.epoch + world.time + 60_000;
  const expiring = (socket) => queueMicrotask(() => socket.say({ expiring: { in_ms: 60_000 } }));
  world.on_connect = (socket, id) => {
    socket.say({ id, connect: { ...world.hello(), token_expires_at: until() } });
    expiring(socket);
  };
  world.on_refresh = (socket, id) => {
    socket.say({ id, refresh: { token_expires_at: until() } });
    expiring(socket);
  };
  world.watch(world.client().client, { mailbox: INBOX });
  for (let i = 0; i < 15; i += 1) {
    await world.pass(20_000);
    world.socket.say("{}");
  }
  assert.ok(world.tokens > 10 && world.tokens < 40, `${world.tokens} in five minutes`);
  assert.equal(world.sockets.length, 1);
});

test("a thousand clients of a node that are told at once do not ask for tokens at once", async () => {
  const world = new World();
  for (let i = 0; i < 1_000; i += 1) world.watch(world.client().client, { mailbox: INBOX });
  await settle();
  const before = world.tokens;
  world.sockets.forEach((socket) => socket.say({ expiring: { in_ms: 60_000 } }));
  await world.pass(3_000);
  assert.ok(world.tokens - before < 150, `${world.tokens - before} in the first of ten parts`);
  world.sockets.forEach((socket) => socket.say("{}"));
  await world.pass(27_000);
  assert.equal(world.tokens - before, 1_000, "each in the first half of what is left");
});

test("a token that will not last is not shown again; one that will is", async () => {
  for (const [left, token] of [[29_000, "token-2"], [60_000, "token-1"]]) {
    const { world } = await connected();
    world.socket.end(1006);
    await world.pass(4_000);
    world.on_connect = World.prototype.on_connect;
    world.hello = () => ({ ...World.prototype.hello.call(world), token_expires_at: world.epoch + world.time + left });
    world.socket.end(1006);
    await world.pass(8_000);
    world.socket.end(1006);
    await world.pass(1);
    const tried = world.sockets.length;
    await world.pass(16_000);
    assert.ok(world.sockets.length > tried);
    assert.equal(world.sockets[tried].sent[0].connect.token, token);
  }
});

test("a token that has expired when it is shown is replaced, and told as something that passes", async () => {
  const { world, client, errors } = await connected();
  world.on_connect = (socket, id) => {
    delete world.on_connect;
    socket.say({ id, error: { code: 401, name: "token_expired", message: "no", temporary: false } });
    socket.say({ disconnect: { code: 4401, reason: "no", reconnect: true } });
  };
  world.socket.end(1006);
  await world.pass(16_000);
  assert.equal(client.state, "connected");
  assert.deepEqual(errors.map(({ name, temporary }) => [name, temporary]), [["token_expired", true]]);
});

test("a callback that gives the same token again is not called without pause", async () => {
  const world = new World();
  let asked = 0;
  const until = world.epoch + 60_000;
  world.hello = () => ({ ...World.prototype.hello.call(world), token_expires_at: until });
  world.on_refresh = (socket, id) =>
    queueMicrotask(() => {
      socket.say({ id, refresh: { token_expires_at: until } });
      socket.say({ expiring: { in_ms: until - world.epoch - world.time } });
    });
  const { client } = world.client({ token: () => `same ${(asked += 1)}` });
  world.watch(client, { mailbox: INBOX });
  await settle();
  world.socket.say({ expiring: { in_ms: 60_000 } });
  await world.pass(59_000);
  assert.ok(asked >= 3 && asked < 20, `${asked} times`);
});

test("a first token that fails, is empty or never comes delays, and is told", async () => {
  const world = new World();
  const answers = [() => Promise.reject(new Error("down")), () => "", () => new Promise(() => {}), () => " good\n"];
  const { client, errors, states } = world.client({ token: () => answers.shift()() });
  world.watch(client, { mailbox: INBOX });
  await settle();
  assert.equal(client.state, "waiting");
  assert.ok(states.at(-1)[1].retryInMs <= 4_000);
  await world.pass(80_000);
  assert.equal(client.state, "connected");
  assert.deepEqual(errors.map(({ name }) => name), ["token", "token", "token"]);
  assert.equal(world.socket.sent[0].connect.token, "good");
});
