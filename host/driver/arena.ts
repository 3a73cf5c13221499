/**
 * Room for records of any length, handed out and taken back first in, first out, in one stretch of RAM: a ring of bytes in which a record
 * never wraps. While few records are out it starts over at the front, so that a quiet socket always uses the same, cached, lines.
 *
 *   base           tail             head            base + bytes
 *   ├── free ──────┼── in use ──────┼── free ───────┤
 */
export class Arena {
  readonly #base: number
  readonly #end: number
  /** Where the next record goes, and where the oldest begins. */
  #head: number
  #tail: number
  #records = 0
  /** Records in the order they were handed out, a ring of their ids. */
  readonly #order: Uint16Array
  #first = 0
  /** Address behind each record, by id. */
  readonly #ends: Uint32Array
  /** 1 = taken back, but an older one is still out. */
  readonly #done: Uint8Array

  /** `maximumRecords` is a power of two; ids are below it. */
  constructor(base: number, bytes: number, maximumRecords: number) {
    this.#base = this.#head = this.#tail = base
    this.#end = base + bytes
    this.#order = new Uint16Array(maximumRecords)
    this.#ends = new Uint32Array(maximumRecords)
    this.#done = new Uint8Array(maximumRecords)
  }

  reset(): void {
    this.#head = this.#tail = this.#base
    this.#records = this.#first = 0
  }

  /** Address, a multiple of 16, of `bytes` for record `id`; -1 if there is no room. `id` must not be out already. */
  allocate(id: number, bytes: number): number {
    let at = this.#head
    if (this.#records > 0 && at <= this.#tail) {
      if (this.#tail - at < bytes) return -1
    } else if (this.#end - at < bytes) {
      if (this.#tail - this.#base < bytes) return -1
      at = this.#base
    }
    const end = (at + bytes + 15) & ~15
    this.#order[(this.#first + this.#records) & (this.#order.length - 1)] = id
    this.#records++
    this.#ends[id] = end
    this.#done[id] = 0
    this.#head = end
    return at
  }

  /** Takes record `id` back. */
  release(id: number): void {
    this.#done[id] = 1
    const mask = this.#order.length - 1
    while (this.#records > 0) {
      const oldest = this.#order[this.#first & mask]!
      if (this.#done[oldest] === 0) return
      this.#tail = this.#ends[oldest]!
      this.#first = (this.#first + 1) & mask
      this.#records--
    }
    this.#head = this.#tail = this.#base
  }
}
