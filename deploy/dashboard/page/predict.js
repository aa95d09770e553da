// The staleness of a worker's pushes that theory predicts (docs/theory.md: C2, C3, C4, C10 and K-async).

/**
 * Return the predicted distribution for one worker, or null if there is no closed form.
 *
 * @param {object} job `{mode, modeArguments, workers, share}`: the live workers, and the share of updates of this one
 * @param {number} most the largest staleness whose probability is returned
 * @returns {{probabilities: Float64Array, mean: number, equal: number|null, bound: number|null}|null}
 *     `equal` is the staleness if all steps take equally long, and `bound` is the largest possible staleness
 */
export function predictedStaleness({ mode, modeArguments, workers, share, settings }, most) {
  if (!workers || !(share > 0) || settings?.overlap || fetchesLess(settings)) return null;
  if (["async", "localsgd", "geo", "ssp"].includes(mode)) {
    const bound = mode === "ssp" ? (workers - 1) * (2 * modeArguments[0] + 1) : null;
    return { probabilities: geometric(share, most), mean: 1 / share - 1, equal: workers - 1, bound };
  }
  if (mode === "bsp") return { probabilities: geometric(1, most), mean: 0, equal: 0, bound: 0 };
  if (mode === "kasync") {
    const p = Math.min(1, modeArguments[0] / workers);
    return { probabilities: geometric(p, most), mean: 1 / p - 1, equal: null, bound: null };
  }
  return null;
}

/** Return the geometric distribution P(k) = p (1 − p)^k for k from 0 to `most`. */
export function geometric(p, most) {
  return Float64Array.from({ length: most + 1 }, (_, k) => p * (1 - p) ** k);
}

function fetchesLess(settings) {
  return Boolean(settings?.fetch_every && settings.fetch_every !== settings.push_every);
}
