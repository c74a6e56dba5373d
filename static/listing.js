// One page of the list of subscriptions, kept true by the stream of changes: no screen, no network,
// no clock. It never holds more than a page; what it cannot know, such as what moves up from the
// next page, it asks to be listed anew for.

/** As Rust compares texts: by code points, where JavaScript has UTF-16 units. */
function compare(a, b) {
  const [one, other] = [[...a], [...b]];
  const at = one.findIndex((sign, number) => sign !== other[number]);
  if (at < 0) return one.length - other.length;
  return at < other.length ? one[at].codePointAt(0) - other[at].codePointAt(0) : 1;
}

/** The server's order: by node, by session, mailboxes before accounts, by name. */
export function inOrder({ session: a, key: x }, { session: b, key: y }) {
  const [nodeOfA, nodeOfB] = [a, b].map((id) => id.slice(0, id.lastIndexOf(".")));
  return compare(nodeOfA, nodeOfB) || compare(a, b) || (x.account !== undefined) - (y.account !== undefined) || compare(x.mailbox ?? x.account, y.mailbox ?? y.account);
}

export function idOf({ session, key }) {
  return `${session} ${key.mailbox === undefined ? `a${key.account}` : `m${key.mailbox}`}`;
}

/**
 * Whether a key is what somebody typed: "same", "perhaps" (the server may spell it so: in lower
 * case, with its default domain), or "other".
 */
export function likeness(typed, key) {
  const known = key.mailbox ?? key.account;
  if (typed.startsWith("#") !== (key.mailbox !== undefined)) return "other";
  if (typed === known) return "same";
  const [one, other] = [typed, known].map((text) => text.normalize("NFC").toLowerCase());
  const withDomain = (text) => (key.mailbox === undefined ? text.replace(/@.*$/s, "") : text.replace(/^([^:]*:[^:@]*)@[^:]*/, "$1"));
  return one === other || one === withDomain(other) ? "perhaps" : "other";
}

export class Listing {
  #size;
  #typed;
  #after;
  #rows = new Map();
  /** Nodes that are not in it, and why. */
  silent;
  /** Where the next page begins, and the row before it. */
  next;
  last;

  /**
   * `page` is the server's answer, `size` how much a page holds, `typed` the key that is looked
   * for, `after` the last row of the page before.
   */
  constructor({ subscriptions, next, partial }, { size, typed, after }) {
    this.#size = size;
    this.#typed = typed;
    this.#after = after;
    this.next = next;
    this.last = next === null ? undefined : subscriptions.at(-1);
    this.silent = new Map(partial.map(({ node, reason }) => [node, reason]));
    for (const subscription of subscriptions) this.#rows.set(idOf(subscription), subscription);
  }

  /** In order. */
  rows() {
    return [...this.#rows.values()].sort(inOrder);
  }

  /**
   * Takes a change in; gives whether that is seen ("changed", "same"), or whether only a new
   * listing helps ("anew"). `heard` has the nodes that this stream, or one before it, has told of.
   */
  take(name, data, heard) {
    if (name === "snapshot") return this.#snapshot(data.node, heard);
    if (name === "partial") {
      this.silent.set(data.node, data.reason);
      return "changed";
    }
    if (name === "gone") {
      heard.delete(data.node);
      this.silent.delete(data.node);
      const before = this.#rows.size;
      for (const [id, { node }] of this.#rows) if (node === data.node) this.#rows.delete(id);
      return before > this.#rows.size ? this.#shorter() : "changed";
    }
    if (name === "unsubscribed") return this.#rows.delete(idOf(data.subscription)) ? this.#shorter() : "same";
    return name === "subscribed" ? this.#add(data.subscription) : "same";
  }

  /**
   * What a node held before it was heard for the first time is in no change: it was silent at the
   * listing, or not there.
   */
  #snapshot(node, heard) {
    const known = heard.has(node);
    heard.add(node);
    if (!known) return "anew";
    return this.silent.delete(node) ? "changed" : "same";
  }

  #add(subscription) {
    const like = this.#typed === undefined ? "same" : likeness(this.#typed, subscription.key);
    if (like === "other") return "same";
    const id = idOf(subscription);
    const known = this.#rows.has(id);
    // What belongs on another page is seen there.
    const here = (!this.#after || inOrder(this.#after, subscription) < 0) && (!this.last || inOrder(subscription, this.last) <= 0);
    if (!known && !here) return "same";
    // The server knows how it spells what was typed.
    if (!known && like === "perhaps" && !this.rows().some(({ key }) => sameKey(key, subscription.key))) return "anew";
    this.#rows.set(id, subscription);
    if (this.#rows.size <= this.#size) return "changed";
    // The last one belongs on the next page, whose beginning only the server can name.
    this.#rows.delete(idOf(this.rows().at(-1)));
    return "anew";
  }

  /** What is on the next page moves up. */
  #shorter() {
    return this.next === null ? "changed" : "anew";
  }
}

function sameKey(one, other) {
  return one.mailbox === other.mailbox && one.account === other.account;
}
