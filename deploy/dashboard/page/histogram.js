// Histograms of staleness. They are drawn by hand: each bar has the colour of its staleness, and up to 16 of them are
// drawn again several times per second, which plain rectangles on one canvas each allow.

import { ticks } from "./axes.js";
import { prepare } from "./canvas.js";
import { css, staleColor } from "./colors.js";

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
