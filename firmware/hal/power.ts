import { BOOT_MAGIC, BOOT_MAGIC_VALUE } from '../../abi/boot.ts'
import { BOOT_BASE, CARVE_BASE } from '../../abi/memory.ts'
import { SYS_MEMORY_BYTES } from '../../abi/registers.ts'
import { directoryInitialize } from '../mem/directory.ts'
import { macInitialize } from './mac.ts'
import { PANIC_BOOT_INFORMATION, PANIC_POOL, panic } from './panic.ts'
import { randomInitialize } from './random.ts'
import { readRegister } from './registers.ts'
import { CARVE_START, hal, STATE_BYTES } from './state.ts'
import { timerLatch } from './timer.ts'
import { traceInitialize } from './trace.ts'
import { uartInitialize } from './uart.ts'

/**
 * Power-on, the first thing that `reset` calls: clears the firmware's state, then opens trace ring, console and MAC ports. Traps
 * without boot information, or with too little memory for the rings.
 *
 * @param stateBytes size of the class that the firmware keeps its state in: `offsetof<Hal>()`, or of one that extends Hal
 */
export function halInitialize(stateBytes: u32): void {
  if (stateBytes > STATE_BYTES) panic(PANIC_POOL, stateBytes)
  memory.fill(CARVE_BASE, 0, CARVE_START - CARVE_BASE)
  const magic = load<u32>(BOOT_BASE + BOOT_MAGIC)
  if (magic != BOOT_MAGIC_VALUE) panic(PANIC_BOOT_INFORMATION, magic)
  const h = hal()
  h.memoryBytes = readRegister(SYS_MEMORY_BYTES)
  h.carveNext = CARVE_START
  directoryInitialize()
  timerLatch()
  randomInitialize()
  traceInitialize()
  uartInitialize()
  macInitialize()
}
