// Copies a text, also where the page came over plain HTTP from another computer and has no clipboard of its own.
import { $, made } from "./dom.js";

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = made("textarea", { value: text, className: "hidden" });
  const focused = document.activeElement;
  (document.querySelector("dialog[open]") ?? document.body).append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  focused?.focus();
  if (!done) throw new Error("not copied");
}

// The button says for a moment that it has done so.
export async function copyBy(button, text) {
  if (button.dataset.said) return;
  const label = button.textContent;
  button.dataset.said = "yes";
  button.textContent = $("spoken").textContent = await copy(text).then(() => "Copied", () => "Not allowed");
  setTimeout(() => {
    button.textContent = label;
    delete button.dataset.said;
  }, 1500);
}
