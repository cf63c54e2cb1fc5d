// The turns on the page: questions and answers with what can be done to them. What is to be done is told to `act`.
import { copyBy } from "./clipboard.js";
import { $, button, composing, element, made, place, when, write } from "./dom.js";
import { canContinue, facts, thought } from "./live.js";
import { preference } from "./settings.js";
import { Writing } from "./writing.js";

let shown = new Map(); // the turn of each message that has one
let act = () => {}; // (what, message, ...more)

// What can be done with a question or an answer: the word of the button, and its name where that says more.
const actionsOf = (what) => ({
  answer: ["Answer"],
  edit: ["Edit", "Edit question"],
  copy: ["Copy", `Copy ${what}`],
  models: ["Choose a model"],
  continue: ["Continue", "Continue answer"],
  again: ["Again", "Answer again"],
  afresh: ["Answer afresh"],
  delete: ["Delete", `Delete ${what}`],
});

export const onAct = (callback) => (act = callback);
export const turnOf = (message) => shown.get(message);

// Shows these messages and no others. What stays on the page stays the same node.
export function showBranch(branch, siblings) {
  const turns = branch.map((message) => shown.get(message) ?? new (message.role === "user" ? Question : Answer)(message));
  shown = new Map(turns.map((turn) => [turn.message, turn]));
  if (place($("turns"), turns.map(({ node }) => node))) (turns.at(-1)?.node ?? $("question")).focus({ preventScroll: true });
  for (const turn of turns) {
    turn.showBranches(siblings(turn.message));
    turn.isLast = turn === turns.at(-1);
    turn.update();
  }
}

// What questions and answers have in common.
class Turn {
  constructor(message, ariaLabel, kind) {
    this.message = message;
    this.note = element("p", "note");
    this.text = element("div", "text");
    this.error = made("div", { className: "error", role: "alert" });
    this.branches = element("div", "branches");
    this.facts = element("span", "facts");
    this.actions = element("div", "actions");
    this.below = made("div", { className: "below" }, this.branches, this.facts, this.actions);
    const fields = { className: `turn ${kind}`, ariaLabel, tabIndex: -1 }; // it takes the focus of a button that goes
    this.node = made("article", fields, this.note, this.text, this.error, this.below);
  }

  // The arrows from branch to branch, where there are several.
  showBranches(siblings) {
    const n = siblings.indexOf(this.message) + 1;
    const key = siblings.length < 2 ? "" : `${n}/${siblings.length}`;
    if (this.branches.dataset.shown === key) return;
    this.branches.dataset.shown = key;
    this.branches.replaceChildren();
    if (!key) return;
    const arrow = (text, ariaLabel, to) => button(text, () => act("pick", to), { ariaLabel, disabled: !to });
    const place = { className: "place", textContent: key, role: "img", ariaLabel: `Version ${n} of ${siblings.length}` };
    this.branches.append(
      arrow("‹", "Earlier version", siblings[n - 2]),
      made("span", place),
      arrow("›", "Later version", siblings[n]),
    );
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
    const [text, ariaLabel = null] = actionsOf(this.message.role === "user" ? "question" : "answer")[name];
    const own = {
      copy: ({ target }) => copyBy(target, this.message.content),
      models: () => $("model").click(),
      edit: () => this.edit(),
      delete: () => this.#askToDelete(),
    };
    const node = button(text, own[name] ?? (() => act(name, this.message)), { ariaLabel });
    node.dataset.act = name; // which a key presses
    return node;
  }

  #askToDelete() {
    const ariaLabel = "Delete this and what follows?";
    const leave = () => {
      asked.replaceWith(this.actions);
      (this.actions.lastChild ?? this.node).focus();
    };
    const no = button("No", leave);
    const yes = button("Delete", () => {
      no.focus();
      yes.disabled = true; // a second click would find nothing
      act("delete", this.message);
    });
    const asked = made("div", { className: "asked", role: "group", ariaLabel }, ariaLabel, yes, no);
    when(asked, "keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      leave();
    });
    this.actions.replaceWith(asked);
    no.focus();
  }
}

class Question extends Turn {
  constructor(message) {
    super(message, "You", "user");
    const file = ({ name, text }) =>
      made("details", { className: "file" }, element("summary", "", name), element("pre", "", text));
    if (message.files?.length) this.text.before(made("div", { className: "attached" }, ...message.files.map(file)));
  }

  update() {
    write(this.text, this.message.content);
    this.showActions([...(this.isLast ? ["answer"] : []), "edit", "copy", "delete"]);
    write(this.error, this.message.facts?.error ?? "");
  }

  // In its place; what comes of it is a branch of its own.
  edit() {
    if (this.editor) return;
    const box = made("textarea", { value: this.message.content, ariaLabel: "Your question" });
    const leave = () => {
      this.editor.replaceWith(this.text);
      this.editor = null;
      this.below.hidden = false;
      this.actions.querySelector("button")?.focus();
    };
    const send = made("button", { type: "submit", textContent: "Send" });
    const form = made("form", { className: "editor" }, box, send, button("Cancel", leave, { className: "" }));
    when(form, "submit", (event) => {
      event.preventDefault();
      const text = box.value.trim();
      if (!text) return;
      leave();
      if (text !== this.message.content) act("edit", this.message, text);
    });
    when(form, "keydown", (event) => {
      if (composing(event)) return;
      if (event.key === "Escape") {
        event.stopPropagation(); // else it stops an answer
        leave();
      } else if (event.key === "Enter" && !event.shiftKey && event.target === box) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.editor = form;
    this.text.replaceWith(form);
    this.below.hidden = true;
    box.focus();
  }
}

class Answer extends Turn {
  constructor(message) {
    super(message, "Answer", "assistant");
    this.writing = new Writing(this.text);
  }

  // At most once a frame: a fast model says more words a second than a page can be laid out anew.
  update() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const { state, content, reasoning, live, note, facts: known } = this.message;
    const runs = state === "running";
    this.node.classList.toggle("waiting", runs && !content && !reasoning);
    this.node.classList.toggle("writing", runs && Boolean(content));
    if (reasoning) this.#think(runs && !content);
    this.writing.show(content, runs);
    write(this.note, note ?? "");
    write(this.facts, runs ? (live?.waits ?? "") : facts(this.message).join(" · "));
    this.showActions(runs ? [] : this.#possible());
    write(this.error, state === "failed" ? (known.error?.message ?? known.error ?? "It failed.") : "");
    this.#tick(runs && !content);
  }

  #possible() {
    const { message } = this;
    const names = message.content.trim() ? ["copy"] : [];
    if (message.code?.startsWith("model_")) names.push("models");
    if (this.isLast && canContinue(message, preference("onContextFull") === "leave-out-oldest")) names.push("continue");
    return [...names, message.facts.cache === "hit" ? "afresh" : "again", "delete"];
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
    write(this.thoughts.firstChild, now ? `Thinking …${seconds < 1 ? "" : time}` : `Thought${time && ` for${time}`}`);
    this.thoughts.classList.toggle("now", now);
    if (!now && this.thinks) this.thoughts.open = false;
    this.thinks = now;
    if (this.thoughts.open) this.reasons.show(this.message.reasoning, now);
  }

  #makeThoughts(now) {
    const text = element("div", "thought");
    this.thoughts = made("details", { className: "thoughts", open: now }, element("summary"), text);
    when(this.thoughts, "toggle", () => this.update());
    this.reasons = new Writing(text);
    this.text.before(this.thoughts);
  }
}
