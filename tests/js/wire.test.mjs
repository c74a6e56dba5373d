// The client on real sockets, with Node's own fetch (and WebSocket, where it has one).

import assert from "node:assert/strict";
import { test } from "node:test";
import { Mailpush } from "../../static/mailpush.js";
import { WebSocket, listen } from "./server.mjs";
import { INBOX, World, event } from "./world.mjs";

/** What happened, in order; a test waits for the next thing of a name. */
class Story {
  #told = [];
  #waiting = [];
  tell(name, ...words) {
    const at = this.#waiting.findIndex((waits) => waits.name === name);
    if (at >= 0) this.#waiting.splice(at, 1)[0].resolve(words);
    else this.#told.push([name, words]);
  }
  next(name) {
    const at = this.#told.findIndex(([told]) => told === name);
    if (at >= 0) return Promise.resolve(this.#told.splice(at, 1)[0][1]);
    return new Promise((resolve) => this.#waiting.push({ name, resolve }));
  }
  has(name) {
    return this.#told.some(([told]) => told === name);
  }
}

const LIMIT = { timeout: 30_000 };

async function play(t, on) {
  const story = new Story();
  const server = await listen(on(story));
  const client = new Mailpush({
    url: server.url,
    token: () => "secret",
    onstate: (state, detail) => story.tell(state, detail),
    backoff: { baseMs: 100, maxMs: 200 },
    environment: { WebSocket },
  });
  t.after(() => {
    client.close();
    server.close();
  });
  const sub = client.subscribe({ mailbox: INBOX }, {
    onready: (ready) => story.tell("ready", ready),
    onevent: (one) => story.tell("event", one),
    onresync: (reason) => story.tell("resync", reason),
  });
  return { story, client, sub };
}

const hello = World.prototype.hello.call({ epoch: Date.now(), time: 0 });

/** Answers connect and subscribe. */
function serve(peer, story) {
  peer.on("close", (code) => story.tell("gone", code));
  peer.on("pong", () => story.tell("pong"));
  peer.on("text", (text) => {
    const { id, connect, subscribe } = JSON.parse(text);
    story.tell("frame", JSON.parse(text));
    const resumed = connect?.resume?.subscriptions.map((key) => ({ key, recovered: false, rights: "lr" }));
    if (connect) peer.send(JSON.stringify({ id, connect: { ...hello, resumed } }));
    if (subscribe) peer.send(JSON.stringify({ id, subscribe: { key: subscribe, rights: "lr" } }));
  });
}

test("a WebSocket: the first frame, events in fragments, heartbeats, the way back, goodbye", LIMIT, async (t) => {
  const { story, client } = await play(t, (story) => ({
    stream: () => assert.fail("no stream is wanted"),
    socket: (peer, request) => {
      story.tell("socket", peer, request);
      serve(peer, story);
    },
  }));
  const [peer, request] = await story.next("socket");
  assert.equal(request.url, "/v1/ws");
  assert.equal(request.headers["sec-websocket-protocol"], "mailpush.v1");
  assert.deepEqual(await story.next("frame"), [{ id: 1, connect: { token: "secret" } }]);
  assert.deepEqual(await story.next("frame"), [{ id: 2, subscribe: { mailbox: INBOX } }]);
  assert.deepEqual(await story.next("ready"), [{ key: { mailbox: INBOX }, rights: "lr" }]);
  const push = event(INBOX, "MessageNew", { messages: [{ uid: 1, envelope: { subject: `naïve 🎉 ${"x".repeat(300)}` } }] });
  peer.sendSplit(JSON.stringify(push));
  assert.deepEqual(await story.next("event"), [push.event.event]);
  await story.next("pong");
  peer.send("{}");
  assert.deepEqual(await story.next("frame"), [{}]);

  peer.send(JSON.stringify({ disconnect: { code: 4412, reason: "down", reconnect: true, reconnect_after_ms: 50 } }));
  peer.close(4412, "down");
  const [waiting] = await story.next("waiting");
  assert.deepEqual([waiting.code, waiting.retryInMs], [4412, 50]);
  const [{ connect }] = await story.next("frame");
  assert.deepEqual(connect.resume, { pos: push.event.pos, subscriptions: [{ mailbox: INBOX }] });
  assert.deepEqual(await story.next("resync"), ["reconnected"]);

  await story.next("gone");
  client.close();
  assert.deepEqual(await story.next("gone"), [1000]);
});

test("a connection cut without a word comes back", LIMIT, async (t) => {
  const { story } = await play(t, (story) => ({
    socket: (peer) => {
      story.tell("socket", peer);
      serve(peer, story);
    },
  }));
  const [first] = await story.next("socket");
  await story.next("ready");
  first.socket.destroy();
  const [{ code }] = await story.next("waiting");
  assert.equal(code, 1006);
  await story.next("resync");
});

test("a close code is final over the wire too", LIMIT, async (t) => {
  const { story, client, sub } = await play(t, (story) => ({
    socket: (peer) => {
      story.tell("socket", peer);
      serve(peer, story);
    },
  }));
  const [peer] = await story.next("socket");
  await story.next("ready");
  peer.close(4505, "the session was ended");
  assert.deepEqual(await story.next("closed"), [{ code: 4505, reason: "the session was ended" }]);
  assert.deepEqual([client.state, sub.closed], ["closed", true]);
});

test("where upgrades are refused, events come by a stream", LIMIT, async (t) => {
  const { story, client } = await play(t, (story) => ({
    stream: (response, request) => {
      story.tell("stream", response, request);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`retry: 3000\n\nevent: subscribe\ndata: {"id":0,"subscribe":{"key":{"mailbox":"${INBOX}"},"rights":"lr"}}\n\n`);
      response.on("close", () => story.tell("gone"));
    },
  }));
  const [response, request] = await story.next("stream");
  assert.equal(request.headers.authorization, "Bearer secret");
  assert.equal(request.url, `/v1/stream?mailbox=${encodeURIComponent(INBOX)}`);
  await story.next("ready");
  const push = event(INBOX, "MessageNew", { messages: [{ uid: 1, envelope: { subject: "naïve 🎉" } }] });
  const text = Buffer.from(`id: ${push.event.pos}\nevent: event\ndata: ${JSON.stringify(push)}\n\n`);
  const half = text.indexOf(0xf0) + 2;
  response.write(text.subarray(0, half));
  response.write(text.subarray(half));
  assert.deepEqual(await story.next("event"), [push.event.event]);
  response.end();
  const [, again] = await story.next("stream");
  assert.equal(again.headers["last-event-id"], push.event.pos);
  await story.next("resync");
  await story.next("gone");
  client.close();
  await story.next("gone");
});
