import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs'
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

/** What an injected fault does to one granule programmed or one block erased. */
export type FlashFault =
  /** Nothing. */
  | 'none'
  /** The operation fails with FLASH_ERROR_FAILED; what went before it stays done. */
  | 'fail'
  /** Power goes away in the middle of it: part of its bytes are changed, and the flash answers nothing until `restorePower`. */
  | 'cut'
/** Asked before each granule is programmed and each block erased. */
export type FlashFaultHook = (operation: 'write' | 'erase', address: number) => FlashFault

/**
 * NOR flash. Erasing sets a block's bits to 1, programming clears bits. Every operation returns FLASH_OK or a
 * FLASH_ERROR_* (abi/registers.ts) and touches nothing if its arguments are wrong.
 */
export class Flash {
  /** Size, bytes. */
  readonly bytes: number
  /** Erasures of each block since the flash was opened. */
  readonly wear: Uint32Array
  /** Fault injection, for tests. */
  fault: FlashFaultHook | null = null
  readonly #cells: Uint8Array
  readonly #fd: number | null
  readonly #path: string | null
  #powered = true

  private constructor(cells: Uint8Array, fd: number | null, path: string | null) {
    this.bytes = cells.length
    this.wear = new Uint32Array(cells.length / ERASE_BLOCK_BYTES)
    this.#cells = cells
    this.#fd = fd
    this.#path = path
  }

  /** An erased flash without a file. Throws RangeError for a size that is no multiple of the erase block. */
  static inMemory(bytes: number): Flash {
    checkSize(bytes)
    return new Flash(new Uint8Array(bytes).fill(0xff), null, null)
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
    for (let n = 0; n < length; n += WRITE_GRANULE_BYTES) {
      const fault = this.fault?.('write', address + n) ?? 'none'
      const done = fault === 'none' ? WRITE_GRANULE_BYTES : fault === 'cut' ? WRITE_GRANULE_BYTES / 2 : 0
      for (let b = n; b < n + done; b++) cells[address + b] &= data[offset + b]
      if (fault !== 'none') {
        this.#powered = fault !== 'cut'
        this.#store(address, n + done)
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
      const done = fault === 'none' ? ERASE_BLOCK_BYTES : fault === 'cut' ? ERASE_BLOCK_BYTES / 2 : 0
      this.#cells.fill(0xff, at, at + done)
      if (done > 0) this.wear[at / ERASE_BLOCK_BYTES]++
      if (fault !== 'none') {
        this.#powered = fault !== 'cut'
        this.#store(address, at + done - address)
        return FLASH_ERROR_FAILED
      }
    }
    return this.#store(address, length)
  }

  /** After a cut: the board is switched on again. */
  restorePower(): void {
    this.#powered = true
  }

  /** Brings everything to the disk and closes the file. */
  close(): void {
    this.#powered = false
    if (this.#fd === null) return
    fsyncSync(this.#fd)
    closeSync(this.#fd)
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
