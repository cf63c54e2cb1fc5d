// The status page: what GET /status tells, again and again, for people.
import { sentence } from "./api.js";
import { $, element } from "./dom.js";
import { lookEvery, onFailure, onStatus, pollNow } from "./poll.js";
import { count, lasting, pace, percent, size } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const CHART = { height: 150, left: 36, right: 4, top: 10, bottom: 20 };
const LOOK_MS = 1500; // between two looks
const STATES = { ok: "All is well.", waking: "The model is being loaded." };

function drawn(tag, attributes, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

// Names and values; what is not known is left out.
function list(id, facts) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined);
  $(id).replaceChildren(...known.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

function showNow({ slots, queue, tokens_per_s: rate, answers, requests }) {
  $("rate").textContent = rate.now ? rate.now.toFixed(rate.now < 100 ? 1 : 0) : "0";
  const all = Array.from({ length: slots.n }, (_, i) => element("span", i < slots.busy ? "slot busy" : "slot"));
  $("slots").replaceChildren(...all);
  $("slots").setAttribute("aria-label", `${slots.busy} of ${slots.n} slots are busy`);
  list("now", [
    ["Answers at once", `${slots.busy} of ${slots.n}`],
    ["Waiting", `${queue.waiting} of ${queue.limit}`],
    ["Answers so far", count(answers)],
    ["Requests in the engine", count(requests)],
  ]);
}

// A step for each minute; the scale ends at a round number.
function showChart(minutes) {
  const { height, left, right, top, bottom } = CHART;
  const width = $("chart").clientWidth || 600;
  const most = Math.max(...minutes);
  const unit = 10 ** Math.floor(Math.log10(most || 1));
  const scale = unit * [1, 2, 5, 10].find((n) => n * unit >= most);
  const y = (n) => height - bottom - (n / scale) * (height - top - bottom);
  const step = (width - left - right) / minutes.length;
  const nodes = [0, scale / 2, scale].flatMap((n) => [
    drawn("line", { x1: left, x2: width - right, y1: y(n), y2: y(n), class: "rule" }),
    drawn("text", { x: left - 6, y: y(n) + 4, class: "end" }, String(n)),
  ]);
  minutes.forEach((n, i) => {
    const bar = { x: left + i * step + 2, width: step - 4, y: y(n), height: y(0) - y(n), rx: 2, class: "bar" };
    nodes.push(drawn("rect", bar));
  });
  nodes.push(drawn("text", { x: left, y: height - 4 }, `${minutes.length} min ago`));
  nodes.push(drawn("text", { x: width - right, y: height - 4, class: "end" }, "now"));
  $("chart").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("chart").replaceChildren(...nodes);
  const last = minutes.at(-1);
  $("chart").setAttribute("aria-label", `At most ${pace(most)} in a minute; ${pace(last)} in the last one`);
}

function showRemembered(cache, { known_tokens: known, read_tokens: read, known_rate: rate }) {
  const part = cache?.hit_rate ?? null;
  $("hit-rate").textContent = !cache ? "no answers" : part === null ? "–" : `${percent(part)} of answers`;
  const answers = cache && [
    ["Answers given again", count(cache.hits)],
    ["Shared while made", count(cache.joined)],
    ["Computed", count(cache.misses)],
    ["Kept", `${count(cache.entries)} · ${size(cache.bytes)}`],
    ["Saved", lasting(cache.saved_s)],
  ];
  const prompts = [["Of prompts", rate === null ? "–" : percent(rate)], ["Prompt tokens known", count(known)]];
  list("cache", [...(answers ?? []), ...prompts, ["Prompt tokens read", count(read)]]);
}

function showMemory({ front_bytes: front, worker_bytes: worker, available_bytes: free }) {
  $("memory-sum").textContent = size(front + worker);
  list("memory", [["Models", size(worker)], ["Everything else", size(front)], ["Free", size(free)]]);
}

function showServer({ model, description, context, engine, threads, uptime_s: uptime, restarts }) {
  $("uptime").textContent = `up ${lasting(uptime)}`;
  list("server", [
    ["Model", model],
    ["Kind", description],
    ["Context", context && `${count(context)} tokens`],
    ["Threads", count(threads)],
    ["Engine", engine],
    ["Restarts", count(restarts)],
  ]);
}

function showModels(models) {
  const rows = models.map(({ name, state, context, busy, waiting, restarts, worker_bytes: bytes }) => {
    const cells = [state, context ? count(context) : "–", busy, waiting, restarts, bytes ? size(bytes) : "–"];
    const row = element("tr", "");
    row.append(Object.assign(element("th", "", name), { scope: "row" }), ...cells.map((text) => element("td", "", text)));
    return row;
  });
  $("rows").replaceChildren(...rows);
}

function say(text, bad = false) {
  if ($("state").textContent !== text) $("state").textContent = text; // it is read aloud
  $("state").classList.toggle("error", bad);
}

onStatus((status) => {
  say(STATES[status.status] ?? `The model is ${status.status}.`, !(status.status in STATES));
  showNow(status);
  showRemembered(status.cache, status.prefix);
  showMemory(status.memory);
  showServer(status);
  showModels(status.models);
  $("cards").hidden = false;
  showChart(status.tokens_per_s.minutes); // last: only what is shown has a width
});
onFailure((error) => {
  if (error.status !== 401) return say(sentence(error), true);
  say("An API key is needed: ", true);
  $("state").append(Object.assign(element("a", "", "the chat page asks for it"), { href: "/" }), ".");
});
lookEvery(LOOK_MS);
pollNow();
