"use strict";
const all = (selector, node = document) => [...node.querySelectorAll(selector)];

// Masks: shown or hidden everywhere at once.
const toggles = all(".masks-toggle");
function showMasks(on) {
  document.body.classList.toggle("no-masks", !on);
  for (const box of toggles) box.checked = on;
}
for (const box of toggles) box.addEventListener("change", () => showMasks(box.checked));

// Tables: a click on a head sorts by it, once more turns it round. What was not measured stays last.
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending" && column > 0 || head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.children[column];
      return cell.dataset.value === "" ? cell.textContent : Number(cell.dataset.value);
    };
    const missing = (value) => value === "–";
    const rows = all("tbody tr", table).map((row) => [key(row), row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : (a > b ? 1 : a < b ? -1 : 0) * (down ? -1 : 1)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// Pictures: a click enlarges; CCDs go on with the arrow keys.
const dialog = document.getElementById("zoom");
const body = document.getElementById("zoom-body");
const ccds = all("button.ccd");
let shown = -1;

function open(node, name, index) {
  shown = index;
  body.replaceChildren(node.cloneNode(true));
  document.getElementById("zoom-name").textContent = name;
  for (const id of ["zoom-before", "zoom-next"]) document.getElementById(id).hidden = index < 0 || ccds.length < 2;
  if (!dialog.open) dialog.showModal();
}
function openCcd(index) {
  const button = ccds[(index + ccds.length) % ccds.length];
  open(button.firstElementChild, button.dataset.name, (index + ccds.length) % ccds.length);
}
ccds.forEach((button, index) => button.addEventListener("click", () => openCcd(index)));
for (const node of all(".zoomable")) {
  const title = node.parentElement.querySelector("h2")?.textContent ?? document.querySelector("h1").textContent;
  node.tabIndex = 0;
  node.setAttribute("role", "button");
  node.setAttribute("aria-label", `Enlarge: ${title}`);
  const enlarge = () => open(node.firstElementChild, title, -1);
  node.addEventListener("click", enlarge);
  node.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(); });
}
document.getElementById("zoom-before").addEventListener("click", () => openCcd(shown - 1));
document.getElementById("zoom-next").addEventListener("click", () => openCcd(shown + 1));
document.getElementById("zoom-full").addEventListener("change", (event) => dialog.classList.toggle("full", event.target.checked));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "m" || event.key === "M") showMasks(document.body.classList.contains("no-masks"));
  if (!dialog.open || shown < 0) return;
  if (event.key === "ArrowLeft") openCcd(shown - 1);
  if (event.key === "ArrowRight") openCcd(shown + 1);
});
