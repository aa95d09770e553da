// The marks of pushes and pulls in transit, as a pure function of the run, the time and the speed.

import { DROPPED } from "./run.js";

const LEAST_SCREEN_S = 0.6; // where steps would be shorter on the screen, one mark represents several pushes
const FLIGHT_SHARE = 0.3; // of the duration of a step
const LONGEST_FLIGHT_S = 1.2; // on the screen

/** Return the number of pushes of a worker that one mark represents at a speed. */
export function stride(run, index, speed) {
  return Math.max(1, Math.ceil((LEAST_SCREEN_S * speed) / Math.max(run.steps[index], 1e-6)));
}

/**
 * Return the marks at a time, at most three for each worker and shard.
 *
 * Each is `{kind, worker, shard, progress, staleness, row}`: `kind` is push, pull or drop, `worker` is an index, and
 * `progress` goes from 0 to 1 (a push moves up, a pull and a drop move down).
 */
export function marksAt(run, seconds, speed) {
  const marks = [];
  run.rows.forEach((rows, worker) => {
    if (!rows.length || seconds > run.times[rows[rows.length - 1]] + LONGEST_FLIGHT_S * speed) return;
    const every = stride(run, worker, speed);
    const last = countPassed(run.times, rows, seconds) - 1; // the index of the worker's newest push
    const ahead = Math.floor((worker * every) / run.rows.length); // else the marks of all workers would start together
    const group = Math.floor((last + ahead) / every);
    const from = last < 0 ? -1 : Math.max(0, group * every - ahead);
    const to = last < 0 ? 0 : Math.min((group + 1) * every - ahead, rows.length - 1);
    const began = from < 0 ? Math.max(0, run.times[rows[0]] - run.steps[worker]) : run.times[rows[from]];
    const ends = run.arrivedAt(rows[to]);
    const flight = Math.min(FLIGHT_SHARE * (ends - began || run.steps[worker]), LONGEST_FLIGHT_S * speed);
    if (flight <= 0) return;
    if (from >= 0) {
      const waited = every === 1 && run.waitUntil[rows[from]] > began ? run.waitUntil[rows[from]] : began;
      addMarks(marks, run, "pull", worker, rows[from], (seconds - waited) / flight);
      if (run.push.outcome[rows[from]] === DROPPED) {
        addMarks(marks, run, "drop", worker, rows[from], (seconds - began) / flight);
      }
    }
    if (to > from) addMarks(marks, run, "push", worker, rows[to], 1 - (ends - seconds) / flight);
  });
  return marks;
}

function addMarks(marks, run, kind, worker, row, progress) {
  if (!(progress >= 0 && progress < 1)) return;
  run.shards.forEach((shard, number) => {
    const own = run.sameOnShard[number][row];
    if (own >= 0) marks.push({ kind, worker, shard: number, progress, staleness: shard.staleness[own], row });
  });
}

/** Return the number of a worker's records up to a time. */
function countPassed(times, rows, seconds) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[rows[middle]] <= seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}
