// Camera frames and pictures as JPEG over the session's WebSocket, where WebRTC cannot pass.
//
// Neither side sends more than WINDOW unacknowledged; the session acknowledges pictures, whoever shows them.

import { packFrame } from "./messages.js";

const WINDOW = 2;
const WIDTH = 480;
const QUALITY = 0.8;
let number = 0; // of the last frame, of all lines, so that an acknowledgement fits one frame only

export class FrameLine {
  /** Milliseconds from the camera to the screen, of the last picture. */
  latency = null;
  #session;
  #video;
  #canvas;
  #onpicture;
  #small = document.createElement("canvas");
  #onTheWay = new Set();
  #encoding = false;
  #open = true;

  /** @param video the camera's preview @param canvas where pictures are drawn @param onpicture called after each */
  constructor(session, video, canvas, onpicture) {
    this.#session = session;
    this.#video = video;
    this.#canvas = canvas;
    this.#onpicture = onpicture;
    session.frames = this;
    this.#look();
  }

  close() {
    this.#open = false;
    if (this.#session.frames === this) this.#session.frames = null;
  }

  /** The session's WebSocket is another one, which has none of these frames on the way. */
  restart() {
    this.#onTheWay.clear();
  }

  /** The server took a frame. */
  taken(which) {
    this.#onTheWay.delete(which);
  }

  /** Draw a picture; resolves once it is drawn. */
  async show({ time, jpeg }) {
    const bitmap = await createImageBitmap(jpeg);
    if (this.#open) {
      const canvas = this.#canvas;
      if (canvas.width !== bitmap.width) canvas.width = canvas.height = bitmap.width;
      canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
      this.latency = performance.now() - time;
      this.#onpicture();
    }
    bitmap.close();
  }

  #look() {
    if (!this.#open) return;
    const next = () => {
      this.#capture();
      this.#look();
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(next);
    else setTimeout(next, 33);
  }

  async #capture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || this.#encoding || this.#onTheWay.size >= WINDOW || this.#session.waiting > 0) return;
    this.#encoding = true;
    try {
      const taken = performance.now();
      const scale = Math.min(1, WIDTH / Math.max(width, height));
      const small = this.#small;
      small.width = Math.round(width * scale);
      small.height = Math.round(height * scale);
      small.getContext("2d", { alpha: false }).drawImage(this.#video, 0, 0, small.width, small.height);
      const blob = await new Promise((done) => small.toBlob(done, "image/jpeg", QUALITY));
      if (!blob || !this.#open) return;
      const jpeg = await blob.arrayBuffer();
      number = (number + 1) % 2 ** 32;
      if (this.#session.send(packFrame(number, taken, jpeg))) this.#onTheWay.add(number);
    } finally {
      this.#encoding = false;
    }
  }
}
