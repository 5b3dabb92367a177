// The socket: connects, reconnects, and measures the offset between this clock and the server's.

const FIRST_RETRY_MS = 500, LAST_RETRY_MS = 5000;
const PING_MS = 2000, FIRST_PINGS = 5, FIRST_PING_MS = 80, MAX_PINGS = 16;
const POLICY_VIOLATION = 1008;

export class Socket {
  /** handlers: open(), closed(reason), text(message), frame(header, jpeg). */
  constructor(handlers) {
    this.handlers = handlers;
    this.retry = FIRST_RETRY_MS;
    this.pings = [];
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(`${scheme}//${location.host}/ws${location.search}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.retry = FIRST_RETRY_MS;
      this.pings = [];
      this.pingsLeft = FIRST_PINGS;
      this.ping();
      this.handlers.open();
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.takeText(data) : this.takeFrame(data));
    socket.onclose = ({ code, reason }) => {
      clearTimeout(this.timer);
      this.handlers.closed(code === POLICY_VIOLATION ? reason : "");
      setTimeout(() => this.connect(), this.retry);
      this.retry = Math.min(LAST_RETRY_MS, this.retry * 1.7);
    };
  }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(message instanceof Uint8Array ? message : JSON.stringify(message));
    return true;
  }

  /** A time of this page's clock (performance.now()) in ms of the server's clock; null before the first answer. */
  serverTime(now) {
    if (!this.pings.length) return null;
    const best = this.pings.reduce((a, b) => (b.took < a.took ? b : a)); // the fastest answer has the smallest error
    return now + best.ahead;
  }

  ping() {
    this.send({ type: "ping", sent: performance.now() });
    this.timer = setTimeout(() => this.ping(), this.pingsLeft-- > 0 ? FIRST_PING_MS : PING_MS);
  }

  takeText(text) {
    const message = JSON.parse(text);
    if (message.type === "pong") {
      const now = performance.now(), took = now - message.sent;
      this.pings.push({ took, ahead: message.now + took / 2 - now });
      if (this.pings.length > MAX_PINGS) this.pings.shift();
    } else {
      this.handlers.text(message);
    }
  }

  takeFrame(buffer) {
    const length = new DataView(buffer).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    header.people = header.people.map(unpackPerson);
    this.handlers.frame(header, new Uint8Array(buffer, 4 + length));
  }
}

const XY_UNITS = 10, SCORE_UNITS = 1000; // units per pixel; units per score of 1

/** id (if any), score, keypoints [[x, y, score], …] in frame pixels, and bbox [x, y, w, h] of the found keypoints. */
function unpackPerson({ id, score, keypoints: packed }) {
  const keypoints = [];
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let at = 0; at < packed.length; at += 3) {
    const [x, y, value] = [packed[at] / XY_UNITS, packed[at + 1] / XY_UNITS, packed[at + 2] / SCORE_UNITS];
    keypoints.push([x, y, value]);
    if (value <= 0) continue;
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  const bbox = left <= right ? [left, top, right - left, bottom - top] : [0, 0, 0, 0];
  return { id, score: score / SCORE_UNITS, keypoints, bbox };
}

/** Pack a frame of this visitor's camera in the format of the server's frames. */
export function packPicture(header, jpeg) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + text.length + jpeg.byteLength);
  new DataView(message.buffer).setUint32(0, text.length);
  message.set(text, 4);
  message.set(new Uint8Array(jpeg), 4 + text.length);
  return message;
}
