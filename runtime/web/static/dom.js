// Small helpers for the page's elements.

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

let hiding;

/** A problem, in words, that goes away by itself. */
export function alertUser(text) {
  clearTimeout(hiding);
  $("alert").textContent = text;
  $("alert").hidden = !text;
  if (text) hiding = setTimeout(() => alertUser(""), 9000);
}
