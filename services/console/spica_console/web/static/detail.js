// What is known of one image or stack, in a dialog.

import { el, fill, fixed, gradeBadge, productUrl, rms } from "./parts.js";

const dialog = document.getElementById("detail");
const body = document.getElementById("detail-body");

async function open(path, build) {
  const answer = await fetch(path);
  if (!answer.ok) return;
  fill(body, build(await answer.json()));
  if (!dialog.open) dialog.showModal();
}

function facts(pairs) {
  return el("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

function table(title, head, rows) {
  if (!rows.length) return [];
  return [el("h3", {}, title), el("table", {},
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", {}, text)))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell ?? ""))))))];
}

function why(row) {
  return row.comment || (row.reasons ?? []).map((reason) => reason.message).join("; ");
}

function grades(rows) {
  return table("Grades", ["", "by", "why", "when"], rows.map((row) => [
    gradeBadge(row.grade), row.graded_by, why(row), new Date(row.created_at).toLocaleString("en-GB")]));
}

function link(path, ...children) {
  return el("a", { href: productUrl(path), target: "_blank", rel: "noopener" }, ...children);
}

// The picture, which leads to the report, and every file that the latest measurement made.
function preview(measurements, calibrationReport) {
  const last = measurements.at(-1);
  if (!last) return [];
  const picture = el("img", { src: productUrl(last.preview_path), alt: "Preview" });
  const { report, ...others } = last.products ?? {};
  const files = Object.entries({ catalogue: last.catalogue_path, weight: last.weight_path, ...others }).filter(([, path]) => path);
  return [
    report ? link(report, picture) : picture,
    el("p", { class: "files" },
      ...(report ? [el("b", {}, link(report, "Quality report"))] : []),
      ...(calibrationReport ? [el("b", {}, link(calibrationReport, "Calibration"))] : []),
      ...files.map(([kind, path]) => link(path, kind.replaceAll("_", " ")))),
  ];
}

function solutionName(row) {
  const name = row.stack_id ? `stack ${row.stack_id.slice(0, 8)}` : "itself";
  return row.report_path ? link(row.report_path, name) : name;
}

export function showImage(id) {
  return open(`/api/images/${encodeURIComponent(id)}`, (image) => [
    el("h2", { class: "name" }, image.name),
    ...preview(image.measurements, image.solutions.findLast((row) => !row.stack_id)?.report_path),
    facts([
      ["id", image.image_id], ["instrument", image.instrument], ["run", image.run], ["filter", image.filter],
      ["object", image.object], ["exposure", `${image.exposure_time_s} s`], ["airmass", fixed(image.airmass, 3)],
      ["RA, Dec", `${fixed(image.ra_deg, 5)}°, ${fixed(image.dec_deg, 5)}°`], ["batch", image.batch], ["file", image.path],
      ["seeing (header)", image.seeing_arcsec && `${fixed(image.seeing_arcsec, 2)}″`], ["archive", image.uri],
      ["superseded by", image.superseded_by],
    ]),
    ...table("Repairs in the record", ["keyword", "found", "what was done"], image.repairs.map((row) => [
      row.keyword, row.found, row.message])),
    ...table("Calibration frames", ["kind", "name", "state"], image.auxiliaries.map((row) => [
      row.kind, row.name, row.state])),
    ...grades(image.grades),
    ...table("Solutions", ["for", "reference", "rms RA · Dec, mas", "zero point"], image.solutions.map((row) => [
      solutionName(row), row.reference_name,
      rms(row.quality, 1),
      fixed(row.zeropoint_mag, 3)])),
    ...table("Stacks", ["stack", "taken", "rule", "found"], image.stacks.map((row) => [
      row.name, row.selected ? "yes" : "no", row.rule, row.found])),
    ...table("Failures", ["service", "code", "what happened"], image.failures.map((row) => [
      row.service, row.code, row.message])),
  ]);
}

export function showStack(id) {
  return open(`/api/stacks/${encodeURIComponent(id)}`, (stack) => [
    el("h2", { class: "name" }, stack.name),
    ...preview(stack.measurements, stack.calibration_report),
    facts([
      ["id", stack.stack_id], ["request", stack.request_id], ["state", stack.state], ["filter", stack.filter],
      ["combined by", stack.combine], ["size", `${stack.grid.width_px ?? "?"} × ${stack.grid.height_px ?? "?"} px`],
    ]),
    ...grades(stack.grades),
    ...table("Images", ["image", "taken", "rule", "found"], stack.members.map((row) => [
      row.name, row.selected ? "yes" : "no", row.rule, row.found])),
    ...table("Failures", ["service", "code", "what happened"], stack.failures.map((row) => [
      row.service, row.code, row.message])),
  ]);
}
