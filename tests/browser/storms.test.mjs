// The view of operators before a node that says what is needed: storms of changes, silent nodes, slow answers.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { ScriptedBrowser, ScriptedNode, node, subscribed, subscription, toCluster } from "./scripted.mjs";
import { count, done, eventually, pause } from "./world.mjs";

let scripted;
let browser;

before(async () => {
  browser = await ScriptedBrowser.start();
});
beforeEach(async () => {
  scripted = await new ScriptedNode().start();
  scripted.subscriptions = [subscription(1), subscription(2)];
});
afterEach(async () => {
  await browser.tidy();
  scripted.stop();
});
after(() => browser?.stop());

const story = (name, act) => test(name, { timeout: 60_000 }, act);
const rows = (page) => page.locator("#subscriptions tr");
const listings = () => scripted.asked.filter((line) => line.startsWith("GET /v1/subscriptions?"));
const sessionOf = ({ session, node: at, user }) => ({ id: session, node: at, user, transport: "websocket", peer: "192.0.2.1:1", connected_at: 1, subscriptions: 1 });

async function operator(options) {
  const page = await browser.signedInAt(scripted.url, "admin@example.org", { options });
  await toCluster(page);
  return page;
}

story("a storm of subscriptions neither grows the page nor holds it up", async () => {
  const page = await operator();
  await page.evaluate(() => {
    window.changes = 0;
    new MutationObserver(() => (window.changes += 1)).observe(document.getElementById("subscriptions"), { childList: true });
  });
  scripted.next = "more";
  scripted.tell(...Array.from({ length: 1_500 }, (_, at) => subscribed(1_000 + at)));
  await count(rows(page), 25);
  const began = Date.now();
  await page.evaluate(() => 1);
  assert.ok(Date.now() - began < 2_000, "the page answers");
  assert.ok((await page.evaluate(() => window.changes)) < 50, "it is not drawn for each");
  // What does not fit is on a next page, which the server was asked for.
  await page.locator('#next[aria-disabled="false"]').waitFor();
  await done(page);
});

story("a session can be clicked while subscriptions come and go", async () => {
  scripted.sessions = [sessionOf(subscription(2))];
  const page = await operator();
  const link = rows(page).last().getByRole("button");
  await link.hover();
  await page.mouse.down();
  scripted.tell(subscribed(9));
  await count(rows(page), 3);
  await page.mouse.up();
  await page.getByRole("dialog").getByText("192.0.2.1:1").waitFor();
  await done(page);
});

story("nodes stay on the screen while they are asked, and one that comes is seen", async () => {
  const page = await operator();
  const card = page.locator('[data-node="gw-1"]');
  await card.evaluate((element) => (element.marked = true));
  scripted.nodes = [node("gw-1", { sessions: 1_234 }), node("gw-2")];
  await card.getByText("1,234").waitFor();
  assert.ok(await card.evaluate((element) => element.marked), "the same element");
  await page.locator('[data-node="gw-2"]').waitFor();
  // Its subscriptions are older than what this page hears of it.
  scripted.subscriptions = [subscription(1), subscription(2), subscription(3, { at: "gw-2" })];
  scripted.tell(["snapshot", { node: "gw-2", seq: 1 }]);
  await count(rows(page), 3);
  scripted.nodes = [node("gw-1")];
  scripted.left = [{ id: "gw-2", at: Date.now() - 3 * 86_400_000 }];
  await page.locator("#left", { hasText: /Left: gw-2 at \d+ \w+/ }).waitFor();
  await count(page.locator('[data-node="gw-2"]'), 0);
  await done(page);
});

story("a key that is held down opens a session, and ends none", async () => {
  scripted.sessions = [sessionOf(subscription(1))];
  const page = await operator();
  await rows(page).first().getByRole("button").focus();
  for (let presses = 0; presses < 5; presses += 1) {
    await page.keyboard.down("Enter");
    await pause(40);
  }
  await page.keyboard.up("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await dialog.getByRole("button", { name: "Disconnect" }).focus();
  for (let presses = 0; presses < 5; presses += 1) await page.keyboard.down("Enter");
  await page.keyboard.up("Enter");
  await dialog.getByRole("button", { name: "Really?" }).waitFor();
  assert.deepEqual(scripted.asked.filter((line) => line.startsWith("DELETE")), []);
  await done(page);
});

story("a list is one at a time, whatever is pressed meanwhile", async () => {
  scripted.next = "abc";
  const page = await operator();
  scripted.slowness = 300;
  const asked = listings().length;
  await page.getByRole("button", { name: "Next" }).dblclick();
  await page.getByText("page 2, ").waitFor();
  assert.equal(listings().length, asked + 1, "one page on");
  assert.equal(await page.evaluate(() => document.activeElement.id), "next", "focus stays");
  await page.getByLabel("User").fill("u1@example.org");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByRole("link", { name: "Inbox" }).click();
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.getByText("page 1, ").waitFor();
  await eventually(() => scripted.streams.size === 1, "one stream");
  await pause(400);
  assert.equal(scripted.streams.size, 1, "and no other is left behind");
  await page.getByRole("link", { name: "Inbox" }).click();
  await eventually(() => scripted.streams.size === 0, "none");
  await done(page);
});

story("of a silent node nothing is claimed", async () => {
  scripted.partial = scripted.silentSessions = [{ node: "gw-4", reason: "it did not answer in time" }];
  const page = await operator();
  await page.getByText("gw-4 is not in it").waitFor();
  await rows(page).first().getByRole("button").click();
  await page.getByRole("dialog").getByText(/Whether it goes on is not known: gw-4 is silent/).waitFor();
  await page.keyboard.press("Escape");
  await page.getByLabel("Mailbox", { exact: true }).fill("#private:u1@example.org:INBOX");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText(/Who watches at some nodes is not known: gw-4/).waitFor();
  scripted.partial = [];
  scripted.subscriptions = [subscription(1), subscription(2), subscription(4, { at: "gw-4" })];
  scripted.tell(["snapshot", { node: "gw-4", seq: 77 }]);
  await count(rows(page), 3);
  await page.getByText("gw-4 is not in it").waitFor({ state: "detached" });
  await done(page);
});

story("whoever filters by a name spelled otherwise sees what the server finds", async () => {
  scripted.subscriptions = [];
  const page = await operator();
  await page.getByLabel("Mailbox or account").fill("U7");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByText("Nobody watches what is asked for.").waitFor();
  scripted.tell(subscribed(8));
  scripted.subscriptions = [subscription(7)];
  scripted.tell(subscribed(7));
  await count(rows(page), 1);
  await rows(page).getByText("all of u7@example.org").waitFor();
  await done(page);
});

story("numbers of two nodes behind a load balancer are not mixed", async () => {
  let turn = 0;
  let taken = 1_000;
  scripted.metrics = () => {
    turn += 1;
    taken += 10;
    const count = turn % 2 ? taken : 1_000_000 + taken;
    return { node: turn % 2 ? "gw-1" : "gw-2", text: `mailpush_events_published_total{outcome="sent"} ${count}\nmailpush_events_published_total{outcome="nobody"} ${count * 7}\n` };
  };
  const page = await operator();
  await page.locator("#rates-of", { hasText: "of node gw-1, over the last minute" }).waitFor();
  const rate = page.locator(".chart").first();
  await rate.locator(".legend", { hasText: /published [1-9]/ }).waitFor({ timeout: 15_000 });
  const [, published] = /published ([\d.,]+)\/s/.exec(await rate.locator(".legend").innerText());
  assert.ok(Number(published) <= 20, published);
  await done(page);
});

story("large figures and long names fit into 360 px", async () => {
  const id = "0193ab27c7d407000800001234";
  scripted.nodes = [node(id, { lag: 123_456, sessions: 123_456, keys: 1_234_567, registrations: 239_999 })];
  scripted.subscriptions = [subscription(1, { at: id, key: { mailbox: `#private:u1@example.org:${"long".repeat(30)}` }, since: Date.now() - 3 * 86_400_000 })];
  const page = await operator({ viewport: { width: 360, height: 740 } });
  await page.getByText("1,234,567").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const crowded = await page.evaluate(() => {
    const inside = (element) => {
      const [one, card] = [element.getBoundingClientRect(), element.closest("li").getBoundingClientRect()];
      return element.scrollWidth <= Math.ceil(one.width) && one.right <= card.right;
    };
    return [...document.querySelectorAll(".figures dd, .node-name")].filter((element) => !inside(element)).map((element) => element.textContent);
  });
  assert.deepEqual(crowded, []);
  assert.match(await page.locator('[data-label="Since"] time').innerText(), /\d+ \w+/, "a time of another day has its day");
  assert.ok(await page.locator('[data-label="Since"] time').getAttribute("datetime"));
  await done(page);
});

story("a mailbox whose name is HTML is a text in the list and in the dialog", async () => {
  const hostile = "#private:bob@example.org:<img src=x onerror=\"document.title='hacked'\">";
  scripted.subscriptions = [subscription(1, { key: { mailbox: hostile } })];
  scripted.sessions = [sessionOf(scripted.subscriptions[0])];
  const page = await operator();
  await rows(page).getByText(hostile).waitFor();
  await rows(page).getByRole("button").click();
  await page.getByRole("dialog").getByText(hostile).waitFor();
  assert.equal(await page.locator("main img, dialog img").count(), 0);
  assert.equal(await page.title(), "Cluster · mailpush");
  await done(page);
});

story("by Tab alone: a filter, a session and its end, an event", async () => {
  scripted.sessions = [sessionOf(subscription(1))];
  const page = await operator();
  const reach = async (selector) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      if (!(await page.locator(`${selector}:focus`).count())) continue;
      const outline = await page.locator(":focus").evaluate((element) => getComputedStyle(element).outlineStyle);
      return assert.notEqual(outline, "none", `focus is seen at ${selector}`);
    }
    assert.fail(`${selector} cannot be reached by Tab`);
  };
  await reach('#filters [name="user"]');
  await page.keyboard.insertText("u1@example.org");
  await page.keyboard.press("Enter");
  await eventually(() => listings().at(-1).includes("user=u1"), "the filter is asked for");
  await reach("#subscriptions button");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByText("192.0.2.1:1").waitFor();
  await reach("#disconnect");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.ok(scripted.asked.some((line) => line === `DELETE /v1/sessions/${subscription(1).session}`));
  await reach('#publish-form [name="mailbox"]');
  await page.keyboard.insertText("#private:u1@example.org:INBOX");
  await reach("#publish-form button");
  await page.keyboard.press("Enter");
  await page.getByText("1 queue took it").waitFor();
  await done(page);
});
