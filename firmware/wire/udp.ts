/**
 * UDP header (RFC 768).
 *
 *      0                 2                 4
 *   0  ├─source port─────┼─destination port┤
 *   4  ├─length──────────┼─checksum────────┤
 *
 * Accessors read unchecked: UDP_HEADER_BYTES and the length field are checked once, at ingress.
 */
export const UDP_HEADER_BYTES: u32 = 8
export const UDP_CHECKSUM: u32 = 6
/** Largest payload, bytes: IPv4's total length without both headers. */
export const UDP_MAXIMUM_PAYLOAD: u32 = 65507

export function udpSourcePort(datagram: u32): u32 {
  return bswap<u16>(load<u16>(datagram))
}

export function udpDestinationPort(datagram: u32): u32 {
  return bswap<u16>(load<u16>(datagram, 2))
}

/** Header and payload, bytes. */
export function udpBytes(datagram: u32): u32 {
  return bswap<u16>(load<u16>(datagram, 4))
}

/** Checksum as it stands in memory; 0 = the sender made none. */
export function udpChecksum(datagram: u32): u32 {
  return load<u16>(datagram, UDP_CHECKSUM)
}

/** Writes the 8 bytes, checksum 0. @param bytes of header and payload */
export function udpWrite(datagram: u32, sourcePort: u32, destinationPort: u32, bytes: u32): void {
  store<u16>(datagram, bswap<u16>(<u16>sourcePort))
  store<u16>(datagram, bswap<u16>(<u16>destinationPort), 2)
  store<u32>(datagram, <u32>bswap<u16>(<u16>bytes), 4)
}
