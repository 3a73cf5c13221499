import { BOOT_FLAG_NO_TAIL_PROBES } from '../../abi/boot.ts'
import { STATUS_ETIMEDOUT } from '../../abi/status.ts'
import { TCP_ESTABLISHED, TCP_FIN_WAIT_2, TCP_SYN_RECEIVED, TCP_SYN_SENT } from '../../abi/tcp.ts'
import { TRACE_TCP_RETRANSMIT } from '../../abi/trace.ts'
import { PANIC_TABLE, panic } from '../hal/panic.ts'
import { msReached } from '../hal/timer.ts'
import { trace } from '../hal/trace.ts'
import { moveTimer } from '../ipos/give.ts'
import { timerArm } from '../mem/wheel.ts'
import { placementTimeout } from '../socket/attach.ts'
import { counters, state } from '../state.ts'
import { TCP_ACK } from '../wire/tcp.ts'
import { tcpAbandon, tcpFail } from './close.ts'
import { congestionTimeout } from './congestion.ts'
import { openPath } from './handshake.ts'
import { payloadLimit, sendSegment } from './output.ts'
import { rackWaits, reorderWindowUs } from './rack.ts'
import { recoveryJudge, tailProbe } from './recovery.ts'
import { scoreboardClose, scoreboardForgetRepeated, skipHeld } from './scoreboard.ts'
import { seqLt, seqMax } from './sequence.ts'
import {
  F_ACK_NOW,
  F_ACTIVE,
  F_ATTACHED,
  F_FROZEN,
  F_LOSS,
  F_PROBE,
  F_PROBE_REPEATED,
  F_PROBE_TIMER,
  F_RECOVERY,
  F_REPEAT_FIRST,
  F_SACK,
  F_TIMING,
  Tcb,
  TIMER_DELAYED_ACK,
  TIMER_KEEP_ALIVE,
  TIMER_PERSIST,
  TIMER_RETRANSMIT,
  TIMER_STATE,
  wantOutput,
} from './tcb.ts'

/** RFC 6298 (2.1): RTO before the first measurement, and (2.5) its upper bound; milliseconds. */
export const RTO_INITIAL_MS: u32 = 1000
export const RTO_MAXIMUM_MS: u32 = 60000
/** How long FIN-WAIT-2 lasts once the application has let go, milliseconds. */
export const FIN_WAIT_2_MS: u32 = 60000
/** How long a peer may keep an ACK back for, until it has shown that it does not, milliseconds (RFC 8985 §7.2: TLP.max_ack_delay). */
export const WORST_ACK_DELAY_MS: u8 = 200
/** Tail loss probes before the RTO: the second is for the loss of the first. */
const MAXIMUM_PROBES: u8 = 2
/** Repetitions of SYN, over 3 minutes at least (RFC 9293 §3.8.3, MUST-23), and of SYN-ACK. */
const SYN_RETRIES: u32 = 8
const SYN_ACK_RETRIES: u32 = 5
/** RFC 9293 §3.8.4: probes without an answer before the connection is dead, and the time between them. */
const KEEP_ALIVE_PROBES: u32 = 9
const KEEP_ALIVE_INTERVAL_MS: u32 = 75000

/** Sets or moves one of the TCB's deadlines. @param timer TIMER_* */
export function timerStart(tcb: Tcb, timer: u32, delayMs: u32): void {
  const deadline = state().nowMs + max<u32>(delayMs, 1)
  tcb.timers |= timer
  if (timer == TIMER_DELAYED_ACK) tcb.delayedAckMs = deadline
  else if (timer == TIMER_KEEP_ALIVE) tcb.keepAliveMs = deadline
  else if (timer == TIMER_STATE) tcb.stateMs = deadline
  else tcb.retransmitMs = deadline // retransmission and persist are never on together
  timerArm(tcb, deadline)
}

/**
 * Starts the retransmission timer anew, or a shorter time: the reordering window while something is late (RFC 8985 §6.3), else the probe timeout
 * (§7.2) where a tail loss probe may be sent, as the peer speaks SACK and no timeout has passed.
 */
export function lossTimerStart(tcb: Tcb): void {
  let delayMs = tcb.rtoMs
  tcb.flags &= ~F_PROBE_TIMER
  if (mayHurry(tcb)) {
    let soonMs: u32 = RTO_MAXIMUM_MS
    if (rackWaits(tcb)) soonMs = reorderWindowUs(tcb) / 1000 + 1
    else if (mayProbe(tcb)) soonMs = probeTimeoutMs(tcb)
    if (soonMs < delayMs) {
      delayMs = soonMs
      tcb.flags |= F_PROBE_TIMER
    }
  }
  timerStart(tcb, TIMER_RETRANSMIT, delayMs)
}

/** The peer speaks SACK, and no timeout has passed. */
function mayHurry(tcb: Tcb): bool {
  return (tcb.flags & (F_SACK | F_LOSS)) == F_SACK && tcb.backoff == 0
}

function mayProbe(tcb: Tcb): bool {
  return (
    tcb.probes < MAXIMUM_PROBES && tcb.srttUs != 0 && tcb.sndWnd != 0 && (state().flags & BOOT_FLAG_NO_TAIL_PROBES) == 0
  )
}

/** RFC 8985 §7.2, rounded up. */
function probeTimeoutMs(tcb: Tcb): u32 {
  const timeoutMs: u32 = (2 * tcb.srttUs + 999) / 1000 + 1
  return probesAlone(tcb) ? timeoutMs + tcb.ackDelayMs : timeoutMs
}

/**
 * True if a probe could only repeat a lone segment, whose ACK may just be delayed. With bytes that wait for it the probe sends these, which
 * costs nothing, and the peer answers two segments at once.
 */
export function probesAlone(tcb: Tcb): bool {
  const alone = tcb.sndMax - tcb.sndUna <= <u32>tcb.mss
  return alone && (!seqLt(tcb.sndNxt, tcb.sndEnd) || tcb.sndNxt - tcb.sndUna >= tcb.sndWnd)
}

/** There is more to send than the lone segment that the timer was started for: the time for its delayed ACK need not pass. */
export function lossTimerHasten(tcb: Tcb): void {
  const soonMs = state().nowMs + probeTimeoutMs(tcb)
  if (mayHurry(tcb) && mayProbe(tcb) && <i32>(tcb.retransmitMs - soonMs) > 0) lossTimerStart(tcb)
}

/** The wheel may still look at the TCB; it finds nothing due. */
export function timerStop(tcb: Tcb, timer: u32): void {
  tcb.timers &= ~timer
}

/**
 * A round trip was measured (RFC 6298 §2).
 *
 * @param sampleUs microseconds
 * @param lone nothing but the segment measured was outstanding, so that the peer may have waited with its ACK
 */
export function rttSample(tcb: Tcb, sampleUs: u32, lone: bool): void {
  if (tcb.srttUs == 0) {
    tcb.srttUs = max<u32>(sampleUs, 1)
    tcb.rttvarUs = sampleUs >>> 1
  } else {
    const error = <i32>(tcb.srttUs - sampleUs)
    const magnitude = <u32>(error < 0 ? -error : error)
    tcb.rttvarUs += <u32>((<i32>magnitude - <i32>tcb.rttvarUs) >> 2)
    tcb.srttUs = max<u32>(tcb.srttUs - <u32>(error >> 3), 1)
  }
  if (tcb.minRttUs == 0 || sampleUs < tcb.minRttUs) tcb.minRttUs = max<u32>(sampleUs, 1)
  // One quick answer does not make a quick peer.
  if (lone) {
    const waitedMs = min<u32>((sampleUs - tcb.minRttUs + 999) / 1000, WORST_ACK_DELAY_MS)
    tcb.ackDelayMs = <u8>max<u32>(waitedMs, tcb.ackDelayMs >>> 1)
  }
  const rto = (tcb.srttUs + max<u32>(4 * tcb.rttvarUs, 1000) + 999) / 1000
  tcb.rtoMs = min<u32>(max<u32>(rto, state().rtoMinimumMs), RTO_MAXIMUM_MS)
}

/** The wheel found this TCB: serves what is due and arms it for what is left. */
export function tcpTimer(tcb: Tcb): void {
  if (tcb.flags & F_FROZEN) {
    moveTimer(tcb)
    return
  }
  const now = state().nowMs
  const timers = tcb.timers
  if (timers & TIMER_DELAYED_ACK && msReached(now, tcb.delayedAckMs)) {
    tcb.timers &= ~TIMER_DELAYED_ACK
    tcb.flags |= F_ACK_NOW
    wantOutput(tcb)
  }
  if (timers & TIMER_STATE && msReached(now, tcb.stateMs)) {
    tcb.timers &= ~TIMER_STATE
    if (!stateTimeout(tcb)) return
  }
  if (timers & (TIMER_RETRANSMIT | TIMER_PERSIST) && msReached(now, tcb.retransmitMs)) {
    if (timers & TIMER_PERSIST) persistTimeout(tcb)
    else retransmitTimeout(tcb)
    if (tcb.state == 0) return
  }
  if (timers & TIMER_KEEP_ALIVE && msReached(now, tcb.keepAliveMs)) {
    if (!keepAliveTimeout(tcb)) return
  }
  timersResume(tcb)
}

/** Arms the wheel for the nearest of the deadlines. */
export function timersResume(tcb: Tcb): void {
  const timers = tcb.timers
  if (timers & TIMER_DELAYED_ACK) timerArm(tcb, tcb.delayedAckMs)
  if (timers & (TIMER_RETRANSMIT | TIMER_PERSIST)) timerArm(tcb, tcb.retransmitMs)
  if (timers & TIMER_KEEP_ALIVE) timerArm(tcb, tcb.keepAliveMs)
  if (timers & TIMER_STATE) timerArm(tcb, tcb.stateMs)
}

/** The connection stayed too long in a state. False if it is gone. */
function stateTimeout(tcb: Tcb): bool {
  if (tcb.state == TCP_FIN_WAIT_2) {
    // The application has let go and the peer does not finish: common practice, RFC 9293 §3.6 leaves it open.
    tcpAbandon(tcb, false)
    return false
  }
  if (tcb.flags & F_ATTACHED) return true
  if (tcb.state == TCP_SYN_RECEIVED) return true // its retransmissions end it
  return placementTimeout(tcb)
}

function retransmitTimeout(tcb: Tcb): void {
  const st = state()
  tcb.timers &= ~TIMER_RETRANSMIT
  // A link on the way may be down; there may be another one (RFC 1122 §4.2.3.9, net/route.ts).
  openPath(tcb)
  if (tcb.state == TCP_SYN_SENT || tcb.state == TCP_SYN_RECEIVED) {
    tcb.backoff++
    const retries = tcb.state == TCP_SYN_SENT ? SYN_RETRIES : SYN_ACK_RETRIES
    if (<u32>tcb.backoff > retries) {
      if (tcb.flags & F_ACTIVE) tcpFail(tcb, STATUS_ETIMEDOUT)
      else tcpAbandon(tcb, false)
      return
    }
    tcb.flags &= ~F_TIMING
    tcb.rtoMs = min<u32>(tcb.rtoMs << 1, RTO_MAXIMUM_MS)
    tcb.sndNxt = tcb.iss
    counters().tcpRetransmits++
    timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
    wantOutput(tcb)
    return
  }
  if (!seqLt(tcb.sndUna, tcb.sndMax)) return
  if (tcb.flags & F_PROBE_TIMER) {
    tcb.flags &= ~F_PROBE_TIMER
    if (rackWaits(tcb)) recoveryJudge(tcb)
    else if (probeIsEarly(tcb)) return
    else tailProbe(tcb)
    lossTimerStart(tcb)
    return
  }
  if (st.nowMs - tcb.stalledMs >= st.userTimeoutMs) {
    tcpFail(tcb, STATUS_ETIMEDOUT)
    return
  }
  if (tcb.sndWnd == 0 && tcb.sndHead != 0) {
    // The window closed over what is in flight: probe, and leave the congestion state alone.
    tcb.sndNxt = tcb.sndUna
    persistTimeout(tcb)
    return
  }
  counters().tcpTimeouts++
  trace(TRACE_TCP_RETRANSMIT, 1, tcb.handle, tcb.sndUna)
  // Once per loss event: further timeouts of the same data do not lower ssthresh again (RFC 5681 §3.1).
  if (tcb.backoff == 0) congestionTimeout(tcb, tcb.sndMax - tcb.sndUna)
  else tcb.cwnd = tcb.mss
  if (tcb.backoff < 255) tcb.backoff++
  // The peer holds sndUna and does not acknowledge it: it has discarded what it SACKed (RFC 2018 §8).
  if (skipHeld(tcb, tcb.sndUna) != tcb.sndUna) scoreboardClose(tcb)
  else scoreboardForgetRepeated(tcb)
  tcb.flags = (tcb.flags & ~(F_RECOVERY | F_REPEAT_FIRST | F_PROBE_REPEATED | F_TIMING)) | F_LOSS
  tcb.probes = 0
  tcb.dupAcks = 0
  tcb.recover = tcb.sndMax
  tcb.sndNxt = tcb.sndUna
  // RFC 6298 (5.5): back off the timer. It stays so until a new measurement (Karn's algorithm).
  tcb.rtoMs = min<u32>(tcb.rtoMs << 1, RTO_MAXIMUM_MS)
  timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
  wantOutput(tcb)
}

/** The probe timeout counts from the last segment with new bytes (RFC 8985 §7.2): if one left since the timer was started, waits for the rest. */
function probeIsEarly(tcb: Tcb): bool {
  const leftMs = <i32>(tcb.lastSentMs + probeTimeoutMs(tcb) - state().nowMs)
  if (leftMs <= 0) return false
  tcb.flags |= F_PROBE_TIMER
  timerStart(tcb, TIMER_RETRANSMIT, leftMs)
  return true
}

/** The window stays closed, or too small to be worth a segment: one byte, or as much as fits (RFC 9293 §3.8.6.1, §3.8.6.2.1). */
function persistTimeout(tcb: Tcb): void {
  const st = state()
  tcb.timers &= ~TIMER_PERSIST
  if (tcb.sndHead == 0) return
  if (st.nowMs - tcb.stalledMs >= st.userTimeoutMs) {
    tcpFail(tcb, STATUS_ETIMEDOUT)
    return
  }
  counters().tcpZeroWindowProbes++
  // One byte is sent but not counted as sent: the window decides whether the peer keeps it.
  if (seqLt(tcb.sndUna, tcb.sndEnd)) {
    const bytes = min<u32>(min<u32>(max<u32>(tcb.sndWnd, 1), tcb.sndEnd - tcb.sndUna), payloadLimit(tcb))
    sendSegment(tcb, tcb.sndUna, bytes, TCP_ACK)
    tcb.sndMax = seqMax(tcb.sndMax, tcb.sndUna + bytes)
  }
  if (tcb.backoff < 15) tcb.backoff++
  timerStart(tcb, TIMER_PERSIST, min<u32>(tcb.rtoMs << min<u32>(tcb.backoff, 10), RTO_MAXIMUM_MS))
}

/** False if the peer is dead. */
function keepAliveTimeout(tcb: Tcb): bool {
  tcb.timers &= ~TIMER_KEEP_ALIVE
  if (tcb.state < <u8>TCP_ESTABLISHED) panic(PANIC_TABLE, tcb.state)
  if (<u32>tcb.keepAliveProbes >= KEEP_ALIVE_PROBES) {
    tcpFail(tcb, STATUS_ETIMEDOUT)
    return false
  }
  if (tcb.sndUna == tcb.sndMax) {
    tcb.keepAliveProbes++
    counters().tcpKeepAliveProbes++
    tcb.flags |= F_PROBE
    wantOutput(tcb)
  }
  timerStart(tcb, TIMER_KEEP_ALIVE, KEEP_ALIVE_INTERVAL_MS)
  return true
}

/** Something was heard from the peer: the idle time starts again. */
export function keepAliveHeard(tcb: Tcb): void {
  tcb.keepAliveProbes = 0
  tcb.keepAliveMs = state().nowMs + tcb.keepAliveIdleMs
}
