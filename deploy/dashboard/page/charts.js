// The charts beside the slide: which lines they show, and in which elements they are drawn.

import { LineChart, drawTimeline } from "./chart.js";
import { byId } from "./dom.js";
import { APPLIED } from "./run.js";
import { t } from "./texts.js";

const BINS = 160; // of the throughput chart
const NEAR_STEPS = 12; // shown by the timeline on each side of the playhead

export class Charts {
  /** Build the charts of a run; `seek` is called with the x value that the user clicks. */
  constructor(run, seek) {
    this.run = run;
    this.lines = Object.fromEntries(["loss", "accuracy", "throughput", "rate"].map((id) => [id, new LineChart(byId(id), seek)]));
    this.axis = null;
  }

  /** Write the texts of the charts again, in the language that is set. */
  translate() {
    this.axis = null;
    byId("loss-key").textContent = t("loss_key");
    const evaluated = this.run.live || this.run.header.summary.history?.length;
    byId("accuracy-key").textContent = evaluated ? t("accuracy_key") : t("accuracy_none");
    byId("throughput-key").textContent = t("throughput_key");
    byId("timeline-key").textContent = t(this.run.slack === null ? "timeline_key" : "timeline_key_ssp");
  }

  /** Set the lines of all charts, over time or over updates. */
  setAxis(axis) {
    this.axis = axis;
    const { run } = this;
    const records = Float64Array.from({ length: run.count }, (_, row) => row + 1);
    const x = axis === "time" ? run.times : records;
    const range = axis === "time" ? { low: run.beginning, high: run.duration } : { low: 0, high: run.count };
    const unit = axis === "time" ? " s" : "";
    const epochs = run.events.filter((event) => event.kind === "epoch" || event.kind === "validation");
    const place = epochs.map((event) => (axis === "time" ? run.timeAt(event.before) : event.before));
    const points = (name, color, shape, label) => ({
      x: place, y: epochs.map((event) => Number(event[name] ?? NaN)), color, points: shape, label,
    });
    this.lines.loss.setSeries([
      { x, y: run.push.loss, color: "raw", width: 0.7, scale: false },
      { x, y: run.smooth, color: "train", width: 2, label: t("smoothed") },
      points("train_loss", "train", "square", t("training")),
      points("val_loss", "validation", "diamond", t("validation")),
    ], { ...range, zero: true }, unit);
    const test = [run.header.summary.test_accuracy].filter((value) => value !== undefined && value !== null).map(Number);
    this.lines.accuracy.setSeries([
      points("train_accuracy", "train", "square", t("training")),
      points("val_accuracy", "validation", "diamond", t("validation")),
      { x: test.map(() => range.high), y: test, color: "test", points: "disc", label: t("test") },
    ], range, unit);
    this.lines.throughput.setSeries([this.throughput(axis), this.meanThroughput(range)], { ...range, zero: true }, unit);
    this.lines.rate.setSeries([this.learningRates(x)], { ...range, zero: true }, unit);
  }

  /** Return the line of the throughput, in samples per second, averaged over equal intervals of time. */
  throughput(axis) {
    const { run } = this;
    const begins = run.beginning;
    const width = (run.duration - begins) / BINS || 1;
    const samples = new Float64Array(BINS);
    for (let row = 0; row < run.count; row += 1) {
      samples[Math.min(BINS - 1, Math.floor((run.times[row] - begins) / width))] += run.push.samples[row];
    }
    const middle = Array.from(samples, (_, bin) => begins + (bin + 0.5) * width);
    const x = axis === "time" ? middle : middle.map((seconds) => run.positionAtTime(seconds));
    return { x, y: samples.map((count) => count / width), color: "train", width: 1.5, label: t("samples_per_s") };
  }

  meanThroughput(range) {
    const rate = Number(this.run.header.summary.samples_per_s ?? NaN);
    return Number.isFinite(rate)
      ? { x: [range.low, range.high], y: [rate, rate], color: "validation", dash: [5, 4], label: t("mean") }
      : { x: [], y: [], color: "validation" };
  }

  learningRates(x) {
    const { push } = this.run;
    const applied = [...push.outcome.keys()].filter((row) => push.outcome[row] === APPLIED);
    return {
      x: applied.map((row) => x[row]), y: applied.map((row) => push.learning_rate[row]), color: "train", width: 1.5,
      label: t("rate_short"),
    };
  }

  /** Draw the line charts with the playhead at a position and its time in seconds. */
  drawLines(position, seconds, axis, theme) {
    if (axis !== this.axis) this.setAxis(axis);
    for (const chart of Object.values(this.lines)) chart.draw(axis === "time" ? seconds : position, theme);
  }

  /** Draw the timeline; the timeline of the whole run is drawn only if `all`, because it takes long. */
  drawTimeline(seconds, span, theme, all) {
    const { run } = this;
    const canvas = byId("timeline");
    const height = `${Math.max(90, Math.min(420, run.rows.length * 26 + 24))}px`;
    if (canvas.style.height !== height) canvas.style.height = height;
    if (span === "all") {
      if (all) drawTimeline(canvas, run, { from: run.beginning, to: run.duration, now: seconds }, theme);
      return;
    }
    const usual = Math.max(1e-4, ...run.steps);
    const window = Math.min(run.duration - run.beginning || 1, 2 * NEAR_STEPS * usual);
    const from = Math.max(run.beginning, Math.min(run.duration - window, seconds - window / 2));
    drawTimeline(canvas, run, { from, to: from + window, now: seconds }, theme);
  }
}

