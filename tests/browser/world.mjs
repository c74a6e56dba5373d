// What the browser's tests stand on: a cluster of `mailpush dev`, a load balancer before it, a mail app, and real Chromium.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const target = fileURLToPath(new URL("../../target/", import.meta.url));
const SCREENSHOTS = `${target}screenshots/`;
const SECRET = "a secret of more than thirty-two bytes, for tests";
const SCOPES = "push subscriptions:read sessions:write events:publish acl:read acl:write";
export const PATIENCE = 20_000;
const UPGRADE = /^upgrade: *websocket/im;
/** Lines of a cluster's log that are shown where a story fails. */
const LOG = 120;
/** What Chromium itself says of a network that a test has cut. */
const NETWORK = /WebSocket connection to|Failed to load resource|net::ERR_/;

/** A relay of TCP that stands for the load balancer: whom new connections go to can be changed, and those that stand be cut. */
export class Balancer {
  #server = createServer((client) => this.#join(client));
  #sockets = new Set();
  #pairs = new Set();
  to = null;
  /** As proxies that know nothing of WebSockets do. */
  refusesUpgrades = false;

  async listen(port = 0) {
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  #join(client) {
    if (!this.to) return client.destroy();
    if (this.refusesUpgrades) client.prependListener("data", (chunk) => UPGRADE.test(chunk.toString("latin1")) && refuse());
    const refuse = () => {
      node.destroy();
      client.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    const { hostname, port } = new URL(this.to);
    const node = connect(Number(port), hostname);
    for (const [one, other] of [[client, node], [node, client]]) {
      this.#sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#sockets.delete(one);
        if (!other.writableEnded) other.destroy();
      });
      one.pipe(other);
    }
    this.#pairs.add([node, client]);
  }

  /** Nothing of what nodes say comes through until `release`: to a node its clients are too slow. */
  hold() {
    for (const [node, client] of this.#pairs) {
      node.unpipe(client);
      node.pause();
    }
  }

  release() {
    for (const [node, client] of this.#pairs) if (!node.destroyed) node.pipe(client);
  }

  /** As when the node behind is killed. */
  cut(to) {
    this.to = to;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close() {
    this.cut(null);
    this.#server.close();
  }
}

export class Cluster {
  /** The last lines that `mailpush dev` has logged. */
  log = [];
  #marks = 0;

  static async start(settings = []) {
    const cluster = new Cluster();
    cluster.balancer = await new Balancer().listen();
    const given = [`auth.secret=${SECRET}`, `http.allowed_origins=["${cluster.balancer.url}"]`, ...settings];
    const args = ["dev", "--json", "--nodes", "2", "--port", "0", "--imap-port", "0", ...given.flatMap((setting) => ["--set", setting])];
    // It ends with this process, however that ends.
    const program = process.env.MAILPUSH ?? `${target}debug/mailpush`;
    cluster.process = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    createInterface({ input: cluster.process.stderr }).on("line", (line) => {
      cluster.log.push(line);
      if (cluster.log.length > LOG) cluster.log.shift();
    });
    const [line] = await Promise.race([
      once(createInterface({ input: cluster.process.stdout }), "line"),
      once(cluster.process, "exit").then(([code]) => assert.fail(`mailpush dev ended with ${code}`)),
    ]);
    const { nodes } = JSON.parse(line);
    cluster.nodes = nodes;
    cluster.balancer.to = nodes[0].http;
    return cluster;
  }

  stop() {
    this.balancer.close();
    this.process.kill("SIGKILL");
  }

  /** Acts; where that fails, what the nodes had to say is shown. */
  async tell(act) {
    try {
      await act();
    } catch (error) {
      console.error(`mailpush dev logged:\n${this.log.join("\n")}`);
      throw error;
    }
  }

  /** Waits until a page has heard of something that happens now: then it has heard all that happened before. */
  async heard(page, name) {
    const mark = `Mark ${(this.#marks += 1)}`;
    await this.publish({ type: "MailboxSubscribe", mailbox: `#private:${name}@example.org:${mark}` });
    await page.locator("#log li", { hasText: `${mark} was subscribed to` }).waitFor({ state: "attached" });
  }

  token(name, { scope = name === "admin" ? SCOPES : "push", seconds = 3_600, secret = SECRET } = {}) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const now = Math.floor(Date.now() / 1_000);
    const claims = { sub: `${name}@example.org`, aud: "mailpush", iat: now, exp: now + seconds, scope };
    const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
    return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  }

  /** An event, or a batch of them. */
  async publish(event) {
    const headers = { authorization: `Bearer ${this.token("admin")}`, "content-type": "application/json" };
    const response = await fetch(`${this.nodes[0].http}/v1/events`, { method: "POST", headers, body: JSON.stringify(event) });
    assert.equal(response.status, 200, await response.clone().text());
    return (await response.json()).results[0];
  }

  /** Runs commands of IMAP as a user, at a node. */
  async imap(node, user, ...commands) {
    const [host, port] = this.nodes[node].imap.split(":");
    const socket = connect(Number(port), host);
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const until = async (begins) => {
      for (;;) {
        const { value, done } = await lines.next();
        assert.ok(!done, `closed before ${begins}`);
        if (value.startsWith(begins)) return value;
      }
    };
    await until("* OK");
    for (const [number, command] of [`LOGIN ${user} ${user}`, ...commands].entries()) {
      const [line, literal] = [].concat(command);
      socket.write(`a${number} ${line}${literal === undefined ? "" : ` {${Buffer.byteLength(literal)}}`}\r\n`);
      if (literal !== undefined) {
        await until("+");
        socket.write(`${literal}\r\n`);
      }
      const answer = await until(`a${number} `);
      assert.match(answer, / OK/, `${line}: ${answer}`);
    }
    socket.destroy();
  }

  append(node, user, subject, flags = "()") {
    const mail = `From: Bob <bob@example.org>\r\nSubject: ${subject}\r\n\r\nHello.\r\n`;
    return this.imap(node, user, [`APPEND INBOX ${flags}`, mail]);
  }
}

function once(emitter, name) {
  return new Promise((resolve) => emitter.once(name, (...words) => resolve(words)));
}

/** Chromium as Debian has it, driven by playwright-core, which the Rust side of these tests has npm bring. */
export class Browser {
  static async start() {
    const { chromium } = createRequire(`${target}browser/`)("playwright-core");
    const browser = new this();
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    browser.chromium = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
    mkdirSync(SCREENSHOTS, { recursive: true });
    return browser;
  }

  stop() {
    return this.chromium.close();
  }

  /** Closes the windows that a failed test has left open. */
  async tidy() {
    for (const context of this.chromium.contexts()) await context.close();
  }

  /** A window of its own, at a node or the load balancer, that nobody is signed in at. */
  async window(url, options = {}, prepare = () => {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
    context.setDefaultTimeout(PATIENCE);
    await prepare(context);
    const page = await context.newPage();
    page.complaints = [];
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") page.complaints.push(message.text());
    });
    page.on("pageerror", (error) => page.complaints.push(String(error.stack ?? error)));
    page.on("dialog", (dialog) => {
      page.complaints.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    await page.goto(url);
    return page;
  }

  /** A window where somebody is signed in and connected. */
  async signedIn(url, token, options) {
    const page = await this.window(`${url}/#token=${token}`, options);
    await page.getByRole("button", { name: "Sign in" }).click();
    await connected(page);
    return page;
  }
}

export async function connected(page, node = "") {
  await page.locator("#state", { hasText: `Connected to node ${node}` }).waitFor();
}

/** Closes a window that must have had nothing to complain of. */
export async function done(page, { cut = false } = {}) {
  const complaints = page.complaints.filter((words) => !(cut && NETWORK.test(words)));
  await page.context().close();
  assert.deepEqual(complaints, []);
}

/** Texts whose colour is too close to what is behind them, by WCAG 2.2's 4.5:1. */
export function faint(page) {
  return page.evaluate(async () => {
    // What is about to appear is not there yet.
    await Promise.all(document.getAnimations().map(({ finished }) => finished.catch(() => {})));
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
    const over = ([r, g, b, alpha = 1], below) => [r, g, b].map((value, at) => value * alpha + below[at] * (1 - alpha));
    const ground = (element) => {
      const layers = [];
      for (let at = element; at; at = at.parentElement) layers.unshift(channels(getComputedStyle(at).backgroundColor));
      return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const linear = (value) => (value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ratio = (element) => {
      const below = ground(element);
      const [red, green, blue, alpha = 1] = channels(getComputedStyle(element).color);
      const [one, other] = [luminance(over([red, green, blue, alpha * opacity(element)], below)), luminance(below)];
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    };
    const texts = document.evaluate("//body//*[text()[normalize-space()]]", document, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE);
    const elements = Array.from({ length: texts.snapshotLength }, (_, at) => texts.snapshotItem(at));
    const seen = elements.filter((element) => element.checkVisibility() && !element.matches(":disabled, [aria-disabled=true], option"));
    const faults = seen.filter((element) => ratio(element) < 4.5);
    if (seen.length < 8) return ["there is hardly a text"];
    return faults.map((element) => `${ratio(element).toFixed(2)}: ${element.outerHTML.slice(0, 120)}`);
  });
}

export function shot(page, name, options) {
  return page.screenshot({ path: `${SCREENSHOTS}${name}.png`, ...options });
}

export function row(page, subject) {
  return page.locator("#messages > li", { hasText: subject });
}

/** Waits until a count of elements is reached, and then for `all`, after which nothing more can come: nothing is there twice. */
export async function count(locator, expected, all = async () => {}) {
  const until = Date.now() + PATIENCE;
  while ((await locator.count()) !== expected && Date.now() < until) await pause(50);
  await all();
  assert.equal(await locator.count(), expected);
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export async function eventually(check, what) {
  const until = Date.now() + PATIENCE;
  for (;;) {
    if (await check()) return;
    assert.ok(Date.now() < until, `not in time: ${what}`);
    await pause(50);
  }
}
