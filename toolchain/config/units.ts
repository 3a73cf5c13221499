/** Quantities as people write them in farm files and options. Each parser gives a number, or undefined for what it cannot read. */

const SIZE_UNITS = new Map([
  ['B', 1],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['kB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
])

const DURATION_UNITS = new Map([
  ['ns', 1],
  ['us', 1e3],
  ['µs', 1e3],
  ['ms', 1e6],
  ['s', 1e9],
])

const RATE_UNITS = new Map([
  ['bit', 1],
  ['kbit', 1e3],
  ['Mbit', 1e6],
  ['Gbit', 1e9],
])

/** `64MiB` in bytes. */
export function parseSize(text: string): number | undefined {
  return parseQuantity(text, SIZE_UNITS)
}

/** `200us` in nanoseconds. */
export function parseDuration(text: string): number | undefined {
  return parseQuantity(text, DURATION_UNITS)
}

/** `10Gbit/s` in bits a second; `/s` may be left out. */
export function parseRate(text: string): number | undefined {
  return parseQuantity(text.replace(/\/s$/, ''), RATE_UNITS)
}

/** `2%` as 0.02. */
export function parsePercentage(text: string): number | undefined {
  const share = parseQuantity(text, new Map([['%', 1]]))
  return share === undefined ? undefined : share / 100
}

/** Bytes with the largest binary unit that leaves a short number. */
export function formatSize(bytes: number): string {
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (bytes >= size) return `${Number((bytes / size).toFixed(bytes % size === 0 ? 0 : 1))} ${unit}`
  }
  return `${bytes} B`
}

function parseQuantity(text: string, units: ReadonlyMap<string, number>): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([^\d\s]+)$/.exec(text)
  if (!match) return undefined
  const unit = units.get(match[2])
  return unit === undefined ? undefined : Number(match[1]) * unit
}
