// One source on the page: its canvas, its state and its statistics.

import { drawFrame } from "./draw.js";

const MAX_LATENCIES = 60;
const MAX_CANVAS = 2560; // a larger canvas takes more time and shows no more detail
const STATES = {
  starting: "Starting…",
  waiting: "",
  stalled: "No new frames",
  reconnecting: "Reconnecting…",
  ended: "Ended",
  failed: "Failed",
  lost: "Connection lost",
};

export class Tile {
  constructor(number, page) {
    this.page = page; // view, skeletons, socket, seen()
    this.figure = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    this.figure.dataset.source = number;
    this.canvas = this.figure.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.part = (name) => this.figure.querySelector(`.${name}`);
    this.latencies = []; // ms, of the last frames
    this.drawn = 0;
    this.shownAt = [];
    this.box = { width: 0, height: 0 };
    new ResizeObserver(([entry]) => {
      this.box = entry.contentRect;
      this.draw();
      page.seen();
    }).observe(this.part("picture"));
  }

  /** False while another tile fills the page. */
  get isSeen() {
    return this.box.width > 0;
  }

  /** Set the decoded frame that the next refresh shows. */
  show(bitmap, header) {
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.header = header;
    this.isNew = true;
  }

  /** Draw a new frame; called in an animation frame. The frame is on the screen at the next refresh. */
  refresh() {
    if (!this.isNew) return;
    this.isNew = false;
    this.draw();
    this.drawn += 1;
    this.count(); // with the picture, not with the next status
    const header = this.header;
    requestAnimationFrame((now) => this.measure(header, now));
  }

  draw() {
    if (!this.bitmap || !this.box.width) return;
    const [width, height] = this.header.wh;
    const fit = Math.min(this.box.width / width, this.box.height / height) * devicePixelRatio;
    const scale = Math.min(fit, MAX_CANVAS / Math.max(width, height));
    const size = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
    drawFrame(this.context, this.bitmap, this.header, this.page.skeletons, this.page.view);
  }

  measure(header, now) {
    const at = this.page.socket.serverTime(now);
    if (at === null) return;
    const latency = at - header.captured_ms;
    this.page.measured?.(header, latency);
    this.latencies.push(latency);
    if (this.latencies.length > MAX_LATENCIES) this.latencies.shift();
    this.shownAt.push(now);
    if (this.shownAt.length > MAX_LATENCIES) this.shownAt.shift();
  }

  /** Show the source's status, which the server sends twice a second. */
  update(status) {
    this.part("name").textContent = shortName(status.name);
    this.part("name").title = status.name;
    this.figure.setAttribute("aria-label", status.name);
    const age = status.age_ms === null ? "" : `The last frame was captured ${duration(status.age_ms)} ago.`;
    this.setState(status.state, status.text || (status.state === "stalled" ? age : ""));
    this.figures(status);
  }

  setState(state, text = "") {
    this.figure.dataset.state = state;
    const overlay = this.part("state");
    overlay.hidden = state === "live";
    this.part("what").textContent = STATES[state] ?? state;
    this.part("why").textContent = text;
  }

  count() {
    const count = this.header?.people.length ?? 0, live = this.figure.dataset.state === "live";
    this.part("people").textContent = live ? `${count} ${count === 1 ? "person" : "people"}` : "";
    Object.assign(this.figure.dataset, { people: count, drawn: this.drawn, frame: this.header?.frame ?? "" });
  }

  figures(status) {
    const live = status.state === "live";
    this.count();
    const latency = median(this.latencies);
    const shown = this.shownRate();
    const slow = shown && status.fps && shown < 0.8 * status.fps ? ` (${shown.toFixed(0)} shown)` : "";
    this.part("fps").textContent = live && status.fps ? `${status.fps.toFixed(status.fps < 10 ? 1 : 0)} FPS${slow}` : "";
    this.part("latency").textContent = live && latency !== null ? duration(latency) : "";
    this.part("dropped").textContent = status.dropped ? `${status.dropped} dropped` : "";
  }

  shownRate() {
    const times = this.shownAt;
    return times.length > 1 ? ((times.length - 1) / (times.at(-1) - times[0])) * 1e3 : 0;
  }
}

/** A file's name without its folders; an address unchanged. */
function shortName(name) {
  return name.includes("://") ? name : name.replace(/^.*[\\/](?=.)/, "");
}

function median(values) {
  if (!values.length) return null;
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function duration(ms) {
  return Math.abs(ms) < 1000 ? `${Math.round(ms)} ms` : ms < 90e3 ? `${(ms / 1e3).toFixed(1)} s` : `${Math.round(ms / 60e3)} min`;
}
