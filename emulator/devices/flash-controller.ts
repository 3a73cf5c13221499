import {
  FLASH_ADDRESS,
  FLASH_BUFFER,
  FLASH_BYTES,
  FLASH_COMMAND,
  FLASH_COMMAND_ERASE,
  FLASH_COMMAND_NONE,
  FLASH_COMMAND_READ,
  FLASH_COMMAND_WRITE,
  FLASH_ERASE_BLOCK,
  FLASH_ERROR_COMMAND,
  FLASH_ERROR_FAILED,
  FLASH_ERROR_LOCKED,
  FLASH_ERROR_RANGE,
  FLASH_LENGTH,
  FLASH_OK,
  FLASH_STATUS,
  FLASH_WRITE_GRANULE,
} from '../../abi/registers.ts'
import { ERASE_BLOCK_BYTES, type Flash, WRITE_GRANULE_BYTES } from './flash.ts'
import type { InicMemory } from './memory.ts'

/** Flash controller: carries out one command of the firmware between two polls, and keeps it off what the boot loader has locked. */
export class FlashController {
  readonly #flash: Flash | null
  #memory: InicMemory | null = null
  #status: number = FLASH_OK

  /** `flash` null = a board without one: every command fails. */
  constructor(flash: Flash | null) {
    this.#flash = flash
  }

  powerOn(memory: InicMemory): void {
    this.#memory = memory
    this.#status = FLASH_OK
  }

  /** Before a poll. */
  show(): void {
    const memory = this.#memory!
    memory.setRegister(FLASH_STATUS, this.#status)
    memory.setRegister(FLASH_BYTES, this.#flash?.bytes ?? 0)
    memory.setRegister(FLASH_ERASE_BLOCK, ERASE_BLOCK_BYTES)
    memory.setRegister(FLASH_WRITE_GRANULE, WRITE_GRANULE_BYTES)
  }

  /** After a poll. True if a command was carried out: the firmware waits for it. */
  settle(): boolean {
    const memory = this.#memory!
    const command = memory.register(FLASH_COMMAND)
    if (command === FLASH_COMMAND_NONE) return false
    this.#status = this.#carryOut(command, memory)
    memory.setRegister(FLASH_STATUS, this.#status)
    memory.setRegister(FLASH_COMMAND, FLASH_COMMAND_NONE)
    return true
  }

  #carryOut(command: number, memory: InicMemory): number {
    const flash = this.#flash
    if (flash === null) return FLASH_ERROR_FAILED
    const address = memory.register(FLASH_ADDRESS)
    const buffer = memory.register(FLASH_BUFFER)
    const length = memory.register(FLASH_LENGTH)
    switch (command) {
      case FLASH_COMMAND_READ:
        if (!memory.holds(buffer, length)) return FLASH_ERROR_RANGE
        memory.wrote(buffer, length)
        return flash.read(address, memory.bytes, buffer, length)
      case FLASH_COMMAND_WRITE:
        if (flash.isLocked('write', address, length)) return FLASH_ERROR_LOCKED
        return memory.holds(buffer, length) ? flash.write(address, memory.bytes, buffer, length) : FLASH_ERROR_RANGE
      case FLASH_COMMAND_ERASE:
        if (flash.isLocked('erase', address, length)) return FLASH_ERROR_LOCKED
        return flash.erase(address, length)
      default:
        return FLASH_ERROR_COMMAND
    }
  }
}
