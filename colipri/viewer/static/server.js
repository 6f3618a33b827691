// Requests to the server that sent this page. Addresses are relative, so they carry its token.

export class Problem extends Error {}

export async function ask(method, path, content) {
  let response;
  const body = content === undefined ? undefined : JSON.stringify(content);
  try {
    response = await fetch(path, { method, body });
  } catch {
    throw new Problem("The viewer does not answer; is colipri_view still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Problem(answer.error);
  return answer;
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Start a piece of work and wait for its result.
 * @param {object} work - kind, scan (identifier), argument
 * @param {function(string)} tell - called with a line of progress
 * @param {function(): boolean} wanted - false drops the work, and the result is null
 */
export async function run(work, tell, wanted = () => true) {
  let job = await ask("POST", "jobs", work);
  for (let wait = 100; ; wait = Math.min(1000, wait * 1.3)) {
    if (job.state === "done") return wanted() ? job.result : null;
    if (job.state === "failed") {
      if (!wanted()) return null;
      throw new Problem(job.error);
    }
    if (job.state === "dropped") return null;
    if (!wanted()) {
      await ask("DELETE", `jobs/${job.id}`);
      return null;
    }
    tell(describe(job));
    await pause(wait);
    job = await ask("GET", `jobs/${job.id}`);
  }
}

function describe(job) {
  if (job.state === "waiting") return `waiting for ${job.ahead || "other"} before it`;
  const seconds = job.seconds >= 2 ? `, ${Math.round(job.seconds)} s` : "";
  return `${job.step || "working"}${seconds}`;
}
