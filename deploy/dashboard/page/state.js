// The state of a run at a position: its counters, histograms and workers, computed forward record by record.

import { APPLIED, Clocks, MOST_STALENESS } from "./run.js";
import { countUpTo, median } from "./search.js";

const RECENT = 20; // pushes: a worker's pace is the mean over them
const SLOW = 2; // a worker is slow if its steps take this many times the median

export class State {
  /** Build the state at the start of a run. */
  constructor(run) {
    this.run = run;
    this.reset();
  }

  reset() {
    const { workers, mostStaleness } = this.run;
    this.position = 0;
    this.nextEvent = 0;
    const { base } = this.run; // the counts of a running job before the first record
    this.applied = base?.applied ?? 0;
    this.dropped = base?.dropped ?? 0;
    this.samples = base?.samples ?? 0;
    this.computed = 0; // seconds of all workers
    this.members = 0;
    [this.present, this.presentUntil] = [0, this.run.beginning]; // seconds that all members were in the job
    this.clocks = new Clocks();
    this.workers = workers.map((number) => ({
      number, life: "absent", incarnation: 0, updates: 0, dropped: 0, samples: 0, row: -1, pushes: 0,
      ...base?.workers.get(number),
      staleness: new Uint32Array(mostStaleness + 1), stalest: 0, staleSum: 0, counted: 0, // over the records of this run
    }));
    this.takeEvents();
  }

  /** Compute the state at a position, from the current state if it is earlier, or else from the start. */
  seek(position) {
    const target = Math.max(0, Math.min(position, this.run.count));
    if (target < this.position) this.reset();
    while (this.position < target) this.takeRecord();
    return this;
  }

  takeRecord() {
    const { push, indexOf } = this.run;
    const row = this.position;
    const worker = this.workers[indexOf.get(push.worker[row])];
    if (push.outcome[row] === APPLIED) {
      this.applied += 1;
      worker.updates += 1;
      worker.stalest = Math.max(worker.stalest, push.staleness[row]);
      worker.staleSum += push.staleness[row];
      worker.counted += 1;
      worker.staleness[Math.min(push.staleness[row], MOST_STALENESS, worker.staleness.length - 1)] += 1;
    } else {
      this.dropped += 1;
      worker.dropped += 1;
    }
    this.samples += push.samples[row];
    this.computed += push.compute_us[row] / 1e6;
    this.present += this.members * (this.run.times[row] - this.presentUntil);
    this.presentUntil = this.run.times[row];
    worker.samples += push.samples[row];
    worker.row = row;
    worker.pushes += 1;
    worker.incarnation = push.incarnation[row];
    if (worker.life !== "resting") this.setLife(worker, "active");
    this.clocks.tick(worker.number);
    this.position += 1;
    this.takeEvents();
  }

  takeEvents() {
    const { events, indexOf } = this.run;
    for (; this.nextEvent < events.length && events[this.nextEvent].before <= this.position; this.nextEvent += 1) {
      const event = events[this.nextEvent];
      if (event.worker === undefined) continue;
      this.clocks.apply(event);
      const worker = this.workers[indexOf.get(event.worker)];
      const lives = { join: "joining", resume: "active", rest: "resting", leave: event.working ? "dead" : "left" };
      this.setLife(worker, lives[event.kind] ?? worker.life);
      if (event.kind === "join") worker.incarnation = event.incarnation;
    }
  }

  setLife(worker, life) {
    const counts = (state) => Number(!["absent", "left", "dead"].includes(state));
    this.members += counts(life) - counts(worker.life);
    worker.life = life;
  }

  /** Return how many workers that only compute would do the same work in the same time; null if it is not known. */
  speedup() {
    const wall = this.presentUntil - this.run.beginning;
    return this.run.timed && wall > 0 ? this.computed / wall : null;
  }

  /** Return the fraction of the members' time in which they computed; null if it is not known. */
  efficiency() {
    return this.run.timed && this.present > 0 ? this.computed / this.present : null;
  }

  /** Return the mean staleness of the recorded updates of some workers; 0 if there are none. */
  meanStaleness(workers = this.workers) {
    const counted = workers.reduce((sum, worker) => sum + worker.counted, 0);
    return counted ? workers.reduce((sum, worker) => sum + worker.staleSum, 0) / counted : 0;
  }

  /** Return the version of a shard: of shard 0 at the position, of another shard at a time. */
  versionOf(shard, seconds) {
    if (shard === 0) return this.run.versionAt(this.position);
    const passed = countUpTo(this.run.shardTimes[shard], seconds);
    return passed ? this.run.shards[shard].version[passed - 1] : 0;
  }

  /** Return the learning rate of the newest update; null before the first. */
  learningRate() {
    for (let row = this.position - 1; row >= 0; row -= 1) {
      if (this.run.push.outcome[row] === APPLIED) return this.run.push.learning_rate[row];
    }
    return null;
  }

  /** Return the mean duration of the last steps of a worker without its waits, in seconds; 0 before the second. */
  pace(index) {
    const { rows, times, push, timed } = this.run;
    const last = this.workers[index].pushes - 1;
    const first = Math.max(0, last - RECENT);
    if (last <= first) return 0;
    if (!timed) return (times[rows[index][last]] - times[rows[index][first]]) / (last - first);
    let computed = 0;
    for (let i = first + 1; i <= last; i += 1) computed += push.compute_us[rows[index][i]] / 1e6;
    return computed / (last - first);
  }

  /** Return whether a worker's next push has arrived, and waits for those of others at a time. */
  atBarrier(index, seconds) {
    const next = this.run.rows[index][this.workers[index].pushes];
    return next !== undefined && seconds >= this.run.arrivedAt(next) && seconds < this.run.times[next];
  }

  /** Return the activity of each worker at a time: absent, joining, computing, step, waiting, slow, resting, left or dead. */
  activities(seconds) {
    const paces = this.workers.map((_, index) => this.pace(index));
    const usual = median(paces.filter((pace) => pace > 0));
    return this.workers.map((worker, index) => {
      const reported = this.reportedActivity(worker);
      if (reported) return reported;
      if (worker.life !== "active" && !(this.run.live && worker.life === "joining")) return worker.life;
      if (worker.row >= 0 && this.run.waitUntil[worker.row] > seconds) return "waiting";
      if (this.atBarrier(index, seconds)) return "waiting";
      const since = seconds - this.run.timeAt(worker.row + 1);
      if (usual > 0 && Math.max(paces[index], since) > SLOW * usual + 1e-9) {
        if (paces[index] > SLOW * usual || since > 4 * SLOW * usual) return "slow";
      }
      return this.run.buffers && !this.run.timed ? "step" : "computing";
    });
  }

  /** Return the activity of a worker that a running job reports; null if the records determine it. */
  reportedActivity(worker) {
    if (!this.run.live || this.position < this.run.count) return null;
    const member = this.run.live.workers.find((each) => each.worker === worker.number);
    if (!member) return ["absent", "dead"].includes(worker.life) ? worker.life : "left";
    return { warming: "joining", idle: "resting" }[member.state] ?? null;
  }

  /** Return the lease of a worker's last push, and how many of its samples are used; null before the first push. */
  leaseOf(index) {
    const row = this.workers[index].row;
    if (row < 0) return null;
    const lease = this.run.leases.get(this.run.push.lease[row]);
    return lease ? { ...lease, used: this.run.push.stop[row] - lease.start } : null;
  }

  /** Return the number of the current epoch, from 0. */
  epoch() {
    return this.position ? this.run.push.epoch[this.position - 1] : 0;
  }
}
