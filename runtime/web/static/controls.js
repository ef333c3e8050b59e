// Choices and sliders: what they hold is sent as it changes, never more than one request at a time.

import { $, alertUser, make } from "./dom.js";

const MAIN = [
  { name: "pose_strength", label: "Movement", low: 0, high: 2, step: 0.05, rest: 1, unit: "×" },
  { name: "expression_strength", label: "Expression", low: 0, high: 2, step: 0.05, rest: 1, unit: "×" },
  { name: "smoothing", label: "Smoothing", low: 0, high: 4, step: 0.1, rest: 1, unit: "×" },
];
const EDITS = {
  Head: [
    { name: "yaw", label: "Turn", low: -30, high: 30, step: 1, unit: "°", shown: 1 },
    { name: "pitch", label: "Nod", low: -20, high: 20, step: 1, unit: "°", shown: 1 },
    { name: "roll", label: "Tilt", low: -25, high: 25, step: 1, unit: "°", shown: 1 },
    { name: "x", label: "Sideways", low: -5, high: 5, step: 0.25, unit: " cm", shown: 1 },
    { name: "y", label: "Down", low: -5, high: 5, step: 0.25, unit: " cm", shown: 1 },
    { name: "scale", label: "Nearer", low: 0.5, high: 2, step: 0.05, rest: 1, unit: "×", shown: 1 },
  ],
  Eyes: [
    { name: "blink", label: "Close eyes" },
    { name: "blink_right", label: "Wink, right" },
    { name: "blink_left", label: "Wink, left" },
    { name: "eyes_wide", label: "Wide eyes" },
    { name: "squint", label: "Squint" },
    { name: "gaze_x", label: "Look aside", low: -0.25, high: 0.25, step: 0.01, shown: 400 },
    { name: "gaze_y", label: "Look down", low: -0.25, high: 0.25, step: 0.01, shown: 400 },
    { name: "brow_up", label: "Raise brows" },
    { name: "brow_down", label: "Lower brows" },
  ],
  Mouth: [
    { name: "smile", label: "Smile" },
    { name: "frown", label: "Frown" },
    { name: "mouth_open", label: "Open mouth" },
    { name: "pucker", label: "Pucker" },
    { name: "funnel", label: "Funnel" },
    { name: "stretch", label: "Stretch" },
    { name: "cheek_puff", label: "Puff cheeks" },
  ],
};
const PAUSE_MS = 40; // between two requests while a slider moves
const PERCENT = { unit: " %", shown: 100 };
const CHOICES = ["system", "size", "whole", "mirror"];

export class Controls {
  #api;
  #session;
  #wanted = {};
  #sending = null;
  #sliders = new Map();
  #edits = new Map();
  #changed;

  /** @param changed called after changes were taken */
  constructor(api, session, changed) {
    this.#api = api;
    this.#session = session;
    this.#changed = changed;
    for (const slider of MAIN) $("sliders").append(this.#slider(slider, this.#sliders, () => this.#main(slider.name)));
    for (const [title, rows] of Object.entries(EDITS)) $("edit-groups").append(this.#editGroup(title, rows));
    $("find").addEventListener("input", () => this.#find($("find").value));
    $("edits-reset").addEventListener("click", () => {
      for (const { input, show, rest } of this.#edits.values()) {
        input.value = rest;
        show();
      }
      this.#edited();
    });
    for (const name of CHOICES) $(name).addEventListener("change", () => this.#chosen());
  }

  /** Fill the choices with what the server has. */
  offer({ systems, sizes, controls }) {
    const rest = controls.filter(({ name }) => !this.#edits.has(name));
    const groups = {};
    for (const row of rest.map(shapeRow)) (groups[row.group] ??= []).push(row);
    for (const [title, rows] of Object.entries(groups)) $("all-groups").append(this.#editGroup(title, rows));
    const label = { meshwarp: "meshwarp (built in)" };
    $("system").replaceChildren(
      ...systems.map(({ name, available, reason }) =>
        make("option", { value: name, disabled: !available, title: reason ?? "" }, `${label[name] ?? name}${available ? "" : " (not here)"}`),
      ),
    );
    $("size").replaceChildren(...sizes.map((size) => make("option", { value: size }, `${size} pixels`)));
  }

  /** Show these settings, without sending them. */
  show(settings) {
    $("system").value = settings.system;
    $("size").value = settings.size;
    $("whole").value = settings.whole ? "whole" : "head";
    $("mirror").checked = settings.mirror;
    for (const [name, { input, show }] of this.#sliders) {
      input.value = settings[name];
      show();
    }
    for (const [name, { input, show, rest }] of this.#edits) {
      input.value = settings.edits[name] ?? rest;
      show();
    }
    this.#countEdits();
    $("options").disabled = false;
  }

  /** All settings but the photo, as they are shown. */
  get settings() {
    const main = [...this.#sliders].map(([name, { input }]) => [name, Number(input.value)]);
    return {
      system: $("system").value,
      size: Number($("size").value),
      whole: $("whole").value === "whole",
      mirror: $("mirror").checked,
      edits: this.#editValues(),
      ...Object.fromEntries(main),
    };
  }

  /** Show what the server has, once what is being sent has arrived. Never throws. */
  async agree() {
    await this.#sending?.catch(() => {}); // told by whoever sent it
    this.show(this.#session.settings);
  }

  /**
   * Send a change; those that come while one is on the way are sent together after it.
   *
   * Where one is refused, those that wait behind it are dropped, and what the server has is shown.
   */
  send(change) {
    Object.assign(this.#wanted, change);
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #sendAll() {
    while (Object.keys(this.#wanted).length) {
      const change = this.#wanted;
      this.#wanted = {};
      try {
        this.#session.settings = await this.#api.json("PATCH", `${this.#session.path}/live`, change);
      } catch (error) {
        await this.#goBack();
        this.#wanted = {};
        throw error;
      }
      await this.#changed();
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  /** Show what the server has; where it cannot be asked, `agree` does once the connection is back. */
  async #goBack() {
    const { settings } = await this.#api.json("GET", this.#session.path).catch(() => ({}));
    if (!settings) return;
    this.#session.settings = settings;
    this.show(settings);
  }

  async #tell(change) {
    try {
      await this.send(change);
    } catch (error) {
      alertUser(error.message);
    }
  }

  #main(name) {
    this.#tell({ [name]: Number(this.#sliders.get(name).input.value) });
  }

  #chosen() {
    const { system, size, whole, mirror } = this.settings;
    this.#tell({ system, size, whole, mirror });
  }

  #edited() {
    this.#countEdits();
    this.#tell({ edits: this.#editValues() });
  }

  #editValues() {
    const all = [...this.#edits].map(([name, { input }]) => [name, Number(input.value)]);
    return Object.fromEntries(all.filter(([name, value]) => value !== this.#edits.get(name).rest));
  }

  #countEdits() {
    const count = Object.keys(this.#editValues()).length;
    $("edited").hidden = count === 0;
    $("edited").textContent = `${count} on`;
  }

  #editGroup(title, rows) {
    const group = make("fieldset", { className: "sliders" }, make("legend", {}, title));
    for (const row of rows) {
      const full = { low: 0, high: 1, step: 0.02, rest: 0, ...PERCENT, ...row };
      group.append(this.#slider(full, this.#edits, () => this.#edited()));
    }
    return group;
  }

  /** Of all controls, show those whose group or label holds every word. */
  #find(text) {
    const words = text.toLowerCase().split(/\s+/);
    let found = 0;
    for (const group of $("all-groups").children) {
      const title = group.querySelector("legend").textContent;
      for (const slider of group.querySelectorAll(".slider")) {
        const said = `${title} ${slider.firstChild.textContent} ${slider.querySelector("input").id}`.toLowerCase();
        slider.hidden = !words.every((word) => said.includes(word));
        found += !slider.hidden;
      }
      group.hidden = !group.querySelector(".slider:not([hidden])");
    }
    $("found").textContent = text.trim() ? `${found} found` : "";
  }

  #slider({ name, label, low, high, step, rest, unit, shown = 1 }, into, changed) {
    const input = make("input", { type: "range", min: low, max: high, step, value: rest, id: `slider-${name}` });
    const output = make("span", { className: "value", ariaHidden: "true" });
    const digits = step * shown < 1 ? 2 : 0;
    const show = () => {
      const text = `${(shown * Number(input.value)).toFixed(digits)}${unit}`;
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    show();
    input.addEventListener("input", () => {
      show();
      changed();
    });
    input.addEventListener("dblclick", () => {
      input.value = rest;
      show();
      changed();
    });
    into.set(name, { input, show, rest });
    return make("label", { className: "slider", title: "Double-click for rest" }, make("span", {}, label), input, output);
  }
}

/** A row for a control that only its name describes: "mouthSmile_L" is "Smile, left" in the group "Mouth, in detail". */
function shapeRow({ name, low, high }) {
  const [shape, side] = name.split("_");
  const [first, ...others] = shape.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).split(" ");
  const label = capital(others.join(" ") || first) + ({ L: ", left", R: ", right" }[side] ?? "");
  return { name, low, high, label, group: `${capital(first)}, in detail` };
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);
