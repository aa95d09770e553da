// A recorded run: columns by record, the same push on several shards, waits that follow from the mode.

import { countUpTo, median, quantile } from "./search.js";

export const APPLIED = 0;
export const DROPPED = 2;
export const MOST_STALENESS = 1023; // larger values share the last bin of a histogram
const SMOOTHED_OVER = 50; // pushes

/** The name and the arguments of a mode: `ssp:2` is `["ssp", [2]]`. */
export function modeOf(text) {
  const [name, values] = String(text ?? "async").split(":");
  return [name, values ? values.split(",").map(Number) : []];
}

/** Modes in which pushes wait for others before they are applied. */
const BARRIER_MODES = ["bsp", "backup", "ksync", "kasync", "softsync", "rennala"];

export class Run {
  /** From what `decode` returns. */
  constructor({ header, tables }) {
    this.header = header;
    this.tables = tables;
    this.push = tables.shard0; // columns by record of shard 0
    this.count = this.push.version.length;
    this.settings = header.settings ?? {};
    this.events = header.events ?? [];
    [this.mode, this.modeArguments] = modeOf(this.settings.mode);
    this.hasBarrier = BARRIER_MODES.includes(this.mode);
    this.slack = this.mode === "ssp" ? this.modeArguments[0] : null;
    this.times = Float64Array.from(this.push.time_us, (value) => value / 1e6);
    this.shards = Object.keys(tables).filter((name) => name.startsWith("shard")).map((name) => tables[name]);
    this.shardTimes = this.shards.map((shard) => Float64Array.from(shard.time_us, (value) => value / 1e6));
    this.indexWorkers();
    this.indexLeases();
    this.smoothLoss();
    this.deriveWaits();
  }

  /** Of a running job: what it has counted in all, of which the records here are the newest part. */
  setTotals(progress) {
    this.live = progress;
    const inWindow = (worker) => {
      const rows = this.rows[this.indexOf.get(worker)] ?? [];
      const dropped = rows.reduce((sum, row) => sum + (this.push.outcome[row] === APPLIED ? 0 : 1), 0);
      return { dropped, updates: rows.length - dropped, samples: rows.reduce((sum, row) => sum + this.push.samples[row], 0) };
    };
    const earlier = (total, part) => Math.max(0, total - part);
    this.base = { applied: 0, dropped: 0, samples: 0, workers: new Map() };
    for (const worker of this.workers) {
      const here = inWindow(worker);
      this.base.applied -= here.updates;
      this.base.dropped -= here.dropped;
      this.base.samples -= here.samples;
      const total = progress.workers.find((each) => each.worker === worker);
      if (!total) continue;
      this.base.workers.set(worker, {
        updates: earlier(total.updates, here.updates), dropped: earlier(total.dropped, here.dropped),
        samples: earlier(total.samples, here.samples),
      });
    }
    this.base.applied = Math.max(0, this.base.applied + progress.version);
    this.base.dropped = Math.max(0, this.base.dropped + progress.dropped);
    this.base.samples = Math.max(0, this.base.samples + progress.samples);
  }

  /** The time at which the records begin: 0, or where those of a running job begin. */
  get beginning() {
    return this.live && this.count ? this.times[0] : 0;
  }

  /** Seconds from the start of training to the last push. */
  get duration() {
    return this.count ? this.times[this.count - 1] : 0;
  }

  get lastVersion() {
    return this.count ? this.push.version[this.count - 1] : 0;
  }

  /** How many records have happened by a time. */
  positionAtTime(seconds) {
    return countUpTo(this.times, seconds);
  }

  /** The position after the last record of a version, so that the state there has this version. */
  positionAtVersion(version) {
    return countUpTo(this.push.version, version);
  }

  timeAt(position) {
    return position ? this.times[position - 1] : 0;
  }

  versionAt(position) {
    if (position) return this.push.version[position - 1];
    return this.count ? Math.max(0, this.push.version[0] - 1) : 0;
  }

  indexWorkers() {
    const numbers = new Set(this.push.worker);
    for (const event of this.events) if (event.worker !== undefined) numbers.add(event.worker);
    this.base = null;
    this.live = null;
    this.workers = [...numbers].sort((a, b) => a - b);
    this.indexOf = new Map(this.workers.map((number, index) => [number, index]));
    this.rows = rowsByWorker(this.push.worker, this.indexOf);
    this.steps = this.rows.map((rows) => median(gaps(rows, this.times)));
    const counts = new Uint32Array(MOST_STALENESS + 1);
    let most = 0;
    for (let row = 0; row < this.count; row += 1) {
      if (this.push.outcome[row] !== APPLIED) continue;
      counts[Math.min(this.push.staleness[row], MOST_STALENESS)] += 1;
      most = Math.max(most, this.push.staleness[row]);
    }
    this.mostStaleness = Math.min(most, MOST_STALENESS);
    this.staleEnd = Math.max(4, quantile(counts, 0.99)); // where the colour scale ends
    this.sameOnShard = this.shards.map((shard) => samePushes(this, shard));
  }

  indexLeases() {
    const { number, start, stop, epoch } = this.tables.leases;
    this.leases = new Map();
    for (let i = 0; i < number.length; i += 1) {
      this.leases.set(number[i], { number: number[i], start: start[i], stop: stop[i], epoch: epoch[i] });
    }
  }

  /** Exponential mean of the loss, over about 50 pushes; losses that are no numbers leave it as it is. */
  smoothLoss() {
    const share = 2 / (SMOOTHED_OVER + 1);
    this.smooth = new Float32Array(this.count);
    let value = NaN;
    for (let row = 0; row < this.count; row += 1) {
      const loss = this.push.loss[row];
      if (Number.isFinite(loss)) value = Number.isNaN(value) ? loss : value + share * (loss - value);
      this.smooth[row] = value;
    }
  }

  /**
   * When a worker of an SSP job may begin the step after each of its pushes, in seconds; NaN where it begins at once.
   * A step starts if the worker's clock is at most `slack` above the smallest one, so the trace tells it exactly.
   */
  deriveWaits() {
    this.waitUntil = new Float64Array(this.count).fill(NaN);
    if (this.slack === null) return;
    const clocks = new Clocks();
    let waiting = [];
    let next = 0;
    const release = (seconds) => {
      waiting = waiting.filter(({ worker, row }) => {
        if (clocks.ahead(worker) > this.slack) return true;
        this.waitUntil[row] = seconds;
        return false;
      });
    };
    for (let row = 0; row < this.count; row += 1) {
      for (; next < this.events.length && this.events[next].before <= row; next += 1) {
        clocks.apply(this.events[next]);
        release(this.timeAt(row));
      }
      const worker = this.push.worker[row];
      clocks.tick(worker);
      waiting = waiting.filter((each) => each.worker !== worker); // it has pushed, so it did not wait
      release(this.times[row]);
      if (clocks.ahead(worker) > this.slack) waiting.push({ worker, row });
    }
    for (const { row } of waiting) this.waitUntil[row] = this.duration;
  }
}

/** Completed steps of every live worker, as `ps/core/consistency.py` counts them. */
export class Clocks {
  constructor() {
    this.values = new Map();
  }

  get minimum() {
    return this.values.size ? Math.min(...this.values.values()) : 0;
  }

  apply(event) {
    if (event.kind === "join" || event.kind === "resume") {
      this.values.delete(event.worker);
      this.values.set(event.worker, this.minimum);
    } else if (event.kind === "leave" || event.kind === "rest") {
      this.values.delete(event.worker);
    }
  }

  tick(worker) {
    if (this.values.has(worker)) this.values.set(worker, this.values.get(worker) + 1);
  }

  ahead(worker) {
    return this.values.has(worker) ? this.values.get(worker) - this.minimum : 0;
  }
}

/** Seconds between the pushes of one worker. */
function gaps(rows, times) {
  return Float64Array.from({ length: Math.max(0, rows.length - 1) }, (_, i) => times[rows[i + 1]] - times[rows[i]]);
}

/** For each worker the records that are its own, ascending. */
function rowsByWorker(column, indexOf) {
  const rows = [...indexOf.keys()].map(() => []);
  for (let row = 0; row < column.length; row += 1) rows[indexOf.get(column[row])]?.push(row);
  return rows.map((list) => Int32Array.from(list));
}

/** For each record of shard 0, the record of the same push on another shard; -1 where it has none. */
function samePushes(run, shard) {
  if (shard === run.push) return Int32Array.from({ length: run.count }, (_, row) => row);
  const found = new Int32Array(run.count).fill(-1);
  const theirs = rowsByWorker(shard.worker, run.indexOf);
  const order = (table, row) => table.incarnation[row] * 2 ** 40 + table.seq[row];
  run.rows.forEach((rows, worker) => {
    let at = 0;
    for (const row of rows) { // on every shard the pushes of one worker are in the same order
      const wanted = order(run.push, row);
      while (at < theirs[worker].length && order(shard, theirs[worker][at]) < wanted) at += 1;
      if (at < theirs[worker].length && order(shard, theirs[worker][at]) === wanted) found[row] = theirs[worker][at];
    }
  });
  return found;
}
