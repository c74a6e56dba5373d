// What has been heard of mailboxes: no screen, no network, no clock. The page cannot read a
// mailbox, so what it holds is only what events told since it began to listen, and it says so.

/** Messages that a mailbox here holds at most; the oldest go. */
const MESSAGES = 500;
/** Expunged UIDs that are remembered, for events of several origins may interleave. */
const GONE = 1_000;

const SEEN = "\\Seen";

/** After an event of another type the mailbox would have to be read. */
const TYPES = new Set(["MessageNew", "MessageAppend", "MessageExpunge", "FlagsSet", "FlagsClear", "MailboxRename", "MailboxDelete",
  "AccountRename", "MailboxCreate", "MailboxSubscribe", "MailboxUnSubscribe", "AclChange", "QuotaChange", "QuotaExceed", "QuotaWithin", "MailboxChange"]);

/** `#namespace:owner:name` in its parts. */
export function parts(path) {
  const [namespace, owner, ...name] = path.split(":");
  return { namespace, owner, name: name.join(":") };
}

/** What a path is called once `from` is `to`; undefined if it is not touched. */
function moved(path, from, to) {
  return path === from || path.startsWith(`${from}/`) ? to + path.slice(from.length) : undefined;
}

/**
 * Whether a modseq is older than one that is known. They are decimal texts, too long for numbers.
 */
function older(modseq, known) {
  return modseq !== undefined && known !== undefined && BigInt(modseq) < BigInt(known);
}

/** The higher of two, of which either may be unknown. */
function newer(one, other) {
  return one === undefined || older(one, other) ? other : one;
}

export class Mailboxes {
  #all = new Map();
  #user;

  /** The user as called now; undefined until the server has said so. */
  get user() {
    return this.#user;
  }

  /** Whose these are: what was heard of before is sorted by it too. */
  belongTo(user) {
    this.#user = user;
    for (const box of this.#all.values()) box.own = box.owner === user;
  }

  /** One's own first, INBOX before all, then by name. */
  list() {
    const rank = (box) => `${box.owner === this.#user ? 0 : 1}${box.name === "INBOX" ? 0 : 1}${box.owner} ${box.name}`;
    return [...this.#all.values()].sort((a, b) => rank(a).localeCompare(rank(b)));
  }

  get(path) {
    return this.#all.get(path);
  }

  /** The mailbox, which is there from now on. */
  add(path) {
    let box = this.#all.get(path);
    if (!box) {
      const { owner, name } = parts(path);
      const own = owner === this.#user;
      box = { path, owner, name, own, messages: new Map(), gone: new Set(), status: undefined, stale: null, quota: null, fresh: new Set() };
      this.#all.set(path, box);
    }
    return box;
  }

  remove(path) {
    this.#all.delete(path);
  }

  /** Takes an event in; gives the mailbox and the messages that arrived. */
  apply(event) {
    if (event.type === "MailboxDelete") {
      const box = this.#all.get(event.mailbox);
      this.#all.delete(event.mailbox);
      return { box, arrived: [] };
    }
    if (event.type === "AccountRename") return { box: this.#renameAccount(event), arrived: [] };
    if (event.type === "MailboxRename") return { box: this.#rename(event), arrived: [] };
    const box = this.add(event.mailbox);
    if (event.uidvalidity !== undefined) {
      // Other UIDs: what is held is worth nothing.
      if (box.uidvalidity !== undefined && box.uidvalidity !== event.uidvalidity) {
        empty(box);
        box.gone.clear();
      }
      box.uidvalidity = event.uidvalidity;
    }
    // Events of several origins may interleave: the latest status stands.
    if (event.status && !(box.status?.at > event.at)) box.status = { ...event.status, at: event.at };
    if (event.type === "MailboxChange") this.doubt("something changed, and no detail is known", [event.mailbox]);
    if (!TYPES.has(event.type)) this.doubt("something changed that this page does not understand", [event.mailbox]);
    const arrived = [];
    for (const message of event.messages ?? []) {
      if (!Number.isInteger(message?.uid) || box.gone.has(message.uid)) continue;
      if (event.type === "MessageNew" || event.type === "MessageAppend") this.#arrive(box, event, message, arrived);
      else if (event.type === "FlagsSet" || event.type === "FlagsClear") this.#flag(box, event, message);
    }
    if (event.type === "MessageExpunge") {
      for (const uid of event.uids) {
        forget(box, uid);
        box.gone.add(uid);
        if (box.gone.size > GONE) box.gone.delete(box.gone.values().next().value);
      }
    }
    if (event.type === "QuotaChange" || event.type === "QuotaExceed" || event.type === "QuotaWithin") {
      box.quota = { used: event.used, limit: event.limit, exceeded: event.type === "QuotaExceed" };
    }
    bound(box);
    return { box, arrived };
  }

  #arrive(box, event, { uid, flags, envelope = {}, internaldate, modseq }, arrived) {
    const known = box.messages.get(uid);
    const { from, subject } = envelope;
    const message = { uid, from, subject, at: internaldate ?? event.at, flags, modseq, stale: false };
    if (known) {
      // It was heard of before: what that said of its flags is as new, or newer. Differences apply
      // to what it arrived with.
      const { set = [], cleared = [] } = known.partial ?? {};
      const then = known.partial && flags ? [...flags.filter((flag) => !set.includes(flag) && !cleared.includes(flag)), ...set] : known.flags;
      message.flags = then ?? flags;
      message.modseq = newer(known.modseq, modseq);
      if (known.partial && !flags) message.partial = known.partial;
    }
    box.messages.set(uid, message);
    if (known?.at === undefined) arrived.push(message);
  }

  #flag(box, { type }, { uid, changed, flags, modseq }) {
    const message = box.messages.get(uid) ?? { uid, from: undefined, subject: undefined, at: undefined, flags: undefined };
    if (older(modseq, message.modseq)) return;
    const others = (list = []) => list.filter((flag) => !changed.includes(flag));
    const isSet = type === "FlagsSet";
    // What else was set before this page listened is not known then: the differences are kept, for
    // its arrival may come later.
    const { set, cleared } = message.partial ?? {};
    const partly = flags === undefined && (message.flags === undefined || message.partial);
    message.partial = partly ? { set: [...others(set), ...(isSet ? changed : [])], cleared: [...others(cleared), ...(isSet ? [] : changed)] } : undefined;
    message.flags = flags ?? [...others(message.flags), ...(isSet ? changed : [])];
    message.modseq = modseq ?? message.modseq;
    message.stale = false;
    box.messages.set(uid, message);
    if (message.flags.includes(SEEN)) box.fresh.delete(uid);
  }

  #rename({ mailbox, to }) {
    if (parts(mailbox).name === "INBOX") {
      // Its messages move, and it stays (RFC 9051 6.3.6).
      const inbox = this.add(mailbox);
      empty(inbox);
      inbox.status = undefined;
      return this.add(to);
    }
    for (const box of [...this.#all.values()]) {
      const path = moved(box.path, mailbox, to);
      if (path === undefined) continue;
      this.#all.delete(box.path);
      const { owner, name } = parts(path);
      this.#all.set(path, Object.assign(box, { path, owner, name, own: owner === this.#user }));
    }
    return this.add(to);
  }

  /** A user is called otherwise now, and with the user every mailbox. */
  #renameAccount({ mailbox, to }) {
    const { owner } = parts(mailbox);
    if (owner === this.#user) this.#user = to;
    for (const box of [...this.#all.values()].filter((one) => one.owner === owner)) {
      const path = `${parts(box.path).namespace}:${to}:${box.name}`;
      this.#all.delete(box.path);
      this.#all.set(path, Object.assign(box, { path, owner: to, own: to === this.#user }));
    }
    return undefined;
  }

  /** Something may have been missed in these mailboxes; `undefined` means all. */
  doubt(reason, paths) {
    for (const box of paths?.map((path) => this.add(path)) ?? this.#all.values()) {
      box.stale = reason;
      for (const message of box.messages.values()) message.stale = true;
    }
  }

  /** Drops what may be stale, at the user's wish. */
  settle(path) {
    const box = this.#all.get(path);
    if (!box) return;
    box.stale = null;
    for (const message of [...box.messages.values()]) if (message.stale) forget(box, message.uid);
  }
}

function forget(box, uid) {
  box.messages.delete(uid);
  box.fresh.delete(uid);
}

function empty(box) {
  box.messages.clear();
  box.fresh.clear();
}

/** One event may bring thousands: the oldest go, all at once. */
function bound(box) {
  const excess = box.messages.size - MESSAGES;
  if (excess <= 0) return;
  const uids = [...box.messages.keys()].sort((a, b) => a - b);
  for (const uid of uids.slice(0, excess)) forget(box, uid);
}

/** Who wrote, by the name given there, and by the address where there is none. */
export function sender(from = "") {
  const [, name] = /^\s*"?(.*?)"?\s*<[^<>]*>\s*$/s.exec(from) ?? [];
  return name?.trim() || from;
}

/** Unread as far as is known: a message of unknown flags is neither. */
export function isUnread({ flags, partial }) {
  return flags !== undefined && !partial && !flags.includes(SEEN);
}

/** An event in one line, for people. */
export function sentence({ type, mailbox, messages = [], uids = [], to, identifier, used, limit, actor }) {
  const { name } = parts(mailbox);
  const by = actor ? `, by ${actor}` : "";
  const which = (list) => (list.length === 1 ? `message ${list[0]}` : `${list.length} messages`);
  const those = which(messages.map(({ uid }) => uid));
  const changed = (messages[0]?.changed ?? []).map((flag) => flag.replace(/^\\/, "")).join(", ");
  const words = {
    MessageNew: () => `${those} arrived in ${name}`,
    MessageAppend: () => `${those} put into ${name}${by}`,
    MessageExpunge: () => `${which(uids)} gone from ${name}${by}`,
    FlagsSet: () => `${those} in ${name}: ${changed} set${by}`,
    FlagsClear: () => `${those} in ${name}: ${changed} cleared${by}`,
    MailboxRename: () => `${name} is now ${parts(to).name}${by}`,
    AccountRename: () => `${parts(mailbox).owner} is called ${to} now`,
    MailboxDelete: () => `${name} was deleted${by}`,
    MailboxCreate: () => `${name} was created${by}`,
    MailboxSubscribe: () => `${name} was subscribed to${by}`,
    MailboxUnSubscribe: () => `${name} was unsubscribed from${by}`,
    AclChange: () => `the rights of ${identifier} on ${name} changed${by}`,
    QuotaChange: () => `quota: ${used}${limit === undefined ? "" : ` of ${limit}`} used`,
    QuotaExceed: () => `over quota: ${used}${limit === undefined ? "" : ` of ${limit}`} used`,
    QuotaWithin: () => `within quota again: ${used}${limit === undefined ? "" : ` of ${limit}`} used`,
    MailboxChange: () => `something changed in ${name}, and no detail is known`,
  };
  return Object.hasOwn(words, type) ? words[type]() : `${type} in ${name}`;
}

const REASONS = {
  reconnected: "this page was not connected for a while",
  overflow: "this page could not keep up",
  queue_gap: "a part of the node's queue was lost",
  registry_lost: "the node has lost touch with the cluster",
  registry_restored: "the node had lost touch with the cluster for a while",
  rights: "something was held back until your rights were known",
  shared: "it is shared with you from now on",
  renamed: "it was renamed",
  too_many_shared: "more is shared with you than is watched",
};

/** Why something may have been missed, for people; a reason of a later version as it is. */
export function cause(reason) {
  return Object.hasOwn(REASONS, reason) ? REASONS[reason] : reason;
}
