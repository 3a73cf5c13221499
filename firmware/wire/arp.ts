import { macLoad, macStore } from './ethernet.ts'

/**
 * ARP packet for IPv4 over Ethernet (RFC 826).
 *
 *      0                 2                 4        5        6                8
 *   0  ├─hardware 1──────┼─protocol 0800───┼─6──────┼─4──────┼─operation──────┤
 *   8  ├─sender MAC──────┴─────────────────┴──┬─sender IPv4──┤
 *  18  ├─target MAC───────────────────────────┼─target IPv4──┤
 *
 * Accessors read unchecked: ARP_BYTES and `arpIsIpv4` are checked once, at ingress.
 */
export const ARP_BYTES: u32 = 28

export const ARP_REQUEST: u32 = 1
export const ARP_REPLY: u32 = 2

/** True if the packet speaks of Ethernet and IPv4 addresses. */
export function arpIsIpv4(packet: u32): bool {
  return load<u32>(packet) == 0x00080100 && load<u16>(packet, 4) == 0x0406
}

export function arpOperation(packet: u32): u32 {
  return bswap<u16>(load<u16>(packet, 6))
}

export function arpSenderMac(packet: u32): u64 {
  return macLoad(packet + 8)
}

export function arpSender(packet: u32): u32 {
  return bswap<u32>(load<u32>(packet, 14))
}

export function arpTargetMac(packet: u32): u64 {
  return macLoad(packet + 18)
}

export function arpTarget(packet: u32): u32 {
  return bswap<u32>(load<u32>(packet, 24))
}

/** Writes the 28 bytes. @param operation ARP_REQUEST or ARP_REPLY */
export function arpWrite(packet: u32, operation: u32, senderMac: u64, sender: u32, targetMac: u64, target: u32): void {
  store<u32>(packet, 0x00080100)
  store<u16>(packet, 0x0406, 4)
  store<u16>(packet, bswap<u16>(<u16>operation), 6)
  macStore(packet + 8, senderMac)
  store<u32>(packet, bswap<u32>(sender), 14)
  macStore(packet + 18, targetMac)
  store<u32>(packet, bswap<u32>(target), 24)
}
