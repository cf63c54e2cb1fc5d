// The chats that the server keeps: a list to search, and what can be done with each of them and with all.
import { sentence } from "./api.js";
import { currentChat, isAnswering, newChat, on, titled } from "./chat.js";
import { focus } from "./composer.js";
import { $, button, composing, element, made, place, when } from "./dom.js";
import * as kept from "./history.js";
import { say } from "./models.js";
import { onStatus, pollNow } from "./poll.js";
import { importFiles } from "./transfer.js";

const list = $("chat-list");
const menu = $("chat-menu");
const wanted = $("search");
const { classList } = document.body;
const narrow = matchMedia("(max-width: 52rem)"); // there the chats are a drawer
const PAUSE_MS = 150; // in the typing, before it is searched for
const TOAST_MS = 10000;
const DAY_MS = 86400000;
const sections = new Map(); // the heading and the list of each group
let chats = []; // as the server listed them last
let version = null;
let open = null; // the id of the open chat
let rows = new Map(); // by the chat's id: {key, node}, drawn anew when the key is another
let busy = false; // somebody is in the middle of something in the list: it stays
let chosen = null; // the id of the chat that the menu is about
let deleted = []; // what can come back: {id, open}
let timer = null;
let toast = null;

const links = () => [...list.querySelectorAll("a")];
const linkOf = (id) => rows.get(id)?.node.querySelector("a");
const chatOf = (id) => chats.find((chat) => chat.id === id);
const isOpen = ({ id }) => id === currentChat().id;
const nameOf = (chat) => chat.title || (isOpen(chat) && titled()) || chat.first.trim().split("\n", 1)[0] || "New chat";
const query = () => wanted.value.trim();
const isOver = () => narrow.matches && classList.contains("with-chats");

async function refresh() {
  const asked = query();
  try {
    const told = await kept.list(asked);
    if (asked !== query()) return; // the next one is under way
    ({ chats, version } = told);
    draw();
  } catch (error) {
    if (error.code === "chats_not_kept") $("chats").replaceChildren();
    else if (error.status !== 401) $("chats-said").textContent = sentence(error); // the page asks for the key
  }
}

function groupOf({ pinned, changed }) {
  if (query()) return "Found";
  const days = (new Date().setHours(0, 0, 0, 0) - changed * 1000) / DAY_MS;
  return pinned ? "Pinned" : days <= 0 ? "Today" : days <= 1 ? "Yesterday" : "Earlier";
}

function draw() {
  if (version === null || busy) return;
  const focused = document.activeElement.closest("#chat-list li");
  const at = links().indexOf(focused?.firstChild);
  rows = new Map(chats.map((chat) => [chat.id, row(chat)]));
  const groups = Object.entries(Object.groupBy(chats, groupOf));
  const none = query() ? "Nothing was found." : "No chats yet.";
  place(list, groups.length ? groups.flatMap(section) : [element("p", "", none)]);
  const here = document.activeElement.closest("#chat-list li");
  rove(here?.querySelector("a") ?? linkOf(currentChat().id) ?? links()[0]);
  if (focused && !here) (linkOf(focused.dataset.id) ?? links()[at] ?? links().at(-1) ?? wanted).focus();
}

function section([name, found]) {
  if (!sections.has(name)) sections.set(name, [element("h2", "", name), made("ul", { ariaLabel: name })]);
  place(sections.get(name)[1], found.map(({ id }) => rows.get(id).node));
  return sections.get(name);
}

function row(chat) {
  const { id, snippet } = chat;
  const name = nameOf(chat);
  const shown = isOpen(chat);
  const runs = shown ? isAnswering() : chat.running;
  const key = JSON.stringify([name, shown, runs, snippet]);
  if (rows.get(id)?.key === key) return rows.get(id);
  const link = made("a", { href: `#${id}`, title: name, ariaCurrent: shown ? "page" : null, tabIndex: -1 },
    runs && made("span", { className: "runs", role: "img", ariaLabel: "Being answered:" }),
    element("span", "name", name),
    snippet && element("span", "snippet", snippet));
  const more = button("⋯", openMenu, { ariaHasPopup: "menu", ariaLabel: `${name}: more`, tabIndex: -1 });
  const node = made("li", { className: shown ? "open" : "" }, link, more);
  node.dataset.id = id;
  return { key, node };
}

// One stop for Tab in the whole list; the arrows go from chat to chat.
function rove(link) {
  for (const node of list.querySelectorAll("[tabindex='0']")) node.tabIndex = -1;
  for (const node of link?.parentNode.children ?? []) node.tabIndex = 0;
}

function step(event) {
  if (event.key === "Escape" && event.currentTarget === menu) event.stopPropagation(); // else it stops an answer
  const all = event.currentTarget === menu ? [...menu.children] : links();
  const at = all.indexOf(event.target.closest("li")?.firstChild ?? event.target);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || event.target.matches("input")) return;
  event.preventDefault();
  (to < 0 && event.currentTarget === list ? wanted : all[Math.min(Math.max(to, 0), all.length - 1)]).focus();
}

function openMenu({ currentTarget }) {
  chosen = currentTarget.parentNode.dataset.id;
  busy = true;
  menu.querySelector("[data-act=pin]").textContent = chatOf(chosen).pinned ? "Unpin" : "Pin";
  menu.showPopover();
  const { right, bottom } = currentTarget.getBoundingClientRect();
  menu.style.left = `${Math.max(8, right - menu.offsetWidth)}px`;
  menu.style.top = `${Math.min(bottom, innerHeight - menu.offsetHeight - 8)}px`;
  menu.firstElementChild.focus();
}

const save = (as) => (id) => made("a", { href: `/api/chats/${id}/export?as=${as}`, download: "" }).click();

// What can be done with a chat, by its id; each throws ApiError.
const acts = {
  rename,
  pin: (id) => kept.change(id, { pinned: !chatOf(id)?.pinned }),
  markdown: save("markdown"),
  json: save("json"),
  async remove(id) {
    await kept.remove(id);
    if ($("toast").hidden) deleted = [];
    deleted.push({ id, open: isOpen({ id }) });
    offerUndo();
    if (isOpen({ id })) leave();
  },
};

function offerUndo() {
  $("toast-text").textContent = deleted.length > 1 ? `${deleted.length} chats deleted.` : "Deleted.";
  $("toast").hidden = !deleted.length;
  clearTimeout(toast);
  toast = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}

// Does one of them with a chat of the list, or else the open one.
async function act(what, id = currentChat().id) {
  menu.hidePopover();
  if (!id) return say("This chat is not stored.");
  await Promise.resolve(acts[what](id)).catch((error) => say(sentence(error)));
  await refresh();
  pollNow(); // the other parts of the page
}

export const ofChat = (what) => ({ target }) =>
  act(what, menu.contains(target) ? chosen : target.closest("#chat-list li")?.dataset.id);

async function rename(id) {
  toggleChats(true);
  const link = linkOf(id);
  if (!link) return; // something else is searched for
  const box = made("input", { value: nameOf(chatOf(id)), maxLength: 200, ariaLabel: "Title of the chat" });
  busy = link.hidden = true;
  link.before(box);
  box.select();
  when(box, "keydown", (event) => {
    if (composing(event) || !["Escape", "Enter"].includes(event.key)) return;
    event.stopPropagation();
    if (event.key === "Escape") box.value = "";
    link.hidden = false;
    link.focus(); // which ends it
  });
  await new Promise((done) => when(box, "blur", done));
  const title = box.value.trim();
  busy = link.hidden = false;
  box.remove();
  if (title && title !== nameOf(chatOf(id))) await kept.change(id, { title });
}

function leave(isPrivate = false) {
  if (location.hash) history.pushState(null, "", location.pathname);
  newChat({ private: isPrivate });
}

export function newPrivate() {
  leave(true);
  toComposer();
}

// The drawer lies over the composer.
export function toComposer() {
  close();
  focus();
}

async function undo() {
  const all = deleted.splice(0);
  for (const chat of all) {
    try {
      await kept.restore(chat.id);
      if (chat.open) location.hash = chat.id;
    } catch (error) {
      say(sentence(error));
      if (error.status !== 404) deleted.push(chat);
    }
  }
  offerUndo();
  await refresh();
  linkOf(all.at(-1)?.id)?.focus();
}

// Beside the chat where there is room, above it where there is not: then the rest waits.
function toggleChats(open = !list.checkVisibility()) {
  if (!list.isConnected || open === list.checkVisibility()) return;
  if (narrow.matches) classList.toggle("with-chats", open);
  else classList.toggle("without-chats", !open);
  showDrawer();
  (open ? (linkOf(currentChat().id) ?? wanted) : $("open-chats")).focus();
}

const close = () => isOver() && toggleChats(false);

function showDrawer() {
  for (const node of document.querySelectorAll("body > :is(header, main, form, footer)")) node.inert = isOver();
  $("open-chats").ariaExpanded = String(list.checkVisibility());
}

export function search() {
  toggleChats(true);
  wanted.select();
}

async function take(files) {
  const tell = (n) => ($("chats-said").textContent = `${n} ${n === 1 ? "chat has" : "chats have"} come.`);
  $("chats-said").textContent = "Reading …";
  const { n, failed } = await importFiles(files, tell);
  tell(n);
  for (const { name, message } of failed) {
    $("chats-said").append(element("span", "error", `${name}: ${message}`));
  }
  refresh();
}

function wire() {
  when("open-chats", "click", () => toggleChats());
  when("new-private", "click", newPrivate);
  when("undo", "click", undo);
  when("import", "click", () => $("import-files").click());
  when(wanted, "input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE_MS);
  });
  when(wanted, "keydown", (event) => {
    if (event.key !== "ArrowDown" || composing(event)) return;
    event.preventDefault();
    links()[0]?.focus();
  });
  when(list, "keydown", step);
  when(list, "focusin", ({ target }) => target.matches("a") && rove(target));
  when(list, "click", ({ target }) => target.closest("a") && close());
  when(menu, "keydown", step);
  when(menu, "click", ({ target }) => target.dataset.act && act(target.dataset.act, chosen));
  when(menu, "toggle", ({ newState }) => {
    if (newState === "open") return;
    busy = Boolean(list.querySelector("input"));
    draw();
  });
  when("import-files", "change", ({ target }) => {
    take([...target.files]);
    target.value = "";
  });
  when("chats", "drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // they are no attachments
    classList.remove("dropping");
    take([...event.dataTransfer.files]);
  });
  when(document, "click", ({ target }) => target === document.body && close()); // beside the drawer
  when(document, "keydown", (event) => {
    if (event.key !== "Escape" || busy || !isOver() || document.querySelector("dialog[open]")) return;
    event.stopPropagation();
    close();
  }, { capture: true });
  when(narrow, "change", showDrawer);
}

wire();
on("change", () => {
  draw();
  if (isOpen({ id: open })) return;
  open = currentChat().id;
  refresh();
});
onStatus((status) => status.chats !== version && refresh());
showDrawer();
refresh();
