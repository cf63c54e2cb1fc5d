// Says answers to those who do not see the page: by whole sentences, not by every token.
import { $ } from "./dom.js";

const PAUSE_MS = 1500; // between two things said
const SENTENCE_END = /[.!?:…。！？]["”’)]*\s|\n/g;
let text = ""; // of the answer that is being said
let said = 0; // as far as this
let ended = false;
let timer = null;

// `end`: the rest is said too.
export function speak(content, end = false) {
  if (content.length < text.length) said = 0;
  text = content;
  ended = end;
  timer ??= setTimeout(say, end ? 0 : PAUSE_MS);
}

export function begin(content = "") {
  text = content;
  said = content.length;
}

function say() {
  timer = null;
  const rest = text.slice(said);
  const last = [...rest.matchAll(SENTENCE_END)].at(-1);
  const n = ended ? rest.length : last ? last.index + last[0].length : 0;
  if (n) $("spoken").textContent = plain(rest.slice(0, n));
  said += n;
  if (!ended && n) timer = setTimeout(say, PAUSE_MS); // so that what comes meanwhile waits its turn
}

// Without the marks that Markdown reads better than people.
const plain = (markdown) => markdown.replace(/^```.*$/gm, "").replace(/[*_`#|>]+/g, "").trim();
