// Binary search in sorted columns.

/** How many of the first `end` values, which ascend, are at most `limit`. */
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

/** The smallest value at or below which a fraction `q` of the counts lies; 0 where there are none. */
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

/** The middle of some numbers; 0 where there are none. */
export function median(values) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  return sorted[sorted.length >> 1];
}
