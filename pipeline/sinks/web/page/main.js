// The page: tiles in a grid, switches, and the handling of the socket's messages.

import { Camera } from "./camera.js";
import { Socket } from "./socket.js";
import { Tile } from "./tile.js";

const SWITCHES = { skeleton: "s", ids: "i", boxes: "b", mirror: "m" };
const STORE = "higherpose-view";

const grid = document.getElementById("grid");
const connection = document.getElementById("connection");
const tiles = new Map();
const page = { view: loadView(), skeletons: {}, socket: null, seen: sendAcks };
let pendingAcks = []; // of frames of invisible tiles; they are not sent, so that the server sends no more frames
let endText = "";
let cameraTile = null;
let cameraInUse = false; // a visitor's camera, this one's or another's

page.socket = new Socket({
  open() {
    endText = "";
    pendingAcks = [];
    showConnection("open", "Connected");
  },
  closed(reason) {
    pendingAcks = [];
    camera.pause();
    showConnection("closed", endText || reason || "Connection lost; trying again…");
    for (const tile of tiles.values()) {
      tile.setState(endText ? "ended" : "lost", endText || reason);
      tile.part("camera").hidden = tile.part("stop").hidden = true;
    }
  },
  text(message) {
    if (message.type === "hello") start(message);
    else if (message.type === "status") update(message);
    else if (message.type === "camera") camera.answer(message);
    else if (message.type === "taken") camera.taken();
    else if (message.type === "end") endText = message.text;
  },
  async frame(header, jpeg) {
    const socket = page.socket.socket;
    const ack = { type: "ack", source: header.source, seq: header.seq };
    const tile = tiles.get(header.source);
    try {
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      // two frames may be decoded at the same time, and the older one finish later
      if (tile && socket === page.socket.socket && !(tile.seq > header.seq)) {
        tile.seq = header.seq;
        tile.show(bitmap, header);
        requestAnimationFrame(refresh);
      } else {
        bitmap.close();
      }
    } finally {
      if (socket === page.socket.socket) {
        pendingAcks.push(ack);
        sendAcks();
      }
    }
  },
});

const camera = new Camera(page.socket, showCamera);

function refresh() {
  for (const tile of tiles.values()) tile.refresh();
}

/** Send the pending acknowledgements of visible tiles. */
function sendAcks() {
  const isSeen = (ack) => !document.hidden && tiles.get(ack.source)?.isSeen;
  for (const ack of pendingAcks.filter(isSeen)) page.socket.send(ack);
  pendingAcks = pendingAcks.filter((ack) => !isSeen(ack));
}

function start(message) {
  page.skeletons = message.skeletons;
  for (const tile of tiles.values()) tile.seq = 0; // another run of the program starts at 1 again
  cameraTile = message.camera;
  const known = new Set(message.sources.map((status) => status.source));
  for (const [number, tile] of tiles) {
    if (known.has(number)) continue;
    tile.figure.remove();
    tiles.delete(number);
  }
  for (const status of message.sources) {
    if (!tiles.has(status.source)) addTile(status.source);
    tiles.get(status.source).update(status);
  }
  layOut();
  camera.request();
  showCamera();
}

function addTile(number) {
  const tile = new Tile(number, page);
  tiles.set(number, tile);
  grid.append(tile.figure);
  tile.part("picture").addEventListener("click", (event) => event.target.closest("button") || focusOn(tile));
  tile.figure.addEventListener("keydown", (event) => event.target === tile.figure && event.key === "Enter" && focusOn(tile));
  tile.part("camera").addEventListener("click", () => camera.start());
  tile.part("stop").addEventListener("click", () => camera.stop());
}

function update(message) {
  cameraInUse = message.camera;
  let people = 0;
  for (const status of message.sources) {
    const tile = tiles.get(status.source);
    tile?.update(status);
    if (status.state === "live") people += tile?.header?.people.length ?? 0;
  }
  showCamera();
  const viewers = message.viewers > 1 ? `${message.viewers} viewers` : "";
  const all = tiles.size > 1 ? `${tiles.size} sources, ${people} people` : "";
  document.getElementById("total").textContent = [all, viewers].filter(Boolean).join(" · ");
}

function showConnection(state, text) {
  connection.dataset.state = state;
  connection.lastElementChild.textContent = text;
}

// -- the visitor's camera

function showCamera() {
  const tile = tiles.get(cameraTile);
  if (!tile) return;
  const isWaiting = tile.figure.dataset.state === "waiting";
  const startButton = tile.part("camera");
  tile.part("stop").hidden = !camera.on;
  startButton.hidden = camera.on || !isWaiting || (cameraInUse && !camera.problem);
  startButton.textContent = camera.problem ? "Try again" : "Use my camera";
  if (!isWaiting) return;
  const [what, why] =
    camera.problem ??
    (camera.on || cameraInUse
      ? ["The camera starts…", ""]
      : ["No camera yet", "Your picture is sent to the program that serves this page, and shown to all its viewers."]);
  tile.part("what").textContent = what;
  tile.part("why").textContent = why;
}

// -- the view

function loadView() {
  const view = { skeleton: true, ids: true, boxes: false, mirror: false };
  try {
    const stored = JSON.parse(localStorage.getItem(STORE)) ?? {};
    for (const name in view) if (typeof stored[name] === "boolean") view[name] = stored[name];
  } catch { /* no storage, or invalid content: keep the defaults */ }
  return view;
}

function flip(name) {
  page.view[name] = !page.view[name];
  try { localStorage.setItem(STORE, JSON.stringify(page.view)); } catch { /* no storage: valid until the page is closed */ }
  showView();
}

function showView() {
  for (const name in SWITCHES) button(name).setAttribute("aria-pressed", page.view[name]);
  for (const tile of tiles.values()) tile.draw();
}

function button(name) {
  return document.querySelector(`[data-switch="${name}"]`);
}

function focusOn(tile) {
  if (tiles.size < 2) return;
  const wasFocused = tile.figure.classList.contains("focus");
  for (const { figure } of tiles.values()) figure.classList.remove("focus");
  tile.figure.classList.toggle("focus", !wasFocused);
  grid.classList.toggle("focused", !wasFocused);
}

/** Choose the number of columns for which 16:9 tiles are largest. */
function layOut() {
  grid.classList.toggle("many", tiles.size > 1);
  const { clientWidth: width, clientHeight: height } = grid;
  let best = [1, 0];
  for (let columns = 1; columns <= tiles.size; columns++) {
    const rows = Math.ceil(tiles.size / columns);
    const size = Math.min(width / columns, ((height / rows) * 16) / 9);
    if (size > best[1]) best = [columns, size];
  }
  grid.style.setProperty("--columns", best[0]);
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.();
}

for (const name in SWITCHES) button(name).addEventListener("click", () => flip(name));
document.getElementById("fullscreen").addEventListener("click", toggleFullScreen);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const name = Object.keys(SWITCHES).find((one) => SWITCHES[one] === key);
  if (name) flip(name);
  else if (key === "f") toggleFullScreen();
  else if (key === "escape") for (const tile of tiles.values()) if (tile.figure.classList.contains("focus")) focusOn(tile);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const tile of tiles.values()) tile.latencies.length = 0;
  sendAcks();
});
new ResizeObserver(layOut).observe(grid);
showView();
window.higherpose = page; // for benchmarks, which set `measured`
