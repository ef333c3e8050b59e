// Camera frames and pictures as JPEG over the session's WebSocket, where WebRTC cannot pass.
//
// The messages are described in the server's websocket.py; neither side sends more than WINDOW unacknowledged.

const FRAME = 1;
const ACK = 2;
const HEAD = 16;
const WINDOW = 2;
const WIDTH = 480;
const QUALITY = 0.8;

export class FrameLine {
  /** Milliseconds from the camera to the screen, of the last picture. */
  latency = null;
  #session;
  #video;
  #canvas;
  #small = document.createElement("canvas");
  #number = 0;
  #onTheWay = 0;
  #encoding = false;
  #open = true;
  #listener = ({ detail }) => this.#receive(detail);

  /** @param video the camera's preview @param canvas where pictures are drawn @param onpicture called after each */
  constructor(session, video, canvas, onpicture) {
    Object.assign(this, { onpicture });
    this.#session = session;
    this.#video = video;
    this.#canvas = canvas;
    session.addEventListener("binary", this.#listener);
    this.#look();
  }

  close() {
    this.#open = false;
    this.#session.removeEventListener("binary", this.#listener);
  }

  /** A new line has none of the old one's frames on the way. */
  restart() {
    this.#onTheWay = 0;
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
    if (!width || this.#encoding || this.#onTheWay >= WINDOW || this.#session.waiting > 0) return;
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
      const message = new Uint8Array(HEAD + blob.size);
      const view = new DataView(message.buffer);
      view.setUint8(0, FRAME);
      view.setUint32(4, ++this.#number, true);
      view.setFloat64(8, taken, true);
      message.set(new Uint8Array(await blob.arrayBuffer()), HEAD);
      if (this.#session.send(message)) this.#onTheWay++;
    } finally {
      this.#encoding = false;
    }
  }

  async #receive(buffer) {
    const view = new DataView(buffer);
    if (view.getUint8(0) === ACK) {
      this.#onTheWay = Math.max(0, this.#onTheWay - 1);
      return;
    }
    const bitmap = await createImageBitmap(new Blob([buffer.slice(HEAD)], { type: "image/jpeg" }));
    if (this.#open) {
      const canvas = this.#canvas;
      if (canvas.width !== bitmap.width) canvas.width = canvas.height = bitmap.width;
      canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
      this.latency = performance.now() - view.getFloat64(8, true);
      this.onpicture();
    }
    bitmap.close();
    const ack = new DataView(new ArrayBuffer(8));
    ack.setUint8(0, ACK);
    ack.setUint32(4, view.getUint32(4, true), true);
    this.#session.send(ack.buffer);
  }
}
