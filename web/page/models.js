// The models dialog: which models there are and could be, and the one that the chat uses.
import { cancelDownload, catalog, download, downloads, load, models, remove, sentence } from "./api.js";
import { $ } from "./dom.js";
import { pollNow } from "./poll.js";
import { pace, progressWords, showProgress, size } from "./words.js";

const rows = new Map(); // by the model's name, or by what was asked for while another model is fetched
let installed = []; // as the server listed them last, its default first
let wanted = localStorage.getItem("model"); // the model that was chosen; null: the server's default
let settled = wanted; // the last choice that is not still being loaded
let known = []; // the catalog as it was last told

const BAD = ["too slow", "does not fit"];
const STATES = { loaded: "loaded", loading: "loading …", unloaded: "installed", failed: "could not be loaded" };

export const chosen = () => wanted;

export const showModel = (text) => ($("model").textContent = text);

// A line under the header; it stays until the next question.
export const say = (text) => ($("note").textContent = text);

// Finds out which models are installed, and whether the chosen one still is. Throws ApiError.
export async function lookForModels() {
  installed = await models();
  if (wanted && !installed.some(({ id }) => id === wanted)) {
    say(`The model ${wanted} is no longer there; ${installed[0].id} answers from now on.`);
    choose(null);
    settled = null;
  }
  showCurrent();
}

// `denied` is called if the server wants a key first.
export async function openModels(denied) {
  say("");
  if (!$("models").open) $("models").showModal();
  await refresh(denied);
  for (const { model } of await downloads().catch(() => [])) follow(rowOf(model), model); // the error is shown already
}

const current = () => wanted ?? installed[0]?.id;

function showCurrent() {
  showModel(rows.get(current())?.doing === "loading" ? `loading ${current()} …` : current());
}

function choose(name) {
  wanted = name;
  if (name) localStorage.setItem("model", name);
  else localStorage.removeItem("model");
  showCurrent();
  for (const row of rows.values()) row.show();
}

async function refresh(denied = () => {}) {
  try {
    await lookForModels();
    known = await catalog();
    $("models-error").textContent = "";
  } catch (error) {
    if (error.status === 401) {
      $("models").close();
      return denied();
    }
    $("models-error").textContent = sentence(error);
  }
  const names = new Set([...known.map(({ name }) => name), ...installed.map(({ id }) => id)]);
  for (const name of names) rowNamed(name).entry = known.find((entry) => entry.name === name) ?? { name, installed: true };
  for (const [name, row] of rows) if (!names.has(name) && !row.progress && !row.error) rows.delete(name);
  place([...names, ...[...rows.keys()].filter((name) => !names.has(name))].map((name) => rows.get(name).node));
  for (const row of rows.values()) row.show();
}

// Moves only what is not in its place: a moved node loses the focus.
function place(nodes) {
  const list = $("models-list");
  const focused = list.contains(document.activeElement);
  for (const node of [...list.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, i) => list.children[i] !== node && list.insertBefore(node, list.children[i] ?? null));
  if (focused && !list.contains(document.activeElement)) list.focus();
}

function rowNamed(name) {
  if (!rows.has(name)) rows.set(name, new Row(name));
  return rows.get(name);
}

// The row that the download of this belongs to.
function rowOf(model) {
  const row = [...rows.values()].find(({ entry }) => entry.fetch === model) ?? rowNamed(model);
  if (!row.node.isConnected) $("models-list").append(row.node);
  return row;
}

// Begins a download, or joins the one that runs.
async function follow(row, model = row.entry.fetch ?? row.name) {
  if (row.progress) return;
  row.goesOn({ model, state: "listing", bytes: 0, total_bytes: null });
  try {
    for await (const progress of download(model)) row.goesOn(progress);
    tell(`${row.progress.name} is installed.`);
  } catch (error) {
    if (error.code !== "download_cancelled") row.error = sentence(error);
  }
  row.progress = null;
  row.show();
  await refresh();
}

const cancel = (row) => row.trying("cancelling", () => cancelDownload(row.progress.model));

// The model for the chat from now on. One that cannot be loaded gives way to the one before.
async function use(row, force = false) {
  choose(row.name);
  const done = await row.trying("loading", () => load(row.name, force), (error) => {
    if (error.code !== "model_needs_force") return false;
    row.ask(error.message, "Load it all the same", () => use(row, true));
    return true;
  });
  if (wanted === row.name) {
    if (done) settled = wanted;
    else choose(settled);
  }
  const here = row.node.contains(document.activeElement);
  pollNow(); // its context may be of another size
  await refresh();
  if (done && here && $("models").open) {
    $("models").close();
    $("question").focus();
  }
  return done;
}

// The same for who chose it elsewhere; whether it is loaded. Where it is not, the dialog says why.
export async function changeOver(name) {
  const done = await use(rowNamed(name));
  if (!done) openModels();
  return done;
}

async function drop(row) {
  if (!(await row.trying("deleting", () => remove(row.name)))) return;
  tell(`${row.name} is deleted.`);
  await refresh();
}

// Said to those who do not see the page; progress is not: it would never end.
const tell = (text) => ($("models-said").textContent = text);

function write(node, text) {
  node.textContent = text;
  node.hidden = !text;
}

function facts({ bytes, parameters: n, licence, reasoning }) {
  const count = n && (n < 1e9 ? `${Math.round(n / 1e6)} M parameters` : `${(n / 1e9).toFixed(1)} B parameters`);
  return [bytes && size(bytes), count, licence, reasoning && "thinks aloud"].filter(Boolean);
}

function verdictFacts({ verdict, tokens_per_s: rate, memory_bytes: needs, available_bytes: free }) {
  const speed = rate && `about ${pace(rate)}`;
  const memory = needs && `needs ${size(needs)} of memory${free ? `; ${size(free)} free` : ""}`;
  return [verdict !== "unknown" && verdict, speed, memory].filter(Boolean);
}

// One model. Its parts are only hidden, shown and written anew, so that nothing jumps or loses the focus.
class Row {
  constructor(name) {
    this.name = name;
    this.entry = { name };
    this.progress = null; // of its download
    this.doing = ""; // what the server was asked to do and has not done yet
    this.error = "";
    this.node = $("model-row").content.firstElementChild.cloneNode(true);
    this.part = Object.fromEntries([...this.node.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
    const { actions, question } = this.part;
    this.part.name.id = `model-${crypto.getRandomValues(new Uint32Array(1))}`;
    for (const button of actions.children) button.setAttribute("aria-describedby", this.part.name.id); // each row has them
    const answered = { yes: () => this.#settle(this.act), no: () => this.#settle() };
    const acts = { use, fetch: () => follow(this), cancel, drop: () => this.#askToDelete(), ...answered };
    this.node.addEventListener("click", ({ target }) => {
      if (target.getAttribute("aria-disabled") !== "true") acts[target.dataset.part]?.(this);
    });
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // else it closes the dialog
      this.#settle();
    });
  }

  // How its download stands.
  goesOn(progress) {
    if (this.progress?.state !== progress.state) tell(`${this.name}: ${progressWords(progress).step}`);
    this.error = "";
    this.progress = progress;
    this.show();
  }

  // Does it and tells whether that went well. `known` may deal with an error itself.
  async trying(doing, act, known = () => false) {
    if (this.doing) return false;
    this.doing = doing;
    this.error = "";
    this.show();
    try {
      await act();
      return true;
    } catch (error) {
      if (!known(error)) this.error = sentence(error);
      return false;
    } finally {
      this.doing = "";
      this.show();
    }
  }

  ask(text, yes, act) {
    const { asked, question } = this.part;
    asked.textContent = text;
    question.setAttribute("aria-label", text);
    this.part.yes.textContent = yes;
    this.act = act;
    question.hidden = false;
    if ($("models").open) this.part.no.focus();
  }

  show() {
    const { name, tags, purpose, about, verdict, actions, fault } = this.part;
    const focused = document.activeElement;
    const state = installed.find(({ id }) => id === this.name)?.state;
    const mine = current() === this.name;
    if (mine) showCurrent();
    name.textContent = this.name;
    write(tags, [this.entry.recommended && "recommended", mine && "in use", STATES[state]].filter(Boolean).join(" · "));
    write(purpose, this.entry.good_for ?? "");
    write(about, facts(this.entry).join(" · "));
    write(verdict, verdictFacts(this.entry).join(" · "));
    verdict.classList.toggle("bad", BAD.includes(this.entry.verdict));
    write(fault, this.error);
    this.#showProgress();
    this.#showActions(state, mine);
    if (this.node.contains(focused) && focused.closest("[hidden]")) actions.querySelector("button:not([hidden])")?.focus();
  }

  #showActions(state, mine) {
    const { use, fetch, cancel, drop } = this.part;
    const { installed: here, fetch: source } = this.entry;
    const loads = this.doing === "loading" || state === "loading";
    use.hidden = !here;
    use.textContent = loads ? "Loading …" : !mine ? "Use" : state === "loaded" ? "In use" : "Load";
    use.setAttribute("aria-disabled", loads || (mine && state === "loaded"));
    fetch.hidden = here || this.progress !== null || source === null;
    cancel.hidden = this.progress === null;
    drop.hidden = !here || this.name === installed[0]?.id; // the server keeps its default
    for (const button of [cancel, drop]) button.setAttribute("aria-disabled", this.doing !== "");
  }

  #showProgress() {
    const { download, bar, amount, speed, step } = this.part;
    download.hidden = this.progress === null;
    if (!this.progress) return;
    const words = progressWords(this.progress);
    bar.setAttribute("aria-label", `Download of ${this.name}`);
    showProgress(bar, this.progress);
    amount.textContent = words.amount;
    speed.textContent = words.speed;
    write(step, this.progress.note ?? "");
  }

  #askToDelete() {
    const room = this.entry.bytes ? ` (${size(this.entry.bytes)})` : "";
    this.ask(`Delete the file of ${this.name}${room} from this computer?`, "Delete it", () => drop(this));
  }

  #settle(act = () => {}) {
    const focused = this.part.question.contains(document.activeElement);
    this.part.question.hidden = true;
    if (focused) this.part.actions.querySelector("button:not([hidden])")?.focus();
    act();
  }
}

$("composer").addEventListener("submit", () => say(""));
$("models-close").addEventListener("click", () => $("models").close());
$("models").addEventListener("close", () => {
  for (const row of rows.values()) row.error = ""; // read, or out of date when it opens again
});
$("another").addEventListener("submit", (event) => {
  event.preventDefault();
  const model = $("wanted").value.trim();
  if (!model) return;
  const row = rowOf(model);
  follow(row, model);
  row.node.scrollIntoView({ block: "nearest" });
  $("wanted").value = "";
});
