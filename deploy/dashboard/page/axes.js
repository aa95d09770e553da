// What the hand-written pictures with an axis have in common: margins, ticks and the playhead.

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

/** Draw the playhead at `x` pixels. */
export function vertical(context, x, height, color) {
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x, MARGIN.top);
  context.lineTo(x, height - MARGIN.bottom);
  context.stroke();
}
