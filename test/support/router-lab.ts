/** A router between three networks in virtual time, with stations that the test plays. */
import { Farm } from '../../emulator/farm.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { Router, RouterOptions } from '../../emulator/router/router.ts'
import { TestPort } from '../emulator-kit.ts'
import {
  arpFrame,
  BROADCAST_MAC,
  bytes,
  concat,
  formatAll,
  type Ipv4Fields,
  ipNumber,
  ipv4Frame,
  type LinkFields,
  macBytes,
  type PacketPattern,
  parse,
  udp,
} from './packets.ts'

/** A station on the network of one of the router's ports. */
export interface RouterStation {
  readonly port: number
  readonly mac: string
  readonly ip: string
}

/** A frame that the router sent. */
export interface Sent {
  readonly port: number
  readonly timeNs: number
  readonly frame: Uint8Array
}

/** The router's own ends: two networks that carry 1500 bytes, and one that carries 600. */
export const ENDS: readonly (RouterStation & { readonly mtu: number })[] = [
  { port: 0, mac: '02:00:00:00:00:a0', ip: '192.0.2.254', mtu: 1500 },
  { port: 1, mac: '02:00:00:00:00:b0', ip: '198.51.100.254', mtu: 1500 },
  { port: 2, mac: '02:00:00:00:00:c0', ip: '203.0.113.254', mtu: 600 },
]
export const A: RouterStation = { port: 0, mac: '02:00:00:00:0a:01', ip: '192.0.2.10' }
export const B: RouterStation = { port: 1, mac: '02:00:00:00:0b:01', ip: '198.51.100.10' }
export const C: RouterStation = { port: 2, mac: '02:00:00:00:0c:01', ip: '203.0.113.10' }
/** Routers behind which there is more: 10.0.0.0/8 behind the first, 10.1.0.0/16 and 10.1.2.3 behind the second. */
export const NEXT_B: RouterStation = { port: 1, mac: '02:00:00:00:0b:09', ip: '198.51.100.9' }
export const NEXT_C: RouterStation = { port: 2, mac: '02:00:00:00:0c:09', ip: '203.0.113.9' }

const ROUTES = [
  { network: ipNumber('10.0.0.0'), prefix: 8, via: ipNumber(NEXT_B.ip) },
  { network: ipNumber('10.1.0.0'), prefix: 16, via: ipNumber(NEXT_C.ip) },
  { network: ipNumber('10.1.2.3'), prefix: 32, via: ipNumber(NEXT_B.ip) },
]

export class RouterLab {
  readonly farm = new Farm({ clock: 'virtual' })
  readonly router: Router
  readonly stations: readonly TestPort[]
  readonly cables: readonly Cable[]
  readonly #sent: Sent[] = []

  /** @param known stations that the router has in its ARP cache */
  private constructor(options: Partial<RouterOptions>) {
    this.router = this.farm.addRouter('r', {
      interfaces: ENDS.map(({ port, mac, ip, mtu }) => ({
        name: String(port),
        mac: macBytes(mac),
        address: ipNumber(ip),
        prefix: 24,
        mtuBytes: mtu,
      })),
      routes: ROUTES,
      ...options,
    })
    this.stations = this.router.ports.map(({ name }) => new TestPort(`station-${name}`))
    this.cables = this.router.ports.map((port, index) => this.farm.connect(this.stations[index], port))
  }

  /** A router that knows A, B, C and both next routers, or only `known`. */
  static async make(
    options: Partial<RouterOptions> = {},
    known: readonly RouterStation[] = [A, B, C, NEXT_B, NEXT_C],
  ): Promise<RouterLab> {
    const lab = new RouterLab(options)
    for (const station of known) lab.inject(station.port, ask(station, ENDS[station.port]))
    await lab.settle()
    return lab
  }

  /** Puts a frame on a port's cable; it is served when time goes on. */
  inject(port: number, frame: Uint8Array): void {
    this.stations[port].send(frame, this.farm.now())
  }

  /** Lets a millisecond pass; gives what the router sent since the last call. */
  async settle(): Promise<Sent[]> {
    return this.wait(1)
  }

  async wait(ms: number): Promise<Sent[]> {
    await this.farm.run(this.farm.now() + ms * 1e6)
    this.stations.forEach((station, port) => {
      this.#sent.push(...station.frames.splice(0).map(({ bytes, timeNs }) => ({ port, timeNs, frame: bytes })))
    })
    // By time; at one time in the order of ports.
    return this.#sent.splice(0).sort((a, b) => a.timeNs - b.timeNs)
  }

  /** `inject` and `settle`. */
  send(port: number, frame: Uint8Array): Promise<Sent[]> {
    this.inject(port, frame)
    return this.settle()
  }
}

/** An ARP request of `station` for `asked`. */
export function ask(station: RouterStation, asked: { readonly ip: string }): Uint8Array {
  return arpFrame({ operation: 'request', senderMac: station.mac, sender: station.ip, target: asked.ip })
}

/** The ARP reply of `station` to the router. */
export function answer(station: RouterStation): Uint8Array {
  const end = ENDS[station.port]
  const reply = { operation: 'reply', senderMac: station.mac, sender: station.ip } as const
  return arpFrame({ ...reply, targetMac: end.mac, target: end.ip, destinationMac: end.mac })
}

/** Link and IPv4 fields of a packet that `from` sends to `destination` by way of the router. */
export function by(from: RouterStation, destination: string): LinkFields & { source: string; destination: string } {
  return { sourceMac: from.mac, destinationMac: ENDS[from.port].mac, source: from.ip, destination }
}

export const PORTS = { sourcePort: 1000, destinationPort: 2000 }

/** A UDP datagram of A for `destination`. */
export function datagram(
  destination: string,
  fields: Partial<Ipv4Fields & LinkFields> = {},
  payload = bytes(32),
): Uint8Array {
  const addresses = { ...by(A, destination), ...fields }
  return ipv4Frame({ protocol: 17, payload: udp({ ...PORTS, ...addresses, payload }), ...addresses })
}

/** As it leaves to `to`. */
export function passed(to: RouterStation, fields: PacketPattern = {}): PacketPattern {
  return { port: to.port, destinationMac: to.mac, sourceMac: ENDS[to.port].mac, ...fields }
}

/** An ICMP error from the router to A, as a pattern. */
export function icmpError(type: number, code: number, rest = 0): PacketPattern {
  return passed(A, { ipv4: { source: ENDS[0].ip, destination: A.ip, ttl: 64 }, icmp: { type, code, rest } })
}

/** An ARP request of the router, as a pattern. */
export function arpRequest(port: number, target: string): PacketPattern {
  const { mac, ip } = ENDS[port]
  return { port, destinationMac: BROADCAST_MAC, arp: { operation: 'request', senderMac: mac, sender: ip, target } }
}

/** The payload that the fragments make, checked for gaps, and for what must be the same in all. */
export function reassemble(sent: readonly Sent[]): Uint8Array {
  const packets = sent.map(({ frame }) => parse(frame).ipv4!)
  let end = packets[0].offset
  for (const [index, packet] of packets.entries()) {
    if (packet.offset !== end) throw new Error(`fragment at ${packet.offset}, not ${end}\n${formatAll([...sent])}`)
    if (packet.identification !== packets[0].identification) throw new Error('another identification')
    if (index < packets.length - 1 && !packet.moreFragments) throw new Error('an end in the middle')
    end += packet.payload.length
  }
  return concat(...packets.map(({ payload }) => payload))
}
