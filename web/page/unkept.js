// What history.js does, for a chat that is not stored: its answers end with the page.
import { answer } from "./api.js";

let n_made = 0;
const now = () => Date.now() / 1000;
const made = (kind, fields) => ({ id: `${kind}-${++n_made}`, state: "done", facts: {}, created: now(), ...fields });

const begun = new Map(); // by the message's id: {body, leaving}

export const create = async (fields) => made("chat", { title: "", leaf: null, ...fields });
export const change = async (id, fields) => fields;
export const addMessage = async (id, parent, content, files = []) =>
  made("message", { role: "user", parent, content, files });
export const removeMessage = async () => ({});

export async function beginAnswer(id, body) {
  const message = made("message", { role: "assistant", parent: body.parent, content: "", reasoning: "", state: "running" });
  if (body.continues) message.id = body.continues;
  begun.set(message.id, { body, leaving: new AbortController() });
  return message;
}

// What is refused is thrown here, for the server says nothing before.
export async function* follow(message, after, signal) {
  const { body, leaving } = begun.get(message);
  signal.addEventListener("abort", () => leaving.abort());
  if (signal.aborted) leaving.abort();
  try {
    yield* answer(body.request, leaving.signal, body.afresh);
  } catch (error) {
    if (!leaving.signal.aborted) throw error;
  } finally {
    begun.delete(message);
  }
}

export async function stopAnswer(message) {
  begun.get(message)?.leaving.abort();
  return { state: "stopped" };
}
