import { BOOT_CONFIRM_OFFSET, BOOT_TRIAL } from '../../abi/boot.ts'
import { BOOT_BASE } from '../../abi/memory.ts'
import {
  FLASH_ADDRESS,
  FLASH_BUFFER,
  FLASH_COMMAND,
  FLASH_COMMAND_NONE,
  FLASH_COMMAND_WRITE,
  FLASH_LENGTH,
  FLASH_STATUS,
} from '../../abi/registers.ts'
import { readRegister, writeRegister } from './registers.ts'

/** Bytes that confirm an image: a granule of which the first byte is 1 and the others stay erased. */
export const CONFIRM_BYTES: u32 = 8

/**
 * Gives the flash controller a command, which it carries out between this poll and the next.
 *
 * @param command FLASH_COMMAND_*
 * @param address byte offset in flash
 * @param buffer address in INIC memory; it stays as it is until the command is done
 */
export function flashStart(command: u32, address: u32, buffer: u32, bytes: u32): void {
  writeRegister(FLASH_ADDRESS, address)
  writeRegister(FLASH_BUFFER, buffer)
  writeRegister(FLASH_LENGTH, bytes)
  writeRegister(FLASH_COMMAND, command)
}

/** True while a command is still to be carried out. */
export function flashBusy(): bool {
  return readRegister(FLASH_COMMAND) != FLASH_COMMAND_NONE
}

/** FLASH_OK or FLASH_ERROR_*, of the last command. */
export function flashStatus(): u32 {
  return readRegister(FLASH_STATUS)
}

/**
 * Confirms the running image (docs/images.md), if it is on trial: otherwise the next boot goes back to the one before it. Small firmware calls it
 * once it is satisfied with itself. False if there is nothing to confirm; if true, the command is under way.
 *
 * @param buffer address of CONFIRM_BYTES in INIC memory, for the flash controller
 */
export function flashConfirm(buffer: u32): bool {
  if (load<u32>(BOOT_BASE + BOOT_TRIAL) == 0) return false
  memory.fill(buffer, 0xff, CONFIRM_BYTES)
  store<u8>(buffer, 1)
  flashStart(FLASH_COMMAND_WRITE, load<u32>(BOOT_BASE + BOOT_CONFIRM_OFFSET), buffer, CONFIRM_BYTES)
  return true
}
