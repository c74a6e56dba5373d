// What becomes of subscriptions: renamed, deleted, revoked, shared, respelt, refused.

import assert from "node:assert/strict";
import { test } from "node:test";
import { INBOX, MISSING, SENT, World, connected, event, settle } from "./world.mjs";

test("what moves or ends a subscription is told whatever its types", async () => {
  const work = "#private:alice:Work";
  const { world, client, calls, sub } = await connected({}, { mailbox: work, types: ["MessageNew"] });
  assert.deepEqual(world.socket.commands("subscribe"), [{ mailbox: work, types: ["MessageNew"] }]);
  const account = world.watch(client, { account: "alice", types: ["MessageNew"] });
  await settle();
  [account, { clear: () => calls.splice(0) }].forEach((one) => one.clear());
  world.socket.say(event(work, "MailboxRename", { to: "#private:alice:Job" }));
  world.socket.say(event("#private:alice:Job", "FlagsSet"));
  world.socket.say(event("#private:alice:Job", "MailboxDelete"));
  assert.deepEqual(calls.map(([name, { type }]) => [name, type]), [["onevent", "MailboxRename"], ["onevent", "MailboxDelete"]]);
  assert.equal(sub.closed, true);
  assert.deepEqual(account.calls, [], "it is an account's of which these are no more than events");
});

test("revoked ends a subscription, and tells an account's with what is shared", async () => {
  const team = { mailbox: "#private:bob:Team" };
  const { world, client, calls, sub } = await connected({}, team);
  const shared = world.watch(client, { account: "alice", shared: true });
  const own = world.watch(client, { account: "alice" });
  await settle();
  [shared, own, { clear: () => calls.splice(0) }].forEach((one) => one.clear());
  world.socket.say({ revoked: { key: team } });
  assert.deepEqual(calls, [["onrevoked", team]]);
  assert.equal(sub.closed, true);
  assert.deepEqual(shared.calls, [["onrevoked", team]]);
  assert.equal(shared.sub.closed, false);
  assert.deepEqual(own.calls, []);
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), [], "the server has ended it already");
  world.socket.end(1006);
  await world.pass(4_000);
  const { subscriptions } = world.socket.sent[0].connect.resume;
  assert.deepEqual(subscriptions, [{ account: "alice", shared: true }]);
});

test("a rename takes a subscription along; of what is below it the server tells by itself, under the same id", async () => {
  const { world, client, sub, calls } = await connected({}, { mailbox: "#private:alice:Work" });
  const below = world.watch(client, { mailbox: "#private:alice:Work/2024" });
  const beside = world.watch(client, { mailbox: "#private:alice:Workshop" });
  await settle();
  const push = event("#private:alice:Work", "MailboxRename", { to: "#private:alice:Job" });
  world.socket.say(push);
  assert.deepEqual(below.sub.key, { mailbox: "#private:alice:Work/2024" }, "it may be revoked under this name instead");
  const derived = { ...push.event.event, mailbox: "#private:alice:Work/2024", to: "#private:alice:Job/2024" };
  world.socket.say({ event: { ...push.event, event: derived } });
  assert.deepEqual(below.calls.slice(1), [["onevent", derived]]);
  assert.deepEqual([sub.key, below.sub.key, beside.sub.key], [
    { mailbox: "#private:alice:Job" },
    { mailbox: "#private:alice:Job/2024" },
    { mailbox: "#private:alice:Workshop" },
  ]);
  world.socket.say(event("#private:alice:Job"));
  world.socket.say(event("#private:alice:Work"));
  assert.equal(calls.filter(([name]) => name === "onevent").length, 2, "the rename, and what came under the new path");
  await settle();
  assert.equal(world.socket.sent.length, 4, "the server has moved it too");
  sub.close();
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), [{ mailbox: "#private:alice:Job" }]);
  world.socket.end(1006);
  await world.pass(4_000);
  const { subscriptions } = world.socket.sent[0].connect.resume;
  assert.deepEqual(subscriptions.map(({ mailbox }) => mailbox), ["#private:alice:Job/2024", "#private:alice:Workshop"]);
});

test("renaming INBOX moves its messages, not its subscription", async () => {
  const { world, sub, calls } = await connected();
  world.socket.say(event(INBOX, "MailboxRename", { to: "#private:alice:Old" }));
  assert.equal(calls.at(-1)[0], "onevent");
  assert.deepEqual(sub.key, { mailbox: INBOX });
});

test("a user's new name takes the account's subscription along, and its mailboxes by events of their own", async () => {
  const { world, client, sub, calls } = await connected();
  const account = world.watch(client, { account: "alice", types: ["MessageNew"] });
  await settle();
  calls.splice(0);
  account.clear();
  const push = event(INBOX, "AccountRename", { to: "alicia" });
  world.socket.say(push);
  assert.deepEqual([account.sub.key, sub.key, calls], [{ account: "alicia" }, { mailbox: INBOX }, []]);
  assert.deepEqual(account.names(), ["onevent"], "whatever its types");
  const to = "#private:alicia:INBOX";
  world.socket.say({ event: { ...push.event, event: { ...push.event.event, type: "MailboxRename", to } } });
  assert.deepEqual([sub.key, calls[0][1].to], [{ mailbox: to }, to]);
  account.clear();
  world.socket.say(event(to));
  assert.deepEqual([account.names(), calls.length], [["onevent"], 2]);
  world.socket.say({ resync: { keys: [{ account: "alicia" }], reason: "renamed" } });
  assert.equal(account.calls.at(-1)[0], "onresync");
});

test("what was renamed before it settled is asked for under its new name", async () => {
  const world = new World();
  const stand = world.on_subscribe;
  world.on_subscribe = (socket, id) => {
    world.on_subscribe = stand;
    socket.say(event(SENT, "MailboxRename", { to: "#private:alice:Gone" }));
    socket.say({ id, error: { code: 404, name: "not_subscribed", message: "no such subscription", temporary: false } });
  };
  const { client } = world.client();
  const { names, sub } = world.watch(client, { mailbox: SENT });
  await world.pass(4_000);
  assert.deepEqual([names(), sub.key], [["onerror", "onready"], { mailbox: "#private:alice:Gone" }]);
});

test("a deletion is told and ends a mailbox's subscription, not an account's", async () => {
  const { world, client, sub, calls } = await connected();
  const account = world.watch(client, { account: "alice" });
  await settle();
  world.socket.say(event(INBOX, "MailboxDelete"));
  assert.equal(calls.at(-1)[1].type, "MailboxDelete");
  assert.equal(sub.closed, true);
  assert.equal(account.sub.closed, false);
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), [{ mailbox: INBOX }]);
});

test("two subscriptions to one mailbox share what the server is asked for", async () => {
  const { world, client, sub } = await connected({}, { mailbox: INBOX, types: ["MessageNew"] });
  const second = world.watch(client, { mailbox: INBOX, fields: ["from"] });
  const third = world.watch(client, { mailbox: INBOX });
  await settle();
  assert.deepEqual(world.socket.commands("subscribe").at(-1), { mailbox: INBOX, fields: ["from"] });
  assert.deepEqual([second.names(), third.names()], [["onready"], ["onready"]]);
  const asked = world.socket.sent.length;
  const fourth = world.watch(client, { mailbox: INBOX });
  await settle();
  assert.equal(world.socket.sent.length, asked, "it stands already");
  assert.deepEqual(fourth.names(), ["onready"]);
  [sub, second.sub, fourth.sub].forEach((one) => one.close());
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), []);
  third.sub.close();
  third.sub.close();
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), [{ mailbox: INBOX }]);
  world.socket.say(event(INBOX));
  assert.deepEqual(third.names(), ["onready"], "closed is closed");
});

test("the server's spelling of a key counts from then on", async () => {
  const world = new World();
  world.on_subscribe = (socket, id) => socket.say({ id, subscribe: { key: { mailbox: INBOX }, rights: "lr" } });
  const { client } = world.client();
  const one = world.watch(client, { mailbox: "#private:ALICE:inbox" });
  const two = world.watch(client, { mailbox: INBOX });
  await settle();
  assert.deepEqual(one.sub.key, { mailbox: INBOX });
  world.socket.say(event(INBOX));
  assert.deepEqual([one.names(), two.names()], [["onready", "onevent"], ["onready", "onevent"]]);
  one.sub.close();
  await settle();
  assert.deepEqual(world.socket.commands("unsubscribe"), []);
});

/** A server that knows INBOX in any spelling, and answers half a second later. */
function slowServer(world) {
  const key = { mailbox: INBOX };
  const held = new Map();
  const waiting = new Map();
  world.on_subscribe = (socket, id, { types }) => {
    waiting.set(id, () => {
      held.set(INBOX, types);
      socket.say({ id, subscribe: { key, rights: "lr" } });
    });
    world.environment.setTimeout(() => {
      waiting.get(id)?.();
      waiting.delete(id);
    }, 500);
  };
  world.on_unsubscribe = (socket, id) => {
    for (const tag of waiting.keys()) socket.say({ id: tag, error: { ...MISSING, name: "not_subscribed" } });
    waiting.clear();
    held.clear();
    socket.say({ id, unsubscribe: { key } });
  };
  return held;
}

test("what is closed under another spelling, before it is answered, takes nothing along", async () => {
  const world = new World();
  const held = slowServer(world);
  const { client } = world.client();
  const one = world.watch(client, { mailbox: INBOX });
  await world.pass(1_000);
  const two = world.watch(client, { mailbox: "#private:Alice:inbox" });
  await world.pass(100);
  two.sub.close();
  await world.pass(10_000);
  assert.deepEqual([[...held.keys()], one.names(), two.names()], [[INBOX], ["onready"], []]);
  one.sub.close();
  await world.pass(1_000);
  assert.equal(held.size, 0);
});

test("what is closed before it is answered is given up once it is", async () => {
  const world = new World();
  const held = slowServer(world);
  const { sub, names } = world.watch(world.client().client, { mailbox: INBOX });
  await settle();
  sub.close();
  await world.pass(1_000);
  assert.deepEqual([held.size, names(), world.socket.commands("unsubscribe").length], [0, [], 1]);
});

test("who wants more of what is being asked for is not ready before that is answered", async () => {
  const world = new World();
  slowServer(world);
  const { client } = world.client();
  const one = world.watch(client, { mailbox: INBOX, types: ["MessageNew"] });
  await world.pass(300);
  const two = world.watch(client, { mailbox: INBOX });
  await world.pass(300);
  assert.deepEqual([one.names(), two.names()], [[], []], "what is answered by now is less than both want");
  await world.pass(300);
  assert.deepEqual([one.names(), two.names()], [["onready"], ["onready"]]);
});

test("two spellings with two wishes are asked for in one, and what was told too little meanwhile is read again", async () => {
  const world = new World();
  const held = slowServer(world);
  const { client } = world.client();
  const one = world.watch(client, { mailbox: INBOX });
  await world.pass(1_000);
  const two = world.watch(client, { mailbox: "#private:Alice:inbox", types: ["MessageNew"] });
  await world.pass(600);
  assert.equal(held.get(INBOX)?.join(), "MessageNew", "the second has displaced the first");
  assert.deepEqual(one.names(), ["onready"]);
  await world.pass(1_000);
  assert.deepEqual([held.get(INBOX), one.names(), two.names()], [undefined, ["onready", "onresync"], ["onready"]]);
});

test("a wrong wish ends whom it is from, not who has been there before", async () => {
  const { world, client, names, sub } = await connected();
  const stand = world.on_subscribe;
  world.on_subscribe = (socket, id, body) => {
    if (!body.fields?.includes("to")) return stand.call(world, socket, id, body);
    socket.say({ id, error: { code: 400, name: "bad_request", message: "fields: one of from", temporary: false } });
  };
  const wrong = world.watch(client, { mailbox: INBOX, fields: ["to"] });
  await world.pass(60_000);
  assert.deepEqual([wrong.names(), wrong.sub.closed], [["onerror"], true]);
  assert.deepEqual([names(), sub.closed], [["onready"], false]);
  assert.deepEqual([world.sockets.length, world.socket.commands("subscribe").length], [1, 2]);
  world.socket.say(event(INBOX));
  assert.deepEqual(names(), ["onready", "onevent"]);
});

test("a refused subscription ends alone; one refused for now is tried again", async () => {
  const world = new World();
  const busy = { code: 503, name: "unavailable", message: "later", temporary: true, retry_after_ms: 2_000 };
  const missing = { code: 404, name: "not_found", message: "no", temporary: false };
  const stand = world.on_subscribe;
  world.on_subscribe = (socket, id, { mailbox }) => socket.say({ id, error: mailbox === SENT ? busy : missing });
  const { client } = world.client();
  const lost = world.watch(client, { mailbox: INBOX });
  const late = world.watch(client, { mailbox: SENT });
  await settle();
  assert.deepEqual(lost.calls.map(([name, error]) => [name, error.name, error.code, error.temporary]), [
    ["onerror", "not_found", 404, false],
  ]);
  assert.equal(lost.sub.closed, true);
  assert.deepEqual(late.calls.map(([name, error]) => [name, error.temporary]), [["onerror", true]]);
  assert.equal(client.state, "connected");
  const asked = world.socket.commands("subscribe").length;
  await world.pass(1_900);
  assert.equal(world.socket.commands("subscribe").length, asked);
  world.on_subscribe = stand;
  await world.pass(2_200);
  assert.deepEqual(late.names(), ["onerror", "onready"]);
  assert.equal(world.sockets.length, 1);
});
