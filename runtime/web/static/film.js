// One film, from its wish to its removal: a row on the page, a job on the server, and the video that drives it.
//
// The server keeps few of either, so the video is deleted once the job has ended, and the job with its row.

import { Refused } from "./api.js";
import { $, alertUser, announce, keepFocus, make, save, stamped } from "./dom.js";

const AGAIN_MS = 1500;
const GONE = [404, 410];

export class Film {
  /** Resolves once its row has left the page. */
  gone;
  #api;
  #root;
  #name;
  #row;
  #job = null;
  #left = new AbortController();
  #failed = false;
  #fetched = false;

  /** @param root the path of the session */
  constructor(api, root, name) {
    this.#api = api;
    this.#root = root;
    this.#name = name;
    this.#row = new Row(name);
    this.gone = new Promise((done) => this.#left.signal.addEventListener("abort", done));
  }

  /** Whether somebody may still want it: it is ready or on its way. */
  get wanted() {
    return !this.#failed && !this.#left.signal.aborted;
  }

  /** Whether leaving the page would lose it. */
  get unsaved() {
    return this.wanted && !this.#fetched;
  }

  /** Leave the page and, where it is still there, the server; also in the middle of its upload. */
  leave() {
    if (this.#left.signal.aborted) return;
    this.#left.abort();
    this.#row.remove();
    if (this.#job) this.#drop(this.#job);
  }

  /** Have it made from a `file` or, where that is null, from the motion of the wish. Never throws. */
  async make(wish, file) {
    const { signal } = this.#left;
    let video = null;
    this.#row.does({ Cancel: () => this.leave() });
    try {
      if (file) {
        this.#row.say("Uploading…");
        video = (await this.#api.upload(`${this.#root}/videos`, file, signal)).id;
      }
      const { id } = await this.#api.json("POST", `${this.#root}/jobs`, video ? { ...wish, video } : wish);
      this.#job = `${this.#root}/jobs/${id}`;
      if (signal.aborted) await this.#drop(this.#job);
      else this.#end(await this.#follow(signal));
    } catch (error) {
      if (!signal.aborted) this.#fail(error.message);
    } finally {
      if (video) await this.#drop(`${this.#root}/videos/${video}`);
    }
  }

  /** What the job was when it ended; where the line breaks before that, it is taken up again. */
  async #follow(signal) {
    for (;;) {
      try {
        for await (const job of this.#api.events(`${this.#job}/events`, signal)) {
          if (job.state === "waiting") this.#row.say("Waiting for its turn…");
          else if (job.state === "running") this.#row.progress(job.done, job.total);
          else return job;
        }
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (GONE.includes(error.status)) throw new Error("It was lost with the connection.");
      }
      if (signal.aborted) throw new Error("left");
      this.#row.say("The connection was lost. Looking again…");
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  #end(job) {
    if (job.state !== "done") return this.#fail(job.problem ?? "Cancelled");
    this.#row.end("Ready", { Save: () => this.#save(), Remove: () => this.leave() });
    announce(`The film ${this.#name} is ready.`);
  }

  #fail(text) {
    this.#failed = true;
    this.#row.fail(text, { Dismiss: () => this.leave() });
    announce(`The film ${this.#name} failed: ${text}`);
  }

  async #save() {
    try {
      save(await this.#api.blob(`${this.#job}/file`), stamped("mp4"));
      this.#fetched = true;
    } catch (error) {
      alertUser(error.message);
    }
  }

  async #drop(path) {
    try {
      await this.#api.json("DELETE", path);
    } catch (error) {
      // What is gone already, or goes with a session that cannot be reached, needs no word.
      if (![0, ...GONE].includes(error.status)) alertUser(error.message);
    }
  }
}

class Row {
  #name;
  #text = make("span", { className: "job-text" });
  #bar = make("progress", { max: 1 });
  #buttons = make("span", { className: "job-buttons" });
  #element;

  constructor(name) {
    this.#name = name;
    this.#bar.setAttribute("aria-label", `Progress of ${name}`);
    this.#element = make("li", {}, make("strong", {}, name), this.#bar, this.#text, this.#buttons);
    $("jobs").prepend(this.#element);
  }

  say(text) {
    this.#bar.removeAttribute("value");
    this.#text.textContent = text;
  }

  progress(done, total) {
    if (total) this.#bar.value = done / total;
    this.#text.textContent = total ? `${Math.min(100, Math.round((100 * done) / total))} %` : `${done} pictures`;
  }

  /** Offer these actions, by label, in place of those of before. */
  does(actions) {
    const buttons = Object.entries(actions).map(([label, action]) => {
      const button = make("button", { type: "button", onclick: action }, label);
      button.setAttribute("aria-label", `${label}: ${this.#name}`);
      return button;
    });
    const refocus = keepFocus(this.#buttons, buttons[0]);
    this.#buttons.replaceChildren(...buttons);
    refocus();
  }

  end(text, actions) {
    this.#bar.hidden = true;
    this.#text.textContent = text;
    this.does(actions);
  }

  fail(text, actions) {
    this.#element.classList.add("failed");
    this.end(text, actions);
  }

  remove() {
    const beside = this.#element.nextElementSibling ?? this.#element.previousElementSibling;
    const refocus = keepFocus(this.#element, beside?.querySelector("button"), $("job-start"));
    this.#element.remove();
    refocus();
  }
}
