// The client against a real node, which `tests/all/tools/javascript.rs` starts: what it is told, once by WebSocket and once by stream.
//
// NODE: { url, imap, secret, pid, and the tokens admin, alice, bob }

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import net from "node:net";
import { Mailpush } from "../../static/mailpush.js";
import { WebSocket } from "./server.mjs";

const NODE = JSON.parse(process.env.NODE);
const PATH = (name) => `#private:alice@example.org:${name}`;

async function until(what, holds) {
  const end = Date.now() + 20_000;
  for (let wait = 1; !holds(); wait = Math.min(50, wait * 2)) {
    assert.ok(Date.now() < end, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

async function ask(method, path, body) {
  const headers = { authorization: `Bearer ${NODE.admin}`, "content-type": "application/json" };
  const answer = await fetch(NODE.url + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json().catch(() => undefined);
}

/** A token of Alice's, good for five seconds. */
function expiresSoon() {
  const claims = { sub: "alice@example.org", aud: "mailpush", scope: "push", exp: Date.now() / 1_000 + 5 };
  const text = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", NODE.secret).update(text).digest("base64url")}`;
}

const tell = (type, name, more = {}) => ask("POST", "/v1/events", [{ type, mailbox: PATH(name), ...more }]);

/** Alice says these to the mail server, through the node, which hears of rights that change. */
async function imap(...commands) {
  const [host, port] = NODE.imap.split(":");
  const socket = net.connect(Number(port), host);
  let said = "";
  socket.on("data", (data) => (said += data));
  for (const [i, command] of ["LOGIN alice alice", ...commands].entries()) {
    socket.write(`a${i} ${command}\r\n`);
    await until(`an answer to ${command}: ${said}`, () => said.includes(`a${i} `));
    assert.match(said, new RegExp(`a${i} OK`), command);
  }
  socket.destroy();
}

/** What the client of the play under way has said, for whom it fails. */
let last;

function open(environment, token) {
  const log = { states: [], errors: [] };
  last = log;
  const client = new Mailpush({
    url: NODE.url,
    token,
    onstate: (state, detail) => log.states.push({ state, ...detail }),
    onerror: (error) => log.errors.push(error),
    backoff: { baseMs: 200, maxMs: 1_000 },
    environment,
  });
  const watch = (what) => {
    const calls = [];
    const note = (name) => (...words) => calls.push([name, ...words]);
    const sub = client.subscribe(what, {
      onready: note("ready"), onevent: note("event"), onresync: note("resync"), onrevoked: note("revoked"), onerror: note("error"),
    });
    const has = (name, more = () => true) => calls.some(([called, ...words]) => called === name && more(...words));
    return { sub, calls, has, ready: () => until("ready", () => has("ready")) };
  };
  return { client, watch, ...log };
}

async function changes(environment) {
  const { client, watch, states } = open(environment, () => NODE.alice);
  const inbox = watch({ mailbox: "#private:ALICE@example.org:inbox", types: ["MessageNew"], fields: ["subject"] });
  const account = watch({ account: "ALICE@example.org" });
  const wrong = watch({ mailbox: "#private:bob@example.org:Diary" });
  const [work, below] = [watch({ mailbox: PATH("Work") }), watch({ mailbox: PATH("Work/2024") })];
  await until("the one that is not allowed is refused", () => wrong.sub.closed);
  assert.equal(wrong.calls[0][1].name, "not_found");
  for (const one of [inbox, account, work, below]) await one.ready();
  assert.deepEqual(inbox.sub.key, { mailbox: PATH("INBOX") });
  assert.deepEqual(account.sub.key, { account: "alice@example.org" });
  await tell("MessageNew", "INBOX", { messages: [{ uid: 7, envelope: { subject: "naïve 🎉" } }] });
  for (const one of [inbox, account]) await until("mail", () => one.has("event", (event) => event.messages?.[0].uid === 7));
  assert.equal(inbox.calls.at(-1)[1].messages[0].envelope.subject, "naïve 🎉");
  await tell("MailboxRename", "Work", { to: PATH("Job") });
  await until("a new name", () => work.sub.key.mailbox === PATH("Job") && below.sub.key.mailbox === PATH("Job/2024"));
  await tell("MessageNew", "Job/2024", { messages: [{ uid: 1 }] });
  await until("mail under it", () => below.has("event", (event) => event.mailbox === PATH("Job/2024") && event.messages));
  await tell("MailboxDelete", "Job");
  await until("an end", () => work.sub.closed);
  assert.equal(work.calls.at(-1)[1].type, "MailboxDelete");
  const later = watch({ mailbox: PATH("Later") });
  await later.ready();
  await tell("MessageNew", "INBOX", { messages: [{ uid: 8 }] });
  await until("mail still", () => inbox.has("event", (event) => event.messages?.[0].uid === 8));
  const ids = inbox.calls.filter(([name]) => name === "event").map(([, event]) => event.id);
  assert.equal(new Set(ids).size, ids.length, "nothing twice");
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "connected"]);
  client.close();
}

async function shared(environment) {
  const { client, watch } = open(environment, () => NODE.bob);
  const account = watch({ account: "bob@example.org", shared: true });
  await account.ready();
  await imap("SETACL Team bob lr");
  const mail = async (uid) => {
    await tell("MessageNew", "Team", { messages: [{ uid }] });
    return account.has("event", (event) => event.messages?.some((message) => message.uid === uid));
  };
  let uid = 0;
  await until("Team is shared", () => {
    void mail((uid += 1));
    return account.has("event", (event) => event.messages);
  });
  await imap("DELETEACL Team bob");
  await until("Team is revoked", () => account.has("revoked", (key) => key.mailbox === PATH("Team")));
  assert.equal(account.sub.closed, false);
  client.close();
}

async function ended(environment) {
  const { client, watch, states } = open(environment, () => NODE.alice);
  const { sub, calls, ready } = watch({ account: "alice@example.org" });
  await ready();
  await ask("DELETE", "/v1/users/alice@example.org/sessions");
  await until("an end", () => client.state === "closed");
  assert.equal(states.at(-1).code, 4505);
  assert.equal(sub.closed, true);
  assert.deepEqual(calls.at(-1).slice(0, 1).concat(calls.at(-1)[1].name), ["error", "closed"]);
}

/** A token that expires soon: refreshed on the WebSocket, and with another stream that takes over. */
async function expiring(environment) {
  const tokens = [expiresSoon()];
  let asked = 0;
  const { client, watch, states, errors } = open(environment, () => ((asked += 1), tokens.shift() ?? NODE.alice));
  const account = watch({ account: "alice@example.org" });
  await account.ready();
  await until("another token", () => asked === 2);
  await until("connected", () => client.state === "connected");
  await tell("MessageNew", "INBOX", { messages: [{ uid: 9 }] });
  await until("mail", () => account.has("event"));
  assert.equal(account.has("resync"), false);
  assert.equal(states.filter(({ state }) => state === "connected").length, 1);
  assert.deepEqual(errors, []);
  client.close();
}

async function drained(environments) {
  const all = environments.map((environment) => open(environment, () => NODE.alice));
  for (const { watch } of all) await watch({ account: "alice@example.org" }).ready();
  process.kill(NODE.pid, "SIGTERM");
  for (const { states, client } of all) {
    await until("a goodbye", () => states.some(({ state, code }) => state === "waiting" && code === 4412));
    client.close();
  }
}

const ways = { websocket: { WebSocket }, stream: { WebSocket: undefined } };
for (const [way, environment] of Object.entries(ways)) {
  for (const play of [expiring, changes, shared, ended]) {
    await play(environment).catch((error) => {
      throw new Error(`${play.name} by ${way}: ${JSON.stringify(last)}`, { cause: error });
    });
  }
}
await drained(Object.values(ways));
