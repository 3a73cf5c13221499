import { creditReturn } from '../socket/credit.ts'
import { state } from '../state.ts'
import { TCP_FIN, TCP_SYN, tcpAcknowledgement, tcpFlags, tcpSequence, tcpWindow } from '../wire/tcp.ts'
import { congestionAcked } from './congestion.ts'
import { options } from './options.ts'
import { reorderWindowWiden } from './rack.ts'
import { probeAnswered, recoveryAcked, recoveryDelivered, recoveryDuplicate, recoveryJudge } from './recovery.ts'
import { heldBytes, scoreboardAdvance, scoreboardHold, scoreboardSettle } from './scoreboard.ts'
import { sendQueueAdvance } from './sendqueue.ts'
import { seqLeq, seqLt, seqMax } from './sequence.ts'
import {
  F_FIN_QUEUED,
  F_FIN_SENT,
  F_HOST,
  F_LOSS,
  F_PROBE_REPEATED,
  F_RECOVERY,
  F_SACK,
  F_TIMING,
  Tcb,
  TIMER_PERSIST,
  TIMER_RETRANSMIT,
  wantOutput,
} from './tcb.ts'
import { lossTimerStart, rttSample, timerStop } from './timer.ts'

/**
 * The acknowledgement, window and SACK fields of an acceptable segment (RFC 9293 §3.10.7.4, fifth; RFC 5681; RFC 6675).
 *
 * @param bytes of payload in the segment: with any, it is no duplicate ACK
 */
export function acknowledged(tcb: Tcb, segment: u32, bytes: u32): void {
  const una = tcb.sndUna
  const held = una + heldBytes(tcb)
  const twice = takeAcknowledgement(tcb, segment, bytes)
  if (tcb.flags & F_PROBE_REPEATED) probeAnswered(tcb, twice, bytes == 0 && tcb.sndUna == una)
  const delivered = tcb.sndUna + heldBytes(tcb) - held
  if (tcb.scoreboard != 0 && delivered != 0) {
    scoreboardSettle(tcb)
    recoveryJudge(tcb)
    // The time for the reordering window or the next probe begins anew.
    if (seqLt(tcb.sndUna, tcb.sndMax)) lossTimerStart(tcb)
  }
  if ((tcb.flags & (F_RECOVERY | F_SACK)) == (F_RECOVERY | F_SACK)) recoveryDelivered(tcb, delivered)
}

/** Returns true if the peer says that bytes came twice. */
function takeAcknowledgement(tcb: Tcb, segment: u32, bytes: u32): bool {
  const ack = tcpAcknowledgement(segment)
  const sequence = tcpSequence(segment)
  const window = tcpWindow(segment) << tcb.sndScale
  const twice = (tcb.flags & F_SACK) != 0 && options().sackBlocks != 0 && takeSackBlocks(tcb, ack)
  const outstanding = seqLt(tcb.sndUna, tcb.sndMax)
  const sameWindow = window == tcb.sndWnd

  // SND.WL1 and WL2 keep an old segment from setting the window.
  if (!seqLt(ack, tcb.sndUna) && (seqLt(tcb.sndWl1, sequence) || (tcb.sndWl1 == sequence && seqLeq(tcb.sndWl2, ack)))) {
    const reopened = tcb.sndWnd == 0 && window != 0
    tcb.sndWnd = window
    tcb.sndWl1 = sequence
    tcb.sndWl2 = ack
    if (window > tcb.maxSndWnd) tcb.maxSndWnd = window
    // A closed window that is answered for is no dead peer, as long as an application waits for it (RFC 6429 §3).
    if (window == 0 && (tcb.flags & F_HOST) != 0) tcb.stalledMs = state().nowMs
    if (reopened) {
      timerStop(tcb, TIMER_PERSIST)
      tcb.backoff = 0
      wantOutput(tcb)
    } else if (!sameWindow && (tcb.sndHead != 0 || (tcb.flags & F_FIN_QUEUED) != 0)) wantOutput(tcb)
  }

  if (seqLt(tcb.sndUna, ack)) {
    advance(tcb, ack)
    return twice
  }
  // With the window closed, what is answered so is a probe. With SACK the blocks tell more than the ACK (RFC 8985 §3).
  if (ack != tcb.sndUna || !outstanding || tcb.sndWnd == 0 || (tcb.flags & F_SACK) != 0) return twice
  if (bytes == 0 && sameWindow && (tcpFlags(segment) & (TCP_SYN | TCP_FIN)) == 0) recoveryDuplicate(tcb)
  return false
}

/** Notes the SACK blocks that are possible (RFC 2018 §5). Returns true if the first one tells of bytes that came twice (RFC 2883 §4). */
function takeSackBlocks(tcb: Tcb, ack: u32): bool {
  const o = options()
  const una = seqMax(tcb.sndUna, ack)
  let news: u32 = 0
  let twice: bool = false
  let firstStart: u32 = 0
  let firstEnd: u32 = 0
  for (let i: u32 = 0; i < o.sackBlocks; i++) {
    const start = bswap<u32>(load<u32>(o.sackAddress + i * 8))
    const end = bswap<u32>(load<u32>(o.sackAddress + i * 8 + 4))
    if (!seqLt(start, end)) continue
    if (i == 0) {
      firstStart = start
      firstEnd = end
      // Acknowledged already, and not long ago.
      twice = seqLeq(end, una) && una - start <= tcb.maxSndWnd
    } else if (i == 1 && seqLeq(start, firstStart) && seqLeq(firstEnd, end) && seqLt(firstStart, firstEnd)) twice = true
    // Above what is acknowledged and within what was sent, by distances: three pairs of numbers may each be in order and all of it nonsense.
    const from = start - una
    const to = end - una
    if (from != 0 && from < to && to <= tcb.sndMax - una) news += scoreboardHold(tcb, start, end)
  }
  if (news != 0) wantOutput(tcb)
  // Of what a recovery has repeated, not a probe or the network.
  if (twice && (tcb.flags & F_PROBE_REPEATED) == 0 && seqLeq(firstEnd, tcb.recover)) reorderWindowWiden(tcb)
  return twice
}

function advance(tcb: Tcb, ack: u32): void {
  const bytes = ack - tcb.sndUna
  const flight = tcb.sndMax - tcb.sndUna
  const dataBefore = seqLeq(tcb.sndUna, tcb.sndEnd) ? tcb.sndUna : tcb.sndEnd
  const dataAfter = seqLt(tcb.sndEnd, ack) ? tcb.sndEnd : ack
  if ((tcb.flags & F_TIMING) != 0 && seqLeq(tcb.rttSequence, ack)) {
    tcb.flags &= ~F_TIMING
    rttSample(tcb, state().nowUs - tcb.rttStartUs, flight <= <u32>tcb.mss)
  }
  scoreboardAdvance(tcb, ack)
  tcb.sndUna = ack
  tcb.sndNxt = seqMax(tcb.sndNxt, ack)
  tcb.stalledMs = state().nowMs
  tcb.backoff = 0
  sendQueueAdvance(tcb, dataAfter)
  if (tcb.flags & F_RECOVERY) recoveryAcked(tcb, bytes)
  else {
    tcb.dupAcks = 0
    congestionAcked(tcb, bytes, flight)
    if ((tcb.flags & F_LOSS) != 0 && !seqLt(ack, tcb.recover)) tcb.flags &= ~F_LOSS
  }
  tcb.probes = 0
  // RFC 6298 (5.2), (5.3)
  if (seqLt(ack, tcb.sndMax)) lossTimerStart(tcb)
  else timerStop(tcb, TIMER_RETRANSMIT)
  if (tcb.sndHead != 0 || ((tcb.flags & F_FIN_QUEUED) != 0 && (tcb.flags & F_FIN_SENT) == 0)) wantOutput(tcb)
  else if ((tcb.flags & F_FIN_SENT) != 0 && seqLt(tcb.sndNxt, tcb.sndMax)) wantOutput(tcb)
  creditReturn(tcb, dataAfter - dataBefore)
}
