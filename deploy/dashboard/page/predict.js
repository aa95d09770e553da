// The staleness of a worker's pushes that theory predicts (docs/theory.md: C2, C3, C4, C10 and K-async).

/**
 * Return the predicted distribution for one worker, or null if there is no closed form.
 *
 * @param {object} job `{facts, workers, share, settings}`: the facts about the mode (see `Run.factsOf`), the number of live
 *     workers, and the share of updates of this one
 * @param {number} most the largest staleness whose probability is returned
 * @returns {{probabilities: Float64Array, mean: number, equal: number|null, bound: number|null}|null}
 *     `equal` is the staleness if all steps take equally long, and `bound` is the largest possible staleness
 */
export function predictedStaleness({ facts, workers, share, settings }, most) {
  if (!workers || !(share > 0) || settings?.overlap || fetchesLess(settings)) return null;
  if (facts.law === "own") {
    const bound = (facts.slack ?? null) === null ? null : (workers - 1) * (2 * facts.slack + 1);
    return { probabilities: geometric(share, most), mean: 1 / share - 1, equal: workers - 1, bound };
  }
  if (facts.law === "zero") return { probabilities: geometric(1, most), mean: 0, equal: 0, bound: 0 };
  if (facts.law === "group") {
    const p = Math.min(1, facts.group / workers);
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
