// The keys of all actions. One list: what is bound is what the dialog shows.
import { isAnswering, stop } from "./chat.js";
import { $, composing, made, when } from "./dom.js";
import { newPrivate, ofChat, search, toComposer } from "./sidebar.js";

const isMac = /Mac|iPhone|iPad/i.test(navigator.userAgentData?.platform ?? navigator.platform); // "macOS", "MacIntel"
const SIGNS = { Mod: "Ctrl", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" };
if (isMac) Object.assign(SIGNS, { Mod: "⌘", Alt: "⌥", Shift: "⇧", Delete: "⌦", Backspace: "⌫" });
const WRITES = "input:not([type=checkbox], [type=range]), textarea, select";
const last = (selector) => [...document.querySelectorAll(`#turns ${selector}`)].at(-1)?.click();
const press = (selector) => () => last(selector);
// What is done with a turn, where no answer runs.
const button = (of, ...acts) => () => isAnswering() || last(`${of} :is(${acts.map((act) => `[data-act=${act}]`)})`);

// The arrows: not where something is written, or scrolled by them.
const branch = (name) => press(`.branches [aria-label="${name}"]:enabled`);
const free = ({ target }) => target.matches("body, main, .branches *") || (target.id === "question" && !target.value);
const unwritten = ({ target }) => !target.matches(WRITES);
const inList = ({ target }) => target.closest("#chat-list") && unwritten({ target });

// [key, what it does, act, where]. The act may be the id of what is clicked; without one it is done elsewhere.
const KEYS = {
  Chats: [
    ["Mod+Shift+O", "New chat", "new-chat"],
    ["Alt+P", "New private chat", newPrivate],
    ["Mod+K", "Search the chats", search],
    ["Mod+B", "Show or hide the chats", "open-chats"],
    ["F2", "Rename the chat", ofChat("rename")],
    ["Alt+N", "Pin the chat, or unpin it", ofChat("pin")],
    ["Mod+Shift+Backspace", "Delete the chat", ofChat("remove")],
    ["Delete", "Delete the chat chosen in the list", ofChat("remove"), inList],
    ["Alt+Z", "Undo the deletion", "undo"],
    ["Alt+S", "Save the chat as Markdown", ofChat("markdown")],
    ["Alt+J", "Save the chat as JSON", ofChat("json")],
    ["Alt+A", "Save all chats", "export-all"],
    ["Alt+I", "Import chats", "import"],
  ],
  Message: [
    ["Enter", "Send"],
    ["Shift+Enter", "Break the line"],
    ["/", "Write", toComposer, unwritten],
    ["Alt+U", "Attach text files", "attach"],
    ["Alt+E", "Edit the last question", button(".user", "edit")],
    ["Alt+Shift+C", "Copy the last question", button(".user", "copy")],
    ["Alt+L", "Delete the last question", button(".user", "delete")],
  ],
  Answer: [
    ["Escape", "Stop", stop, ({ target }) => isAnswering() && target.id !== "search"], // which it empties
    ["Alt+C", "Copy the last answer", button(".assistant", "copy")],
    ["Alt+K", "Copy the last code", press(".copy-code")],
    ["Alt+T", "Unfold the last thoughts, or fold them", press(".thoughts summary")],
    ["Alt+R", "Answer, again or afresh", button("", "answer", "again", "afresh")],
    ["Alt+G", "Go on with a cut answer", button(".turn:last-child", "continue")],
    ["Alt+Shift+L", "Delete the last answer", button(".assistant", "delete")],
    ["ArrowLeft", "Earlier version", branch("Earlier version"), free],
    ["ArrowRight", "Later version", branch("Later version"), free],
    ["Alt+End", "To the end", "to-end"],
  ],
  Page: [
    ["Alt+M", "Models", "model"],
    ["Mod+,", "Settings", "open-settings"],
    ["Mod+/", "These keys, everywhere", "open-keys"],
    ["?", "These keys, outside of texts", "open-keys", unwritten],
  ],
};

// As it stands in the list. Letters are told by their place where Alt, or another alphabet, makes something else of them.
function keyOf({ key, code, shiftKey, altKey, ctrlKey, metaKey }) {
  const letter = code.startsWith("Key") && !/^[a-z]$/i.test(key) ? code.slice(3) : key;
  const name = letter.length === 1 ? letter.toUpperCase() : letter;
  const shifts = shiftKey && (name.length > 1 || /[A-Z]/.test(name));
  const held = [(isMac ? metaKey : ctrlKey) && "Mod", altKey && "Alt", shifts && "Shift", name];
  return (isMac ? ctrlKey : metaKey) ? null : held.filter(Boolean).join("+");
}

function openKeys() {
  $("keys-list").replaceChildren(...Object.entries(KEYS).flatMap(table));
  $("keys").showModal();
}

function table([name, keys]) {
  const spelled = (key) => key.split("+").map((part) => made("kbd", {}, SIGNS[part] ?? part));
  const rows = keys.map(([key, text]) => made("div", {}, made("dt", {}, text), made("dd", {}, ...spelled(key))));
  return [made("h3", {}, name), made("dl", {}, ...rows)];
}

when(document, "keydown", (event) => {
  if (!event.code || composing(event) || event.defaultPrevented) return; // without a code it is no key, but filled in
  if (event.getModifierState("AltGraph") || document.querySelector("dialog[open]")) return;
  const pressed = keyOf(event);
  const fits = ([key, , act, where]) => key === pressed && act && (!where || where(event));
  const [, , act] = Object.values(KEYS).flat().find(fits) ?? [];
  if (!act) return;
  event.preventDefault();
  if (typeof act === "string") $(act)?.click(); // there are no chats where none are kept
  else act(event);
});
when("open-keys", "click", openKeys);
