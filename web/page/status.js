// The status page: what GET /status tells, again and again, for people.
import { sentence } from "./api.js";
import { $, element, made, write } from "./dom.js";
import { lookEvery, onFailure, onStatus, pollNow } from "./poll.js";
import { count, lasting, pace, percent, size } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const LOOK_MS = 1500; // between two looks
const STATES = { ok: "All is well.", waking: "The model is being loaded." };

const slots = made("div", { id: "slots", role: "img" });
const chart = made("div", { id: "chart", role: "img" });
const rows = made("tbody", { id: "rows" });

const section = (title, ...inside) =>
  $("cards").append(made("section", { ariaLabel: title }, element("h2", "", title), ...inside));

// A section with a large figure and names and values, which `told` makes of a status; what is null is left out.
function card(title, told, ...inside) {
  const large = element("p", "large");
  const list = element("dl");
  section(title, large, ...inside, list);
  onStatus((status) => {
    const [figure, facts] = told(status);
    const known = Object.entries(facts).filter(([, value]) => value !== null);
    large.replaceChildren(figure);
    list.replaceChildren(...known.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  });
}

function table() {
  const head = ["Model", "State", "Context", "Busy", "Waiting", "Restarts", "Memory"];
  const cells = head.map((textContent) => made("th", { scope: "col", textContent }));
  return made("table", {}, made("thead", {}, made("tr", {}, ...cells)), rows);
}

function row({ name, state, context, busy, waiting, restarts, worker_bytes: bytes }) {
  const cells = [state, context ? count(context) : "–", busy, waiting, restarts, bytes ? size(bytes) : "–"];
  return made("tr", {}, made("th", { scope: "row", textContent: name }), ...cells.map((text) => element("td", "", text)));
}

function showSlots({ busy, n }) {
  slots.replaceChildren(...Array.from({ length: n }, (_, i) => element("span", i < busy ? "busy" : "")));
  slots.ariaLabel = `${busy} of ${n} slots are busy`;
}

function drawn(tag, attributes, ...inside) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}

// A bar for each minute; the scale ends at a round number.
function showChart(minutes) {
  const most = Math.max(...minutes);
  const unit = 10 ** Math.floor(Math.log10(most || 1));
  const end = unit * [1, 2, 5, 10].find((n) => n * unit >= most);
  const numbers = [end, end / 2, 0].map((n) => element("span", "", n));
  const bars = minutes.map((n, i) => drawn("rect", { x: i + 0.1, width: 0.8, y: end - n, height: n }));
  chart.replaceChildren(
    made("div", { className: "scale" }, ...numbers),
    drawn("svg", { viewBox: `0 0 ${minutes.length} ${end}`, preserveAspectRatio: "none" }, ...bars),
    made("div", { className: "ends" }, `${minutes.length} min ago`, element("span", "", "now")),
  );
  chart.ariaLabel = `At most ${pace(most)} in a minute; ${pace(minutes.at(-1))} in the last one`;
}

function say(text, bad = false) {
  write($("state"), text);
  $("state").classList.toggle("error", bad);
}

const MODELS = "Models asked since the start";
card("Now", ({ slots: { busy, n }, queue, tokens_per_s: rate, answers, requests }) => [
  made("span", {}, rate.now ? rate.now.toFixed(rate.now < 100 ? 1 : 0) : "0", element("small", "", " tokens/s")),
  {
    "Answers at once": `${busy} of ${n}`,
    Waiting: `${queue.waiting} of ${queue.limit}`,
    "Answers so far": count(answers),
    "Requests in the engine": count(requests),
  },
], slots);
section("Tokens a second, the last 15 minutes", chart);
card("Remembered", ({ cache, prefix: { known_tokens: known, read_tokens: read, known_rate: rate } }) => [
  !cache ? "no answers" : cache.hit_rate === null ? "–" : `${percent(cache.hit_rate)} of answers`,
  {
    ...(cache && {
      "Answers given again": count(cache.hits),
      "Shared while made": count(cache.joined),
      Computed: count(cache.misses),
      Kept: `${count(cache.entries)} · ${size(cache.bytes)}`,
      Saved: lasting(cache.saved_s),
    }),
    "Of prompts": rate === null ? "–" : percent(rate),
    "Prompt tokens known": count(known),
    "Prompt tokens read": count(read),
  },
]);
card("Memory", ({ memory: { front_bytes: front, worker_bytes: worker, available_bytes: free } }) => [
  size(front + worker),
  { Models: size(worker), "Everything else": size(front), Free: size(free) },
]);
card("Server", ({ model, description, context, engine, threads, uptime_s: uptime, restarts }) => [
  `up ${lasting(uptime)}`,
  {
    Model: model,
    Kind: description,
    Context: context && `${count(context)} tokens`,
    Threads: count(threads),
    Engine: engine,
    Restarts: count(restarts),
  },
]);
section(MODELS, made("div", { className: "table", tabIndex: 0, role: "group", ariaLabel: MODELS }, table()));
onStatus((status) => {
  say(STATES[status.status] ?? `The model is ${status.status}.`, !(status.status in STATES));
  showSlots(status.slots);
  showChart(status.tokens_per_s.minutes);
  rows.replaceChildren(...status.models.map(row));
  $("cards").hidden = false;
});
onFailure((error) => {
  if (error.status !== 401) return say(sentence(error), true);
  say("An API key is needed: ", true);
  $("state").append(made("a", { href: "/" }, "the chat page asks for it"), ".");
});
lookEvery(LOOK_MS);
pollNow();
