// The page: tiles in a grid, switches, and what comes over the socket put where it belongs.

import { Camera } from "./camera.js";
import { Socket } from "./socket.js";
import { Tile } from "./tile.js";

const SWITCHES = { skeleton: "s", ids: "i", boxes: "b", mirror: "m" };
const STORE = "higherpose-view";

const grid = document.getElementById("grid");
const connection = document.getElementById("connection");
const tiles = new Map();
const page = { view: loadView(), skeletons: {}, socket: null, seen: release };
let held = []; // acknowledgements of what nobody sees: none are sent, so that no more frames come
let farewell = "";
let cameraTile = null;
let visitorHere = false; // somebody's camera is in use

page.socket = new Socket({
  open() {
    farewell = "";
    held = [];
    say("open", "Connected");
  },
  closed(reason) {
    held = [];
    camera.pause();
    say("closed", farewell || reason || "Connection lost; trying again…");
    for (const tile of tiles.values()) {
      tile.setState(farewell ? "ended" : "lost", farewell || reason);
      tile.part("camera").hidden = tile.part("stop").hidden = true;
    }
  },
  text(message) {
    if (message.type === "hello") welcome(message);
    else if (message.type === "status") tell(message);
    else if (message.type === "camera") camera.answer(message);
    else if (message.type === "taken") camera.taken();
    else if (message.type === "end") farewell = message.text;
  },
  async frame(header, jpeg) {
    const socket = page.socket.socket;
    const ack = { type: "ack", source: header.source, seq: header.seq };
    const tile = tiles.get(header.source);
    try {
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      // of two that were decoded at the same time, the older may be ready later
      if (tile && socket === page.socket.socket && !(tile.seq > header.seq)) {
        tile.seq = header.seq;
        tile.show(bitmap, header);
        requestAnimationFrame(refresh);
      } else {
        bitmap.close();
      }
    } finally {
      if (socket === page.socket.socket) {
        held.push(ack);
        release();
      }
    }
  },
});

const camera = new Camera(page.socket, showCamera);

function refresh() {
  for (const tile of tiles.values()) tile.refresh();
}

/** Acknowledge what was held, of the tiles that are seen. */
function release() {
  const seen = (ack) => !document.hidden && tiles.get(ack.source)?.isSeen;
  for (const ack of held.filter(seen)) page.socket.send(ack);
  held = held.filter((ack) => !seen(ack));
}

function welcome(message) {
  page.skeletons = message.skeletons;
  for (const tile of tiles.values()) tile.seq = 0; // another run of the program counts anew
  cameraTile = message.camera;
  const known = new Set(message.sources.map((status) => status.source));
  for (const [number, tile] of tiles) {
    if (known.has(number)) continue;
    tile.figure.remove();
    tiles.delete(number);
  }
  for (const status of message.sources) {
    if (!tiles.has(status.source)) addTile(status.source);
    tiles.get(status.source).tell(status);
  }
  layOut();
  camera.ask();
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

function tell(message) {
  visitorHere = message.camera;
  let people = 0;
  for (const status of message.sources) {
    const tile = tiles.get(status.source);
    tile?.tell(status);
    if (status.state === "live") people += tile?.header?.people.length ?? 0;
  }
  showCamera();
  const looking = message.viewers > 1 ? `${message.viewers} viewers` : "";
  const all = tiles.size > 1 ? `${tiles.size} sources, ${people} people` : "";
  document.getElementById("total").textContent = [all, looking].filter(Boolean).join(" · ");
}

function say(state, text) {
  connection.dataset.state = state;
  connection.lastElementChild.textContent = text;
}

// -- the visitor's camera

function showCamera() {
  const tile = tiles.get(cameraTile);
  if (!tile) return;
  const waitingForOne = tile.figure.dataset.state === "waiting";
  const offer = tile.part("camera");
  tile.part("stop").hidden = !camera.on;
  offer.hidden = camera.on || !waitingForOne || (visitorHere && !camera.problem);
  offer.textContent = camera.problem ? "Try again" : "Use my camera";
  if (!waitingForOne) return;
  const [what, why] =
    camera.problem ??
    (camera.on || visitorHere
      ? ["The camera starts…", ""]
      : ["No camera yet", "The picture goes to the program that serves this page, and to whoever looks at it."]);
  tile.part("what").textContent = what;
  tile.part("why").textContent = why;
}

// -- the view

function loadView() {
  const view = { skeleton: true, ids: true, boxes: false, mirror: false };
  try {
    const stored = JSON.parse(localStorage.getItem(STORE)) ?? {};
    for (const name in view) if (typeof stored[name] === "boolean") view[name] = stored[name];
  } catch { /* no storage, or another's: the defaults stand */ }
  return view;
}

function flip(name) {
  page.view[name] = !page.view[name];
  try { localStorage.setItem(STORE, JSON.stringify(page.view)); } catch { /* it is remembered until the page is left */ }
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
  const was = tile.figure.classList.contains("focus");
  for (const { figure } of tiles.values()) figure.classList.remove("focus");
  tile.figure.classList.toggle("focus", !was);
  grid.classList.toggle("focused", !was);
}

/** Columns so that 16:9 tiles are as large as they can be. */
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
  release();
});
new ResizeObserver(layOut).observe(grid);
showView();
window.higherpose = page; // for measuring programs: they set `measured`
