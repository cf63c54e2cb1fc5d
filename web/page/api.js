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

export async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { "Content-Type": "application/json", ...options.headers } });
  if (!response.ok) {
    const body = await response.json().catch(() => null); // a proxy in between may answer with a web page
    throw new ApiError(response.status, body?.error);
  }
  return response;
}

export async function ask(path, method = "GET", body) {
  const response = await call(path, { method, body: body && JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
}

// The installed models, each with its state; the server's default is the first.
export const models = async () => (await ask("/v1/models")).data;
// Those and the ones that could be fetched, with what is known of each.
export const catalog = async () => (await ask("/models/catalog")).data;
// Returns when it is loaded. `force`: even if it does not fit or would be very slow.
export const load = (model, force, ctx) => ask("/models/load", "POST", { model, force, ctx });
export const remove = (name) => ask(`/v1/models/${encodeURIComponent(name)}`, "DELETE");
export const downloads = async () => (await ask("/models/download")).downloads;
export const cancelDownload = (model) => ask("/models/download", "DELETE", { model });

// Yields the progress of a download, which is begun if it does not run yet. It goes on when nobody watches.
export async function* download(model) {
  const response = await call("/models/download", { method: "POST", body: JSON.stringify({ model }) });
  for await (const { chunk: progress } of events(response.body)) {
    if (progress) yield progress;
    if (progress?.state === "installed") return;
  }
  throw new TypeError("The connection was lost."); // as the browser does
}

// Hands over the API key; the browser keeps a cookie from then on, which no script can read.
export const signIn = (key) => ask("/api/session", "POST", { key });

// An answer that no chat keeps, as `chunks` yields it; {known} comes first: whether it was given before and kept. `afresh`:
// it is to be made anew. Aborting the signal stops the server's work too.
export async function* answer(request, signal, afresh = false) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true }, return_progress: true });
  const headers = afresh ? { "Cache-Control": "no-cache" } : {};
  const response = await call("/v1/chat/completions", { method: "POST", body, signal, headers });
  yield { known: response.headers.get("X-Linnet-Cache") ?? "miss" };
  yield* chunks(response);
}

// Yields {id, chunk} and {comment}. Throws ApiError, with the code "connection_lost" where the stream has no end.
export async function* chunks(response) {
  for await (const event of events(response.body)) {
    if (event.chunk === null) return;
    yield event;
  }
  const message = "The connection to the server was lost in the middle of the answer.";
  throw new ApiError(500, { message, code: "connection_lost" });
}

// An event stream: {id, chunk} for each event (its data is one line here; null: the end) and {comment}. Throws the server's
// error. A read can end anywhere: in a line, even inside a character.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id: ")) id = Number(line.slice(4));
      else if (line.startsWith("data: ")) yield { id, chunk: parsed(line.slice(6)) };
      else if (line.startsWith(": ")) yield { comment: line.slice(2) };
    }
  }
}

function parsed(data) {
  const chunk = data === "[DONE]" ? null : JSON.parse(data);
  if (chunk?.error) throw new ApiError(500, chunk.error);
  return chunk;
}
