// How the chat is to be answered: what was chosen in the settings dialog, kept in this browser. null: as the server is set.
import { ask, sentence } from "./api.js";
import { $ } from "./dom.js";
import { chosen } from "./models.js";
import { onStatus, pollNow } from "./poll.js";
import { count, size } from "./words.js";

const KEPT = "settings"; // in localStorage: only what differs from these
const DEFAULTS = {
  preset: "none",
  system: "",
  temperature: null,
  max_tokens: 2048, // a small model that has not come to an end by then seldom does
  early_stop: null,
  reasoning_effort: null,
  seed: null,
  onContextFull: "stop",
  prefillWhileTyping: true,
};
const PRESETS = {
  none: "",
  short: "You are a helpful assistant. Answer in a few plain sentences.",
  code: "You are a careful programmer. Answer with working code in fenced blocks, then explain it in a few sentences.",
  translator: "Translate everything the user writes into English. Reply with the translation only.",
  tutor: "You are a patient tutor. Explain step by step in simple words, then ask one question to see what was understood.",
};
const WORDS = 0.75; // of English in a token
const listeners = [];
const ofSystem = [];
let settled = ""; // the system prompt that they were told last
let values = { ...DEFAULTS };
let own = {}; // presets of the user's, by name
let server = { temperature: 0, greedy_below: 0.3, early_stop: false }; // its defaults, as it told them last

// The fields of a chat request.
export function options() {
  const { temperature, max_tokens, early_stop, reasoning_effort, seed } = values;
  const all = { model: chosen(), temperature, max_tokens, early_stop, reasoning_effort, seed: isGreedy() ? null : seed };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
}

export const systemPrompt = () => values.system.trim();
// "prefillWhileTyping": true or false; "onContextFull": "stop" or "leave-out-oldest".
export const preference = (name) => values[name];
export const onChange = (callback) => listeners.push(callback);
// Called with the system prompt when another one was chosen here, not in another tab.
export const onSystem = (callback) => ofSystem.push(callback);

function settle() {
  if (settled === systemPrompt()) return;
  settled = systemPrompt();
  for (const callback of ofSystem) callback(settled);
}

// `text`: the system prompt of the open chat; null: it has none of its own.
export function showSystemOf(text) {
  const other = text !== null && text !== systemPrompt() && `The open chat has others: “${text || "none"}”. `;
  $("set-system-said").textContent = `${other || ""}The system prompt: what the model is told before each chat.`;
}

const temperature = () => values.temperature ?? server.temperature;
const isGreedy = () => temperature() < server.greedy_below;

export function openSettings() {
  if (!$("settings").open) $("settings").showModal();
  show();
  pollNow();
}

function read() {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(KEPT));
  } catch (error) {
    console.warn("The settings kept in this browser cannot be read.", error); // then they are as at the beginning
  }
  values = { ...DEFAULTS, ...kept?.values };
  own = kept?.own ?? {};
  settled = systemPrompt();
}

function change(fields) {
  Object.assign(values, fields);
  const changed = Object.entries(values).filter(([name, value]) => value !== DEFAULTS[name]);
  localStorage.setItem(KEPT, JSON.stringify({ values: Object.fromEntries(changed), own }));
  show();
  for (const listener of listeners) listener();
}

// What is just being written stays as it is.
function put(id, value) {
  if (document.activeElement !== $(id)) $(id).value = value;
}

function show() {
  showPresets();
  const greedy = isGreedy();
  put("set-temperature", temperature());
  put("set-temperature-number", temperature());
  const varied = greedy ? "" : "Answers vary, the more the higher it is. ";
  $("set-temperature-said").textContent = `${varied}Below ${server.greedy_below} is greedy: faster and repeatable.`;
  $("set-length").value = values.max_tokens ?? "";
  $("set-brief").checked = values.early_stop ?? server.early_stop;
  $("set-reasoning").value = values.reasoning_effort ?? "";
  put("set-seed", values.seed ?? "");
  $("set-seed").disabled = greedy;
  $("set-seed-said").textContent = greedy ? "Greedy answers need none." : "The same number gives the same answer again.";
  $("set-full").value = values.onContextFull;
  $("set-prefill").checked = values.prefillWhileTyping;
}

function showPresets() {
  const group = $("set-own");
  const names = Object.keys(own);
  if (names.join("\n") !== [...group.children].map(({ text }) => text).join("\n")) // else a list that is open would close
    group.replaceChildren(...names.map((name) => new Option(name, `own ${name}`)));
  group.hidden = !names.length;
  $("set-preset").value = values.preset;
  put("set-system", values.system);
  $("set-forget-preset").hidden = !values.preset.startsWith("own ");
}

function choosePreset(preset) {
  const text = preset.startsWith("own ") ? own[preset.slice(4)] : PRESETS[preset];
  change({ preset, system: text ?? values.system }); // "custom" is what stands there
  settle();
}

function savePreset() {
  const name = $("set-preset-name").value.trim();
  if (!name) return $("set-preset-name").focus();
  own[name] = values.system;
  $("set-preset-name").value = "";
  change({ preset: `own ${name}` });
  say(`Saved as “${name}”.`);
}

function forgetPreset() {
  delete own[values.preset.slice(4)];
  change({ preset: values.system ? "custom" : "none" });
  $("set-preset").focus();
}

async function forgetAnswers() {
  try {
    const { removed } = await ask("/cache", "DELETE");
    say(`${removed} ${removed === 1 ? "answer is" : "answers are"} forgotten.`);
  } catch (error) {
    say(sentence(error));
  }
  pollNow();
}

const say = (text) => ($("settings-said").textContent = text);

function showServer(status) {
  server = status.defaults;
  const { cache } = status;
  const mine = status.models.find(({ name }) => name === (chosen() ?? status.model));
  $("set-model").textContent = chosen() ?? status.model;
  $("set-context").textContent = mine?.context
    ? `This model takes ${count(mine.context)} tokens, about ${count(Math.round(mine.context * WORDS))} words.`
    : "How long a chat may be depends on the model.";
  $("set-kept").textContent = cache
    ? `${cache.entries} kept · ${size(cache.bytes)}. The same question is answered at once, and costs nothing.`
    : "This server keeps no answers.";
  $("set-forget").disabled = !cache?.entries;
  if ($("settings").open) show();
}

function wire() {
  const number = (text) => (text === "" || !Number.isFinite(Number(text)) ? null : Number(text));
  const within = ({ min, max }, n) => (n === null ? null : Math.min(Number(max), Math.max(Number(min), n)));
  const on = (id, event, act) => $(id).addEventListener(event, act);
  const settles = (id, act) => on(id, "input", ({ target }) => change(act(target)));
  settles("set-temperature", ({ value }) => ({ temperature: Number(value) }));
  settles("set-temperature-number", (input) => ({ temperature: within(input, number(input.value)) }));
  settles("set-length", ({ value }) => ({ max_tokens: number(value) }));
  settles("set-brief", ({ checked }) => ({ early_stop: checked }));
  settles("set-reasoning", ({ value }) => ({ reasoning_effort: value || null }));
  settles("set-seed", (input) => ({ seed: within(input, number(input.value) && Math.round(number(input.value))) }));
  settles("set-full", ({ value }) => ({ onContextFull: value }));
  settles("set-prefill", ({ checked }) => ({ prefillWhileTyping: checked }));
  settles("set-system", ({ value }) => ({ preset: value ? "custom" : "none", system: value }));
  on("set-system", "change", settle); // not with every letter
  on("settings", "focusout", show); // what was written may have been too much
  on("set-preset", "input", ({ target }) => choosePreset(target.value));
  on("set-save-preset", "click", savePreset);
  on("set-preset-name", "keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // else it closes the dialog
    savePreset();
  });
  on("set-forget-preset", "click", forgetPreset);
  on("set-forget", "click", forgetAnswers);
  on("set-restore", "click", () => {
    change({ ...DEFAULTS });
    settle();
    say("All is as at the beginning; your own presets are kept.");
  });
  on("set-model", "click", () => {
    $("settings").close();
    $("model").click();
  });
  on("settings", "close", () => say(""));
  on("open-settings", "click", openSettings);
  addEventListener("storage", ({ key }) => {
    if (key !== KEPT) return; // of another tab
    read();
    show();
    for (const listener of listeners) listener();
  });
}

read();
if (localStorage.getItem("brief") === "yes" && values.early_stop === null) values.early_stop = true; // as it was once kept
wire();
show();
onStatus(showServer);
