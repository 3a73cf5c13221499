import { TIMER_NOW_HIGH, TIMER_NOW_LOW } from '../../abi/registers.ts'
import { readRegister } from './registers.ts'
import { hal } from './state.ts'

/** Reads the time once a poll; everything in the poll sees the same time. */
export function timerLatch(): void {
  const st = hal()
  st.nowNs = ((<u64>readRegister(TIMER_NOW_HIGH)) << 32) | readRegister(TIMER_NOW_LOW)
  st.nowMs = <u32>(st.nowNs / 1000000)
  st.nowUs = <u32>(st.nowNs / 1000)
}

/** True once `now` has reached `deadline`; both on the wrapping millisecond clock, less than 24 days apart. */
export function msReached(now: u32, deadline: u32): bool {
  return <i32>(now - deadline) >= 0
}
