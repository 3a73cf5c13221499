export type Random = (below: number) => number

/** Whole numbers below what is asked, by xorshift32: quick, and the same everywhere. */
export function randomFrom(seed: number): Random {
  let x = seed | 1
  return (below) => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return (x >>> 0) % below
  }
}

export function noise(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random(256))
}
