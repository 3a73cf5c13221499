import { type FrameSink, NOWHERE, type Port } from './link.ts'

/** IEEE 802.1Q §8.8.3: the recommended ageing time, nanoseconds. */
const AGEING_NS = 300e9
const DEFAULT_ADDRESSES = 4096
/** Places in the table where an address may be. */
const WAYS = 4
/** Ports of one switch; the table keeps a port in one byte. */
const MAXIMUM_PORTS = 255
const NO_PORT = 0xff
const MINIMUM_FRAME = 14

export interface SwitchOptions {
  /** Addresses remembered, a power of two from 16 to 65536. Default 4096. */
  addresses?: number
}

/** Counters of a switch; free-running. */
export interface SwitchStatistics {
  forwarded: number
  /** Sent to every other port: broadcast, multicast, unknown address. */
  flooded: number
  /** For the port they came from, for a reserved address (IEEE 802.1Q §8.6.3), or too short. */
  filtered: number
  /** Came back while being forwarded: the cabling has a loop without delay. */
  looped: number
  /** Addresses that pushed an older one out of the full table. */
  evicted: number
}

/**
 * Learning MAC switch (IEEE 802.1Q §8.6 to §8.8 without VLANs and spanning tree). A frame leaves as it comes; where a slow
 * port needs a queue, its cable has it.
 */
export class Switch {
  readonly name: string
  readonly #ports: SwitchPort[] = []
  // The table: four places for each hash. The address's first two bytes and last four; the port that it was seen on; when.
  readonly #sets: number
  readonly #high: Uint16Array
  readonly #low: Uint32Array
  readonly #port: Uint8Array
  readonly #seenNs: Float64Array
  /** True while a frame is being forwarded. */
  #forwarding = false
  #forwarded = 0
  #flooded = 0
  #filtered = 0
  #looped = 0
  #evicted = 0

  constructor(name: string, options: SwitchOptions = {}) {
    const { addresses = DEFAULT_ADDRESSES } = options
    if (!Number.isInteger(addresses) || addresses < 16 || addresses > 65536 || (addresses & (addresses - 1)) !== 0) {
      throw new RangeError(`Switch ${name}: ${addresses} addresses; give a power of two from 16 to 65536.`)
    }
    this.name = name
    this.#sets = addresses / WAYS
    this.#high = new Uint16Array(addresses)
    this.#low = new Uint32Array(addresses)
    this.#port = new Uint8Array(addresses).fill(NO_PORT)
    this.#seenNs = new Float64Array(addresses)
  }

  /** A further port. Throws RangeError when the switch has 255. */
  addPort(): Port {
    const index = this.#ports.length
    if (index === MAXIMUM_PORTS) throw new RangeError(`Switch ${this.name} has ${MAXIMUM_PORTS} ports already.`)
    const port = new SwitchPort(
      `${this.name}.${index}`,
      (memory, offset, length, nowNs) => this.#forward(index, memory, offset, length, nowNs),
      () => this.#forget(index),
    )
    this.#ports.push(port)
    return port
  }

  /** The index of the port on which an address was last seen, or -1. `address`: six bytes. */
  lookup(address: Uint8Array, nowNs: number): number {
    const high = (address[0] << 8) | address[1]
    const low = ((address[2] << 24) | (address[3] << 16) | (address[4] << 8) | address[5]) >>> 0
    const place = this.#find(high, low)
    return place < 0 || nowNs - this.#seenNs[place] > AGEING_NS ? -1 : this.#port[place]
  }

  statistics(): SwitchStatistics {
    return {
      forwarded: this.#forwarded,
      flooded: this.#flooded,
      filtered: this.#filtered,
      looped: this.#looped,
      evicted: this.#evicted,
    }
  }

  #forward(ingress: number, memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    if (this.#forwarding) {
      this.#looped++
      return
    }
    if (length < MINIMUM_FRAME) {
      this.#filtered++
      return
    }
    const toHigh = (memory[offset] << 8) | memory[offset + 1]
    const toLow =
      ((memory[offset + 2] << 24) | (memory[offset + 3] << 16) | (memory[offset + 4] << 8) | memory[offset + 5]) >>> 0
    const fromHigh = (memory[offset + 6] << 8) | memory[offset + 7]
    const fromLow =
      ((memory[offset + 8] << 24) | (memory[offset + 9] << 16) | (memory[offset + 10] << 8) | memory[offset + 11]) >>> 0
    if ((fromHigh & 0x100) === 0) this.#learn(fromHigh, fromLow, ingress, nowNs)
    // 01-80-C2-00-00-00 to -0F go no further than the next station.
    if (toHigh === 0x0180 && (toLow & 0xfffffff0) >>> 0 === 0xc2000000) {
      this.#filtered++
      return
    }
    const place = (toHigh & 0x100) === 0 ? this.#find(toHigh, toLow) : -1
    this.#forwarding = true
    if (place >= 0 && nowNs - this.#seenNs[place] <= AGEING_NS) {
      const egress = this.#port[place]
      if (egress === ingress) this.#filtered++
      else {
        this.#forwarded++
        this.#ports[egress].outlet.frame(memory, offset, length, nowNs)
      }
    } else {
      this.#flooded++
      for (let egress = 0; egress < this.#ports.length; egress++) {
        if (egress !== ingress) this.#ports[egress].outlet.frame(memory, offset, length, nowNs)
      }
    }
    this.#forwarding = false
  }

  #learn(high: number, low: number, port: number, nowNs: number): void {
    let place = this.#find(high, low)
    if (place < 0) {
      // A free place, or that of the address not seen for longest.
      const first = this.#hash(high, low)
      place = first
      for (let way = first; way < first + WAYS; way++) {
        if (this.#port[way] === NO_PORT) {
          place = way
          break
        }
        if (this.#seenNs[way] < this.#seenNs[place]) place = way
      }
      if (this.#port[place] !== NO_PORT && nowNs - this.#seenNs[place] <= AGEING_NS) this.#evicted++
      this.#high[place] = high
      this.#low[place] = low
    }
    this.#port[place] = port
    this.#seenNs[place] = nowNs
  }

  #find(high: number, low: number): number {
    const first = this.#hash(high, low)
    for (let place = first; place < first + WAYS; place++) {
      if (this.#low[place] === low && this.#high[place] === high && this.#port[place] !== NO_PORT) return place
    }
    return -1
  }

  /** First of the places where an address may be. */
  #hash(high: number, low: number): number {
    let hash = Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b)
    hash ^= hash >>> 15
    return (hash & (this.#sets - 1)) * WAYS
  }

  /** §8.8.3: what was learned on a port goes when its carrier does. */
  #forget(port: number): void {
    for (let place = 0; place < this.#port.length; place++) if (this.#port[place] === port) this.#port[place] = NO_PORT
  }
}

class SwitchPort implements Port {
  readonly name: string
  readonly frame: FrameSink['frame']
  outlet: FrameSink = NOWHERE
  readonly #onDown: () => void

  constructor(name: string, forward: FrameSink['frame'], onDown: () => void) {
    this.name = name
    this.frame = forward
    this.#onDown = onDown
  }

  plug(outlet: FrameSink | null): void {
    this.outlet = outlet ?? NOWHERE
  }

  setCarrier(up: boolean): void {
    if (!up) this.#onDown()
  }
}
