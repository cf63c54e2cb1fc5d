// Talks to the server: the models, their downloads, and an answer as a stream of events. Knows nothing of the page.

export class ApiError extends Error {
  constructor(status, { message, code } = {}) {
    super(message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = code;
  }
}

// What went wrong, in the server's words if it had any.
export const sentence = (error) => (error instanceof ApiError ? error.message : "The server cannot be reached.");

// Kept until the browser is closed, encoded as a header can carry it.
export function setKey(key) {
  sessionStorage.setItem("api-key", String.fromCharCode(...new TextEncoder().encode(key)));
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem("api-key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...options.headers };
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) {
    const body = await response.json().catch(() => null); // a proxy in between may answer with a web page
    throw new ApiError(response.status, body?.error);
  }
  return response;
}

const ask = async (path, method = "GET", body) => (await call(path, { method, body: body && JSON.stringify(body) })).json();
const named = (name) => `/v1/models/${encodeURIComponent(name)}`;

// The installed models, each with its state; the server's default is the first.
export const models = async () => (await ask("/v1/models")).data;
export const modelState = async (name) => (await ask(named(name))).state;
// Those and the ones that could be fetched, with what is known of each.
export const catalog = async () => (await ask("/models/catalog")).data;
// Returns when it is loaded. `force`: even if it does not fit or would be very slow.
export const load = (model, force) => ask("/models/load", "POST", { model, force });
export const remove = (name) => ask(named(name), "DELETE");
export const downloads = async () => (await ask("/models/download")).downloads;
export const cancelDownload = (model) => ask("/models/download", "DELETE", { model });

// Yields the progress of a download, which is begun if it does not run yet. It goes on when nobody watches.
export async function* download(model) {
  const response = await call("/models/download", { method: "POST", body: JSON.stringify({ model }) });
  for await (const data of events(response.body)) {
    const progress = JSON.parse(data);
    if (progress.error) throw new ApiError(500, progress.error);
    yield progress;
    if (progress.state === "installed") return;
  }
  throw new ApiError(500, { message: "The connection to the server was lost; the download may go on there." });
}

// The answers that the server keeps: how many, and how large they are; null when it keeps none.
export async function kept() {
  const facts = await (await call("/cache")).json();
  return facts.enabled ? facts : null;
}

// Yields the chunks of an answer as they come, the first with `known`: whether it was given before and kept. `afresh`: it is
// to be made anew. Aborting the signal stops the server's work too.
export async function* answer(messages, options, signal, afresh = false) {
  const body = JSON.stringify({ messages, stream: true, ...options });
  const headers = afresh ? { "Cache-Control": "no-cache" } : {};
  const response = await call("/v1/chat/completions", { method: "POST", body, signal, headers });
  yield { choices: [], known: response.headers.get("X-Linnet-Cache") === "hit" };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(500, chunk.error);
    yield chunk;
  }
  throw new ApiError(500, { message: "The connection to the server was lost in the middle of the answer." });
}

// The data lines of an event stream. A read can end anywhere: in a line, even inside a character.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}
