import { MAC_PORTS } from '../../abi/registers.ts'
import { state } from '../state.ts'
import { arpAnnounceStart, arpInitialize, arpTimers } from './arp.ts'
import { interfacesInitialize, linkIsUp, netInterface } from './interface.ts'
import { outputInitialize } from './output.ts'
import { reassemblyInitialize, reassemblyTimers } from './reassembly.ts'

const ARMED: u32 = 1
/** The clock need not be latched at reset, so what starts at once starts in the first poll. */
const STARTING: u32 = 2
const NEVER: u32 = 0xffffffff

/** Carves and fills the network layer's tables. UDP endpoints have `udpInitialize` of their own. */
export function netInitialize(): void {
  interfacesInitialize()
  arpInitialize()
  reassemblyInitialize()
  outputInitialize()
  state().netArmed = STARTING
}

/** Serves what is due in ARP and reassembly; once a poll. Returns milliseconds until the next is due, 0xffffffff = never. */
export function netTimers(): u32 {
  const st = state()
  if (!st.netArmed) return NEVER
  if (st.netArmed == ARMED) {
    const left = <i32>(st.netNextMs - st.nowMs)
    if (left > 0) return left
  }
  const starting = st.netArmed == STARTING
  st.netArmed = 0
  if (starting) netLinkChanged()
  arpTimers()
  reassemblyTimers()
  return st.netArmed ? max<i32>(<i32>(st.netNextMs - st.nowMs), 0) : NEVER
}

/** Asks for `netTimers` to do its work at `deadlineMs` or before. */
export function netTimerAt(deadlineMs: u32): void {
  const st = state()
  if (st.netArmed == STARTING) return
  if (st.netArmed && <i32>(st.netNextMs - deadlineMs) <= 0) return
  st.netArmed = ARMED
  st.netNextMs = deadlineMs
}

/** A link went up or down (IRQ_LINK): a host that comes back says so (RFC 5227 §2.3). */
export function netLinkChanged(): void {
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const ni = netInterface(i)
    const up: u32 = linkIsUp(i) ? 1 : 0
    if (up && !ni.linkUp) arpAnnounceStart(i)
    ni.linkUp = up
  }
}
