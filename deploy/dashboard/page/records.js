// Functions over the columns of records: times, the records of each worker, and those of one push on all shards.

/** Return the times between successive pushes of one worker, in seconds. */
export function gaps(rows, times) {
  const found = new Float64Array(Math.max(0, rows.length - 1));
  for (let i = 0; i < found.length; i += 1) found[i] = times[rows[i + 1]] - times[rows[i]];
  return found;
}

/** Return times in seconds. */
export function toSeconds(microseconds) {
  const found = new Float64Array(microseconds.length);
  for (let i = 0; i < found.length; i += 1) found[i] = microseconds[i] / 1e6;
  return found;
}

/** Return the record numbers of each worker, ascending. */
export function rowsByWorker(column, indexOf) {
  const indices = new Int32Array(column.length);
  const counts = new Int32Array(indexOf.size + 1); // one more, for the records of unknown workers
  let [known, index] = [NaN, 0];
  for (let row = 0; row < column.length; row += 1) {
    if (column[row] !== known) [known, index] = [column[row], indexOf.get(column[row]) ?? indexOf.size];
    indices[row] = index;
    counts[index] += 1;
  }
  const rows = Array.from(counts, (count) => new Int32Array(count));
  counts.fill(0);
  for (let row = 0; row < column.length; row += 1) rows[indices[row]][counts[indices[row]]++] = row;
  return rows.slice(0, -1);
}

/** Return, for each record of shard 0, the record of the same push on another shard, or -1 if there is none. */
export function samePushes(run, shard) {
  const found = new Int32Array(run.count).fill(-1);
  if (shard === run.push) {
    for (let row = 0; row < run.count; row += 1) found[row] = row;
    return found;
  }
  const theirs = rowsByWorker(shard.worker, run.indexOf);
  const order = (table, row) => table.incarnation[row] * 2 ** 40 + table.seq[row];
  run.rows.forEach((rows, worker) => {
    let at = 0;
    for (const row of rows) { // the pushes of one worker have the same order on all shards
      const wanted = order(run.push, row);
      while (at < theirs[worker].length && order(shard, theirs[worker][at]) < wanted) at += 1;
      if (at < theirs[worker].length && order(shard, theirs[worker][at]) === wanted) found[row] = theirs[worker][at];
    }
  });
  return found;
}
