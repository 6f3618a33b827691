// The page: connects the list of scans, the planes and the panels.

import { chosen, dropped, send } from "./files.js";
import { element, problem, reportDraft, scoreTables, similarScans } from "./panels.js";
import { Planes } from "./planes.js";
import { ask, run } from "./server.js";

const WINDOWS = [
  // name, level and width in HU
  ["Lung", -600, 1500],
  ["Mediastinum", 40, 400],
  ["Bone", 400, 1800],
  ["Angiography", 100, 700],
  ["Liver", 60, 160],
  ["Brain", 40, 80],
];
const at = (id) => document.getElementById(id);

let state; // of the server
let scan = null; // what the page shows of the open one
let opened = 0; // number of the last opening; older ones are not wanted any more
let heat = null;
const planes = new Planes(at("planes"), at("marks"), showPlace);

// ------------------------------------------------------------------ start

async function start() {
  state = await ask("GET", "state");
  const { model } = state;
  const spacing = model.spacing.map((mm) => Number(mm.toPrecision(3))).join(" \u00d7 ");
  const trained = model.trained_on ? `, trained on ${model.trained_on}` : "";
  const place = model.checkpoint.split("/").slice(-2).join("/");
  at("model").textContent = `${place}: ${spacing} mm${trained}`;
  at("model").title = model.checkpoint;
  for (const finding of state.findings) {
    const option = element("option");
    option.value = finding;
    at("known-findings").append(option);
  }
  at("finding").maxLength = state.longest_finding;
  at("look-for").hidden = !state.text;
  showSimilarControls();
  showReportControls();
  listScans(state.scans);
  try {
    await planes.start();
  } catch {
    say("This browser cannot draw scans: it has no WebGL2. Scores and reports work.");
  }
  connect();
  document.body.dataset.ready = "yes";
  if (state.scans.length === 1) await open(state.scans[0]);
}

function connect() {
  for (const [name, level, width] of WINDOWS) {
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", () => setWindow(level, width));
    at("presets").append(button);
  }
  for (const id of ["level", "width"])
    at(id).addEventListener("change", () =>
      setWindow(Number(at("level").value), Number(at("width").value)),
    );
  at("reset").addEventListener("click", () => scan && planes.reset());
  for (const axis of [0, 1, 2])
    at(`slice-${axis}`).addEventListener("input", (event) => {
      if (scan) planes.slide(axis, Number(event.target.value));
    });
  at("look").addEventListener("submit", (event) => {
    event.preventDefault();
    lookFor(at("finding").value);
  });
  at("opacity").addEventListener("input", (event) =>
    planes.setOpacity(Number(event.target.value)),
  );
  at("threshold").addEventListener("input", (event) =>
    planes.setThreshold(Number(event.target.value)),
  );
  at("strongest").addEventListener("click", () => heat && planes.goTo(heat.place));
  at("hide-heat").addEventListener("click", removeHeat);
  at("score").addEventListener("click", score);
  for (const id of ["open-file", "open-folder"])
    at(id).addEventListener("change", async (event) => {
      await upload(chosen(event.target));
      event.target.value = "";
    });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    await upload(await dropped(event.dataTransfer));
  });
}

// ------------------------------------------------------------------ scans

function listScans(scans) {
  at("scans").replaceChildren();
  scans.forEach(addScan);
  at("no-scans").hidden = scans.length > 0;
}

function addScan(one) {
  at("no-scans").hidden = true;
  if (at("scans").querySelector(`[data-scan="${one.id}"]`)) return;
  const item = element("li");
  item.dataset.scan = one.id;
  const name = element("button", one.name, "scan");
  name.type = "button";
  name.title = one.name;
  name.addEventListener("click", () => open(one));
  item.append(name);
  if (one.origin === "upload") {
    const remove = element("button", "\u00d7", "remove");
    remove.type = "button";
    remove.title = "Remove this scan and delete the copy that was sent";
    remove.addEventListener("click", async () => {
      await ask("DELETE", `scans/${one.id}`);
      item.remove();
    });
    item.append(remove);
  }
  at("scans").append(item);
}

async function upload(files) {
  const tell = (text) => (at("upload-state").textContent = text);
  try {
    const scans = await send(files, state.largest_upload, tell);
    tell("");
    scans.forEach(addScan);
    if (scans.length) await open(scans[0]);
  } catch (error) {
    tell(error.message);
  }
}

async function open(one) {
  const number = ++opened;
  const wanted = () => number === opened;
  addScan(one);
  clear();
  for (const item of at("scans").children)
    item.classList.toggle("open", item.dataset.scan === one.id);
  try {
    const about = await run({ kind: "open", scan: one.id }, say, wanted);
    if (!about) return;
    say("loading the voxels");
    const [level, width] = about.hounsfield
      ? [40, 400]
      : [(about.limits[0] + about.limits[1]) / 2, about.limits[1] - about.limits[0]];
    scan = about;
    if (planes.nv) {
      await planes.showScan(`voxels/${about.id}.nii`, level - width / 2, level + width / 2);
      if (!wanted()) return;
      at("presets").hidden = !about.hounsfield;
      showWindow(level, width);
    }
    say(notShown(about));
    document.body.dataset.scan = about.id;
  } catch (error) {
    if (wanted()) say(error.message || String(error), true);
  }
}

function clear() {
  scan = heat = null;
  delete document.body.dataset.scan;
  delete document.body.dataset.heat;
  if (planes.nv) while (planes.nv.volumes.length) planes.nv.removeVolumeByIndex(0);
  at("marks").replaceChildren();
  at("heat").hidden = at("heat-problem").hidden = true;
  for (const id of ["scores", "similar", "report"]) at(id).replaceChildren();
  at("location").textContent = "";
}

/** Scans that are too large for the browser are thinned out; the model reads all of them. */
function notShown(about) {
  if (about.steps.every((step) => step === 1)) return "";
  const shown = about.spacing.map((mm, axis) => Number((mm * about.steps[axis]).toPrecision(3)));
  return `Too large for a browser: drawn at ${shown.join(" \u00d7 ")} mm. The model reads every voxel.`;
}

function say(text, isProblem = false) {
  at("message").textContent = text;
  at("message").classList.toggle("problem", isProblem);
}

// ------------------------------------------------------------------ planes

function setWindow(level, width) {
  if (!scan || !planes.nv || !Number.isFinite(level) || !(width > 0)) return;
  planes.setWindow(level - width / 2, level + width / 2);
  showWindow(level, width);
}

function showWindow(level, width) {
  at("level").value = Math.round(level * 100) / 100;
  at("width").value = Math.round(width * 100) / 100;
  [...at("presets").children].forEach((button, number) => {
    const [, presetLevel, presetWidth] = WINDOWS[number];
    button.classList.toggle("on", presetLevel === level && presetWidth === width);
  });
}

function showPlace({ slices, size, mm, value, heat: warmth }) {
  for (const axis of [0, 1, 2]) {
    at(`slice-${axis}`).max = size[axis] - 1;
    at(`slice-${axis}`).value = slices[axis];
    at(`place-${axis}`).textContent = `${slices[axis] + 1} / ${size[axis]}`;
  }
  const place = ["right", "anterior", "superior"].map((name, axis) => `${name} ${mm[axis].toFixed(1)}`);
  const unit = scan?.hounsfield ? " HU" : "";
  const parts = [`${place.join(", ")} mm`];
  if (value !== null) parts.push(`${Math.round(value * 100) / 100}${unit}`);
  if (warmth !== null && warmth > -2.5) parts.push(`map ${warmth.toFixed(3)}`);
  at("location").textContent = parts.join(" \u00b7 ");
}

// ------------------------------------------------------------------ the model

/** Have something computed of the open scan; null if the scan is not wanted any more. */
async function compute(kind, argument, show) {
  if (!scan) return;
  const number = opened;
  const wanted = () => number === opened;
  const work = at("work");
  try {
    const tell = (text) => {
      work.hidden = false;
      work.textContent = text;
    };
    const result = await run({ kind, scan: scan.id, argument }, tell, wanted);
    if (result) await show(result);
  } catch (error) {
    if (wanted()) show(null, error.message);
  } finally {
    if (wanted()) work.hidden = true;
  }
}

async function lookFor(finding) {
  at("finding").value = finding;
  await compute("heat", finding, async (result, message) => {
    at("heat-problem").hidden = !message;
    at("heat-problem").textContent = message ?? "";
    if (!result) return removeHeat();
    heat = result;
    at("heat-score").replaceChildren(
      element("strong", result.probability.toFixed(2)),
      element("span", ` \u201c${result.positive}\u201d against \u201c${result.negative}\u201d`),
    );
    at("heat").hidden = false;
    if (!planes.nv) return;
    await planes.showHeat(`map/${scan.id}/${result.map}.nii`, result, Number(at("opacity").value));
    planes.setThreshold(Number(at("threshold").value));
    planes.goTo(result.place);
    document.body.dataset.heat = result.map;
  });
}

function removeHeat() {
  heat = null;
  delete document.body.dataset.heat;
  if (planes.nv && scan) planes.hideHeat();
  at("heat").hidden = true;
}

async function score() {
  await compute("score", "", (result, message) => {
    const shown = message ? [problem(message)] : scoreTables(result.tables, state.text && lookFor);
    at("scores").replaceChildren(...shown);
  });
}

function showSimilarControls() {
  if (state.known === null) {
    const how = `Make an index of known scans and start the viewer with --index INDEX:`;
    at("similar-controls").append(element("p", how, "quiet"), element("code", state.how_to_index));
    return;
  }
  const button = element("button", "Find similar scans");
  button.type = "button";
  button.id = "find-similar";
  button.addEventListener("click", () =>
    compute("nearest", "", (result, message) =>
      at("similar").replaceChildren(
        ...(message ? [problem(message)] : similarScans(result, open)),
      ),
    ),
  );
  at("similar-controls").append(button);
}

function showReportControls() {
  if (!state.writers.length) {
    const why =
      "This model does not write: train it with report generation (-tr ColipriTrainer_CRM), or give a writer of colipri_train_writer with --writer.";
    at("report-controls").append(element("p", why, "quiet"));
  }
  for (const writer of state.writers) {
    const button = element("button", `Draft by ${writer}`);
    button.type = "button";
    button.addEventListener("click", () =>
      compute("report", writer, (result, message) =>
        at("report").replaceChildren(...(message ? [problem(message)] : reportDraft(result))),
      ),
    );
    at("report-controls").append(button);
  }
}

start().catch((error) => say(error.message, true));
