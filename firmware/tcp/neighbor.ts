import { STATUS_EHOSTUNREACH } from '../../abi/status.ts'
import { TCP_SYN_SENT } from '../../abi/tcp.ts'
import { state } from '../state.ts'
import { tcpFail } from './close.ts'
import { F_ON_NEIGHBOR, Tcb, tcbAt, tcbIndex, tcbUnlisted, wantOutput } from './tcb.ts'

/** Puts a connection aside until ARP has found its next hop. */
export function neighborWait(tcb: Tcb): void {
  if (tcb.flags & F_ON_NEIGHBOR) return
  tcb.flags |= F_ON_NEIGHBOR
  const st = state()
  tcb.neighborNext = st.neighborWaiters
  st.neighborWaiters = tcbIndex(tcb)
}

/** ARP has found `address`: those that waited for it send. */
export function tcpNeighborResolved(interfaceIndex: u32, address: u32): void {
  leave(interfaceIndex, address, false)
}

/** ARP gave up on `address`: opening connections fail (RFC 1122 §2.4, §4.2.3.9), others go on with their timers. */
export function tcpNeighborFailed(interfaceIndex: u32, address: u32): void {
  leave(interfaceIndex, address, true)
}

function leave(interfaceIndex: u32, address: u32, failed: bool): void {
  const st = state()
  let index = st.neighborWaiters
  st.neighborWaiters = 0
  while (index) {
    const tcb = tcbAt(index)
    const next = tcb.neighborNext
    if (tcbUnlisted(tcb, F_ON_NEIGHBOR)) {
      if (<u32>tcb.netInterface != interfaceIndex || tcb.nextHop != address) neighborWait(tcb)
      else if (failed && tcb.state == TCP_SYN_SENT) tcpFail(tcb, STATUS_EHOSTUNREACH)
      else if (!failed) wantOutput(tcb)
    }
    index = next
  }
}
