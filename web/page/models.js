// The models: which there are and could be, in the dialog and where else they are shown, and the one that the chat uses.
import { cancelDownload, catalog, download, downloads, load, models, remove, sentence } from "./api.js";
import { $, made, place, when, write } from "./dom.js";
import { ModelView } from "./modelview.js";
import { pollNow } from "./poll.js";
import { progressWords, size } from "./words.js";

const LOST_MS = 1000; // until a lost download is joined
const rows = new Map(); // by the model's name, or by what was asked for while another model is fetched
let installed = []; // as the server listed them last, its default first
let wanted = localStorage.getItem("model"); // the model that was chosen; null: the server's default
let settled = wanted; // the last choice that is not still being loaded
let known = []; // the catalog as it was last told

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

// The model that suits this machine, if there is one. Throws ApiError.
export async function recommended() {
  known = await catalog();
  return known.find((entry) => entry.recommended);
}

// `denied` is called if the server wants a key first.
export async function openModels(denied) {
  say("");
  if (!$("models").open) $("models").showModal();
  [...rows.values()].find(({ question }) => question)?.views[0].part.no.focus();
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
    write($("models-error"), "");
  } catch (error) {
    if (error.status === 401) {
      $("models").close();
      return denied();
    }
    write($("models-error"), sentence(error));
  }
  const names = new Set([...known.map(({ name }) => name), ...installed.map(({ id }) => id)]);
  for (const [name, row] of rows) if (!names.has(name) && !row.following && !row.error) rows.delete(name);
  const nodes = [...new Set([...names, ...rows.keys()])].map((name) => rowNamed(name).node);
  if (place($("models-list"), nodes)) $("models-list").focus();
  for (const row of rows.values()) row.show();
}

export function rowNamed(name) {
  if (!rows.has(name)) rows.set(name, new Row(name));
  return rows.get(name);
}

// The row that the download of this belongs to.
const rowOf = (model) => rowNamed(known.find(({ fetch }) => fetch === model)?.name ?? model);

// Begins a download, or joins the one that runs. Returns the name of the model that is there then; null: none is.
export const follow = (row, model = row.entry.fetch ?? row.name) => (row.following ??= watch(row, model));

async function watch(row, model) {
  let name = null;
  row.goesOn({ bytes: 0, total_bytes: null, ...row.progress, model, state: "waiting" });
  try {
    for await (const progress of download(model)) row.goesOn(progress);
    ({ name } = row.progress);
    rename(row, name);
    tell(`${name} is installed.`);
  } catch (error) {
    if (!error.status) {
      await new Promise((done) => setTimeout(done, LOST_MS));
      if (!row.cancelled) return watch(row, model);
    } else if (error.code !== "download_cancelled") row.error = sentence(error);
  }
  row.following = row.cancelled = null;
  await refresh();
  row.progress = null; // only now: else the model would be neither on its way nor there for a moment
  row.show();
  return name;
}

// A model may be called otherwise once it is there. Its row stays where it is, with the focus.
function rename(row, name) {
  if (rows.has(name)) return;
  rows.delete(row.name);
  row.name = name;
  rows.set(name, row);
}

// The model for the chat from now on. One that cannot be loaded gives way to the one before.
async function use(row, force = false, ctx) {
  if (row.name !== current()) choose(row.name);
  const done = await row.trying("loading", () => load(row.name, force, ctx), () => use(row, true, ctx));
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
export async function changeOver(name, ctx) {
  const done = await use(rowNamed(name), false, ctx);
  if (!done) openModels();
  return done;
}

function askToDelete(row) {
  const room = row.entry.bytes ? ` (${size(row.entry.bytes)})` : "";
  row.ask(`Delete the file of ${row.name}${room} from this computer?`, "Delete it", () => drop(row));
}

async function drop(row) {
  if (!(await row.trying("deleting", () => remove(row.name)))) return;
  tell(`${row.name} is deleted.`);
  await refresh();
}

// What a click on a part of a row does.
const ACTS = {
  use,
  fetch: follow,
  cancel(row) {
    row.cancelled = true;
    row.trying("cancelling", () => cancelDownload(row.progress.model));
  },
  drop: askToDelete,
  yes: (row) => row.settle(row.question.act),
  no: (row) => row.settle(),
};

// Said to those who do not see the page; progress is not: it would never end. Behind an open dialog nothing is read aloud.
const tell = (text) => write($($("models").open ? "models-said" : "spoken"), text);

// One model, as it is shown in the dialog and perhaps elsewhere.
class Row {
  progress = null; // of its download
  following = null; // the promise of its end
  doing = ""; // what the server was asked to do and has not done yet
  error = "";
  question = null; // {text, yes, act}
  views = [];

  constructor(name) {
    this.name = name;
    this.node = made("li", { className: "model" });
    $("models-list").append(this.node);
    this.showIn(this.node);
  }

  // In the catalog.
  get entry() {
    return known.find(({ name }) => name === this.name) ?? { installed: this.state !== undefined };
  }

  get state() {
    return installed.find(({ id }) => id === this.name)?.state;
  }

  get isChosen() {
    return current() === this.name;
  }

  get isDefault() {
    return installed[0]?.id === this.name;
  }

  // `acts`: where a click does something else in this place.
  showIn(node, acts) {
    this.views.push(new ModelView(this, node, { ...ACTS, ...acts }));
    this.show();
  }

  show() {
    if (this.isChosen) showCurrent();
    for (const view of this.views) view.show(this);
  }

  // How its download stands.
  goesOn(progress) {
    if (this.progress?.state !== progress.state) tell(`${this.name}: ${progressWords(progress).step}`);
    this.error = "";
    this.progress = progress;
    this.show();
  }

  // Does it and tells whether that went well.
  async trying(doing, act, force) {
    if (this.doing) return false;
    this.doing = doing;
    this.error = "";
    this.show();
    try {
      await act();
      return true;
    } catch (error) {
      if (error.code === "model_needs_force") this.ask(error.message, "Load it all the same", force);
      else this.error = sentence(error);
      return false;
    } finally {
      this.doing = "";
      this.show();
    }
  }

  ask(text, yes, act) {
    this.question = { text, yes, act };
    this.show();
    if ($("models").open) this.views[0].part.no.focus();
  }

  settle(act) {
    this.question = null;
    this.show();
    act?.();
  }
}

when("composer", "submit", () => say(""));
when("models", "close", () => {
  for (const row of rows.values()) Object.assign(row, { error: "", question: null }).show(); // read, or out of date
});
when("another", "submit", (event) => {
  event.preventDefault();
  const model = $("wanted").value.trim();
  if (!model) return;
  const row = rowOf(model);
  follow(row, model);
  row.node.scrollIntoView({ block: "nearest" });
  $("wanted").value = "";
});
