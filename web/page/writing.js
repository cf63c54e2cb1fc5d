// Markdown that grows. The server renders and sanitizes it; blocks that are finished stay, only the tail is rendered again.
import { ask } from "./api.js";
import { copyBy } from "./clipboard.js";
import { element, made, when } from "./dom.js";
import { onStatus } from "./poll.js";

const PAUSE_MS = 100; // from one rendering of the tail to the next
const SHARE = 4; // and so many times as long as one takes: the model needs the cores more
const STALE_MS = 500; // what has not been rendered for so long is shown as it is

const policy = window.trustedTypes?.createPolicy("linnet", { createHTML: (html) => html });
const trusted = (html) => (policy ? policy.createHTML(html) : html);
const known = new Map(); // text -> blocks of what was finished
const failed = []; // called when the server can be reached again
const waiting = []; // {text, resolve, reject}: one is asked at a time, the newest first, for that is looked at
let asking = false;

function rendered(text) {
  if (known.has(text)) return known.get(text);
  return new Promise((resolve, reject) => {
    waiting.push({ text, resolve, reject });
    if (!asking) render();
  });
}

async function render() {
  asking = true;
  while (waiting.length) {
    const { text, resolve, reject } = waiting.pop();
    await ask("/api/markdown", "POST", { text }).then(({ blocks }) => resolve(blocks), reject);
  }
  asking = false;
}

export class Writing {
  #text = "";
  #blocks = []; // {html, node, end}: `end` is a place in the text
  #plain = null; // {node, end}: what is not rendered yet
  #done = 0; // where the growing block begins
  #next = 0; // when it may be rendered again
  #timer;
  #rendered_at = 0;
  #ended = false;

  constructor(node) {
    this.node = node;
  }

  // All of it so far; `grows`: there is more to come.
  show(text, grows) {
    if (grows) this.#grow(text.trim());
    else if (!this.#ended || text.trim() !== this.#text) this.#end(text.trim());
  }

  #grow(text) {
    if (text === this.#text) return;
    this.#text = text;
    if (this.#ended) this.#reopen();
    if (!this.#blocks.length || performance.now() - this.#rendered_at > STALE_MS) this.#showPlain(text.length);
    this.#schedule();
  }

  // The whole is rendered once more, for a link's address may come after the link; what is equal stays.
  async #end(text) {
    this.#timer = clearTimeout(this.#timer);
    this.#ended = true;
    this.#text = text;
    if (!this.#blocks.length) this.#timer = setTimeout(() => this.#showPlain(text.length), STALE_MS);
    try {
      const blocks = text ? await rendered(text) : [];
      this.#timer = clearTimeout(this.#timer);
      if (this.#text !== text || !this.#ended) return;
      if (known.size > 500) known.clear();
      known.set(text, blocks);
      this.#place(0, 0, blocks);
    } catch (error) {
      this.#showPlain(text.length); // it can be read all the same
      if (!error.status) failed.push(() => this.#ended && this.#end(this.#text));
    }
  }

  // It goes on after its end.
  #reopen() {
    this.#ended = false;
    this.#done = this.#blocks.at(-2)?.end ?? 0;
  }

  #schedule() {
    if (this.#timer || this.#ended) return;
    this.#timer = setTimeout(() => this.#render(), Math.max(0, this.#next - performance.now()));
  }

  async #render() {
    const text = this.#text;
    const from = this.#done;
    const began = performance.now();
    try {
      const blocks = await rendered(text.slice(from));
      if (this.#ended) return;
      this.#place(from, this.#blocks.filter(({ end }) => end <= from).length, blocks);
      if (blocks.length > 1) this.#done = from + blocks.at(-2).end;
      this.#rendered_at = performance.now();
    } catch {
      this.#showPlain(this.#text.length);
    }
    this.#next = began + Math.max(PAUSE_MS, SHARE * (performance.now() - began));
    this.#timer = null;
    if (this.#text !== text) this.#schedule();
  }

  // The blocks of the text from `from` on are these; the first `n` stay.
  #place(from, n, blocks) {
    blocks.forEach(({ html, end }, i) => {
      const had = this.#blocks[n + i];
      const node = had?.node ?? element("div", "block");
      if (had?.html !== html) morph(node, decorated(html));
      if (!had) this.node.insertBefore(node, this.#plain?.node ?? null);
      this.#blocks[n + i] = { html, node, end: from + end };
    });
    for (const { node } of this.#blocks.splice(n + blocks.length)) node.remove();
    this.#clearPlain();
  }

  // Appends what is new: a long text node is laid out anew as a whole.
  #showPlain(end) {
    const begin = this.#blocks.at(-1)?.end ?? 0;
    this.#plain ??= { node: element("div", "plain"), end: begin };
    if (!this.#plain.node.isConnected) this.node.append(this.#plain.node);
    this.#plain.node.append(this.#text.slice(this.#plain.end, end));
    this.#plain.end = end;
  }

  // What has come since the rendering was asked for stays to be seen.
  #clearPlain() {
    if (!this.#plain) return;
    const { node, end } = this.#plain;
    node.remove();
    this.#plain = null;
    if (end > (this.#blocks.at(-1)?.end ?? 0) && !this.#ended) this.#showPlain(end);
  }
}

function decorated(html) {
  const template = document.createElement("template");
  template.innerHTML = trusted(html);
  const { content } = template;
  for (const pre of content.querySelectorAll("pre")) {
    const copy = made("button", { type: "button", className: "quiet copy-code", ariaLabel: "Copy code" }, "Copy");
    const head = made("div", { className: "code-head" }, element("span", "", pre.dataset.language), copy);
    const box = made("div", { className: "code-box" }, head);
    pre.replaceWith(box);
    pre.tabIndex = 0; // it scrolls
    box.append(pre);
  }
  for (const link of content.querySelectorAll("[href]")) {
    if (link.textContent !== link.title) link.dataset.host = link.hostname || link.pathname; // as it will be followed
  }
  for (const box of content.querySelectorAll(".table")) {
    Object.assign(box, { tabIndex: 0, role: "group", ariaLabel: "Table" });
  }
  return content;
}

// Makes the children of one node those of another and touches only what differs: a selection and a scrolled box stay.
function morph(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, i) => {
    const had = before[i];
    if (!had) old.append(node);
    else if (had.isEqualNode(node)) return;
    else if (had.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) had.data = node.data;
    else if (had.nodeType === Node.ELEMENT_NODE && had.cloneNode().isEqualNode(node.cloneNode())) morph(had, node);
    else had.replaceWith(node);
  });
  for (const node of before.slice(after.length)) node.remove();
}

onStatus(() => failed.splice(0).forEach((again) => again()));
// A box may get another button, or another text, as it grows.
when(document, "click", ({ target }) => {
  if (target.matches?.(".copy-code")) copyBy(target, target.closest(".code-box").querySelector("pre").textContent);
});
