// How a page uses the client; what is marked as wrong must be refused.

import { Mailpush, MailpushError, type Key, type MailEvent, type State } from "../../../static/mailpush.js";

const client = new Mailpush({
  token: async () => "token",
  onstate: (state: State, { transport, retryInMs = 0 }) => console.log(state, transport === "sse", retryInMs + 1),
  onerror: (error) => console.log(error.name, error.temporary),
  backoff: { baseMs: 1_000 },
});

function apply(event: MailEvent): void {
  switch (event.type) {
    case "MessageNew":
    case "MessageAppend":
      for (const { uid, envelope } of event.messages) console.log(uid.toFixed(), envelope?.subject?.trim());
      return;
    case "FlagsSet":
    case "FlagsClear":
      return event.messages.forEach(({ changed }) => console.log(changed.join()));
    case "MessageExpunge":
      return event.uids.forEach((uid) => console.log(uid.toFixed()));
    case "MailboxRename":
      return console.log(event.to.length, event.mailbox.length);
    case "QuotaExceed":
      return console.log(event.used + (event.limit ?? 0));
    default:
      return console.log(event.mailbox, event.status?.messages);
  }
}

const handlers = { onready: ({ key }: { key: Key }) => console.log(key.mailbox ?? key.account), onevent: apply };
const inbox = client.subscribe({ mailbox: "#private:alice:INBOX", types: ["MessageNew"], fields: ["from"] }, handlers);
client.subscribe({ account: "alice", shared: true }, {
  ...handlers,
  onresync: async (reason, keys) => console.log(reason.length, keys.length),
  onrevoked: (key) => console.log(key.mailbox?.length),
  onerror: (error) => console.log(error instanceof MailpushError, error.code.toFixed()),
});
const closed: boolean = inbox.closed;
console.log(closed, inbox.rights?.includes("l"), client.state === "connected");
inbox.close();
client.close();

// @ts-expect-error a token is needed
new Mailpush({});
// @ts-expect-error as a function
new Mailpush({ token: "token" });
// @ts-expect-error onevent is needed
client.subscribe({ account: "alice" }, { onready() {} });
// @ts-expect-error either or
client.subscribe({ account: "alice", mailbox: "#private:alice:INBOX" }, handlers);
// @ts-expect-error a mailbox or an account
client.subscribe({}, handlers);
// @ts-expect-error for accounts only
client.subscribe({ mailbox: "#private:alice:INBOX", shared: true }, handlers);
// @ts-expect-error no such type
client.subscribe({ account: "alice", types: ["MessageOld"] }, handlers);
// @ts-expect-error left out means all
client.subscribe({ account: "alice", types: [] }, handlers);
// @ts-expect-error read-only
client.state = "idle";
// @ts-expect-error made by the client
new MailpushError();
