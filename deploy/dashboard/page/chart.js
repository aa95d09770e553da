// Charts on a canvas: lines over time or updates, and histograms with a predicted distribution.

import { prepare } from "./canvas.js";
import { css, staleColor } from "./colors.js";
import { num } from "./texts.js";

export const MARGIN = { left: 46, right: 10, top: 8, bottom: 20 };

/** Return round numbers that divide a range into about `count` parts. */
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  return found;
}

/** Return the number of decimal places that distinguishes neighbouring ticks. */
export function digitsFor(values) {
  if (values.length < 2) return 3;
  return Math.max(0, Math.min(8, -Math.floor(Math.log10(values[1] - values[0]) + 1e-9)));
}

/** A chart of one or more lines, whose part after the playhead is drawn faintly. */
export class LineChart {
  /** Build a chart in a canvas; `onSeek` is called with the x value that the user clicks. */
  constructor(canvas, onSeek) {
    this.canvas = canvas;
    this.series = [];
    this.cache = null;
    canvas.addEventListener("click", (event) => {
      const x = this.xAt(event.offsetX);
      if (x !== null) onSeek(x);
    });
    canvas.addEventListener("mousemove", (event) => { this.hover = event.offsetX; this.redraw?.(); });
    canvas.addEventListener("mouseleave", () => { this.hover = null; this.redraw?.(); });
  }

  /** Set the lines `[{x, y, color, width, points, dash, label}]`, ascending in x, and the range of x `{low, high, zero}`. */
  setSeries(series, range, unit = "") {
    Object.assign(this, { series, range, unit, cache: null });
    const values = series.flatMap((line) => line.scale === false ? [] : [...extremes(line.y)]);
    this.low = range.zero ? Math.min(0, ...values) : Math.min(...values);
    this.high = Math.max(...values, this.low + 1e-9);
    if (!values.length) [this.low, this.high] = [0, 1];
    const room = (this.high - this.low) * 0.06;
    this.high += room;
    if (!range.zero) this.low -= room;
  }

  xAt(pixel) {
    if (!this.plot || pixel < MARGIN.left) return null;
    const share = Math.min(1, (pixel - MARGIN.left) / this.plot.width);
    return this.range.low + share * (this.range.high - this.range.low);
  }

  /** Draw the chart with the playhead at `x`. */
  draw(x, theme) {
    this.redraw = () => this.draw(x, theme);
    const sheet = prepare(this.canvas);
    if (!sheet) return;
    const { context, width, height } = sheet;
    this.plot = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const key = [width, height, devicePixelRatio, theme.name, num(1.5, 1)].join();
    if (this.cache?.key !== key) this.cache = { key, ...this.render(width, height, theme) };
    const at = this.toX(x);
    context.setTransform(1, 0, 0, 1, 0, 0);
    const split = Math.round(at * devicePixelRatio);
    context.globalAlpha = 0.28;
    context.drawImage(this.cache.lines, 0, 0);
    context.globalAlpha = 1;
    if (split > 0) context.drawImage(this.cache.lines, 0, 0, split, this.canvas.height, 0, 0, split, this.canvas.height);
    context.drawImage(this.cache.axes, 0, 0);
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    vertical(context, at, height, theme.accent);
    if (this.hover !== null && this.hover !== undefined) this.drawHover(context, width, theme);
  }

  render(width, height, theme) {
    const sheets = ["lines", "axes"].map(() => new OffscreenCanvas(this.canvas.width, this.canvas.height));
    const [lines, axes] = sheets.map((sheet) => {
      const context = sheet.getContext("2d");
      context.scale(devicePixelRatio, devicePixelRatio);
      context.font = "11px system-ui, sans-serif";
      return context;
    });
    drawAxes(axes, this, width, height, theme);
    for (const line of this.series) this.drawSeries(lines, line, theme);
    return { lines: sheets[0], axes: sheets[1] };
  }

  toX(x) {
    const share = (x - this.range.low) / Math.max(1e-12, this.range.high - this.range.low);
    return MARGIN.left + Math.min(1, Math.max(0, share)) * this.plot.width;
  }

  toY(y) {
    return MARGIN.top + (1 - (y - this.low) / (this.high - this.low)) * this.plot.height;
  }

  drawSeries(context, line, theme) {
    context.strokeStyle = context.fillStyle = theme[line.color];
    context.lineWidth = line.width ?? 1.5;
    context.setLineDash(line.dash ?? []);
    if (line.points) {
      for (let i = 0; i < line.x.length; i += 1) drawPoint(context, line.points, this.toX(line.x[i]), this.toY(line.y[i]));
      return;
    }
    context.beginPath();
    for (const [x, y, begins] of this.thinned(line)) {
      if (begins) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    context.stroke();
    context.setLineDash([]);
  }

  /** Yield the points of a line in pixels; of those in one column, only the first, the extremes and the last. */
  * thinned(line) {
    let [column, low, high, last] = [null, 0, 0, 0];
    let begins = true;
    for (let i = 0; i <= line.x.length; i += 1) {
      const over = i === line.x.length;
      if (!over && !Number.isFinite(line.y[i])) continue;
      const x = over ? null : Math.round(this.toX(line.x[i]) * 2) / 2;
      const y = over ? 0 : this.toY(line.y[i]);
      if (x !== column) {
        if (column !== null) {
          if (low !== high) { yield [column, low, false]; yield [column, high, false]; }
          yield [column, last, false];
        }
        if (over) return;
        yield [x, y, begins];
        [begins, column, low, high] = [false, x, y, y];
      }
      [low, high, last] = [Math.min(low, y), Math.max(high, y), y];
    }
  }

  drawHover(context, width, theme) {
    const x = this.xAt(this.hover);
    if (x === null) return;
    const parts = this.series.filter((line) => line.label && line.x.length).map((line) => {
      let i = 0;
      while (i < line.x.length - 1 && line.x[i + 1] <= x) i += 1;
      return `${line.label} ${num(line.y[i], 4)}`;
    });
    const text = `${num(x, this.unit ? 3 : 0)}${this.unit}: ${parts.join(" · ")}`;
    context.fillStyle = theme.surface;
    const size = context.measureText(text).width + 8;
    const left = Math.min(width - size - 4, Math.max(MARGIN.left, this.hover + 8));
    context.fillRect(left, MARGIN.top, size, 16);
    context.fillStyle = theme.text;
    context.textBaseline = "middle";
    context.fillText(text, left + 4, MARGIN.top + 8);
  }
}

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return high >= low ? [low, high] : [];
}

function drawPoint(context, kind, x, y) {
  context.beginPath();
  if (kind === "square") context.rect(x - 4, y - 4, 8, 8);
  else if (kind === "diamond") {
    context.moveTo(x, y - 6);
    for (const [dx, dy] of [[6, 0], [0, 6], [-6, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
  } else context.arc(x, y, 4.5, 0, 2 * Math.PI);
  context.fill();
}

export function vertical(context, x, height, color) {
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x, MARGIN.top);
  context.lineTo(x, height - MARGIN.bottom);
  context.stroke();
}

function drawAxes(context, chart, width, height, theme) {
  context.fillStyle = theme.muted;
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  const vertical_ = ticks(chart.low, chart.high, Math.max(2, chart.plot.height / 34));
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of vertical_) {
    const y = Math.round(chart.toY(value)) + 0.5;
    context.beginPath();
    context.moveTo(MARGIN.left, y);
    context.lineTo(width - MARGIN.right, y);
    context.stroke();
    context.fillText(num(value, digitsFor(vertical_)), MARGIN.left - 5, y);
  }
  const along = ticks(chart.range.low, chart.range.high, Math.max(2, chart.plot.width / 80));
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const value of along) {
    const text = `${num(value, digitsFor(along))}${chart.unit}`;
    const most = width - context.measureText(text).width / 2; // else it would be cut off at the edge
    context.fillText(text, Math.min(most, chart.toX(value)), height - MARGIN.bottom + 5);
  }
}

/** Draw a histogram of integers, and a predicted distribution over it. */
export function drawHistogram(canvas, { counts, probabilities, equal, bound, most, staleEnd }, theme) {
  const sheet = prepare(canvas);
  if (!sheet) return;
  const { context, width, height } = sheet;
  const plot = { left: 4, width: width - 8, top: 12, height: height - 28 };
  const total = counts.reduce((sum, count) => sum + count, 0);
  const bins = most + 1;
  const each = plot.width / bins;
  const share = (k) => (total ? (counts[k] ?? 0) / total : 0);
  let highest = 1e-9;
  for (let k = 0; k < bins; k += 1) highest = Math.max(highest, share(k), probabilities?.[k] ?? 0);
  const y = (value) => plot.top + plot.height * (1 - value / highest);
  for (let k = 0; k < bins; k += 1) {
    context.fillStyle = css(staleColor(k, staleEnd));
    context.fillRect(plot.left + k * each + 0.5, y(share(k)), Math.max(1, each - 1), plot.top + plot.height - y(share(k)));
    if (share(k) > 0 && each > 4) {
      context.strokeStyle = theme.text;
      context.lineWidth = 0.5;
      context.strokeRect(plot.left + k * each + 0.5, y(share(k)), Math.max(1, each - 1), plot.top + plot.height - y(share(k)));
    }
  }
  context.strokeStyle = theme.line;
  context.strokeRect(plot.left, plot.top + plot.height, plot.width, 0.5);
  if (probabilities) {
    context.strokeStyle = theme.predicted;
    context.fillStyle = theme.predicted;
    context.lineWidth = 2;
    context.beginPath();
    for (let k = 0; k < bins; k += 1) context.lineTo(plot.left + (k + 0.5) * each, y(probabilities[k] ?? 0));
    context.stroke();
  }
  context.fillStyle = theme.text;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  if (equal !== null && equal !== undefined && equal < bins) context.fillText("▼", plot.left + (equal + 0.5) * each, plot.top + 2);
  if (bound !== null && bound !== undefined && bound < bins - 1) {
    context.strokeStyle = theme.drop;
    context.setLineDash([4, 3]);
    context.beginPath();
    context.moveTo(plot.left + (bound + 1) * each, plot.top);
    context.lineTo(plot.left + (bound + 1) * each, plot.top + plot.height);
    context.stroke();
    context.setLineDash([]);
  }
  context.fillStyle = theme.muted;
  context.textBaseline = "top";
  for (const value of ticks(0, most, Math.min(most, plot.width / 28)).filter(Number.isInteger)) {
    context.fillText(String(value), plot.left + (value + 0.5) * each, plot.top + plot.height + 3);
  }
}
