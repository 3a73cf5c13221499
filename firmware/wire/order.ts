/** Network byte order, four numbers of 32 bits at a time: WebAssembly has no instruction that turns the bytes of a single one round. */

/** Turns the bytes of each of the four numbers round. */
function swap(words: v128): v128 {
  return v128.shuffle<i8>(words, words, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12)
}

/** Four numbers, big-endian. */
function wordsOf(a: u32, b: u32, c: u32, d: u32): v128 {
  let words = i32x4.splat(a)
  words = i32x4.replace_lane(words, 1, b)
  words = i32x4.replace_lane(words, 2, c)
  return swap(i32x4.replace_lane(words, 3, d))
}

/** The big-endian number of 64 bits at `address`. */
export function loadSwapped64(address: u32): u64 {
  const word = v128.load64_zero(address)
  return i64x2.extract_lane(v128.shuffle<i8>(word, word, 7, 6, 5, 4, 3, 2, 1, 0, 8, 9, 10, 11, 12, 13, 14, 15), 0)
}

/** Stores 16 bytes: four numbers, big-endian. */
export function storeWords(address: u32, a: u32, b: u32, c: u32, d: u32): void {
  v128.store(address, wordsOf(a, b, c, d))
}

/** Stores the first 14 of these bytes, the length of an Ethernet header: what follows may stand there already. */
export function storeWords14(address: u32, a: u32, b: u32, c: u32, d: u32): void {
  const words = wordsOf(a, b, c, d)
  v128.store64_lane(address, words, 0)
  v128.store32_lane(address, words, 2, 8)
  v128.store16_lane(address, words, 6, 12)
}

/**
 * Copies big-endian numbers of 4 bytes to where they are read as numbers, or back; also on the spot.
 *
 * @param bytes a multiple of 48
 */
export function copyWords(target: u32, source: u32, bytes: u32): void {
  for (const end = source + bytes; source < end; source += 48) {
    v128.store(target, swap(v128.load(source)))
    v128.store(target, swap(v128.load(source, 16)), 16)
    v128.store(target, swap(v128.load(source, 32)), 32)
    target += 48
  }
}
