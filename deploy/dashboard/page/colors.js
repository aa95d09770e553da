// The colour scale of staleness: viridis from 0 (dark) to the run's 99th percentile (light).

const ANCHORS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"].map((text) =>
  [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));

/** Return red, green and blue, 0 to 255, of a staleness on a scale that ends at `end`. */
export function staleColor(staleness, end) {
  const place = Math.min(1, Math.max(0, staleness / Math.max(1, end))) * (ANCHORS.length - 1);
  const at = Math.min(ANCHORS.length - 2, Math.floor(place));
  return ANCHORS[at].map((value, i) => Math.round(value + (place - at) * (ANCHORS[at + 1][i] - value)));
}

export function css([red, green, blue]) {
  return `rgb(${red},${green},${blue})`;
}

/** Return black or white, whichever has more contrast with a colour (WCAG relative luminance). */
export function textOn(color) {
  return luminance(color) > 0.179 ? "#000" : "#fff";
}

/** Return the relative luminance of a colour, 0 to 1 (WCAG). */
export function luminance(color) {
  const [red, green, blue] = color.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Return the contrast ratio of two colours, 1 to 21 (WCAG). */
export function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
