// Binary search in sorted columns, quantiles and medians.

/** Return how many of the first `end` values, which ascend, are at most `limit`. */
export function countUpTo(values, limit, end = values.length) {
  let low = 0;
  let high = end;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return the `q`-quantile of a distribution that is given as counts per value; 0 if all counts are 0. */
export function quantile(counts, q) {
  let total = 0;
  for (const count of counts) total += count;
  let seen = 0;
  for (let value = 0; value < counts.length; value += 1) {
    seen += counts[value];
    if (total && seen >= q * total) return value;
  }
  return 0;
}

/** Return the median of some numbers (the upper one of two), or 0 if there are none. */
export function median(values) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  return sorted[sorted.length >> 1];
}
