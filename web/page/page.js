// The page around the open chat: its address, its header, the first words, the API key.
import { sentence, signIn } from "./api.js";
import { ask, currentChat, GONE, isAnswering, isEmpty, newChat, on, openChat, stop, titled } from "./chat.js";
import { focus } from "./composer.js";
import { $, when } from "./dom.js";
import { lookForModels, openModels, say, showModel } from "./models.js";
import { pollNow } from "./poll.js";
import { toComposer } from "./sidebar.js";

const HOVERS = matchMedia("(hover: hover)");

function show() {
  const answering = isAnswering();
  const turned = answering !== $("send").hidden;
  const { activeElement: focused, body } = document;
  const leaves = turned && (focused === $(answering ? "send" : "stop") || (answering && focused === body && HOVERS.matches));
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
    showModel("the server cannot be reached");
  }
}

const showModels = () => openModels(askForKey);

on("change", show);
on("error", (error, is_told) => {
  if (error.status === 401) askForKey();
  else if (error.code === "model_wanted") showModels();
  else if (!is_told) say(sentence(error));
  if (error.code === "model_not_found") connect(); // the chosen one was deleted: back to the default
});
when("stop", "click", stop);
when("new-chat", "click", begin);
when("model", "click", showModels);
when("suggestions", "click", ({ target }) => {
  if (target.matches("button") && !isAnswering()) ask(target.textContent);
});
when("key-dialog", "close", async () => {
  const key = $("key").value.trim();
  $("key").value = "";
  if (!key) return; // dismissed; the next question brings it back
  try {
    await signIn(key);
  } catch (error) {
    return askForKey(error.status === 401 ? "That is not its key." : sentence(error));
  }
  connect();
  pollNow();
  openAddressed();
});
addEventListener("popstate", openAddressed);

connect();
openAddressed();
show();
