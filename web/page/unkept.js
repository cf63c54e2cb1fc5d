// What history.js does, for a chat that is not stored: its answers end with the page.
import { answer } from "./api.js";

let n_made = 0;
const made = async (kind) => ({ id: `${kind}-${++n_made}` });
const begun = new Map(); // by the message's id: {body, leaving}

export const create = () => made("chat");
export const change = async () => {};
export const addMessage = () => made("message");
export const removeMessage = async () => {};

export async function beginAnswer(chat, body) {
  const message = body.continues ? { id: body.continues } : await made("message");
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
}
