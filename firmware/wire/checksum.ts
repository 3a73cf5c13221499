import { copyFew } from '../mem/bytes.ts'

/**
 * Internet checksum (RFC 1071) over memory as it stands: 16-bit words are read little-endian, which swaps the bytes of
 * the sum and nothing else (§2 B), so a folded sum can be stored without a swap. Sums are unfolded u32 that may be
 * added; a piece that starts at an odd place in the packet is rotated by `checksumOdd`.
 */

/** Sum of the 64 bytes at `address`, as four lanes of 32 bits. Small enough that the compiler puts it in line. */
function sum64(address: u32): v128 {
  const low = i32x4.add(
    i32x4.extadd_pairwise_i16x8_u(v128.load(address)),
    i32x4.extadd_pairwise_i16x8_u(v128.load(address, 16)),
  )
  const high = i32x4.add(
    i32x4.extadd_pairwise_i16x8_u(v128.load(address, 32)),
    i32x4.extadd_pairwise_i16x8_u(v128.load(address, 48)),
  )
  return i32x4.add(low, high)
}

/** Copies 64 bytes and sums them on the way. */
function copy64(target: u32, source: u32): v128 {
  const a = v128.load(source)
  const b = v128.load(source, 16)
  const c = v128.load(source, 32)
  const d = v128.load(source, 48)
  v128.store(target, a)
  v128.store(target, b, 16)
  v128.store(target, c, 32)
  v128.store(target, d, 48)
  return i32x4.add(
    i32x4.add(i32x4.extadd_pairwise_i16x8_u(a), i32x4.extadd_pairwise_i16x8_u(b)),
    i32x4.add(i32x4.extadd_pairwise_i16x8_u(c), i32x4.extadd_pairwise_i16x8_u(d)),
  )
}

/** Sum of the 16 bytes at `address`, as four lanes of 32 bits. */
function sum16(address: u32): v128 {
  return i32x4.extadd_pairwise_i16x8_u(v128.load(address))
}

/** Sixteen bytes of ones, then as many of zeros: 16 - n bytes further on stands a mask that keeps the first n. */
const MASKS: u32 = <u32>(
  memory.data<u8>([
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0,
  ])
)

/** Sum of the `bytes` bytes, fewer than 16, at `address`; those behind them are loaded and do not count. */
function sumRest(address: u32, bytes: u32): v128 {
  return i32x4.extadd_pairwise_i16x8_u(v128.and(v128.load(address), v128.load(MASKS + 16 - bytes)))
}

/** Unfolded sum of `bytes` bytes at `address`. At most 64 KiB a call. */
export function checksumAdd(address: u32, bytes: u32, initial: u32): u32 {
  let sum = i32x4.splat(0)
  if (bytes >= 64) {
    // Long strides: each turn of a loop costs a look at the fuel.
    for (const end = address + (bytes & ~255); address < end; address += 256) {
      sum = i32x4.add(sum, i32x4.add(sum64(address), sum64(address + 64)))
      sum = i32x4.add(sum, i32x4.add(sum64(address + 128), sum64(address + 192)))
    }
    for (const end = address + (bytes & 192); address < end; address += 64) sum = i32x4.add(sum, sum64(address))
  }
  for (const end = address + (bytes & 48); address < end; address += 16) sum = i32x4.add(sum, sum16(address))
  if (bytes & 15) sum = i32x4.add(sum, sumRest(address, bytes & 15))
  return addLanes(sum, initial)
}

/** Copies `bytes` bytes and returns their unfolded sum, in one pass over the data. The ranges do not overlap. */
export function checksumCopy(target: u32, source: u32, bytes: u32, initial: u32): u32 {
  let sum = i32x4.splat(0)
  if (bytes >= 64) {
    for (const end = source + (bytes & ~255); source < end; source += 256) {
      sum = i32x4.add(sum, i32x4.add(copy64(target, source), copy64(target + 64, source + 64)))
      sum = i32x4.add(sum, i32x4.add(copy64(target + 128, source + 128), copy64(target + 192, source + 192)))
      target += 256
    }
    for (const end = source + (bytes & 192); source < end; source += 64) {
      sum = i32x4.add(sum, copy64(target, source))
      target += 64
    }
  }
  for (const end = source + (bytes & 48); source < end; source += 16) {
    const piece = v128.load(source)
    v128.store(target, piece)
    sum = i32x4.add(sum, i32x4.extadd_pairwise_i16x8_u(piece))
    target += 16
  }
  const rest = bytes & 15
  if (rest) {
    copyFew(target, source, rest)
    sum = i32x4.add(sum, sumRest(source, rest))
  }
  return addLanes(sum, initial)
}

/** Adds four lanes and `initial`, down to 17 bits, so that a few such sums can be added without overflow. */
function addLanes(lanes: v128, initial: u32): u32 {
  const pairs = i32x4.add(lanes, v128.shuffle<i32>(lanes, lanes, 2, 3, 0, 1))
  const sum: u32 = i32x4.extract_lane(pairs, 0) + i32x4.extract_lane(pairs, 1) + initial
  return (sum & 0xffff) + (sum >>> 16)
}

/** Sum of a piece as it counts when the piece starts at an odd place in the packet (RFC 1071 §2 B). */
export function checksumOdd(sum: u32): u32 {
  const folded = checksumFold(sum)
  return ((folded & 0xff) << 8) | (folded >>> 8)
}

/** 16-bit one's complement sum. */
export function checksumFold(sum: u32): u32 {
  sum = (sum & 0xffff) + (sum >>> 16)
  return (sum & 0xffff) + (sum >>> 16)
}

/** The value to store in a checksum field, as it stands in memory. */
export function checksumFinish(sum: u32): u32 {
  return ~checksumFold(sum) & 0xffff
}

/** Sum of the TCP or UDP pseudo-header (RFC 9293 §3.1). @param bytes of header and payload */
export function pseudoHeaderSum(source: u32, destination: u32, protocol: u32, bytes: u32): u32 {
  const a = bswap<u32>(source)
  const b = bswap<u32>(destination)
  return (a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16) + (protocol << 8) + <u32>bswap<u16>(<u16>bytes)
}
