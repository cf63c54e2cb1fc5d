// The line at the foot of the page: the model, how full its context is, what the server keeps, and how busy it is.
import { $, made, write } from "./dom.js";
import { chosen } from "./models.js";
import { onFailure, onStatus, pollNow } from "./poll.js";
import { count, pace, percent, size } from "./words.js";

const FULL = 0.9; // of the context: soon the chat does not fit any more
const SOON_MS = 500;
let soon = null;
let last = null; // as the server told it
let used = null; // tokens of the context that the chat fills

// How many tokens of the context the chat fills; null: that is not known.
export function setUsed(n_tokens) {
  used = n_tokens;
  if (last) show(last);
  if (last?.slots.busy) return; // then the next look is due soon
  clearTimeout(soon);
  soon = setTimeout(pollNow, SOON_MS); // an answer may have begun
}

// [its class, what it says, what that means]
function* facts({ model, models, slots, queue, cache, tokens_per_s: rate }) {
  const name = chosen() ?? model;
  const context = models.find((other) => other.name === name)?.context;
  yield ["name", name, "The model that answers"];
  if (used !== null && context) {
    const words = `${count(used)} of ${count(context)} tokens`;
    const title = `The chat fills ${percent(used / context)} of the model's context`;
    yield [used / context >= FULL ? "full" : "", words, title];
  }
  if (cache) {
    const title = `${count(cache.hits)} answers came from memory so far; those kept take ${size(cache.bytes)}`;
    yield ["kept", `${count(cache.entries)} kept`, title];
  }
  const waiting = queue.waiting ? `, ${queue.waiting} waiting` : "";
  const load = slots.busy || waiting ? `${slots.busy} of ${slots.n} busy${waiting}` : "idle";
  yield ["", load, "Answers that are made just now, of those that can be at once"];
  if (rate.now) yield ["", pace(rate.now), "All answers together"];
}

function show(status) {
  const all = [...facts(status)].map(([className, text, title], i, { length }) =>
    made("span", { className, title }, text, i < length - 1 && " · "),
  );
  $("status-facts").replaceChildren(...all);
}

onStatus((status) => {
  last = status;
  $("status-line").classList.remove("away");
  show(status);
});
onFailure((error, n_times) => {
  if (error.status === 401) return write($("status-facts"), "An API key is needed.");
  if (n_times < 2) return; // it may have been a moment
  $("status-line").classList.add("away");
  write($("status-facts"), "The server cannot be reached; it is tried again and again.");
});
pollNow();
