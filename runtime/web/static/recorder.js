// Recording to a file: the server writes it, marked as AI-generated, and the page saves it.

import { $, alertUser, save, stamped } from "./dom.js";

export class Recorder {
  #api;
  #session;
  #id = null;
  #began = 0;
  #timer = null;

  constructor(api, session) {
    this.#api = api;
    this.#session = session;
    $("record").addEventListener("click", () => (this.#id ? this.stop() : this.#start()));
  }

  /** Whether there is something to record. */
  allow(allowed) {
    $("record").disabled = !allowed && !this.#id;
  }

  /** The session is another one: what was recorded went with the old one. */
  forget() {
    if (this.#id) alertUser("The recording was lost with the connection.");
    this.#show(null);
  }

  /** End the recording and save it. */
  async stop() {
    const id = this.#id;
    if (!id) return;
    this.#show(null);
    const path = `${this.#session.path}/recordings/${id}`;
    try {
      const { seconds } = await this.#api.json("POST", `${path}/stop`);
      save(await this.#api.blob(`${path}/file`), stamped("mp4"));
      $("status").textContent = `Saved ${Math.round(seconds)} seconds`;
      await this.#api.json("DELETE", path);
    } catch (error) {
      alertUser(error.message);
    }
  }

  async #start() {
    try {
      const { id } = await this.#api.json("POST", `${this.#session.path}/recordings`);
      this.#began = performance.now();
      this.#show(id);
    } catch (error) {
      alertUser(error.message);
    }
  }

  #show(id) {
    this.#id = id;
    clearInterval(this.#timer);
    $("record").setAttribute("aria-pressed", String(Boolean(id)));
    const tick = () => {
      const seconds = Math.floor((performance.now() - this.#began) / 1000);
      const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      $("record-text").textContent = id ? `Stop ${time}` : "Record";
    };
    tick();
    if (id) this.#timer = setInterval(tick, 500);
  }
}
