// Recording to a file: the server writes it, marked as AI-generated, and the page saves it.
//
// It may end before somebody stops it: at the longest time that the server takes, or by a fault. The page notices,
// and keeps a recording in mind until it is saved.

import { $, alertUser, counted, save, stamped, tell } from "./dom.js";

const TICK_MS = 500;
const LOOK_EVERY = 4; // ticks
const LABELS = { idle: "Record", recording: "Stop", saving: "Saving…", unsaved: "Save again" };

export class Recorder {
  #api;
  #session;
  /** "idle", "recording", "saving", or "unsaved": ended, but the page could not get it */
  #state = "idle";
  #id = null;
  #began = 0;
  #ticks = 0;
  #timer = null;
  #allowed = false;

  constructor(api, session) {
    this.#api = api;
    this.#session = session;
    $("record").addEventListener("click", () => (this.#id ? this.stop() : this.#start()));
  }

  /** Whether there is a recording that leaving the page would lose. */
  get unsaved() {
    return this.#state !== "idle";
  }

  /** Whether there is something to record. */
  allow(allowed) {
    this.#allowed = allowed;
    this.#enable();
  }

  /** The session is another one, which has no recording; gives what was lost, in words. */
  forget() {
    const lost = this.#id ? "the recording" : "";
    this.#become("idle", null);
    return lost;
  }

  /** End the recording where it goes on, and save it. */
  async stop() {
    const id = this.#id;
    if (!id || this.#state === "saving") return;
    const path = this.#path;
    this.#become("saving", id);
    try {
      const { seconds } = await this.#api.json("POST", `${path}/stop`);
      save(await this.#api.blob(`${path}/file`), stamped("mp4"));
      tell(`Saved a recording of ${counted(Math.round(seconds), "second")}.`);
    } catch (error) {
      if (this.#id !== id) return; // its session ended meanwhile, which is told
      if (!error.status || error.status >= 500 || error.status === 429) {
        this.#become("unsaved", id);
        return alertUser(`The recording is not saved yet. ${error.message}`);
      }
      alertUser(error.message);
    }
    if (this.#id === id) this.#become("idle", null);
    await this.#api.json("DELETE", path).catch(() => {}); // it goes with the session at the latest
  }

  get #path() {
    return `${this.#session.path}/recordings/${this.#id}`;
  }

  async #start() {
    try {
      const { id } = await this.#api.json("POST", `${this.#session.path}/recordings`);
      this.#began = performance.now();
      this.#become("recording", id);
    } catch (error) {
      alertUser(error.message);
    }
  }

  #become(state, id) {
    this.#state = state;
    this.#id = id;
    clearInterval(this.#timer);
    this.#ticks = 0;
    if (state === "recording") this.#timer = setInterval(() => this.#tick(), TICK_MS);
    $("record").dataset.state = state;
    $("record-text").textContent = LABELS[state];
    if (state === "recording") $("record").setAttribute("aria-label", "Stop recording");
    else $("record").removeAttribute("aria-label");
    this.#showTime();
    this.#enable();
  }

  #enable() {
    $("record").disabled = this.#state === "saving" || (this.#state === "idle" && !this.#allowed);
  }

  #tick() {
    this.#showTime();
    if (++this.#ticks % LOOK_EVERY === 0) this.#look();
  }

  /** Not part of the button's name, which would be read out again every second. */
  #showTime() {
    const seconds = Math.floor((performance.now() - this.#began) / 1000);
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    $("record-time").textContent = this.#state === "recording" ? ` ${time}` : "";
  }

  /** Save it where it has ended by itself. */
  async #look() {
    const id = this.#id;
    const info = await this.#api.json("GET", this.#path).catch(() => null); // a lost connection is told by the session
    if (!info || info.recording || this.#id !== id || this.#state !== "recording") return;
    await this.stop();
    alertUser(`The recording ended by itself after ${counted(Math.round(info.seconds), "second")}.`);
  }
}
