import { storeWords } from './order.ts'

/**
 * TCP header (RFC 9293 §3.1).
 *
 *      0                 2                 4
 *   0  ├─source port─────┼─destination port┤
 *   4  ├─sequence number───────────────────┤
 *   8  ├─acknowledgement number────────────┤
 *  12  ├─offset─┬─flags──┼─window──────────┤
 *  16  ├─checksum────────┼─urgent pointer──┤
 *  20  ├─options ...
 *
 * Accessors read unchecked: `tcpHeaderBytes` is checked once, at ingress.
 */
export const TCP_HEADER_BYTES: u32 = 20
export const TCP_CHECKSUM: u32 = 16

export const TCP_FIN: u32 = 1
export const TCP_SYN: u32 = 2
export const TCP_RST: u32 = 4
export const TCP_PSH: u32 = 8
export const TCP_ACK: u32 = 16
export const TCP_URG: u32 = 32

export const OPTION_END: u32 = 0
export const OPTION_NOP: u32 = 1
export const OPTION_MSS: u32 = 2
export const OPTION_WINDOW_SCALE: u32 = 3
export const OPTION_SACK_PERMITTED: u32 = 4
export const OPTION_SACK: u32 = 5
export const OPTION_TIMESTAMPS: u32 = 8

/** Bytes that the timestamps option takes in every segment: NOP NOP TSopt (RFC 7323 appendix A). */
export const TIMESTAMPS_BYTES: u32 = 12

export function tcpSourcePort(segment: u32): u32 {
  return bswap<u16>(load<u16>(segment))
}

export function tcpDestinationPort(segment: u32): u32 {
  return bswap<u16>(load<u16>(segment + 2))
}

export function tcpSequence(segment: u32): u32 {
  return bswap<u32>(load<u32>(segment + 4))
}

export function tcpAcknowledgement(segment: u32): u32 {
  return bswap<u32>(load<u32>(segment + 8))
}

export function tcpHeaderBytes(segment: u32): u32 {
  return (<u32>load<u8>(segment + 12) >>> 4) << 2
}

export function tcpFlags(segment: u32): u32 {
  return load<u8>(segment + 13)
}

export function tcpWindow(segment: u32): u32 {
  return bswap<u16>(load<u16>(segment + 14))
}

/** Writes the fixed 20 bytes, checksum 0. @param headerBytes with options, a multiple of 4 @param window as it stands in the header */
export function tcpHeader(
  segment: u32,
  sourcePort: u32,
  destinationPort: u32,
  sequence: u32,
  acknowledgement: u32,
  headerBytes: u32,
  flags: u32,
  window: u32,
): void {
  const ports = (sourcePort << 16) | destinationPort
  storeWords(segment, ports, sequence, acknowledgement, (headerBytes << 26) | (flags << 16) | window)
  store<u32>(segment, 0, 16)
}

/** NOP NOP TSopt. */
export function tcpTimestamps(at: u32, value: u32, echo: u32): void {
  store<u32>(at, 0x0a080101)
  store<u32>(at + 4, bswap<u32>(value))
  store<u32>(at + 8, bswap<u32>(echo))
}
