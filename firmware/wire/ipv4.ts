import { checksumAdd, checksumFinish, checksumFold } from './checksum.ts'
import { storeWords } from './order.ts'

/**
 * IPv4 header (RFC 791 §3.1).
 *
 *      0                 2                 4
 *   0  ├4─IHL───┬─TOS────┼─total length────┤
 *   4  ├─identification──┼─flags─┬─offset──┤
 *   8  ├─TTL────┬─protcl─┼─checksum────────┤
 *  12  ├─source────────────────────────────┤
 *  16  ├─destination───────────────────────┤
 *  20  ├─options ...
 *
 * Addresses are host-order numbers. Accessors read unchecked: `ipv4Check` runs once, at ingress.
 */
export const IPV4_HEADER_BYTES: u32 = 20
export const IPV4_MAXIMUM_BYTES: u32 = 65535
/** Every link carries packets of this size (RFC 791 §3.2). */
export const IPV4_MINIMUM_MTU: u32 = 68

export const IPV4_PROTOCOL_ICMP: u32 = 1
export const IPV4_PROTOCOL_TCP: u32 = 6
export const IPV4_PROTOCOL_UDP: u32 = 17

// The 16 bits of flags and fragment offset.
export const IPV4_DONT_FRAGMENT: u32 = 0x4000
export const IPV4_MORE_FRAGMENTS: u32 = 0x2000
/** Fragment offset, units of 8 bytes. */
export const IPV4_OFFSET_MASK: u32 = 0x1fff

export const IPV4_LIMITED_BROADCAST: u32 = 0xffffffff

export const IPV4_OK: u32 = 0
export const IPV4_BAD_HEADER: u32 = 1
export const IPV4_BAD_CHECKSUM: u32 = 2

/**
 * Checks version, lengths and checksum of a packet of which `bytes` bytes are there; bytes after the total length are the
 * link's padding. Returns IPV4_OK or what is wrong.
 */
export function ipv4Check(packet: u32, bytes: u32): u32 {
  if (bytes < IPV4_HEADER_BYTES) return IPV4_BAD_HEADER
  const first: u32 = load<u8>(packet)
  const headerBytes = (first & 15) << 2
  const total = ipv4TotalBytes(packet)
  if (first >>> 4 != 4 || headerBytes < IPV4_HEADER_BYTES || total < headerBytes || total > bytes)
    return IPV4_BAD_HEADER
  let sum: u32
  if (headerBytes == IPV4_HEADER_BYTES) {
    sum = fixedSum(packet)
  } else {
    sum = checksumAdd(packet, headerBytes, 0)
  }
  return checksumFold(sum) == 0xffff ? IPV4_OK : IPV4_BAD_CHECKSUM
}

/** Sum of the 20 bytes without options. */
function fixedSum(packet: u32): u32 {
  let sum: u64 = <u64>load<u32>(packet) + load<u32>(packet, 4)
  sum += <u64>load<u32>(packet, 8) + load<u32>(packet, 12) + load<u32>(packet, 16)
  sum = (sum & 0xffffffff) + (sum >> 32)
  return <u32>((sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32))
}

export function ipv4HeaderBytes(packet: u32): u32 {
  return (<u32>load<u8>(packet) & 15) << 2
}

export function ipv4Tos(packet: u32): u32 {
  return load<u8>(packet, 1)
}

export function ipv4TotalBytes(packet: u32): u32 {
  return bswap<u16>(load<u16>(packet, 2))
}

export function ipv4Identification(packet: u32): u32 {
  return bswap<u16>(load<u16>(packet, 4))
}

/** Flags and fragment offset: IPV4_DONT_FRAGMENT, IPV4_MORE_FRAGMENTS, IPV4_OFFSET_MASK. */
export function ipv4Fragment(packet: u32): u32 {
  return bswap<u16>(load<u16>(packet, 6))
}

export function ipv4Ttl(packet: u32): u32 {
  return load<u8>(packet, 8)
}

export function ipv4Protocol(packet: u32): u32 {
  return load<u8>(packet, 9)
}

export function ipv4Source(packet: u32): u32 {
  return bswap<u32>(load<u32>(packet, 12))
}

export function ipv4Destination(packet: u32): u32 {
  return bswap<u32>(load<u32>(packet, 16))
}

/** Writes 20 bytes without options, checksum included. @param fragment flags and offset as in `ipv4Fragment` */
export function ipv4Write(
  packet: u32,
  totalBytes: u32,
  identification: u32,
  fragment: u32,
  ttl: u32,
  protocol: u32,
  source: u32,
  destination: u32,
): void {
  storeWords(packet, 0x45000000 | totalBytes, (identification << 16) | fragment, (ttl << 24) | (protocol << 16), source)
  store<u32>(packet, bswap<u32>(destination), 16)
  store<u16>(packet, <u16>checksumFinish(fixedSum(packet)), 10)
}

/** Changes total length, flags and offset of a header, options or not, and its checksum with them. */
export function ipv4Resize(packet: u32, totalBytes: u32, fragment: u32): void {
  store<u16>(packet, bswap<u16>(<u16>totalBytes), 2)
  store<u16>(packet, bswap<u16>(<u16>fragment), 6)
  store<u16>(packet, 0, 10)
  store<u16>(packet, <u16>checksumFinish(checksumAdd(packet, ipv4HeaderBytes(packet), 0)), 10)
}

/** Sets the TOS byte, of which the low two bits are ECN (RFC 3168 §5), and the checksum with it. */
export function ipv4SetTos(packet: u32, tos: u32): void {
  // RFC 1624: HC' = ~(~HC + ~m + m'), on the words as they stand in memory.
  const old: u32 = load<u16>(packet)
  store<u8>(packet, <u8>tos, 1)
  const sum = (~(<u32>load<u16>(packet, 10)) & 0xffff) + (~old & 0xffff) + load<u16>(packet)
  store<u16>(packet, <u16>checksumFinish(sum), 10)
}

/** Takes one from the TTL, which is not 0, and sets the checksum right (RFC 1624). */
export function ipv4CountDown(packet: u32): void {
  const old: u32 = load<u16>(packet, 8)
  store<u8>(packet, <u8>(ipv4Ttl(packet) - 1), 8)
  const sum = (~(<u32>load<u16>(packet, 10)) & 0xffff) + (~old & 0xffff) + load<u16>(packet, 8)
  store<u16>(packet, <u16>checksumFinish(sum), 10)
}

/** 127.0.0.0/8: never on a wire (RFC 1122 §3.2.1.3). */
export function ipv4IsLoopback(address: u32): bool {
  return address >>> 24 == 127
}

/** An address that one host may have: not 0/8, not 224.0.0.0 or above. */
export function ipv4IsUnicast(address: u32): bool {
  return address >>> 24 != 0 && address < 0xe0000000
}
