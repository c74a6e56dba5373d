// What the page knows of mailboxes and of metrics, without a screen.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Mailboxes, isUnread, sentence } from "../../static/mailboxes.js";
import { buckets, growth, parse, quantile, seconds, since, total } from "../../static/metrics.js";

const INBOX = "#private:alice@example.org:INBOX";

function play(...events) {
  const boxes = new Mailboxes("alice@example.org");
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
  assert.deepEqual([0.00005, 0.0123, 0.128, 1.26, 26.2, undefined].map(seconds), ["50 µs", "12 ms", "128 ms", "1.3 s", "26 s", "–"]);
});
