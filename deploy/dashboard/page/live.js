// A running job: the newest records from the messages of the server, joined into a run that grows.

import { decode, fromBase64 } from "./decode.js";
import { Run } from "./run.js";

export const LIVE_RECORDS = 20000; // that the page keeps of each shard; older ones are removed
const MOST_EVENTS = 500;
const MOST_TOTALS = 4000; // of the bytes at the time of a message; every second one of more is removed
const BEFORE_TRAINING = ["waiting", "initialising", "warming"]; // phases that the clock of the job counts from its own start
const HAVE_EVENTS = ["paused", "resumed"]; // codes of notes that events state as well
const SHARD_COLUMNS = ["time_us", "version", "worker", "incarnation", "seq", "staleness", "outcome"];
const PUSH_COLUMNS = ["base_version", "learning_rate", "norm", "loss", "lease", "start", "stop", "epoch", "samples", "reason", "compute_us", "wait_us"];

export class LiveJob {
  constructor() {
    this.shards = [];
    this.events = [];
    this.members = new Map(); // worker -> incarnation
    this.idle = new Set(); // workers without data
    this.totals = new Map(); // worker -> its counts in the newest message that contains it
    this.phase = "";
    this.modes = {}; // the facts about every mode that the job has had
    this.progress = null;
    this.removed = 0; // records
    this.transferred = { x: [], pushed: [], pulled: [] }; // total bytes at the times of the messages, in seconds
  }

  /**
   * Add a message of the server: `{progress, block, skipped}`. `pause` is awaited between parts of the work.
   *
   * @returns {Promise<{run: Run, shifted: number}>} the run so far, and the number of oldest records that were removed
   */
  async take(message, pause) {
    this.progress = message.progress;
    this.modes[this.progress.mode] = message.mode;
    while (this.shards.length < this.progress.shards) this.shards.push(emptyColumns(this.shards.length));
    const before = this.shards[0].count;
    let shifted = 0;
    if (message.block) {
      const { tables } = await decode(fromBase64(message.block));
      const fresh = tables.shard0;
      if (fresh?.version.length && before && fresh.version[0] < this.shards[0].last) shifted = this.restart();
      this.shards.forEach((columns, number) => columns.append(tables[`shard${number}`]));
      const over = Math.max(0, this.shards[0].count - LIVE_RECORDS);
      for (const columns of this.shards) columns.dropOldest(Math.max(0, columns.count - LIVE_RECORDS));
      for (const event of this.events) event.before = Math.max(0, event.before - over);
      shifted += over;
      this.removed += over;
    }
    for (const worker of this.progress.workers) this.totals.set(worker.worker, worker);
    this.addEvents();
    this.addTransferred();
    return { run: await this.run(pause), shifted };
  }

  /** Remove all records, because the job has returned to a checkpoint; return their number. */
  restart() {
    const gone = this.shards[0].count;
    this.removed = 0;
    this.shards = this.shards.map((_, number) => emptyColumns(number));
    for (const event of this.events) event.before = 0;
    return gone;
  }

  addEvents() {
    const { workers, phase, notes } = this.progress;
    const seconds = BEFORE_TRAINING.includes(phase) ? 0 : this.progress.elapsed_s;
    const add = (event) => this.events.push({ before: this.shards[0].count, seconds, ...event });
    const now = new Map(workers.map((worker) => [worker.worker, worker.incarnation]));
    for (const [worker, incarnation] of this.members) {
      if (!now.has(worker)) add({ kind: "leave", worker, incarnation, working: phase === "training" && !this.idle.has(worker) });
    }
    this.idle = new Set(workers.filter((worker) => worker.state === "idle").map((worker) => worker.worker));
    for (const [worker, incarnation] of now) {
      if (this.members.get(worker) !== incarnation) add({ kind: "join", worker, incarnation });
    }
    this.members = now;
    if (phase !== this.phase) add({ kind: "phase", text: phase });
    this.phase = phase;
    const { mode } = this.progress;
    if (this.mode && this.mode !== mode) add({ kind: "change", was: this.mode, mode, text: `${mode} (${this.mode})` });
    this.mode = mode;
    for (const { kind, elapsed_s: at, number, version } of this.progress.events ?? []) {
      const known = this.events.some((event) => event.kind === kind && event.seconds === at); // a new stream begins with all of them
      if (!known) add({ kind, number, version, seconds: at });
    }
    for (const text of notes) if (!HAVE_EVENTS.includes(text.code)) add({ kind: "note", text });
    const evaluated = `${this.progress.val_loss} ${this.progress.val_accuracy}`;
    if (this.progress.val_accuracy !== null && evaluated !== this.evaluated) {
      add({ kind: "validation", val_loss: this.progress.val_loss, val_accuracy: this.progress.val_accuracy });
    }
    this.evaluated = evaluated;
    if (this.events.length > MOST_EVENTS) this.events.splice(0, this.events.length - MOST_EVENTS);
  }

  addTransferred() {
    const { phase, elapsed_s: seconds, bytes_pushed: pushed, bytes_pulled: pulled } = this.progress;
    if (BEFORE_TRAINING.includes(phase) || seconds < (this.transferred.x.at(-1) ?? 0)) return;
    const more = { x: seconds, pushed, pulled };
    const thin = this.transferred.x.length >= MOST_TOTALS;
    this.transferred = Object.fromEntries(Object.entries(this.transferred).map(([name, values]) =>
      [name, [...(thin ? values.filter((_, at) => at % 2) : values), more[name]]]));
  }

  async run(pause) {
    const { progress } = this;
    const header = {
      kind: "live",
      run: progress.run || progress.job,
      settings: {
        model: progress.model, dataset: progress.dataset, mode: progress.mode, optimizer: progress.optimizer,
        batch_size: progress.batch_size,
      },
      summary: {
        status: progress.paused ? "paused" : progress.phase, test_accuracy: progress.test_accuracy, val_accuracy: progress.val_accuracy,
        samples_per_s: progress.samples_per_s, bytes_pushed: progress.bytes_pushed, bytes_pulled: progress.bytes_pulled,
      },
      window: { first: this.removed, records: this.shards[0].count, of: this.removed + this.shards[0].count },
      transferred: this.transferred,
      modes: this.modes,
      train_samples: progress.samples_per_epoch,
      events: this.events.map((event) => ({ ...event })),
    };
    const tables = Object.fromEntries(this.shards.map((columns, number) => [`shard${number}`, columns.table]));
    await pause();
    tables.leases = leasesOf(tables.shard0, progress.samples_per_epoch);
    const run = new Run({ header, tables }, false);
    for (const part of [...run.parts(), () => run.setTotals(progress, this.totals)]) {
      await pause();
      part();
    }
    await pause();
    return run;
  }
}

function emptyColumns(shard) {
  return new Columns(shard === 0 ? [...SHARD_COLUMNS, ...PUSH_COLUMNS] : SHARD_COLUMNS);
}

/** Columns that grow at their end and shrink at their beginning, mostly without a copy of what stays. */
class Columns {
  constructor(names) {
    this.buffers = Object.fromEntries(names.map((name) => [name, new Float64Array(1024)]));
    [this.start, this.end] = [0, 0];
  }

  get count() {
    return this.end - this.start;
  }

  get last() {
    return this.buffers.version[this.end - 1];
  }

  append(fresh) {
    if (!fresh) return;
    const more = fresh.version.length;
    if (this.end + more > this.buffers.version.length) this.move(2 * (this.count + more));
    for (const [name, buffer] of Object.entries(this.buffers)) buffer.set(fresh[name], this.end);
    this.end += more;
  }

  /** Copy the columns to the beginning of new buffers; a run that is shown still uses the old ones. */
  move(capacity) {
    for (const [name, buffer] of Object.entries(this.buffers)) {
      this.buffers[name] = new Float64Array(capacity);
      this.buffers[name].set(buffer.subarray(this.start, this.end));
    }
    [this.start, this.end] = [0, this.count];
  }

  dropOldest(count) {
    this.start += count;
  }

  /** The columns as typed arrays, which stay valid. */
  get table() {
    return Object.fromEntries(Object.entries(this.buffers).map(([name, buffer]) => [name, buffer.subarray(this.start, this.end)]));
  }
}

/** Estimate the leases from the records: each is as long as the longest one seen, up to the end of the epoch. */
function leasesOf({ lease, start, stop, epoch }, samplesPerEpoch) {
  const found = new Map();
  for (let row = 0; row < lease.length; row += 1) {
    const known = found.get(lease[row]);
    if (!known) found.set(lease[row], { start: start[row], stop: stop[row], epoch: epoch[row] });
    else [known.start, known.stop] = [Math.min(known.start, start[row]), Math.max(known.stop, stop[row])];
  }
  const longest = Math.max(0, ...[...found.values()].map((each) => each.stop - each.start));
  const column = (read) => Float64Array.from(found.values(), read);
  return {
    number: Float64Array.from(found.keys()), epoch: column((each) => each.epoch), start: column((each) => each.start),
    stop: column((each) => Math.max(each.stop, Math.min(samplesPerEpoch, each.start + longest))),
  };
}
