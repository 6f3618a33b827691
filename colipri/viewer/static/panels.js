// What the model says, as elements. Names and texts come from files: they are only ever set as text.

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function problem(text) {
  return element("p", text, "problem");
}

/** Tables of probabilities; a click on a finding looks for it. */
export function scoreTables(tables, lookFor) {
  if (!tables.length)
    return [element("p", "The model knows no findings; type one above.", "quiet")];
  return tables.flatMap((table) => {
    const body = element("tbody");
    for (const row of table.rows) body.append(scoreRow(row, lookFor));
    const shown = element("table", undefined, "scores");
    shown.append(element("caption", table.title), body);
    return [shown, element("p", table.note, "quiet")];
  });
}

function scoreRow(row, lookFor) {
  const line = element("tr", undefined, row.present ? "present" : "");
  const name = element("button", row.finding, "link");
  name.type = "button";
  if (lookFor) name.addEventListener("click", () => lookFor(row.finding));
  else name.disabled = true;
  const first = element("th");
  first.scope = "row";
  first.append(name);
  const bar = element("span", undefined, "filled");
  bar.style.width = `${100 * row.probability}%`;
  const middle = element("td", undefined, "bar-cell");
  middle.append(bar);
  const value = element("td", row.probability.toFixed(2), "number");
  const kind = element("td", row.calibrated ? "calibrated" : "", "quiet");
  line.append(first, middle, value, kind);
  return line;
}

/** The most similar scans, with what is known of them. */
export function similarScans(result, open) {
  const list = element("ol", undefined, "similar");
  for (const one of result.found) {
    const item = element("li");
    if (one.id === null) item.append(element("span", one.name));
    else {
      const name = element("button", one.name, "link");
      name.type = "button";
      name.title = "Open this scan";
      name.addEventListener("click", () => open(one));
      item.append(name);
    }
    const known = [one.similarity.toFixed(3), one.facts, one.findings.join(", ")];
    item.append(element("span", known.filter(Boolean).join(" \u00b7 "), "quiet"));
    if (one.report) {
      const details = element("details");
      details.append(element("summary", "Report"), element("p", one.report, "report"));
      item.append(details);
    }
    list.append(item);
  }
  const note = `Cosine of the images, among ${result.searched}.`;
  return [list, element("p", note, "quiet")];
}

/** A draft, marked as one. */
export function reportDraft(result) {
  const note = `Draft by ${result.writer}. It was not read by anyone: check every sentence.`;
  return [element("p", note, "quiet"), element("p", result.text || "(empty)", "report")];
}
