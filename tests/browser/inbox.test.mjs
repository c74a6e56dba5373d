// The view of mailboxes, in real windows.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { Browser, Cluster, connected, count, done, eventually, faint, pause, row, shot } from "./world.mjs";

const INBOX = "#private:alice@example.org:INBOX";
const TEAM = "#private:alice@example.org:Team";
let cluster;
let browser;

before(async () => {
  // A busy machine may take long over what a page does not read meanwhile.
  const patient = ["sessions.slow_client_timeout_ms=300000"];
  [cluster, browser] = await Promise.all([Cluster.start(patient), Browser.start()]);
});
afterEach(() => browser.tidy());
after(async () => {
  await browser?.stop();
  cluster?.stop();
});

const at = (node) => cluster.nodes[node].http;
const alice = (node, options) => browser.signedIn(at(node), cluster.token("alice"), options);
const story = (name, act) => test(name, { timeout: 180_000 }, () => cluster.tell(act));

story("a token from a link is filled in, leaves the address bar, and is forgotten at the end", async () => {
  const token = cluster.token("alice");
  const page = await browser.window(`${at(0)}/#token=${token}`);
  assert.equal(page.url(), `${at(0)}/`);
  assert.equal(await page.getByLabel("Token", { exact: true }).inputValue(), token);
  await page.getByText("A token of alice@example.org").waitFor();
  await shot(page, "sign-in");
  assert.equal(await page.locator("#inbox").isVisible(), false, "a link signs nobody in");
  await page.getByRole("button", { name: "Sign in" }).click();
  await connected(page, "dev-1");
  await page.reload();
  await connected(page, "dev-1");
  assert.equal(page.url().includes(token), false);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await eventually(async () => (await sessions("alice")) === 0, "the session has ended");
  await done(page);
});

async function sessions(name) {
  const headers = { authorization: `Bearer ${cluster.token("admin")}` };
  const response = await fetch(`${at(0)}/v1/sessions?user=${name}@example.org&transport=websocket`, { headers });
  return (await response.json()).sessions.length;
}

story("what is no token, and one that the server refuses, are told", async () => {
  const page = await browser.window(at(0));
  await page.getByLabel("Token", { exact: true }).fill("nonsense");
  await page.keyboard.press("Enter");
  await page.getByText("That is no token").waitFor();
  await page.getByLabel("Token", { exact: true }).fill(cluster.token("alice", { secret: "another secret of more than thirty-two bytes" }));
  await page.keyboard.press("Enter");
  await page.getByText("The server refuses the token").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await done(page);
});

story("messages arrive, change flags and vanish in two windows at two nodes, each once", async () => {
  const pages = await Promise.all([alice(0), alice(1)]);
  await connected(pages[0], "dev-1");
  await connected(pages[1], "dev-2");
  // Watched by its path too: two subscriptions that tell the same.
  await pages[1].getByLabel("Watch another").fill(INBOX);
  await pages[1].getByRole("button", { name: "Watch", exact: true }).click();
  await pages[1].getByText("rights lrs").waitFor();
  await cluster.append(0, "alice", "first of all");
  await cluster.append(1, "alice", "second of all");
  for (const page of pages) {
    await row(page, "first of all").waitFor();
    await count(row(page, "of all"), 2, () => cluster.heard(page, "alice"));
    await page.getByText(/\d messages · \d unread/).waitFor();
    assert.match(await row(page, "first of all").innerText(), /bob@example.org[^]*unread:/);
  }
  await cluster.imap(1, "alice", "SELECT INBOX", "STORE 1 +FLAGS (\\Seen \\Flagged)");
  for (const page of pages) {
    await row(page, "first of all").getByText("flagged").waitFor();
    await eventually(async () => !(await row(page, "first of all").innerText()).includes("unread"), "it is read");
  }
  await cluster.imap(0, "alice", "SELECT INBOX", "STORE 1 -FLAGS (\\Flagged)");
  for (const page of pages) await row(page, "first of all").getByText("flagged").waitFor({ state: "detached" });
  await cluster.imap(0, "alice", "SELECT INBOX", "STORE 1 +FLAGS (\\Deleted)", "EXPUNGE");
  for (const page of pages) {
    await count(row(page, "first of all"), 0, () => cluster.heard(page, "alice"));
    await count(row(page, "second of all"), 1);
  }
  await Promise.all(pages.map((page) => done(page)));
});

story("a subject that is HTML is shown as text, in the list, the toast and the log", async () => {
  const page = await alice(0);
  const subject = "<img src=x onerror=\"document.title='hacked'\"><script>alert(1)</script>";
  const messages = [{ uid: 900, flags: ["$<b>label"], envelope: { subject, from: '"<svg onload=alert(2)>" <x@example.org>' } }];
  await cluster.publish({ type: "MessageNew", mailbox: INBOX, messages });
  await cluster.publish({ type: "MessageNew", mailbox: "#private:alice@example.org:<i>folder</i>", messages: [{ uid: 1 }] });
  await row(page, subject).waitFor();
  await page.locator(".toasts").getByText(subject).waitFor();
  await page.getByRole("button", { name: "<i>folder</i>" }).first().waitFor();
  await page.locator("#log").getByText("<i>folder</i>").waitFor({ state: "attached" });
  assert.equal(await page.locator("main img, main svg:not(.chart svg), main script, main i, .toasts img").count(), 0);
  assert.equal(await page.title(), "Inbox · mailpush");
  await done(page);
});

story("a toast tells of new mail, and can be dismissed", async () => {
  const page = await alice(1);
  const messages = [{ uid: 910, flags: [], envelope: { subject: "Lunch?", from: "Bob" } }];
  await cluster.publish({ type: "MessageNew", mailbox: INBOX, messages });
  const toast = page.getByRole("status", { name: "New mail" });
  await toast.getByText("Lunch?").waitFor();
  await page.getByRole("button", { name: "Dismiss: Lunch?" }).click();
  await toast.getByText("Lunch?").waitFor({ state: "detached" });
  await done(page);
});

story("a token that runs out is replaced within the session", async () => {
  const page = await browser.signedIn(at(0), cluster.token("alice", { seconds: 20 }));
  await page.getByRole("heading", { name: "The token is running out" }).waitFor();
  const before = await page.locator("#counts").innerText();
  await page.getByLabel("New token").fill(cluster.token("bob"));
  await page.getByRole("button", { name: "Use it" }).click();
  await page.getByText("sign out first").waitFor();
  await page.getByLabel("New token").fill(cluster.token("alice"));
  await page.getByRole("button", { name: "Use it" }).click();
  await page.getByRole("heading", { name: "The token is running out" }).waitFor({ state: "hidden" });
  await pause(22_000);
  await cluster.append(1, "alice", "after the first token");
  await row(page, "after the first token").waitFor();
  assert.equal(await page.locator("#counts").innerText(), before, "the same session, with no return");
  await done(page);
});

story("a page whose node is lost comes back at the other, and says what it cannot know", async () => {
  const { balancer } = cluster;
  balancer.to = at(0);
  const page = await browser.signedIn(balancer.url, cluster.token("alice"));
  await connected(page, "dev-1");
  await cluster.append(0, "alice", "before the loss");
  await row(page, "before the loss").waitFor();
  balancer.cut(at(1));
  await cluster.append(1, "alice", "while away");
  await connected(page, "dev-2");
  await cluster.append(0, "alice", "after the loss");
  await row(page, "after the loss").waitFor();
  await count(row(page, "the loss"), 2, () => cluster.heard(page, "alice"));
  // Either the node could tell what was missed, or the page says that it may be stale: never neither.
  if (/ 0 gaps/.test(await page.locator("#counts").innerText())) {
    await count(row(page, "while away"), 1);
  } else {
    await page.getByText("What is shown may be stale").waitFor();
    assert.match(await row(page, "before the loss").getAttribute("class"), /doubtful/);
    assert.doesNotMatch(await row(page, "after the loss").getAttribute("class"), /doubtful/);
    assert.deepEqual(await faint(page), []);
    await shot(page, "inbox-stale");
    await page.getByRole("button", { name: "Forget what may be stale" }).click();
    await count(row(page, "before the loss"), 0);
    await count(row(page, "after the loss"), 1);
    await page.getByText("What is shown may be stale").waitFor({ state: "hidden" });
  }
  await done(page, { cut: true });
});

story("where a proxy lets no WebSocket through, the same comes by a stream", async () => {
  const { balancer } = cluster;
  balancer.to = at(1);
  balancer.refusesUpgrades = true;
  try {
    const page = await browser.window(`${balancer.url}/#token=${cluster.token("bob")}`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator("#state", { hasText: "Connected by event stream" }).waitFor();
    await cluster.append(0, "bob", "by a stream");
    await row(page, "by a stream").waitFor();
    await count(row(page, "by a stream"), 1, () => cluster.heard(page, "bob"));
    await done(page, { cut: true });
  } finally {
    balancer.refusesUpgrades = false;
  }
});

story("a page that cannot keep up is told so, and goes on", async () => {
  const { balancer } = cluster;
  balancer.to = at(0);
  const page = await browser.signedIn(balancer.url, cluster.token("carol"));
  const mailbox = "#private:carol@example.org:INBOX";
  const mail = (uid, subject) => ({ type: "MessageNew", mailbox, messages: [{ uid, flags: ["\\Seen"], envelope: { subject } }] });
  await cluster.publish(mail(1, "before the flood"));
  await row(page, "before the flood").waitFor();
  const { session } = await page.locator("#counts").evaluate((element) => ({ session: element.textContent.split(" · ")[0] }));
  balancer.hold();
  // More than the sockets' buffers and the session's outbox hold together.
  for (let batch = 0; batch < 24; batch += 1) {
    await cluster.publish(Array.from({ length: 500 }, (_, at) => mail(100 + batch * 500 + at, "x".repeat(1_200))));
  }
  balancer.release();
  // All that did come has to be drawn first.
  await page.getByText("What is shown may be stale").waitFor({ timeout: 60_000 });
  await page.locator("#counts", { hasText: /[1-9]\d* resync/ }).waitFor();
  await cluster.publish(mail(50_000, "after the flood"));
  await row(page, "after the flood").waitFor({ timeout: 60_000 });
  await count(page.locator('[data-uid="50000"]'), 1, () => cluster.heard(page, "carol"));
  assert.ok((await page.locator("#counts").innerText()).startsWith(session), "in the same session");
  assert.ok((await page.locator("#messages > li").count()) <= 500);
  await done(page);
});

story("a mailbox that is shared appears, and disappears once it is not", async () => {
  const page = await browser.signedIn(at(1), cluster.token("carol"));
  await cluster.imap(0, "alice", "SETACL Team carol@example.org lrs");
  await page.getByRole("button", { name: /Team.*alice@example\.org/ }).click();
  await page.getByText("What is shown may be stale: it is shared with you from now on").waitFor();
  // The share is told of before every change of the mailbox is: until then one may go unheard.
  const rota = { id: "019ab27c-7d40-7000-8000-000000000005", type: "MessageNew", mailbox: TEAM };
  await eventually(async () => {
    await cluster.publish({ ...rota, messages: [{ uid: 5, flags: [], envelope: { subject: "Rota" } }] });
    return (await row(page, "Rota").count()) > 0;
  }, "what happens there is told");
  await count(row(page, "Rota"), 1, () => cluster.heard(page, "carol"));
  await cluster.imap(0, "alice", "DELETEACL Team carol@example.org");
  await page.getByRole("button", { name: /Team.*alice@example\.org/ }).waitFor({ state: "detached" });
  await page.locator(".toasts").getByText("is not shared with you any more").waitFor();
  await count(row(page, "Rota"), 0);
  await page.getByLabel("Watch another").fill(TEAM);
  await page.keyboard.press("Enter");
  await page.locator("#add-error", { hasText: "no such mailbox" }).waitFor();
  await done(page);
});

story("renamed, created and deleted mailboxes", async () => {
  const page = await alice(0);
  const box = (name) => page.locator("#mailboxes").getByRole("button", { name });
  await cluster.imap(1, "alice", "CREATE Plans");
  await box("Plans").waitFor();
  await cluster.imap(1, "alice", "RENAME Plans Ideas");
  await box("Ideas").waitFor();
  await box("Plans").waitFor({ state: "detached" });
  await cluster.imap(1, "alice", "DELETE Ideas");
  await box("Ideas").waitFor({ state: "detached" });
  await done(page);
});

story("by the keyboard alone", async () => {
  const page = await browser.window(at(0));
  await page.keyboard.insertText(cluster.token("alice"));
  await page.keyboard.press("Enter");
  await connected(page);
  await cluster.publish({ type: "MessageNew", mailbox: TEAM, messages: [{ uid: 77, flags: [], envelope: { subject: "By keyboard" } }] });
  await page.locator("#mailboxes").getByRole("button", { name: "Team" }).waitFor();
  const reach = async (wanted) => {
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press("Tab");
      const focused = page.locator(":focus");
      if (!(await focused.count())) continue;
      const outline = await focused.evaluate((element) => getComputedStyle(element).outlineStyle);
      assert.notEqual(outline, "none", `focus is not seen at ${await focused.evaluate((element) => element.outerHTML.slice(0, 80))}`);
      if (new RegExp(wanted).test((await focused.innerText()) || (await focused.getAttribute("id")) || "")) return;
    }
    assert.fail(`${wanted} cannot be reached by Tab`);
  };
  await reach("^Team");
  await page.keyboard.press("Enter");
  await row(page, "By keyboard").waitFor();
  await eventually(() => page.evaluate(() => document.activeElement?.textContent.startsWith("Team")), "focus stays where it was");
  await reach("add-path");
  await page.keyboard.insertText("nonsense");
  await page.keyboard.press("Enter");
  await page.getByText("A path looks like").waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await reach("Sign out");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await done(page);
});

story("dark where the system is, or where the button says so", async () => {
  const page = await alice(0, { colorScheme: "dark" });
  const lightness = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0]);
  assert.ok((await lightness()) < 60);
  const button = page.getByRole("button", { name: "Dark", pressed: true });
  await button.click();
  assert.ok((await lightness()) > 200);
  await page.reload();
  await connected(page);
  assert.ok((await lightness()) > 200, "it is remembered");
  await done(page);
});

story("at 360 px nothing is beside the screen, and every field has a name", async () => {
  const page = await alice(0, { viewport: { width: 360, height: 740 } });
  const messages = [{ uid: 950, flags: ["\\Flagged"], envelope: { subject: `A ${"long".repeat(60)} word`, from: "x".repeat(80) } }];
  await cluster.publish({ type: "MessageNew", mailbox: INBOX, messages });
  await row(page, "longlong").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const faults = await page.evaluate(() => {
    const named = (element) => element.labels?.length || element.textContent.trim() || element.getAttribute("aria-label");
    const fields = [...document.querySelectorAll("input, select, button, a")].filter((element) => !named(element));
    const early = [...document.querySelectorAll("[tabindex]")].filter((element) => element.tabIndex > 0);
    return [...fields, ...early].map((element) => element.outerHTML);
  });
  assert.deepEqual(faults, []);
  await done(page);
});

story("pictures of it", async () => {
  const looks = [
    ["light", {}],
    ["dark", { colorScheme: "dark" }],
    ["phone", { viewport: { width: 360, height: 740 } }],
  ];
  const pages = await Promise.all(looks.map(([, options]) => browser.signedIn(at(1), cluster.token("bob"), options)));
  const mailbox = "#private:bob@example.org:INBOX";
  const mails = [
    ["Carol Jones <carol@example.org>", "Minutes of Tuesday's meeting", ["\\Seen"]],
    ["Alice <alice@example.org>", "Re: the figures for October", ["\\Seen", "\\Answered"]],
    ["Parcels <noreply@example.net>", "Your parcel is on its way", []],
    ["Alice <alice@example.org>", "<img src=x onerror=alert(1)>", ["\\Seen", "\\Flagged"]],
    ["Carol Jones <carol@example.org>", "Lunch on Thursday?", []],
  ];
  for (const [number, [from, subject, flags]] of mails.entries()) {
    const status = { messages: 808 + number, uidnext: 41 + number, unseen: 2 + Math.floor(number / 2) };
    const message = { uid: 40 + number, flags, internaldate: Date.now() - (5 - number) * 1_260_000, envelope: { from, subject } };
    await cluster.publish({ type: number === 4 ? "MessageNew" : "MessageAppend", mailbox, uidvalidity: 1, status, messages: [message] });
  }
  await cluster.publish({ type: "FlagsSet", mailbox, messages: [{ uid: 12, changed: ["\\Flagged"], flags: ["\\Seen", "\\Flagged"] }] });
  await cluster.publish({ type: "MessageAppend", mailbox: "#private:bob@example.org:Projects/Push", messages: [{ uid: 1, flags: ["\\Seen"] }] });
  await cluster.publish({ type: "MailboxChange", mailbox: TEAM });
  for (const [number, page] of pages.entries()) {
    await count(page.locator("#messages > li"), 6);
    await page.locator("#mailboxes").getByText("Team").waitFor();
    await row(page, "Lunch").locator('.from[title="Carol Jones <carol@example.org>"]').getByText("Carol Jones").waitFor();
    assert.deepEqual(await faint(page), []);
    await shot(page, `inbox-${looks[number][0]}`);
    await done(page);
  }
});
