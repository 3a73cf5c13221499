import { BOOT_BASE, REGISTER_BASE } from '../../abi/memory.ts'

if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
  throw new Error('The emulator needs a little-endian machine: INIC memory is read through typed arrays.')
}

/** Where devices have written since the journal was last taken; the registers apart, which whoever asks compares by itself. */
export class WriteJournal {
  /** Pairs of address and length, `count` numbers. */
  ranges = new Uint32Array(256)
  count = 0

  add(address: number, length: number): void {
    if (length === 0) return
    const { ranges, count } = this
    // Descriptors and payload mostly go on where the last write ended.
    if (count > 0 && ranges[count - 2] + ranges[count - 1] === address) {
      ranges[count - 1] += length
      return
    }
    if (count === ranges.length) {
      this.ranges = new Uint32Array(2 * count)
      this.ranges.set(ranges)
    }
    this.ranges[count] = address
    this.ranges[count + 1] = length
    this.count = count + 2
  }

  clear(): void {
    this.count = 0
  }
}

const memories = new WeakMap<Uint8Array, InicMemory>()

/**
 * INIC memory as the devices see it: views made once at power-on.
 *
 * Devices reach only what lies above the register page and the unmapped range: a guarded CPU (CpuOptions.guard) takes the
 * pages below away from JavaScript too, and a frame stored over registers would look like a fault of the firmware.
 */
export class InicMemory {
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
  /** Bytes. */
  readonly length: number
  /** While somebody wants to know what devices write. */
  journal: WriteJournal | null = null

  constructor(buffer: ArrayBufferLike) {
    this.bytes = new Uint8Array(buffer)
    this.halves = new Uint16Array(buffer)
    this.words = new Uint32Array(buffer)
    this.length = buffer.byteLength
    memories.set(this.bytes, this)
  }

  /** The memory whose `bytes` these are; null if they are no card's. */
  static of(bytes: Uint8Array): InicMemory | null {
    return memories.get(bytes) ?? null
  }

  /** True if a device may touch `length` bytes from `address`; both unsigned. */
  holds(address: number, length: number): boolean {
    return address >= BOOT_BASE && address + length <= this.length
  }

  /** Said by devices after each store, or load from elsewhere, that does not go to a register. */
  wrote(address: number, length: number): void {
    if (this.journal !== null) this.journal.add(address, length)
  }

  /** Loads a register; `register` is an offset of abi/registers.ts. */
  register(register: number): number {
    return this.words[(REGISTER_BASE + register) >>> 2]
  }

  /** Stores a register. */
  setRegister(register: number, value: number): void {
    this.words[(REGISTER_BASE + register) >>> 2] = value
  }
}

/** Memory that the DMA engine copies from and to. */
export interface CopyMemory {
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
}

// Up to so many bytes a loop beats the making of a typed-array view (50 to 90 ns), if the loop goes by ...
const COPY_BY_BYTES = 24
const COPY_BY_HALVES = 48
const COPY_BY_WORDS = 160

/** Copies `length` bytes. Both ranges were checked, and do not overlap. */
export function copyBytes(
  from: CopyMemory,
  fromOffset: number,
  to: CopyMemory,
  toOffset: number,
  length: number,
): void {
  const alignment = fromOffset | toOffset
  let done = 0
  if (((fromOffset ^ toOffset) & 3) === 0 && (alignment & 1) === 0 && length <= COPY_BY_WORDS) {
    const source = from.words
    const target = to.words
    // Half a word first, where both begin in the middle of one.
    const before = length < 2 ? 0 : fromOffset & 2
    if (before !== 0) to.halves[toOffset >>> 1] = from.halves[fromOffset >>> 1]
    let at = (fromOffset + before) >>> 2
    let into = (toOffset + before) >>> 2
    const end = at + ((length - before) >>> 2)
    for (const fours = end - 3; at < fours; at += 4, into += 4) {
      target[into] = source[at]
      target[into + 1] = source[at + 1]
      target[into + 2] = source[at + 2]
      target[into + 3] = source[at + 3]
    }
    while (at < end) target[into++] = source[at++]
    done = before + ((length - before) & ~3)
  } else if ((alignment & 1) === 0 && length <= COPY_BY_HALVES) {
    const source = from.halves
    const target = to.halves
    const first = fromOffset >>> 1
    const shift = (toOffset >>> 1) - first
    const end = first + (length >>> 1)
    for (let half = first; half < end; half++) target[half + shift] = source[half]
    done = length & ~1
  } else if (length > COPY_BY_BYTES) {
    to.bytes.set(from.bytes.subarray(fromOffset, fromOffset + length), toOffset)
    return
  }
  for (; done < length; done++) to.bytes[toOffset + done] = from.bytes[fromOffset + done]
}

/** Where a device reports that the firmware gave it something that no hardware could use; the board stops at the slice boundary. */
export type FaultLine = (message: string) => void

/** `0x00001234`, for messages. */
export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`
}
