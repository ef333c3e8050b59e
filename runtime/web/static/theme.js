// Light, dark, or as the system has it.

import { recall, remember } from "./dom.js";

const THEMES = ["system", "light", "dark"];

export function themeButton(button) {
  let theme = recall("theme");
  if (!THEMES.includes(theme)) theme = "system";
  const apply = () => {
    document.documentElement.dataset.theme = theme;
    const said = theme === "system" ? "as the system" : theme;
    button.setAttribute("aria-label", `Colours: ${said}`);
    button.title = `Colours: ${said}`;
    button.textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("theme", theme);
    apply();
  });
  apply();
}
