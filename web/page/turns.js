// The turns on the page. Model text reaches the document as text nodes only.

// Why an answer is not whole, or shorter than the model wanted.
const CUT = {
  max_tokens: "cut: the length allowed was used up",
  context: "cut: the context is full",
  loop: "cut: it repeated itself",
  sentences: "brief",
};

const element = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

export function showQuestion(text) {
  for (const button of document.querySelectorAll(".offer")) button.remove();
  const node = element("div", "turn user");
  node.append(element("div", "text", text));
  append(node);
}

// The answer in progress, and then the finished one.
export class Answer {
  constructor() {
    this.node = element("div", "turn assistant waiting");
    this.text = element("div", "text");
    this.facts = element("div", "facts");
    this.node.append(this.text, this.facts);
    this.reasoning = "";
    this.content = "";
    this.chunks = 0;
    this.asked = performance.now();
    append(this.node);
  }

  // What was answered, without the reasoning: that is how it goes back to the model.
  get said() {
    return this.content.trim();
  }

  add(chunk) {
    const choice = chunk.choices[0];
    this.known ||= chunk.known;
    if (chunk.timings) this.timings = chunk.timings;
    if (choice?.finish_reason) this.reason = choice.stop_reason;
    const { content = "", reasoning_content: reasoning = "" } = choice?.delta ?? {};
    if (!content && !reasoning) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.chunks += 1;
    this.content += content;
    this.reasoning += reasoning;
    this.node.className = "turn assistant writing";
    // At most once a frame: a fast model says more words a second than a page can be laid out anew.
    this.frame ??= requestAnimationFrame(() => this.#show());
  }

  end(how = "") {
    this.node.className = "turn assistant";
    this.#show();
    if (this.thoughts) this.thoughts.open = false;
    const n = this.timings?.predicted_n ?? this.chunks; // stopped: about a chunk a token
    const rate = this.timings?.predicted_per_second ?? (1000 * (n - 1)) / (this.last - this.first);
    const facts = [`${n} ${n === 1 ? "token" : "tokens"}`];
    if (this.known) facts.push("from memory");
    else {
      if (n > 1 && isFinite(rate)) facts.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`);
      if (this.first) facts.push(`first after ${((this.first - this.asked) / 1000).toFixed(2)} s`);
    }
    if (this.reason in CUT) facts.push(CUT[this.reason]);
    if (how) facts.push(how);
    this.facts.textContent = facts.join(" · ");
  }

  // Offered under the last answer only: what follows was said in reply to it.
  offer(label, action) {
    this.facts.append(element("button", "offer", label));
    this.facts.lastChild.addEventListener("click", action);
  }

  fail(message) {
    this.node.className = "turn assistant";
    this.#show();
    this.node.append(element("div", "error", message));
    this.node.lastChild.setAttribute("role", "alert");
  }

  #show() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    keepingScroll(() => {
      if (this.reasoning) this.#think(this.reasoning);
      this.text.textContent = this.said;
    });
  }

  #think(text) {
    if (!this.thoughts) {
      this.thoughts = element("details", "thoughts");
      this.thoughts.open = true;
      this.thoughts.append(element("summary", "", "Reasoning"), element("p", ""));
      this.node.prepend(this.thoughts);
    }
    this.thoughts.lastChild.textContent = text;
  }
}

function append(node) {
  document.getElementById("turns").append(node);
  node.scrollIntoView({ block: "end" });
}

// Follows the growing answer, unless the reader has scrolled up.
function keepingScroll(change) {
  const main = document.querySelector("main");
  const following = main.scrollHeight - main.scrollTop - main.clientHeight < 40;
  change();
  if (following) main.scrollTop = main.scrollHeight;
}
