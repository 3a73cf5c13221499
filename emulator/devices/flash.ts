import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs'
import {
  FLASH_ERROR_ALIGNMENT,
  FLASH_ERROR_FAILED,
  FLASH_ERROR_NOT_ERASED,
  FLASH_ERROR_RANGE,
  FLASH_OK,
} from '../../abi/registers.ts'

/** Bytes erased at once. */
export const ERASE_BLOCK_BYTES = 4096
/** Bytes programmed at once. */
export const WRITE_GRANULE_BYTES = 8
/** Largest flash, bytes. */
export const MAXIMUM_FLASH_BYTES = 0x4000000

/**
 * What an injected fault does to one granule programmed or one block erased. With every cut power goes away: the flash answers nothing
 * until `restorePower`. They differ in what became of the bytes, since a real device promises nothing about that.
 */
export type FlashFault =
  /** Nothing. */
  | 'none'
  /** The operation fails with FLASH_ERROR_FAILED; what went before it stays done. */
  | 'fail'
  /** None of its bytes is changed. */
  | 'cut-before'
  /** The first half of its bytes is changed. */
  | 'cut'
  /** The last half of its bytes is changed. */
  | 'cut-backward'
  /** Every other byte is changed. */
  | 'cut-ragged'
/** Asked before each granule is programmed and each block erased. */
export type FlashFaultHook = (operation: 'write' | 'erase', address: number) => FlashFault

/** A part of the flash that is kept from the firmware until the next power-on. */
export interface FlashLock {
  readonly offset: number
  readonly bytes: number
  /** 'erase': it may still be programmed. */
  readonly keeps: 'erase' | 'write and erase'
}

const WEAR_SUFFIX = '.wear'
const WEAR_BYTES = 4

/**
 * NOR flash. Erasing sets a block's bits to 1, programming clears bits. Every operation returns FLASH_OK or a
 * FLASH_ERROR_* (abi/registers.ts) and touches nothing if its arguments are wrong.
 *
 * A flash in a file is that file, byte for byte, so that other tools can read and write it. How often its blocks were erased stands beside
 * it, in FILE.wear: a little-endian u32 for each block.
 */
export class Flash {
  /** Size, bytes. */
  readonly bytes: number
  /** Erasures of each block in the flash's life. */
  readonly wear: Uint32Array
  /** Fault injection, for tests. */
  fault: FlashFaultHook | null = null
  readonly #cells: Uint8Array
  readonly #fd: number | null
  readonly #path: string | null
  #wearFd: number | null = null
  #locks: readonly FlashLock[] = []
  #powered = true

  private constructor(cells: Uint8Array, fd: number | null, path: string | null) {
    this.bytes = cells.length
    this.wear = path === null ? new Uint32Array(cells.length / ERASE_BLOCK_BYTES) : readWear(path, cells.length)
    this.#cells = cells
    this.#fd = fd
    this.#path = path
  }

  /** An erased flash without a file. Throws RangeError for a size that is no multiple of the erase block. */
  static inMemory(bytes: number): Flash {
    checkSize(bytes)
    return new Flash(new Uint8Array(bytes).fill(0xff), null, null)
  }

  /** A flash without a file that holds a copy of `cells`. Throws RangeError for a size that is no multiple of the erase block. */
  static holding(cells: Uint8Array): Flash {
    checkSize(cells.length)
    return new Flash(Uint8Array.from(cells), null, null)
  }

  /**
   * A flash kept in a file, which is made, erased, if it is not there. Throws what node:fs throws, and RangeError if the file has
   * another size than `bytes`.
   */
  static open(path: string, bytes: number): Flash {
    checkSize(bytes)
    const fd = openSync(path, 'a+')
    closeSync(fd)
    const file = openSync(path, 'r+')
    try {
      const cells = new Uint8Array(bytes).fill(0xff)
      const stored = fstatSync(file).size
      if (stored === 0) {
        writeFully(file, cells, 0, bytes, 0)
      } else if (stored !== bytes) {
        throw new RangeError(
          `Flash file ${path} has ${stored} bytes and the board's flash ${bytes}: give the board that size, or remove the file.`,
        )
      } else {
        for (let at = 0; at < bytes; ) {
          const got = readSync(file, cells, at, bytes - at, at)
          if (got === 0) throw new Error(`Flash file ${path} became shorter while it was read.`)
          at += got
        }
      }
      return new Flash(cells, file, path)
    } catch (error) {
      closeSync(file)
      throw error
    }
  }

  /** Copies `length` bytes from `address` into `into` at `offset`. */
  read(address: number, into: Uint8Array, offset = 0, length = into.length - offset): number {
    if (!this.#powered) return FLASH_ERROR_FAILED
    if (!this.#holds(address, length) || !fits(into, offset, length)) return FLASH_ERROR_RANGE
    into.set(this.#cells.subarray(address, address + length), offset)
    return FLASH_OK
  }

  /** Programs `length` bytes of `data` from `offset`; address and length are multiples of the write granule. */
  write(address: number, data: Uint8Array, offset = 0, length = data.length - offset): number {
    if (!this.#powered) return FLASH_ERROR_FAILED
    if (!this.#holds(address, length) || !fits(data, offset, length)) return FLASH_ERROR_RANGE
    if (address % WRITE_GRANULE_BYTES !== 0 || length % WRITE_GRANULE_BYTES !== 0) return FLASH_ERROR_ALIGNMENT
    const cells = this.#cells
    for (let n = 0; n < length; n++) {
      if ((data[offset + n] & ~cells[address + n] & 0xff) !== 0) return FLASH_ERROR_NOT_ERASED
    }
    const hook = this.fault
    if (hook === null) {
      for (let n = 0; n < length; n++) cells[address + n] &= data[offset + n]
      return this.#store(address, length)
    }
    for (let n = 0; n < length; n += WRITE_GRANULE_BYTES) {
      const fault = hook('write', address + n)
      const { first, end, step } = reach(fault, WRITE_GRANULE_BYTES)
      for (let b = n + first; b < n + end; b += step) cells[address + b] &= data[offset + b]
      if (fault !== 'none') {
        this.#powered = fault === 'fail'
        this.#store(address, n + end)
        return FLASH_ERROR_FAILED
      }
    }
    return this.#store(address, length)
  }

  /** Erases `length` bytes; address and length are multiples of the erase block. */
  erase(address: number, length: number): number {
    if (!this.#powered) return FLASH_ERROR_FAILED
    if (!this.#holds(address, length)) return FLASH_ERROR_RANGE
    if (address % ERASE_BLOCK_BYTES !== 0 || length % ERASE_BLOCK_BYTES !== 0) return FLASH_ERROR_ALIGNMENT
    for (let at = address; at < address + length; at += ERASE_BLOCK_BYTES) {
      const fault = this.fault?.('erase', at) ?? 'none'
      const { first, end, step } = reach(fault, ERASE_BLOCK_BYTES)
      if (step === 1) this.#cells.fill(0xff, at + first, at + end)
      else for (let b = at + first; b < at + end; b += step) this.#cells[b] = 0xff
      if (end > 0) this.#wearOut(at / ERASE_BLOCK_BYTES)
      if (fault !== 'none') {
        this.#powered = fault === 'fail'
        this.#store(address, at + end - address)
        return FLASH_ERROR_FAILED
      }
    }
    return this.#store(address, length)
  }

  /** Keeps the firmware, that is the flash controller, off these parts, in place of those before. */
  lock(locks: readonly FlashLock[]): void {
    this.#locks = locks
  }

  /** True if a lock forbids the firmware to do this. */
  isLocked(operation: 'write' | 'erase', address: number, length: number): boolean {
    return this.#locks.some(
      ({ offset, bytes, keeps }) =>
        (operation === 'erase' || keeps === 'write and erase') && address < offset + bytes && address + length > offset,
    )
  }

  /** After a cut: the board is switched on again. */
  restorePower(): void {
    this.#powered = true
  }

  /** Brings everything to the disk and closes the file. */
  close(): void {
    this.#powered = false
    for (const fd of [this.#fd, this.#wearFd]) {
      if (fd === null) continue
      fsyncSync(fd)
      closeSync(fd)
    }
  }

  /** Counts an erasure, in the file at once: a process that is killed leaves the count right. */
  #wearOut(block: number): void {
    this.wear[block]++
    if (this.#path === null) return
    try {
      if (this.#wearFd === null) {
        this.#wearFd = openSync(this.#path + WEAR_SUFFIX, constants.O_RDWR | constants.O_CREAT)
        if (fstatSync(this.#wearFd).size !== this.wear.byteLength) {
          ftruncateSync(this.#wearFd)
          writeFully(this.#wearFd, bytesOf(this.wear), 0, this.wear.byteLength, 0)
        }
      }
      writeFully(this.#wearFd, bytesOf(this.wear), block * WEAR_BYTES, WEAR_BYTES, block * WEAR_BYTES)
    } catch (error) {
      process.emitWarning(`Flash file ${this.#path}${WEAR_SUFFIX}: ${(error as Error).message}`)
    }
  }

  #holds(address: number, length: number): boolean {
    return (
      Number.isInteger(address) &&
      Number.isInteger(length) &&
      address >= 0 &&
      length >= 0 &&
      address + length <= this.bytes
    )
  }

  #store(address: number, length: number): number {
    if (this.#fd === null) return FLASH_OK
    try {
      writeFully(this.#fd, this.#cells, address, length, address)
      return FLASH_OK
    } catch (error) {
      process.emitWarning(`Flash file ${this.#path}: ${(error as Error).message}`)
      return FLASH_ERROR_FAILED
    }
  }
}

/** Which bytes of a granule or block an operation changes. */
function reach(fault: FlashFault, bytes: number): { first: number; end: number; step: number } {
  switch (fault) {
    case 'none':
      return { first: 0, end: bytes, step: 1 }
    case 'cut':
      return { first: 0, end: bytes / 2, step: 1 }
    case 'cut-backward':
      return { first: bytes / 2, end: bytes, step: 1 }
    case 'cut-ragged':
      return { first: 0, end: bytes, step: 2 }
    default:
      return { first: 0, end: 0, step: 1 }
  }
}

/** What stands beside the flash file; zeros if nothing does, or if it is another flash's. */
function readWear(path: string, bytes: number): Uint32Array {
  const wear = new Uint32Array(bytes / ERASE_BLOCK_BYTES)
  let stored: Uint8Array
  try {
    stored = readFileSync(path + WEAR_SUFFIX)
  } catch {
    return wear
  }
  if (stored.length === wear.byteLength) bytesOf(wear).set(stored)
  return wear
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}

function checkSize(bytes: number): void {
  if (!Number.isInteger(bytes) || bytes <= 0 || bytes > MAXIMUM_FLASH_BYTES || bytes % ERASE_BLOCK_BYTES !== 0) {
    throw new RangeError(
      `A flash of ${bytes} bytes cannot be: its size is a multiple of ${ERASE_BLOCK_BYTES}, at most ${MAXIMUM_FLASH_BYTES}.`,
    )
  }
}

function fits(array: Uint8Array, offset: number, length: number): boolean {
  return Number.isInteger(offset) && offset >= 0 && offset + length <= array.length
}

function writeFully(fd: number, bytes: Uint8Array, offset: number, length: number, position: number): void {
  for (let done = 0; done < length; ) done += writeSync(fd, bytes, offset + done, length - done, position + done)
}
