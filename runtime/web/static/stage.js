// Camera in, portrait out: starts, changes and ends whichever connection carries the pictures.

import { NoCamera, openCamera, stopCamera, whenItEnds } from "./camera.js";
import { $ } from "./dom.js";
import { FrameLine } from "./frames.js";
import { connectPeer } from "./webrtc.js";

export class Stage extends EventTarget {
  /** "off", "asking", "connecting", "on" */
  state = "off";
  /** "webrtc", "websocket" or null */
  transport = null;
  allowsWebrtc = true;
  #api;
  #session;
  #view;
  #camera = null;
  #peer = null;
  #line = null;
  #turn = 0;

  constructor(api, session, view) {
    super();
    this.#api = api;
    this.#session = session;
    this.#view = view;
  }

  /** Open the camera and connect it; NoCamera where there is none. */
  async start() {
    const turn = ++this.#turn;
    this.#become("asking");
    let camera;
    try {
      camera = await openCamera();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#become("off");
      throw error;
    }
    if (turn !== this.#turn) return stopCamera(camera); // it was stopped while the browser asked
    this.#camera = camera;
    whenItEnds(camera, () => this.#camera === camera && this.#cameraEnded());
    $("preview").srcObject = camera;
    await $("preview").play().catch(() => {});
    if (turn === this.#turn) await this.connect();
  }

  stop() {
    this.#turn++;
    this.#disconnect();
    stopCamera(this.#camera);
    this.#camera = null;
    $("preview").srcObject = null;
    this.#view.show("still");
    this.#become("off");
  }

  /** Connect the open camera, anew where it was: by WebRTC, or where that does not come about by the WebSocket. */
  async connect() {
    if (!this.#camera) return;
    const turn = ++this.#turn;
    this.#disconnect();
    this.#become("connecting");
    if (this.allowsWebrtc && $("connection").value === "auto") {
      const peer = await connectPeer(this.#api, `${this.#session.path}/live/webrtc`, this.#camera).catch((error) => {
        console.info("no WebRTC:", error.message);
        return null;
      });
      if (turn !== this.#turn) return peer?.close();
      if (peer) return this.#usePeer(peer);
    }
    this.transport = "websocket";
    this.#line = new FrameLine(this.#session, $("preview"), this.#view.canvas, () => this.#view.counted());
    this.#view.show("canvas");
    this.#become("on");
  }

  /** The session's WebSocket is another one now. */
  lineRenewed() {
    this.#line?.restart();
  }

  /** Milliseconds from the camera to the screen, as far as can be told; `server` is what the server says. */
  async latency(server) {
    if (this.#line) return this.#line.latency;
    if (!this.#peer || server === null) return null;
    return server + (await this.#peer.delay());
  }

  #usePeer(peer) {
    this.#peer = peer;
    this.transport = "webrtc";
    peer.onlost = () => this.#peer === peer && this.connect();
    this.#view.show("stream", peer.stream);
    this.#become("on");
  }

  #disconnect() {
    this.#peer?.close();
    this.#line?.close();
    this.#peer = this.#line = this.transport = null;
  }

  #cameraEnded() {
    this.stop();
    const error = new NoCamera("ended", "The camera stopped", "It was unplugged, or another program took it.");
    this.dispatchEvent(new CustomEvent("lost", { detail: error }));
  }

  #become(state) {
    this.state = state;
    document.body.dataset.camera = state;
    this.dispatchEvent(new CustomEvent("state"));
  }
}
