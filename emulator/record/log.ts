/**
 * What happened to the boards of a farm, slice by slice: enough to run every slice again.
 *
 *      0       4     5      6      8         16       20      24      28        32
 *      ├─BYTES─┼KIND─┼FLAGS─┼─LIFE─┼─TIME_NS─┼─SLICE──┼─IRQS──┼─FUEL──┼─COUNT───┼─ writes or frame ─┤
 *
 * BYTES counts the whole entry, a multiple of 8. A slice's writes are what devices stored since the slice before: COUNT times ADDRESS
 * (u32), LENGTH (u32) and the bytes, padded to 4. Entries lie in chunks, in order; none crosses a chunk.
 */
import { type CopyMemory, copyBytes } from '../devices/memory.ts'

/** The firmware ran: `reset` with FLAG_RESET, else `poll(IRQS)`. */
export const ENTRY_SLICE = 1
/** A frame passed a port before slice SLICE began (in), or after the one before ended (out): ADDRESS, LENGTH, PORT. */
export const ENTRY_FRAME = 2
/** Somebody with a debugger stored bytes in mid-slice SLICE, before its instruction number IRQS. */
export const ENTRY_EDIT = 3

export const FLAG_RESET = 1
/** A frame that came in. */
export const FLAG_IN = 2
/** The CPU stopped in this slice for good. */
export const FLAG_FAULT = 4
/** Entries of edits follow. */
export const FLAG_EDITED = 8

export const HEADER_BYTES = 32
const CHUNK_BYTES = 1 << 20
/** Longest entry: a card's whole memory would fit. */
const MAXIMUM_ENTRY_BYTES = 1 << 30

class Chunk implements CopyMemory {
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
  readonly doubles: Float64Array
  used = 0

  constructor(size: number) {
    const buffer = new ArrayBuffer(size)
    this.bytes = new Uint8Array(buffer)
    this.halves = new Uint16Array(buffer)
    this.words = new Uint32Array(buffer)
    this.doubles = new Float64Array(buffer)
  }

  get firstSlice(): number {
    return this.words[4]
  }
}

/** Takes chunks that are full, with `bytes.length` the part in use. */
export type ChunkSink = (bytes: Uint8Array) => void

export class SliceLog {
  #chunks: Chunk[] = []
  /** Chunks that were dropped before the first of #chunks. */
  #dropped = 0
  #bytes = 0
  /** The last slice's entry: its chunk, and the word index of its header. */
  #chunk: Chunk | null = null
  #last = 0
  /** Where its next write goes, bytes. */
  #fill = 0
  readonly #sink: ChunkSink | null

  /** @param sink takes chunks as they fill; the log then keeps none of them */
  constructor(sink: ChunkSink | null = null) {
    this.#sink = sink
  }

  /** Memory in use, bytes. */
  get bytes(): number {
    return this.#bytes
  }

  /** Begins a slice's entry with room for `writeBytes` of addresses, lengths and padded bytes; `write` fills it. */
  slice(life: number, slice: number, timeNs: number, irqs: number, flags: number, writeBytes: number): void {
    const chunk = this.#entry(ENTRY_SLICE, flags, life, slice, timeNs, writeBytes)
    this.#chunk = chunk
    this.#last = chunk.used >>> 2
    chunk.words[this.#last + 5] = irqs
    this.#fill = chunk.used + HEADER_BYTES
    chunk.used += entryBytes(writeBytes)
  }

  /** Adds one write to the entry that was begun. */
  write(memory: CopyMemory, address: number, length: number): void {
    const chunk = this.#chunk!
    const at = this.#fill >>> 2
    chunk.words[at] = address
    chunk.words[at + 1] = length
    copyBytes(memory, address, chunk, this.#fill + 8, length)
    chunk.words[this.#last + 7]++
    this.#fill += writeBytes(length)
  }

  /** The last slice has ended. */
  ended(fuel: number, faulted: boolean): void {
    const chunk = this.#chunk!
    chunk.words[this.#last + 6] = fuel
    if (faulted) chunk.bytes[(this.#last << 2) + 5] |= FLAG_FAULT
  }

  /** A frame at `address` of INIC memory. */
  frame(
    life: number,
    slice: number,
    timeNs: number,
    port: number,
    flags: number,
    address: number,
    length: number,
  ): void {
    const chunk = this.#entry(ENTRY_FRAME, flags, life, slice, timeNs, 12)
    const at = (chunk.used + HEADER_BYTES) >>> 2
    chunk.words[at] = address
    chunk.words[at + 1] = length
    chunk.words[at + 2] = port
    chunk.used += entryBytes(12)
  }

  /** Bytes stored within the last slice, before its instruction number `step`. */
  edit(life: number, slice: number, timeNs: number, step: number, address: number, bytes: Uint8Array): void {
    this.#chunk!.bytes[(this.#last << 2) + 5] |= FLAG_EDITED
    const chunk = this.#entry(ENTRY_EDIT, 0, life, slice, timeNs, writeBytes(bytes.length))
    const at = (chunk.used + HEADER_BYTES) >>> 2
    chunk.words[(chunk.used >>> 2) + 5] = step
    chunk.words[(chunk.used >>> 2) + 7] = 1
    chunk.words[at] = address
    chunk.words[at + 1] = bytes.length
    chunk.bytes.set(bytes, (at + 2) << 2)
    chunk.used += entryBytes(writeBytes(bytes.length))
  }

  /** Appends a chunk that a sink took elsewhere. @throws RangeError naming the byte, if it is none */
  append(bytes: Uint8Array): void {
    const chunk = new Chunk((bytes.length + 7) & ~7)
    chunk.bytes.set(bytes)
    chunk.used = bytes.length
    checkChunk(chunk)
    this.#chunks.push(chunk)
    this.#bytes += chunk.bytes.length
  }

  /** Every entry belongs to one of these lives, and stores within its memory. The slice after the last one. @throws RangeError */
  checkAgainst(lives: readonly { readonly memoryBytes: number }[]): number {
    let next = 0
    for (const cursor = this.from(0); cursor.next(); ) {
      const life = lives[cursor.life]
      if (life === undefined)
        throw new RangeError(`slice ${cursor.slice} belongs to power-on ${cursor.life}, which is not there`)
      cursor.check(life.memoryBytes)
      next = cursor.slice + 1
    }
    return next
  }

  /** Forgets whole chunks whose entries are all before `slice`. */
  dropBefore(slice: number): void {
    while (this.#chunks.length > 1 && this.#chunks[1].firstSlice <= slice) {
      this.#bytes -= this.#chunks[0].bytes.length
      this.#chunks.shift()
      this.#dropped++
    }
  }

  /** For cursors: a chunk by its number since the log began; undefined if there is none, or it was dropped. */
  chunk(number: number): Chunk | undefined {
    return this.#chunks[number - this.#dropped]
  }

  /** Hands what is not yet with the sink to it. */
  flush(): void {
    if (this.#sink === null) return
    for (const { bytes, used } of this.#chunks) if (used > 0) this.#sink(bytes.subarray(0, used))
    this.#chunks = []
    this.#bytes = 0
  }

  /** Reads from the first entry that belongs to `slice` or a later one. */
  from(slice: number): LogCursor {
    let [low, high] = [0, this.#chunks.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#chunks[middle].firstSlice < slice) low = middle + 1
      else high = middle
    }
    return new LogCursor(this, this.#dropped + Math.max(low - 1, 0), slice)
  }

  #entry(kind: number, flags: number, life: number, slice: number, timeNs: number, bodyBytes: number): Chunk {
    const bytes = entryBytes(bodyBytes)
    let chunk = this.#chunks[this.#chunks.length - 1]
    if (chunk === undefined || chunk.used + bytes > chunk.bytes.length) {
      this.flush()
      chunk = new Chunk(Math.max(CHUNK_BYTES, bytes))
      this.#chunks.push(chunk)
      this.#bytes += chunk.bytes.length
    }
    const at = chunk.used >>> 2
    chunk.words[at] = bytes
    chunk.bytes[chunk.used + 4] = kind
    chunk.bytes[chunk.used + 5] = flags
    chunk.halves[(chunk.used >>> 1) + 3] = life
    chunk.doubles[(chunk.used >>> 3) + 1] = timeNs
    chunk.words[at + 4] = slice
    chunk.words.fill(0, at + 5, at + 8)
    return chunk
  }
}

/** Goes through a log; its fields are those of the entry where it stands. */
export class LogCursor {
  kind = 0
  flags = 0
  life = 0
  timeNs = 0
  slice = 0
  irqs = 0
  fuel = 0
  /** Writes of a slice; 1 for an edit. */
  count = 0
  readonly #log: SliceLog
  /** Number of the chunk that it stands in, and that chunk. */
  #number: number
  #chunk: Chunk | undefined
  #next = 0
  #at = 0
  readonly #from: number

  constructor(log: SliceLog, number: number, from: number) {
    this.#log = log
    this.#number = number
    this.#chunk = log.chunk(number)
    this.#from = from
  }

  /** Steps to the next entry; false at the end, where it stays until there is another one. */
  next(): boolean {
    do {
      this.#chunk ??= this.#log.chunk(this.#number)
      while (this.#chunk !== undefined && this.#next >= this.#chunk.used) {
        const following = this.#log.chunk(this.#number + 1)
        if (following === undefined) return false
        this.#number++
        this.#chunk = following
        this.#next = 0
      }
      if (this.#chunk === undefined) return false
      const { words, bytes, halves, doubles } = this.#chunk
      this.#at = this.#next
      const at = this.#at >>> 2
      this.#next += words[at]
      this.kind = bytes[this.#at + 4]
      this.flags = bytes[this.#at + 5]
      this.life = halves[(this.#at >>> 1) + 3]
      this.timeNs = doubles[(this.#at >>> 3) + 1]
      this.slice = words[at + 4]
      this.irqs = words[at + 5]
      this.fuel = words[at + 6]
      this.count = words[at + 7]
    } while (this.slice < this.#from)
    return true
  }

  /** Stores the writes of this entry; they lie within `memory`. */
  apply(memory: CopyMemory): void {
    const chunk = this.#chunk!
    let at = this.#at + HEADER_BYTES
    for (let left = this.count; left > 0; left--) {
      const address = chunk.words[at >>> 2]
      const length = chunk.words[(at >>> 2) + 1]
      copyBytes(chunk, at + 8, memory, address, length)
      at += writeBytes(length)
    }
  }

  /** @throws RangeError if the entry names an address outside `memoryBytes` of memory */
  check(memoryBytes: number): void {
    const { words } = this.#chunk!
    let at = (this.#at + HEADER_BYTES) >>> 2
    for (let left = this.kind === ENTRY_FRAME ? 1 : this.count; left > 0; left--) {
      if (words[at] + words[at + 1] > memoryBytes)
        throw new RangeError(`slice ${this.slice} stores past the end of INIC memory`)
      at += writeBytes(words[at + 1]) >>> 2
    }
  }

  /** Of an ENTRY_EDIT: what was stored before instruction number `step`, a copy. */
  get edit(): { readonly step: number; readonly address: number; readonly bytes: Uint8Array } {
    const { words, bytes } = this.#chunk!
    const at = this.#at + HEADER_BYTES
    const length = words[(at >>> 2) + 1]
    return { step: this.irqs, address: words[at >>> 2], bytes: bytes.slice(at + 8, at + 8 + length) }
  }

  /** Of an ENTRY_FRAME. */
  get frame(): { readonly address: number; readonly length: number; readonly port: number } {
    const { words } = this.#chunk!
    const at = (this.#at + HEADER_BYTES) >>> 2
    return { address: words[at], length: words[at + 1], port: words[at + 2] }
  }
}

/** Room that a write of `length` bytes takes in an entry. */
export function writeBytes(length: number): number {
  return 8 + ((length + 3) & ~3)
}

function entryBytes(bodyBytes: number): number {
  return (HEADER_BYTES + bodyBytes + 7) & ~7
}

function checkChunk({ words, bytes, used }: Chunk): void {
  let previous = 0
  for (let at = 0; at < used; ) {
    const fail = (what: string) => new RangeError(`the entry at byte ${at} of a chunk ${what}`)
    if (used - at < HEADER_BYTES) throw fail('is cut off')
    const length = words[at >>> 2]
    if (length < HEADER_BYTES || length > MAXIMUM_ENTRY_BYTES || length % 8 !== 0 || at + length > used)
      throw fail(`says it has ${length} bytes`)
    const kind = bytes[at + 4]
    if (kind < ENTRY_SLICE || kind > ENTRY_EDIT) throw fail(`is of kind ${kind}`)
    const slice = words[(at >>> 2) + 4]
    if (slice < previous) throw fail('is older than the one before')
    previous = slice
    const end = at + length
    let body = at + HEADER_BYTES
    if (kind === ENTRY_FRAME) {
      if (end - body < 12) throw fail('has no room for a frame')
    } else {
      for (let left = words[(at >>> 2) + 7]; left > 0; left--) {
        if (end - body < 8 || words[(body >>> 2) + 1] > end - body - 8) throw fail('has a write that runs past its end')
        body += writeBytes(words[(body >>> 2) + 1])
      }
    }
    at = end
  }
}
