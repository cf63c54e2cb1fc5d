// The open chat and what can be done in it. It is kept by the server, or private: then it ends with the page.
import { ApiError, sentence } from "./api.js";
import { answerTo, conversation as toSend, followed } from "./answering.js";
import { copy } from "./clipboard.js";
import * as kept from "./history.js";
import { begin } from "./live.js";
import { toEnd } from "./reading.js";
import { onChange, systemPrompt } from "./settings.js";
import * as spoken from "./spoken.js";
import { onStatus, pollNow } from "./poll.js";
import { setUsed } from "./statusline.js";
import { Tree } from "./tree.js";
import { onAct, showBranch, turnOf } from "./turns.js";
import * as unkept from "./unkept.js";

const listeners = { change: [], error: [] };
let keeps = true; // until the server says that it does not
let version = null; // of the server's chats, as it told it last
let n_local = 0;
let chat = fresh(false);

export { withFiles } from "./answering.js";

function fresh(isPrivate) {
  const store = isPrivate || !keeps ? unkept : kept;
  return { id: null, private: isPrivate, store, title: "", system: null, tree: new Tree(), running: null, reader: null };
}

// "change": the open chat is another, or has changed. "error": an answer could not be given; with the ApiError.
export const on = (what, callback) => listeners[what].push(callback);
const tell = (what, value) => listeners[what].forEach((callback) => callback(value));

export const currentChat = () => ({ id: chat.store === kept ? chat.id : null, private: chat.private, title: chat.title });
export const conversation = () => toSend(chat, chat.tree.leaf);
export const isAnswering = () => chat.running !== null;
export const isEmpty = () => chat.tree.leaf === null && !chat.loading;
// The first words of the chat, which it is called by until it has a title.
export const titled = () => chat.title || (chat.tree.branch[0]?.content.split("\n", 1)[0].slice(0, 80) ?? "");

function show(shown = chat) {
  if (shown !== chat) return;
  const { branch } = chat.tree;
  showBranch(branch, (message) => chat.tree.siblings(message));
  const last = branch.findLast(({ facts }) => facts?.usage);
  setUsed(last?.facts.usage.total_tokens ?? (branch.length ? null : 0));
  tell("change");
}

// Another chat takes its place; an answer that the server keeps goes on there.
function leave() {
  chat.reader?.abort();
  chat.left = true;
}

export function newChat({ private: isPrivate = false } = {}) {
  leave();
  chat = fresh(isPrivate);
  show();
}

// null: a new one. Throws ApiError.
export async function openChat(id) {
  if (id && id === chat.id) return;
  if (!id) return newChat();
  leave();
  const mine = (chat = { ...fresh(false), id, store: kept });
  mine.loading = refresh(mine).finally(() => (mine.loading = null));
  try {
    await mine.loading;
    if (mine !== chat) return;
    show();
    toEnd();
  } catch (error) {
    if (mine === chat) chat = fresh(false);
    throw error;
  }
}

// Takes over what the server has, from other tabs too.
async function refresh(mine) {
  const told = await kept.read(mine.id);
  const { tree, running, ended } = mine;
  const better = tree.branch.filter((message) => message.local || message === running);
  for (const message of told.messages) if (message.id === ended && message.state === "running") message.state = "done";
  tree.merge(told.messages, told.leaf, better);
  Object.assign(mine, { title: told.title, system: told.system });
  const goes_on = tree.branch.findLast(({ state }) => state === "running");
  if (goes_on && !mine.running && mine === chat) takeUp(mine, goes_on);
  else show(mine);
}

// Follows an answer that runs already.
const takeUp = (mine, message) => run(mine, message, (signal, grown) => followed(mine, message, signal, grown));

// A message that only the page knows yet.
const local = (fields) => ({ id: `local-${++n_local}`, local: true, state: "done", facts: {}, created: now(), ...fields });
const now = () => Date.now() / 1000;

export async function ask(text, files = []) {
  await chat.loading?.catch(() => {}); // what is wrong is told already
  let parent = chat.tree.get(chat.tree.leaf);
  while (parent?.local && parent.role === "assistant") parent = chat.tree.get(parent.parent); // refused: it is not stored
  return put(text, files, parent?.id ?? null);
}

async function put(content, files, parent) {
  if (chat.running) return;
  await reply(chat.tree.add(local({ role: "user", parent, content, files })));
}

// The answer to a question. `how` as answerTo takes it, `continues` being the message.
async function reply(question, { continues, ...how } = {}) {
  if (chat.running) return;
  const mine = chat;
  const given = { role: "assistant", parent: question.id, content: "", reasoning: "" };
  const message = continues ?? mine.tree.add(local(given));
  Object.assign(message, { state: "running", facts: {}, code: null, stopping: false });
  begin(message);
  spoken.begin(message.content);
  toEnd();
  await run(mine, message, async (signal, grown) => {
    await save(mine, question);
    await answerTo(mine, question, message, { ...how, continues: Boolean(continues) }, signal, grown);
  });
}

// Does `work`, which writes the message, and then settles how it ended.
async function run(mine, message, work) {
  mine.running = message;
  mine.reader = new AbortController();
  show(mine);
  const grown = () => {
    if (mine !== chat) return;
    turnOf(message)?.update();
    if (message.content) spoken.speak(message.content);
  };
  try {
    await work(mine.reader.signal, grown);
    message.state = message.stopping ? "stopped" : "done";
  } catch (error) {
    if (mine.left) return;
    if (error.code !== "answer_not_running") fail(message, error);
  }
  if (mine.left) return;
  mine.running = null;
  mine.ended = message.id;
  spoken.speak(message.content, true);
  show(mine);
  if (mine.store === kept && !message.local) await refresh(mine).catch(() => {}); // as the server has it, if it is there
  pollNow();
}

function fail(message, error) {
  message.state = "failed";
  message.code = error.code;
  message.facts.error = sentence(error);
  if (!(error instanceof ApiError) && !(error instanceof TypeError)) console.error(error); // a fault of ours
  tell("error", error);
}

// Stores the chat and the question, where they are not yet.
async function save(mine, message) {
  if (!mine.id) await create(mine);
  if (!message?.local) return;
  await save(mine, mine.tree.get(message.parent));
  const { id } = await mine.store.addMessage(mine.id, message.parent, message.content, message.files);
  mine.tree.rename(message, id);
  message.local = false;
}

async function create(mine) {
  mine.system = systemPrompt();
  try {
    mine.id = (await mine.store.create({ system: mine.system })).id;
  } catch (error) {
    if (error.code !== "chats_not_kept") throw error;
    keeps = false;
    mine.store = unkept;
    mine.id = (await unkept.create()).id;
  }
  if (mine === chat) tell("change");
}

// Really: the server computes no further. What was said stays.
export async function stop() {
  const { running: message, store } = chat;
  if (!message || message.stopping) return;
  message.stopping = true;
  if (!message.local) await store.stopAnswer(message.id).catch((error) => error.status === 404 || fail(message, error));
}

const questionOf = (message) => chat.tree.get(message.parent);

function again(message, how) {
  if (chat.running) return;
  const question = questionOf(message);
  if (message.local) chat.tree.remove(message);
  return reply(question, how);
}

async function drop(message) {
  const mine = chat;
  if (mine.tree.pathTo(mine.running?.id).includes(message)) await stop();
  if (!message.local) await mine.store.removeMessage(mine.id, message.id);
  mine.tree.remove(message);
  show(mine);
}

function pick(message) {
  chat.tree.pick(message);
  show();
  if (!message.local) chat.store.change(chat.id, { leaf: chat.tree.leaf }).catch(() => {}); // of no great matter
  turnOf(message)?.node.querySelector(".branches button:enabled")?.focus({ preventScroll: true });
}

const acts = {
  again: (message) => again(message, { another: message.state === "done" }), // else it has not been given yet
  afresh: (message) => again(message, { afresh: true }),
  continue: (message) => reply(questionOf(message), { continues: message }),
  edit: (message, text) => put(text, message.files, message.parent),
  delete: drop,
  pick,
};
onAct((what, message, ...more) => {
  if (!(what in acts)) return tell("error", { code: "model_wanted" });
  Promise.resolve(acts[what](message, ...more)).catch((error) => tell("error", error));
});

const lastAnswer = () => chat.tree.branch.findLast(({ role }) => role === "assistant");
const lastQuestion = () => chat.tree.branch.findLast(({ role }) => role === "user");
const withLast = (find, act) => () => find() && !chat.running && act(find());

// What the keys do, with the last turn of its kind.
export const regenerate = withLast(lastAnswer, acts.again);
export const continueLast = withLast(lastAnswer, (message) => message.content && acts.continue(message));
export const editLast = withLast(lastQuestion, (message) => turnOf(message).edit());
export const copyLast = withLast(lastAnswer, (message) => copy(message.content));

// The chat was deleted elsewhere; what else is wrong the status line says.
function lost(error) {
  if (error.status !== 404) return;
  newChat();
  tell("error", error);
}

let system = systemPrompt();
onChange(() => {
  if (system === systemPrompt()) return;
  system = systemPrompt();
  if (!chat.id) return;
  chat.system = system;
  chat.store.change(chat.id, { system }).catch((error) => tell("error", error));
});
onStatus(({ chats }) => {
  const changed = version !== null && chats !== version;
  version = chats;
  if (changed && chat.id && chat.store === kept) refresh(chat).catch(lost);
});
