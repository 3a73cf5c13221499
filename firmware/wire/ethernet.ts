import { loadSwapped64, storeWords14 } from './order.ts'

/**
 * Ethernet II header.
 *
 *      0                 6                 12       14
 *      ├─destination─────┼─source──────────┼─type───┤
 *
 * MAC addresses are 48-bit numbers, first byte highest. Accessors read unchecked: ETHERNET_HEADER_BYTES is checked once, at
 * ingress.
 */
export const ETHERNET_HEADER_BYTES: u32 = 14

export const ETHERTYPE_IPV4: u32 = 0x0800
export const ETHERTYPE_ARP: u32 = 0x0806

export const MAC_BROADCAST: u64 = 0xffffffffffff

export function ethernetDestination(frame: u32): u64 {
  return loadSwapped64(frame) >> 16
}

export function ethernetSource(frame: u32): u64 {
  return loadSwapped64(frame + 6) >> 16
}

export function ethernetType(frame: u32): u32 {
  return bswap<u16>(load<u16>(frame, 12))
}

/** Writes the 14 bytes. @param type EtherType, host order */
export function ethernetWrite(frame: u32, destination: u64, source: u64, type: u32): void {
  const middle = <u32>((destination << 16) | (source >> 32))
  storeWords14(frame, <u32>(destination >> 16), middle, <u32>source, type << 16)
}

/** The MAC address in the 6 bytes at `address`. */
export function macLoad(address: u32): u64 {
  return ((<u64>bswap<u16>(load<u16>(address))) << 32) | bswap<u32>(load<u32>(address, 2))
}

export function macStore(address: u32, mac: u64): void {
  store<u16>(address, bswap<u16>(<u16>(mac >> 32)))
  store<u32>(address, bswap<u32>(<u32>mac), 2)
}

/** True for a multicast or broadcast address: the lowest bit of the first byte. */
export function macIsGroup(mac: u64): bool {
  return ((mac >> 40) & 1) != 0
}
