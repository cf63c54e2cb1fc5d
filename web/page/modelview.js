// How a model is shown, in the dialog or elsewhere: what is known of it, how its download stands, what can be done with it.
// Its parts are only hidden, shown and written anew, so that nothing jumps or loses the focus.
import { $, when, write } from "./dom.js";
import { facts, pace, progressWords, size } from "./words.js";

const BAD = ["too slow", "does not fit"];
const STATES = { loaded: "loaded", loading: "loading …", unloaded: "installed", failed: "could not be loaded" };
let n_views = 0;

function about({ bytes, parameters: n, licence, reasoning }) {
  const count = n && (n < 1e9 ? `${Math.round(n / 1e6)} M parameters` : `${(n / 1e9).toFixed(1)} B parameters`);
  return facts(bytes && size(bytes), count, licence, reasoning && "thinks aloud");
}

function prospect({ verdict, tokens_per_s: rate, memory_bytes: needs, available_bytes: free }) {
  const memory = needs && `needs ${size(needs)} of memory${free ? `; ${size(free)} free` : ""}`;
  return facts(verdict !== "unknown" && verdict, rate && `about ${pace(rate)}`, memory);
}

export class ModelView {
  // `acts`: what a click on a part does, by the part's name; it is given the row.
  constructor(row, node, acts) {
    node.append($("model-row").content.cloneNode(true));
    this.node = node;
    this.part = Object.fromEntries([...node.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    const { name, actions, question } = this.part;
    name.id = `model-${(n_views += 1)}`;
    for (const button of actions.children) button.setAttribute("aria-describedby", name.id); // each row has them
    when(node, "click", ({ target }) => {
      if (target.ariaDisabled !== "true") acts[target.dataset.part]?.(row);
    });
    when(question, "keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // else it closes the dialog
      row.settle();
    });
  }

  show(row) {
    const focused = document.activeElement;
    const { entry, progress, question, doing } = row;
    const loads = doing === "loading" || row.state === "loading";
    const inUse = row.isChosen && row.state === "loaded";
    this.#write({
      name: row.name,
      tags: facts(entry.recommended && "recommended", row.isChosen && "in use", STATES[row.state]),
      purpose: entry.good_for,
      about: about(entry),
      verdict: prospect(entry),
      use: loads ? "Loading …" : inUse ? "In use" : row.isChosen ? "Load" : "Use",
      asked: question?.text,
      yes: question?.yes,
      fault: row.error,
    });
    this.part.verdict.classList.toggle("bad", BAD.includes(entry.verdict));
    if (progress) this.#showProgress(row.name, progress);
    if (question) this.part.question.ariaLabel = question.text;
    this.#set("hidden", {
      download: !progress,
      use: !entry.installed,
      fetch: entry.installed || progress || entry.fetch === null,
      cancel: !progress,
      drop: !entry.installed || row.isDefault, // which the server keeps
      question: !question,
    });
    this.#set("ariaDisabled", { use: loads || inUse, cancel: doing, drop: doing });
    if (!this.node.contains(focused) || !focused.closest("[hidden]")) return;
    this.part.actions.querySelector("button:not([hidden])")?.focus();
  }

  #showProgress(name, progress) {
    const { bar } = this.part;
    const { amount, speed } = progressWords(progress);
    this.#write({ amount, speed, note: progress.note });
    bar.ariaLabel = `Download of ${name}`;
    if (progress.total_bytes) Object.assign(bar, { max: progress.total_bytes, value: progress.bytes });
    else bar.removeAttribute("value");
  }

  #write(texts) {
    for (const [name, text] of Object.entries(texts)) write(this.part[name], text ?? "");
  }

  #set(property, values) {
    for (const [name, value] of Object.entries(values)) this.part[name][property] = Boolean(value);
  }
}
