// The README's example, as it stands there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as module from "../../static/mailpush.js";
import { INBOX, World, event, settle } from "./world.mjs";

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const examples = readme.split("\n```").filter((block) => block.startsWith("js\n"));

test("it is short, and works in a page", async (t) => {
  assert.equal(examples.length, 1);
  const lines = examples[0].trim().split("\n").slice(1);
  assert.ok(lines.length <= 15, `${lines.length} lines`);
  const body = lines.join("\n").replace(/^import (\{.+\}) from "\/mailpush\.js";/, "const $1 = module;");
  assert.ok(!body.includes("import "));
  const world = new World();
  const told = [];
  const tells = (name) => (...words) => void told.push([name, ...words]);
  const names = ["loadMessages", "apply", "showNoAccess", "showState"];
  const page = Object.fromEntries(names.map((name) => [name, tells(name)]));
  const { environment } = world;
  const globals = {
    WebSocket: environment.WebSocket,
    fetch: async (path, { method, redirect }) => new Response([path, method, redirect].join(" ")),
    location: { href: "https://mail.example.org/inbox", origin: "https://mail.example.org" },
  };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  const AsyncFunction = (async () => {}).constructor;
  const run = new AsyncFunction("module", ...names, `${body}\nreturn client;`);
  const client = await run(module, ...names.map((name) => page[name]));
  await settle();
  const { socket } = world;
  assert.equal(socket.url, "wss://mail.example.org/v1/ws");
  assert.equal(socket.sent[0].connect.token, "/api/push-token POST error");
  assert.deepEqual(told.map(([name]) => name), ["showState", "showState", "loadMessages"]);
  const inbox = socket.commands("subscribe")[0].mailbox;
  const push = event(inbox);
  socket.say(push);
  socket.say({ resync: { keys: [{ mailbox: inbox }], reason: "overflow" } });
  socket.say({ disconnect: { code: 4505, reason: "ended", reconnect: false } });
  assert.deepEqual(told.slice(3).map(([name]) => name), ["apply", "loadMessages", "showNoAccess", "showState"]);
  assert.equal(client.state, "closed");
  assert.notEqual(inbox, INBOX, "it is the reader's own");
});
