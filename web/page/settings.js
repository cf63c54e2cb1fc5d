// How the chat is to be answered: what was chosen in the settings dialog, kept in this browser. null: as the server is set.
import { ask, sentence } from "./api.js";
import { $, composing, when, write } from "./dom.js";
import { changeOver, chosen } from "./models.js";
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
const LEAST_CONTEXT = 1024; // tokens
const nameOf = ({ id, name }) => name || id; // of its value: the temperature has two controls
const controls = [...$("settings").querySelectorAll("*")].filter((node) => nameOf(node) in DEFAULTS);
const listeners = [];
const ofSystem = [];
let settled = ""; // the system prompt that they were told last
let values = { ...DEFAULTS };
let resizing = false;
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
  write($("set-system-said"), `${other || ""}The system prompt: what the model is told before each chat.`);
}

const isGreedy = () => (values.temperature ?? server.temperature) < server.greedy_below;

function openSettings() {
  $("settings").showModal();
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
  tell();
}

function tell() {
  show();
  for (const listener of listeners) listener();
}

// What a control says; null: nothing.
function said({ type, value, checked, min, max, step }) {
  if (type === "checkbox") return checked;
  if (value === "" || isNaN(value)) return value || null;
  const n = step ? Number(value) : Math.round(value);
  return type === "number" ? Math.min(max, Math.max(min, n)) : n;
}

function show() {
  showPresets();
  for (const control of controls) {
    const value = values[nameOf(control)] ?? server[nameOf(control)] ?? "";
    if (control.type === "checkbox") control.checked = value;
    else if (control !== document.activeElement || control.matches("select")) control.value = value; // not yet being written
  }
  const greedy = isGreedy();
  const varied = greedy ? "" : "Answers vary, the more the higher it is. ";
  write($("temperature-said"), `${varied}Below ${server.greedy_below} is greedy: faster and repeatable.`);
  $("seed").disabled = greedy;
  write($("seed-said"), greedy ? "Greedy answers need none." : "The same number gives the same answer again.");
}

function showPresets() {
  const group = $("own-presets");
  const names = Object.keys(own);
  if (names.join("\n") !== [...group.children].map(({ text }) => text).join("\n")) // else a list that is open would close
    group.replaceChildren(...names.map((name) => new Option(name, `own ${name}`)));
  group.hidden = !names.length;
  $("forget-preset").hidden = !values.preset.startsWith("own ");
}

function choosePreset(preset) {
  const text = preset.startsWith("own ") ? own[preset.slice(4)] : PRESETS[preset];
  change({ preset, system: text ?? values.system }); // "custom" is what stands there
  settle();
}

function savePreset() {
  const name = $("preset-name").value.trim();
  if (!name) return $("preset-name").focus();
  own[name] = values.system;
  $("preset-name").value = "";
  change({ preset: `own ${name}` });
  say(`Saved as “${name}”.`);
}

function forgetPreset() {
  delete own[values.preset.slice(4)];
  change({ preset: values.system ? "custom" : "none" });
  $("preset").focus();
}

async function forgetAnswers() {
  const { removed } = await ask("/cache", "DELETE");
  say(`${removed} ${removed === 1 ? "answer is" : "answers are"} forgotten.`);
  pollNow();
}

async function signOut() {
  await ask("/api/session", "DELETE");
  location.reload(); // which asks for the key
}

const say = (text) => ($("settings-said").textContent = text);
const trying = (act) => () => act().catch((error) => say(sentence(error)));

function showServer(status) {
  server = status.defaults;
  const { cache } = status;
  const name = chosen() ?? status.model;
  showContext(status.models.find((model) => model.name === name) ?? {});
  write($("set-model"), name);
  write($("set-kept"), cache
    ? `${cache.entries} kept · ${size(cache.bytes)}. The same question is answered at once, and costs nothing.`
    : "This server keeps no answers.");
  $("forget").disabled = !cache?.entries;
  $("sign-out").hidden = !status.needs_key;
  if ($("settings").open) show();
}

// Doublings of the least context, the model's own, and what it was trained for; none while it is not loaded.
function showContext({ context, trained_context: most }) {
  const doublings = Array.from({ length: 8 }, (_, i) => LEAST_CONTEXT << i).filter((n) => n < most);
  const sizes = context ? [...new Set([...doublings, context, most])].sort((a, b) => a - b) : [];
  $("resize").disabled = !context;
  if ($("context").dataset.shown === `${sizes} ${context}`) return; // what was chosen stays until it is loaded
  $("context").dataset.shown = `${sizes} ${context}`;
  const words = (n) => `${count(n)} tokens, about ${count(Math.round((n * WORDS) / 100) * 100)} words`;
  $("context").replaceChildren(...sizes.map((n) => new Option(words(n), n, false, n === context)));
}

async function resize() {
  const ctx = Number($("context").value);
  if (!ctx || resizing) return;
  resizing = true;
  say("Loading the model …");
  say((await changeOver($("set-model").textContent, ctx)) ? "The model is loaded." : "");
  resizing = false;
}

when("settings", "input", ({ target }) => {
  const name = nameOf(target);
  if (name === "preset") choosePreset(target.value);
  else if (name === "system") change({ preset: target.value ? "custom" : "none", system: target.value });
  else if (name in values) change({ [name]: said(target) });
});
when("system", "change", settle); // not with every letter
when("settings", "focusout", show); // what was written may have been too much
when("save-preset", "click", savePreset);
when("preset-name", "keydown", (event) => event.key === "Enter" && !composing(event) && savePreset());
when("forget-preset", "click", forgetPreset);
when("forget", "click", trying(forgetAnswers));
when("resize", "click", resize);
when("sign-out", "click", trying(signOut));
when("restore", "click", () => {
  change({ ...DEFAULTS });
  settle();
  say("All is as at the beginning; your own presets are kept.");
});
when("set-model", "click", () => {
  $("settings").close();
  $("model").click();
});
when("settings", "close", () => say(""));
when("open-settings", "click", openSettings);
when(window, "storage", ({ key }) => {
  if (key !== KEPT) return; // of another tab
  read();
  tell();
});

read();
show();
onStatus(showServer);
