/**
 * What lies where in a server's flash. Every region begins and ends on an erase block.
 *
 *   0          ┌──────────────────────┐
 *              │ primary slot         │ the image that boots
 *              ├──────────────────────┤
 *              │ secondary slot       │ the image of an update, until it is swapped in
 *              ├──────────────────────┤
 *              │ scratch (64 KiB)     │ one block at a time during a swap
 *              ├──────────────────────┤
 *              │ settings (64 KiB)    │ the board's own settings
 *   flashBytes └──────────────────────┘
 */
import { MAXIMUM_FLASH_BYTES } from '../../emulator/devices/flash.ts'
import { usageError } from '../errors.ts'

export interface FlashRegion {
  readonly name: string
  readonly offset: number
  readonly bytes: number
}

export interface FlashMap {
  readonly primary: FlashRegion
  readonly secondary: FlashRegion
  readonly scratch: FlashRegion
  readonly settings: FlashRegion
}

/** Size of a flash when a server does not say otherwise, bytes. */
export const DEFAULT_FLASH_BYTES = 0x400000
/** The least that holds two slots and the other regions, bytes. */
export const MINIMUM_FLASH_BYTES = 0x40000

const SCRATCH_BYTES = 0x10000
const SETTINGS_BYTES = 0x10000
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
  const forSlots = flashBytes - SCRATCH_BYTES - SETTINGS_BYTES
  const slotBytes = Math.floor(forSlots / 2 / SLOT_UNIT_BYTES) * SLOT_UNIT_BYTES
  const scratch = 2 * slotBytes
  return {
    primary: { name: 'primary slot', offset: 0, bytes: slotBytes },
    secondary: { name: 'secondary slot', offset: slotBytes, bytes: slotBytes },
    scratch: { name: 'scratch', offset: scratch, bytes: SCRATCH_BYTES },
    settings: { name: 'settings', offset: scratch + SCRATCH_BYTES, bytes: SETTINGS_BYTES },
  }
}
