// Copies a text, also where the page came over plain HTTP from another computer and has no clipboard of its own.

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" });
  const focused = document.activeElement;
  (document.querySelector("dialog[open]") ?? document.body).append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  focused?.focus();
}

// The button says for a moment that it has done so.
export async function copyBy(button, text) {
  const label = button.textContent;
  if (button.dataset.said) return;
  button.dataset.said = "yes";
  button.textContent = await copy(text).then(() => "Copied", () => "Not allowed");
  setTimeout(() => {
    button.textContent = label;
    delete button.dataset.said;
  }, 1500);
}
