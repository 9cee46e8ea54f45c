// The live page: what changes comes from the API, when it changes is told by server-sent events.

import { el, fill, fixed, gradeBadge, productUrl, rms } from "./parts.js";
import { showImage, showStack } from "./detail.js";

const LANES = {
  images: [
    ["stage", "image.arrived"], ["worker", "ingest", "image.arrived"],
    ["stage", "image.verified"], ["worker", "quality", "image.verified"],
    ["stage", "image.graded"], ["worker", "calib", "image.graded"],
    ["stage", "image.calibrated"], ["aside", "image.rejected"], ["aside", "image.failed"],
  ],
  stacks: [
    ["stage", "stack.requested"], ["worker", "stack", "stack.requested"],
    ["stage", "stack.planned"], ["worker", "calib", "stack.planned"],
    ["stage", "stack.calibrated"], ["worker", "stack", "stack.calibrated"],
    ["stage", "stack.coadded"], ["worker", "quality", "stack.coadded"],
    ["stage", "stack.done"], ["worker", "export", "stack.done"],
    ["stage", "stack.exported"], ["aside", "stack.failed"],
  ],
};
const EVENTS_SHOWN = 60;
const IMAGES_SHOWN = 500;
const REFRESH_AFTER_MS = 700;
const REFRESH_ANYWAY_MS = 10000;

const byId = (id) => document.getElementById(id);
const counts = new Map();
let images = [];

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function drawLanes() {
  for (const [lane, nodes] of Object.entries(LANES)) {
    fill(byId(`lane-${lane}`), nodes.map(([kind, name, hears]) => {
      if (kind === "worker") {
        return el("li", { class: "worker", "data-consumer": `${name} ${hears}` }, el("b", {}, name), el("small", {}, ""));
      }
      const last = name.split(".")[1];
      const aside = kind === "aside";
      return el("li", { class: aside ? `stage aside ${last}` : "stage", "data-subject": name, title: name },
        el("strong", {}, "0"), el("span", {}, aside ? last : name));
    }));
  }
}

function showCount(subject, flash) {
  const node = document.querySelector(`[data-subject="${subject}"]`);
  if (!node) return;
  node.firstChild.textContent = (counts.get(subject) ?? 0).toLocaleString("en");
  node.classList.toggle("some", (counts.get(subject) ?? 0) > 0);
  if (flash) {
    node.classList.add("new");
    setTimeout(() => node.classList.remove("new"), 250);
  }
}

function showStatus(status) {
  for (const [subject, number] of Object.entries(status.stream.subjects)) {
    counts.set(subject, number);
    showCount(subject, false);
  }
  for (const row of status.backlog) {
    const node = document.querySelector(`[data-consumer="${row.service} ${row.subject}"]`);
    if (!node) continue;
    const parts = [];
    if (row.in_work) parts.push(`${row.in_work} in work`);
    if (row.waiting) parts.push(`${row.waiting} wait`);
    node.lastChild.textContent = parts.join(", ");
    node.classList.toggle("busy", parts.length > 0);
  }
  const alive = new Map();
  for (const row of status.services) alive.set(row.service, (alive.get(row.service) ?? 0) + 1);
  fill(byId("services"), [
    ...[...alive].map(([name, number]) => el("li", { title: "alive" }, number > 1 ? `${name} ×${number}` : name)),
    ...status.missing_services.map((name) => el("li", { class: "away", title: "not there" }, name)),
  ]);
}

function stateOf(image) {
  return image.solution_id ? "calibrated" : image.grade ? "graded" : "verified";
}

function imageRow(image) {
  const metrics = image.metrics ?? {};
  const thumb = image.preview_path
    ? el("img", { src: productUrl(image.preview_path), alt: "", loading: "lazy" }) : "";
  const row = el("tr", { "data-image": image.image_id, tabindex: "0" },
    el("td", { class: "thumb" }, thumb),
    el("td", { class: "name" }, image.name),
    el("td", {}, image.filter),
    el("td", {}, image.object ?? ""),
    el("td", {}, image.grade ? gradeBadge(image.grade) : ""),
    el("td", { class: "n" }, fixed(metrics.fwhm_arcsec, 2)),
    el("td", { class: "n" }, fixed(metrics.ellipticity, 3)),
    el("td", { class: "n" }, fixed(image.limiting_mag, 2)),
    el("td", { class: "n" }, rms(image.quality, 0)),
    el("td", { class: "n" }, fixed(image.zeropoint_mag, 3)),
    el("td", { class: `state ${stateOf(image)}` }, stateOf(image)));
  row.addEventListener("click", () => showImage(image.image_id));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") showImage(image.image_id); });
  return row;
}

function showImages() {
  const wanted = { filter: byId("by-filter").value, batch: byId("by-batch").value, grade: byId("by-grade").value };
  const shown = images.filter((image) => Object.entries(wanted).every(([key, value]) => !value || image[key] === value));
  fill(byId("images"), shown.map(imageRow));
  byId("images-count").textContent = shown.length === images.length ? images.length : `${shown.length} of ${images.length}`;
  byId("no-images").hidden = images.length > 0;
}

function offer(select, values, first) {
  const kept = select.value;
  fill(select, [el("option", { value: "" }, first), ...values.map((value) => el("option", { value }, value))]);
  select.value = values.includes(kept) ? kept : "";
}

function stackItem(stack) {
  const metrics = stack.metrics ?? {};
  const facts = [`${stack.n_members} images`, stack.filter];
  if (metrics.fwhm_arcsec != null) facts.push(`seeing ${fixed(metrics.fwhm_arcsec, 2)}″`);
  if (metrics.limiting_mag != null) facts.push(`depth ${fixed(metrics.limiting_mag, 2)}`);
  const picture = stack.preview_path
    ? el("img", { src: productUrl(stack.preview_path), alt: `Preview of ${stack.name}`, loading: "lazy" })
    : el("div", { class: "blank" });
  const item = el("li", { "data-stack": stack.stack_id, tabindex: "0" }, picture, el("div", {},
    el("p", { class: "name" }, stack.name, " ", stack.grade ? gradeBadge(stack.grade) : ""),
    el("p", {}, facts.join(" · ")),
    el("p", { class: `state ${stack.state}` }, stack.state)));
  item.addEventListener("click", () => showStack(stack.stack_id));
  item.addEventListener("keydown", (event) => { if (event.key === "Enter") showStack(stack.stack_id); });
  return item;
}

function showRejections(rows) {
  byId("rejected").hidden = rows.length === 0;
  byId("rejected-count").textContent = rows.length;
  fill(byId("rejections"), rows.map((row) => el("li", {},
    el("span", { class: "name" }, row.name), " ", row.reasons.map((reason) => reason.message).join("; "))));
}

async function refresh() {
  const [status, newImages, stacks, rejections] = await Promise.all([
    ask("/api/status"), ask(`/api/images?limit=${IMAGES_SHOWN}`), ask("/api/stacks?limit=50"), ask("/api/rejections?limit=50"),
  ]);
  showStatus(status);
  images = newImages;
  const distinct = (key) => [...new Set(images.map((image) => image[key]).filter(Boolean))].sort();
  for (const [key, ids] of [["filter", ["by-filter", "request-filter"]], ["batch", ["by-batch", "request-batch"]]]) {
    for (const id of ids) offer(byId(id), distinct(key), id.startsWith("request") ? "any" : "all");
  }
  showImages();
  byId("stacks-count").textContent = stacks.length || "";
  byId("no-stacks").hidden = stacks.length > 0;
  fill(byId("stacks"), stacks.map(stackItem));
  showRejections(rejections);
}

let planned = null;
let running = false;
let again = false;

// Many events may come at once: one refresh at a time, and one more after the last.
function refreshSoon(delay) {
  if (running) { again = true; return; }
  if (planned !== null) return;
  planned = setTimeout(async () => {
    planned = null;
    running = true;
    try {
      await refresh();
    } catch (error) {
      setLive("off", "not reachable");
      console.warn(error);
    }
    running = false;
    if (again) { again = false; refreshSoon(REFRESH_AFTER_MS); }
  }, delay);
}

function setLive(state, text) {
  byId("live").className = `live ${state}`;
  byId("live").textContent = text;
}

function showEvent(event) {
  const time = new Date(event.time).toLocaleTimeString("en-GB");
  const item = el("li", { class: event.subject.split(".")[1] },
    el("time", {}, time), el("b", {}, event.subject), el("span", {}, event.gist));
  byId("events").prepend(item);
  while (byId("events").children.length > EVENTS_SHOWN) byId("events").lastChild.remove();
}

function listen() {
  const source = new EventSource("/api/events?since=30m");
  source.addEventListener("open", () => setLive("on", "live"));
  source.addEventListener("error", () => setLive("off", "reconnecting"));
  source.addEventListener("spica", (message) => {
    const event = JSON.parse(message.data);
    showEvent(event);
    showCount(event.subject, true);
    refreshSoon(REFRESH_AFTER_MS);
  });
}

async function requestStack(submitted) {
  submitted.preventDefault();
  const form = new FormData(byId("request-form"));
  const selection = { grades: form.getAll("grades") };
  for (const key of ["filter", "batch"]) if (form.get(key)) selection[key] = form.get(key);
  if (form.get("fwhm_max_arcsec")) selection.fwhm_max_arcsec = Number(form.get("fwhm_max_arcsec"));
  const body = { selection, requested_by: "page" };
  if (form.get("name")) body.name = form.get("name");
  const answer = await fetch("/api/stacks", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  if (answer.ok) byId("request").close();
  else byId("request-fault").textContent = (await answer.json()).message;
}

drawLanes();
for (const id of ["by-filter", "by-batch", "by-grade"]) byId(id).addEventListener("change", showImages);
byId("ask").addEventListener("click", () => { byId("request-fault").textContent = ""; byId("request").showModal(); });
byId("request-close").addEventListener("click", () => byId("request").close());
byId("request-form").addEventListener("submit", requestStack);
refreshSoon(0);
listen();
setInterval(() => refreshSoon(0), REFRESH_ANYWAY_MS);
