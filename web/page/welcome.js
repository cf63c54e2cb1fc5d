// The first run: the demo model says what it is, and offers the model that suits this machine. One click fetches it, and the
// page changes over to it, also when it was closed meanwhile.
import { cancelDownload, catalog, download, downloads, sentence } from "./api.js";
import { $ } from "./dom.js";
import { changeOver, chosen, say } from "./models.js";
import { onStatus } from "./poll.js";
import { pace, progressWords, showProgress, size } from "./words.js";

const GOT = "getting"; // in localStorage: the model that was wanted, until the page has changed over to it
const QUIET_MS = 1000; // the machine is measured for the offer: not while somebody asks already
let timer = null;
let offered = null; // the model's entry in the catalog
let fetching = false;

function greet({ demo, model, slots }) {
  if (!demo || (chosen() ?? model) !== model) return;
  $("welcome-title").textContent = "Hello! I am the demo model.";
  $("welcome-text").textContent =
    "I am tiny: 6 MB that came with Linnet, so that you can try everything at once, without the internet. " +
    "I know a few things and am often wrong. Whatever you write stays on this computer.";
  if (!offered && !slots.busy) timer ??= setTimeout(look, QUIET_MS);
}

async function look() {
  timer = null;
  if ($("welcome").hidden) return; // at the next look at the server, perhaps
  try {
    await offer();
  } catch (error) {
    console.warn("No model can be offered.", error); // the models dialog says what is wrong
  }
}

async function offer() {
  offered = (await catalog()).find(({ recommended }) => recommended) ?? { name: "demo" };
  if (offered.name === "demo") return; // nothing larger runs well here
  showOffer();
  const getting = localStorage.getItem(GOT);
  const running = (await downloads()).some(({ model }) => model === offered.fetch);
  if (running || (getting === offered.fetch && offered.fetch)) return get();
  if (getting && offered.installed) await use(); // it came while the page was closed
}

function showOffer() {
  const { name, good_for, bytes, tokens_per_s: rate, installed } = offered;
  const facts = [good_for && `good for ${good_for}`, rate && `about ${pace(rate)} on this machine`].filter(Boolean);
  $("offer-text").textContent = `${name} suits this machine${facts.length ? `: ${facts.join(", ")}` : ""}.`;
  $("offer-get").textContent = installed ? `Use ${name}` : `Get ${name}${bytes ? ` · ${size(bytes)}` : ""}`;
  $("offer").hidden = false;
}

// Begins the download or joins it, and changes over.
async function get() {
  if (fetching) return;
  fetching = true;
  localStorage.setItem(GOT, offered.fetch);
  $("offer-error").textContent = "";
  show({ state: "listing" });
  try {
    for await (const progress of download(offered.fetch)) {
      show(progress);
      offered.name = progress.name ?? offered.name;
    }
    offered.installed = true;
    await use();
  } catch (error) {
    localStorage.removeItem(GOT);
    if (error.code !== "download_cancelled") $("offer-error").textContent = sentence(error);
  } finally {
    fetching = false;
    show(null);
  }
}

async function use() {
  localStorage.removeItem(GOT);
  $("offer-step").textContent = `loading ${offered.name} …`;
  if (!(await changeOver(offered.name))) return showOffer();
  $("offer").hidden = true;
  $("welcome-title").textContent = "What would you like to know?";
  $("welcome-text").textContent = `${offered.name} answers from now on. Everything stays on this computer.`;
  say(`${offered.name} answers from now on.`);
}

function show(progress) {
  const focused = document.activeElement === $(progress ? "offer-get" : "offer-cancel");
  $("offer-progress").hidden = progress === null;
  $("offer-get").hidden = progress !== null;
  if (focused) $(progress ? "offer-cancel" : "offer-get").focus();
  if (!progress) return;
  const { step, amount, speed } = progressWords(progress);
  showProgress($("offer-bar"), progress);
  $("offer-amount").textContent = amount;
  $("offer-speed").textContent = speed;
  if ($("offer-step").textContent !== step) $("offer-step").textContent = step; // read aloud, so not again and again
}

$("offer-get").addEventListener("click", () => (offered.installed ? use() : get()));
$("offer-cancel").addEventListener("click", () => {
  cancelDownload(offered.fetch).catch((error) => ($("offer-error").textContent = sentence(error)));
});
$("offer-others").addEventListener("click", () => $("model").click());
onStatus(greet);
