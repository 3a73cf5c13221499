/**
 * Internet checksum (RFC 1071) over memory as it stands: 16-bit words are read little-endian, which swaps the bytes of
 * the sum and nothing else (§2 B), so a folded sum can be stored without a swap. Sums are unfolded u32 that may be
 * added; a piece that starts at an odd place in the packet is rotated by `checksumOdd`.
 */

/** Unfolded sum of `bytes` bytes at `address`. At most 128 KiB a call. */
export function checksumAdd(address: u32, bytes: u32, initial: u32): u32 {
  let a = i32x4.splat(0)
  let b = i32x4.splat(0)
  const end = address + (bytes & ~63)
  while (address < end) {
    a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(address)))
    b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(v128.load(address, 16)))
    a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(address, 32)))
    b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(v128.load(address, 48)))
    address += 64
  }
  return sumTail(i32x4.add(a, b), address, bytes & 63, initial)
}

/** Copies `bytes` bytes and returns their unfolded sum, in one pass over the data. */
export function checksumCopy(target: u32, source: u32, bytes: u32, initial: u32): u32 {
  let a = i32x4.splat(0)
  let b = i32x4.splat(0)
  const end = source + (bytes & ~31)
  while (source < end) {
    const x = v128.load(source)
    const y = v128.load(source, 16)
    v128.store(target, x)
    v128.store(target, y, 16)
    a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(x))
    b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(y))
    source += 32
    target += 32
  }
  const rest = bytes & 31
  memory.copy(target, source, rest)
  return sumTail(i32x4.add(a, b), source, rest, initial)
}

function sumTail(lanes: v128, address: u32, bytes: u32, initial: u32): u32 {
  let sum: u64 = <u64>initial + <u32>i32x4.extract_lane(lanes, 0) + <u32>i32x4.extract_lane(lanes, 1)
  sum += <u64>(<u32>i32x4.extract_lane(lanes, 2)) + <u32>i32x4.extract_lane(lanes, 3)
  while (bytes >= 4) {
    sum += load<u32>(address)
    address += 4
    bytes -= 4
  }
  if (bytes & 2) {
    sum += load<u16>(address)
    address += 2
  }
  if (bytes & 1) sum += load<u8>(address)
  // Down to 17 bits, so that a few such sums can be added without overflow.
  sum = (sum & 0xffffffff) + (sum >> 32)
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32)
  return <u32>sum
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
