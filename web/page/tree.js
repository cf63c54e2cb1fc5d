// A chat as a tree of messages, and the branch of it that is shown. Knows neither the page nor the server.

export class Tree {
  #messages = new Map(); // by id, the oldest first
  leaf = null;

  get(id) {
    return this.#messages.get(id);
  }

  // From the first message to the leaf.
  get branch() {
    return this.pathTo(this.leaf);
  }

  pathTo(id) {
    const path = [];
    for (let message = this.get(id); message; message = this.get(message.parent)) path.unshift(message);
    return path;
  }

  // What else was said in its place, itself included.
  siblings({ parent }) {
    return [...this.#messages.values()].filter((message) => message.parent === parent);
  }

  add(message) {
    this.#messages.set(message.id, message);
    this.leaf = message.id;
    return message;
  }

  // The server names what the page has made.
  rename(message, id) {
    const all = [...this.#messages.values()];
    for (const child of all) if (child.parent === message.id) child.parent = id;
    if (this.leaf === message.id) this.leaf = id;
    message.id = id;
    this.#messages = new Map(all.map((each) => [each.id, each]));
  }

  // Removes it and what follows; a sibling takes its place, or else what it replied to is the end.
  remove(message) {
    const rest = this.siblings(message).filter((other) => other !== message);
    const shown = this.branch.includes(message);
    this.#drop(message);
    if (!shown) return;
    if (rest.length) this.pick(rest.at(-1));
    else this.leaf = message.parent;
  }

  // Shows the branch through this message, down to its newest end.
  pick(message) {
    for (let next = message; next; next = this.siblings({ parent: this.leaf }).at(-1)) this.leaf = next.id;
  }

  // Takes over what the server has. `isMine`: of a message that only the page knows, or knows better.
  merge(messages, leaf, isMine) {
    const known = this.#messages;
    const mine = [...known.values()].filter(isMine);
    const fresh = messages.map((message) => {
      const had = known.get(message.id);
      if (!had) return message;
      return mine.includes(had) ? had : Object.assign(had, message);
    });
    this.#messages = new Map(fresh.map((message) => [message.id, message]));
    for (const message of mine) this.#messages.set(message.id, message);
    const stays = mine.some(({ id }) => id === this.leaf);
    if (!stays) this.leaf = this.#messages.has(leaf) ? leaf : (messages.at(-1)?.id ?? null);
  }

  #drop(message) {
    for (const child of this.siblings({ parent: message.id })) this.#drop(child);
    this.#messages.delete(message.id);
  }
}
