// The first run: the demo model says what it is, and offers the model that suits this machine. One click fetches it, and the
// page changes over to it, also when it was closed meanwhile.
import { downloads } from "./api.js";
import { $, when, write } from "./dom.js";
import { changeOver, chosen, follow, recommended, rowNamed, say } from "./models.js";
import { onStatus } from "./poll.js";

const GOT = "getting"; // in localStorage: the model that was wanted, until the page has changed over to it
const QUIET_MS = 1000; // the machine is measured for the offer: not while somebody asks already
const GREETING = [
  "Hello! I am the demo model.",
  "I am tiny: 6 MB that came with Linnet, to try everything at once, without the internet. I know little and am often wrong. " +
    "What you write stays on this computer.",
];
const words = [$("welcome-title"), $("welcome-text")];
const WELCOME = words.map(({ textContent }) => textContent); // for all other models
let timer = null;
let offered = null; // the row of the model

function greet({ demo, model, slots }) {
  const is_demo = (demo && (chosen() ?? model) === model) || offered?.doing === "loading";
  words.forEach((node, i) => write(node, (is_demo ? GREETING : WELCOME)[i]));
  if (!is_demo && $("offer").contains(document.activeElement)) $("question").focus();
  $("offer").hidden = !is_demo || !offered;
  if (is_demo && !slots.busy) timer ??= setTimeout(look, QUIET_MS);
}

async function look() {
  try {
    if (!$("welcome").hidden) return offer(await recommended(), await downloads());
  } catch (error) {
    console.warn("No model can be offered.", error); // the models dialog says what is wrong
  }
  timer = null; // at the next look at the server
}

function offer(entry, running) {
  if (!entry || entry.name === "demo") return; // nothing larger runs well here
  const { name, fetch, installed } = entry;
  offered = rowNamed(name);
  offered.showIn($("offered"), { fetch: get, use: change });
  $("offer").hidden = false;
  const getting = localStorage.getItem(GOT);
  if (getting && installed) change(offered); // it came while the page was closed
  else if (running.some(({ model }) => model === fetch) || (getting && getting === fetch)) get(offered);
}

// Begins the download or joins it, and changes over.
async function get(row) {
  localStorage.setItem(GOT, row.entry.fetch);
  const name = await follow(row);
  if (name) await change({ name });
  else localStorage.removeItem(GOT);
}

async function change({ name }) {
  localStorage.removeItem(GOT);
  if (await changeOver(name)) say(`${name} answers from now on.`);
}

when("offer-others", "click", () => $("model").click());
onStatus(greet);
