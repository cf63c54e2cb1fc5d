// One answer, from the request to its end: asked for, followed, and asked for again with less where the context is full.
import { begin, fold } from "./live.js";
import { options, preference, systemPrompt } from "./settings.js";

const DICED = 0.7; // the temperature of another answer to the same question, which would be the same one without dice

// What is said to the model of a question and its files, each fenced by more backticks than stand together in it.
export const withFiles = (text, files = []) => [...files.map(fenced), text].join("\n\n");

function fenced({ name, text }) {
  const ticks = text.match(/`{3,}/g) ?? ["``"];
  const fence = "`".repeat(Math.max(...ticks.map(({ length }) => length)) + 1);
  return `File ${name}:\n${fence}\n${text}\n${fence}`;
}

// What is written of a chat and read of it comes one after the other: what is read meanwhile may no longer be true.
export const inOrder = (chat, work) => (chat.queue = chat.queue.catch(() => {}).then(work));

// The branch down to a message as it goes to the model: without questions that got no answer, and without thoughts, but for
// those of the answer that is to be continued.
export function conversation(chat, end, continued) {
  const path = chat.tree.pathTo(end);
  const first = Math.max(0, path.findIndex(({ id }) => id === chat.from));
  const said = [];
  for (const { id, role, content, reasoning, files } of path.slice(first)) {
    if (role === "user") {
      if (said.at(-1)?.role === "user") said.pop();
      said.push({ role, content: withFiles(content, files) });
    } else if (id === continued) said.push({ role, content, ...(reasoning && { reasoning_content: reasoning }) });
    else if (content.trim()) said.push({ role, content });
  }
  const system = chat.system ?? systemPrompt();
  return system ? [{ role: "system", content: system }, ...said] : said;
}

// Writes the answer into `message`, which stands in the chat's tree below the question; `show` is called as it grows. `how`:
// {afresh, another, continues}. Throws ApiError. Aborting the signal only ends the following.
export async function answerTo(chat, question, message, how, signal, show) {
  for (;;) {
    try {
      await begun(chat, question, message, how);
      if (message.stopping) await chat.store.stopAnswer(message.id);
      return await followed(chat, message, signal, show);
    } catch (error) {
      const more = message.live.first !== null; // than was there before: it is no longer the prompt that is too long
      if (error.code !== "context_length_exceeded" || more || !leaveOut(chat, question, message)) throw error;
      if (!message.local && !how.continues) {
        await inOrder(chat, () => chat.store.removeMessage(chat.id, message.id));
        message.local = true;
      }
      show();
    }
  }
}

async function begun(chat, question, message, { afresh = false, another = false, continues = false }) {
  const continued = continues ? message.id : undefined;
  const request = { ...options(), messages: conversation(chat, continued ?? question.id, continued) };
  if (another) {
    delete request.seed;
    request.temperature = Math.max(request.temperature ?? 0, DICED);
  }
  if (continues) request.continue_final_message = true;
  if (chat.private) request.private = true; // nor does what is computed for it go to disk
  const body = { parent: question.id, request, afresh: afresh || another, ...(continues && { continues: message.id }) };
  await inOrder(chat, async () => {
    const { id, facts } = await chat.store.beginAnswer(chat.id, body);
    message.events = 0; // from the beginning, whatever it has said already
    Object.assign(message.facts, facts);
    chat.tree.rename(message, id);
    message.local = message.asked = false;
  });
}

export async function followed(chat, message, signal, show) {
  if (!message.live) begin(message, performance.now() - (Date.now() - message.created * 1000));
  for await (const event of chat.store.follow(message.id, message.events ?? 0, signal)) {
    fold(message, event);
    show();
  }
}

// The oldest question with its answer; false when nothing could be left out.
function leaveOut(chat, question, message) {
  if (preference("onContextFull") !== "leave-out-oldest") return false;
  const path = chat.tree.pathTo(question.id);
  const from = Math.max(0, path.findIndex(({ id }) => id === chat.from));
  const next = path.findIndex(({ role }, i) => i > from && role === "user");
  if (next < 0) return false;
  chat.from = path[next].id;
  message.note = `The first ${next} turns were left out: the context is full.`;
  return true;
}
