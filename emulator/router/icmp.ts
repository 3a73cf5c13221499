import {
  CODE_FRAGMENTATION_NEEDED,
  headerBytesOf,
  ICMP_CHECKSUM,
  ICMP_CODE,
  ICMP_ECHO_REPLY,
  ICMP_HEADER_BYTES,
  ICMP_REST,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_IDENTIFICATION,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL,
  IPV4_TTL,
  isIcmpError,
  PROTOCOL_ICMP,
  sum,
  writeHeaderChecksum,
} from './wire.ts'

const TTL = 64
/** Internetwork control (RFC 1812 §4.3.2.5). */
const TOS_ERROR = 0xc0
/** An error quotes as much of the packet as fits in 576 bytes with both headers (RFC 1812 §4.3.2.3). */
const QUOTE_BYTES = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES

/** What an ICMP error says. */
export interface IcmpError {
  readonly type: number
  readonly code: number
}

/** True if the rules of RFC 1812 §4.3.2.7 let an error be sent about the packet at `at`: its first fragment, and no error itself. */
export function mayBeTold(view: DataView, at: number): boolean {
  if ((view.getUint16(at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) return false
  if (view.getUint8(at + IPV4_PROTOCOL) !== PROTOCOL_ICMP) return true
  const headerBytes = headerBytesOf(view, at)
  return view.getUint16(at + IPV4_TOTAL) > headerBytes && !isIcmpError(view.getUint8(at + headerBytes))
}

/**
 * Writes an ICMP error at `to` about the packet at `about`, addressed to its source. The packet's own source is filled in by
 * `finish`, once the way out is known. Returns the packet's bytes.
 */
export function writeError(
  bytes: Uint8Array,
  view: DataView,
  to: number,
  about: number,
  { type, code }: IcmpError,
  mtuBytes: number,
  identification: number,
): number {
  const quoted = Math.min(view.getUint16(about + IPV4_TOTAL), QUOTE_BYTES)
  const message = to + IPV4_HEADER_BYTES
  const total = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quoted
  writeHeader(view, to, TOS_ERROR, total, identification)
  view.setInt32(to + IPV4_DESTINATION, view.getInt32(about + IPV4_SOURCE))
  view.setUint8(message, type)
  view.setUint8(message + ICMP_CODE, code)
  view.setUint16(message + ICMP_CHECKSUM, 0)
  view.setUint32(message + ICMP_REST, code === CODE_FRAGMENTATION_NEEDED ? mtuBytes : 0)
  bytes.copyWithin(message + ICMP_HEADER_BYTES, about, about + quoted)
  view.setUint16(message + ICMP_CHECKSUM, ~sum(view, message, ICMP_HEADER_BYTES + quoted) & 0xffff)
  return total
}

/** Turns the echo request at `at` into its reply, without options, addressed to its source. Returns the packet's bytes. */
export function turnEcho(bytes: Uint8Array, view: DataView, at: number, identification: number): number {
  const headerBytes = headerBytesOf(view, at)
  const messageBytes = view.getUint16(at + IPV4_TOTAL) - headerBytes
  const source = view.getInt32(at + IPV4_SOURCE)
  const message = at + IPV4_HEADER_BYTES
  bytes.copyWithin(message, at + headerBytes, at + headerBytes + messageBytes)
  writeHeader(view, at, view.getUint8(at + IPV4_TOS), IPV4_HEADER_BYTES + messageBytes, identification)
  view.setInt32(at + IPV4_DESTINATION, source)
  view.setUint8(message, ICMP_ECHO_REPLY)
  view.setUint16(message + ICMP_CHECKSUM, 0)
  view.setUint16(message + ICMP_CHECKSUM, ~sum(view, message, messageBytes) & 0xffff)
  return IPV4_HEADER_BYTES + messageBytes
}

/** Gives a packet of our own its source, and its checksum. */
export function finish(view: DataView, at: number, source: number): void {
  view.setInt32(at + IPV4_SOURCE, source)
  writeHeaderChecksum(view, at, IPV4_HEADER_BYTES)
}

function writeHeader(view: DataView, at: number, tos: number, total: number, identification: number): void {
  view.setUint8(at, 0x45)
  view.setUint8(at + IPV4_TOS, tos)
  view.setUint16(at + IPV4_TOTAL, total)
  view.setUint16(at + IPV4_IDENTIFICATION, identification)
  view.setUint16(at + IPV4_FRAGMENT, 0)
  view.setUint8(at + IPV4_TTL, TTL)
  view.setUint8(at + IPV4_PROTOCOL, PROTOCOL_ICMP)
  view.setUint16(at + IPV4_CHECKSUM, 0)
}

/** A token bucket (RFC 1812 §4.3.2.8): so many a second, and as many at once after a silence of a second. */
export class RateLimit {
  readonly #perSecond: number
  #tokens: number
  #filledNs = 0

  constructor(perSecond: number) {
    this.#perSecond = perSecond
    this.#tokens = perSecond
  }

  /** Takes a token, if there is one. */
  take(nowNs: number): boolean {
    this.#tokens = Math.min(this.#perSecond, this.#tokens + ((nowNs - this.#filledNs) * this.#perSecond) / 1e9)
    this.#filledNs = nowNs
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
