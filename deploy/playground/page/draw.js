// Draws a snapshot: the decision boundary, the network, loss, the server with its workers, staleness and the timeline.

import { css, staleColor, textOn } from "./colors.js";
import { byId } from "./dom.js";
import { num, t } from "./texts.js";

export const MARK_MS = 700; // that a push travels
const GRID = 40;
const TIMELINE = 24; // steps that the timeline shows
const NS = "http://www.w3.org/2000/svg";

/** Return the value of a colour of the style sheet. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Prepare a canvas for drawing in CSS pixels, and return its context and its size. */
function prepare(id) {
  const canvas = byId(id);
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = color("text");
  return { context, width, height };
}

function rgb(name) {
  const text = color(name);
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

export function drawBoundary(points, extent, grid) {
  const { context, width, height } = prepare("boundary");
  const [zero, one, paper] = [rgb("zero"), rgb("one"), rgb("surface")];
  const cells = Uint8Array.from(atob(grid), (letter) => letter.charCodeAt(0));
  const size = width / GRID;
  cells.forEach((value, at) => {
    const strength = Math.abs(value / 255 - 0.5) * 1.3;
    const side = value > 127 ? one : zero;
    context.fillStyle = css(paper.map((part, i) => Math.round(part + (side[i] - part) * strength)));
    context.fillRect((at % GRID) * size, Math.floor(at / GRID) * size, size + 0.5, size + 0.5);
  });
  for (const [x, y, label, test] of points) {
    if (test) continue;
    const [left, top] = [((x + extent) / (2 * extent)) * width, ((extent - y) / (2 * extent)) * height];
    context.beginPath();
    if (label) context.arc(left, top, 3.2, 0, 7);
    else context.rect(left - 2.8, top - 2.8, 5.6, 5.6);
    context.fillStyle = color(label ? "one" : "zero");
    context.strokeStyle = color("surface");
    context.fill();
    context.stroke();
  }
}

export function drawNetwork(sizes, weights) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", "0 0 300 300");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", t("network_label", { layers: sizes.join(" – ") }));
  const place = (layer, unit) => [25 + (250 * layer) / (sizes.length - 1), (300 * (unit + 0.5)) / sizes[layer]];
  let at = 0;
  for (let layer = 0; layer + 1 < sizes.length; layer += 1) {
    for (let from = 0; from < sizes[layer]; from += 1) {
      for (let to = 0; to < sizes[layer + 1]; to += 1) {
        const value = weights[at + from * sizes[layer + 1] + to] ?? 0;
        const [[x1, y1], [x2, y2]] = [place(layer, from), place(layer + 1, to)];
        const line = document.createElementNS(NS, "line");
        Object.entries({
          x1, y1, x2, y2, stroke: color(value > 0 ? "one" : "zero"), "stroke-width": Math.min(9, 0.4 + 1.6 * Math.abs(value)),
          "stroke-dasharray": value > 0 ? "none" : "6 4",
        }).forEach(([key, each]) => line.setAttribute(key, each));
        svg.append(line);
      }
    }
    at += (sizes[layer] + 1) * sizes[layer + 1];
  }
  sizes.forEach((count, layer) => {
    for (let unit = 0; unit < count; unit += 1) {
      const [cx, cy] = place(layer, unit);
      const circle = document.createElementNS(NS, "circle");
      Object.entries({ cx, cy, r: 12 }).forEach(([key, each]) => circle.setAttribute(key, each));
      svg.append(circle);
      const name = layer === 0 ? ["x₁", "x₂"][unit] : layer === sizes.length - 1 ? "ŷ" : "";
      const text = document.createElementNS(NS, "text");
      Object.entries({ x: cx, y: cy + 4, "text-anchor": "middle" }).forEach(([key, each]) => text.setAttribute(key, each));
      text.textContent = name;
      svg.append(text);
    }
  });
  byId("network").replaceChildren(svg);
}

/** Draw the losses against pushes, from `history`: `[pushes, training, test]`. */
export function drawLoss(history) {
  const { context, width, height } = prepare("loss");
  const [left, bottom] = [40, height - 20];
  const values = history.flatMap(([, a, b]) => [a, b]).filter(Number.isFinite);
  const top = Math.max(0.7, ...values.map((value) => Math.min(value, 4)));
  const end = Math.max(1, history.at(-1)?.[0] ?? 1);
  context.strokeStyle = color("line");
  context.strokeRect(left, 8, width - left - 8, bottom - 8);
  context.fillText(num(top, 1), 8, 16);
  context.fillText("0", 24, bottom);
  context.fillText(num(end), width - 8 - context.measureText(num(end)).width, height - 4);
  [["zero", 1, []], ["one", 2, [5, 3]]].forEach(([name, column, dash]) => {
    context.beginPath();
    for (const row of history) {
      const value = Number.isFinite(row[column]) ? Math.min(row[column], top) : top;
      context.lineTo(left + (row[0] / end) * (width - left - 8), bottom - (value / top) * (bottom - 8));
    }
    context.setLineDash(dash);
    context.lineWidth = 2;
    context.strokeStyle = color(name);
    context.stroke();
  });
}

/** Draw the server, the workers, and the marks of pushes that travel at `now`: `{worker, staleness, applied, born}`. */
export function drawSlide(state, setup, marks, now) {
  const { context, width, height } = prepare("slide");
  const workers = state.workers;
  context.fillStyle = color("server");
  context.fillRect(8, 8, width - 16, 46);
  context.strokeStyle = color("accent");
  context.strokeRect(8, 8, width - 16, 46);
  context.fillStyle = color("text");
  context.fillText(t("version", { version: num(state.version) }), 20, 36);
  const rule = `p ← p − η·g   η = ${num(setup.learning_rate, 4)}`;
  context.fillText(rule, width - 24 - context.measureText(rule).width, 36);
  const each = (width - 16) / workers.length;
  const x = (worker) => 8 + each * (worker + 0.5);
  workers.forEach(({ state: kind, done, pushes }, worker) => {
    const wide = Math.min(110, each - 6);
    context.strokeStyle = color(kind === "wait" ? "wait" : "one");
    context.setLineDash(kind === "wait" ? [4, 3] : []);
    context.strokeRect(x(worker) - wide / 2, height - 62, wide, 54);
    context.setLineDash([]);
    context.fillStyle = color(kind === "transfer" ? "transfer" : kind === "wait" ? "wait" : "one");
    context.fillRect(x(worker) - wide / 2 + 4, height - 18, (wide - 8) * (kind === "wait" ? 1 : done), 5);
    context.fillStyle = color("text");
    const symbol = { compute: "▶", wait: "❚❚", transfer: "⇅" }[kind];
    const text = each > 90 ? `${symbol} ${t(`state_${kind}`)}` : symbol;
    context.fillText(text, x(worker) - context.measureText(text).width / 2, height - 44);
    const count = num(pushes);
    context.fillText(count, x(worker) - context.measureText(count).width / 2, height - 26);
  });
  marks.forEach(({ worker, staleness, applied, born }) => {
    const part = (now - born) / MARK_MS;
    if (part <= 0 || part >= 1 || worker >= workers.length) return;
    const y = height - 66 + (58 - (height - 66)) * part;
    const paint = staleColor(staleness, 2 * workers.length);
    context.beginPath();
    if (applied) context.arc(x(worker), y, 9, 0, 7);
    context.fillStyle = css(paint);
    context.fill();
    context.fillStyle = applied ? textOn(paint) : color("text");
    const text = applied ? String(staleness) : "✕";
    context.fillText(text, x(worker) - context.measureText(text).width / 2, y + 4);
  });
}

/** Draw the staleness of all updates, and the geometric distribution of async as a line. */
export function drawHistogram(state, mode) {
  const { context, width, height } = prepare("histogram");
  const counts = state.staleness[0].map((_, value) => state.staleness.reduce((sum, each) => sum + each[value], 0));
  const total = Math.max(1, counts.reduce((a, b) => a + b, 0));
  const last = Math.max(4, counts.findLastIndex((count) => count > 0) + 1);
  const [left, bottom] = [10, height - 20];
  const p = 1 / state.workers.length;
  const predicted = mode === "async" ? Array.from({ length: last + 1 }, (_, k) => p * (1 - p) ** k) : mode === "bsp" ? [1] : [];
  const top = Math.max(...counts.map((count) => count / total), ...predicted, 0.01);
  const wide = (width - 20) / (last + 1);
  for (let value = 0; value <= last; value += 1) {
    const high = ((counts[value] ?? 0) / total / top) * (bottom - 10);
    context.fillStyle = css(staleColor(value, last));
    context.fillRect(left + value * wide + 1, bottom - high, wide - 2, high);
    context.fillStyle = color("text");
    if (wide > 16 || value % 5 === 0) context.fillText(String(value), left + (value + 0.5) * wide - 4, height - 5);
  }
  context.beginPath();
  predicted.forEach((share, value) => context.lineTo(left + (value + 0.5) * wide, bottom - (share / top) * (bottom - 10)));
  context.strokeStyle = color("one");
  context.lineWidth = 2;
  context.stroke();
}

export function drawTimeline(intervals, workers, now) {
  const { context, width, height } = prepare("timeline");
  const row = (height - 4) / workers;
  const from = Math.max(0, now - TIMELINE);
  const x = (time) => 26 + ((time - from) / TIMELINE) * (width - 30);
  for (const [worker, kind, start, stop] of intervals) {
    if (stop < from) continue;
    const [a, b] = [Math.max(26, x(start)), x(stop)];
    context.fillStyle = color(kind === "compute" ? "one" : kind === "wait" ? "line" : "transfer");
    const high = kind === "wait" ? 0.35 : 0.8;
    context.fillRect(a, worker * row + (row * (1 - high)) / 2, Math.max(1, b - a - 0.5), row * high);
  }
  context.fillStyle = color("text");
  if (row > 9) for (let worker = 0; worker < workers; worker += 1) context.fillText(String(worker), 6, (worker + 0.5) * row + 4);
}
