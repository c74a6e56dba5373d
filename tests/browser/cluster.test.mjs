// The view of operators, in real windows.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { Browser, Cluster, connected, count, done, eventually, faint, pause, row, shot } from "./world.mjs";

const INBOX = "#private:alice@example.org:INBOX";
let cluster;
let browser;

before(async () => {
  [cluster, browser] = await Promise.all([Cluster.start(), Browser.start()]);
});
afterEach(() => browser.tidy());
after(async () => {
  await browser?.stop();
  cluster?.stop();
});

const at = (node) => cluster.nodes[node].http;
const story = (name, act) => test(name, { timeout: 90_000 }, () => cluster.tell(act));

async function operator(options, token = cluster.token("admin")) {
  const page = await browser.signedIn(at(0), token, options);
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.locator("#following", { hasText: "live" }).waitFor();
  return page;
}

/** The row of a user's subscription to their account. */
function watching(page, user) {
  return page.locator("#subscriptions tr", { hasText: `all of ${user}@example.org` });
}

story("nodes, sessions and subscriptions come and go", async () => {
  const page = await operator();
  await page.locator('[data-node="dev-1"]').waitFor();
  await page.locator('[data-node="dev-2"]', { hasText: "mailpush.node.dev-2" }).waitFor();
  assert.equal(await watching(page, "bob").count(), 0);
  const bob = await browser.signedIn(at(1), cluster.token("bob"));
  await count(watching(page, "bob"), 1);
  const figure = page.locator('[data-node="dev-2"] .figures div', { hasText: "sessions" }).locator("dd");
  await eventually(async () => (await figure.innerText()) === "1", "the node counts its session");
  await done(bob);
  await count(watching(page, "bob"), 0);
  await eventually(async () => (await figure.innerText()) === "0", "the node counts none");
  await done(page);
});

story("filters and pages", async () => {
  const bob = await browser.signedIn(at(1), cluster.token("bob"));
  // His account, what is shared with him, and one page more than that.
  for (let number = 0; number < 25; number += 1) {
    await bob.getByLabel("Watch another").fill(`#private:bob@example.org:Folder ${number}`);
    await bob.keyboard.press("Enter");
  }
  const page = await operator();
  const rows = page.locator("#subscriptions tr");
  await page.getByLabel("User").fill("bob@example.org");
  await page.getByRole("button", { name: "Show" }).click();
  await count(rows, 25);
  await count(watching(page, "admin"), 0);
  const first = await rows.allInnerTexts();
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByText("page 2, 2 subscriptions").waitFor();
  assert.ok((await rows.allInnerTexts()).every((text) => !first.includes(text)));
  assert.equal(await page.getByRole("button", { name: "Next" }).isEnabled(), false);
  await page.getByRole("button", { name: "Previous" }).click();
  await page.getByText("page 1, 25 subscriptions").waitFor();
  await page.getByLabel("Mailbox or account").fill("#private:bob@example.org:Folder 7");
  await page.keyboard.press("Enter");
  await count(rows, 1);
  await rows.getByText("Folder 7").waitFor();
  await page.getByLabel("Node", { exact: true }).fill("nobody!");
  await page.getByRole("button", { name: "Show" }).click();
  await page.locator("#subscriptions-error", { hasText: "node" }).waitFor();
  await done(bob);
  // Chromium tells of the refusal too.
  await done(page, { cut: true });
});

story("an administrator ends a session, which does not come back by itself", async () => {
  // Time in his window can be moved on.
  const bob = await browser.window(`${at(1)}/#token=${cluster.token("bob")}`, {}, (context) => context.clock.install());
  let sockets = 0;
  bob.on("websocket", () => (sockets += 1));
  await bob.getByRole("button", { name: "Sign in" }).click();
  await connected(bob);
  const added = "#private:bob@example.org:Elsewhere";
  await bob.getByLabel("Watch another").fill(added);
  await bob.getByRole("button", { name: "Watch", exact: true }).click();
  await bob.getByRole("button", { name: "Elsewhere" }).waitFor();
  const page = await operator();
  await watching(page, "bob").getByRole("button").click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("127.0.0.1:").waitFor();
  await dialog.getByText("all of bob@example.org").waitFor();
  await shot(page, "session");
  await dialog.getByRole("button", { name: "Disconnect" }).click();
  await dialog.getByRole("button", { name: "Really?" }).click();
  await count(watching(page, "bob"), 0);
  await bob.locator("#state", { hasText: "by an administrator" }).waitFor();
  // For longer than a client ever waits before it comes back.
  await bob.clock.fastForward("05:00");
  assert.equal(sockets, 1);
  assert.equal(await watching(page, "bob").count(), 0);
  await bob.getByRole("button", { name: "Connect again" }).click();
  await connected(bob);
  await count(watching(page, "bob"), 1);
  // With what he had added.
  await bob.getByRole("button", { name: "Elsewhere" }).waitFor();
  await done(bob);
  await done(page);
});

story("a test event: which queues took it, and who watches there", async () => {
  const alices = await Promise.all([0, 1].map((node) => browser.signedIn(at(node), cluster.token("alice"))));
  const page = await operator();
  await page.getByLabel("Mailbox", { exact: true }).fill(INBOX);
  await page.getByLabel("Subject").fill("a test");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText(/2 queues took it: .*dev-1.*dev-2/).waitFor();
  await page.getByText("2 sessions there watch it").waitFor();
  for (const alice of alices) await count(row(alice, "a test"), 1);
  await page.getByLabel("Mailbox", { exact: true }).fill("#private:nobody@example.org:INBOX");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("Nobody watches that mailbox").waitFor();
  await page.getByLabel("Type").selectOption("MessageExpunge");
  await page.getByLabel("Mailbox", { exact: true }).fill(INBOX);
  await page.getByRole("button", { name: "Publish" }).click();
  for (const alice of alices) await count(row(alice, "a test"), 0);
  // The page's own session hears what concerns it.
  await page.getByLabel("Mailbox", { exact: true }).fill("#private:admin@example.org:INBOX");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("This page heard it").waitFor();
  await Promise.all([...alices, page].map((one) => done(one)));
});

story("without the scope one sees one's own, and is told so", async () => {
  const page = await operator({}, cluster.token("carol"));
  await page.getByText("lacks the scope subscriptions:read").waitFor();
  await count(page.locator("#subscriptions tr", { hasText: "carol@example.org" }), 1);
  await count(page.locator("#subscriptions tr"), 1);
  assert.equal(await page.locator("#publish").isVisible(), false);
  await done(page);
});

story("by the keyboard alone", async () => {
  const page = await operator();
  await watching(page, "admin").getByRole("button").first().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  const focused = () => page.evaluate(() => document.activeElement?.dataset.row ?? "");
  await eventually(async () => (await focused()).includes("admin@example.org"), "focus is back where it was");
  await done(page);
});

story("charts, and pictures of it", async () => {
  const alices = await Promise.all([0, 1].map((node) => browser.signedIn(at(node), cluster.token("alice"))));
  const page = await operator();
  for (let number = 0; number < 90; number += 1) {
    await cluster.publish({ type: "FlagsSet", mailbox: INBOX, messages: [{ uid: 1, changed: ["\\Seen"] }] });
    await pause(60 + 90 * Math.abs(Math.sin(number / 12)));
  }
  await eventually(async () => (await page.locator(".chart polyline").count()) >= 7, "lines in the charts");
  await page.locator(".legend", { hasText: /published \d/ }).waitFor();
  await page.locator(".legend", { hasText: /99 % within [\d.]+ (µs|ms)/ }).first().waitFor();
  assert.deepEqual(await faint(page), []);
  await shot(page, "cluster-light");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.deepEqual(await faint(page), []);
  await shot(page, "cluster-dark");
  await page.setViewportSize({ width: 360, height: 740 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  assert.deepEqual(await faint(page), []);
  await shot(page, "cluster-phone", { fullPage: true });
  await Promise.all([...alices, page].map((one) => done(one)));
});
