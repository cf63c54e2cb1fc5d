// The turns on the page: questions and answers with what can be done to them. What is to be done is told to `act`.
import { copyBy } from "./clipboard.js";
import { $, element } from "./dom.js";
import { canContinue, facts, thought } from "./live.js";
import { preference } from "./settings.js";
import { Writing } from "./writing.js";

const shown = new Map(); // the turn of each message that has one
let act = () => {}; // (what, message, ...more)

function button(text, label, action) {
  const node = element("button", "quiet", text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", () => action(node));
  return node;
}

export const onAct = (callback) => (act = callback);
export const turnOf = (message) => shown.get(message);

// Shows these messages and no others. What stays on the page stays the same node.
export function showBranch(branch, siblings) {
  for (const [message, turn] of shown) {
    if (branch.includes(message)) continue;
    turn.node.remove();
    shown.delete(message);
  }
  branch.forEach((message, i) => {
    if (!shown.has(message)) shown.set(message, message.role === "user" ? new Question(message) : new Answer(message));
    const turn = shown.get(message);
    if ($("turns").children[i] !== turn.node) $("turns").insertBefore(turn.node, $("turns").children[i] ?? null);
    turn.showBranches(siblings(message));
    turn.isLast = i === branch.length - 1;
    turn.update();
  });
}

// What questions and answers have in common.
class Turn {
  constructor(message, name, kind) {
    this.message = message;
    this.node = element("article", `turn ${kind}`);
    this.node.setAttribute("aria-label", name);
    this.node.tabIndex = -1; // takes the focus of a button that goes
    this.text = element("div", "text");
    this.below = element("div", "below");
    this.branches = element("div", "branches");
    this.facts = element("span", "facts");
    this.actions = element("div", "actions");
    this.below.append(this.branches, this.facts, this.actions);
    this.node.append(this.text, this.below);
  }

  // The arrows from branch to branch, where there are several.
  showBranches(siblings) {
    const n = siblings.indexOf(this.message) + 1;
    const key = siblings.length < 2 ? "" : `${n}/${siblings.length}`;
    if (this.branches.dataset.shown === key) return;
    this.branches.dataset.shown = key;
    this.branches.replaceChildren();
    if (!key) return;
    const to = (step) => act("pick", siblings[n - 1 + step]);
    const before = button("‹", "Earlier version", () => to(-1));
    const after = button("›", "Later version", () => to(1));
    before.disabled = n === 1;
    after.disabled = n === siblings.length;
    const place = element("span", "place", key);
    place.setAttribute("aria-label", `Version ${n} of ${siblings.length}`);
    place.setAttribute("role", "img");
    this.branches.append(before, place, after);
  }

  showActions(names) {
    const key = names.join();
    if (this.actions.dataset.shown === key) return;
    const focused = this.actions.contains(document.activeElement);
    this.actions.dataset.shown = key;
    this.actions.replaceChildren(...names.map((name) => this.#action(name)));
    if (focused) (this.actions.querySelector("button") ?? this.node).focus({ preventScroll: true });
  }

  #action(name) {
    const what = this.message.role === "user" ? "question" : "answer";
    const made = {
      copy: () => button("Copy", `Copy ${what}`, (node) => copyBy(node, this.message.content)),
      answer: () => button("Answer", "", () => act("answer", this.message)),
      edit: () => button("Edit", "Edit question", () => this.edit()),
      again: () => button("Again", "Answer again", () => act("again", this.message)),
      afresh: () => button("Answer afresh", "", () => act("afresh", this.message)),
      continue: () => button("Continue", "Continue answer", () => act("continue", this.message)),
      models: () => button("Choose a model", "", () => act("models")),
      delete: () => button("Delete", `Delete ${what}`, () => this.#askToDelete()),
    };
    const node = made[name]();
    node.dataset.act = name; // which a key presses
    return node;
  }

  #askToDelete() {
    const asked = element("div", "asked");
    const leave = () => {
      asked.replaceWith(this.actions);
      [...this.actions.children].at(-1)?.focus();
    };
    const no = button("No", "", leave);
    asked.setAttribute("role", "group");
    asked.setAttribute("aria-label", "Delete this and what follows?");
    asked.append("Delete this and what follows?", button("Delete", "", () => act("delete", this.message)), no);
    asked.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      leave();
    });
    this.actions.replaceWith(asked);
    no.focus();
  }

  showError(text) {
    if (!text) return this.error?.remove();
    this.error ??= Object.assign(element("div", "error"), { role: "alert" });
    if (this.error.textContent !== text) this.error.textContent = text;
    if (!this.error.isConnected) this.below.before(this.error);
  }
}

class Question extends Turn {
  constructor(message) {
    super(message, "You", "user");
    const attached = element("div", "attached");
    for (const { name, text } of message.files ?? []) {
      const file = element("details", "file");
      file.append(element("summary", "", name), element("pre", "", text));
      attached.append(file);
    }
    if (attached.firstChild) this.text.before(attached);
  }

  update() {
    if (this.text.textContent !== this.message.content) this.text.textContent = this.message.content;
    this.showActions([...(this.isLast ? ["answer"] : []), "edit", "copy", "delete"]);
    this.showError(this.message.facts?.error ?? "");
  }

  // In its place; what comes of it is a branch of its own.
  edit() {
    if (this.editor) return;
    const form = (this.editor = element("form", "editor"));
    const box = element("textarea", "");
    box.value = this.message.content;
    box.setAttribute("aria-label", "Your question");
    const leave = () => {
      form.replaceWith(this.text);
      this.editor = null;
      this.below.hidden = false;
      this.actions.querySelector("button")?.focus();
    };
    const send = Object.assign(element("button", "", "Send"), { type: "submit" });
    form.append(box, send, button("Cancel", "", leave));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = box.value.trim();
      if (!text) return;
      leave();
      if (text !== this.message.content) act("edit", this.message, text);
    });
    form.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") {
        event.stopPropagation(); // else it stops an answer
        leave();
      } else if (event.key === "Enter" && !event.shiftKey && event.target === box) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.text.replaceWith(form);
    this.below.hidden = true;
    box.focus();
  }
}

class Answer extends Turn {
  constructor(message) {
    super(message, "Answer", "assistant");
    this.writing = new Writing(this.text);
    this.note = element("p", "note");
  }

  // At most once a frame: a fast model says more words a second than a page can be laid out anew.
  update() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const { message } = this;
    const { state, content, reasoning, live } = message;
    const runs = state === "running";
    this.node.classList.toggle("waiting", runs && !content && !reasoning);
    this.node.classList.toggle("writing", runs && Boolean(content));
    if (reasoning) this.#think(runs && !content);
    const text = content.trim();
    if (runs) this.writing.grow(text);
    else this.writing.end(text);
    this.#showNote(message.note ?? "");
    this.#showFacts(runs ? [live?.waits || ""] : facts(message));
    this.showActions(runs ? [] : this.#possible());
    this.showError(state === "failed" ? (message.facts.error?.message ?? message.facts.error ?? "It failed.") : "");
    this.#tick(runs && !content);
  }

  #possible() {
    const { message } = this;
    const names = message.content.trim() ? ["copy"] : [];
    if (message.code?.startsWith("model_")) names.push("models");
    if (canContinue(message, preference("onContextFull") === "leave-out-oldest")) names.push("continue");
    names.push(message.facts.cache === "hit" ? "afresh" : "again", "delete");
    return names;
  }

  #showFacts(said) {
    const text = said.join(" · ");
    if (this.facts.textContent !== text) this.facts.textContent = text;
  }

  #showNote(text) {
    this.note.textContent = text;
    if (text && !this.note.isConnected) this.node.prepend(this.note);
  }

  // Seconds pass while nothing comes.
  #tick(waits) {
    if (waits) this.timer ??= setInterval(() => (this.node.isConnected ? this.update() : this.#tick(false)), 1000);
    else this.timer = clearInterval(this.timer);
  }

  // Rendered only where it is seen: most of it never is.
  #think(now) {
    if (!this.thoughts) this.#makeThoughts(now);
    const seconds = thought(this.message);
    const time = seconds === null ? "" : seconds < 1 ? " a moment" : ` ${Math.round(seconds)} s`;
    const title = now ? `Thinking …${seconds < 1 ? "" : time}` : `Thought${time && ` for${time}`}`;
    const summary = this.thoughts.firstChild;
    if (summary.textContent !== title) summary.textContent = title;
    this.thoughts.classList.toggle("now", now);
    if (!now && this.thinks) this.thoughts.open = false;
    this.thinks = now;
    if (!this.thoughts.open) return;
    if (now) this.reasons.grow(this.message.reasoning.trim());
    else this.reasons.end(this.message.reasoning.trim());
  }

  #makeThoughts(now) {
    this.thoughts = element("details", "thoughts");
    const text = element("div", "thought");
    this.thoughts.append(element("summary", ""), text);
    this.thoughts.open = now && preference("showReasoning") !== false;
    this.thoughts.addEventListener("toggle", () => this.update());
    this.reasons = new Writing(text);
    this.text.before(this.thoughts);
  }
}
