/** The headers that a router reads and writes: offsets, and what is said about them more than once. All fields are big-endian. */

// ── Ethernet II ──
export const ETHERNET_HEADER_BYTES = 14
export const ETHERNET_SOURCE = 6
export const ETHERNET_TYPE = 12
export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806

// ── ARP for IPv4 over Ethernet (RFC 826), from the ARP header on ──
export const ARP_BYTES = 28
/** Hardware type 1, protocol type IPv4. */
export const ARP_ETHERNET_IPV4 = 0x00010800
/** Address lengths 6 and 4. */
export const ARP_LENGTHS = 0x0604
export const ARP_OPERATION = 6
export const ARP_SENDER_MAC = 8
export const ARP_SENDER = 14
export const ARP_TARGET_MAC = 18
export const ARP_TARGET = 24
export const ARP_REQUEST = 1
export const ARP_REPLY = 2

// ── IPv4 (RFC 791), from the IPv4 header on ──
export const IPV4_HEADER_BYTES = 20
export const IPV4_TOS = 1
export const IPV4_TOTAL = 2
export const IPV4_IDENTIFICATION = 4
export const IPV4_FRAGMENT = 6
export const IPV4_TTL = 8
export const IPV4_PROTOCOL = 9
export const IPV4_CHECKSUM = 10
export const IPV4_SOURCE = 12
export const IPV4_DESTINATION = 16
export const IPV4_DONT_FRAGMENT = 0x4000
export const IPV4_MORE_FRAGMENTS = 0x2000
export const IPV4_OFFSET_MASK = 0x1fff
export const PROTOCOL_ICMP = 1
export const PROTOCOL_UDP = 17

// ── ICMP (RFC 792), from the ICMP header on ──
export const ICMP_HEADER_BYTES = 8
export const ICMP_CODE = 1
export const ICMP_CHECKSUM = 2
export const ICMP_REST = 4
export const ICMP_ECHO_REPLY = 0
export const ICMP_UNREACHABLE = 3
export const ICMP_SOURCE_QUENCH = 4
export const ICMP_REDIRECT = 5
export const ICMP_ECHO_REQUEST = 8
export const ICMP_TIME_EXCEEDED = 11
export const ICMP_PARAMETER_PROBLEM = 12
// Codes of ICMP_UNREACHABLE.
export const CODE_NET = 0
export const CODE_HOST = 1
export const CODE_PROTOCOL = 2
export const CODE_PORT = 3
export const CODE_FRAGMENTATION_NEEDED = 4

/** One's complement sum of `length` bytes (RFC 1071), folded to 16 bits: 0xffff where a checksum over them is right. */
export function sum(view: DataView, at: number, length: number): number {
  let total = 0
  const even = at + (length & ~1)
  for (let n = at; n < even; n += 2) total += view.getUint16(n)
  if (length & 1) total += view.getUint8(even) << 8
  // Frames are short: 32 bits hold the carries.
  total = (total & 0xffff) + (total >>> 16)
  return (total & 0xffff) + (total >>> 16)
}

/** Writes the checksum of an IPv4 header of `headerBytes`. */
export function writeHeaderChecksum(view: DataView, at: number, headerBytes: number): void {
  view.setUint16(at + IPV4_CHECKSUM, 0)
  view.setUint16(at + IPV4_CHECKSUM, ~sum(view, at, headerBytes) & 0xffff)
}

/** `checksum` after a 16-bit word that it covers went from `before` to `after` (RFC 1624 equation 3). */
export function adjustChecksum(checksum: number, before: number, after: number): number {
  let total = (~checksum & 0xffff) + (~before & 0xffff) + after
  total = (total & 0xffff) + (total >>> 16)
  total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}

export function headerBytesOf(view: DataView, at: number): number {
  return (view.getUint8(at) & 0x0f) * 4
}

/** 0 if the header can be meant (RFC 1812 §5.2.2), else what is wrong with it. `bytes`: from the header to the end of the frame. */
export function headerProblem(view: DataView, at: number, bytes: number): 0 | 'header' | 'checksum' {
  if (bytes < IPV4_HEADER_BYTES) return 'header'
  const first = view.getUint8(at)
  const headerBytes = (first & 0x0f) * 4
  const total = view.getUint16(at + IPV4_TOTAL)
  if (first >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES || total < headerBytes || total > bytes) return 'header'
  return sum(view, at, headerBytes) === 0xffff ? 0 : 'checksum'
}

/** True for an address that a packet may come from or go to across a router: no "this" network, loopback, link-local, group or class E. */
export function isRoutable(address: number): boolean {
  const first = address >>> 24
  return first !== 0 && first !== 127 && first < 224 && address >>> 16 !== 0xa9fe
}

/** True for an ICMP message that is about another packet: nothing is ever sent about it (RFC 1812 §4.3.2.7). */
export function isIcmpError(type: number): boolean {
  return (
    type === ICMP_UNREACHABLE ||
    type === ICMP_SOURCE_QUENCH ||
    type === ICMP_REDIRECT ||
    type === ICMP_TIME_EXCEEDED ||
    type === ICMP_PARAMETER_PROBLEM
  )
}

/** A mask of `prefix` bits, as a signed 32-bit number. */
export function maskOf(prefix: number): number {
  return prefix === 0 ? 0 : -1 << (32 - prefix)
}
