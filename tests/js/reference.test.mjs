// The page of the reference is made of the documents as they are, and AsyncAPI's own parser finds nothing wrong with its document.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { PAGE, bring, render } from "../../scripts/reference.mjs";

const PARSER = "@asyncapi/parser@3.6.3";
const page = readFileSync(PAGE, "utf8");

test("the reference is made of the documents as they are", { timeout: 180_000 }, () => {
  assert.ok(render() === page, "static/reference.html is old: run node scripts/reference.mjs");
});

test("the reference is one page that needs nothing but its styles", () => {
  assert.ok(Buffer.byteLength(page) < 400_000, `${Buffer.byteLength(page)} bytes`);
  assert.doesNotMatch(page, /<script|<style|\sstyle=|<[^>]*\son\w+=|javascript:/i);
  assert.deepEqual([...page.matchAll(/ (?:src|href)="(?!#)([^"]*)"/g)].map(([, to]) => to).filter((to) => !to.startsWith("/")), []);
  assert.doesNotMatch(page, /undefined|\[object Object\]|NaN/);
});

test("every link within the reference leads somewhere, and every name is there once", () => {
  const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  assert.deepEqual(ids.filter((id, n) => ids.indexOf(id) !== n), []);
  const targets = [...page.matchAll(/ (?:href="#|aria-labelledby=")([^"]+)"/g)].map(([, id]) => id);
  assert.deepEqual(targets.filter((id) => !ids.includes(id)), []);
});

test("asyncapi.yaml is AsyncAPI", { timeout: 240_000 }, async () => {
  const module = bring("asyncapi", PARSER);
  const source = fileURLToPath(new URL("../../openapi/asyncapi.yaml", import.meta.url));
  const { document, diagnostics } = await new module.Parser().parse(readFileSync(source, "utf8"), { source });
  // A newer version of AsyncAPI there may be; errors and warnings there are none.
  const faults = diagnostics.filter(({ severity }) => severity < 2);
  assert.deepEqual(faults.map(({ message, path }) => `${path.join(".")}: ${message}`), []);
  assert.ok(document);
  assert.equal(document.channels().length, 3);
});
