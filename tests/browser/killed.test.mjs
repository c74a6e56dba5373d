// A node is killed under a page that came to it through a load balancer.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Balancer, Browser, connected, count, done, eventually, row } from "./world.mjs";

const INBOX = "#private:alice@example.org:INBOX";
const { port, nodes, alice, admin } = JSON.parse(process.env.CLUSTER);
const balancer = await new Balancer().listen(port);
const browser = await Browser.start();

after(async () => {
  await browser.stop();
  balancer.close();
});

/** As an origin does: until it is accepted, under the same id. */
async function publish(uid, subject) {
  const id = `019ab27c-7d40-7000-8000-${String(uid).padStart(12, "0")}`;
  const event = { id, type: "MessageNew", mailbox: INBOX, messages: [{ uid, flags: [], envelope: { subject } }] };
  const headers = { authorization: `Bearer ${admin}`, "content-type": "application/json" };
  const ask = () => fetch(`${nodes[1].http}/v1/events`, { method: "POST", headers, body: JSON.stringify(event) });
  await eventually(async () => (await ask()).status === 200, `${subject} is published`);
}

test("the page comes back at the other node by itself, and shows nothing twice", { timeout: 120_000 }, async () => {
  balancer.to = nodes[0].http;
  const page = await browser.signedIn(balancer.url, alice);
  await connected(page, nodes[0].id);
  const operator = await browser.signedIn(nodes[1].http, admin);
  await operator.getByRole("link", { name: "Cluster" }).click();
  await operator.locator(`[data-node="${nodes[0].id}"]`).waitFor();
  const watching = operator.locator("#subscriptions tr", { hasText: "all of alice@example.org" });
  await count(watching, 1);
  await publish(1, "before the end");
  await row(page, "before the end").waitFor();

  balancer.to = nodes[1].http;
  process.kill(nodes[0].pid, "SIGKILL");
  await publish(2, "in between");
  await connected(page, nodes[1].id);
  await publish(3, "after the end");
  await row(page, "after the end").waitFor();
  const marker = async () => {
    await publish(4, "a marker");
    await row(page, "a marker").waitFor();
  };
  await count(row(page, "the end"), 2, marker);
  if (/ 0 gaps/.test(await page.locator("#counts").innerText())) await count(row(page, "in between"), 1);
  else await page.getByText("What is shown may be stale").waitFor();

  await operator.getByText(`Left: ${nodes[0].id}`).waitFor();
  await count(operator.locator(`#nodes [data-node="${nodes[0].id}"]`), 0);
  await count(watching, 1);
  assert.match(await watching.innerText(), new RegExp(nodes[1].id));
  await done(page, { cut: true });
  await done(operator);
});
