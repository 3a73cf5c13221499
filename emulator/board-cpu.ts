/** The processor of a board: what of INIC memory it watches and guards, and how long a slice may last. */
import {
  CARVE_BASE,
  DEFAULT_MEMORY_BYTES,
  NULL_GUARD_BASE,
  NULL_GUARD_BYTES,
  REGISTER_BASE,
  REGISTER_PAGE_BYTES,
  UNMAPPED_BASE,
  UNMAPPED_BYTES,
} from '../abi/memory.ts'
import { REGISTER_END } from '../abi/registers.ts'
import type { BoardHost, BoardOptions } from './board-contract.ts'
import { BootError } from './boot.ts'
import { type Cpu, CpuError, createCpu, FUEL_PER_SLICE, MS_PER_SLICE, type SliceLimit } from './cpu/index.ts'

/** The registers: a CPU says of each slice whether it stored there. */
export const WATCHED_RANGE = { start: REGISTER_BASE, end: REGISTER_BASE + REGISTER_END }

/** Bus space without a device behind it. */
export const GUARDED_RANGES = [
  { start: NULL_GUARD_BASE, end: NULL_GUARD_BASE + NULL_GUARD_BYTES },
  { start: UNMAPPED_BASE, end: UNMAPPED_BASE + UNMAPPED_BYTES },
]

/** What stops firmware that does not return where fuel is not counted. The last byte of the register page is no register's. */
export const SLICE_LIMIT: SliceLimit = { ms: MS_PER_SLICE, leash: REGISTER_BASE + REGISTER_PAGE_BYTES - 1 }

/**
 * A CPU with fresh INIC memory for board `name`.
 *
 * @throws BootError if the memory is too small or the firmware is none
 */
export function createBoardCpu(name: string, options: BoardOptions, host: BoardHost, module: Uint8Array): Cpu {
  const { cpu: kind = 'auto', memoryBytes = DEFAULT_MEMORY_BYTES, fuelPerSlice = FUEL_PER_SLICE } = options
  if (!(memoryBytes > CARVE_BASE)) {
    const problem = `has ${memoryBytes} bytes of INIC memory; the memory map alone needs ${CARVE_BASE}`
    throw new BootError(`Board ${name} ${problem}.`)
  }
  const shared = { module, memoryBytes, guard: GUARDED_RANGES, watch: WATCHED_RANGE, fuelPerSlice }
  try {
    return createCpu(kind, host.virtual ? shared : { ...shared, limit: SLICE_LIMIT }, host.counts)
  } catch (cause) {
    if (!(cause instanceof CpuError)) throw cause
    throw new BootError(`Board ${name} does not boot: ${cause.message}`, { cause })
  }
}
