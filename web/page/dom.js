// Nodes of the page: those that are there, and new ones.

export const $ = (id) => document.getElementById(id);

export function made(tag, fields, ...inside) {
  const node = Object.assign(document.createElement(tag), fields);
  node.append(...inside.filter(Boolean));
  return node;
}

export const element = (tag, className = "", textContent = "") => made(tag, { className, textContent });

export function button(textContent, act, fields) {
  const node = made("button", { type: "button", className: "quiet", textContent, ...fields });
  when(node, "click", act);
  return node;
}

// `target`: a node, or the id of one.
export const when = (target, event, act, options) =>
  (target.addEventListener ? target : $(target)).addEventListener(event, act, options);

// A key that ends the composition of a Chinese or Japanese word does no more; Safari tells it only by the old code.
export const composing = (event) => event.isComposing || event.keyCode === 229;

// What is equal is neither laid out nor read aloud anew.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes these the children and moves no more than it must. Whether the focus was lost, as of a node that goes or is moved.
export function place(parent, nodes) {
  const stay = new Set(nodes);
  const focused = parent.contains(document.activeElement);
  for (const node of [...parent.children]) if (!stay.has(node)) node.remove();
  nodes.forEach((node, i) => parent.children[i] !== node && parent.insertBefore(node, parent.children[i] ?? null));
  return focused && !parent.contains(document.activeElement);
}
