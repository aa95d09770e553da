// Quantities of a run that no column contains: who was a member when, and the bytes that were transferred.

/** Return from when to when the workers were members of the job, in seconds: `[[from, to], …]`. */
export function memberships(run) {
  const since = new Map();
  const found = [];
  const seen = new Set();
  for (const { kind, worker, before } of run.events) {
    if (worker === undefined) continue;
    seen.add(worker);
    const seconds = Math.max(run.beginning, run.timeAt(before));
    if (kind !== "leave") since.set(worker, since.get(worker) ?? seconds);
    else if (since.has(worker)) {
      found.push([since.get(worker), seconds]);
      since.delete(worker);
    }
  }
  run.rows.forEach((rows, index) => { // a trace without calls does not record who joined
    if (rows.length && !seen.has(run.workers[index])) since.set(run.workers[index], run.times[rows[0]]);
  });
  for (const from of since.values()) found.push([from, run.duration]);
  return found;
}

/**
 * Return the bytes so far at some times `{x, pushed, pulled}`, in seconds.
 *
 * A running job reports them. Of a recorded run the totals are known, of which each push has the same share.
 */
export function transferred(run) {
  if (run.live) return run.header.transferred;
  const { summary, window } = run.header;
  const soFar = (total) => Float64Array.from({ length: run.count }, (_, row) => ((window.first + row + 1) / window.of) * (total ?? NaN));
  return { x: run.times, pushed: soFar(summary.bytes_pushed), pulled: soFar(summary.bytes_pulled) };
}
