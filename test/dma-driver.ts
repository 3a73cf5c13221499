/** A driver for tests: lays virtqueues out in RAM and does what it is told, lawful or not. */
import type { Bus } from '../abi/bus.ts'
import {
  BUS_QUEUE_AVAIL,
  BUS_QUEUE_BUFFER_BYTES,
  BUS_QUEUE_DESC,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_ERROR,
  BUS_QUEUE_NOTIFY,
  BUS_QUEUE_SIZE,
  BUS_QUEUE_STATE,
  BUS_QUEUE_STRIDE,
  BUS_QUEUE_USED,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../abi/virtio.ts'

export interface Segment {
  address: number
  length: number
}

/** Driver side of one queue. Descriptors are used one after the other and never given back: tests are short. */
export class TestQueue {
  readonly bus: Bus
  readonly index: number
  readonly size: number
  readonly desc: number
  readonly avail: number
  readonly used: number
  readonly bufferBytes: number
  readonly view: DataView
  nextDescriptor = 0
  usedSeen = 0
  #availIdx = 0

  /** Takes 32 KiB of RAM from `base`. */
  constructor(bus: Bus, index: number, base: number, size = 16, bufferBytes = 256) {
    this.bus = bus
    this.index = index
    this.size = size
    this.desc = base
    this.avail = base + 16 * size
    this.used = (this.avail + 6 + 2 * size + 3) & ~3
    this.bufferBytes = bufferBytes
    this.view = new DataView(bus.ram.buffer)
  }

  write(register: number, value: number): void {
    this.bus.write(this.index * BUS_QUEUE_STRIDE + register, value)
  }

  read(register: number): number {
    return this.bus.read(this.index * BUS_QUEUE_STRIDE + register)
  }

  enable(): void {
    this.write(BUS_QUEUE_DESC, this.desc)
    this.write(BUS_QUEUE_AVAIL, this.avail)
    this.write(BUS_QUEUE_USED, this.used)
    this.write(BUS_QUEUE_SIZE, this.size)
    this.write(BUS_QUEUE_BUFFER_BYTES, this.bufferBytes)
    this.write(BUS_QUEUE_ENABLE, 1)
  }

  get state(): number {
    return this.read(BUS_QUEUE_STATE)
  }

  get error(): number {
    return this.read(BUS_QUEUE_ERROR)
  }

  get usedFlags(): number {
    return this.view.getUint16(this.used, true)
  }

  get usedIdx(): number {
    return this.view.getUint16(this.used + 2, true)
  }

  get availEvent(): number {
    return this.view.getUint16(this.used + 4 + 8 * this.size, true)
  }

  set availFlags(flags: number) {
    this.view.setUint16(this.avail, flags, true)
  }

  set usedEvent(index: number) {
    this.view.setUint16(this.avail + 4 + 2 * this.size, index, true)
  }

  setDescriptor(
    slot: number,
    address: number | bigint,
    length: number,
    flags: number,
    next = 0,
    table = this.desc,
  ): void {
    this.view.setBigUint64(table + 16 * slot, BigInt(address), true)
    this.view.setUint32(table + 16 * slot + 8, length, true)
    this.view.setUint16(table + 16 * slot + 12, flags, true)
    this.view.setUint16(table + 16 * slot + 14, next, true)
  }

  /** Makes the chain that begins with descriptor `head` available; the doorbell is rung by `kick`. */
  offer(head: number): void {
    this.view.setUint16(this.avail + 4 + 2 * (this.#availIdx & (this.size - 1)), head, true)
    this.#availIdx = (this.#availIdx + 1) & 0xffff
    this.view.setUint16(this.avail + 2, this.#availIdx, true)
  }

  setAvailIdx(index: number): void {
    this.view.setUint16(this.avail + 2, index, true)
  }

  /** Makes a chain of `segments` available and returns its head. */
  add(segments: Segment[], writable: boolean): number {
    const head = this.nextDescriptor & (this.size - 1)
    segments.forEach(({ address, length }, n) => {
      const slot = this.nextDescriptor++ & (this.size - 1)
      const flags = (writable ? VIRTQ_DESC_F_WRITE : 0) | (n < segments.length - 1 ? VIRTQ_DESC_F_NEXT : 0)
      this.setDescriptor(slot, address, length, flags, (slot + 1) & (this.size - 1))
    })
    this.offer(head)
    return head
  }

  kick(): void {
    this.write(BUS_QUEUE_NOTIFY, 0)
  }

  /** The used elements that are new. */
  takeUsed(): { id: number; length: number }[] {
    const taken: { id: number; length: number }[] = []
    for (; this.usedSeen !== this.usedIdx; this.usedSeen = (this.usedSeen + 1) & 0xffff) {
      const at = this.used + 4 + 8 * (this.usedSeen & (this.size - 1))
      taken.push({ id: this.view.getUint32(at, true), length: this.view.getUint32(at + 4, true) })
    }
    return taken
  }
}
