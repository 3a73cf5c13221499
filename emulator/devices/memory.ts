import { BOOT_BASE, REGISTER_BASE } from '../../abi/memory.ts'

if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
  throw new Error('The emulator needs a little-endian machine: INIC memory is read through typed arrays.')
}

/**
 * INIC memory as the devices see it: views made once at power-on.
 *
 * Devices reach only what lies above the register page and the unmapped range: a guarded CPU (CpuOptions.guard) takes the
 * pages below away from JavaScript too, and a frame stored over registers would look like a fault of the firmware.
 */
export class InicMemory {
  readonly bytes: Uint8Array
  readonly words: Uint32Array
  /** Bytes. */
  readonly length: number

  constructor(buffer: ArrayBufferLike) {
    this.bytes = new Uint8Array(buffer)
    this.words = new Uint32Array(buffer)
    this.length = buffer.byteLength
  }

  /** True if a device may touch `length` bytes from `address`; both unsigned. */
  holds(address: number, length: number): boolean {
    return address >= BOOT_BASE && address + length <= this.length
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

/** Where a device reports that the firmware gave it something that no hardware could use; the board stops at the slice boundary. */
export type FaultLine = (message: string) => void

/** `0x00001234`, for messages. */
export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`
}
