import { creditReturn } from '../socket/credit.ts'
import { state } from '../state.ts'
import { TCP_FIN, TCP_SYN, tcpAcknowledgement, tcpFlags, tcpSequence, tcpWindow } from '../wire/tcp.ts'
import { congestionAcked } from './congestion.ts'
import { options } from './options.ts'
import { recoveryAcked, recoveryDelivered, recoveryDuplicate } from './recovery.ts'
import { sackedBytes, scoreboardAdd, scoreboardAdvance } from './scoreboard.ts'
import { sendQueueAdvance } from './sendqueue.ts'
import { seqLeq, seqLt, seqMax } from './sequence.ts'
import {
  F_FIN_QUEUED,
  F_FIN_SENT,
  F_HOST,
  F_LOSS,
  F_RECOVERY,
  F_SACK,
  F_TAIL_PROBED,
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
  const held = tcb.sndUna + sackedBytes(tcb)
  takeAcknowledgement(tcb, segment, bytes)
  if ((tcb.flags & (F_RECOVERY | F_SACK)) == (F_RECOVERY | F_SACK)) {
    recoveryDelivered(tcb, tcb.sndUna + sackedBytes(tcb) - held)
  }
}

function takeAcknowledgement(tcb: Tcb, segment: u32, bytes: u32): void {
  const ack = tcpAcknowledgement(segment)
  const sequence = tcpSequence(segment)
  const window = tcpWindow(segment) << tcb.sndScale
  const news = (tcb.flags & F_SACK) != 0 && options().sackBlocks != 0 ? takeSackBlocks(tcb, ack) : 0
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
    return
  }
  // With the window closed, what is answered so is a probe.
  if (ack != tcb.sndUna || !outstanding || tcb.sndWnd == 0) return
  const duplicate = bytes == 0 && sameWindow && (tcpFlags(segment) & (TCP_SYN | TCP_FIN)) == 0
  if (tcb.flags & F_SACK ? news != 0 : duplicate) recoveryDuplicate(tcb)
}

/** Notes the SACK blocks that are possible (RFC 2018 §5); returns the bytes that are news. */
function takeSackBlocks(tcb: Tcb, ack: u32): u32 {
  const o = options()
  let news: u32 = 0
  for (let i: u32 = 0; i < o.sackBlocks; i++) {
    const start = bswap<u32>(load<u32>(o.sackAddress + i * 8))
    const end = bswap<u32>(load<u32>(o.sackAddress + i * 8 + 4))
    // Above what is acknowledged and within what was sent; a D-SACK block (RFC 2883) lies below and is passed over.
    if (!seqLt(start, end) || !seqLt(seqMax(tcb.sndUna, ack), start) || seqLt(tcb.sndMax, end)) continue
    news += scoreboardAdd(tcb, start, end)
  }
  return news
}

function advance(tcb: Tcb, ack: u32): void {
  const bytes = ack - tcb.sndUna
  const flight = tcb.sndMax - tcb.sndUna
  const dataBefore = seqLeq(tcb.sndUna, tcb.sndEnd) ? tcb.sndUna : tcb.sndEnd
  const dataAfter = seqLt(tcb.sndEnd, ack) ? tcb.sndEnd : ack
  if ((tcb.flags & F_TIMING) != 0 && seqLeq(tcb.rttSequence, ack)) {
    tcb.flags &= ~F_TIMING
    rttSample(tcb, state().nowUs - tcb.rttStartUs)
  }
  tcb.sndUna = ack
  tcb.sndNxt = seqMax(tcb.sndNxt, ack)
  tcb.stalledMs = state().nowMs
  tcb.backoff = 0
  sendQueueAdvance(tcb, dataAfter)
  scoreboardAdvance(tcb, ack)
  if (tcb.flags & F_RECOVERY) recoveryAcked(tcb, bytes)
  else {
    tcb.dupAcks = 0
    congestionAcked(tcb, bytes, flight)
    if ((tcb.flags & F_LOSS) != 0 && !seqLt(ack, tcb.recover)) tcb.flags &= ~F_LOSS
  }
  // RFC 6298 (5.2), (5.3)
  tcb.flags &= ~F_TAIL_PROBED
  if (seqLt(ack, tcb.sndMax)) lossTimerStart(tcb)
  else timerStop(tcb, TIMER_RETRANSMIT)
  if (tcb.sndHead != 0 || ((tcb.flags & F_FIN_QUEUED) != 0 && (tcb.flags & F_FIN_SENT) == 0)) wantOutput(tcb)
  else if ((tcb.flags & F_FIN_SENT) != 0 && seqLt(tcb.sndNxt, tcb.sndMax)) wantOutput(tcb)
  creditReturn(tcb, dataAfter - dataBefore)
}
