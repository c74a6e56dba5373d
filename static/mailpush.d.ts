/**
 * Types of mailpush.js, and how it is used.
 *
 *     import { Mailpush } from "/mailpush.js";
 *
 *     const client = new Mailpush({
 *       token: async () => {
 *         const answer = await fetch("/api/push-token", { method: "POST", redirect: "error" });
 *         return answer.ok ? answer.text() : Promise.reject(new Error("no token now")); // it is asked for again later
 *       },
 *       onstate: (state, { reason }) => showState(state, reason),
 *     });
 *     const inbox = client.subscribe({ mailbox: "#private:alice@example.org:INBOX", fields: ["from", "subject"] }, {
 *       onready: () => loadMessages(),        // every change from now on is told: read your state now
 *       onevent: (event) => apply(event),     // a type you do not know: read the mailbox's state
 *       onresync: (reason) => loadMessages(), // something may have been missed; left out, onready is called again
 *       onrevoked: () => showNoAccess(),      // the subscription has ended
 *       onerror: (error) => error.temporary || showNoAccess(),
 *     });
 *     // later: inbox.close(); client.close();
 *
 * **Callbacks, not an EventTarget**: they are in place before the first event can come, a
 * subscription without `onready` and `onevent` is refused at once, and closing it is all there is
 * to clean up. None is called within `subscribe`, and none after `close`. What a callback throws is
 * reported like any uncaught error and harms nothing here.
 *
 * **What you can rely on.** Between `onready` and the end of the subscription each change comes as
 * an event, or `onresync` is called. An event comes once to each subscription that it concerns:
 * where a mailbox and its account are both subscribed to, both are told, with the same `id`. Only
 * one older than the last thousand could come again. Lost connections come back by themselves: at
 * the time the server names, or spread by exponential backoff with full jitter, so that a node's
 * thousands of clients do not return at once; not while the browser is offline, and soon when the
 * page is seen again.
 *
 * **Reading the state.** Where `onready` or `onresync` gives a promise, what follows for that
 * subscription waits until it settles: an event that comes while the page still reads is applied to
 * what was read, not overwritten by it. If more than a thousand wait they are dropped, and
 * `onresync` is called after it (`overflow`). What ends the subscription does not wait.
 *
 * **States** (`client.state`, `onstate`): `idle` (nothing subscribed), `connecting`, `connected`,
 * `waiting` (for the next try), `offline`, and `closed`, which is final: by `close()`, or because
 * the server does not want this client back (`detail.code`, such as 4500 for a bad token or 4505
 * for a session that was ended), which each subscription's `onerror` is told too, as `closed`. Make
 * another client once that is settled. A user with too many sessions (4414) is `waiting`: it comes
 * back when the server says, by when sessions whose clients are gone have been missed.
 *
 * **Tokens.** `token` is called when one is needed: for the first connection, some time before the
 * token expires, and after it was said to have expired. It should give a new one each time. If it
 * fails it is called again later, and the client's `onerror` is told; a text that is no token ends
 * the client for good, so do not follow a redirect to a page for signing in. When the user signs
 * out, call `close()`.
 *
 * **Networks without WebSockets.** Where they never open the same pushes come by Server-Sent
 * Events, read with `fetch`: the token stays in a header (`EventSource` would need a ticket in the
 * URL), and a refusal can be told from a broken network. Now and then a WebSocket is tried again.
 * The node must have the page's origin then, or a proxy in front of both. A changed set of
 * subscriptions is another stream beside the first for some seconds: let the proxy speak HTTP/2,
 * for over HTTP/1.1 a browser has six connections to an origin, for all of its tabs. More than a
 * URL can name is sent as a form (`POST`); where a proxy takes neither, the client's `onerror` is
 * told (`stream_too_long`), and it goes on trying.
 *
 * **Renames and deletions** are told whatever `types` says. After `MailboxRename` a mailbox's
 * subscription goes on under the new path (`key`), after `AccountRename` an account's under the new
 * name. After `MailboxDelete` a mailbox's has ended (`closed`): subscribe again if the mailbox
 * comes back.
 */

/**
 * `#namespace:owner:name`, such as `#private:alice@example.org:INBOX`. The hierarchy separator in
 * the name is `/`.
 */
export type MailboxPath = string;

/** What a subscription is about. */
export type Key =
  | { readonly mailbox: MailboxPath; readonly account?: undefined }
  | { readonly account: string; readonly mailbox?: undefined };

export type EnvelopeField = "from" | "subject" | "message_id";

/** Milliseconds since 1970, UTC. */
export type Time = number;

export interface MailboxStatus {
  messages?: number;
  uidnext?: number;
  unseen?: number;
  /** Decimal: its 63 bits do not fit into a number. */
  highestmodseq?: string;
}

export interface NewMessage {
  uid: number;
  /** The complete set; left out where it is not known. */
  flags?: string[];
  /** Bytes. */
  size?: number;
  internaldate?: Time;
  modseq?: string;
  /**
   * What was asked for in `fields`. Whoever wrote the mail wrote this: show it as text, never as
   * HTML.
   */
  envelope?: { from?: string; subject?: string; message_id?: string };
}

export interface FlagChange {
  uid: number;
  /** The flags that were set or cleared. */
  changed: string[];
  /** The complete set afterwards; left out where it is not known. */
  flags?: string[];
  modseq?: string;
}

/** What events of all types have. Later versions of the server add to it. */
export interface EventBase {
  v: number;
  /** The same change has the same one. */
  id: string;
  at: Time;
  /** The server where it happened. */
  origin: string;
  actor?: string;
  actor_session?: string;
  mailbox: MailboxPath;
  mailbox_id?: string;
  /** If it is another than you know, your UIDs are worth nothing. */
  uidvalidity?: number;
  /** The mailbox after the change. If it contradicts what you hold, read the state. */
  status?: MailboxStatus;
}

/** One change of one mailbox, all messages of one transaction. */
export type MailEvent = EventBase &
  (
    | { type: "MessageNew" | "MessageAppend"; messages: NewMessage[] }
    | { type: "MessageExpunge"; uids: number[]; modseq?: string }
    | { type: "FlagsSet" | "FlagsClear"; messages: FlagChange[] }
    | { type: "MailboxRename"; to: MailboxPath }
    /**
     * The user is called otherwise now, and so is each mailbox, which is told by itself; `mailbox`
     * is the INBOX's old path.
     */
    | { type: "AccountRename"; to: string }
    | { type: "MailboxDelete" | "MailboxCreate" | "MailboxSubscribe" | "MailboxUnSubscribe" }
    | { type: "AclChange"; identifier: string; rights: string }
    | { type: "QuotaChange" | "QuotaExceed" | "QuotaWithin"; used: number; limit?: number }
    /**
     * Something changed, and no detail is known: read the mailbox's state. It comes whatever
     * `types` says.
     */
    | { type: "MailboxChange" }
  );

export type EventType = MailEvent["type"];

interface Wanted {
  /**
   * The types of events wanted; left out, all. What moves or ends the subscription itself comes in
   * any case: `MailboxRename` and `MailboxDelete` of a mailbox, `AccountRename` of an account; and
   * so does `MailboxChange`. A server of a later version may have, and send, others: read the state
   * then.
   */
  types?: readonly [EventType, ...EventType[]];
  /**
   * The parts of envelopes wanted; left out, none. What another subscription of the page wants may
   * come as well.
   */
  fields?: readonly [EnvelopeField, ...EnvelopeField[]];
}

export type What =
  | (Wanted & { mailbox: MailboxPath; account?: undefined; shared?: undefined })
  /** All mailboxes that the user owns; with `shared` those shared with the user too. */
  | (Wanted & { account: string; shared?: boolean; mailbox?: undefined });

export interface Handlers {
  /**
   * Settled: every change from now on is told. Read your state now; if it gives a promise, events
   * wait until it settles.
   */
  onready(this: void, ready: { key: Key; rights: string | undefined }): unknown;
  onevent(this: void, event: MailEvent): void;
  /**
   * Something may have been missed: read the state of `keys`, the whole of what is watched or
   * mailboxes of an account. `reason` is for people: `reconnected`, or the server's. If it gives a
   * promise, events wait until it settles. Left out, `onready` is called again.
   */
  onresync?(this: void, reason: string, keys: Key[]): unknown;
  /**
   * The right is gone, and the subscription ended; of an account with `shared`, only that mailbox
   * is.
   */
  onrevoked?(this: void, key: Key): void;
  /**
   * Refused. If it is `temporary` it is tried again; otherwise the subscription has ended:
   * `closed`, because the client has.
   */
  onerror?(this: void, error: MailpushError): void;
}

export interface Subscription {
  /** In the server's spelling once it is ready; under the new path after a rename. */
  readonly key: Key;
  /** Letters of RFC 4314, once it is ready. */
  readonly rights: string | undefined;
  readonly closed: boolean;
  close(): void;
}

export class MailpushError extends Error {
  private constructor();
  /**
   * A stable word: `not_found`, `forbidden`, `limit_reached`, `unavailable`, `token`,
   * `stream_too_long`, `closed` and so on.
   */
  readonly name: string;
  /** As a status of HTTP; of `closed`, the close code; 0 if it is not the server's. */
  readonly code: number;
  readonly temporary: boolean;
  readonly retryAfterMs: number | undefined;
}

export type State = "idle" | "connecting" | "connected" | "waiting" | "offline" | "closed";

export interface StateDetail {
  /** Of `connected`. */
  transport?: "websocket" | "sse";
  /** Of `connected` by WebSocket. */
  session?: string;
  node?: string;
  user?: string;
  /** Of `waiting` and `closed`: why, as a close code and in words. */
  code?: number;
  reason?: string;
  /** Of `waiting`. */
  retryInMs?: number;
}

/** For tests, and for runtimes that lack something; what is left out is the runtime's own. */
export interface Environment {
  WebSocket?: (new (url: string, protocol: string) => unknown) | undefined;
  fetch?: typeof fetch | undefined;
  setTimeout?(act: () => void, delay: number): unknown;
  clearTimeout?(id: never): void;
  /** Milliseconds that never go back, and those since 1970. */
  now?(): number;
  date?(): number;
  random?(): number;
  online?(): boolean;
  window?: EventTarget | undefined;
  document?: (EventTarget & { readonly visibilityState: string }) | undefined;
  location?: { readonly href: string; readonly origin: string } | undefined;
}

export interface Options {
  /** The node's, or the load balancer's, or of a path there; left out, that of the page. */
  url?: string;
  /** Gives a new token each time it is called. */
  token(this: void): string | Promise<string>;
  onstate?(this: void, state: State, detail: StateDetail): void;
  /**
   * What concerns no one subscription: tokens that cannot be had or are refused, and a stream that
   * no proxy lets through.
   */
  onerror?(this: void, error: MailpushError): void;
  /**
   * The first wait is anywhere between 0 and `baseMs` (4000), each next one up to twice as long, up
   * to `maxMs` (60000).
   */
  backoff?: { baseMs?: number; maxMs?: number };
  environment?: Environment;
}

export class Mailpush {
  constructor(options: Options);
  readonly state: State;
  subscribe(what: What, handlers: Handlers): Subscription;
  close(): void;
}
