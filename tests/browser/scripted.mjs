// A node that says what a test tells it to: the page as it is, and behind it answers by script. What takes a storm, a silent node or
// an awkward order of things cannot be had of a real cluster at will.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Browser } from "./world.mjs";

const FILES = fileURLToPath(new URL("../../static/", import.meta.url));
const KINDS = { js: "text/javascript", css: "text/css", html: "text/html", svg: "image/svg+xml" };
/** As `edge/http/pages.rs` has it. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCOPES = "push subscriptions:read sessions:write events:publish";

export class ScriptedNode {
  #server = createServer((request, response) => this.#answer(request, response));
  /** Streams of changes that are open. */
  streams = new Set();
  /** What was asked, as method and URL. */
  asked = [];
  /** Milliseconds that a listing takes. */
  slowness = 0;
  subscriptions = [];
  next = null;
  partial = [];
  sessions = [];
  silentSessions = [];
  nodes = [node("gw-1")];
  left = [];
  metrics = () => ({ node: "gw-1", text: "" });

  async start() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request, response) {
    const { pathname } = new URL(request.url, this.url);
    this.asked.push(`${request.method} ${request.url}`);
    const say = (body) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    if (pathname === "/v1/subscriptions/stream") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(":\n\n");
      this.streams.add(response);
      response.on("close", () => this.streams.delete(response));
    } else if (pathname === "/v1/subscriptions") {
      const { subscriptions, next, partial } = this;
      setTimeout(() => say({ subscriptions, next, partial, stream: "e30" }), this.slowness);
    } else if (pathname === "/v1/nodes") say({ nodes: this.nodes, left: this.left, partial: this.partial });
    else if (pathname === "/v1/sessions") say({ sessions: this.sessions, next: null, partial: this.silentSessions });
    else if (pathname.startsWith("/v1/sessions/")) say({ ended: 1, partial: [] });
    else if (pathname === "/v1/events") say({ results: [{ id: "x", queues: ["mailpush.node.gw-1"] }] });
    else if (pathname === "/metrics") {
      const { node, text } = this.metrics();
      response.writeHead(200, { "content-type": "application/openmetrics-text", "mailpush-node": node });
      response.end(text);
    } else this.#file(pathname, response);
  }

  #file(pathname, response) {
    const file = { "/": "index.html", "/reference": "reference.html" }[pathname] ?? pathname.slice(1);
    try {
      const content = readFileSync(FILES + file);
      response.writeHead(200, { "content-type": KINDS[file.split(".").pop()], "content-security-policy": POLICY });
      response.end(content);
    } catch {
      response.writeHead(404).end();
    }
  }

  /** Says changes on every stream that is open. */
  tell(...changes) {
    const text = changes.map(([name, data]) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join("");
    for (const stream of this.streams) stream.write(text);
  }
}

export function node(id, more = {}) {
  return {
    id,
    url: `http://${id}.mail.example.org:8080`,
    queue: `mailpush.node.${id}`,
    version: "0.1.0",
    started_at: Date.now() - 9e8,
    state: "ready",
    registry: "connected",
    queue_reachable: true,
    lag: 0,
    sessions: 3,
    keys: 3,
    registrations: 3,
    ...more,
  };
}

export function subscription(number, { key, at = "gw-1", since = Date.now() } = {}) {
  const user = `u${number}@example.org`;
  const session = `${at}.${number.toString(16).padStart(16, "0")}`;
  return { session, node: at, user, transport: "websocket", key: key ?? { account: user }, since };
}

export function subscribed(number, more) {
  return ["subscribed", { seq: number, active: true, subscription: subscription(number, more) }];
}

/** A token that nobody verifies here. */
export function token(sub, { scope = SCOPES, seconds = 3_600 } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ sub, exp: Math.floor(Date.now() / 1_000) + seconds, scope })}.x`;
}

/** In the page: WebSockets whose server says yes to everything, and knows the user as `user`. */
function scriptedSocket(user) {
  class Scripted {
    readyState = 0;
    constructor() {
      window.socket = this;
      setTimeout(() => {
        this.readyState = 1;
        this.onopen?.();
      });
    }
    say(frame) {
      this.onmessage?.({ data: JSON.stringify(frame) });
    }
    send(text) {
      const frame = JSON.parse(text);
      const keyOf = ({ mailbox }) => (mailbox ? { mailbox } : { account: user });
      const answers = {
        connect: ({ resume }) => ({
          session: "gw-1.0123456789abcdef", node: "gw-1", user, heartbeat_ms: 25_000, token_expires_at: Date.now() + 3.6e6,
          limits: { frame_bytes: 16_384, subscriptions: 128, commands_per_second: 20 },
          resumed: resume?.subscriptions.map((one) => ({ key: keyOf(one), recovered: false, rights: "lrswipkxtea" })),
        }),
        subscribe: (wish) => ({ key: keyOf(wish), rights: "lrswipkxtea" }),
        unsubscribe: (key) => ({ key }),
        ping: () => ({}),
      };
      const command = Object.keys(answers).find((name) => frame[name]);
      if (command) setTimeout(() => this.say({ id: frame.id, [command]: answers[command](frame[command]) }));
    }
    close() {
      this.readyState = 3;
    }
  }
  window.WebSocket = Scripted;
  let count = 0;
  window.happen = (event) => {
    count += 1;
    window.socket.say({ event: { event: { v: 1, id: `id-${count}`, at: Date.now(), origin: "m", ...event }, pos: `q@${count}` } });
  };
}

export class ScriptedBrowser extends Browser {
  /** A window where `sub` is signed in at a scripted node, whose server spells that `user`. */
  async signedInAt(url, sub, { options = {}, user = sub, ...claims } = {}) {
    const page = await this.window(url, options, (context) => context.addInitScript(scriptedSocket, user));
    await signIn(page, sub, claims);
    return page;
  }
}

export async function signIn(page, sub, claims) {
  await page.getByLabel("Token", { exact: true }).fill(token(sub, claims));
  await page.keyboard.press("Enter");
  await page.locator("#state", { hasText: "Connected" }).waitFor();
}

/** Events at the page's own socket. */
export function happen(page, ...events) {
  return page.evaluate((list) => list.forEach((event) => window.happen(event)), events);
}

/** Opens the view of operators. */
export async function toCluster(page) {
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.locator("#following", { hasText: "live" }).waitFor();
}
