// A scripted server on a real port: WebSocket (RFC 6455) and Server-Sent Events, as little of them as the client needs. And a
// WebSocket for Node before 22, which has none.

import { createHash, randomBytes } from "node:crypto";
import { EventEmitter } from "node:events";
import http from "node:http";
import net from "node:net";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

const acceptOf = (key) => createHash("sha1").update(key + GUID).digest("base64");

/** One frame (RFC 6455 5.2), masked as clients must. */
function frameOf(opcode, payload, mask, final = true) {
  const head = [(final ? 0x80 : 0) | opcode];
  if (payload.length < 126) head.push(payload.length);
  else head.push(126, payload.length >> 8, payload.length & 255);
  if (!mask) return Buffer.concat([Buffer.from(head), payload]);
  head[1] |= 0x80;
  const key = randomBytes(4);
  return Buffer.concat([Buffer.from(head), key, payload.map((byte, i) => byte ^ key[i % 4])]);
}

/** Both ends of a connection, once the handshake is over: emits `text`, `ping` and `close`. */
class Peer extends EventEmitter {
  #buffer = Buffer.alloc(0);
  #parts = [];
  #closing = false;
  #told = false;
  constructor(socket, masks) {
    super();
    Object.assign(this, { socket, masks });
    socket.on("data", (data) => this.feed(data));
    socket.on("error", () => {});
    socket.on("close", () => this.#ended(1006, ""));
  }
  #ended(code, reason) {
    if (!this.#told) this.emit("close", code, reason);
    this.#told = true;
  }
  send(text) {
    this.socket.write(frameOf(TEXT, Buffer.from(text), this.masks));
  }
  /** In fragments, with a ping between. */
  sendSplit(text) {
    const bytes = Buffer.from(text);
    const half = bytes.length >> 1;
    this.socket.write(frameOf(TEXT, bytes.subarray(0, half), this.masks, false));
    this.ping();
    this.socket.write(frameOf(0, bytes.subarray(half), this.masks));
  }
  ping() {
    this.socket.write(frameOf(PING, Buffer.from("there?"), this.masks));
  }
  close(code = 1000, reason = "") {
    if (this.#closing) return;
    this.#closing = true;
    this.socket.write(frameOf(CLOSE, Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]), this.masks));
  }
  feed(data) {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    for (;;) {
      const b = this.#buffer;
      if (b.length < 2) return;
      let [length, at] = [b[1] & 127, 2];
      if (length === 126) {
        if (b.length < 4) return;
        [length, at] = [b.readUInt16BE(2), 4];
      }
      const masked = (b[1] & 0x80) !== 0;
      if (masked === this.masks) return this.socket.destroy();
      const key = masked ? b.subarray(at, at + 4) : undefined;
      at += masked ? 4 : 0;
      if (b.length < at + length) return;
      const payload = Buffer.from(b.subarray(at, at + length)).map((byte, i) => (key ? byte ^ key[i % 4] : byte));
      this.#buffer = b.subarray(at + length);
      this.#frame(b[0] & 15, Buffer.from(payload), (b[0] & 0x80) !== 0);
    }
  }
  #frame(opcode, payload, final) {
    if (opcode === PING) this.socket.write(frameOf(PONG, payload, this.masks));
    else if (opcode === PONG) this.emit("pong");
    else if (opcode === CLOSE) {
      const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      this.#ended(code, payload.subarray(2).toString());
      this.close(code === 1005 ? 1000 : code);
      this.socket.end();
    } else {
      this.#parts.push(payload);
      if (final) this.emit("text", Buffer.concat(this.#parts.splice(0)).toString());
    }
  }
}

/** What Node 22 has by itself. */
class OldNodesWebSocket {
  constructor(href, protocol) {
    const url = new URL(href);
    const key = randomBytes(16).toString("base64");
    const socket = net.connect(Number(url.port), url.hostname);
    let closed = false;
    const closes = (code, reason) => {
      if (!closed) this.onclose?.({ code, reason });
      closed = true;
    };
    socket.on("error", () => {});
    socket.on("close", () => closes(1006, ""));
    const lines = [`GET ${url.pathname} HTTP/1.1`, `Host: ${url.host}`, "Upgrade: websocket", "Connection: Upgrade"];
    lines.push(`Sec-WebSocket-Key: ${key}`, "Sec-WebSocket-Version: 13", `Sec-WebSocket-Protocol: ${protocol}`);
    socket.on("connect", () => socket.write(`${lines.join("\r\n")}\r\n\r\n`));
    let head = Buffer.alloc(0);
    socket.on("data", function handshake(data) {
      head = Buffer.concat([head, data]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      socket.off("data", handshake);
      const said = head.subarray(0, end).toString();
      if (!said.startsWith("HTTP/1.1 101") || !said.includes(acceptOf(key))) return void socket.destroy();
      this_.peer = new Peer(socket, true);
      this_.peer.on("text", (text) => this_.onmessage?.({ data: text }));
      this_.peer.on("close", closes);
      this_.onopen?.({});
      this_.peer.feed(head.subarray(end + 4));
    });
    const this_ = this;
    this.socket = socket;
  }
  send(text) {
    this.peer.send(text);
  }
  close(code) {
    if (this.peer) this.peer.close(code);
    else this.socket.destroy();
  }
}

export const WebSocket = globalThis.WebSocket ?? OldNodesWebSocket;

/** Listens; `on.socket(peer, request)` gets each WebSocket, `on.stream(response, request)` each request for a stream. */
export async function listen(on) {
  const sockets = new Set();
  const server = http.createServer((request, response) => on.stream(response, request));
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request, socket) => {
    if (!on.socket) return socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    const { "sec-websocket-key": key, "sec-websocket-protocol": protocol } = request.headers;
    const lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"];
    lines.push(`Sec-WebSocket-Accept: ${acceptOf(key)}`, `Sec-WebSocket-Protocol: ${protocol}`);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`);
    on.socket(new Peer(socket, false), request);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    sockets.forEach((socket) => socket.destroy());
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}
