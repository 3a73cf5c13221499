/** What a router holds: frames in the slots of one slab, each in one list at most. No object is made per frame. */
const SLOT_BYTES = 2048
const NOBODY = -1

/** The longest frame that a slot takes, bytes. */
export const LONGEST_FRAME = SLOT_BYTES

export class FramePool {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** Bytes of the frame in each slot. */
  readonly length: Uint16Array
  /** The port that it came in by. */
  readonly port: Uint8Array
  /** When it is to be served, nanoseconds. */
  readonly dueNs: Float64Array
  /** What follows it in its list. */
  readonly next: Int32Array
  #free: number

  constructor(slots: number) {
    this.bytes = new Uint8Array(slots * SLOT_BYTES)
    this.view = new DataView(this.bytes.buffer)
    this.length = new Uint16Array(slots)
    this.port = new Uint8Array(slots)
    this.dueNs = new Float64Array(slots)
    this.next = Int32Array.from({ length: slots }, (_, slot) => (slot + 1 < slots ? slot + 1 : NOBODY))
    this.#free = 0
  }

  /** A free slot, or -1. */
  take(): number {
    const slot = this.#free
    if (slot >= 0) this.#free = this.next[slot]
    return slot
  }

  give(slot: number): void {
    this.next[slot] = this.#free
    this.#free = slot
  }

  /** Where the frame of a slot begins in `bytes`. */
  at(slot: number): number {
    return slot * SLOT_BYTES
  }
}

/** A list of slots, first in, first out. */
export class FrameQueue {
  count = 0
  /** The first slot, or -1. */
  first = NOBODY
  #last = NOBODY

  push(pool: FramePool, slot: number): void {
    pool.next[slot] = NOBODY
    if (this.#last < 0) this.first = slot
    else pool.next[this.#last] = slot
    this.#last = slot
    this.count++
  }

  /** Takes the first slot out; -1 if there is none. */
  shift(pool: FramePool): number {
    const slot = this.first
    if (slot < 0) return NOBODY
    this.first = pool.next[slot]
    if (this.first < 0) this.#last = NOBODY
    this.count--
    return slot
  }
}
