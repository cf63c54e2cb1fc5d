// The chat: a list of messages, at most one answer in progress, and the page that shows them.
import { answer, kept, modelState, sentence, setKey } from "./api.js";
import { chosen, lookForModels, openModels, say, showModel, size } from "./models.js";
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

function ask(text) {
  say("");
  messages.push({ role: "user", content: text });
  showQuestion(text);
  reply();
}

// The answer to the last question; `before` is an earlier one to the same, which the new one takes the place of.
async function reply(before = null) {
  const mine = (running = new AbortController());
  before?.node.remove();
  const turn = new Answer();
  show();
  try {
    const options = { early_stop: $("brief").checked, ...(chosen() && { model: chosen() }) };
    tellOfLoading(turn, mine.signal);
    for await (const chunk of answer(messages, options, mine.signal, before !== null)) {
      turn.add(chunk);
      if (turn.first) turn.facts.textContent = "";
    }
    turn.end();
    if (turn.known) turn.offer("Answer afresh", () => afresh(turn));
  } catch (error) {
    turn.facts.textContent = "";
    if (error.name === "AbortError") turn.end("stopped");
    else failed(turn, error);
  }
  if (running !== mine) return; // a new chat has begun meanwhile
  running = null;
  const said = turn.said || before?.said;
  if (!turn.said && before) turn.node.before(before.node); // an earlier answer is better than none
  if (said) messages.push({ role: "assistant", content: said });
  else messages.pop(); // an unanswered question would come twice when it is asked again
  show();
  showKept();
  $("question").focus();
}

function failed(turn, error) {
  turn.fail(sentence(error));
  if (error.status === 401) askForKey();
  if (error.code?.startsWith("model_")) turn.offer("Choose a model", showModels);
  if (error.code === "model_not_found") connect(); // the chosen one was deleted: back to the default
}

// The stream keeps quiet while the model is loaded, which may take a minute; so it is asked for.
async function tellOfLoading(turn, signal) {
  const name = chosen() ?? "default";
  const waits = () => turn.node.classList.contains("waiting") && !signal.aborted;
  for (let pause_ms = 300; ; pause_ms = 1000) {
    await new Promise((done) => setTimeout(done, pause_ms));
    if (!waits()) return;
    const state = await modelState(name).catch(() => "loaded"); // the answer itself will say what is wrong
    if (waits()) turn.facts.textContent = state === "loaded" ? "" : "loading the model …";
  }
}

function afresh(turn) {
  if (running) return;
  messages.pop();
  reply(turn);
}

async function showKept() {
  const facts = await kept().catch(() => null); // whatever is wrong, the chat itself will say so
  $("kept").textContent = facts?.entries ? `${facts.entries} kept · ${size(facts.bytes)}` : "";
  $("kept").title = "Answers that are given again at once when the same is asked";
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
  showModel("an API key is needed");
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

async function connect() {
  try {
    await lookForModels();
    document.title = "Linnet";
    showKept();
  } catch (error) {
    if (error.status === 401) return askForKey();
    showModel("the server cannot be reached");
  }
}

const showModels = () => openModels(askForKey);

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
  // In a dialog it closes that.
  if (event.key === "Escape" && !composing(event) && !document.querySelector("dialog[open]")) running?.abort();
});
$("brief").checked = localStorage.getItem("brief") === "yes";
$("brief").addEventListener("change", () => localStorage.setItem("brief", $("brief").checked ? "yes" : "no"));
$("stop").addEventListener("click", () => running?.abort());
$("new-chat").addEventListener("click", newChat);
$("model").addEventListener("click", showModels);
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
