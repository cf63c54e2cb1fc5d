// An answer as it comes: its message grows with each event, and says what it waits for. Pure, but for the clock.
import { count } from "./words.js";

const s = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);

// What is known only while it runs. `since`: when it was asked for, in ms of performance.now().
export function begin(message, since = performance.now()) {
  message.live = { since, first: null, thinks: null, waits: "", n: 0 };
}

export function fold(message, { id, chunk, comment, known, lost }) {
  const { live, facts } = message;
  if (id) message.events = id;
  if (known) facts.cache = known;
  if (lost) live.waits = "the connection is lost; trying again …";
  if (comment) live.waits = waiting(comment) ?? live.waits;
  if (!chunk) return;
  if (chunk.prompt_progress) live.waits = reading(chunk.prompt_progress);
  if (chunk.timings) facts.timings = chunk.timings;
  if (chunk.usage) facts.usage = chunk.usage;
  if (chunk.model) facts.model = chunk.model;
  const choice = chunk.choices?.[0];
  if (choice?.finish_reason) facts.stop_reason = choice.stop_reason;
  const { content, reasoning_content: reasoning } = choice?.delta ?? {};
  if (content || reasoning) grow(message, content, reasoning);
}

function grow(message, content = "", reasoning = "") {
  const { live, facts } = message;
  const now = performance.now();
  live.waits = "";
  live.n += 1;
  live.last = now;
  if (live.first === null) {
    live.first = now;
    facts.first_s = (now - live.since) / 1000;
  }
  if (reasoning) {
    live.thinks ??= now;
    facts.thought_s = (now - live.thinks) / 1000;
  }
  message.reasoning += reasoning;
  message.content += content;
}

// How long it has thought, in seconds; null when it has not, or it is not known.
export function thought(message) {
  const { live, facts, content } = message;
  if (live?.thinks && !content && message.state === "running") return (performance.now() - live.thinks) / 1000;
  return facts.thought_s ?? null;
}

function waiting(comment) {
  if (comment.includes("model is being loaded")) return "loading the model …";
  const before = Number(comment.match(/^waiting, (\d+) before/)?.[1] ?? 0);
  return before ? inLine(before) : null;
}

const inLine = (n) => (n === 1 ? "waiting; one answer before this" : `waiting; ${n} answers before this`);

function reading({ total, cache, processed, time_ms, before }) {
  if (before || !time_ms) return before ? inLine(before) : "waiting for its turn …";
  const read = processed - cache;
  if (processed >= total || total < 2) return "";
  const left = read > 0 && time_ms > 0 ? `, ${s((((total - processed) / read) * time_ms) / 1000)} left` : "";
  return `reading ${count(total)} tokens … ${Math.floor((100 * processed) / total)} %${left}`;
}

// Why an answer is not whole, or shorter than the model wanted.
const CUT = {
  max_tokens: "cut: the length allowed was used up",
  context: "cut: the context is full",
  loop: "cut: it repeated itself",
  sentences: "brief",
  stop_string: "ended at a stop word",
};

// `leavesOut`: whether a full context is made room in.
export const canContinue = ({ state, facts: { stop_reason: why }, content, reasoning }, leavesOut) =>
  (content || reasoning || "").trim() !== "" &&
  (why === "context" ? leavesOut : why === "max_tokens" || ["stopped", "failed"].includes(state));

// What is said under a finished answer.
export function facts({ state, facts: { cache, timings, usage, stop_reason: why, first_s }, live }) {
  const n = usage?.completion_tokens ?? timings?.predicted_n ?? live?.n ?? 0;
  const said = n ? [`${count(n)} ${n === 1 ? "token" : "tokens"}`] : [];
  const rate = timings?.predicted_per_second || (live && (1000 * (live.n - 1)) / (live.last - live.first));
  if (cache === "hit") said.push("from memory");
  else {
    if (n > 1 && rate > 0 && isFinite(rate)) said.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`);
    if (first_s != null) said.push(`first after ${first_s.toFixed(2)} s`);
    const prompt = usage?.prompt_tokens ?? (timings && timings.cache_n + timings.prompt_n);
    const remembered = usage?.prompt_tokens_details?.cached_tokens ?? timings?.cache_n;
    if (prompt) said.push(`prompt ${count(prompt)}${remembered ? `, ${count(remembered)} remembered` : ""}`);
  }
  if (state === "stopped") said.push("stopped");
  else if (why in CUT) said.push(CUT[why]);
  return said;
}
