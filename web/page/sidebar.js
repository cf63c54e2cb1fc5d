// The chats that the server keeps: a list to search, and what can be done with each of them and with all.
import { sentence } from "./api.js";
import { currentChat, isAnswering, newChat, on, titled } from "./chat.js";
import { focus } from "./composer.js";
import { $, made } from "./dom.js";
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
let chats = []; // as the server listed them last
let version = null;
let open = null; // the id of the open chat
let drawn = ""; // what the list shows
let busy = false; // somebody is in the middle of something in the list: it stays
let chosen = null; // the id of the chat that the menu is about
let deleted = []; // what can come back: {id, open}
let timer = null;
let toast = null;

const links = () => [...list.querySelectorAll("a")];
const linkOf = (id) => links().find(({ dataset }) => dataset.id === id);
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
  const rows = chats.map((chat) => ({
    ...chat,
    name: nameOf(chat),
    group: groupOf(chat),
    shown: isOpen(chat),
    runs: isOpen(chat) ? isAnswering() : chat.running,
  }));
  const shown = JSON.stringify([rows, query()]);
  if (shown === drawn) return;
  drawn = shown;
  const focused = list.contains(document.activeElement) && document.activeElement.closest("li");
  const place = focused && [...list.querySelectorAll("li")].indexOf(focused);
  list.replaceChildren(...Object.entries(Object.groupBy(rows, ({ group }) => group)).flatMap(section));
  if (!rows.length) list.append(made("p", { textContent: query() ? "Nothing was found." : "No chats yet." }));
  rove(linkOf(currentChat().id) ?? links()[0]);
  if (focused) (linkOf(focused.dataset.id) ?? links()[place] ?? links().at(-1) ?? wanted).focus();
}

const section = ([textContent, rows]) => [
  made("h2", { textContent }),
  made("ul", { ariaLabel: textContent }, ...rows.map(row)),
];

function row({ id, name, snippet, runs, shown }) {
  const link = made("a", { href: `#${id}`, title: name, ariaCurrent: shown ? "page" : null },
    runs && made("span", { className: "runs", role: "img", ariaLabel: "Being answered:" }),
    made("span", { className: "name", textContent: name }),
    snippet && made("span", { className: "snippet", textContent: snippet }));
  const more = { type: "button", className: "quiet", textContent: "⋯", ariaHasPopup: "menu", ariaLabel: `${name}: more` };
  const node = made("li", { className: shown ? "open" : "" }, link, made("button", more));
  node.dataset.id = link.dataset.id = id;
  return node;
}

// One stop for Tab in the whole list; the arrows go from chat to chat.
function rove(link) {
  for (const node of list.querySelectorAll("li > *")) node.tabIndex = node.parentNode === link?.parentNode ? 0 : -1;
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

function openMenu(button) {
  chosen = button.parentNode.dataset.id;
  busy = true;
  menu.querySelector("[data-act=pin]").textContent = chatOf(chosen).pinned ? "Unpin" : "Pin";
  menu.showPopover();
  const { right, bottom } = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, right - menu.offsetWidth)}px`;
  menu.style.top = `${Math.min(bottom, innerHeight - menu.offsetHeight - 8)}px`;
  menu.firstElementChild.focus();
}

const download = (href) => made("a", { href, download: "" }).click();
const save = (as) => (id) => download(`/api/chats/${id}/export?as=${as}`);

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
    $("toast-text").textContent = deleted.length > 1 ? `${deleted.length} chats deleted.` : "Deleted.";
    $("toast").hidden = false;
    clearTimeout(toast);
    toast = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
    if (isOpen({ id })) leave();
  },
};

// Does one of them with a chat of the list, or else the open one.
export async function act(what, id = currentChat().id) {
  if (!id) return say("This chat is not stored.");
  await Promise.resolve(acts[what](id)).catch((error) => say(sentence(error)));
  await refresh();
  pollNow(); // the other parts of the page
}

export const idOf = ({ target }) => target.closest("#chat-list li")?.dataset.id;
export const exportAll = () => $("export-all").click();
export const chooseImport = () => $("import-files").click();

async function rename(id) {
  toggleChats(true);
  const link = linkOf(id);
  if (!link) return; // something else is searched for
  const box = made("input", { value: nameOf(chatOf(id)), maxLength: 200, ariaLabel: "Title of the chat" });
  busy = link.hidden = true;
  link.before(box);
  box.select();
  box.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Escape", "Enter"].includes(event.key)) return;
    event.stopPropagation();
    if (event.key === "Escape") box.value = "";
    link.hidden = false;
    link.focus(); // which ends it
  });
  await new Promise((done) => box.addEventListener("blur", done));
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
  close();
  focus();
}

export async function undo() {
  const all = deleted.splice(0);
  $("toast").hidden = true;
  try {
    for (const { id, open } of all) {
      await kept.restore(id);
      if (open) location.hash = id;
    }
  } catch (error) {
    say(sentence(error));
  }
  await refresh();
  linkOf(all.at(-1)?.id)?.focus();
}

// Beside the chat where there is room, above it where there is not: then the rest waits.
export function toggleChats(open = !list.checkVisibility()) {
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
    $("chats-said").append(made("span", { className: "error", textContent: `${name}: ${message}` }));
  }
  refresh();
}

function wire() {
  const when = (id, event, callback) => $(id).addEventListener(event, callback);
  when("open-chats", "click", () => toggleChats());
  when("new-private", "click", newPrivate);
  when("undo", "click", undo);
  when("import", "click", chooseImport);
  wanted.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE_MS);
  });
  wanted.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    links()[0]?.focus();
  });
  list.addEventListener("keydown", step);
  list.addEventListener("focusin", ({ target }) => target.matches("a") && rove(target));
  list.addEventListener("click", ({ target }) => {
    if (target.matches("button")) openMenu(target);
    else if (target.closest("a")) close();
  });
  menu.addEventListener("keydown", step);
  menu.addEventListener("click", ({ target }) => {
    menu.hidePopover();
    if (target.dataset.act) act(target.dataset.act, chosen);
  });
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState === "open") return;
    busy = Boolean(list.querySelector("input"));
    draw();
  });
  when("import-files", "change", async ({ target }) => {
    await take([...target.files]);
    target.value = "";
  });
  when("chats", "drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // they are no attachments
    classList.remove("dropping");
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("click", ({ target }) => target === document.body && close()); // beside the drawer
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || busy || !isOver()) return;
    event.stopPropagation();
    close();
  }, { capture: true });
  narrow.addEventListener("change", showDrawer);
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
