/** IPv4 and MAC addresses as people write them. IPv4 addresses are numbers: 192.0.2.1 is 0xc0000201. */

import { formatIPv4, parseIPv4 } from '../../host/addresses.ts'

export { formatIPv4 as formatIpv4 }

export interface Ipv4Prefix {
  readonly address: number
  /** Length of the network part, bits. */
  readonly prefix: number
}

/** `192.0.2.1`, without leading zeros; undefined if it is none. */
export function parseIpv4(text: string): number | undefined {
  const address = parseIPv4(text)
  return address < 0 ? undefined : address
}

/** `192.0.2.1/24`. */
export function parseIpv4Prefix(text: string): Ipv4Prefix | undefined {
  const [host, length, ...rest] = text.split('/')
  const address = parseIpv4(host)
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(length ?? '')) return undefined
  const prefix = Number(length)
  return prefix > 32 ? undefined : { address, prefix }
}

/** The mask of a prefix length, as a number. */
export function netmask(prefix: number): number {
  return prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0
}

/** The network's own address: all host bits 0. */
export function networkAddress({ address, prefix }: Ipv4Prefix): number {
  return (address & netmask(prefix)) >>> 0
}

/** The network's broadcast address: all host bits 1. */
export function broadcastAddress({ address, prefix }: Ipv4Prefix): number {
  return (address | ~netmask(prefix)) >>> 0
}

export function sameNetwork(a: Ipv4Prefix, address: number): boolean {
  return networkAddress(a) === networkAddress({ address, prefix: a.prefix })
}

/** True for an address that one host may have: no network, broadcast, multicast, loopback or zero address. */
export function isHostAddress(of: Ipv4Prefix): boolean {
  const first = of.address >>> 24
  if (first === 0 || first === 127 || first >= 224) return false
  if (of.prefix >= 31) return true // RFC 3021: both addresses of a point-to-point link are hosts
  return of.address !== networkAddress(of) && of.address !== broadcastAddress(of)
}

/** `02:00:00:00:00:01` as six bytes. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16))
}

export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':')
}
