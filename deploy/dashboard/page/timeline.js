// The timeline: what every worker did, drawn once on a strip that is wider than the view and then moved. It is drawn by
// hand: uPlot has no chart of intervals, and draws a view again where this one is moved in every frame.

import { MARGIN, digitsFor, ticks, vertical } from "./axes.js";
import { prepare } from "./canvas.js";
import { css, staleColor } from "./colors.js";
import { num } from "./texts.js";

const TRANSFER_HEIGHT = 0.28; // of a box, as a fraction of that of computing
const NARROW = 2.5; // pixels
const STRIP = 1.6; // width of the strip, as a multiple of the view's

export class Timeline {
  /** Build the timeline of a canvas. */
  constructor(canvas) {
    this.canvas = canvas;
    this.strip = null;
  }

  /** Draw the steps between two times: computing in the colour of the push's staleness, transfers thin, waits hatched. */
  draw(run, { from, to, now }, theme) {
    const sheet = prepare(this.canvas);
    if (!sheet) return;
    const { context, width, height } = sheet;
    const left = MARGIN.left;
    const plot = { width: width - left - MARGIN.right, height: height - MARGIN.bottom };
    const scale = plot.width / Math.max(1e-9, to - from);
    const key = [plot.width, plot.height, devicePixelRatio, theme.name, scale].join();
    if (!this.strip || this.strip.run !== run || this.strip.key !== key || from < this.strip.from || to > this.strip.to) {
      const end = Math.min(from + STRIP * (to - from), Math.max(to, run.duration));
      this.strip = { run, key, from, to: end, sheet: drawStrip(run, { from, to: end }, scale, plot.height, theme) };
    }
    const shift = Math.max(0, Math.min((from - this.strip.from) * scale * devicePixelRatio, this.strip.sheet.width - 1));
    const wide = Math.min(plot.width * devicePixelRatio, this.strip.sheet.width - shift);
    context.drawImage(this.strip.sheet, shift, 0, wide, this.strip.sheet.height, left, 0, wide / devicePixelRatio, plot.height);
    drawRowNames(context, run, plot.height, theme);
    const x = (seconds) => left + (seconds - from) * scale;
    context.textAlign = "center";
    context.textBaseline = "top";
    const marks = ticks(from, to, Math.max(2, width / 110));
    for (const value of marks) context.fillText(`${num(value, Math.max(digitsFor(marks), 0))} s`, x(value), plot.height + 5);
    if (now >= from && now <= to) vertical(context, x(now), height, theme.accent);
  }
}

function drawRowNames(context, run, height, theme) {
  const rowHeight = height / Math.max(1, run.rows.length);
  context.fillStyle = theme.muted;
  context.textAlign = "right";
  context.textBaseline = "middle";
  run.workers.forEach((number, index) => {
    if (rowHeight < 9 && index % Math.ceil(10 / rowHeight)) return;
    context.fillText(String(number), MARGIN.left - 6, (index + 0.5) * rowHeight);
  });
}

function drawStrip(run, { from, to }, scale, height, theme) {
  const wide = Math.ceil(Math.max(1, (to - from) * scale) * devicePixelRatio);
  const sheet = new OffscreenCanvas(Math.min(wide, 32000), Math.max(1, Math.round(height * devicePixelRatio)));
  const context = sheet.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const x = (seconds) => (seconds - from) * scale;
  const rowHeight = height / Math.max(1, run.rows.length);
  const hatch = hatched(context, theme);
  run.rows.forEach((rows, index) => {
    let painted = -1;
    for (let i = firstAfter(run.times, rows, from); i < rows.length; i += 1) {
      const ends = run.times[rows[i]];
      if (i && run.times[rows[i - 1]] > to) break;
      if (x(ends) < painted) continue; // narrower than a pixel, which the step before has filled
      painted = x(ends) + 0.5;
      drawStep(context, run, run.stepOf(index, i), { x, y: index * rowHeight, rowHeight, from, to, hatch }, theme);
    }
  });
  return sheet;
}

function drawStep(context, run, step, { x, y, rowHeight, from, to, hatch }, theme) {
  const pad = rowHeight > 8 ? 2 : 0.5;
  const gap = rowHeight > 8 ? 0.7 : 0;
  const box = (begins, ends, share = 1) => {
    const start = x(Math.max(begins, from));
    const height = Math.max(1, (rowHeight - 2 * pad) * share);
    return [start, y + (rowHeight - height) / 2, Math.max(0.6, x(Math.min(ends, to)) - start - gap), height];
  };
  const shown = (begins, ends) => ends > begins && ends > from && begins < to;
  if (x(step.ends) - x(step.begins) < NARROW) { // too narrow for its parts
    context.fillStyle = run.push.outcome[step.row] === 0 ? css(staleColor(run.push.staleness[step.row], run.staleEnd)) : theme.drop;
    context.fillRect(...box(step.begins, step.ends));
    return;
  }
  context.fillStyle = theme.muted;
  if (shown(step.from, step.compute)) context.fillRect(...box(step.from, step.compute, TRANSFER_HEIGHT));
  if (shown(step.computed, step.arrived)) context.fillRect(...box(step.computed, step.arrived, TRANSFER_HEIGHT));
  if (shown(step.compute, step.computed)) {
    if (run.push.outcome[step.row] === 0) {
      context.fillStyle = css(staleColor(run.push.staleness[step.row], run.staleEnd));
      const place = box(step.compute, step.computed);
      context.fillRect(...place);
      if (place[2] > 3 && rowHeight > 8) { // dark colours hardly differ from a dark background
        context.strokeStyle = theme.text;
        context.lineWidth = 0.6;
        context.strokeRect(...place);
      }
    } else {
      context.strokeStyle = theme.drop;
      context.lineWidth = 1.5;
      context.strokeRect(...box(step.compute, step.computed));
    }
  }
  context.fillStyle = hatch;
  if (shown(step.begins, step.from)) context.fillRect(...box(step.begins, step.from));
  if (shown(step.arrived, step.ends)) context.fillRect(...box(step.arrived, step.ends));
}

function hatched(context, theme) {
  const sheet = new OffscreenCanvas(6, 6);
  const pen = sheet.getContext("2d");
  pen.fillStyle = theme.surface;
  pen.fillRect(0, 0, 6, 6);
  pen.strokeStyle = theme.text;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(6, 0);
  pen.stroke();
  return context.createPattern(sheet, "repeat");
}

function firstAfter(times, rows, seconds) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[rows[middle]] < seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}
