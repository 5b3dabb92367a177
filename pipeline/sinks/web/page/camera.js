// The visitor's camera as a source: sends frames of getUserMedia as JPEG, at most two unacknowledged.

import { packPicture } from "./socket.js";

const IN_FLIGHT = 2;
const QUALITY = 0.8;
const MAX_SIDE = 1280;
const REASONS = {
  NotAllowedError: ["The camera was refused", "Allow the camera for this page (in the browser's address bar), then try again."],
  NotFoundError: ["No camera found", "Connect a camera, then try again."],
  NotReadableError: ["The camera cannot be read", "Another program may be using it. Close that program, then try again."],
  OverconstrainedError: ["The camera cannot be used", "It has no usable picture size."],
};
const INSECURE = [
  "The browser does not allow a camera on this page",
  "It allows one only on localhost or with https. Start the program with --tls CERT KEY, or use a tunnel: " +
    "ssh -L 8000:localhost:8000 HOST, then open http://localhost:8000/.",
];

export class Camera {
  /** changed(): called when `on` or `problem` has changed. */
  constructor(socket, changed) {
    this.socket = socket;
    this.changed = changed;
    this.on = false;
    this.problem = null; // [title, text]
  }

  async start() {
    this.problem = null;
    if (!navigator.mediaDevices?.getUserMedia) return this.fail(INSECURE);
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
      });
    } catch (error) {
      return this.fail(REASONS[error.name] ?? ["The camera cannot be used", error.message]);
    }
    this.stream.getVideoTracks()[0].onended = () => this.fail(["The camera stopped", "It was unplugged, or the browser ended its use."]);
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: this.stream });
    this.canvas = document.createElement("canvas");
    await this.video.play();
    this.request();
  }

  /** Ask the server to accept the pictures; repeated after a reconnection. */
  request() {
    if (this.stream) this.socket.send({ type: "camera" });
  }

  answer({ granted, text }) {
    if (!this.stream) return;
    if (!granted) return this.fail(["The camera was not accepted", text]);
    this.on = true;
    this.inFlight = 0;
    this.changed();
    this.next();
  }

  taken() {
    this.inFlight = Math.max(0, this.inFlight - 1);
  }

  stop() {
    this.release();
    this.socket.send({ type: "camera_off" });
    this.changed();
  }

  /** The connection was lost: stop sending pictures, but keep the camera open for the next connection. */
  pause() {
    this.on = false;
  }

  fail(problem) {
    if (this.on) this.socket.send({ type: "camera_off" });
    this.release();
    this.problem = problem;
    this.changed();
  }

  release() {
    this.on = false;
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
  }

  next() {
    if (!this.on) return;
    const video = this.video;
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((now, meta) => this.picture(meta.captureTime ?? now));
    else setTimeout(() => this.picture(performance.now()), 33);
  }

  picture(capturedAt) {
    this.next();
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!this.on || this.coding || this.inFlight >= IN_FLIGHT || !width) return;
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
    const size = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
    this.canvas.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0, ...size);
    this.coding = true;
    this.canvas.toBlob(async (blob) => {
      this.coding = false;
      if (!blob) return;
      const jpeg = await blob.arrayBuffer();
      if (!this.on) return;
      this.inFlight += 1;
      this.socket.send(packPicture({ captured_ms: this.socket.serverTime(capturedAt) }, jpeg));
    }, "image/jpeg", QUALITY);
  }
}
