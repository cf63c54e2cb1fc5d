// The keys of all actions. One list: what is bound is what the dialog shows.
import { isAnswering, stop } from "./chat.js";
import { attach, draft, focus } from "./composer.js";
import { $, made } from "./dom.js";
import { toEnd } from "./reading.js";
import { openSettings } from "./settings.js";
import * as chats from "./sidebar.js";

const isMac = /Mac|iPhone|iPad/.test(navigator.userAgentData?.platform ?? navigator.platform);
const SIGNS = { Mod: "⌘", Alt: "⌥", Shift: "⇧", Delete: "⌦", Backspace: "⌫" };
const WORDS = { Mod: "Ctrl", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };
const WRITES = "input:not([type=checkbox], [type=range]), textarea, select";
const ofChat = (what) => (event) => chats.act(what, chats.idOf(event));
const click = (id) => () => $(id).click();
const last = (selector) => [...document.querySelectorAll(`#turns ${selector}`)].at(-1)?.click();
const press = (selector) => () => last(selector);
// What is done with a turn, where no answer runs.
const button = (of, ...acts) => () => isAnswering() || last(`${of} :is(${acts.map((act) => `[data-act=${act}]`)})`);

// The arrows: not where something is written, or scrolled by them.
const branch = (name) => () => last(`.branches [aria-label="${name}"]:enabled`);
const free = ({ target }) => target.matches("body, main, .branches *") || (target.id === "question" && !draft());
const unwritten = ({ target }) => !target.matches(WRITES);
const inList = ({ target }) => target.closest("#chat-list") && unwritten({ target });

// [key, what it does, act, when]. Without an act: told here, done elsewhere.
const KEYS = {
  Chats: [
    ["Mod+Shift+O", "New chat", click("new-chat")],
    ["Alt+P", "New private chat", chats.newPrivate],
    ["Mod+K", "Search the chats", chats.search],
    ["Mod+B", "Show or hide the chats", () => chats.toggleChats()],
    ["F2", "Rename the chat", ofChat("rename")],
    ["Alt+N", "Pin the chat, or unpin it", ofChat("pin")],
    ["Mod+Shift+Backspace", "Delete the chat", ofChat("remove")],
    ["Delete", "Delete the chat chosen in the list", ofChat("remove"), inList],
    ["Alt+Z", "Undo the deletion", chats.undo],
    ["Alt+S", "Save the chat as Markdown", ofChat("markdown")],
    ["Alt+J", "Save the chat as JSON", ofChat("json")],
    ["Alt+A", "Save all chats", chats.exportAll],
    ["Alt+I", "Import chats", chats.chooseImport],
  ],
  Message: [
    ["Enter", "Send"],
    ["Shift+Enter", "Break the line"],
    ["/", "Write", focus, unwritten],
    ["Alt+U", "Attach text files", attach],
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
    ["Alt+End", "To the end", toEnd],
  ],
  Page: [
    ["Alt+M", "Models", click("model")],
    ["Mod+,", "Settings", openSettings],
    ["Mod+/", "These keys, everywhere", openKeys],
    ["?", "These keys, outside of texts", openKeys, unwritten],
  ],
};
const bound = new Map(Object.values(KEYS).flat().filter(([, , act]) => act).map((entry) => [entry[0], entry]));

// As it stands in the list. Letters are told by their place where Alt, or another alphabet, makes something else of them.
function keyOf({ key, code, shiftKey, altKey, ctrlKey, metaKey }) {
  const letter = code.startsWith("Key") && !/^[a-z]$/i.test(key) ? code.slice(3) : key;
  const name = letter.length === 1 ? letter.toUpperCase() : letter;
  const shifts = shiftKey && (name.length > 1 || /[A-Z]/.test(name));
  const held = [(isMac ? metaKey : ctrlKey) && "Mod", altKey && "Alt", shifts && "Shift", name];
  return (isMac ? ctrlKey : metaKey) ? null : held.filter(Boolean).join("+");
}

function openKeys() {
  if (!$("keys-list").children.length) $("keys-list").append(...Object.entries(KEYS).flatMap(table));
  $("keys").showModal();
}

function table([name, keys]) {
  const element = (tag, textContent, ...inside) => made(tag, { textContent }, ...inside);
  const spelled = (key) => key.split("+").map((part) => element("kbd", (isMac && SIGNS[part]) || WORDS[part] || part));
  const rows = keys.map(([key, text]) => element("div", "", element("dt", text), element("dd", "", ...spelled(key))));
  return [element("h3", name), element("dl", "", ...rows)];
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (event.getModifierState("AltGraph")) return;
  const [, , act, when = () => true] = bound.get(keyOf(event)) ?? [];
  if (!act || !when(event)) return;
  event.preventDefault();
  act(event);
});
$("open-keys").addEventListener("click", openKeys);
