// The open chat and what can be done in it. It is kept by the server, or private: then it ends with the page.
import { ApiError, sentence } from "./api.js";
import { answerTo, conversation as toSend, followed, inOrder } from "./answering.js";
import * as kept from "./history.js";
import { begin } from "./live.js";
import { toEnd } from "./reading.js";
import { onSystem, showSystemOf, systemPrompt } from "./settings.js";
import * as spoken from "./spoken.js";
import { onStatus, pollNow } from "./poll.js";
import { setUsed } from "./statusline.js";
import { Tree } from "./tree.js";
import { onAct, showBranch, turnOf } from "./turns.js";
import * as unkept from "./unkept.js";

const listeners = { change: [], error: [], unsent: [] };
let keeps = true; // until the server says that it does not
let version = null; // of the server's chats, as it told it last
let n_local = 0;
let n_chats = 0;
let chat = fresh(false);

export const GONE = "That chat is no longer there.";

function fresh(isPrivate) {
  const store = isPrivate || !keeps ? unkept : kept;
  const told = { id: null, title: "", system: null, tree: new Tree(), loading: null };
  const answering = { running: null, ran: null, reader: null, from: null }; // `from`: the first message that is sent
  return { ...told, ...answering, n: ++n_chats, n_picks: 0, queue: Promise.resolve(), private: isPrivate, store };
}

// "change": the open chat is another, or has changed. "error": something could not be done; with the ApiError, and whether
// the turn that it belongs to tells it. "unsent": the chat is left with these questions.
export const on = (what, callback) => listeners[what].push(callback);
const tell = (what, ...values) => listeners[what].forEach((callback) => callback(...values));

// `n`: a number that it keeps when it gets its id.
export function currentChat() {
  const { n, title, private: isPrivate, store } = chat;
  return { n, id: store === kept ? chat.id : null, private: isPrivate, title };
}
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
  showSystemOf(chat.system);
  tell("change");
}

// Another chat takes its place; an answer that the server keeps goes on there.
function leave() {
  const questions = chat.tree.branch.filter(({ local, role }) => local && role === "user");
  if (questions.length && !chat.running) tell("unsent", questions);
  chat.reader?.abort();
  const message = "The private chat has ended: it is not stored.";
  if (chat.private && !isEmpty()) tell("error", new ApiError(0, { message }));
}

export function newChat({ private: isPrivate = false, ...more } = {}) {
  leave();
  chat = { ...fresh(isPrivate), ...more };
  show();
}

// null: a new one. Throws ApiError.
export async function openChat(id) {
  if (id && id === chat.id) return;
  if (!id) return newChat();
  leave();
  const mine = (chat = { ...fresh(false), id, store: kept });
  mine.loading = refresh(mine).finally(() => (mine.loading = null));
  tell("change"); // the old turns stay until it is there: no flicker
  try {
    await mine.loading;
    if (mine !== chat) return;
    show();
    toEnd();
  } catch (error) {
    if (mine !== chat) return;
    chat = fresh(false);
    throw error;
  }
}

// Takes over what the server has, from other tabs too. `ended`: the id of an answer that has just come to its end.
const refresh = (mine, ended) => inOrder(mine, async () => {
  const { title, system, messages, leaf } = await kept.read(mine.id);
  const { tree, running } = mine;
  for (const message of messages) if (message.id === ended && message.state === "running") message.state = "done";
  tree.merge(messages, mine.n_picks ? tree.leaf : leaf, (message) => message.local || message === running);
  Object.assign(mine, { title, system });
  const goes_on = tree.branch.findLast(({ state }) => state === "running");
  if (goes_on && !running && mine === chat) takeUp(mine, goes_on);
  else show(mine);
});

// Follows an answer that runs already.
function takeUp(mine, message) {
  Object.assign(message, { asked: false, stopping: false });
  spoken.begin(message.content);
  run(mine, message, (signal, grown) => followed(mine, message, signal, grown));
}

// A message that only the page knows yet.
const local = (fields) => ({ id: `local-${++n_local}`, local: true, state: "done", facts: {}, created: now(), ...fields });
const now = () => Date.now() / 1000;

// Returns when the open chat is there, or failed to come, which is told.
export const loaded = () => chat.loading?.catch(() => {});

export function ask(text, files = []) {
  let parent = chat.tree.get(chat.tree.leaf);
  while (parent?.local && parent.role === "assistant") parent = chat.tree.get(parent.parent); // refused: it is not stored
  return put(text, files, parent?.id ?? null);
}

async function put(content, files, parent) {
  await reply(chat.tree.add(local({ role: "user", parent, content, files })));
}

// The answer to a question. `how` as answerTo takes it, `continues` being the message.
async function reply(question, { continues, ...how } = {}) {
  if (chat.running) return;
  const mine = chat;
  const message = continues ?? mine.tree.add(local({ role: "assistant", parent: question.id, content: "", reasoning: "" }));
  Object.assign(message, { state: "running", facts: {}, code: null, stopping: false, asked: true });
  begin(message);
  spoken.begin(message.content);
  toEnd();
  await run(mine, message, async (signal, grown) => {
    await save(mine, question);
    await answerTo(mine, question, message, { ...how, continues: Boolean(continues) }, signal, grown);
  });
}

// Does `work`, which writes the message, and then settles how it ended.
const run = (mine, message, work) => (mine.ran = done(mine, message, work));

async function done(mine, message, work) {
  const { signal } = (mine.reader = new AbortController());
  const question = mine.tree.get(message.parent);
  let fault = null;
  mine.running = message;
  show(mine);
  const grown = () => {
    if (mine !== chat) return;
    turnOf(message)?.update();
    if (message.content) spoken.speak(message.content);
  };
  try {
    await work(signal, grown);
  } catch (error) {
    if (!signal.aborted && error.code !== "answer_not_running") fault = error;
  }
  if (mine !== chat) return question?.local && tell("error", new ApiError(0, { message: `Not sent: ${question.content}` }));
  message.state = message.stopping ? "stopped" : "done";
  if (fault) fail(message, fault);
  mine.running = null;
  spoken.speak(message.content, true);
  show(mine);
  const is_kept = mine.store === kept && !message.local && !message.asked; // else the server knows nothing of it
  if (is_kept) await refresh(mine, message.id).catch(() => {});
  pollNow();
}

function fail(message, error) {
  message.state = "failed";
  message.code = error.code;
  message.facts.error = sentence(error);
  if (!(error instanceof ApiError) && !(error instanceof TypeError)) console.error(error); // a fault of ours
  tell("error", error, true);
}

// Stores the chat and the question, where they are not yet.
async function save(mine, message) {
  if (mine.id) return add(mine, message);
  await create(mine);
  try {
    await add(mine, message);
  } catch (error) {
    if (mine.store === kept) kept.remove(mine.id).catch(() => {}); // it would be an empty one
    mine.id = null;
    throw error;
  }
}

async function add(mine, message) {
  if (!message?.local) return;
  await add(mine, mine.tree.get(message.parent));
  await inOrder(mine, async () => {
    const { id } = await mine.store.addMessage(mine.id, message.parent, message.content, message.files);
    mine.tree.rename(message, id);
    message.local = false;
  });
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
  const { running: message, store, reader } = chat;
  if (!message || message.stopping) return;
  message.stopping = true;
  if (message.local) return; // when it has begun
  await store.stopAnswer(message.id).catch((error) => {
    if (error.status === 404) return; // it has ended, or not begun
    kept.stopLater(message.id);
    reader.abort();
  });
}

// What asks for an answer, or for another one: the answer that runs is stopped for it.
const instead = (act) => async (...given) => {
  const mine = chat;
  await stop();
  await mine.ran;
  if (mine === chat) await act(...given);
};

const questionOf = (message) => chat.tree.get(message.parent);

function again(message, how) {
  const question = questionOf(message);
  if (message.local) chat.tree.remove(message);
  return reply(question, how);
}

async function drop(message) {
  const mine = chat;
  if (mine.tree.pathTo(mine.running?.id).includes(message)) await instead(() => {})();
  if (!message.local) await inOrder(mine, () => mine.store.removeMessage(mine.id, message.id));
  mine.tree.remove(message);
  show(mine);
}

async function pick(message) {
  const mine = chat;
  const { tree, store } = mine;
  tree.pick(message);
  show();
  turnOf(message)?.node.querySelector(".branches button:enabled")?.focus({ preventScroll: true });
  if (tree.get(tree.leaf).local) return;
  mine.n_picks += 1;
  await inOrder(mine, () => store.change(mine.id, { leaf: tree.leaf })).catch(() => {}); // of no great matter
  mine.n_picks -= 1;
}

const acts = {
  answer: instead((message) => reply(message)),
  again: instead((message) => again(message, { another: message.state === "done" })), // else it has not been given yet
  afresh: instead((message) => again(message, { afresh: true })),
  continue: instead((message) => reply(questionOf(message), { continues: message })),
  edit: instead((message, text) => put(text, message.files, message.parent)),
  delete: drop,
  pick,
};

onAct((what, message, ...more) => {
  if (chat.tree.get(message.id) !== message) return; // of the chat before
  acts[what](message, ...more).catch((error) => tell("error", error));
});

// The chat was deleted elsewhere; what else is wrong the status line says.
function lost(error) {
  if (error.status !== 404) return;
  newChat({ n: chat.n }); // what is being written stays
  tell("error", new ApiError(404, { message: GONE }));
}

onSystem((system) => {
  if (!chat.id) return;
  const mine = chat;
  mine.system = system;
  showSystemOf(system);
  inOrder(mine, () => mine.store.change(mine.id, { system })).catch((error) => tell("error", error));
});
onStatus(({ chats }) => {
  const changed = version !== null && chats !== version;
  version = chats;
  const mine = chat;
  if (changed && mine.id && mine.store === kept) refresh(mine).catch((error) => mine === chat && lost(error));
});
