import { PANIC_MEMORY, panic } from '../hal/panic.ts'
import { hal } from '../hal/state.ts'

/**
 * Takes `bytes` of INIC memory for good; zeroed, aligned to 64. Called at reset alone.
 * Traps with PANIC_MEMORY if the board has too little.
 */
export function carve(bytes: u32): u32 {
  const base = carveBuffers(bytes)
  memory.fill(base, 0, hal().carveNext - base)
  return base
}

/** As `carve`, for what is written before it is read: left as it is, so that the emulator's host need not back it with pages. */
export function carveBuffers(bytes: u32): u32 {
  const st = hal()
  const base = st.carveNext
  const size = (bytes + 63) & ~63
  if (<u64>base + size > st.memoryBytes) panic(PANIC_MEMORY, bytes)
  st.carveNext = base + size
  return base
}
