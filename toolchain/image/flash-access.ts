/** Flash as the boot loader and the toolchain use it: by region, with failures thrown. */
import {
  FLASH_ERROR_ALIGNMENT,
  FLASH_ERROR_FAILED,
  FLASH_ERROR_LOCKED,
  FLASH_ERROR_NOT_ERASED,
  FLASH_ERROR_RANGE,
  FLASH_OK,
} from '../../abi/registers.ts'
import { ERASE_BLOCK_BYTES, type Flash } from '../../emulator/devices/flash.ts'
import type { FlashRegion } from './flash-map.ts'

/** Byte that an erased flash cell reads as. */
export const ERASED = 0xff

const REASONS = new Map([
  [FLASH_ERROR_RANGE, 'the address is outside the flash'],
  [FLASH_ERROR_ALIGNMENT, 'the address or length is not aligned'],
  [FLASH_ERROR_NOT_ERASED, 'the cells are not erased'],
  [FLASH_ERROR_FAILED, 'the device failed'],
  [FLASH_ERROR_LOCKED, 'the boot loader keeps the firmware off it'],
])

/** What a FLASH_ERROR_* means, for people. */
export function flashErrorText(status: number): string {
  return REASONS.get(status) ?? `error ${status}`
}

/** The flash did not do as it was told. */
export class FlashFailure extends Error {
  override readonly name = 'FlashFailure'
}

/** A region of a flash. Offsets count from its beginning; all methods throw FlashFailure. */
export class Region {
  readonly name: string
  readonly bytes: number
  readonly #flash: Flash
  readonly #offset: number

  constructor(flash: Flash, region: FlashRegion) {
    this.#flash = flash
    this.#offset = region.offset
    this.name = region.name
    this.bytes = region.bytes
  }

  read(offset = 0, bytes = this.bytes - offset): Uint8Array {
    const into = new Uint8Array(bytes)
    this.#check(this.#flash.read(this.#within(offset, bytes), into), 'reading', offset)
    return into
  }

  /** `offset` and the length of `data` are multiples of the write granule. */
  write(offset: number, data: Uint8Array): void {
    this.#check(this.#flash.write(this.#within(offset, data.length), data), 'writing', offset)
  }

  /** Erases whole blocks. */
  erase(offset: number, bytes: number): void {
    this.#check(this.#flash.erase(this.#within(offset, bytes), bytes), 'erasing', offset)
  }

  /** Erases a block, unless it is erased. */
  clear(offset: number): void {
    if (!isErased(this.read(offset, ERASE_BLOCK_BYTES))) this.erase(offset, ERASE_BLOCK_BYTES)
  }

  #within(offset: number, bytes: number): number {
    if (offset < 0 || offset + bytes > this.bytes)
      throw new FlashFailure(`${bytes} bytes at ${offset} reach beyond the ${this.name}`)
    return this.#offset + offset
  }

  #check(status: number, what: string, offset: number): void {
    if (status !== FLASH_OK)
      throw new FlashFailure(`${what} the ${this.name} at byte ${offset} failed: ${flashErrorText(status)}`)
  }
}

export function isErased(bytes: Uint8Array): boolean {
  for (let n = 0; n < bytes.length; n++) if (bytes[n] !== ERASED) return false
  return true
}
