// The state of a recorded run at a position: counters, histograms, workers. Moves forward step by step.

import { APPLIED, Clocks, MOST_STALENESS } from "./run.js";
import { countUpTo, median } from "./search.js";

const RECENT = 20; // pushes over which a worker's pace is taken
const SLOW = 2; // times the others' pace

export class State {
  /** At the beginning of a run. */
  constructor(run) {
    this.run = run;
    this.reset();
  }

  reset() {
    const { workers, mostStaleness } = this.run;
    this.position = 0;
    this.nextEvent = 0;
    const { base } = this.run; // what a running job had counted before the first record here
    this.applied = base?.applied ?? 0;
    this.dropped = base?.dropped ?? 0;
    this.samples = base?.samples ?? 0;
    this.clocks = new Clocks();
    this.workers = workers.map((number) => ({
      number, life: "absent", incarnation: 0, updates: 0, dropped: 0, samples: 0, row: -1, pushes: 0,
      ...base?.workers.get(number),
      staleness: new Uint32Array(mostStaleness + 1), stalest: 0, staleSum: 0, counted: 0, // of the records here
    }));
    this.takeEvents();
  }

  /** Goes to a position: forward from here, or again from the beginning. */
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
    worker.samples += push.samples[row];
    worker.row = row;
    worker.pushes += 1;
    worker.incarnation = push.incarnation[row];
    if (worker.life !== "resting") worker.life = "active";
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
      worker.life = { join: "joining", resume: "active", rest: "resting", leave: "left" }[event.kind] ?? worker.life;
      if (event.kind === "join") worker.incarnation = event.incarnation;
    }
  }

  /** Mean staleness of the updates of some workers, among the records here; 0 without any. */
  meanStaleness(workers = this.workers) {
    const counted = workers.reduce((sum, worker) => sum + worker.counted, 0);
    return counted ? workers.reduce((sum, worker) => sum + worker.staleSum, 0) / counted : 0;
  }

  /** Version of a shard; of shard 0 at the position itself, of others at its time. */
  versionOf(shard, seconds) {
    if (shard === 0) return this.run.versionAt(this.position);
    const passed = countUpTo(this.run.shardTimes[shard], seconds);
    return passed ? this.run.shards[shard].version[passed - 1] : 0;
  }

  /** Learning rate of the newest update; null before the first. */
  learningRate() {
    for (let row = this.position - 1; row >= 0; row -= 1) {
      if (this.run.push.outcome[row] === APPLIED) return this.run.push.learning_rate[row];
    }
    return null;
  }

  /** Mean time between the last pushes of a worker, in seconds; 0 where it has made fewer than two. */
  pace(index) {
    const { rows, times } = this.run;
    const last = this.workers[index].pushes - 1;
    const first = Math.max(0, last - RECENT);
    return last > first ? (times[rows[index][last]] - times[rows[index][first]]) / (last - first) : 0;
  }

  /** What each worker does at a time: absent, joining, computing, step, waiting, slow, resting or left. */
  activities(seconds) {
    const paces = this.workers.map((_, index) => this.pace(index));
    const usual = median(paces.filter((pace) => pace > 0));
    return this.workers.map((worker, index) => {
      const told = this.toldActivity(worker);
      if (told) return told;
      if (worker.life !== "active" && !(this.run.live && worker.life === "joining")) return worker.life;
      if (worker.row >= 0 && this.run.waitUntil[worker.row] > seconds) return "waiting";
      const since = seconds - this.run.timeAt(worker.row + 1);
      if (usual > 0 && Math.max(paces[index], since) > SLOW * usual + 1e-9) {
        if (paces[index] > SLOW * usual || since > 4 * SLOW * usual) return "slow";
      }
      return this.run.hasBarrier ? "step" : "computing";
    });
  }

  /** What a running job itself says of a worker at its newest moment; null where it leaves that to the records. */
  toldActivity(worker) {
    if (!this.run.live || this.position < this.run.count) return null;
    const member = this.run.live.workers.find((each) => each.worker === worker.number);
    if (!member) return worker.life === "absent" ? "absent" : "left";
    return { warming: "joining", idle: "resting" }[member.state] ?? null;
  }

  /** The lease that a worker's last push was of, and how far it was used; null before its first push. */
  leaseOf(index) {
    const row = this.workers[index].row;
    if (row < 0) return null;
    const lease = this.run.leases.get(this.run.push.lease[row]);
    return lease ? { ...lease, used: this.run.push.stop[row] - lease.start } : null;
  }

  /** Samples of the current epoch that were used, and the epoch; from the records alone. */
  epoch() {
    return this.position ? this.run.push.epoch[this.position - 1] : 0;
  }
}
