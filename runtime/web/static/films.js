// Films of the chosen photo, made by the server from a video or a built-in motion.

import { Film } from "./film.js";
import { $, alertUser, counted, make } from "./dom.js";

const NAMES = { "look-around": "looking around", demo: "a bit of everything", nod: "a nod", smile: "a smile", talk: "talking", blink: "breathing and blinking" };

export class Films {
  #api;
  #session;
  #settings;
  #films = new Set();

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

  /** Whether there are films that leaving the page would lose. */
  get unsaved() {
    return [...this.#films].some((film) => film.unsaved);
  }

  /** The session is another one, which has no films; gives what was lost, in words. */
  forget() {
    const lost = [...this.#films].filter((film) => film.wanted).length;
    for (const film of this.#films) film.leave();
    return lost ? counted(lost, "film") : "";
  }

  #showDriving() {
    $("driving-row").hidden = $("motion").value !== "";
  }

  #make() {
    const motion = $("motion").value;
    const [file] = $("driving").files;
    if (!motion && !file) {
      alertUser("Choose a video first.");
      $("driving").focus();
      return;
    }
    const { photo, system, pose_strength, expression_strength, whole } = this.#settings();
    const wish = { photo, system, pose_strength, expression_strength, crop: !whole, ...(motion ? { motion } : {}) };
    const film = new Film(this.#api, this.#session.path, motion ? (NAMES[motion] ?? motion) : file.name);
    this.#films.add(film);
    film.make(wish, motion ? null : file).finally(() => film.gone.then(() => this.#films.delete(film)));
  }
}
