/** What `createCpu` and the debugged CPU check before any engine sees it. */

import { CpuError, type CpuOptions, WASM_PAGE_BYTES } from './cpu.ts'
import { checkFirmware } from './firmware.ts'

/** Pages of the guard; the unit of `mprotect`. */
const GUARD_PAGE_BYTES = 4096

/** A slice of an hour does not return. */
const LONGEST_LIMIT_MS = 3600_000

/** Wasm memories end at 4 GiB. */
const MAX_MEMORY_BYTES = 2 ** 32

/** Throws ERR_CPU_OPTION for a number out of range, ERR_CPU_MODULE for a module that is no firmware. */
export function checkOptions(options: CpuOptions): void {
  const { memoryBytes, fuelPerSlice = 1, limit, guard = [], watch } = options
  if (!isUnits(memoryBytes, WASM_PAGE_BYTES) || memoryBytes === 0 || memoryBytes > MAX_MEMORY_BYTES) {
    throw new CpuError('ERR_CPU_OPTION', `memoryBytes is ${memoryBytes}: it has to be a multiple of 65536 up to 4 GiB`)
  }
  if (!Number.isSafeInteger(fuelPerSlice) || fuelPerSlice <= 0) {
    throw new CpuError('ERR_CPU_OPTION', `fuelPerSlice is ${fuelPerSlice}: it has to be a positive integer`)
  }
  if (
    limit &&
    !(limit.ms > 0 && limit.ms <= LONGEST_LIMIT_MS && isUnits(limit.leash, 1) && limit.leash < memoryBytes)
  ) {
    throw new CpuError(
      'ERR_CPU_OPTION',
      `limit is ${limit.ms} ms with a leash at ${limit.leash}: up to ${LONGEST_LIMIT_MS} ms, and in the ${memoryBytes} bytes of memory`,
    )
  }
  for (const { start, end } of guard) {
    if (!isUnits(start, GUARD_PAGE_BYTES) || !isUnits(end, GUARD_PAGE_BYTES) || start >= end || end > memoryBytes) {
      const range = `${start}-${end}`
      const rule = `multiples of ${GUARD_PAGE_BYTES} within the ${memoryBytes} bytes of memory`
      throw new CpuError('ERR_CPU_OPTION', `guard ${range}: start and end have to be ${rule}, and in order`)
    }
  }
  if (
    watch &&
    !(isUnits(watch.start, 1) && isUnits(watch.end, 1) && watch.start <= watch.end && watch.end <= memoryBytes)
  ) {
    throw new CpuError(
      'ERR_CPU_OPTION',
      `watch ${watch.start}-${watch.end} is no range in the ${memoryBytes} bytes of memory`,
    )
  }
  checkFirmware(options)
}

const isUnits = (value: number, unit: number) => Number.isSafeInteger(value) && value >= 0 && value % unit === 0
