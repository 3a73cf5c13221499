/**
 * What lies where in a server's flash. Every region begins and ends on an erase block.
 *
 *   0          ┌──────────────────────┐
 *              │ primary slot         │ the image that boots, and its trailer in the last block
 *              ├──────────────────────┤
 *              │ secondary slot       │ the image of an update, or the one that it has replaced
 *              ├──────────────────────┤
 *              │ scratch              │ what is on its way during a swap, and a trailer in the last block
 *              ├──────────────────────┤
 *              │ boot area (64 KiB)   │ the boot loader's own: vault and boot log
 *   flashBytes └──────────────────────┘
 */
import { ERASE_BLOCK_BYTES, MAXIMUM_FLASH_BYTES } from '../../emulator/devices/flash.ts'
import { usageError } from '../errors.ts'
import { MAXIMUM_SECTORS } from './trailer.ts'

export interface FlashRegion {
  readonly name: string
  readonly offset: number
  readonly bytes: number
}

export interface FlashMap {
  readonly primary: FlashRegion
  readonly secondary: FlashRegion
  readonly scratch: FlashRegion
  readonly boot: FlashRegion
}

/** Size of a flash when a server does not say otherwise, bytes. */
export const DEFAULT_FLASH_BYTES = 0x400000
/** The least that holds two slots and the other regions, bytes. */
export const MINIMUM_FLASH_BYTES = 0x40000
/** The end of each slot, and of scratch, that is the trailer's: one erase block. */
export const TRAILER_BLOCK_BYTES = ERASE_BLOCK_BYTES

const SCRATCH_BYTES = 0x10000
const BOOT_AREA_BYTES = 0x10000
/** Slots are multiples of this, so that every erase block up to this size divides them. */
const SLOT_UNIT_BYTES = 0x10000

/** The regions of a flash of `flashBytes`. @throws CommandError if it is out of range or no multiple of 64 KiB. */
export function flashMap(flashBytes: number): FlashMap {
  if (flashBytes < MINIMUM_FLASH_BYTES || flashBytes > MAXIMUM_FLASH_BYTES || flashBytes % SLOT_UNIT_BYTES !== 0) {
    throw usageError(
      `a flash of ${flashBytes} bytes cannot be laid out`,
      `choose a multiple of 64 KiB from ${MINIMUM_FLASH_BYTES / 1024} KiB to ${MAXIMUM_FLASH_BYTES / 0x100000} MiB`,
    )
  }
  // As many steps at most as a trailer has room for.
  const stepBytes = flashBytes / 2 / MAXIMUM_SECTORS + TRAILER_BLOCK_BYTES
  const scratchBytes = Math.max(SCRATCH_BYTES, Math.ceil(stepBytes / SLOT_UNIT_BYTES) * SLOT_UNIT_BYTES)
  const forSlots = flashBytes - scratchBytes - BOOT_AREA_BYTES
  const slotBytes = Math.floor(forSlots / 2 / SLOT_UNIT_BYTES) * SLOT_UNIT_BYTES
  return layOut(slotBytes, scratchBytes, BOOT_AREA_BYTES)
}

/** Regions of these sizes one after the other; all are multiples of the erase block. */
export function layOut(slotBytes: number, scratchBytes: number, bootBytes: number): FlashMap {
  const scratch = 2 * slotBytes
  return {
    primary: { name: 'primary slot', offset: 0, bytes: slotBytes },
    secondary: { name: 'secondary slot', offset: slotBytes, bytes: slotBytes },
    scratch: { name: 'scratch', offset: scratch, bytes: scratchBytes },
    boot: { name: 'boot area', offset: scratch + scratchBytes, bytes: bootBytes },
  }
}

/** Largest image of a slot: its last block is the trailer's. */
export function imageBytesOf(slot: FlashRegion): number {
  return slot.bytes - TRAILER_BLOCK_BYTES
}
