// Talks to the server: which model there is, and an answer as a stream of events. Knows nothing of the page.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

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
    throw new ApiError(response.status, body?.error?.message ?? `The server answered with status ${response.status}.`);
  }
  return response;
}

export async function modelName() {
  const { data } = await (await call("/v1/models")).json();
  return data[0].id;
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
    if (chunk.error) throw new ApiError(500, chunk.error.message);
    yield chunk;
  }
  throw new ApiError(500, "The connection to the server was lost in the middle of the answer.");
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
