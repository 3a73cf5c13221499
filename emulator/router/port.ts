import { type FrameSink, NOWHERE, type Port } from '../link/link.ts'
import { ETHERNET_HEADER_BYTES, maskOf } from './wire.ts'

/** One port of a router. IPv4 addresses are numbers: 192.0.2.1 is 0xc0000201. */
export interface RouterInterface {
  /** What is behind it, for the port's name: `router-a.lan-a`. */
  readonly name: string
  /** Six bytes. */
  readonly mac: Uint8Array
  readonly address: number
  /** Bits of the network. */
  readonly prefix: number
  /** Bytes of the largest IP packet that leaves by it. */
  readonly mtuBytes: number
}

/** A port of a router. It takes frames for its own address and for everybody. */
export class RouterPort implements Port {
  readonly name: string
  /** Six bytes. */
  readonly mac: Uint8Array
  /** First two bytes of it, and the last four. */
  readonly macHigh: number
  readonly macLow: number
  /** Signed 32-bit numbers, as the views read them. */
  readonly address: number
  readonly mask: number
  /** 0 where the network has none (RFC 3021). */
  readonly broadcast: number
  readonly mtuBytes: number
  readonly prefix: number
  carrier = false
  outlet: FrameSink = NOWHERE
  readonly #receive: FrameSink['frame']
  readonly #onCarrier: (up: boolean) => void

  constructor(name: string, item: RouterInterface, receive: FrameSink['frame'], onCarrier: (up: boolean) => void) {
    const { mac } = item
    this.name = name
    this.mac = mac
    this.macHigh = (mac[0] << 8) | mac[1]
    this.macLow = ((mac[2] << 24) | (mac[3] << 16) | (mac[4] << 8) | mac[5]) >>> 0
    this.address = item.address | 0
    this.prefix = item.prefix
    this.mask = maskOf(item.prefix)
    this.broadcast = item.prefix < 31 ? this.address | ~this.mask : 0
    this.mtuBytes = item.mtuBytes
    this.#receive = receive
    this.#onCarrier = onCarrier
  }

  plug(outlet: FrameSink | null): void {
    this.outlet = outlet ?? NOWHERE
  }

  setCarrier(up: boolean): void {
    if (up === this.carrier) return
    this.carrier = up
    this.#onCarrier(up)
  }

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    if (length < ETHERNET_HEADER_BYTES) return
    const high = (memory[offset] << 8) | memory[offset + 1]
    const low =
      ((memory[offset + 2] << 24) | (memory[offset + 3] << 16) | (memory[offset + 4] << 8) | memory[offset + 5]) >>> 0
    if ((low === this.macLow && high === this.macHigh) || (low === 0xffffffff && high === 0xffff))
      this.#receive(memory, offset, length, nowNs)
  }

  /** True for the addresses of the port's network that no host has: all host bits 0, or all 1. */
  isNobody(address: number): boolean {
    return this.broadcast !== 0 && (address === this.broadcast || address === (this.address & this.mask))
  }
}

/** True for an address that a station on the port's link may have. */
export function isHostOf(port: RouterPort, address: number): boolean {
  return ((address ^ port.address) & port.mask) === 0 && !port.isNobody(address)
}
