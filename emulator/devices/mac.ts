import { REGISTER_BASE } from '../../abi/memory.ts'
import {
  IRQ_LINK,
  IRQ_MAC0,
  MAC_ADDRESS_HIGH,
  MAC_ADDRESS_LOW,
  MAC_BLOCK,
  MAC_LINK,
  MAC_PROMISCUOUS,
  MAC_RX_BASE,
  MAC_RX_DROPPED,
  MAC_RX_ENTRIES,
  MAC_RX_FRAMES,
  MAC_STRIDE,
  MAC_TX_BASE,
  MAC_TX_ENTRIES,
  MAC_TX_FRAMES,
  MAC_TX_REFUSED,
} from '../../abi/registers.ts'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME, OWNER_DEVICE, OWNER_FIRMWARE } from '../../abi/rings.ts'
import { type FrameSink, NOWHERE, type Port } from '../link/link.ts'
import { DescriptorRing } from './descriptor-ring.ts'
import type { InterruptController } from './irq.ts'
import { copyBytes, type FaultLine, hex, InicMemory } from './memory.ts'

/** Counters of a MAC port since power-on; free-running. */
export interface MacStatistics {
  rxFrames: number
  rxBytes: number
  /** No descriptor was free, or the frame was longer than its buffer. */
  rxDropped: number
  /** Not addressed to this port, or the receiver was off. */
  rxFiltered: number
  txFrames: number
  txBytes: number
  /** A descriptor named memory outside the INIC's, or a length out of range. */
  txRefused: number
}

/** Frames that a port keeps while its gate is closed. */
const FIFO_FRAMES = 512
const FIFO_SLOT_BYTES = 2048

/** Sees the frames of a port: `in`, once in a receive buffer; `out`, on its way from a transmit slot. */
export interface FrameWatcher {
  /** `length` bytes of INIC memory from `address`, valid during the call. */
  frame(port: MacPort, direction: 'in' | 'out', memory: Uint8Array, address: number, length: number): void
}

/**
 * Closed from the start of a poll until what it transmitted and delivered has left INIC memory: the firmware gives receive
 * buffers back while other descriptors still point into them (abi/rings.ts: transmit, deliver, fetch, receive).
 */
export interface ReceiveGate {
  closed: boolean
}

/**
 * MAC port: moves frames between a cable and the receive and transmit rings in INIC memory (abi/rings.ts). A frame from the cable
 * goes straight into the next receive buffer, or through a FIFO where the gate is closed.
 *
 * Filter: unicast to the port's own address, broadcast, every multicast; with PROMISCUOUS everything.
 */
export class MacPort implements Port {
  readonly name: string
  /** Six bytes. */
  readonly address: Uint8Array
  /** False while the board is off or stopped: frames are dropped and counted. */
  receiving = false
  watcher: FrameWatcher | null = null
  rxFrames = 0
  rxBytes = 0
  rxDropped = 0
  rxFiltered = 0
  txFrames = 0
  txBytes = 0
  txRefused = 0

  readonly #irq: InterruptController
  readonly #irqBit: number
  readonly #fault: FaultLine
  readonly #gate: ReceiveGate
  /** Word index of the register block. */
  readonly #block: number
  readonly #addressLow: number
  readonly #addressHigh: number
  #memory: InicMemory | null = null
  #words: Uint32Array = new Uint32Array(0)
  /** The register block alone. */
  #registers: Uint32Array = new Uint32Array(0)
  #outlet: FrameSink = NOWHERE
  // What the last frame came from, and the card whose memory that is; null: something else's.
  #source: Uint8Array | null = null
  #sender: InicMemory | null = null
  #carrier = false
  /** Counters or carrier have changed since they were shown. */
  #stale = true
  #promiscuous = false
  readonly #rx: DescriptorRing
  readonly #tx: DescriptorRing
  // Made when first needed. Positions run freely.
  #fifo: Uint8Array | null = null
  readonly #fifoLengths = new Uint16Array(FIFO_FRAMES)
  #fifoHead = 0
  #fifoTail = 0

  constructor(
    name: string,
    port: number,
    address: Uint8Array,
    irq: InterruptController,
    gate: ReceiveGate,
    fault: FaultLine,
  ) {
    this.name = name
    this.address = address
    this.#irq = irq
    this.#irqBit = IRQ_MAC0 << port
    this.#fault = fault
    this.#gate = gate
    this.#block = (REGISTER_BASE + MAC_BLOCK + port * MAC_STRIDE) >>> 2
    this.#addressHigh = (address[0] << 8) | address[1]
    this.#addressLow = ((address[2] << 24) | (address[3] << 16) | (address[4] << 8) | address[5]) >>> 0
    this.#rx = new DescriptorRing(
      `MAC ${port} receive`,
      this.#block + (MAC_RX_BASE >>> 2),
      this.#block + (MAC_RX_ENTRIES >>> 2),
      fault,
    )
    this.#tx = new DescriptorRing(
      `MAC ${port} transmit`,
      this.#block + (MAC_TX_BASE >>> 2),
      this.#block + (MAC_TX_ENTRIES >>> 2),
      fault,
    )
  }

  powerOn(memory: InicMemory): void {
    this.#memory = memory
    this.#words = memory.words
    this.#registers = memory.words.subarray(this.#block, this.#block + (MAC_STRIDE >>> 2))
    this.#rx.powerOn(memory)
    this.#tx.powerOn(memory)
    this.#promiscuous = false
    this.receiving = true
    this.#fifoHead = this.#fifoTail = 0
    this.rxFrames = this.rxBytes = this.rxDropped = this.rxFiltered = 0
    this.txFrames = this.txBytes = this.txRefused = 0
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(up: boolean): void {
    if (up === this.#carrier) return
    this.#carrier = up
    this.#stale = true
    if (this.receiving) this.#irq.raise(IRQ_LINK)
  }

  /** Before a poll, if the firmware may have changed them: every register that it reads. */
  show(): void {
    const registers = this.#registers
    registers[MAC_ADDRESS_LOW >>> 2] = this.#addressLow
    registers[MAC_ADDRESS_HIGH >>> 2] = this.#addressHigh
    this.#stale = true
    this.showNews()
  }

  /** Before any poll: what changed since the last one. */
  showNews(): void {
    if (this.#stale) this.#showCounters()
  }

  #showCounters(): void {
    this.#stale = false
    const registers = this.#registers
    registers[MAC_LINK >>> 2] = this.#carrier ? 1 : 0
    registers[MAC_RX_FRAMES >>> 2] = this.rxFrames
    registers[MAC_RX_DROPPED >>> 2] = this.rxDropped
    registers[MAC_TX_FRAMES >>> 2] = this.txFrames
    registers[MAC_TX_REFUSED >>> 2] = this.txRefused
  }

  /** After a poll. */
  settle(): void {
    this.#promiscuous = this.#registers[MAC_PROMISCUOUS >>> 2] !== 0
    this.#rx.settle()
    this.#tx.settle()
  }

  /** Sends what the firmware put into the transmit ring: one round of the ring at most. */
  transmit(nowNs: number): void {
    // Most ports have nothing to send: to see that is small enough to stand where it is called.
    if (this.#tx.entries > 0 && this.#words[this.#tx.at + 3] === OWNER_DEVICE) this.#send(nowNs)
  }

  #send(nowNs: number): void {
    const ring = this.#tx
    const words = this.#words
    const memory = this.#memory!
    for (let left = ring.entries; left > 0; left--) {
      const at = ring.at
      if (words[at + 3] !== OWNER_DEVICE) return
      this.#stale = true
      const address = words[at]
      const length = words[at + 1]
      if (length < MAC_MINIMUM_FRAME || length > MAC_MAXIMUM_FRAME || !memory.holds(address, length)) {
        this.txRefused++
      } else {
        this.txFrames++
        this.txBytes += length
        this.watcher?.frame(this, 'out', memory.bytes, address, length)
        this.#outlet.frame(memory.bytes, address, length, nowNs)
      }
      words[at + 3] = OWNER_FIRMWARE
      memory.wrote((at + 3) << 2, 4)
      ring.advance()
    }
  }

  frame(source: Uint8Array, offset: number, length: number, _nowNs: number): void {
    if (this.#rx.entries === 0 || length < MAC_MINIMUM_FRAME || !this.#accepts(source, offset)) {
      this.rxFiltered++
      return
    }
    this.#stale = true
    if (!this.receiving || length > MAC_MAXIMUM_FRAME) this.rxDropped++
    else if (this.#gate.closed) this.#queue(source, offset, length)
    else this.#store(source, offset, length)
  }

  /** Once the gate is open: stores the frames that came while it was closed. */
  receive(): void {
    if (this.#fifoTail !== this.#fifoHead) this.#drain()
  }

  #drain(): void {
    const fifo = this.#fifo
    while (this.#fifoTail !== this.#fifoHead) {
      const slot = this.#fifoTail++ & (FIFO_FRAMES - 1)
      this.#store(fifo!, slot * FIFO_SLOT_BYTES, this.#fifoLengths[slot])
    }
  }

  statistics(): MacStatistics {
    const { rxFrames, rxBytes, rxDropped, rxFiltered, txFrames, txBytes, txRefused } = this
    return { rxFrames, rxBytes, rxDropped, rxFiltered, txFrames, txBytes, txRefused }
  }

  #queue(source: Uint8Array, offset: number, length: number): void {
    if (this.#fifoHead - this.#fifoTail === FIFO_FRAMES) {
      this.rxDropped++
      return
    }
    this.#fifo ??= new Uint8Array(FIFO_FRAMES * FIFO_SLOT_BYTES)
    const slot = this.#fifoHead++ & (FIFO_FRAMES - 1)
    this.#fifo.set(source.subarray(offset, offset + length), slot * FIFO_SLOT_BYTES)
    this.#fifoLengths[slot] = length
    // Nothing runs before the gate opens, but then the board must look.
    this.#irq.raise(this.#irqBit)
  }

  /** Puts a frame into the next receive buffer. */
  #store(source: Uint8Array, offset: number, length: number): void {
    const ring = this.#rx
    const words = this.#words
    const at = ring.at
    if (ring.entries === 0 || words[at + 3] !== OWNER_DEVICE || length > words[at + 1]) {
      this.rxDropped++
      return
    }
    const address = words[at]
    const memory = this.#memory!
    if (!memory.holds(address, length)) {
      this.#fault(`${this.name}: a receive descriptor names a buffer of ${words[at + 1]} bytes at ${hex(address)}`)
      return
    }
    if (source !== this.#source) {
      this.#source = source
      this.#sender = InicMemory.of(source)
    }
    if (this.#sender === null) memory.bytes.set(source.subarray(offset, offset + length), address)
    else copyBytes(this.#sender, offset, memory, address, length)
    words[at + 1] = length
    words[at + 2] = 0
    words[at + 3] = OWNER_FIRMWARE
    memory.wrote(address, length)
    memory.wrote((at + 1) << 2, 12)
    ring.advance()
    this.rxFrames++
    this.rxBytes += length
    this.watcher?.frame(this, 'in', memory.bytes, address, length)
    this.#irq.raise(this.#irqBit)
  }

  #accepts(frame: Uint8Array, offset: number): boolean {
    if (this.#promiscuous || (frame[offset] & 1) !== 0) return true
    const own = this.address
    // The last byte first: it differs most often.
    return (
      frame[offset + 5] === own[5] &&
      frame[offset + 4] === own[4] &&
      frame[offset + 3] === own[3] &&
      frame[offset + 2] === own[2] &&
      frame[offset + 1] === own[1] &&
      frame[offset] === own[0]
    )
  }
}
