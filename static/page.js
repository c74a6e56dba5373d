// The page's frame: who is signed in, which view is seen, and what both views need. The token is in
// memory, and in this tab's sessionStorage so that reloading the page keeps it; it is never in a
// URL that leaves the browser.

import { Cluster } from "./cluster.js";
import { $, say } from "./dom.js";
import { Inbox } from "./inbox.js";

const STORED = "mailpush.token";
/** The client gives up a question for a token after 30 s, and asks again. */
const ASKED_MS = 29_000;

/** Pages that are looked through for what is sought, of a thousand entries each. */
const PAGES = 10;

let session = null;

/** What a token says of itself; only the server knows whether it is true. */
function claims(token) {
  let said;
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    said = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Error("it is not a JSON Web Token");
  }
  const { sub, exp, scope = "" } = said ?? {};
  if (typeof sub !== "string" || !sub) throw new Error("it names no user");
  return { user: sub, until: exp * 1_000, scopes: String(scope).split(" ") };
}

function storage(act) {
  try {
    return act(sessionStorage);
  } catch {
    // Forbidden: the token is in memory alone then.
    return null;
  }
}

class Session {
  #given = null;
  #waiting = null;
  #over = false;
  #claimed;

  constructor(token) {
    this.take(token);
  }

  /** A token, the first or a newer one. */
  take(token) {
    const { user, until, scopes } = claims(token);
    if (this.user !== undefined && user !== this.user && user !== this.#claimed) throw new Error(`that is a token of ${user}: sign out first`);
    this.#claimed = user;
    this.user ??= user;
    Object.assign(this, { token, until, scopes });
    storage((store) => store.setItem(STORED, token));
    this.#waiting?.();
  }

  /** The user as the server spells the name, which may not be as the token does. */
  named(user) {
    this.user = user;
    say($("who"), user);
  }

  /** Nothing is told any more: what was asked for before somebody signed out is nobody else's. */
  end() {
    this.#over = true;
  }

  /** For another client: the token at hand may still be good. */
  again() {
    this.#given = null;
  }

  may(scope) {
    return this.scopes.includes(scope);
  }

  /**
   * For the client: the token, and once that is not good any more the next one, which the user is
   * asked for.
   */
  async next() {
    if (this.token === this.#given) {
      askForToken(this.until);
      await new Promise((resolve) => {
        this.#waiting = resolve;
        setTimeout(resolve, ASKED_MS);
      });
      this.#waiting = null;
      if (this.token === this.#given) throw new Error("paste a newer one");
    }
    this.#given = this.token;
    return this.token;
  }

  /** A request to the node; gives its JSON, and throws what the node says. */
  async api(path, options = {}) {
    const headers = { authorization: `Bearer ${this.token}`, ...options.headers };
    const response = await this.#still(fetch(path, { cache: "no-store", ...options, headers }));
    if (options.raw && response.ok) return response;
    const body = await this.#still(response.json().catch(() => ({})));
    // Some of a batch of events refused is an answer too, and says which.
    if (response.ok || body.results) return body;
    throw Object.assign(new Error(body.detail ?? `the node answered with ${response.status}`), { status: response.status });
  }

  async #still(answer) {
    const settled = await answer.then((value) => ({ value }), (error) => ({ error }));
    if (this.#over) await new Promise(() => {});
    if (settled.error) throw settled.error;
    return settled.value;
  }

  /**
   * Up to `count` entries of a list that fit, page by page and not without end; whether there are
   * `more`; and `partial`, the nodes that did not answer.
   */
  async find(path, name, fits, count) {
    const found = [];
    const silent = new Map();
    let next = null;
    let pages = 0;
    do {
      const after = next === null ? "" : `&after=${encodeURIComponent(next)}`;
      const page = await this.api(`${path}&limit=1000${after}`);
      found.push(...page[name].filter(fits));
      for (const one of page.partial) silent.set(one.node, one);
      ({ next } = page);
      pages += 1;
    } while (next !== null && found.length < count && pages < PAGES);
    return { found: found.slice(0, count), more: next !== null || found.length > count, partial: [...silent.values()] };
  }
}

function askForToken(until) {
  const left = Math.round((until - Date.now()) / 1_000);
  const time = left < 120 ? `${left} seconds` : `${Math.round(left / 60)} minutes`;
  say($("renew-words"), `${left > 0 ? `It is good for another ${time}.` : "It has expired."} Paste a newer one, and the session goes on as it is.`);
  $("renew").hidden = false;
  say($("announce"), `The token is running out. ${$("renew-words").textContent}`);
}

function tokenIsGood() {
  $("renew").hidden = true;
  say($("announce"), "");
}

document.addEventListener("good-token", tokenIsGood);

// Signing in and out

let inbox = null;
let cluster = null;

/**
 * What shows a user's data, as the document has it: whoever signs in begins with that, and finds
 * nothing of whoever was here before.
 */
const VIEWS = ["connection", "renew", "inbox", "cluster", "toasts", "session", "announce"];
const pristine = new Map(VIEWS.map((id) => [id, $(id).cloneNode(true)]));

function signIn(token) {
  session = new Session(token);
  inbox = new Inbox(session);
  cluster = new Cluster(session, inbox);
  say($("sign-in-error"), "");
  $("token").value = "";
  say($("token-of"), "");
  say($("who"), session.user);
  for (const id of ["views", "sign-out", "connection"]) $(id).hidden = false;
  show();
}

function signOut(reason = "") {
  storage((store) => store.removeItem(STORED));
  session?.end();
  inbox?.stop();
  cluster?.stop();
  session = inbox = cluster = null;
  for (const [id, element] of pristine) $(id).replaceWith(element.cloneNode(true));
  wireRenewal();
  for (const id of ["views", "sign-out"]) $(id).hidden = true;
  $("who").textContent = "";
  show();
  say($("sign-in-error"), reason);
  $("token").focus();
}

document.addEventListener("bad-token", ({ detail }) => signOut(detail));

/**
 * A token in the fragment, which no server ever sees, as `mailpush dev` prints it. It only fills in
 * the form: a link must not be able to sign somebody in as somebody else. It leaves the address
 * bar, and this tab's history, at once.
 */
function takeFragment() {
  const [, token] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (token === undefined) return false;
  history.replaceState(null, "", location.pathname);
  if (session) return false;
  try {
    $("token").value = decodeURIComponent(token);
  } catch {
    $("token").value = token;
  }
  describe();
  return true;
}

function describe() {
  const token = $("token").value.trim();
  let words = "";
  try {
    const { user, until } = claims(token);
    words = `A token of ${user}, good until ${new Date(until).toLocaleString()}.`;
  } catch {
    words = token ? "That does not look like a token." : "";
  }
  say($("token-of"), words);
}

$("token").addEventListener("input", describe);
$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    signIn($("token").value.trim());
    $("main").focus();
  } catch (error) {
    say($("sign-in-error"), `That is no token: ${error.message}`);
  }
});
$("sign-out").addEventListener("click", () => signOut());
function wireRenewal() {
  $("renew-form").addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      session.take($("renew-token").value.trim());
      $("renew-token").value = "";
      say($("renew-error"), "");
      tokenIsGood();
      cluster.resume();
    } catch (error) {
      say($("renew-error"), `That does not do: ${error.message}`);
    }
  });
}
wireRenewal();

// Views

let view = "inbox";

function show() {
  // A hash that names no view changes none.
  view = { "": "inbox", "#/inbox": "inbox", "#/cluster": "cluster" }[location.hash] ?? view;
  for (const name of ["inbox", "cluster"]) {
    $(name).hidden = name !== view || !session;
    if (name === view) $(`to-${name}`).setAttribute("aria-current", "page");
    else $(`to-${name}`).removeAttribute("aria-current");
  }
  $("sign-in").hidden = Boolean(session);
  document.title = session ? `${view === "inbox" ? "Inbox" : "Cluster"} · mailpush` : "mailpush";
  cluster?.seen(view === "cluster");
}

// As a link it would end in the address bar, in the view's place.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});

window.addEventListener("hashchange", () => {
  takeFragment();
  show();
});

// Theme

const dark = matchMedia("(prefers-color-scheme: dark)");
function themeNow() {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}
function showTheme() {
  $("theme").setAttribute("aria-pressed", String(themeNow() === "dark"));
}
$("theme").addEventListener("click", () => {
  const theme = themeNow() === "dark" ? "light" : "dark";
  // Whoever wants what the system says follows the system again.
  const system = theme === (dark.matches ? "dark" : "light");
  if (system) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (system) localStorage.removeItem("theme");
    else localStorage.setItem("theme", theme);
  } catch {
    // For this time, then.
  }
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();

const filled = takeFragment();
const stored = storage((store) => store.getItem(STORED));
try {
  if (stored) signIn(stored);
} catch {
  signOut();
}
show();
if (!session) (filled ? $("sign-in-form").querySelector("button") : $("token")).focus();

