import { COMMAND_HEADER_BYTES, EVENT_BYTES, MAXIMUM_DATA_BYTES } from '../../abi/messages.ts'
import { QUEUE_STATE_BROKEN, QUEUE_STATE_DISABLED, QUEUE_STATE_ENABLED } from '../../abi/rings.ts'
import {
  QUEUE_ERROR_ADDRESS,
  QUEUE_ERROR_CHAIN,
  QUEUE_ERROR_INDEX,
  QUEUE_ERROR_INDIRECT,
  QUEUE_ERROR_LAYOUT,
  QUEUE_ERROR_NONE,
  QUEUE_ERROR_SHORT,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_FLAGS,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_MAXIMUM_CHAIN,
  VIRTQ_MAXIMUM_SIZE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQ_USED_FLAGS,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from '../../abi/virtio.ts'

/** Most bytes of one device-readable chain: a command header and its payload. */
export const MAXIMUM_READABLE_BYTES = COMMAND_HEADER_BYTES + MAXIMUM_DATA_BYTES

/**
 * Main-board RAM of one process, as the DMA engine sees it. Where another thread shares it, what both sides read and write at
 * any time (indices, flags) goes by atomics; V8 calls out of line for those (some 30 ns), so private RAM does without.
 */
export class HostRam {
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
  /** Bytes. */
  readonly length: number
  readonly #shared: boolean

  constructor(buffer: ArrayBufferLike) {
    this.#shared = buffer instanceof SharedArrayBuffer
    this.bytes = new Uint8Array(buffer)
    this.halves = new Uint16Array(buffer)
    this.words = new Uint32Array(buffer)
    this.length = buffer.byteLength
  }

  /** Loads a half-word that the driver may be storing. */
  load(half: number): number {
    return this.#shared ? Atomics.load(this.halves, half) : this.halves[half]
  }

  /** Stores a half-word that the driver may be loading, after everything stored before. */
  store(half: number, value: number): void {
    if (this.#shared) Atomics.store(this.halves, half, value)
    else this.halves[half] = value
  }
}

/** One descriptor chain, copied out of RAM and checked, so that the driver cannot change it any more. */
export class Chain {
  /** Index of its first descriptor: what goes into the used ring. */
  head = 0
  /** Descriptors. */
  count = 0
  /** Bytes. */
  total = 0
  readonly addresses: Uint32Array = new Uint32Array(VIRTQ_MAXIMUM_CHAIN)
  readonly lengths: Uint32Array = new Uint32Array(VIRTQ_MAXIMUM_CHAIN)
}

/** What the driver asks for when it enables a queue; addresses are offsets in its RAM. */
export interface QueueLayout {
  desc: number
  avail: number
  used: number
  /** Entries. */
  size: number
  /** Bytes writable in each chain, for queues that the device writes. */
  bufferBytes: number
  /** VIRTIO_F_*. */
  features: number
}

/**
 * Device side of one split virtqueue (virtio 1.2 §2.7). The driver is not trusted: everything read from RAM is read once and
 * checked, and a broken rule stops this queue alone, with a QUEUE_ERROR_* that says which rule.
 */
export class Virtqueue {
  /** QUEUE_STATE_*. */
  state: number = QUEUE_STATE_DISABLED
  /** QUEUE_ERROR_*. */
  error: number = QUEUE_ERROR_NONE
  /** Chains ever made available since the queue was enabled; 32 bits, free-running. */
  available = 0
  /** Entries. */
  size = 0
  bufferBytes = 0
  /** Set with each change of what the firmware is shown; the DMA engine takes it back. */
  changed = true
  /** True for queues whose chains the device writes. */
  readonly writable: boolean

  readonly #ram: HostRam
  readonly #onBreak: () => void
  readonly #halves: Uint16Array
  readonly #words: Uint32Array
  #mask = 0
  #indirect = false
  #eventIdx = false
  // Word indices.
  #table = 0
  #usedRing = 0
  // Half-word indices.
  #availFlags = 0
  #availIdx = 0
  #availRing = 0
  #usedEvent = 0
  #usedFlags = 0
  #usedIdx = 0
  #availEvent = 0
  // Free-running 16-bit positions in the rings.
  #seen = 0
  #taken = 0
  #used = 0
  #published = 0
  /** True while VIRTQ_USED_F_NO_NOTIFY is set. */
  #quiet = false

  /** `onBreak` is called each time the driver breaks the queue. */
  constructor(ram: HostRam, writable: boolean, onBreak: () => void) {
    this.#ram = ram
    this.#onBreak = onBreak
    this.#halves = ram.halves
    this.#words = ram.words
    this.writable = writable
  }

  /** Chains that the driver has made available and the device has not taken yet. */
  get free(): number {
    return (this.#seen - this.#taken) & 0xffff
  }

  /** Starts the queue; a layout that cannot be leaves it broken with QUEUE_ERROR_LAYOUT. */
  enable(layout: QueueLayout): void {
    const { desc, avail, used, size, bufferBytes, features } = layout
    const ramBytes = this.#ram.length
    this.changed = true
    this.error = QUEUE_ERROR_NONE
    this.available = 0
    this.#seen = this.#taken = this.#used = this.#published = 0
    this.#quiet = false
    const valid =
      size > 0 &&
      size <= VIRTQ_MAXIMUM_SIZE &&
      (size & (size - 1)) === 0 &&
      (desc & 15) === 0 &&
      (avail & 1) === 0 &&
      (used & 3) === 0 &&
      desc + size * VIRTQ_DESC_BYTES <= ramBytes &&
      avail + VIRTQ_AVAIL_RING + 2 * size + 2 <= ramBytes &&
      used + VIRTQ_USED_RING + VIRTQ_USED_ELEM_BYTES * size + 2 <= ramBytes &&
      // A record of the card must fit, or the queue could never move.
      (!this.writable || bufferBytes >= EVENT_BYTES)
    if (!valid) {
      this.break(QUEUE_ERROR_LAYOUT)
      return
    }
    this.state = QUEUE_STATE_ENABLED
    this.size = size
    this.bufferBytes = this.writable ? bufferBytes : 0
    this.#mask = size - 1
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0
    this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0
    this.#table = desc >>> 2
    this.#availFlags = (avail + VIRTQ_AVAIL_FLAGS) >>> 1
    this.#availIdx = (avail + VIRTQ_AVAIL_IDX) >>> 1
    this.#availRing = (avail + VIRTQ_AVAIL_RING) >>> 1
    this.#usedEvent = this.#availRing + size
    this.#usedFlags = (used + VIRTQ_USED_FLAGS) >>> 1
    this.#usedIdx = (used + VIRTQ_USED_IDX) >>> 1
    this.#usedRing = (used + VIRTQ_USED_RING) >>> 2
    this.#availEvent = (used + VIRTQ_USED_RING + VIRTQ_USED_ELEM_BYTES * size) >>> 1
  }

  /** Stops the queue and forgets it; RAM is not touched any more. */
  disable(): void {
    this.changed = true
    this.state = QUEUE_STATE_DISABLED
    this.error = QUEUE_ERROR_NONE
    this.size = 0
    this.bufferBytes = 0
    this.available = 0
    this.#seen = this.#taken = this.#used = this.#published = 0
  }

  /** Stops the queue because the driver broke a rule. */
  break(error: number): void {
    this.changed = true
    this.state = QUEUE_STATE_BROKEN
    this.error = error
    this.#seen = this.#taken
    this.#published = this.#used
    this.#onBreak()
  }

  /** Reads the available index (§2.7.13.3); true if the ring has grown. */
  look(): boolean {
    if (this.state !== QUEUE_STATE_ENABLED) return false
    const idx = this.#ram.load(this.#availIdx)
    const grown = (idx - this.#seen) & 0xffff
    if (grown === 0) return false
    if (grown + this.free > this.size) {
      this.break(QUEUE_ERROR_INDEX)
      return false
    }
    this.#seen = idx
    this.changed = true
    this.available = (this.available + grown) >>> 0
    return true
  }

  /**
   * Copies the next available chain into `chain`, checked, without taking it. False if there is none that was seen, or if it broke
   * the queue.
   */
  begin(chain: Chain): boolean {
    if (this.#seen === this.#taken) return false
    const head = this.#halves[this.#availRing + (this.#taken & this.#mask)]
    const error = head >= this.size ? QUEUE_ERROR_INDEX : this.#follow(chain, head)
    if (error === QUEUE_ERROR_NONE) return true
    this.break(error)
    return false
  }

  /** Takes the chain that `begin` showed. */
  take(): void {
    this.#taken = (this.#taken + 1) & 0xffff
  }

  /** Gives a chain back in the used ring (§2.7.8); the driver sees it at `publish`. */
  complete(head: number, writtenBytes: number): void {
    if (this.state !== QUEUE_STATE_ENABLED) return
    const at = this.#usedRing + (this.#used & this.#mask) * (VIRTQ_USED_ELEM_BYTES / 4)
    this.#words[at] = head
    this.#words[at + 1] = writtenBytes
    this.#used = (this.#used + 1) & 0xffff
  }

  /** Shows the driver what was completed; true if it wants an interrupt for it (§2.7.7). */
  publish(): boolean {
    const used = this.#used
    const before = this.#published
    if (used === before) return false
    this.#published = used
    this.#ram.store(this.#usedIdx, used)
    if (!this.#eventIdx) return (this.#ram.load(this.#availFlags) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0
    const event = this.#ram.load(this.#usedEvent)
    return ((used - event - 1) & 0xffff) < ((used - before) & 0xffff)
  }

  /** Asks for a doorbell at the next available chain (§2.7.10); true if one came while asking. */
  requestDoorbell(): boolean {
    if (this.state !== QUEUE_STATE_ENABLED) return false
    if (this.#eventIdx) this.#ram.store(this.#availEvent, this.#seen)
    else if (this.#quiet) {
      this.#quiet = false
      this.#ram.store(this.#usedFlags, 0)
    }
    return this.look()
  }

  /** Tells the driver that no doorbell is needed for now: the device will look by itself. With EVENT_IDX the index says so. */
  declineDoorbell(): void {
    if (this.#eventIdx || this.#quiet || this.state !== QUEUE_STATE_ENABLED) return
    this.#quiet = true
    this.#ram.store(this.#usedFlags, VIRTQ_USED_F_NO_NOTIFY)
  }

  /** Walks a chain from descriptor `head`, through at most one indirect table (§2.7.5); returns QUEUE_ERROR_*. */
  #follow(chain: Chain, head: number): number {
    const words = this.#words
    const ramBytes = this.#ram.length
    const direction = this.writable ? VIRTQ_DESC_F_WRITE : 0
    let table = this.#table
    let entries = this.size
    let inIndirect = false
    let index = head
    let count = 0
    let total = 0
    for (;;) {
      const at = table + index * (VIRTQ_DESC_BYTES / 4)
      const address = words[at]
      const addressHigh = words[at + 1]
      const length = words[at + 2]
      const flags = words[at + 3] & 0xffff
      const next = words[at + 3] >>> 16
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        // §2.7.5.3.1: never nested, never followed by another descriptor.
        if (inIndirect || !this.#indirect || (flags & VIRTQ_DESC_F_NEXT) !== 0) return QUEUE_ERROR_INDIRECT
        if (
          addressHigh !== 0 ||
          (address & 15) !== 0 ||
          length === 0 ||
          (length & 15) !== 0 ||
          address + length > ramBytes
        )
          return QUEUE_ERROR_INDIRECT
        inIndirect = true
        table = address >>> 2
        entries = length / VIRTQ_DESC_BYTES
        index = 0
        continue
      }
      if ((flags & VIRTQ_DESC_F_WRITE) !== direction) return QUEUE_ERROR_CHAIN
      if (addressHigh !== 0 || address + length > ramBytes) return QUEUE_ERROR_ADDRESS
      chain.addresses[count] = address
      chain.lengths[count] = length
      count++
      total += length
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) break
      // A chain that loops ends here too.
      if (count === VIRTQ_MAXIMUM_CHAIN) return QUEUE_ERROR_CHAIN
      if (next >= entries) return inIndirect ? QUEUE_ERROR_INDIRECT : QUEUE_ERROR_CHAIN
      index = next
    }
    if (this.writable) {
      if (total < this.bufferBytes) return QUEUE_ERROR_SHORT
    } else {
      if (total < COMMAND_HEADER_BYTES) return QUEUE_ERROR_SHORT
      if (total > MAXIMUM_READABLE_BYTES) return QUEUE_ERROR_CHAIN
    }
    chain.head = head
    chain.count = count
    chain.total = total
    return QUEUE_ERROR_NONE
  }
}
