// Small helpers for the page's elements, and what is said to its user.

export const $ = (id) => document.getElementById(id);

/** A new element: make("li", { className: "job" }, child, "text"). */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Offer a blob as a file of that name. */
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A name for a file made now: reenact-2026-01-31-120000.png. */
export function stamped(suffix) {
  const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString();
  return `reenact-${now.slice(0, 10)}-${now.slice(11, 19).replaceAll(":", "")}.${suffix}`;
}

/** "1 photo", "3 photos". */
export function counted(count, one) {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

/** What the browser keeps for this page under a name; null where it has nothing, or gives pages no storage. */
export function recall(name, storage = "localStorage") {
  try {
    return window[storage].getItem(name);
  } catch (error) {
    console.info("nothing is kept:", error.message);
    return null;
  }
}

/** Let the browser keep a text; where it gives pages no storage, it is known to the open page alone. */
export function remember(name, text, storage = "localStorage") {
  try {
    window[storage].setItem(name, text);
  } catch (error) {
    console.info("not kept:", error.message);
  }
}

const TOLD_MS = 8000;
const PROBLEMS = 4; // shown at once
let hiding;
let focusedBefore = null;

/** A problem, in words; it stays until it is closed. */
export function alertUser(text) {
  const texts = $("alert-texts");
  if ($("alert").hidden) texts.replaceChildren();
  for (const same of [...texts.children].filter((line) => line.textContent === text)) same.remove();
  $("alert").hidden = false;
  texts.append(make("p", {}, text));
  while (texts.children.length > PROBLEMS) texts.firstChild.remove();
}

/** Good news, for a while. */
export function tell(text) {
  clearTimeout(hiding);
  $("told").textContent = text;
  hiding = setTimeout(() => ($("told").textContent = ""), TOLD_MS);
}

/** For screen readers alone: what others see anyhow. */
export function announce(text) {
  $("news").textContent = "";
  setTimeout(() => ($("news").textContent = text), 100); // the same text again is news, too
}

/** Move the focus to the first of `places` that can take it, where `leaving` had it and is gone. */
export function keepFocus(leaving, ...places) {
  if (!leaving.contains(document.activeElement)) return () => {};
  return () => places.find((place) => place && !place.disabled && place.getClientRects().length)?.focus();
}

/** Let alerts be closed, by their button or Escape. */
export function closableAlerts() {
  const close = () => {
    const refocus = keepFocus($("alert"), focusedBefore, $("screen"));
    $("alert").hidden = true;
    refocus();
  };
  $("alert").addEventListener("focusin", ({ relatedTarget }) => (focusedBefore = relatedTarget));
  $("alert-close").addEventListener("click", close);
  addEventListener("keydown", ({ key }) => key === "Escape" && !$("alert").hidden && close());
}
