// Nodes of the page: those that are there, and new ones.

export const $ = (id) => document.getElementById(id);

export function made(tag, fields, ...inside) {
  const node = Object.assign(document.createElement(tag), fields);
  node.append(...inside.filter(Boolean));
  return node;
}

export const element = (tag, className, textContent = "") => made(tag, { className, textContent });
