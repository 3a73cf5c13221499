import { TRACE_BASE, TRACE_ENTRIES, TRACE_HEAD } from '../../abi/registers.ts'
import { TRACE_ENTRY_BYTES } from '../../abi/rings.ts'
import { TRACE_DROP } from '../../abi/trace.ts'
import { carve } from '../mem/carve.ts'
import { writeRegister } from './registers.ts'
import { hal, halCounters } from './state.ts'

const ENTRIES: u32 = 4096

export function traceInitialize(): void {
  const st = hal()
  st.traceBase = carve(ENTRIES * TRACE_ENTRY_BYTES)
  writeRegister(TRACE_BASE, st.traceBase)
  writeRegister(TRACE_ENTRIES, ENTRIES)
}

/** Appends an entry to the trace ring; the oldest is overwritten. @param event and meaning of a, b, c: abi/trace.ts */
export function trace(event: u32, a: u32, b: u32, c: u32): void {
  const st = hal()
  const entry = st.traceBase + (st.traceHead & (ENTRIES - 1)) * TRACE_ENTRY_BYTES
  store<u32>(entry, <u32>st.nowNs)
  store<u32>(entry + 4, event | (a << 16))
  store<u32>(entry + 8, b)
  store<u32>(entry + 12, c)
  st.traceHead++
  writeRegister(TRACE_HEAD, st.traceHead)
}

/** Counts and traces a received frame or packet that is thrown away. @param reason DROP_* */
export function drop(reason: u32, b: u32, c: u32): void {
  halCounters().framesDropped++
  trace(TRACE_DROP, reason, b, c)
}
