// The page around the open chat: its address, its header, the first words, the API key.
import { sentence, signIn } from "./api.js";
import { ask, currentChat, GONE, isAnswering, isEmpty, newChat, on, openChat, stop, titled } from "./chat.js";
import { focus } from "./composer.js";
import { $, when } from "./dom.js";
import { lookForModels, openModels, say, showModel } from "./models.js";
import { onStatus, pollNow } from "./poll.js";
import { toComposer } from "./sidebar.js";

const HOVERS = matchMedia("(hover: hover)");
let usual; // the server's default model; null: the models could not be listed

function show() {
  const answering = isAnswering();
  const turned = answering !== $("send").hidden;
  const going = !answering ? "#stop" : HOVERS.matches ? "#send, #suggestions *, body" : "#send";
  const leaves = turned && document.activeElement.matches(going);
  $("send").hidden = answering;
  $("stop").hidden = !answering;
  if (leaves) focus(); // the button that had the focus is gone; where fingers type, that would bring up the keyboard
  $("welcome").hidden = !isEmpty();
  const { id, private: isPrivate } = currentChat();
  $("private").hidden = !isPrivate;
  const title = titled();
  document.title = title ? `${title} · Linnet` : "Linnet";
  if (id === address()) return;
  if (id && answering) history.replaceState(null, "", `#${id}`); // it has just been made
  else history.pushState(null, "", id ? `#${id}` : location.pathname);
}

const address = () => (location.hash.startsWith("#chat_") ? location.hash.slice(1) : null);

// The chat of the address, which back and forward change.
async function openAddressed() {
  try {
    await openChat(address());
  } catch (error) {
    if (error.status === 401) return askForKey();
    newChat();
    say(error.status === 404 ? GONE : sentence(error));
  }
}

function begin() {
  say("");
  newChat();
  toComposer();
}

function askForKey(error = "") {
  showModel("an API key is needed");
  $("key-error").textContent = error;
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

async function connect() {
  try {
    await lookForModels();
  } catch (error) {
    if (error.status === 401) return askForKey();
    usual = null;
    showModel("the server cannot be reached");
  }
}

on("change", show);
on("error", (error, is_told) => {
  if (error.status === 401) askForKey();
  else if (!is_told) say(sentence(error));
  if (error.code === "model_not_found") connect(); // the chosen one was deleted: back to the default
});
when("stop", "click", stop);
when("new-chat", "click", begin);
when("model", "click", () => openModels(askForKey));
when("suggestions", "click", ({ target }) => {
  if (target.matches("button")) ask(target.textContent);
});
when("key-dialog", "submit", async () => {
  const key = $("key").value.trim();
  $("key").value = "";
  try {
    await signIn(key);
  } catch (error) {
    return askForKey(error.status === 401 ? "That is not its key." : sentence(error));
  }
  connect();
  pollNow();
  if (address()) openAddressed(); // else what is here stays
});
onStatus(({ model }) => {
  if (usual !== undefined && model !== usual) connect();
  usual = model;
});
addEventListener("popstate", openAddressed);

connect();
openAddressed();
show();
