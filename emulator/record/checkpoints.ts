import { USED_PAGE_BYTES as PAGE_BYTES } from '../cpu/index.ts'

/** As `Cpu.usedPages` gives them. */
type PageRanges = Uint32Array

/** The state at one checkpoint, as the pages that the next one has otherwise. */
interface Checkpoint {
  readonly slice: number
  pages: Uint32Array
  /** Their contents, one after the other. */
  bytes: Uint8Array
}

const NONE = { pages: new Uint32Array(0), bytes: new Uint8Array(0) }

/**
 * INIC memory as it was at some slices. The newest is whole; each older one is what has to be put back to get there from the one after
 * it, so the oldest can be forgotten at no cost and the youngest are reached first.
 */
export class Checkpoints {
  readonly #list: Checkpoint[] = []
  readonly #newest: Buffer
  /** Pages of the newest that may be other than zero. */
  #used: PageRanges = new Uint32Array(0)
  #bytes = 0

  constructor(memoryBytes: number) {
    // Untouched pages of it cost nothing.
    this.#newest = Buffer.from(new ArrayBuffer(memoryBytes))
  }

  /** Bytes in use beside one copy of INIC memory. */
  get bytes(): number {
    return this.#bytes
  }

  get count(): number {
    return this.#list.length
  }

  /** Slice of the oldest one; Infinity if there is none. */
  get oldestSlice(): number {
    return this.#list[0]?.slice ?? Number.POSITIVE_INFINITY
  }

  /** Slice of the newest one; -1 if there is none. */
  get newestSlice(): number {
    return this.#list[this.#list.length - 1]?.slice ?? -1
  }

  /** Keeps `memory` as it is before `slice`, later than every one before. `used`: pages that may be other than zero. */
  take(slice: number, memory: Uint8Array, used: PageRanges): void {
    const last = this.#list[this.#list.length - 1]
    const newest = this.#newest
    const changed: number[] = []
    for (let n = 0; n < used.length; n += 2) {
      for (let at = used[n] * PAGE_BYTES; at < used[n + 1] * PAGE_BYTES; at += PAGE_BYTES)
        if (newest.compare(memory, at, at + PAGE_BYTES, at, at + PAGE_BYTES) !== 0) changed.push(at)
    }
    this.#used = used
    if (last !== undefined) {
      last.pages = Uint32Array.from(changed)
      last.bytes = new Uint8Array(changed.length * PAGE_BYTES)
      for (const [n, at] of changed.entries()) last.bytes.set(newest.subarray(at, at + PAGE_BYTES), n * PAGE_BYTES)
      this.#bytes += last.bytes.length
    }
    for (const at of changed) newest.set(memory.subarray(at, at + PAGE_BYTES), at)
    this.#list.push({ slice, ...NONE })
  }

  /** Forgets the oldest. */
  drop(): void {
    const first = this.#list.shift()
    this.#bytes -= first?.bytes.length ?? 0
  }

  /** The latest one that is not after `slice`, put into `memory`; its slice, or undefined if there is none. `used` as in `take`. */
  restore(slice: number, memory: Uint8Array, used: PageRanges): number | undefined {
    const found = this.before(slice)
    if (found === undefined) return undefined
    for (const ranges of [used, this.#used]) {
      for (let n = 0; n < ranges.length; n += 2) {
        const from = ranges[n] * PAGE_BYTES
        memory.set(this.#newest.subarray(from, ranges[n + 1] * PAGE_BYTES), from)
      }
    }
    for (let n = this.#list.length - 1; n >= 0; n--) {
      const { pages, bytes, slice: at } = this.#list[n]
      for (let page = 0; page < pages.length; page++)
        memory.set(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), pages[page])
      if (at === found) break
    }
    return found
  }

  /** Slice of the latest one that is not after `slice`. */
  before(slice: number): number | undefined {
    let found: number | undefined
    for (const checkpoint of this.#list) if (checkpoint.slice <= slice) found = checkpoint.slice
    return found
  }
}
