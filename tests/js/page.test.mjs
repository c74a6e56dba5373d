// What the page knows of mailboxes and of metrics, without a screen.

import assert from "node:assert/strict";
import { test } from "node:test";
import { when } from "../../static/dom.js";
import { Listing, idOf, inOrder, likeness } from "../../static/listing.js";
import { Mailboxes, cause, isUnread, sender, sentence } from "../../static/mailboxes.js";
import { buckets, growth, parse, quantile, seconds, since, total } from "../../static/metrics.js";

const INBOX = "#private:alice@example.org:INBOX";

function play(...events) {
  const boxes = new Mailboxes();
  boxes.belongTo("alice@example.org");
  for (const event of events) boxes.apply({ at: 1_000, mailbox: INBOX, ...event });
  return boxes;
}

function arrival(uid, more = {}) {
  return { type: "MessageNew", messages: [{ uid, flags: [], modseq: "10", ...more }] };
}

function uids(boxes, path = INBOX) {
  return [...(boxes.get(path)?.messages.keys() ?? [])];
}

test("messages arrive once, change and go for good", () => {
  const boxes = play(arrival(1), arrival(2), { type: "MessageExpunge", uids: [1] }, arrival(1));
  assert.deepEqual(uids(boxes), [2]);
  assert.deepEqual(boxes.apply({ ...arrival(2), at: 1, mailbox: INBOX }).arrived, [], "it is there already");
  boxes.apply({ at: 1, mailbox: INBOX, type: "FlagsSet", messages: [{ uid: 1, changed: ["\\Seen"] }] });
  assert.deepEqual(uids(boxes), [2], "flags bring nothing back");
});

test("flags: whole sets win, differences are applied, older ones are not", () => {
  const set = (uid, more) => ({ type: "FlagsSet", messages: [{ uid, changed: ["\\Seen"], ...more }] });
  const flags = (boxes) => boxes.get(INBOX).messages.get(1).flags;
  assert.deepEqual(flags(play(arrival(1), set(1))), ["\\Seen"]);
  assert.deepEqual(flags(play(arrival(1), set(1, { flags: ["\\Seen", "a"], modseq: "9007199254740993" }))), ["\\Seen", "a"]);
  assert.deepEqual(flags(play(arrival(1, { modseq: "9007199254740993" }), set(1, { modseq: "9007199254740992" }))), []);
  const clear = { type: "FlagsClear", messages: [{ uid: 1, changed: ["\\Seen"] }] };
  assert.deepEqual(flags(play(arrival(1), set(1), clear)), []);
});

test("flags that are heard of before their message arrives are not undone by it", () => {
  const set = { type: "FlagsSet", messages: [{ uid: 1, changed: ["\\Seen", "\\Flagged"], modseq: "12" }] };
  const clear = { type: "FlagsClear", messages: [{ uid: 1, changed: ["\\Flagged", "$Work"], modseq: "13" }] };
  const message = (boxes) => boxes.get(INBOX).messages.get(1);
  const late = message(play(set, arrival(1, { flags: ["$Label"] })));
  assert.deepEqual([late.flags, late.modseq, isUnread(late)], [["$Label", "\\Seen", "\\Flagged"], "12", false]);
  assert.deepEqual(message(play(set, clear, arrival(1, { flags: ["$Work", "$Label"] }))).flags, ["$Label", "\\Seen"]);
  const unknown = message(play(set, { type: "MessageNew", messages: [{ uid: 1, modseq: "10" }] }));
  assert.deepEqual([unknown.flags, isUnread(unknown)], [["\\Seen", "\\Flagged"], false]);
  const whole = { type: "FlagsSet", messages: [{ uid: 1, changed: ["\\Seen"], flags: ["\\Seen"], modseq: "12" }] };
  assert.deepEqual(message(play(whole, arrival(1, { flags: ["$Label"] }))).flags, ["\\Seen"]);
});

test("what is new is so until it is seen, gone or of another UIDVALIDITY", () => {
  const boxes = play({ ...arrival(1), uidvalidity: 1 }, arrival(2), arrival(3));
  const box = boxes.get(INBOX);
  for (const uid of [1, 2, 3]) box.fresh.add(uid);
  boxes.apply({ at: 1, mailbox: INBOX, type: "FlagsSet", messages: [{ uid: 1, changed: ["\\Seen"] }] });
  assert.deepEqual([...box.fresh], [2, 3]);
  boxes.apply({ at: 1, mailbox: INBOX, type: "MessageExpunge", uids: [3] });
  assert.deepEqual([...box.fresh], [2]);
  boxes.apply({ at: 1, mailbox: INBOX, uidvalidity: 2, ...arrival(9) });
  assert.equal(box.fresh.size, 0);
});

test("the latest status stands, and INBOX has none once its messages have moved", () => {
  const of = (at, messages) => ({ at, type: "MailboxCreate", status: { messages } });
  const boxes = play(of(2, 20), of(1, 10));
  assert.equal(boxes.get(INBOX).status.messages, 20);
  boxes.apply({ at: 3, type: "MailboxRename", mailbox: INBOX, to: "#private:alice@example.org:Old" });
  assert.equal(boxes.get(INBOX).status, undefined);
});

test("what was heard before the server said whose it is, is sorted then", () => {
  const boxes = new Mailboxes();
  boxes.apply({ at: 1, mailbox: INBOX, ...arrival(1) });
  assert.deepEqual([boxes.user, boxes.get(INBOX).own], [undefined, false]);
  boxes.belongTo("alice@example.org");
  assert.equal(boxes.get(INBOX).own, true);
});

test("who wrote, by name", () => {
  const from = ["Bob <bob@example.org>", '"Jones, Carol" <c@example.org>', "<d@example.org>", "e@example.org", "", undefined, '"<svg>" <x@example.org>'];
  assert.deepEqual(from.map(sender), ["Bob", "Jones, Carol", "<d@example.org>", "e@example.org", "", "", "<svg>"]);
});

test("a time of another day has its day, and one that no calendar has is none", () => {
  const now = new Date();
  const noon = (days) => new Date(now.getFullYear(), now.getMonth(), now.getDate() - days, 12, 34, 56).getTime();
  assert.match(when(noon(0)), /^\D*\d+:34\D*$/);
  assert.match(when(noon(0), true), /34:56/);
  assert.match(when(noon(400)), new RegExp(new Date(noon(400)).getFullYear()));
  assert.doesNotMatch(when(noon(1)), /^\D*\d+:34\D*$/);
  assert.equal(when(1e300), "–");
});

test("why something may have been missed has its words, and what a later version says has its own", () => {
  assert.equal(cause("overflow"), "this page could not keep up");
  assert.equal(cause("eclipse"), "eclipse");
  assert.equal(cause("constructor"), "constructor");
});

test("what is not known is not claimed", () => {
  const boxes = play({ type: "FlagsSet", messages: [{ uid: 7, changed: ["$Work"] }] }, { type: "MessageNew", messages: [{ uid: 8 }] });
  const { messages, status } = boxes.get(INBOX);
  assert.equal(isUnread(messages.get(7)), false);
  assert.equal(messages.get(7).at, undefined);
  assert.equal(isUnread(messages.get(8)), false);
  assert.equal(status, undefined);
});

test("another UIDVALIDITY makes what is held worth nothing", () => {
  const boxes = play({ ...arrival(1), uidvalidity: 1 }, { type: "MessageExpunge", uids: [2], uidvalidity: 1 }, { ...arrival(2), uidvalidity: 2 });
  assert.deepEqual(uids(boxes), [2]);
});

test("renames take what is beneath along, and leave INBOX", () => {
  const path = (name) => `#private:alice@example.org:${name}`;
  const boxes = play({ ...arrival(1), mailbox: path("A") }, { ...arrival(2), mailbox: path("A/B") }, { ...arrival(3), mailbox: path("AB") });
  boxes.apply({ type: "MailboxRename", mailbox: path("A"), to: path("C") });
  assert.deepEqual(boxes.list().map(({ name }) => name).sort(), ["AB", "C", "C/B"]);
  assert.deepEqual(uids(boxes, path("C/B")), [2]);
  boxes.apply({ ...arrival(9), mailbox: INBOX });
  boxes.apply({ type: "MailboxRename", mailbox: INBOX, to: path("Old") });
  assert.deepEqual([uids(boxes), uids(boxes, path("Old"))], [[], []]);
  assert.equal(boxes.list()[0].name, "INBOX", "one's own INBOX is first");
});

test("a user is called otherwise, and with the user every mailbox", () => {
  const boxes = play(arrival(1), { ...arrival(2), mailbox: "#private:bob@example.org:Team" });
  boxes.apply({ type: "AccountRename", mailbox: INBOX, to: "al@example.org" });
  assert.deepEqual(boxes.list().map(({ path, own }) => [path, own]), [["#private:al@example.org:INBOX", true], ["#private:bob@example.org:Team", false]]);
  assert.deepEqual([uids(boxes, "#private:al@example.org:INBOX"), boxes.user], [[1], "al@example.org"]);
});

test("doubt marks what was shown, and what comes later is not in doubt", () => {
  const boxes = play(arrival(1));
  boxes.doubt("lost");
  boxes.apply({ at: 1, mailbox: INBOX, ...arrival(2) });
  const { stale, messages } = boxes.get(INBOX);
  assert.equal(stale, "lost");
  assert.deepEqual([...messages.values()].map((message) => message.stale), [true, false]);
  boxes.settle(INBOX);
  assert.deepEqual([uids(boxes), boxes.get(INBOX).stale], [[2], null]);
});

test("a mailbox here is bounded", () => {
  const boxes = play(...Array.from({ length: 600 }, (_, at) => arrival(at + 1)));
  assert.deepEqual([uids(boxes).length, uids(boxes)[0]], [500, 101]);
});

test("one event of thousands of messages is bounded too, and quickly", () => {
  const many = (from) => ({ type: "FlagsSet", messages: Array.from({ length: 3_000 }, (_, at) => ({ uid: from + at, changed: ["\\Seen"] })) });
  const boxes = play(many(1), many(3_001), many(1_001));
  assert.deepEqual([uids(boxes).length, Math.min(...uids(boxes))], [500, 5_501]);
});

test("every type of event has its words, and so has one of a later version", () => {
  const words = sentence({ type: "FlagsSet", mailbox: INBOX, actor: "bob", messages: [{ uid: 3, changed: ["\\Seen"] }] });
  assert.equal(words, "message 3 in INBOX: Seen set, by bob");
  assert.equal(sentence({ type: "MailboxDance", mailbox: INBOX }), "MailboxDance in INBOX");
  assert.match(play({ type: "MailboxDance" }).get(INBOX).stale, /does not understand/);
  assert.match(play({ type: "MailboxChange" }).get(INBOX).stale, /no detail/);
  assert.equal(play({ type: "MailboxCreate" }).get(INBOX).stale, null);
  assert.equal(sentence({ type: "constructor", mailbox: INBOX }), "constructor in INBOX");
});

test("metrics are read, and counters that began anew are understood", () => {
  const text = (a, b, sum) => `# TYPE x counter\nx_total{outcome="sent",why="a \\"b\\", c"} ${a}\nx_total{outcome="failed"} ${b}
h_bucket{le="0.1",stage="s"} ${a}\nh_bucket{le="+Inf",stage="s"} ${sum}\nh_bucket{le="0.1",stage="other"} 99\ny 1.5\n# EOF\n`;
  const [before, after] = [parse(text(5, 1, 6)), parse(text(15, 2, 26))];
  assert.equal(total(after, "x_total"), 17);
  assert.equal(total(after, "x_total", { outcome: "sent" }), 15);
  assert.equal(total(after, "nothing"), 0);
  assert.equal(after.get("x_total")[0].labels.why, 'a \\"b\\", c');
  assert.equal(growth(17, 3), 3);
  const of = (samples) => buckets(samples, "h", { stage: "s" });
  assert.deepEqual(since(of(before), of(after)), [[0.1, 10], [Infinity, 20]]);
  assert.deepEqual(since(of(after), of(before)), of(before), "the node began anew");
});

test("quantiles lie within their bucket", () => {
  const list = [[1, 0], [2, 10], [4, 20], [Infinity, 20]];
  assert.equal(quantile(list, 0.5), 2);
  assert.equal(quantile(list, 0.75), 3);
  assert.equal(quantile([[1, 0], [Infinity, 5]], 0.99), 1);
  assert.equal(quantile([[1, 0], [Infinity, 0]], 0.5), undefined);
  assert.equal(quantile([], 0.5), undefined);
  assert.deepEqual([0.00005, 0.001, 0.0123, 0.128, 1.26, 26.2, undefined].map(seconds), ["50 µs", "1 ms", "12 ms", "128 ms", "1.3 s", "26 s", "–"]);
});

// The list of subscriptions

function subscribed(session, key, node = session.split(".")[0]) {
  return { session, node, user: "u", transport: "imap", key: key.startsWith("#") ? { mailbox: key } : { account: key }, since: 1 };
}

function page(keys, more = {}, { size = 3, ...rest } = {}) {
  const answer = { subscriptions: keys.map((key) => subscribed("gw-1.0000000000000001", key)), next: null, partial: [], ...more };
  return new Listing(answer, { size, ...rest });
}

function shown(listing) {
  return listing.rows().map(({ key }) => key.mailbox ?? key.account);
}

const come = (key, session = "gw-1.0000000000000001") => ["subscribed", { subscription: subscribed(session, key) }];
const go = (key) => ["unsubscribed", { subscription: subscribed("gw-1.0000000000000001", key) }];

test("subscriptions are in the server's order", () => {
  const sorted = [
    subscribed("gw.ffffffffffffffff", "#p:u:Z"),
    subscribed("gw-1.0000000000000001", "#p:u:B"),
    subscribed("gw-1.0000000000000001", "#p:u:\uffee"),
    subscribed("gw-1.0000000000000001", "#p:u:\u{1f600}"),
    subscribed("gw-1.0000000000000001", "a"),
    subscribed("gw-1.0000000000000002", "#p:u:A"),
    subscribed("gw-10.0000000000000000", "a"),
  ];
  assert.deepEqual([...sorted].reverse().sort(inOrder).map(idOf), sorted.map(idOf));
});

test("a page holds no more than a page, and asks for a new listing where it cannot know", () => {
  const heard = new Set();
  const listing = page(["#p:u:B", "#p:u:D"]);
  assert.equal(listing.take(...come("#p:u:C"), heard), "changed");
  assert.equal(listing.take(...come("#p:u:A"), heard), "anew");
  assert.deepEqual(shown(listing), ["#p:u:A", "#p:u:B", "#p:u:C"]);
  for (let number = 0; number < 1_000; number += 1) listing.take(...come(`#p:u:E${number}`), heard);
  assert.equal(shown(listing).length, 3);
});

test("what belongs on another page is not on this one", () => {
  const heard = new Set();
  const middle = page(["#p:u:E", "#p:u:H"], { next: "n" }, { after: subscribed("gw-1.0000000000000001", "#p:u:C") });
  assert.equal(middle.take(...come("#p:u:B"), heard), "same");
  assert.equal(middle.take(...come("#p:u:D"), heard), "changed", "before the first, and behind the page before");
  assert.equal(middle.take(...come("#p:u:I"), heard), "same");
  assert.equal(middle.take(...come("u"), heard), "same", "accounts are behind mailboxes");
  assert.equal(middle.take(...go("#p:u:E"), heard), "anew", "the next page's first one moves up");
  assert.deepEqual(shown(middle), ["#p:u:D", "#p:u:H"]);
});

test("a node that was not in the listing is listed once it is heard", () => {
  const heard = new Set(["gw-1", "gw-2"]);
  const listing = page(["u"], { partial: [{ node: "gw-3", reason: "slow" }] });
  assert.equal(listing.take("snapshot", { node: "gw-1", seq: 1 }, heard), "same");
  assert.equal(listing.take("partial", { node: "gw-2", reason: "down" }, heard), "changed");
  assert.equal(listing.take("snapshot", { node: "gw-2", seq: 1 }, heard), "changed", "it goes on where it stood");
  assert.equal(listing.take("snapshot", { node: "gw-3", seq: 1 }, heard), "anew");
  assert.deepEqual([...listing.silent.keys()], ["gw-3"], "still, until it is listed");
  assert.equal(listing.take("snapshot", { node: "gw-4", seq: 1 }, heard), "anew");
  assert.equal(listing.take("gone", { node: "gw-1" }, heard), "changed");
  assert.deepEqual([shown(listing), heard.has("gw-1")], [[], false]);
});

test("a key as somebody types it is perhaps that of the server", () => {
  const mailbox = { mailbox: "#private:alice@example.org:Team" };
  const account = { account: "alice@example.org" };
  assert.equal(likeness("#private:alice@example.org:Team", mailbox), "same");
  assert.equal(likeness("#private:Alice:Team", mailbox), "perhaps");
  assert.equal(likeness("#private:bob:Team", mailbox), "other");
  assert.equal(likeness("ALICE", account), "perhaps");
  assert.equal(likeness("alice@example.net", account), "other");
  assert.equal(likeness("alice", mailbox), "other");
  const listing = page([], {}, { typed: "ALICE" });
  assert.equal(listing.take(...come("bob@example.org"), new Set()), "same");
  assert.equal(listing.take(...come("alice@example.org"), new Set()), "anew", "the server knows");
  assert.equal(page(["alice@example.org"], {}, { typed: "ALICE" }).take(...come("alice@example.org", "gw-1.0000000000000009"), new Set()), "changed");
});
