// Films of the chosen photo, made by the server from a video or a built-in motion.

import { $, alertUser, make, save, stamped } from "./dom.js";

const NAMES = { "look-around": "looking around", demo: "a bit of everything", nod: "a nod", smile: "a smile", talk: "talking", blink: "breathing and blinking" };

export class Films {
  #api;
  #session;
  #settings;

  /** @param settings gives the photo and strengths to use */
  constructor(api, session, settings) {
    this.#api = api;
    this.#session = session;
    this.#settings = settings;
    $("motion").addEventListener("change", () => this.#showDriving());
    $("job").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#make();
    });
  }

  offer({ motions }) {
    for (const motion of motions) $("motion").append(make("option", { value: motion }, NAMES[motion] ?? motion));
    $("motion").value = "demo";
    $("job-fields").disabled = false;
    this.#showDriving();
  }

  /** The session is another one: its films are gone. */
  forget() {
    $("jobs").replaceChildren();
  }

  #showDriving() {
    $("driving-row").hidden = $("motion").value !== "";
  }

  async #make() {
    const motion = $("motion").value;
    const [file] = $("driving").files;
    if (!motion && !file) {
      alertUser("Choose a video first.");
      $("driving").focus();
      return;
    }
    const row = new Row(motion ? (NAMES[motion] ?? motion) : file.name);
    try {
      let video = null;
      if (!motion) {
        row.say("Uploading…");
        video = (await this.#api.upload(`${this.#session.path}/videos`, file)).id;
      }
      const { photo, system, pose_strength, expression_strength, whole } = this.#settings();
      const wish = { photo, system, pose_strength, expression_strength, crop: !whole, ...(motion ? { motion } : { video }) };
      const job = await this.#api.json("POST", `${this.#session.path}/jobs`, wish);
      await this.#follow(row, `${this.#session.path}/jobs/${job.id}`);
    } catch (error) {
      row.fail(error.message);
    }
  }

  async #follow(row, path) {
    row.cancelable(() => this.#api.json("DELETE", path).then(() => row.remove(), (error) => row.fail(error.message)));
    for await (const job of this.#api.events(`${path}/events`)) {
      if (job.state === "waiting") row.say("Waiting for its turn…");
      else if (job.state === "running") row.progress(job.done, job.total);
      else if (job.state === "done") row.ready(() => this.#save(path));
      else row.fail(job.problem ?? "Cancelled");
    }
  }

  async #save(path) {
    try {
      save(await this.#api.blob(`${path}/file`), stamped("mp4"));
    } catch (error) {
      alertUser(error.message);
    }
  }
}

class Row {
  #text = make("span", { className: "job-text" });
  #bar = make("progress", { max: 1 });
  #button = make("button", { type: "button" }, "Cancel");
  #element;

  constructor(name) {
    this.#bar.setAttribute("aria-label", `Progress of ${name}`);
    this.#button.hidden = true;
    this.#element = make("li", {}, make("strong", {}, name), this.#bar, this.#text, this.#button);
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

  cancelable(cancel) {
    this.#act("Cancel", cancel);
  }

  ready(saving) {
    this.#bar.hidden = true;
    this.#text.textContent = "Ready";
    this.#act("Save", saving);
  }

  fail(text) {
    this.#bar.hidden = true;
    this.#text.textContent = text;
    this.#element.classList.add("failed");
    this.#act("Dismiss", () => this.remove());
  }

  remove() {
    this.#element.remove();
  }

  #act(label, action) {
    this.#button.hidden = false;
    this.#button.textContent = label;
    this.#button.onclick = action;
  }
}
