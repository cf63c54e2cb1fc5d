// Where questions are written: the text, the files that go with it, and the reading ahead of both while somebody types.
import { withFiles } from "./answering.js";
import { ask as request, call } from "./api.js";
import { ask, conversation, currentChat, isAnswering, loaded, on } from "./chat.js";
import { $, button, composing, element, made, when } from "./dom.js";
import { chosen } from "./models.js";
import { onStatus } from "./poll.js";
import { onChange, preference } from "./settings.js";
import { count, size } from "./words.js";

const box = $("question");
const FILE_BYTES = 1e6;
const LONG_PASTE = 2000; // characters: such a text becomes a file
const PAUSE_MS = 300; // in the typing, before the draft is read ahead
const SHORT = 20; // characters that are not worth it
let files = []; // {name, text, pasted?, row?, amount?}
let place = null; // of the draft in sessionStorage
let shown = null; // the number of the chat
let waits = false;
let counter = null; // the model that counted them
let ahead = null; // the reading that is under way
let timer = null;

export const focus = () => box.focus();

function changed() {
  $("send").disabled = !box.value.trim() && !files.length;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
  keep("text", box.value);
  readAhead();
}

function keep(what, value) {
  if (place === null || place === "private") return;
  try {
    if (value) sessionStorage.setItem(`${what} ${place}`, value);
    else sessionStorage.removeItem(`${what} ${place}`);
  } catch (error) {
    console.warn("The draft is too long to outlive a reload.", error);
  }
}

// While the chat answers, or is still loading.
const isBusy = () => isAnswering() || Boolean(loaded());

// Each chat has its own draft.
function show() {
  if (waits !== isBusy()) {
    waits = !waits;
    readAhead(); // what was written meanwhile; or not
  }
  const { n, id, private: isPrivate } = currentChat();
  const next = isPrivate ? "private" : (id ?? "new");
  const first = place === null;
  const same = first ? box.value : n === shown; // it has got its name, or lost it
  shown = n;
  if (next === place) return;
  if (same) ["text", "files"].forEach((what) => keep(what, ""));
  place = next;
  const kept = (what) => sessionStorage.getItem(`${what} ${place}`);
  if (!same) box.value = kept("text") ?? "";
  setFiles(same && !first ? files : JSON.parse(kept("files") ?? "[]"));
}

// What could not be sent is a draft again.
function takeBack(questions) {
  box.value = [...questions.map(({ content }) => content), box.value].filter(Boolean).join("\n\n");
  setFiles([...questions.flatMap((question) => question.files), ...files]);
}

// Asks the engine to read the draft as it would be sent, when it has nothing else to do. What has been read stays known, so
// nothing is lost where it is ended before.
function readAhead() {
  clearTimeout(timer);
  ahead?.abort();
  const content = withFiles(box.value.trim(), files);
  if (content.length < SHORT || isBusy() || !preference("prefillWhileTyping")) return;
  timer = setTimeout(() => {
    const said = conversation();
    if (said.at(-1)?.role === "user") said.pop(); // it got no answer
    ahead = new AbortController();
    const messages = [...said, { role: "user", content }];
    const body = JSON.stringify({ model: chosen(), messages, ...(currentChat().private && { private: true }) });
    call("/api/prefill", { method: "POST", body, signal: ahead.signal }).catch(() => {}); // nobody waits for it
  }, PAUSE_MS);
}

function setFiles(all) {
  files = all;
  $("files-list").replaceChildren(...files.map((file) => (file.row ??= row(file))));
  keep("files", files.length ? JSON.stringify(files, ["name", "text", "pasted"]) : "");
  $("files-said").textContent = "";
  changed();
}

function row(file) {
  file.amount = element("span", "facts", size(file.text.length));
  countTokens(file);
  const without = (act = () => {}) => () => {
    setFiles(files.filter((other) => other !== file));
    focus();
    act();
  };
  const insert = without(() => {
    box.setRangeText(file.text, box.selectionStart, box.selectionEnd, "end");
    changed();
  });
  const remove = button("×", without(), { ariaLabel: `Remove ${file.name}` });
  return made("li", {}, file.name, file.amount, file.pasted && button("Insert as text", insert), remove);
}

async function countTokens({ text: content, amount }) {
  const { tokens } = await request("/tokenize", "POST", { model: chosen(), content }).catch(() => ({})); // then its size
  if (tokens) amount.textContent = `${count(tokens.length)} tokens`;
}

async function addFiles(given) {
  const refused = [];
  const added = [];
  for (const file of given) {
    const { name, pasted } = file;
    const text = file.size <= FILE_BYTES ? await textOf(file) : null;
    if (text !== null) added.push({ name: name.slice(0, 255), text, pasted });
    else refused.push(file.size > FILE_BYTES ? `${name} is larger than ${size(FILE_BYTES)}.` : `${name} is not a text.`);
  }
  setFiles([...files, ...added]);
  $("files-said").textContent = refused.join(" ");
  focus();
}

// null: it is none.
async function textOf(file) {
  const bytes = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}

function pasted(event) {
  const { files: given, types } = event.clipboardData;
  const text = event.clipboardData.getData("text/plain");
  if (given.length && !types.includes("text/plain")) addFiles(given);
  else if (text.length > LONG_PASTE) addFiles([Object.assign(new Blob([text]), { name: "pasted text", pasted: true })]);
  else return;
  event.preventDefault();
}

function dragged(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault(); // else the browser opens the file
  document.body.classList.toggle("dropping", event.type === "dragover");
  if (event.type === "drop" && event.dataTransfer.files.length) addFiles(event.dataTransfer.files);
}

when("composer", "submit", async (event) => {
  event.preventDefault();
  const { n } = currentChat();
  await loaded();
  const text = box.value.trim();
  if (n !== currentChat().n || (!text && !files.length) || isAnswering()) return; // it stays a draft
  const given = files.map(({ name, text: content }) => ({ name, text: content }));
  box.value = "";
  setFiles([]);
  ask(text, given);
});
when(box, "input", changed);
when(box, "paste", pasted);
when(box, "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || composing(event)) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
when("attach", "click", () => $("attach-files").click());
when("attach-files", "change", ({ target }) => {
  addFiles([...target.files]);
  target.value = "";
});
for (const type of ["dragover", "drop"]) when(document, type, dragged);
when(document, "dragleave", ({ relatedTarget }) => relatedTarget ?? document.body.classList.remove("dropping"));
on("change", show);
on("unsent", takeBack);
onChange(readAhead);
onStatus(({ model, models }) => {
  const now = models.find(({ name, context }) => context && name === (chosen() ?? model))?.name; // once it is loaded
  if (!now || now === counter) return;
  counter = now;
  files.forEach(countTokens);
  readAhead();
});
changed();
