// A session and its lifeline: opened, waited for while all places are taken, found again after the connection broke.
//
// Events: "connection" {state, text, wait}, "opened" {fresh}, "status" (the live status), "problem".
// States: opening, busy, held (asked to wait), open, lost, refused, over.

import { Refused } from "./api.js";
import { packAck, unpack } from "./messages.js";

// The server speaks twice a second; a line that is silent for so long is a broken one, whatever the browser believes.
const SILENCE_MS = 6000;
const RETRY_MS = [500, 1000, 2000, 3000, 5000];

export class Session extends EventTarget {
  id = null;
  settings = null;
  /** Who shows pictures that come here: has `show(picture)` and `taken(number)`. */
  frames = null;
  #api;
  #socket = null;
  #over = false;
  #lost = 0;
  #silence = null;

  constructor(api) {
    super();
    this.#api = api;
  }

  get path() {
    return `/api/sessions/${this.id}`;
  }

  /** Open one; keeps trying until it is there, or is refused. Never throws. */
  async open() {
    this.#over = false;
    this.#connection("opening", "Connecting…");
    while (!this.#over) {
      try {
        const made = await this.#api.json("POST", "/api/sessions");
        if (this.#over) return this.#api.leave(`/api/sessions/${made.id}`);
        this.id = made.id;
        this.settings = made.settings;
        return this.#connect(true);
      } catch (error) {
        await this.#wait(error);
      }
    }
  }

  /** Send a binary message; false where there is no line. */
  send(content) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(content);
    return true;
  }

  /** Bytes that have not left the browser yet. */
  get waiting() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** End it for good, also while the page goes away. */
  leave() {
    this.#over = true;
    if (this.id) this.#api.leave(this.path);
    this.id = null;
    this.#hangUp();
  }

  /** No more of this line: neither what it says, nor that it breaks or falls silent. */
  #hangUp() {
    clearTimeout(this.#silence);
    this.#socket?.close();
    this.#socket = null;
  }

  #connect(fresh) {
    let socket;
    try {
      socket = this.#api.socket(`${this.path}/live`);
    } catch (error) {
      this.leave();
      return this.#connection("refused", `The browser opens no line to the server. ${error.message}`);
    }
    this.#socket = socket;
    socket.onopen = () => {
      this.#lost = 0;
      this.#connection("open", "Connected");
    };
    socket.onmessage = ({ data }) => {
      this.#listen(socket);
      if (typeof data !== "string") return this.#take(socket, data);
      const message = JSON.parse(data);
      if (message.type === "status") this.#emit("status", message);
      else if (message.type === "problem") this.#emit("problem", message);
      else if (message.type === "ended" && message.unused) this.#end();
    };
    socket.onclose = () => this.#broken(socket);
    this.#listen(socket);
    this.#emit("opened", { fresh });
  }

  /** Pictures are acknowledged also when nobody shows them any more: the server waits for it before it sends others. */
  async #take(socket, buffer) {
    const { number, ...picture } = unpack(buffer);
    if (!picture.jpeg) return this.frames?.taken(number);
    try {
      await this.frames?.show(picture);
    } catch (error) {
      console.warn("a picture could not be shown:", error.message);
    } finally {
      if (socket.readyState === WebSocket.OPEN) socket.send(packAck(number));
    }
  }

  /** Give up on a line that stays silent from now on. */
  #listen(socket) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      socket.close();
      this.#broken(socket);
    }, SILENCE_MS);
  }

  #broken(socket) {
    if (this.#socket !== socket || this.#over) return;
    clearTimeout(this.#silence);
    this.#socket = null;
    this.#find();
  }

  /** The server gave the place to others, because nobody used it. */
  #end() {
    this.#over = true;
    this.id = null;
    this.#hangUp();
    this.#connection("over", "Nobody used this page for a while, so its place was given free.");
  }

  /** The line broke: take it up again, or open another session where this one is gone. */
  async #find() {
    this.#connection("lost", "The connection was lost. Trying again…");
    await pause(RETRY_MS[Math.min(this.#lost++, RETRY_MS.length - 1)]);
    if (this.#over) return;
    try {
      this.settings = (await this.#api.json("GET", this.path)).settings;
    } catch (error) {
      if (error.code === "no_session") return this.open();
      if (error.code === "busy" || !passing(error)) await this.#wait(error);
      if (!this.#over) this.#find();
      return;
    }
    if (!this.#over) this.#connect(false);
  }

  async #wait(error) {
    const asked = { busy: "busy", too_many_requests: "held" }[error.code];
    if (asked) {
      const seconds = error.retryAfter || 5;
      this.#connection(asked, error.message, seconds);
      return pause(seconds * 1000);
    }
    if (passing(error)) {
      this.#connection("lost", `${error.message} Trying again…`);
      return pause(RETRY_MS[Math.min(this.#lost++, RETRY_MS.length - 1)]);
    }
    this.#over = true;
    this.#connection("refused", error.message);
  }

  #connection(state, text, wait = 0) {
    this.#emit("connection", { state, text, wait });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Whether to try again: a refusal may pass by itself, and so may what is none. */
function passing(error) {
  if (error instanceof Refused) return error.passing;
  console.warn("an answer could not be used:", error);
  return true;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
