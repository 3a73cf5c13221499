/** The middle value; of an even number, the lower of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[(sorted.length - 1) >> 1]
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** The least of the values that at least `percent` of them do not exceed. @param ascending in this order */
export function percentile(ascending: readonly number[], percent: number): number {
  return ascending[Math.max(Math.ceil((ascending.length * percent) / 100) - 1, 0)]
}
