// A recorded run: its records in columns, the records of one push on all shards, and the waits that its mode implies.

import { gaps, rowsByWorker, samePushes, toSeconds } from "./records.js";
import { countUpTo, median, quantile } from "./search.js";

export const APPLIED = 0;
export const DROPPED = 2;
export const MOST_STALENESS = 1023; // larger values share the last bin of a histogram
const SMOOTHED_OVER = 50; // pushes: the span of the exponential moving average of the loss

export class Run {
  /** Build a run from what `decode` returns; unless `whole`, the functions of `parts` must be called to complete it. */
  constructor({ header, tables }, whole = true) {
    this.header = header;
    this.tables = tables;
    this.push = tables.shard0; // the records of shard 0, in columns
    this.count = this.push.version.length;
    this.settings = header.settings ?? {};
    this.events = header.events ?? [];
    const changes = this.events.filter((event) => event.kind === "change" && event.mode);
    this.firstMode = changes.length ? changes[0].was : this.settings.mode;
    this.modes = [this.firstMode, ...changes.map((event) => event.mode)];
    this.mode = this.modes[this.modes.length - 1];
    this.facts = this.factsOf(this.mode);
    this.markLost();
    this.buffers = Boolean(this.facts.buffers); // a push waits for other pushes before it is applied
    this.slack = this.modes.map((mode) => this.slackOf(mode)).find((slack) => slack !== null) ?? null;
    this.shards = Object.keys(tables).filter((name) => name.startsWith("shard")).map((name) => tables[name]);
    this.timed = this.push.compute_us.some((duration) => duration > 0); // else a trace of an earlier version
    if (whole) for (const part of this.parts()) part();
  }

  /** Return functions that complete the run if they are called in turn; each needs a few milliseconds for 20,000 records. */
  parts() {
    this.sameOnShard = [];
    return [
      () => this.convertTimes(),
      () => this.indexWorkers(),
      ...this.shards.map((shard) => () => this.sameOnShard.push(samePushes(this, shard))),
      () => {
        this.indexLeases();
        this.smoothLoss();
      },
      () => this.deriveWaits(),
    ];
  }

  /** Return the facts about a mode that the server has stated: `{buffers, slack, law, group}`; none of an unknown mode. */
  factsOf(mode) {
    return this.header.modes?.[mode] ?? {};
  }

  /** Return the bound of a mode on the difference of the workers' clocks, or null. */
  slackOf(mode) {
    return this.factsOf(mode).slack ?? null;
  }

  convertTimes() {
    this.times = toSeconds(this.push.time_us);
    this.shardTimes = this.shards.map((shard) => (shard === this.push ? this.times : toSeconds(shard.time_us)));
  }

  /** State in each event of a worker that leaves whether it still had work, as one that is killed. */
  markLost() {
    const resting = new Set();
    for (const event of this.events) {
      if (event.kind === "rest") resting.add(event.worker);
      else if (event.kind === "leave") event.working ??= !resting.has(event.worker) && event.before < this.count;
      else resting.delete(event.worker);
    }
  }

  /** Set the total counts of a running job and of each worker, of which the records of this run are only the newest part. */
  setTotals(progress, totals) {
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
      const total = totals.get(worker);
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

  /** The time of the first record of a running job, and 0 for a recorded run, in seconds. */
  get beginning() {
    return this.live && this.count ? this.times[0] : 0;
  }

  /** The time from the start of training to the last push, in seconds. */
  get duration() {
    return this.count ? this.times[this.count - 1] : 0;
  }

  get lastVersion() {
    return this.count ? this.push.version[this.count - 1] : 0;
  }

  /** Return the number of records up to a time. */
  positionAtTime(seconds) {
    return countUpTo(this.times, seconds);
  }

  /** Return the position after the last record of a version, at which the state has this version. */
  positionAtVersion(version) {
    return countUpTo(this.push.version, version);
  }

  timeAt(position) {
    return position ? this.times[position - 1] : 0;
  }

  /** Return when the push of a record arrived, which is before its outcome in a mode that waits for other pushes. */
  arrivedAt(row) {
    return this.times[row] - this.push.wait_us[row] / 1e6;
  }

  /**
   * Return the times of the parts of a worker's step, which ends with its push number `i`, in seconds.
   *
   * The step waits from `begins` to `from` at an SSP bound, transfers to `compute` and from `computed`, and waits from
   * `arrived` to `ends` for other pushes. One duration of both transfers is known, so each of them has half of it. When
   * the first step of a process began is not known; it is drawn as long as the median.
   */
  stepOf(index, i) {
    const rows = this.rows[index];
    const ends = this.times[rows[i]];
    const continued = i > 0 && this.push.incarnation[rows[i - 1]] === this.push.incarnation[rows[i]];
    const earliest = i ? this.times[rows[i - 1]] : 0;
    const begins = continued ? earliest : Math.max(earliest, ends - this.steps[index]);
    const waited = continued ? this.waitUntil[rows[i - 1]] : NaN;
    const from = waited > begins ? Math.min(waited, ends) : begins;
    const arrived = Math.max(from, this.arrivedAt(rows[i]));
    const duration = Math.min(this.push.compute_us[rows[i]] / 1e6, arrived - from);
    const transfer = duration > 0 ? (arrived - from - duration) / 2 : 0;
    return { row: rows[i], begins, from, compute: from + transfer, computed: arrived - transfer, arrived, ends };
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
    this.staleEnd = Math.max(4, quantile(counts, 0.99)); // the end of the colour scale
  }

  indexLeases() {
    const { number, start, stop, epoch } = this.tables.leases;
    this.leases = new Map();
    for (let i = 0; i < number.length; i += 1) {
      this.leases.set(number[i], { number: number[i], start: start[i], stop: stop[i], epoch: epoch[i] });
    }
  }

  /** Compute the exponential moving average of the loss; losses that are not finite are ignored. */
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
   * Compute when a worker of an SSP job may start the step after each of its pushes, in seconds; NaN if at once.
   *
   * A step may start if the worker's clock is at most `slack` above the smallest one, so the trace determines the time.
   */
  deriveWaits() {
    this.waitUntil = new Float64Array(this.count).fill(NaN);
    if (this.slack === null) return;
    const clocks = new Clocks();
    let slack = this.slackOf(this.firstMode);
    const ahead = (worker) => slack !== null && clocks.ahead(worker) > slack;
    let waiting = [];
    let next = 0;
    const release = (seconds) => {
      waiting = waiting.filter(({ worker, row }) => {
        if (ahead(worker)) return true;
        this.waitUntil[row] = seconds;
        return false;
      });
    };
    for (let row = 0; row < this.count; row += 1) {
      for (; next < this.events.length && this.events[next].before <= row; next += 1) {
        clocks.apply(this.events[next]);
        if (this.events[next].kind === "change" && this.events[next].mode) slack = this.slackOf(this.events[next].mode);
        release(this.timeAt(row));
      }
      const worker = this.push.worker[row];
      clocks.tick(worker);
      waiting = waiting.filter((each) => each.worker !== worker); // a worker that has pushed was not waiting
      release(this.times[row]);
      if (ahead(worker)) waiting.push({ worker, row });
    }
    for (const { row } of waiting) this.waitUntil[row] = this.duration;
  }
}

/** The number of completed steps of every live worker, counted as in `ps/core/consistency.py`. */
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
    } else if (event.kind === "change") {
      for (const worker of this.values.keys()) this.values.set(worker, 0);
    }
  }

  tick(worker) {
    if (this.values.has(worker)) this.values.set(worker, this.values.get(worker) + 1);
  }

  ahead(worker) {
    return this.values.has(worker) ? this.values.get(worker) - this.minimum : 0;
  }
}
