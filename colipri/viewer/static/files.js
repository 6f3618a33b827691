// Scans from this computer: sent file by file, so that the limits are known before anything is sent.

import { ask, Problem } from "./server.js";

/** Send files as one upload.
 * @param {{file: File, name: string}[]} files - names with folders
 * @param {number} largest - bytes
 * @param {function(string)} tell - progress
 * @returns the scans among them
 */
export async function send(files, largest, tell) {
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  if (!files.length) throw new Problem("There is no file in it.");
  if (total > largest)
    throw new Problem(
      `${megabytes(total)} is more than the viewer takes (${megabytes(largest)}, --max_upload).`,
    );
  const upload = await ask("POST", "uploads");
  try {
    let sent = 0;
    for (const { file, name } of files) {
      tell(`sending ${megabytes(sent)} of ${megabytes(total)}`);
      await put(`uploads/${upload.id}?name=${encodeURIComponent(name)}`, file);
      sent += file.size;
    }
    tell("looking for scans");
    return (await ask("POST", `uploads/${upload.id}`)).scans;
  } catch (problem) {
    await ask("DELETE", `uploads/${upload.id}`).catch(() => null);
    throw problem;
  }
}

async function put(path, file) {
  let response;
  try {
    response = await fetch(path, { method: "PUT", body: file });
  } catch {
    throw new Problem(`The viewer refused ${file.name}, or does not answer.`);
  }
  if (!response.ok) throw new Problem((await response.json()).error);
}

export function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MB`;
}

/** Files of a file input; of a folder with their paths. */
export function chosen(input) {
  return [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

/** Files and folders that were dropped. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) await collect(entry, "", found);
  return found;
}

async function collect(entry, folder, found) {
  const name = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    found.push({ file, name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!part.length) return;
    for (const inner of part) await collect(inner, `${name}/`, found);
  }
}
