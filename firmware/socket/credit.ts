import { state } from '../state.ts'
import { F_CREDIT_OWED, F_FIN_QUEUED, F_HOST, Tcb, wantHost } from '../tcp/tcb.ts'

/**
 * Send credit: what the host may have in the card for one connection, unacknowledged. A connection whose congestion window has
 * outgrown its credit gets more while chunks are plentiful, so that stalled connections hold little and fast ones enough.
 */
export const MAXIMUM_CREDIT: u32 = 1 << 20

/** Bytes were acknowledged: owes them to the host, and tells it once they are worth a message. */
export function creditReturn(tcb: Tcb, bytes: u32): void {
  if (bytes == 0 || (tcb.flags & (F_HOST | F_FIN_QUEUED)) != F_HOST) return
  const st = state()
  tcb.creditOwed += bytes
  if (
    tcb.cwnd * 2 > tcb.creditGranted &&
    tcb.creditGranted < MAXIMUM_CREDIT &&
    st.chunkFreeCount > st.chunkCount >>> 1
  ) {
    tcb.creditOwed += tcb.creditGranted
    tcb.creditGranted <<= 1
  }
  if (tcb.creditOwed >= tcb.creditGranted >>> 2) {
    tcb.flags |= F_CREDIT_OWED
    wantHost(tcb)
  }
}
