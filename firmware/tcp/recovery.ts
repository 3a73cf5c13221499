import { TRACE_TCP_RETRANSMIT } from '../../abi/trace.ts'
import { trace } from '../hal/trace.ts'
import { counters } from '../state.ts'
import { TCP_ACK, TCP_FIN, TCP_PSH } from '../wire/tcp.ts'
import { congestionLoss } from './congestion.ts'
import { BURST_SEGMENTS, neighborMissing, noteSent, payloadLimit, sendSegment } from './output.ts'
import {
  DUP_THRESHOLD,
  holeEnd,
  isLost,
  pipeBytes,
  rangeCount,
  rangeEnd,
  sackedAbove,
  skipSacked,
} from './scoreboard.ts'
import { seqLt, seqMax } from './sequence.ts'
import {
  F_FIN_SENT,
  F_LOSS,
  F_PROBE_TIMER,
  F_RECOVERY,
  F_RESCUED,
  F_SACK,
  F_TAIL_PROBED,
  F_TIMING,
  Tcb,
  TIMER_RETRANSMIT,
  wantOutput,
} from './tcb.ts'
import { timerStart } from './timer.ts'

/**
 * Loss recovery: SACK-based by RFC 6675 where the peer allows SACK, NewReno by RFC 6582 otherwise. What is sent in recovery is
 * chosen by `recoveryOutput`; before and after, by `sendNew`.
 */

/** An ACK that acknowledges nothing new arrived while data is outstanding, or SACK told news. Enters recovery when that means a loss. */
export function recoveryDuplicate(tcb: Tcb): void {
  if (tcb.flags & (F_RECOVERY | F_LOSS)) {
    // RFC 5681 §3.2 (4): each duplicate is a segment that has left the network; there are no more than were in it (§3.2, end).
    if ((tcb.flags & (F_RECOVERY | F_SACK)) == F_RECOVERY && tcb.cwnd < tcb.ssthresh + (tcb.recover - tcb.sndUna))
      tcb.cwnd += tcb.mss
    wantOutput(tcb)
    return
  }
  if (tcb.dupAcks < 255) tcb.dupAcks++
  const sack = (tcb.flags & F_SACK) != 0
  if (<u32>tcb.dupAcks < DUP_THRESHOLD && !(sack && (isLost(tcb, tcb.sndUna) || (tcb.flags & F_TAIL_PROBED) != 0))) {
    // Limited transmit (RFC 3042): one new segment for each of the first two.
    wantOutput(tcb)
    return
  }
  const flight = tcb.sndMax - tcb.sndUna
  trace(TRACE_TCP_RETRANSMIT, 2, tcb.handle, tcb.sndUna)
  counters().tcpFastRetransmits++
  congestionLoss(tcb, flight)
  tcb.flags = (tcb.flags | F_RECOVERY) & ~(F_TIMING | F_RESCUED | F_PROBE_TIMER | F_TAIL_PROBED)
  tcb.recover = tcb.sndMax
  tcb.highRxt = tcb.sndUna
  tcb.recoverFlight = flight
  tcb.prrDelivered = tcb.prrOut = 0
  if (!sack) tcb.cwnd = tcb.ssthresh + DUP_THRESHOLD * <u32>tcb.mss
  // The first segment goes out whatever the window says (RFC 6675 §5 (4.3)).
  retransmit(tcb, tcb.sndUna)
  timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
  wantOutput(tcb)
}

/** sndUna has moved while in recovery. @param bytes acknowledged */
export function recoveryAcked(tcb: Tcb, bytes: u32): void {
  if (!seqLt(tcb.sndUna, tcb.recover)) {
    // Full acknowledgement (RFC 6582 §3.2 (3), RFC 6675 §5): deflate to ssthresh.
    tcb.flags &= ~F_RECOVERY
    tcb.cwnd = tcb.ssthresh
    tcb.dupAcks = 0
    return
  }
  tcb.highRxt = seqMax(tcb.highRxt, tcb.sndUna)
  tcb.rxtMark = tcb.sndMax
  if (tcb.flags & F_SACK) return
  // Partial acknowledgement: the next hole is at sndUna (RFC 6582 §3.2 (4)).
  tcb.cwnd = tcb.cwnd > bytes ? tcb.cwnd - bytes : <u32>tcb.mss
  if (bytes >= <u32>tcb.mss) tcb.cwnd += tcb.mss
}

/**
 * An ACK has delivered `bytes`, cumulatively or by SACK, in a recovery with SACK: proportional rate reduction (RFC 6937 §3)
 * lets cwnd come down to ssthresh as the network delivers, so that what is repeated is not sent in a burst and lost again.
 */
export function recoveryDelivered(tcb: Tcb, bytes: u32): void {
  tcb.prrDelivered += bytes
  const pipe = pipeBytes(tcb)
  let send: i64
  if (pipe > tcb.ssthresh) {
    const flight = max<u32>(tcb.recoverFlight, 1)
    send = (<i64>tcb.prrDelivered * tcb.ssthresh + flight - 1) / flight - tcb.prrOut
  } else {
    // PRR-SSRB: no more than was delivered and a segment, up to ssthresh.
    const limit = max<i64>(<i64>tcb.prrDelivered - tcb.prrOut, bytes) + tcb.mss
    send = min<i64>(<i64>tcb.ssthresh - pipe, limit)
  }
  tcb.cwnd = pipe + <u32>max<i64>(send, 0)
}

/** Sends retransmissions and then new data while pipe allows (RFC 6675 §5 (C)). False if the ring is full. */
export function recoveryOutput(tcb: Tcb): bool {
  const limit = payloadLimit(tcb)
  // Without SACK: the first segment, and after each partial acknowledgement the next.
  if ((tcb.flags & F_SACK) == 0 && !seqLt(tcb.sndUna, tcb.highRxt) && !retransmit(tcb, tcb.sndUna)) {
    return neighborMissing(tcb)
  }
  // Bytes sent after the repeated segment have arrived and it has not: it was lost again. RFC 6675 would wait for the timer;
  // RACK (RFC 8985 §6.2) concludes the same from times.
  if (seqLt(tcb.sndUna, tcb.highRxt) && sackedAbove(tcb, tcb.rxtMark) > (DUP_THRESHOLD - 1) * <u32>tcb.mss) {
    tcb.highRxt = tcb.sndUna
  }
  let pipe = tcb.flags & F_SACK ? pipeBytes(tcb) : tcb.sndNxt - tcb.sndUna
  for (let n: u32 = 0; n < BURST_SEGMENTS; n++) {
    if (pipe + limit > tcb.cwnd) return true
    // NextSeg (1): the first hole above what was retransmitted that counts as lost.
    const hole = skipSacked(tcb, seqMax(tcb.highRxt, tcb.sndUna))
    const open = (tcb.flags & F_SACK) != 0 && seqLt(hole, tcb.sndEnd) && seqLt(hole, highestSacked(tcb))
    if (open && isLost(tcb, hole)) {
      const sent = retransmit(tcb, hole)
      if (!sent) return neighborMissing(tcb)
      pipe += sent
      continue
    }
    // NextSeg (2): new data, within the peer's window.
    const queued = seqLt(tcb.sndNxt, tcb.sndEnd) ? tcb.sndEnd - tcb.sndNxt : 0
    const window = tcb.sndNxt - tcb.sndUna < tcb.sndWnd ? tcb.sndWnd - (tcb.sndNxt - tcb.sndUna) : 0
    const bytes = min<u32>(min<u32>(queued, limit), window)
    if (bytes == 0) {
      if ((tcb.flags & F_SACK) == 0) return true
      // NextSeg (3): a hole that is not known to be lost; (4): once, the end of what is outstanding.
      const sent = open ? retransmit(tcb, hole) : rescue(tcb)
      if (!sent) return true
      pipe += sent
      continue
    }
    const flags = tcb.sndNxt + bytes == tcb.sndEnd ? TCP_ACK | TCP_PSH : TCP_ACK
    if (!sendSegment(tcb, tcb.sndNxt, bytes, flags)) return neighborMissing(tcb)
    noteSent(tcb, tcb.sndNxt, bytes, flags)
    pipe += bytes
  }
  return false
}

/** RFC 6675 §4 NextSeg (4): the last segment once more, once in a recovery, lest its loss cost a timeout. Returns its bytes. */
function rescue(tcb: Tcb): u32 {
  if (tcb.flags & F_RESCUED) return 0
  const highRxt = tcb.highRxt
  const end = seqLt(tcb.sndEnd, tcb.sndMax) ? tcb.sndEnd : tcb.sndMax
  const sent = retransmit(tcb, seqMax(seqMax(tcb.sndUna, highestSacked(tcb)), end - payloadLimit(tcb)))
  tcb.highRxt = highRxt
  if (sent) tcb.flags |= F_RESCUED
  return sent
}

/**
 * Nothing was heard for two round trips with data outstanding: a new segment if the peer's window has room, else the last one again,
 * brings an ACK that shows what is missing, long before the retransmission timer would (RFC 8985 §7.3).
 */
export function tailProbe(tcb: Tcb): void {
  tcb.flags |= F_TAIL_PROBED
  counters().tcpTailProbes++
  const limit = payloadLimit(tcb)
  const fresh = seqLt(tcb.sndNxt, tcb.sndEnd) ? min<u32>(tcb.sndEnd - tcb.sndNxt, limit) : 0
  if (fresh != 0 && tcb.sndNxt - tcb.sndUna + fresh <= tcb.sndWnd) {
    if (sendSegment(tcb, tcb.sndNxt, fresh, TCP_ACK | TCP_PSH)) noteSent(tcb, tcb.sndNxt, fresh, TCP_ACK | TCP_PSH)
    return
  }
  const highRxt = tcb.highRxt
  const end = seqLt(tcb.sndEnd, tcb.sndMax) ? tcb.sndEnd : tcb.sndMax
  retransmit(tcb, seqLt(end - limit, tcb.sndUna) ? tcb.sndUna : end - limit)
  tcb.highRxt = highRxt
}

function highestSacked(tcb: Tcb): u32 {
  const count = rangeCount(tcb)
  return count ? rangeEnd(tcb, count - 1) : tcb.sndUna
}

/** Sends the segment at `sequence` again, up to the next SACKed byte. Returns its bytes, FIN counted, or 0 if it could not leave. */
function retransmit(tcb: Tcb, sequence: u32): u32 {
  const queued = seqLt(sequence, tcb.sndEnd) ? tcb.sndEnd - sequence : 0
  let bytes = min<u32>(queued, payloadLimit(tcb))
  bytes = min<u32>(bytes, holeEnd(tcb, sequence, sequence + bytes) - sequence)
  if (seqLt(tcb.sndMax, sequence + bytes)) bytes = tcb.sndMax - sequence
  let flags = TCP_ACK
  if (sequence + bytes == tcb.sndEnd && (tcb.flags & F_FIN_SENT) != 0) flags |= TCP_FIN
  if (bytes == 0 && (flags & TCP_FIN) == 0) return 0
  if (!sendSegment(tcb, sequence, bytes, flags)) return 0
  noteSent(tcb, sequence, bytes, flags)
  if (sequence == tcb.sndUna) tcb.rxtMark = tcb.sndMax
  const span = bytes + (flags & TCP_FIN ? 1 : 0)
  tcb.highRxt = seqMax(tcb.highRxt, sequence + span)
  return span
}
