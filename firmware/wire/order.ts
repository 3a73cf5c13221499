/** Network byte order, four numbers of 32 bits at a time: WebAssembly has no instruction that turns the bytes of a single one round. */

/** Turns the bytes of each of the four numbers round. */
export function swapWords(words: v128): v128 {
  return v128.shuffle<i8>(words, words, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12)
}

/** Stores 16 bytes: four numbers, big-endian. */
export function storeWords(address: u32, a: u32, b: u32, c: u32, d: u32): void {
  let words = i32x4.splat(a)
  words = i32x4.replace_lane(words, 1, b)
  words = i32x4.replace_lane(words, 2, c)
  words = i32x4.replace_lane(words, 3, d)
  v128.store(address, swapWords(words))
}

/** Copies `bytes` bytes, a multiple of 4, of big-endian numbers to where they are read as numbers, or back. Whole pieces of 16 bytes are written. */
export function copyWords(target: u32, source: u32, bytes: u32): void {
  for (const end = source + bytes; source < end; source += 16) {
    v128.store(target, swapWords(v128.load(source)))
    target += 16
  }
}
