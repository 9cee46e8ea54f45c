// Small helpers for building the page. Text always goes in as text, never as markup.

export function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== ""));
  if (!node.firstChild && children.length) node.append("");
  return node;
}

export function fill(node, children) {
  node.replaceChildren(...children);
}

export function fixed(value, digits) {
  return value === null || value === undefined ? "" : value.toFixed(digits);
}

export function gradeBadge(grade) {
  return el("span", { class: `grade ${grade}` }, grade);
}

export function productUrl(path) {
  return `/products/${path.split("/").map(encodeURIComponent).join("/")}`;
}

// Scatter of the matched stars along RA and Dec, mas.
export function rms(quality, digits) {
  const pair = quality?.rms_mas;
  return pair ? `${fixed(pair[0], digits)} · ${fixed(pair[1], digits)}` : "";
}
