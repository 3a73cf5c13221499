import {
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from '../../abi/virtio.ts'

/** Device side of a virtqueue, as simple as can be: no checks, chains of one descriptor, event index always on. */
export class FakeQueue {
  enabled = false
  state = 0
  error = 0
  desc = 0
  avail = 0
  used = 0
  size = 0
  bufferBytes = 0
  /** Of the chain that `next` took. */
  address = 0
  length = 0
  readonly #halves: Uint16Array
  readonly #words: Uint32Array
  #lastAvail = 0
  #usedIdx = 0
  #published = 0

  constructor(ram: Uint8Array) {
    this.#halves = new Uint16Array(ram.buffer)
    this.#words = new Uint32Array(ram.buffer)
  }

  enable(): void {
    this.enabled = true
    this.state = 1
    this.error = 0
    this.#lastAvail = this.#usedIdx = this.#published = 0
  }

  disable(): void {
    this.enabled = false
    this.state = 0
  }

  /** Chains that wait. */
  get available(): number {
    if (!this.enabled) return 0
    return (Atomics.load(this.#halves, (this.avail + VIRTQ_AVAIL_IDX) >> 1) - this.#lastAvail) & 0xffff
  }

  /** Takes the next chain and returns its descriptor, or -1. */
  next(): number {
    if (this.available === 0) return -1
    const id = this.#halves[((this.avail + VIRTQ_AVAIL_RING) >> 1) + (this.#lastAvail & (this.size - 1))]!
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff
    const at = (this.desc + id * VIRTQ_DESC_BYTES) >> 2
    this.address = this.#words[at]!
    this.length = this.#words[at + 2]!
    return id
  }

  give(id: number, bytes: number): void {
    const at = (this.used + VIRTQ_USED_RING + (this.#usedIdx & (this.size - 1)) * VIRTQ_USED_ELEM_BYTES) >> 2
    this.#words[at] = id
    this.#words[at + 1] = bytes
    this.#usedIdx = (this.#usedIdx + 1) & 0xffff
  }

  /** Shows what was given; true if the driver wants an interrupt. */
  publish(): boolean {
    if (!this.enabled || this.#usedIdx === this.#published) return false
    const before = this.#published
    this.#published = this.#usedIdx
    Atomics.store(this.#halves, (this.used + VIRTQ_USED_IDX) >> 1, this.#usedIdx)
    const event = Atomics.load(this.#halves, ((this.avail + VIRTQ_AVAIL_RING) >> 1) + this.size)
    return ((this.#usedIdx - event - 1) & 0xffff) < ((this.#usedIdx - before) & 0xffff)
  }

  /** Asks for a doorbell at the next chain; true if one is there. */
  requestDoorbell(): boolean {
    if (!this.enabled) return false
    const at = (this.used + VIRTQ_USED_RING + this.size * VIRTQ_USED_ELEM_BYTES) >> 1
    Atomics.store(this.#halves, at, this.#lastAvail)
    return this.available > 0
  }
}
