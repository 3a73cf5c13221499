import {
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from '../../abi/virtio.ts'
import type { QueuePlace } from './layout.ts'
import type { Ram } from './ram.ts'

/** The card, or this driver, broke a rule of a queue: nothing that comes through the queue set can be trusted any more. */
export class QueueFault extends Error {
  override readonly name = 'QueueFault'
  readonly code = 'ERR_INIC_QUEUE'
}

const DESC_WORDS = VIRTQ_DESC_BYTES / 4
const USED_ELEM_WORDS = VIRTQ_USED_ELEM_BYTES / 4

/**
 * Driver side of one split virtqueue (virtio 1.2 §2.7) with event index suppression (§2.7.7, §2.7.10). A chain is always one
 * descriptor, because our records lie in one piece: a longer chain, or an indirect table, would only cost the device another fetch.
 *
 * Where RAM is shared with the card's thread, the indices that both sides touch go through Atomics; on one thread plain loads and stores do,
 * which cost a tenth. What the device writes is read once and checked: a descriptor that is not in flight, or an index that ran ahead, is a QueueFault.
 */
export class Virtqueue {
  readonly name: string
  /** Entries; a power of two. */
  readonly size: number
  /** Chains that the device has and has not given back. */
  inFlight = 0
  /** Bytes that the device says it wrote into the chain that `peek` shows. */
  usedBytes = 0

  readonly #halves: Uint16Array
  readonly #words: Uint32Array
  /** The card is on another thread. */
  readonly #shared: boolean
  readonly #mask: number
  // Word and half-word indices into RAM.
  readonly #table: number
  readonly #availIdx: number
  readonly #availRing: number
  readonly #usedEvent: number
  readonly #usedIdx: number
  readonly #usedRing: number
  readonly #availEvent: number
  /** 1 = the device has this descriptor. */
  readonly #given: Uint8Array
  // Free-running 16-bit positions.
  #next = 0
  #published = 0
  #lastUsed = 0
  #seenUsed = 0
  /** Descriptor that `peek` found, until `take`. */
  #head = -1

  constructor(name: string, ram: Ram, place: QueuePlace) {
    this.name = name
    this.size = place.size
    this.#mask = place.size - 1
    this.#halves = ram.halves
    this.#words = ram.words
    this.#shared = ram.halves.buffer instanceof SharedArrayBuffer
    this.#table = place.desc >>> 2
    this.#availIdx = (place.avail + VIRTQ_AVAIL_IDX) >>> 1
    this.#availRing = (place.avail + VIRTQ_AVAIL_RING) >>> 1
    this.#usedEvent = this.#availRing + place.size
    this.#usedIdx = (place.used + VIRTQ_USED_IDX) >>> 1
    this.#usedRing = (place.used + VIRTQ_USED_RING) >>> 2
    this.#availEvent = (place.used + VIRTQ_USED_RING + VIRTQ_USED_ELEM_BYTES * place.size) >>> 1
    this.#given = new Uint8Array(place.size)
  }

  /** Empties the queue for a new life: rings zeroed, all descriptors with the driver. The device must have disabled it. */
  reset(): void {
    this.#words.fill(0, this.#table, this.#table + this.size * DESC_WORDS)
    this.#halves.fill(0, this.#availIdx - 1, this.#usedEvent + 1)
    this.#halves.fill(0, this.#usedIdx - 1, this.#availEvent + 1)
    this.#given.fill(0)
    this.inFlight = 0
    this.#next = this.#published = this.#lastUsed = this.#seenUsed = 0
    this.#head = -1
  }

  /** Fills descriptor `id` (§2.7.5): `length` bytes at `address`. `flags` is 0 or VIRTQ_DESC_F_WRITE. */
  describe(id: number, address: number, length: number, flags: number): void {
    const at = this.#table + id * DESC_WORDS
    this.#words[at] = address
    this.#words[at + 2] = length
    this.#words[at + 3] = flags
  }

  /** Puts descriptor `id` into the available ring (§2.7.13.2); the device sees it at the next `publish`. */
  offer(id: number): void {
    this.#given[id] = 1
    this.inFlight++
    this.#halves[this.#availRing + (this.#next & this.#mask)] = id
    this.#next = (this.#next + 1) & 0xffff
  }

  /** Shows the device what was offered (§2.7.13.3); true if it wants a doorbell for it (§2.7.10). */
  publish(): boolean {
    const next = this.#next
    const before = this.#published
    if (next === before) return false
    this.#published = next
    // Sequentially consistent: the store is seen before the load below is done, as §2.7.13.4.1 asks.
    this.#store(this.#availIdx, next)
    const event = this.#load(this.#availEvent)
    return ((next - event - 1) & 0xffff) < ((next - before) & 0xffff)
  }

  /**
   * The next descriptor that the device gave back, and `usedBytes`; -1 if there is none. Stays until `take`. Throws QueueFault for an
   * index that ran ahead or a descriptor that the device did not have.
   */
  peek(): number {
    if (this.#head >= 0) return this.#head
    if (this.#lastUsed === this.#seenUsed && !this.#look()) return -1
    const at = this.#usedRing + (this.#lastUsed & this.#mask) * USED_ELEM_WORDS
    const id = this.#words[at]!
    if (id >= this.size || this.#given[id] === 0) {
      throw new QueueFault(`The card gave back descriptor ${id} of the ${this.name} queue, which it did not have.`)
    }
    this.usedBytes = this.#words[at + 1]!
    this.#head = id
    return id
  }

  /** Takes back the descriptor that `peek` showed. */
  take(): void {
    this.#given[this.#head] = 0
    this.#head = -1
    this.inFlight--
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff
  }

  /** Asks for an interrupt once the device has given back `count` more than `peek` has seen (§2.7.7); true if it has done so already. */
  requestInterrupt(count = 1): boolean {
    this.#store(this.#usedEvent, (this.#seenUsed + count - 1) & 0xffff)
    return ((this.#load(this.#usedIdx) - this.#seenUsed) & 0xffff) >= count
  }

  /** Asks for no interrupt: the position asked for is a whole turn of the index away. */
  declineInterrupt(): void {
    this.#store(this.#usedEvent, (this.#seenUsed - 1) & 0xffff)
  }

  /** Half-word that the device may be writing. */
  #load(at: number): number {
    return this.#shared ? Atomics.load(this.#halves, at) : this.#halves[at]!
  }

  /** Stores a half-word that the device may be reading. */
  #store(at: number, value: number): void {
    if (this.#shared) Atomics.store(this.#halves, at, value)
    else this.#halves[at] = value
  }

  #look(): boolean {
    const idx = this.#load(this.#usedIdx)
    const grown = (idx - this.#lastUsed) & 0xffff
    if (grown === 0) return false
    if (grown > this.inFlight) {
      throw new QueueFault(
        `The card gave back ${grown} descriptors of the ${this.name} queue, but it had ${this.inFlight}.`,
      )
    }
    this.#seenUsed = idx
    return true
  }
}

/** True if the device has given back all that the ring at `place` ever offered: for those who look at a queue after its driver has gone. */
export function queueIsIdle(ram: Ram, place: QueuePlace): boolean {
  const available = Atomics.load(ram.halves, (place.avail + VIRTQ_AVAIL_IDX) >>> 1)
  return available === Atomics.load(ram.halves, (place.used + VIRTQ_USED_IDX) >>> 1)
}
