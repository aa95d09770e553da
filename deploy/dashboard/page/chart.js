// Charts of lines over time or updates, drawn by uPlot (vendor/). What moves with the playhead are elements above them.

import { digitsFor } from "./axes.js";
import { sizeInView } from "./canvas.js";
import { make, setText } from "./dom.js";
import { countUpTo } from "./search.js";
import { num } from "./texts.js";

const FONT = "11px system-ui, sans-serif";
const AXIS = { left: 50, bottom: 25 }; // pixels
const PADDING = [8, 16, 0, 0];
const STEPS = Array.from({ length: 28 }, (_, i) => 10 ** (i - 12)).flatMap((power) => [power, 2 * power, 5 * power]); // between ticks
const FILLED = 3; // uPlot's flags of a path that is filled, without bands

/**
 * Return lines as the columns that uPlot draws: x values, and the y values of each line at them.
 *
 * The columns contain the x values of the longest line, those of the others, and both ends of the range. A line has no
 * value, and no gap, at the x values of another; values that are not finite are left out as well.
 */
export function columnsOf(lines, { low, high }) {
  const longest = lines.reduce((found, { x }) => (x.length > found.length ? x : found), []);
  const others = lines.filter(({ x }) => x !== longest).flatMap(({ x }) => [...x]);
  const more = [...new Set([low, high, ...others])].sort((a, b) => a - b);
  const xs = [];
  const rows = new Map(); // of the x values in `more`
  const place = new Uint32Array(longest.length);
  let next = 0;
  for (let i = 0; i < longest.length; i += 1) {
    for (; next < more.length && more[next] <= longest[i]; next += 1) {
      rows.set(more[next], xs.length);
      if (more[next] < longest[i]) xs.push(more[next]);
    }
    place[i] = xs.length;
    xs.push(longest[i]);
  }
  for (; next < more.length; next += 1) {
    rows.set(more[next], xs.length);
    xs.push(more[next]);
  }
  return [xs, ...lines.map(({ x, y }) => {
    const column = new Array(xs.length).fill(undefined);
    for (let i = 0; i < x.length; i += 1) if (Number.isFinite(y[i])) column[x === longest ? place[i] : rows.get(x[i])] = y[i];
    return column;
  })];
}

/** Return the range of y for lines: from 0 if `zero`, with some room, and without lines that do not count for it. */
export function rangeOf(lines, zero) {
  let [low, high] = [Infinity, -Infinity];
  for (const { y, scale } of lines) {
    if (scale === false) continue;
    for (const value of y) {
      if (value < low && value > -Infinity) low = value;
      if (value > high && value < Infinity) high = value;
    }
  }
  if (!(high >= low)) [low, high] = [0, 1];
  if (zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (high === low) high += Math.abs(high) || 1;
  const room = (high - low) * 0.06;
  return [zero && low === 0 ? 0 : low - room, high + room];
}

/** Return the text of the values of lines at `x`: the newest up to it of each line that has a name. */
export function valuesAt(lines, x, format) {
  return lines.filter(({ label, x: own }) => label && own.length).map((line) => {
    const at = Math.max(0, countUpTo(line.x, x) - 1);
    return `${line.label} ${format(line.y[at])}`;
  }).join(" · ");
}

/** A chart of one or more lines, whose part after the playhead is drawn faintly. */
export class LineChart {
  /** Build a chart in an element; `onSeek` is called with the x value that the user clicks. */
  constructor(root, onSeek) {
    Object.assign(this, { root, onSeek, plot: null, lines: [], shape: "", drawn: "", theme: {} });
    this.playhead = make("div", "", { class: "playhead" });
    this.later = make("div", "", { class: "later" });
    this.values = make("div", "", { class: "values" });
  }

  /**
   * Set the lines `[{x, y, color, width, points, dash, label}]`, ascending in x, and the range of x `{low, high}`.
   *
   * `zero` includes 0 in the range of y; `unit` follows the x values; `format(value, digits)` formats the y values.
   */
  setLines(lines, { low, high }, { zero = false, unit = "", format = num } = {}) {
    Object.assign(this, { lines, unit, format, drawn: "" });
    this.range = { low, high: high > low ? high : low + 1 };
    this.rangeY = rangeOf(lines, zero);
  }

  /** Draw the chart with the playhead at `x`. */
  draw(x, theme) {
    const size = sizeInView(this.root);
    if (!size) return;
    const key = [size.width, size.height, theme.name].join();
    if (this.drawn !== key) {
      this.theme = theme;
      this.drawn = key;
      this.plotLines(size);
    }
    const share = (x - this.range.low) / (this.range.high - this.range.low);
    const left = `${100 * Math.min(1, Math.max(0, share))}%`;
    if (this.playhead.style.left !== left) this.playhead.style.left = this.later.style.left = left;
    this.later.hidden = share >= 1; // else it would cover half of a point at the end
  }

  plotLines(size) {
    const columns = columnsOf(this.lines, this.range);
    const shape = JSON.stringify(this.lines.map(({ color, width, points, dash }) => [color, width, points, dash]));
    if (shape !== this.shape) {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(size), columns, this.root);
      this.plot.over.append(this.later, this.playhead, this.values);
      this.plot.over.addEventListener("click", () => this.onSeek(this.xAt(this.plot.cursor.left)));
      this.shape = shape;
      return;
    }
    if (this.plot.width !== size.width || this.plot.height !== size.height) this.plot.setSize(size);
    this.plot.setData(columns);
  }

  options(size) {
    const color = (name) => () => this.theme[name];
    const axis = { font: FONT, stroke: color("muted"), ticks: { show: false }, incrs: STEPS };
    const text = (write) => (_, values) => values.map((value) => write(value, digitsFor(values)));
    return {
      ...size,
      padding: PADDING,
      legend: { show: false }, // the text below the chart explains its lines, also to those who cannot see it
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
      scales: { x: { time: false, range: () => [this.range.low, this.range.high] }, y: { range: () => this.rangeY } },
      axes: [
        { ...axis, size: AXIS.bottom, gap: 7, space: 70, grid: { show: false }, values: text((value, digits) => num(value, digits) + this.unit) },
        { ...axis, size: AXIS.left, gap: 4, space: 30, grid: { stroke: color("line"), width: 1 }, values: text((value, digits) => this.format(value, digits)) },
      ],
      series: [{}, ...this.lines.map((line) => seriesOf(line, color(line.color)))],
      hooks: { setCursor: [() => this.showValues()] },
    };
  }

  xAt(left) {
    return Math.min(this.range.high, Math.max(this.range.low, this.plot.posToVal(left, "x")));
  }

  /** Show the values at the pointer. */
  showValues() {
    const { left } = this.plot.cursor;
    const x = left >= 0 ? this.xAt(left) : NaN;
    setText(this.values, left >= 0 ? `${num(x, this.unit ? 3 : 0)}${this.unit}: ${valuesAt(this.lines, x, (value) => this.format(value, 4))}` : "");
    this.values.classList.toggle("left", left > this.plot.over.clientWidth / 2);
  }
}

/** Return uPlot's series of a line, or of the points of one. */
function seriesOf({ width = 1.5, dash, points }, stroke) {
  if (!points) return { stroke, width, dash, points: { show: false } };
  return { stroke, paths: () => null, points: { show: true, stroke, fill: stroke, paths: pointsBuilder(points) } };
}

/** Return a function that makes the path of points of a shape, as uPlot calls it. */
function pointsBuilder(shape) {
  return (plot, number, from, to) => {
    const fill = new Path2D();
    const [xs, ys] = [plot.data[0], plot.data[number]];
    for (let i = from; i <= to; i += 1) {
      if (ys[i] !== undefined) addPoint(fill, shape, plot.valToPos(xs[i], "x", true), plot.valToPos(ys[i], "y", true), devicePixelRatio);
    }
    return { fill, stroke: null, clip: null, flags: FILLED };
  };
}

function addPoint(path, shape, x, y, scale) {
  if (shape === "square") path.rect(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale);
  else if (shape === "diamond") {
    path.moveTo(x, y - 6 * scale);
    for (const [dx, dy] of [[6, 0], [0, 6], [-6, 0]]) path.lineTo(x + dx * scale, y + dy * scale);
    path.closePath();
  } else {
    path.moveTo(x + 4.5 * scale, y);
    path.arc(x, y, 4.5 * scale, 0, 2 * Math.PI);
  }
}
