// The declarations: by TypeScript itself, which npm brings, and held against the module and the API's document.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import * as module from "../../static/mailpush.js";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const declared = readFileSync(path("../../static/mailpush.d.ts"), "utf8");
const source = readFileSync(path("../../static/mailpush.js"), "utf8");
const TYPESCRIPT = "typescript@5.9.3";

/** TypeScript's compiler, kept between runs. */
function compiler() {
  const folder = path("../../target/typescript");
  const tsc = `${folder}/node_modules/typescript/bin/tsc`;
  if (existsSync(tsc)) return tsc;
  mkdirSync(folder, { recursive: true });
  const flags = ["install", "--prefix", folder, "--no-save", "--no-audit", "--no-fund", TYPESCRIPT];
  const { error, stderr } = spawnSync("npm", flags, { encoding: "utf8", timeout: 120_000 });
  assert.ok(existsSync(tsc), `npm did not bring TypeScript: ${error ?? stderr}`);
  return tsc;
}

test("TypeScript understands the declarations, and refuses what is wrong", { timeout: 240_000 }, () => {
  const tsc = compiler();
  const flags = ["--strict", "--exactOptionalPropertyTypes", "--noEmit", "--target", "es2022", "--module", "nodenext"];
  flags.push("--moduleResolution", "nodenext", "--lib", "es2022,dom");
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...flags, path("types/page.mts")], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});

/** The words between two marks of the declarations, each at the beginning of a member. */
function members(begin) {
  const body = declared.split(begin)[1].split("\n}")[0];
  return [...body.matchAll(/^ {2}(?:readonly )?(\w+)\??[(:]/gm)].map(([, name]) => name).filter((name) => name !== "constructor");
}

test("what is declared is there, and nothing else", () => {
  const values = [...declared.matchAll(/^export class (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(values.sort(), Object.keys(module).sort());
  const own = Object.getOwnPropertyNames(module.Mailpush.prototype).filter((name) => name !== "constructor");
  assert.deepEqual(members("export class Mailpush {").sort(), own.sort());
  const listed = (what) => JSON.parse(new RegExp(`known\\(\\w+, (\\[[^\\]]+\\]), "${what}"`).exec(source)[1]);
  assert.deepEqual(members("export interface Options {").sort(), listed("option").sort());
  assert.deepEqual(members("export interface Handlers {").sort(), listed("callback").sort());
  const client = new module.Mailpush({ url: "http://localhost", token: () => "" });
  const sub = client.subscribe({ account: "alice" }, { onready() {}, onevent() {} });
  client.close();
  assert.deepEqual(members("export interface Subscription {").sort(), Object.keys(sub).sort());
});

test("types of events and fields are those of the API", () => {
  const openapi = readFileSync(path("../../openapi/openapi.yaml"), "utf8");
  const types = /^ {4}EventType:[\s\S]*?enum:\n((?: {8}- \w+\n)+)/m.exec(openapi)[1].match(/\w+/g);
  const union = declared.split("export type MailEvent")[1].split("export type EventType")[0];
  const known = [...union.matchAll(/type: ((?:"\w+"(?: \| )?)+)/g)].flatMap(([, names]) => names.match(/\w+/g));
  assert.deepEqual(known.sort(), types.sort());
  const fields = /^ {4}EnvelopeField:\n.*\n {6}enum: \[(.+)\]/m.exec(openapi)[1].split(", ");
  assert.deepEqual(/export type EnvelopeField = (.+);/.exec(declared)[1].match(/\w+/g), fields);
});

test("the module asks for nothing that a strict Content-Security-Policy forbids, and leaves nothing global", () => {
  const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
  assert.doesNotMatch(code, /\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|\bimport\b/);
  assert.doesNotMatch(code, /globalThis\.\w+ *=[^=]|window\.\w+ *=[^=]|localStorage|sessionStorage|cookie/);
});
