import { checksumAdd, checksumFinish, checksumFold } from './checksum.ts'

/**
 * ICMP message (RFC 792).
 *
 *      0                 2                 4
 *   0  ├─type───┬─code───┼─checksum────────┤
 *   4  ├─rest: identifier, sequence; MTU ──┤
 *   8  ├─data, or the packet complained of ┤
 *
 * Accessors read unchecked: ICMP_HEADER_BYTES is checked once, at ingress.
 */
export const ICMP_HEADER_BYTES: u32 = 8

export const ICMP_ECHO_REPLY: u32 = 0
export const ICMP_UNREACHABLE: u32 = 3
export const ICMP_ECHO_REQUEST: u32 = 8
export const ICMP_TIME_EXCEEDED: u32 = 11
export const ICMP_PARAMETER_PROBLEM: u32 = 12

// Codes of ICMP_UNREACHABLE (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
export const ICMP_CODE_NET: u32 = 0
export const ICMP_CODE_HOST: u32 = 1
export const ICMP_CODE_PROTOCOL: u32 = 2
export const ICMP_CODE_PORT: u32 = 3
export const ICMP_CODE_FRAGMENTATION_NEEDED: u32 = 4
export const ICMP_CODE_NET_UNKNOWN: u32 = 6
export const ICMP_CODE_NET_PROHIBITED: u32 = 9
// Code of ICMP_TIME_EXCEEDED.
export const ICMP_CODE_REASSEMBLY: u32 = 1

export function icmpType(message: u32): u32 {
  return load<u8>(message)
}

export function icmpCode(message: u32): u32 {
  return load<u8>(message, 1)
}

/** Next-hop MTU of "fragmentation needed" (RFC 1191 §4), bytes; 0 from a router that does not tell. */
export function icmpMtu(message: u32): u32 {
  return bswap<u16>(load<u16>(message, 6))
}

/** Writes the 8 bytes in front of `bytes - 8` bytes that stand there already, checksum over all. @param rest bytes 4..7, host order */
export function icmpWrite(message: u32, type: u32, code: u32, rest: u32, bytes: u32): void {
  store<u32>(message, type | (code << 8))
  store<u32>(message, bswap<u32>(rest), 4)
  store<u16>(message, <u16>checksumFinish(checksumAdd(message, bytes, 0)), 2)
}

/** Turns an echo request of `bytes` bytes, of which the checksum is good, into its reply. */
export function icmpTurnEcho(message: u32, bytes: u32): void {
  const old: u32 = load<u16>(message)
  store<u16>(message, <u16>ICMP_ECHO_REPLY)
  // RFC 1624: HC' = ~(~HC + ~m + m') with m' = 0.
  let sum = (~(<u32>load<u16>(message, 2)) & 0xffff) + (~old & 0xffff)
  if (checksumFold(sum) == 0xffff) {
    // Both zeros of one's complement look alike to the rule, but a message of zeros alone has the checksum 0xffff.
    store<u16>(message, 0, 2)
    sum = checksumAdd(message, bytes, 0)
  }
  store<u16>(message, <u16>checksumFinish(sum), 2)
}
