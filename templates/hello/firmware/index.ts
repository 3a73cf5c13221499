/** The least that is worth looking at: greets on the console, and leaves a trace entry every second. */
import { CARVE_BASE } from 'inic/abi/memory.ts'
import { MAC_PORTS, SYS_READY } from 'inic/abi/registers.ts'
import { TRACE_OWN } from 'inic/abi/trace.ts'
import { macAddress } from 'inic/firmware/hal/mac.ts'
import { halInitialize } from 'inic/firmware/hal/power.ts'
import { writeRegister } from 'inic/firmware/hal/registers.ts'
import { Hal } from 'inic/firmware/hal/state.ts'
import { msReached, timerLatch } from 'inic/firmware/hal/timer.ts'
import { trace } from 'inic/firmware/hal/trace.ts'
import { uartLine, uartMac, uartNumber, uartText } from 'inic/firmware/hal/uart.ts'
import { directoryTable } from 'inic/firmware/mem/directory.ts'

const BLINK_MS: u32 = 1000
/** Trace event: a = 1 on, 0 off, b = blinks so far. */
const TRACE_BLINK: u32 = TRACE_OWN

/**
 * Everything that this firmware keeps. It lies in INIC memory at a fixed address, behind what the hardware layer keeps: there are no
 * mutable globals, so that a copy of the memory is a copy of the firmware.
 */
@unmanaged
class State extends Hal {
  blinks: u32
  nextMs: u32
}

function state(): State {
  return changetype<State>(CARVE_BASE)
}

/** Power-on. */
export function reset(): void {
  halInitialize(offsetof<State>())
  directoryTable<State>(CARVE_BASE, offsetof<State>(), 1)
  uartText('hello from {{name}}, with ')
  uartNumber(state().memoryBytes >>> 20)
  uartText(' MiB of memory and ports')
  for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
    uartText(' ')
    uartMac(macAddress(port))
  }
  uartLine()
  writeRegister(SYS_READY, 1)
}

/**
 * One slice. Runs to completion; devices act between two of them.
 *
 * @param _irqs IRQ_* that are pending, of those that are enabled: none here
 * @returns microseconds until it wants to run again, 0 = at once, 0xffffffff = not before an interrupt
 */
export function poll(_irqs: u32): u32 {
  timerLatch()
  const st = state()
  if (msReached(st.nowMs, st.nextMs)) {
    st.blinks++
    st.nextMs = st.nowMs + BLINK_MS
    trace(TRACE_BLINK, st.blinks & 1, st.blinks, 0)
  }
  return (st.nextMs - st.nowMs) * 1000
}
