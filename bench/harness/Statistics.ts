/** Medians and spreads. */

/** The value below which a fraction of the values lies, between two of them where it falls there. */
export const quantile = (values: ReadonlyArray<number>, fraction: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const place = (sorted.length - 1) * fraction
  const below = sorted[Math.floor(place)] ?? Number.NaN
  const above = sorted[Math.ceil(place)] ?? Number.NaN
  return below + (above - below) * (place - Math.floor(place))
}

export const median = (values: ReadonlyArray<number>): number => quantile(values, 0.5)

/** The middle half of the values, as a fraction of their median. */
export const spread = (values: ReadonlyArray<number>): number =>
  (quantile(values, 0.75) - quantile(values, 0.25)) / median(values)
