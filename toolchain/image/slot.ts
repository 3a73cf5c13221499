/** Images in a flash slot: written so that a half-written one never looks whole, read with every check. */

import {
  FLASH_ERROR_ALIGNMENT,
  FLASH_ERROR_FAILED,
  FLASH_ERROR_NOT_ERASED,
  FLASH_ERROR_RANGE,
  FLASH_OK,
} from '../../abi/registers.ts'
import { ERASE_BLOCK_BYTES, type Flash, WRITE_GRANULE_BYTES } from '../../emulator/devices/flash.ts'
import { CommandError, usageError } from '../errors.ts'
import type { FlashRegion } from './flash-map.ts'
import { decodeImage, type Image } from './image.ts'

const ERASED = 0xff
/** Bytes between two calls of `onProgress`. */
const STEP_BYTES = 0x10000

const FLASH_ERRORS = new Map([
  [FLASH_ERROR_RANGE, 'the address is outside the flash'],
  [FLASH_ERROR_ALIGNMENT, 'the address or length is not aligned'],
  [FLASH_ERROR_NOT_ERASED, 'the cells are not erased'],
  [FLASH_ERROR_FAILED, 'the device failed'],
])

/** The image in a slot. @throws ImageError if there is none that may boot, with the reason. */
export function readSlot(flash: Flash, slot: FlashRegion): Image {
  const bytes = new Uint8Array(slot.bytes)
  check(flash.read(slot.offset, bytes), `reading the ${slot.name}`)
  return decodeImage(bytes)
}

/**
 * Erases a slot and writes `image` into it. The first block, with the header, is written last: until then the slot reads as
 * empty, so an interruption leaves no image rather than a broken one.
 *
 * @throws CommandError if it does not fit (exit code 2), or if the flash refuses.
 */
export function writeSlot(
  flash: Flash,
  slot: FlashRegion,
  image: Uint8Array,
  onProgress?: (share: number) => void,
): void {
  if (image.length > slot.bytes) {
    throw usageError(
      `the image has ${image.length} bytes and the ${slot.name} ${slot.bytes}`,
      'give the server more flash, or make the firmware smaller',
    )
  }
  const padded = new Uint8Array(roundUp(image.length, WRITE_GRANULE_BYTES)).fill(ERASED)
  padded.set(image)
  check(flash.erase(slot.offset, slot.bytes), `erasing the ${slot.name}`)
  const first = Math.min(ERASE_BLOCK_BYTES, padded.length)
  for (let at = first; at < padded.length; at += STEP_BYTES) {
    const length = Math.min(STEP_BYTES, padded.length - at)
    check(flash.write(slot.offset + at, padded, at, length), `writing the ${slot.name} at byte ${at}`)
    onProgress?.((at + length - first) / padded.length)
  }
  check(flash.write(slot.offset, padded, 0, first), `writing the header of the ${slot.name}`)
  onProgress?.(1)
}

function check(status: number, what: string): void {
  if (status === FLASH_OK) return
  throw new CommandError(`${what} failed: ${FLASH_ERRORS.get(status) ?? `error ${status}`}`)
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step
}
