// The chat: a list of messages, at most one answer in progress, and the page that shows them.
import { answer, ApiError, modelName, setKey } from "./api.js";
import { Answer, showQuestion } from "./turns.js";

const $ = (id) => document.getElementById(id);
let messages = []; // the conversation as it is sent to the server
let running = null; // AbortController of the answer in progress

function show() {
  $("welcome").hidden = messages.length > 0 || running !== null;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("send").disabled = !$("question").value.trim();
  $("question").style.height = "auto";
  $("question").style.height = `${$("question").scrollHeight + 2}px`;
}

async function ask(text) {
  const mine = (running = new AbortController());
  messages.push({ role: "user", content: text });
  showQuestion(text);
  const turn = new Answer();
  show();
  try {
    for await (const chunk of answer(messages, { early_stop: $("brief").checked }, mine.signal)) turn.add(chunk);
    turn.end();
  } catch (error) {
    if (error.name === "AbortError") turn.end("stopped");
    else if (error.status === 401) {
      turn.fail(error.message);
      askForKey();
    } else turn.fail(error instanceof ApiError ? error.message : "The server cannot be reached.");
  }
  if (running !== mine) return; // a new chat has begun meanwhile
  running = null;
  if (turn.said) messages.push({ role: "assistant", content: turn.said });
  else messages.pop(); // an unanswered question would come twice when it is asked again
  show();
  $("question").focus();
}

function newChat() {
  running?.abort();
  running = null;
  messages = [];
  $("turns").replaceChildren();
  show();
  $("question").focus();
}

function askForKey() {
  $("model").textContent = "an API key is needed";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

async function connect() {
  try {
    $("model").textContent = await modelName();
    document.title = "Linnet";
  } catch (error) {
    if (error.status === 401) return askForKey();
    $("model").textContent = "the server cannot be reached";
  }
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text || running) return;
  $("question").value = "";
  ask(text);
});
$("question").addEventListener("input", show);
// Enter that ends the composition of a Chinese or Japanese word must not send; Safari tells it only by the old code.
const composing = (event) => event.isComposing || event.keyCode === 229;

$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !composing(event)) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !composing(event)) running?.abort();
});
$("brief").checked = localStorage.getItem("brief") === "yes";
$("brief").addEventListener("change", () => localStorage.setItem("brief", $("brief").checked ? "yes" : "no"));
$("stop").addEventListener("click", () => running?.abort());
$("new-chat").addEventListener("click", newChat);
$("suggestions").addEventListener("click", ({ target }) => {
  if (target.matches("button") && !running) ask(target.textContent);
});
$("key-dialog").addEventListener("close", () => {
  const key = $("key").value.trim();
  if (!key) return; // dismissed; the next question brings it back
  setKey(key);
  connect();
});

show();
connect();
