// An event to try the cluster with: which queues took it, and who watches there.

import { silence } from "./dialog.js";
import { $, h, plural, say } from "./dom.js";
import { parts } from "./mailboxes.js";

/** Subscriptions that are looked at for either question. */
const FOUND = 200;

/** `nodes` gives those that are known; `open` shows a session. */
export function wirePublish({ signal, ...rest }) {
  const form = $("publish-form");
  $("publish").hidden = !rest.session.may("events:publish");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    publish(rest, new FormData(form));
  }, { signal });
  form.addEventListener("change", () => {
    const type = new FormData(form).get("type");
    for (const label of form.querySelectorAll("[data-for]")) label.hidden = !label.dataset.for.split(" ").includes(type);
  }, { signal });
}

/** Which event was tried last: what is heard of one before it is told no more. */
let latest;

async function publish({ session, inbox, nodes: known, open }, form) {
  const event = eventOf(form);
  latest = event.id;
  const began = performance.now();
  say($("publish-error"), "");
  $("published").replaceChildren();
  const lines = [];
  const tell = (...line) => {
    if (latest !== event.id) return;
    lines.push(h("div", {}, ...line));
    $("published").replaceChildren(...lines);
  };
  inbox.onevent = ({ id }) => id === event.id && tell(`This page heard it, after ${Math.round(performance.now() - began)} ms.`);
  try {
    const { results } = await session.api("/v1/events", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(event),
    });
    const [{ queues, error, everyone }] = results;
    if (error) return say($("publish-error"), error);
    if (!queues.length) return tell("Nobody watches that mailbox, so no queue got it.");
    const nodes = known().filter(({ queue }) => queues.includes(queue));
    const where = queues.map((queue) => {
      const node = nodes.find((one) => one.queue === queue);
      return node ? `${queue} (node ${node.id})` : queue;
    });
    tell(`${plural(queues.length, "queue")} took it: ${where.join(", ")}.${everyone ? " The registry could not be asked, so all got it." : ""}`);
    await watchers({ session, open }, event, nodes, tell);
  } catch (error) {
    if (latest === event.id) say($("publish-error"), error.message);
  }
}

/**
 * Who hears of it: the sessions that watch the mailbox, or its owner's account, on the nodes whose
 * queues took it.
 */
async function watchers({ session, open }, { mailbox }, nodes, tell) {
  if (!session.may("subscriptions:read")) return;
  const { owner } = parts(mailbox);
  const asked = [new URLSearchParams({ mailbox }), owner && new URLSearchParams({ account: owner })].filter(Boolean);
  const pages = await Promise.all(asked.map((query) => session.find(`/v1/subscriptions?${query}`, "subscriptions", () => true, FOUND)));
  const here = pages.flatMap(({ found }) => found).filter(({ node }) => !nodes.length || nodes.some(({ id }) => id === node));
  const sessions = new Map(here.map((subscription) => [subscription.session, subscription]));
  const partial = [...new Map(pages.flatMap((page) => page.partial).map((silent) => [silent.node, silent])).values()];
  if (partial.length) tell(`Who watches at some nodes is not known: ${silence({ partial })}`);
  if (!sessions.size) return tell("No session that watches it by its path or its owner's account is listed there.");
  const items = [...sessions.values()].map(({ session, user, node, transport }) =>
    h("li", {}, h("button", { type: "button", class: "link", click: () => open({ session, node, user }) }, session), ` ${user}, ${transport} at ${node}`));
  const more = pages.some((page) => page.more) ? ", and there are more" : "";
  tell(`${plural(sessions.size, "session")} there ${sessions.size === 1 ? "watches" : "watch"} it${more}:`, h("ul", {}, ...items));
}

function eventOf(form) {
  const text = (name) => form.get(name).trim();
  const [type, uid, flag] = [text("type"), Number(text("uid")), text("flag")];
  const event = { id: uuid(), type, mailbox: text("mailbox") };
  if (type === "MessageNew") {
    const given = Object.entries({ from: text("from"), subject: text("subject") }).filter(([, value]) => value);
    event.messages = [{ uid, flags: [], envelope: given.length ? Object.fromEntries(given) : undefined }];
  } else if (type === "MessageExpunge") event.uids = [uid];
  else if (type !== "MailboxChange") event.messages = [{ uid, changed: [flag] }];
  return event;
}

/** `crypto.randomUUID` is there on secure pages only, and a node may be looked at without TLS. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
