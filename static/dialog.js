// One session: what it is, what it watches, and its end.

import { $, ago, h, say } from "./dom.js";
import { nameOf } from "./subscriptions.js";

/** Of what a session watches, as much is listed. */
const KEYS = 100;
const ASK = "Disconnect";
const SURE = "Really? It will not come back by itself";

export class SessionDialog {
  #session;
  #shown = null;

  constructor({ session, signal }) {
    this.#session = session;
    const on = (id, type, act) => $(id).addEventListener(type, act, { signal });
    on("close-session", "click", () => $("session").close());
    on("disconnect", "click", (event) => this.#disconnect(event));
    // A key that is held down since before, such as the one that opened this, presses nothing here.
    on("session", "keydown", (event) => event.repeat && (event.key === "Enter" || event.key === " ") && event.preventDefault());
    on("session", "close", () => (this.#shown = null));
    signal.addEventListener("abort", () => $("session").open && $("session").close());
  }

  /** Focus goes to the heading, which does nothing. */
  async open({ session: id, node, user }) {
    this.#shown = id;
    say($("session-error"), "");
    say($("session-title"), `Session ${id}`);
    say($("disconnect"), ASK);
    $("session-facts").replaceChildren();
    $("session-keys").replaceChildren();
    say($("session-more"), "");
    $("disconnect").hidden = !(this.#session.may("sessions:write") || user === this.#session.user);
    $("session").showModal();
    try {
      const query = new URLSearchParams({ user, node });
      const sessions = await this.#session.find(`/v1/sessions?${query}`, "sessions", (one) => one.id === id, 1);
      if (this.#shown !== id) return;
      if (!sessions.found.length) return say($("session-error"), ended(sessions));
      const { transport, peer, connected_at, subscriptions } = sessions.found[0];
      const connected = `${new Date(connected_at).toLocaleString()}, ${ago(connected_at)}`;
      const facts = { User: user, Node: node, Transport: transport, From: peer, Connected: connected, Subscriptions: subscriptions };
      $("session-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
      const keys = await this.#session.find(`/v1/subscriptions?${query}`, "subscriptions", (one) => one.session === id, KEYS);
      if (this.#shown !== id) return;
      $("session-keys").replaceChildren(...keys.found.map(({ key }) => h("li", {}, nameOf(key))));
      say($("session-more"), keys.more ? "There are more." : silence(keys));
    } catch (error) {
      if (this.#shown === id) say($("session-error"), error.message);
    }
  }

  async #disconnect({ detail }) {
    const id = this.#shown;
    if ($("disconnect").textContent === ASK) return say($("disconnect"), SURE);
    // The second half of a double click is no answer.
    if (detail > 1) return;
    try {
      await this.#session.api(`/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
      if (this.#shown === id) $("session").close();
    } catch (error) {
      if (this.#shown !== id) return;
      say($("disconnect"), ASK);
      say($("session-error"), error.message);
    }
  }
}

/** What is not listed has ended, if every node that may have it was heard, and to the end. */
function ended({ partial, more }) {
  if (more) return "Whether it goes on is not known: this user has too many sessions to look through.";
  return partial.length ? `Whether it goes on is not known: ${silence({ partial })}` : "It has ended.";
}

/** Which nodes are not in an answer, in words. */
export function silence({ partial }) {
  return partial.map(({ node, reason }) => `${node} is silent: ${reason}.`).join(" ");
}
