// The photos to choose from: radio buttons, uploads by button or drop, removal.

import { $, alertUser, announce, counted, keepFocus, make } from "./dom.js";

const TYPES = /^image\/(jpeg|png|webp|bmp|tiff)$/;

export class Gallery {
  chosen = null;
  #api;
  #session;
  #choose;
  #names = new Map();

  /** @param choose called with a photo's id; resolves once it shows, rejects where it cannot */
  constructor(api, session, choose) {
    this.#api = api;
    this.#session = session;
    this.#choose = choose;
    $("upload").addEventListener("change", () => {
      this.add([...$("upload").files]);
      $("upload").value = "";
    });
    this.#listenForDrops();
  }

  /** Show the photos of the session, `chosen` among them. */
  async load(chosen) {
    const photos = await this.#api.json("GET", `${this.#session.path}/photos`);
    const here = new Set(photos.map(({ id }) => id));
    for (const tile of document.querySelectorAll(".tile.photo")) if (!here.has(tile.dataset.id)) this.#take(tile);
    for (const photo of photos) if (!this.#tile(photo.id)) await this.#show(photo);
    this.#mark(photos.some(({ id }) => id === chosen) ? chosen : photos[0].id);
    $("gallery").disabled = false;
    return this.chosen;
  }

  /** The session is another one, without the photos that were added; gives what was lost, in words. */
  forget() {
    const lost = document.querySelectorAll(".tile.photo .remove").length;
    return lost ? counted(lost, "photo") : "";
  }

  /** Upload files one after the other; the last one that can be used is shown. */
  async add(files) {
    const tile = $("add");
    for (const file of files) {
      if (file.type && !TYPES.test(file.type)) {
        alertUser(`${file.name}: only JPEG, PNG, WebP, BMP and TIFF photos can be used.`);
        continue;
      }
      tile.setAttribute("aria-busy", "true");
      try {
        const photo = await this.#api.upload(`${this.#session.path}/photos`, file);
        this.#names.set(photo.id, file.name);
        await this.#show(photo);
        await this.choose(photo.id);
        if (this.chosen === photo.id) announce(`${file.name} is shown.`);
      } catch (error) {
        alertUser(`${file.name}: ${error.message}`);
      } finally {
        tile.removeAttribute("aria-busy");
      }
    }
  }

  /** Show a photo; what is marked afterwards is what the server has. Never throws. */
  async choose(id) {
    this.#mark(id);
    const tile = this.#tile(id);
    tile?.setAttribute("aria-busy", "true");
    try {
      await this.#choose(id);
    } catch (error) {
      alertUser(error.message);
    } finally {
      this.#mark(this.#session.settings.photo);
      tile?.removeAttribute("aria-busy");
    }
  }

  #mark(id) {
    this.chosen = id;
    const input = this.#tile(id)?.querySelector("input");
    if (input) input.checked = true;
  }

  #tile(id) {
    return document.querySelector(`.tile.photo[data-id="${CSS.escape(id ?? "")}"]`);
  }

  async #show(photo) {
    const name = photo.name || this.#names.get(photo.id) || "Your photo";
    const picture = make("img", { alt: "", src: URL.createObjectURL(await this.#thumbnail(photo.id)) });
    const input = make("input", { type: "radio", name: "photo", value: photo.id, className: "unseen" });
    input.addEventListener("change", () => this.choose(photo.id));
    const label = make("label", {}, input, picture, make("span", { className: "name" }, name));
    const tile = make("div", { className: "tile photo" }, label);
    tile.dataset.id = photo.id;
    if (!photo.built_in) {
      const remove = make("button", { type: "button", className: "remove", title: "Remove" }, "×");
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.addEventListener("click", () => this.#remove(photo.id));
      tile.append(remove);
    }
    $("add").before(tile);
  }

  async #thumbnail(id) {
    return this.#api.blob(`${this.#session.path}/photos/${id}/thumbnail`);
  }

  async #remove(id) {
    try {
      if (this.chosen === id) await this.choose(document.querySelector(".tile.photo").dataset.id);
      await this.#api.json("DELETE", `${this.#session.path}/photos/${id}`);
      this.#take(this.#tile(id));
    } catch (error) {
      alertUser(error.message);
    }
  }

  /** Take a tile from the page. */
  #take(tile) {
    const refocus = keepFocus(tile, this.#tile(this.chosen)?.querySelector("input"), $("upload"));
    URL.revokeObjectURL(tile.querySelector("img").src);
    tile.remove();
    refocus();
  }

  #listenForDrops() {
    let depth = 0;
    const files = (event) => event.dataTransfer?.types.includes("Files");
    const show = (change) => {
      depth = Math.max(0, depth + change);
      $("drop").hidden = depth === 0;
    };
    addEventListener("dragenter", (event) => files(event) && show(1));
    addEventListener("dragleave", (event) => files(event) && show(-1));
    addEventListener("dragover", (event) => files(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 0;
      show(0);
      if (!$("gallery").disabled) this.add([...event.dataTransfer.files]);
    });
  }
}
