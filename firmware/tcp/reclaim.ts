import { STATUS_ENOBUFS } from '../../abi/status.ts'
import { TCP_ESTABLISHED } from '../../abi/tcp.ts'
import { counters, state } from '../state.ts'
import { tcpFail } from './close.ts'
import { sendReset } from './output.ts'
import { Tcb, tcbAt } from './tcb.ts'

/** A sender counts as stalled after so many timeouts or window probes in a row. */
const STALLED_TRIES: u32 = 2

/**
 * Senders whose peers take nothing hold so many chunks that no host can give another command. The one that holds most is
 * reset: a peer that keeps its window closed must not close everyone's (RFC 6429 §3, RFC 9293 §3.8.6.1). True if one was found.
 */
export function reclaimStalled(): bool {
  const st = state()
  let worst: Tcb | null = null
  let most: u32 = 0
  for (let i: u32 = 1; i <= st.tcbCount; i++) {
    const tcb = tcbAt(i)
    if (tcb.state < <u8>TCP_ESTABLISHED || tcb.sndHead == 0 || <u32>tcb.backoff < STALLED_TRIES) continue
    const held = tcb.sndEnd - tcb.sndUna
    if (held <= most) continue
    most = held
    worst = tcb
  }
  if (worst == null) return false
  counters().tcpNoMemory++
  sendReset(worst)
  tcpFail(worst, STATUS_ENOBUFS)
  return true
}
