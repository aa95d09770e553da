// The charts beside the slide: which lines they show, and in which elements they are drawn.

import { LineChart } from "./chart.js";
import { byId, setText } from "./dom.js";
import { memberships, transferred } from "./quantities.js";
import { APPLIED } from "./run.js";
import { bytes, percent, t } from "./texts.js";
import { Timeline } from "./timeline.js";

const CHARTS = ["loss", "accuracy", "throughput", "speedup", "efficiency", "rate", "bytes"];
const BINS = 160; // of the charts of throughput, speedup and efficiency
const NEAR_STEPS = 12; // shown by the timeline on each side of the playhead

export class Charts {
  /** Build the charts of a run; `seek` is called with the x value that the user clicks. */
  constructor(run, seek) {
    this.run = run;
    this.lines = Object.fromEntries(CHARTS.map((id) => [id, new LineChart(byId(id), seek)]));
    this.timeline = new Timeline(byId("timeline"));
    this.stale = new Set(); // charts whose lines must be set again
    this.axis = null;
  }

  /** Write the texts of the charts again, in the language that is set. */
  translate() {
    this.axis = null;
    setText(byId("loss-key"), t("loss_key"));
    const evaluated = this.run.live || this.run.header.summary.history?.length;
    setText(byId("accuracy-key"), evaluated ? t("accuracy_key") : t("accuracy_none"));
    setText(byId("throughput-key"), t("throughput_key"));
    setText(byId("speedup-key"), t(this.run.timed ? "speedup_key" : "not_timed"));
    setText(byId("efficiency-key"), t(this.run.timed ? "efficiency_key" : "not_timed"));
    setText(byId("bytes-key"), t(this.run.live ? "bytes_key_live" : "bytes_key"));
    setText(byId("timeline-key"), [
      t(this.run.timed ? "timeline_key" : "timeline_key_steps"), ...(this.run.slack === null ? [] : [t("timeline_key_ssp")]),
    ].join(" "));
  }

  /** Draw one of the line charts with the playhead at a position and its time in seconds. */
  drawLine(id, position, seconds, axis, theme) {
    if (axis !== this.axis) {
      this.axis = axis;
      this.stale = new Set(Object.keys(this.lines));
    }
    if (this.stale.delete(id)) this.setLines(id);
    this.lines[id].draw(axis === "time" ? seconds : position, theme);
  }

  /** Set the lines of a chart, over time or over updates. */
  setLines(id) {
    const { run, axis } = this;
    const range = axis === "time" ? { low: run.beginning, high: run.duration } : { low: 0, high: run.count };
    const unit = axis === "time" ? " s" : "";
    const { lines, zero, format } = this[`${id}Lines`](range);
    this.lines[id].setLines(lines, range, { zero, unit, format });
  }

  /** The x values of all records. */
  get x() {
    if (this.axis === "time") return this.run.times;
    const records = new Float64Array(this.run.count);
    for (let row = 0; row < records.length; row += 1) records[row] = row + 1;
    return records;
  }

  lossLines() {
    const { run, x } = this;
    return {
      zero: true,
      lines: [
        { x, y: run.push.loss, color: "raw", width: 0.7, scale: false },
        { x, y: run.smooth, color: "train", width: 2, label: t("smoothed") },
        this.points("train_loss", "train", "square", t("training")),
        this.points("val_loss", "validation", "diamond", t("validation")),
      ],
    };
  }

  accuracyLines(range) {
    const test = [this.run.header.summary.test_accuracy].filter((value) => value !== undefined && value !== null).map(Number);
    return {
      lines: [
        this.points("train_accuracy", "train", "square", t("training")),
        this.points("val_accuracy", "validation", "diamond", t("validation")),
        { x: test.map(() => range.high), y: test, color: "test", points: "disc", label: t("test") },
      ],
    };
  }

  /** Return the points of a result of each epoch. */
  points(name, color, points, label) {
    const begins = this.run.header.window.first ? 1 : 0; // events that are older than the records have no place
    const epochs = this.run.events.filter((event) => ["epoch", "validation"].includes(event.kind) && event.before >= begins);
    const x = epochs.map((event) => (this.axis === "time" ? this.run.timeAt(event.before) : event.before));
    return { x, y: epochs.map((event) => Number(event[name] ?? NaN)), color, points, label };
  }

  throughputLines(range) {
    const { run } = this;
    const pushed = run.push.samples.reduce((sum, samples) => sum + samples, 0);
    const mean = run.live ? pushed / (run.duration - run.beginning) : Number(run.header.summary.samples_per_s ?? NaN);
    const line = this.perSecond((add) => {
      for (let row = 0; row < run.count; row += 1) add(run.times[row], run.times[row], run.push.samples[row]);
    });
    return { zero: true, lines: [{ ...line, label: t("samples_per_s") }, this.level(range, mean, t("mean"))] };
  }

  speedupLines(range) {
    const { run } = this;
    const shown = run.timed ? [{ ...this.computedPerSecond(), label: t("speedup") }, this.level(range, run.workers.length, t("workers"))] : [];
    return { zero: true, lines: shown };
  }

  /** The fraction of the members' time in which they computed. */
  efficiencyLines() {
    const { run } = this;
    const computed = this.computedPerSecond();
    const members = this.perSecond((add) => {
      for (const [from, to] of memberships(run)) add(from, to, to - from);
    });
    const y = computed.y.map((value, bin) => (members.y[bin] > 0 ? value / members.y[bin] : NaN));
    return { zero: true, format: percent, lines: run.timed ? [{ ...computed, y, label: t("fact_efficiency") }] : [] };
  }

  computedPerSecond() {
    const { run } = this;
    return this.perSecond((add) => {
      for (let row = 0; row < run.count; row += 1) {
        const [arrived, duration] = [run.arrivedAt(row), run.push.compute_us[row] / 1e6];
        add(arrived - duration, arrived, duration);
      }
    });
  }

  /** The bytes so far: those that a running job reports, or else the same share of the total for each push. */
  bytesLines() {
    const { run } = this;
    const { x, pushed, pulled } = transferred(run);
    const along = this.axis === "time" ? x : x.map((seconds) => run.positionAtTime(seconds));
    return {
      zero: true, format: bytes,
      lines: [
        { x: along, y: pushed, color: "train", label: t("fact_bytes_pushed") },
        { x: along, y: pulled, color: "validation", dash: [5, 4], label: t("fact_bytes_pulled") },
      ],
    };
  }

  /** Return a horizontal line across the chart; none if the value is not known. */
  level({ low, high }, value, label) {
    const known = Number.isFinite(value);
    return { x: known ? [low, high] : [], y: known ? [value, value] : [], color: "validation", dash: [5, 4], label };
  }

  /** Return the line of a quantity per second in equal intervals; `visit(add)` adds the amounts. */
  perSecond(visit) {
    const { run } = this;
    const begins = run.beginning;
    const width = (run.duration - begins) / BINS || 1;
    const sums = new Float64Array(BINS);
    const binOf = (seconds) => Math.max(0, Math.min(BINS - 1, Math.floor((seconds - begins) / width)));
    const add = (from, to, amount) => {
      const [first, last] = [binOf(from), binOf(to)];
      for (let bin = first; bin <= last; bin += 1) {
        const part = Math.min(to, begins + (bin + 1) * width) - Math.max(from, begins + bin * width);
        sums[bin] += first === last ? amount : amount * Math.max(0, part / (to - from));
      }
    };
    visit(add);
    const middle = Array.from(sums, (_, bin) => begins + (bin + 0.5) * width);
    const x = this.axis === "time" ? middle : middle.map((seconds) => run.positionAtTime(seconds));
    return { x, y: sums.map((sum) => sum / width), color: "train", width: 1.5 };
  }

  rateLines() {
    const { push } = this.run;
    const { x } = this;
    const [xs, ys] = [[], []];
    for (let row = 0; row < this.run.count; row += 1) {
      if (push.outcome[row] !== APPLIED) continue;
      xs.push(x[row]);
      ys.push(push.learning_rate[row]);
    }
    return { zero: true, lines: [{ x: xs, y: ys, color: "train", width: 1, label: t("rate_short") }] };
  }

  /** Draw the timeline; that of the whole run of a job that continues is drawn only if `all`, because it takes long. */
  drawTimeline(seconds, span, theme, all) {
    const { run } = this;
    const height = `${Math.max(90, Math.min(420, run.rows.length * 26 + 24))}px`;
    if (this.timeline.canvas.style.height !== height) this.timeline.canvas.style.height = height;
    if (span === "all") {
      if (all || !run.live) this.timeline.draw(run, { from: run.beginning, to: run.duration, now: seconds }, theme);
      return;
    }
    const usual = Math.max(1e-4, ...run.steps);
    const window = Math.min(run.duration - run.beginning || 1, 2 * NEAR_STEPS * usual);
    const from = Math.max(run.beginning, Math.min(run.duration - window, seconds - window / 2));
    this.timeline.draw(run, { from, to: from + window, now: seconds }, theme);
  }
}
