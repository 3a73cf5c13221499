import { TRACE_TCP_RETRANSMIT } from '../../abi/trace.ts'
import { trace } from '../hal/trace.ts'
import { counters } from '../state.ts'
import { TCP_ACK, TCP_FIN, TCP_PSH } from '../wire/tcp.ts'
import { congestionLoss } from './congestion.ts'
import { BURST_SEGMENTS, neighborMissing, noteSent, payloadLimit, sendSegment } from './output.ts'
import { rackJudge, reorderWindowAge } from './rack.ts'
import {
  firstLost,
  heldBytes,
  lostBytes,
  lostEndFrom,
  nextHeld,
  scoreboardFull,
  scoreboardRepeat,
  skipHeld,
} from './scoreboard.ts'
import { seqLt } from './sequence.ts'
import {
  F_FIN_SENT,
  F_LOSS,
  F_PROBE_REPEATED,
  F_PROBE_TIMER,
  F_RECOVERY,
  F_REPEAT_FIRST,
  F_SACK,
  F_TIMING,
  Tcb,
  TIMER_RETRANSMIT,
  wantOutput,
} from './tcb.ts'
import { timerStart, WORST_ACK_DELAY_MS } from './timer.ts'

/**
 * Loss recovery: by RACK-TLP (RFC 8985) with proportional rate reduction (RFC 6937) where the peer allows SACK, by NewReno (RFC 6582)
 * otherwise. What is sent in recovery is chosen by `recoveryOutput`; before and after, by `sendNew`.
 */

/** How long a peer is thought to keep an ACK back for that has just seen a loss: by RFC 5681 §4.2 it is quick then, and most stacks stay so for a while. */
const QUICK_ACK_MS: u8 = 2
/** RFC 5681 §3.2: duplicate ACKs that mean a loss. */
const DUP_THRESHOLD: u32 = 3

/** A duplicate ACK of a peer without SACK (RFC 5681 §2): the third one enters recovery. */
export function recoveryDuplicate(tcb: Tcb): void {
  wantOutput(tcb)
  if (tcb.flags & (F_RECOVERY | F_LOSS)) {
    // RFC 5681 §3.2 (4): each duplicate is a segment that has left the network; there are no more than were in it (§3.2, end).
    if ((tcb.flags & F_RECOVERY) != 0 && tcb.cwnd < tcb.ssthresh + (tcb.recover - tcb.sndUna)) tcb.cwnd += tcb.mss
    return
  }
  if (tcb.dupAcks < 255) tcb.dupAcks++
  // Limited transmit (RFC 3042): one new segment for each of the first two.
  if (<u32>tcb.dupAcks < DUP_THRESHOLD) return
  enterRecovery(tcb)
  tcb.cwnd = tcb.ssthresh + DUP_THRESHOLD * <u32>tcb.mss
}

/** Something became known of what a peer with SACK has, or the reordering window has passed: enters recovery when something is lost. */
export function recoveryJudge(tcb: Tcb): void {
  if (tcb.scoreboard == 0 || (tcb.flags & F_LOSS) != 0) return
  rackJudge(tcb)
  if (lostBytes(tcb) == 0) return
  if ((tcb.flags & F_RECOVERY) == 0) enterRecovery(tcb)
  wantOutput(tcb)
}

/** The window comes down, and the first segment goes out whatever it says (RFC 6675 §5 (4.3)). */
function enterRecovery(tcb: Tcb): void {
  const flight = tcb.sndMax - tcb.sndUna
  trace(TRACE_TCP_RETRANSMIT, 2, tcb.handle, tcb.sndUna)
  counters().tcpFastRetransmits++
  congestionLoss(tcb, flight)
  tcb.flags = (tcb.flags | F_RECOVERY) & ~(F_TIMING | F_PROBE_TIMER | F_PROBE_REPEATED)
  tcb.recover = tcb.sndMax
  tcb.recoverFlight = flight
  tcb.prrDelivered = tcb.prrOut = 0
  if (tcb.ackDelayMs > QUICK_ACK_MS) tcb.ackDelayMs = QUICK_ACK_MS
  if (!(tcb.flags & F_SACK ? repeatLost(tcb, firstLost(tcb)) : repeat(tcb, tcb.sndUna, tcb.sndMax))) {
    tcb.flags |= F_REPEAT_FIRST
  }
  timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
}

/** sndUna has moved while in recovery. @param bytes acknowledged */
export function recoveryAcked(tcb: Tcb, bytes: u32): void {
  if (!seqLt(tcb.sndUna, tcb.recover)) {
    // Full acknowledgement (RFC 6582 §3.2 (3), RFC 6675 §5): deflate to ssthresh.
    tcb.flags &= ~(F_RECOVERY | F_REPEAT_FIRST)
    tcb.cwnd = tcb.ssthresh
    tcb.dupAcks = 0
    reorderWindowAge(tcb)
    return
  }
  if (tcb.flags & F_SACK) return
  // Partial acknowledgement: the next hole is at sndUna (RFC 6582 §3.2 (4)).
  tcb.flags |= F_REPEAT_FIRST
  tcb.cwnd = tcb.cwnd > bytes ? tcb.cwnd - bytes : <u32>tcb.mss
  if (bytes >= <u32>tcb.mss) tcb.cwnd += tcb.mss
}

/** Bytes that are thought to be in the network: what is neither held by the peer nor lost, each once. */
function pipeBytes(tcb: Tcb): u32 {
  return tcb.sndMax - tcb.sndUna - heldBytes(tcb) - lostBytes(tcb)
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

/** Sends what is lost and then new data while pipe allows (RFC 6675 §5 (C)). False if the ring is full. */
export function recoveryOutput(tcb: Tcb): bool {
  const limit = payloadLimit(tcb)
  if (tcb.flags & F_REPEAT_FIRST) {
    // While it waited the peer may have told that it holds all the rest, even what it does not acknowledge.
    const missing = seqLt(skipHeld(tcb, tcb.sndUna), tcb.sndMax)
    if (missing && !repeatMissing(tcb, tcb.sndUna)) return neighborMissing(tcb)
    tcb.flags &= ~F_REPEAT_FIRST
  }
  let pipe = tcb.flags & F_SACK ? pipeBytes(tcb) : tcb.sndNxt - tcb.sndUna
  for (let n: u32 = 0; n < BURST_SEGMENTS; n++) {
    if (pipe + limit > tcb.cwnd) return true
    const lost = firstLost(tcb)
    if (seqLt(lost, tcb.sndMax)) {
      if (scoreboardFull(tcb)) return true
      const sent = repeatLost(tcb, lost)
      if (!sent) return neighborMissing(tcb)
      pipe += sent
      continue
    }
    // New data, within the peer's window.
    const queued = seqLt(tcb.sndNxt, tcb.sndEnd) ? tcb.sndEnd - tcb.sndNxt : 0
    const window = tcb.sndNxt - tcb.sndUna < tcb.sndWnd ? tcb.sndWnd - (tcb.sndNxt - tcb.sndUna) : 0
    const bytes = min<u32>(min<u32>(queued, limit), window)
    if (bytes == 0) return true
    const flags = tcb.sndNxt + bytes == tcb.sndEnd ? TCP_ACK | TCP_PSH : TCP_ACK
    if (!sendSegment(tcb, tcb.sndNxt, bytes, flags)) return neighborMissing(tcb)
    noteSent(tcb, tcb.sndNxt, bytes, flags)
    pipe += bytes
  }
  return false
}

/**
 * Nothing was heard for two round trips with data outstanding: a new segment if the peer's window has room, else one again, brings an ACK that
 * shows what is missing, long before the retransmission timer would (RFC 8985 §7.3). In recovery it is the first segment that is
 * repeated, as the repetition is what was lost most likely, otherwise the last.
 */
export function tailProbe(tcb: Tcb): void {
  tcb.probes++
  counters().tcpTailProbes++
  const limit = payloadLimit(tcb)
  const fresh = seqLt(tcb.sndNxt, tcb.sndEnd) ? min<u32>(tcb.sndEnd - tcb.sndNxt, limit) : 0
  if (fresh != 0 && tcb.probes == 1 && tcb.sndNxt - tcb.sndUna + fresh <= tcb.sndWnd) {
    if (sendSegment(tcb, tcb.sndNxt, fresh, TCP_ACK | TCP_PSH)) noteSent(tcb, tcb.sndNxt, fresh, TCP_ACK | TCP_PSH)
    return
  }
  const end = seqLt(tcb.sndEnd, tcb.sndMax) ? tcb.sndEnd : tcb.sndMax
  let from = end - limit
  if ((tcb.flags & F_RECOVERY) != 0 || seqLt(from, tcb.sndUna) || skipHeld(tcb, from) != from) from = tcb.sndUna
  const sent = repeatMissing(tcb, from)
  if (sent == 0 || (tcb.flags & F_RECOVERY) != 0) return
  tcb.flags |= F_PROBE_REPEATED
  tcb.probeEnd = from + sent
}

/**
 * An ACK has come after a probe that repeated bytes: says whether these had been lost, which the sender of them alone would not
 * notice (RFC 8985 §7.4).
 *
 * @param twice the ACK says that the peer had them already (D-SACK)
 * @param duplicate it acknowledges nothing new
 */
export function probeAnswered(tcb: Tcb, twice: bool, duplicate: bool): void {
  if (seqLt(tcb.sndUna, tcb.probeEnd)) return
  if (twice || (duplicate && tcb.sndUna == tcb.probeEnd)) {
    // Nothing was lost: the peer was about to answer.
    tcb.flags &= ~F_PROBE_REPEATED
    tcb.ackDelayMs = WORST_ACK_DELAY_MS
  } else if (seqLt(tcb.probeEnd, tcb.sndUna)) {
    tcb.flags &= ~F_PROBE_REPEATED
    if (tcb.flags & (F_RECOVERY | F_LOSS)) return
    congestionLoss(tcb, tcb.cwnd)
    tcb.cwnd = tcb.ssthresh
  }
}

/** Sends again the first segment from `sequence` on that the peer does not hold. Returns as `repeat`. */
function repeatMissing(tcb: Tcb, sequence: u32): u32 {
  const from = skipHeld(tcb, sequence)
  return repeat(tcb, from, nextHeld(tcb, from, tcb.sndMax))
}

/** Sends again what is lost from `sequence` on. Returns as `repeat`. */
function repeatLost(tcb: Tcb, sequence: u32): u32 {
  return repeat(tcb, sequence, lostEndFrom(tcb, sequence))
}

/** Sends the segment at `sequence` again, up to `limit` at most. Returns its bytes, FIN counted, or 0 if it could not leave. */
function repeat(tcb: Tcb, sequence: u32, limit: u32): u32 {
  const queued = seqLt(sequence, tcb.sndEnd) ? tcb.sndEnd - sequence : 0
  const bytes = min<u32>(min<u32>(queued, payloadLimit(tcb)), limit - sequence)
  let flags = TCP_ACK
  if (sequence + bytes == tcb.sndEnd && (tcb.flags & F_FIN_SENT) != 0) flags |= TCP_FIN
  if (bytes == 0 && (flags & TCP_FIN) == 0) return 0
  if (!sendSegment(tcb, sequence, bytes, flags)) return 0
  noteSent(tcb, sequence, bytes, flags)
  const span = bytes + (flags & TCP_FIN ? 1 : 0)
  if (tcb.flags & F_SACK) scoreboardRepeat(tcb, sequence, sequence + span)
  return span
}
