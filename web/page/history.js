// The chats that the server keeps, and the answers that go on there when nobody reads them. Knows nothing of the page.
import { ApiError, ask, call, chunks } from "./api.js";
import { onStatus } from "./poll.js";

const chat = (id) => `/api/chats/${encodeURIComponent(id)}`;
const answer = (id) => `/api/answers/${encodeURIComponent(id)}`;
const unstopped = new Set(); // answers whose stop did not reach the server
const PAUSES_MS = [300, 1000, 2000, 5000]; // before a lost connection is tried again; the last one from then on

// {chats, version}: pinned ones first, then the newest; with a text those that it is found in, each with a `snippet`.
export const list = (q = "") => ask(q ? `/api/chats?q=${encodeURIComponent(q)}` : "/api/chats");
export const create = (fields = {}) => ask("/api/chats", "POST", fields);
// A chat with the `messages` of its whole tree, the oldest first.
export async function read(id) {
  const told = await ask(chat(id));
  for (const message of told.messages) {
    if (message.state === "running" && unstopped.has(message.id)) message.state = "stopped";
  }
  return told;
}
export const change = (id, fields) => ask(chat(id), "PATCH", fields);
export const remove = (id) => ask(chat(id), "DELETE");
export const restore = (id) => ask(`${chat(id)}/restore`, "POST", {});
export const addMessage = (id, parent, content, files) =>
  ask(`${chat(id)}/messages`, "POST", { parent, content, ...(files?.length && { files }) });
// Removes what follows it too, in all branches.
export const removeMessage = (id, message) => ask(`${chat(id)}/messages/${encodeURIComponent(message)}`, "DELETE");
// `body`: {parent, request, afresh?, continues?}. Gives the message of the answer, which runs from now on.
export const beginAnswer = (id, body) => ask(`${chat(id)}/answers`, "POST", body);
// What it has said stays in its message, which this gives.
export const stopAnswer = (message) => ask(answer(message), "DELETE");
// As soon as the server can be reached again.
export const stopLater = (message) => unstopped.add(message);
onStatus(() => {
  for (const id of unstopped) {
    const reached = () => unstopped.delete(id);
    stopAnswer(id).then(reached, (error) => error instanceof ApiError && reached()); // an error: it has ended by itself
  }
});

// Yields what comes of a running answer: {id, chunk}, {comment}, and {lost: true} where the connection broke, which is tried
// again. Throws ApiError; with the code "answer_not_running" the answer has ended and the chat has it.
export async function* follow(message, after, signal) {
  for (let tries = 0; ; tries++) {
    try {
      const response = await call(`${answer(message)}?after=${after}`, { signal });
      for await (const event of chunks(response)) {
        tries = 0;
        if (event.id) after = event.id;
        yield event;
      }
      return;
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && error.code !== "connection_lost")) throw error;
    }
    yield { lost: true };
    await new Promise((done) => {
      signal.addEventListener("abort", done);
      setTimeout(done, PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
    });
  }
}
