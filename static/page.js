// Connects with a token, subscribes, and shows every frame as it came. All of it is shown as text, never as HTML.

const $ = (id) => document.getElementById(id);
const SHOWN = 200;
let socket = null;
let id = 0;

function show(direction, text) {
  const item = document.createElement("li");
  item.textContent = `${new Date().toLocaleTimeString()} ${direction} ${text}`;
  $("frames").prepend(item);
  while ($("frames").children.length > SHOWN) $("frames").lastChild.remove();
}

function send(command, shown = command) {
  id += 1;
  socket.send(JSON.stringify({ id, ...command }));
  show("→", JSON.stringify({ id, ...shown }));
}

function connected(yes, words) {
  $("state").textContent = words;
  $("subscribe").querySelector("button").disabled = !yes;
}

$("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  socket?.close();
  const here = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/ws`, "mailpush.v1");
  socket = here;
  here.onopen = () => send({ connect: { token: $("token").value.trim() } }, { connect: { token: "…" } });
  here.onclose = (close) => {
    if (here === socket) connected(false, `Closed: ${close.code} ${close.reason}`);
  };
  here.onmessage = (message) => {
    if (message.data === "{}") return here.send("{}");
    show("←", message.data);
    const frame = JSON.parse(message.data);
    if (frame.connect) connected(true, `Connected to node ${frame.connect.node} as ${frame.connect.user}.`);
  };
});

$("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  send({ subscribe: { mailbox: $("mailbox").value } });
});
