// The view of mailboxes, and what surrounds it, before a node that says what is needed: storms, odd orders, odd names.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { ScriptedBrowser, ScriptedNode, happen, node, signIn, subscription, toCluster } from "./scripted.mjs";
import { count, done, eventually, faint, pause, row, shot } from "./world.mjs";

const INBOX = "#private:alice@example.org:INBOX";
const OTHER = "#private:alice@example.org:Other";
const TEAM = "#private:bob@example.org:Team";
let scripted;
let browser;

before(async () => {
  [scripted, browser] = await Promise.all([new ScriptedNode().start(), ScriptedBrowser.start()]);
});
afterEach(() => browser.tidy());
after(async () => {
  await browser?.stop();
  scripted?.stop();
});

const alice = (more) => browser.signedInAt(scripted.url, "alice@example.org", more);
const story = (name, act) => test(name, { timeout: 60_000 }, act);
const mail = (uid, subject, more = {}) => ({ type: "MessageNew", mailbox: INBOX, messages: [{ uid, flags: [], envelope: { subject, from: "Bob <bob@example.org>" } }], ...more });
const box = (page, name) => page.locator("#mailboxes").getByRole("button", { name });

story("a mailbox can be clicked while events arrive", async () => {
  const page = await alice();
  await happen(page, mail(1, "here"), { type: "MailboxCreate", mailbox: OTHER });
  await box(page, "Other").waitFor();
  // Something is drawn between each press and its release.
  const flag = (number) => happen(page, { type: "FlagsSet", mailbox: INBOX, messages: [{ uid: 1, changed: [`$a${number}`] }] });
  for (const [number, name] of ["Other", "INBOX", "Other", "INBOX"].entries()) {
    await box(page, name).hover();
    await page.mouse.down();
    await flag(number);
    await page.locator("#log li", { hasText: `$a${number} set` }).waitFor({ state: "attached" });
    await page.evaluate(() => new Promise((resolve) => setTimeout(() => requestAnimationFrame(resolve), 200)));
    await page.mouse.up();
    await page.locator("#mailbox-title", { hasText: name }).waitFor();
  }
  assert.equal(await page.locator("#messages > li.arrived").count(), 0, "what is only looked at again has not arrived");
  await happen(page, mail(2, "there"));
  await page.locator("#messages > li.arrived", { hasText: "there" }).waitFor();
  await done(page);
});

story("a token may spell its user otherwise than the server does", async () => {
  const page = await browser.signedInAt(scripted.url, "Alice", { user: "alice@example.org", scope: "push subscriptions:read" });
  await page.locator("#who", { hasText: "alice@example.org" }).waitFor();
  await happen(page, mail(1, "mine"));
  await row(page, "mine").waitFor();
  assert.equal(await page.locator("#mailboxes").innerText().then((text) => text.toLowerCase()), "yours\ninbox");
  scripted.subscriptions = [{ ...subscription(1), user: "alice@example.org" }];
  scripted.sessions = [{ id: scripted.subscriptions[0].session, node: "gw-1", user: "alice@example.org", transport: "websocket", peer: "192.0.2.1:1", connected_at: 1, subscriptions: 1 }];
  await toCluster(page);
  await page.locator("#subscriptions button").click();
  await page.getByRole("dialog").getByRole("button", { name: "Disconnect" }).waitFor();
  await done(page);
});

story("an event of thousands of messages leaves a list that is bounded", async () => {
  const page = await alice();
  const messages = Array.from({ length: 3_000 }, (_, at) => ({ uid: 1_000 + at, changed: ["\\Seen"], flags: ["\\Seen"] }));
  await happen(page, { type: "FlagsSet", mailbox: INBOX, messages }, mail(9_000, "the last"));
  await row(page, "the last").waitFor();
  assert.equal(await page.locator("#messages > li").count(), 500);
  await done(page);
});

story("what is told twice of a mailbox that is watched twice is told once", async () => {
  const page = await alice();
  await happen(page, { type: "MailboxCreate", mailbox: TEAM });
  await page.getByLabel("Watch another").fill(TEAM);
  await page.keyboard.press("Enter");
  await page.getByText("rights lrs").waitFor();
  await page.evaluate((mailbox) => window.socket.say({ resync: { keys: [{ mailbox }], reason: "overflow" } }), TEAM);
  await page.getByText("What is shown may be stale: this page could not keep up").waitFor();
  assert.match(await page.locator("#counts").innerText(), / 1 resync$/);
  await page.evaluate((mailbox) => window.socket.say({ revoked: { key: { mailbox } } }), TEAM);
  await box(page, "Team").waitFor({ state: "detached" });
  assert.equal(await page.locator("#toasts > div", { hasText: "not shared" }).count(), 1);
  await done(page);
});

story("flags that come before their message, and what is read elsewhere is not new any more", async () => {
  const page = await alice();
  await happen(page, { type: "FlagsSet", mailbox: INBOX, messages: [{ uid: 5, changed: ["\\Seen", "\\Flagged"] }] }, mail(5, "late"));
  await row(page, "late").getByText("flagged").waitFor();
  assert.doesNotMatch(await row(page, "late").innerText(), /unread/);
  await happen(page, { ...mail(1, "a"), mailbox: OTHER }, { ...mail(2, "b"), mailbox: OTHER });
  await box(page, "Other 2 new").waitFor();
  await happen(page, { type: "FlagsSet", mailbox: OTHER, messages: [{ uid: 1, changed: ["\\Seen"] }] });
  await box(page, "Other 1 new").waitFor();
  await happen(page, { type: "MessageExpunge", mailbox: OTHER, uids: [2] });
  await page.locator("#mailboxes").getByRole("button", { name: "Other", exact: true }).waitFor();
  await done(page);
});

story("whoever dismisses a toast by the keyboard goes on where they were", async () => {
  const page = await alice();
  await page.getByLabel("Watch another").focus();
  await happen(page, mail(1, "Lunch?"));
  await page.getByRole("button", { name: "Dismiss: Lunch?" }).waitFor();
  for (let presses = 0; presses < 20 && !(await page.locator("#toasts :focus").count()); presses += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await count(page.locator("#toasts > div"), 0);
  assert.notEqual(await page.evaluate(() => document.activeElement.tagName), "BODY");
  await done(page);
});

story("the skip link leaves the view as it is", async () => {
  const page = await alice();
  await toCluster(page);
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  assert.ok(await page.locator("#cluster").isVisible());
  await page.evaluate(() => (location.hash = "#nonsense"));
  await pause(50);
  assert.ok(await page.locator("#cluster").isVisible());
  await done(page);
});

story("a link whose token is no URL's text still shows the page", async () => {
  const page = await browser.window(`${scripted.url}/#token=%`);
  await page.getByText("That does not look like a token").waitFor();
  await done(page);
});

story("whoever signs in next finds nothing of whoever was here before", async () => {
  scripted.subscriptions = [subscription(1)];
  scripted.sessions = [];
  scripted.left = [{ id: "gw-9", at: 1 }];
  const page = await alice();
  await happen(page, { ...mail(1, "a secret"), status: { messages: 1 } });
  await page.getByLabel("Watch another").fill("a secret");
  await page.keyboard.press("Enter");
  await page.getByText("A path looks like").waitFor();
  await toCluster(page);
  await page.locator('[data-node="gw-1"]').waitFor();
  await page.getByLabel("User").fill("a secret");
  await page.getByLabel("Mailbox", { exact: true }).fill(INBOX);
  await page.getByLabel("Subject").fill("a secret");
  await page.getByLabel("Type").selectOption("FlagsSet");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("1 queue took it").waitFor();
  await page.locator("#subscriptions button").click();
  await page.getByText("It has ended.").waitFor();
  await page.keyboard.press("Escape");
  scripted.slowness = 300;
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  scripted.subscriptions = [];
  await signIn(page, "carol@example.org", { scope: "push" });
  await page.getByText("Nobody watches what is asked for.").waitFor();
  scripted.slowness = 0;
  const left = await page.evaluate(() => {
    const fields = [...document.querySelectorAll("input:not(#token), select")].filter((field) => field.defaultValue !== undefined && field.value !== field.defaultValue);
    return document.body.textContent.match(/secret|gw-9|u1@|It has ended|took it|A path looks like/g) ?? fields.map((field) => field.outerHTML);
  });
  assert.deepEqual(left, []);
  assert.equal(await page.locator("#nodes-card").isVisible(), false, "without the scope there is nothing to see");
  assert.equal(await page.locator('select[name="type"]').inputValue(), "MessageNew");
  await done(page);
});

story("what is dark may follow the system again", async () => {
  const page = await alice({ options: { colorScheme: "dark" } });
  const theme = () => page.evaluate(() => [document.documentElement.dataset.theme ?? null, localStorage.getItem("theme")]);
  const button = page.getByRole("button", { name: "Dark" });
  await button.click();
  assert.deepEqual(await theme(), ["light", "light"]);
  await button.click();
  assert.deepEqual(await theme(), [null, null]);
  await done(page);
});

story("every text can be read, in every state", async () => {
  scripted.subscriptions = [subscription(1)];
  scripted.sessions = [{ id: scripted.subscriptions[0].session, node: "gw-1", user: "u1@example.org", transport: "websocket", peer: "192.0.2.1:1", connected_at: 1, subscriptions: 1 }];
  scripted.nodes = [node("gw-1"), node("gw-2", { state: "degraded" })];
  scripted.partial = [{ node: "gw-4", reason: "it did not answer in time" }];
  const readable = async (page, name) => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await faint(page), [], `${name}, ${colorScheme}`);
      await shot(page, `${name}-${colorScheme}`);
    }
  };
  const stranger = await browser.window(scripted.url);
  await stranger.getByLabel("Token", { exact: true }).fill("nonsense");
  await stranger.keyboard.press("Enter");
  await readable(stranger, "state-sign-in");
  await done(stranger);
  const page = await alice();
  const message = (uid, flags) => ({ ...mail(uid, "doubtful"), messages: [{ uid, flags, envelope: { subject: "doubtful", from: "Bob" } }] });
  await happen(page, message(1, []), message(2, ["\\Seen", "\\Flagged", "$Work"]), { type: "FlagsSet", mailbox: INBOX, messages: [{ uid: 3, changed: ["\\Flagged"] }] });
  await page.evaluate(() => window.socket.say({ resync: { keys: [{ account: "alice@example.org" }], reason: "overflow" } }));
  await count(page.locator("#messages > .doubtful"), 3);
  await page.locator("summary").click();
  await readable(page, "state-stale");
  await page.evaluate(() => window.socket.say({ expiring: { token_expires_at: Date.now() + 20_000 } }));
  await page.getByRole("heading", { name: "The token is running out" }).waitFor();
  assert.match(await page.locator("#announce").textContent(), /running out/, "it is said too");
  await page.getByLabel("New token").fill("nonsense");
  await page.getByRole("button", { name: "Use it" }).click();
  await page.getByText("That does not do: it is not a JSON Web Token").waitFor();
  await readable(page, "state-renew");
  await toCluster(page);
  await page.locator("#subscriptions button").click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("192.0.2.1:1").waitFor();
  await dialog.getByRole("button", { name: "Disconnect" }).click();
  await readable(page, "state-dialog");
  scripted.partial = [];
  scripted.nodes = [node("gw-1")];
  await done(page);
});

story("the reference can be read, and walked through", async () => {
  for (const options of [{}, { colorScheme: "dark" }, { viewport: { width: 360, height: 740 } }]) {
    const page = await browser.window(`${scripted.url}/reference`, options);
    await page.getByRole("heading", { level: 1 }).waitFor();
    assert.deepEqual(await faint(page), []);
    const width = options.viewport?.width ?? 1_280;
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width);
    const link = page.locator('a[href^="#"]').filter({ hasText: /subscriptions/i }).first();
    const to = await link.getAttribute("href");
    await link.click();
    await eventually(() => page.evaluate((id) => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 200, to.slice(1)), "the link leads there");
    await done(page);
  }
});
