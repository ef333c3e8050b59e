// The portrait's screen: what is shown on it, what lies over it, the badge, and how fast it is.

import { $, keepFocus, recall, remember } from "./dom.js";

const METER_MS = 1000;

export class View {
  #shown = 0;
  #since = performance.now();
  #stream = $("stream");
  #canvas = $("picture");
  #action = () => {};

  constructor() {
    $("cover-action").addEventListener("click", () => this.#action());
    this.#stream.addEventListener("loadeddata", () => this.#stream.play().catch(() => {}));
    placeBadge($("badge"), $("screen"));
    this.#watch();
  }

  get canvas() {
    return this.#canvas;
  }

  /** Show a stream, or with `null` and "canvas" what is drawn, or the still photo. */
  show(what, stream = null) {
    this.#stream.srcObject = stream;
    this.#stream.hidden = what !== "stream";
    this.#canvas.hidden = what !== "canvas";
    $("still").hidden = what !== "still" || !$("still").src;
  }

  /** The picture that is shown while nothing moves. */
  still(blob) {
    URL.revokeObjectURL($("still").src);
    $("still").src = URL.createObjectURL(blob);
    $("still").hidden = !this.#stream.hidden || !this.#canvas.hidden;
  }

  /** Lay a message over the screen. */
  cover(title, text = "", action = null, label = "") {
    this.#lay(title, text, action, label, "full");
  }

  /** Lay a message at the screen's lower edge, so that the picture can be seen. */
  invite(title, text, action, label) {
    this.#lay(title, text, action, label, "low");
  }

  #lay(title, text, action, label, kind) {
    $("cover").hidden = false;
    $("cover").dataset.kind = kind;
    $("cover-title").textContent = title;
    $("cover-text").textContent = text;
    const refocus = action ? () => {} : this.#keepFocus();
    $("cover-action").hidden = !action;
    refocus();
    $("cover-action").textContent = label;
    this.#action = action ?? (() => {});
  }

  uncover() {
    const refocus = this.#keepFocus();
    $("cover").hidden = true;
    refocus();
  }

  /** Whoever pressed the cover's button goes on at the one that ends what it began. */
  #keepFocus() {
    return keepFocus($("cover-action"), $("camera"), $("screen"));
  }

  /** A line at the lower edge, which hides nothing. */
  hint(text) {
    $("hint").hidden = !text;
    if ($("hint").textContent !== text) $("hint").textContent = text;
  }

  /** Count a picture that was shown. */
  counted() {
    this.#shown++;
  }

  /** Pictures a second since the last call, or null where it is too soon. */
  rate() {
    const now = performance.now();
    const seconds = (now - this.#since) / 1000;
    if (seconds < METER_MS / 2000) return null;
    const rate = this.#shown / seconds;
    this.#shown = 0;
    this.#since = now;
    return rate;
  }

  #watch() {
    if (!this.#stream.requestVideoFrameCallback) return;
    const next = () => {
      this.#shown++;
      this.#stream.requestVideoFrameCallback(next);
    };
    this.#stream.requestVideoFrameCallback(next);
  }
}

/** Let the badge be moved by pointer and arrow keys; it stays on the screen, and where it was put. */
function placeBadge(badge, screen) {
  const STEP = 0.04;
  let [x, y] = remembered();
  const place = (newX, newY) => {
    x = Math.min(1, Math.max(0, newX));
    y = Math.min(1, Math.max(0, newY));
    badge.style.setProperty("--x", x);
    badge.style.setProperty("--y", y);
    remember("badge", JSON.stringify([x, y]));
  };
  place(x, y);
  badge.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    place(x + move[0], y + move[1]);
  });
  badge.addEventListener("pointerdown", (event) => {
    badge.setPointerCapture(event.pointerId);
    const room = screen.getBoundingClientRect();
    const from = { x, y, left: event.clientX, top: event.clientY };
    const width = room.width - badge.offsetWidth;
    const height = room.height - badge.offsetHeight;
    badge.onpointermove = (moved) =>
      place(from.x + (moved.clientX - from.left) / width, from.y + (moved.clientY - from.top) / height);
    badge.onpointerup = badge.onpointercancel = () => (badge.onpointermove = null);
  });
}

function remembered() {
  try {
    const kept = JSON.parse(recall("badge"));
    if (Array.isArray(kept) && kept.length === 2 && kept.every(Number.isFinite)) return kept;
  } catch {
    // what is there is not ours
  }
  return [0.03, 0.03];
}
