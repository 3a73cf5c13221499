import { RELEASE_UNKNOWN } from '../../abi/ipos.ts'
import { STATUS_ECONNREFUSED, STATUS_ECONNRESET } from '../../abi/status.ts'
import {
  TCP_CLOSED,
  TCP_CLOSING,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT_1,
  TCP_FIN_WAIT_2,
  TCP_LAST_ACK,
  TCP_SYN_RECEIVED,
  TCP_SYN_SENT,
} from '../../abi/tcp.ts'
import { DROP_TCP_CHECKSUM, DROP_TCP_HEADER, DROP_TCP_PAWS, DROP_TCP_WINDOW } from '../../abi/trace.ts'
import { msReached } from '../hal/timer.ts'
import { drop } from '../hal/trace.ts'
import { FORWARD_TAG } from '../ipos/forward.ts'
import { hold } from '../ipos/held.ts'
import { forwardedInput, forwardedUnknown } from '../ipos/input.ts'
import { counters, state } from '../state.ts'
import { checksumAdd, checksumFold, pseudoHeaderSum } from '../wire/checksum.ts'
import { IPV4_PROTOCOL_TCP, ipv4Destination, ipv4Source } from '../wire/ipv4.ts'
import {
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  tcpAcknowledgement,
  tcpDestinationPort,
  tcpFlags,
  tcpHeaderBytes,
  tcpSequence,
  tcpSourcePort,
} from '../wire/tcp.ts'
import { acknowledged } from './ack.ts'
import { enterTimeWait, fullyClosed, tcpAbandon, tcpFail } from './close.ts'
import { established, handshakeInput, synSentInput, timeWaitInput } from './handshake.ts'
import { options, parseOptions } from './options.ts'
import { receivedTwice, receiveSegment } from './rcv.ts'
import { challengeAck, replyReset } from './reset.ts'
import { inWindow, seqLeq, seqLt } from './sequence.ts'
import { tableFind } from './table.ts'
import {
  F_ACK_NOW,
  F_ACTIVE,
  F_FIN_SENT,
  F_FROZEN,
  F_HOST,
  F_KEEP_ALIVE,
  F_TIMESTAMPS,
  setState,
  Tcb,
  TIMER_STATE,
  tcbAt,
  wantOutput,
} from './tcb.ts'
import { FIN_WAIT_2_MS, keepAliveHeard, timerStart } from './timer.ts'
import { TIME_WAIT_TAG } from './timewait.ts'

/** A timestamp older than this says nothing any more (RFC 7323 §5.5), milliseconds. */
const TS_VALID_MS: u32 = 24 * 86400 * 1000
/** Shortest time between two answers to bare ACKs that are not acceptable, milliseconds. */
const BARE_ANSWER_MS: u32 = 100

/**
 * A TCP segment has arrived for one of our addresses.
 *
 * @param interfaceIndex where it came in
 * @param packet its IPv4 header, checked
 * @param segment its TCP header, `segmentBytes` with payload
 * @param transient the memory is used again as soon as this returns; otherwise it stays until the poll is over
 */
export function tcpInput(interfaceIndex: u32, packet: u32, segment: u32, segmentBytes: u32, transient: bool): void {
  counters().tcpIn++
  if (segmentBytes < TCP_HEADER_BYTES) {
    drop(DROP_TCP_HEADER, segmentBytes, 0)
    return
  }
  const headerBytes = tcpHeaderBytes(segment)
  if (headerBytes < TCP_HEADER_BYTES || headerBytes > segmentBytes) {
    drop(DROP_TCP_HEADER, segmentBytes, headerBytes)
    return
  }
  const remote = ipv4Source(packet)
  const local = ipv4Destination(packet)
  const sum = checksumAdd(segment, segmentBytes, pseudoHeaderSum(remote, local, IPV4_PROTOCOL_TCP, segmentBytes))
  if (checksumFold(sum) != 0xffff) {
    drop(DROP_TCP_CHECKSUM, remote, tcpSourcePort(segment))
    return
  }
  parseOptions(segment, headerBytes)
  const entry = tableFind(local, remote, tcpDestinationPort(segment), tcpSourcePort(segment))
  const payload = segment + headerBytes
  const bytes = segmentBytes - headerBytes
  if (entry == 0) {
    const st = state()
    if (interfaceIndex == st.hubPort) forwardedUnknown(packet, RELEASE_UNKNOWN)
    else handshakeInput(interfaceIndex, packet, segment, payload, bytes, transient, st.isnFloor)
    return
  }
  if (entry & FORWARD_TAG) {
    forwardedInput(entry & ~FORWARD_TAG, packet)
    return
  }
  if (entry & TIME_WAIT_TAG) {
    timeWaitInput(entry & ~TIME_WAIT_TAG, interfaceIndex, packet, segment, payload, bytes, transient)
    return
  }
  const tcb = tcbAt(entry)
  if (tcb.flags & F_FROZEN) hold(tcb, packet)
  else if (tcb.state == TCP_SYN_SENT) synSentInput(tcb, packet, segment, payload, bytes, transient)
  else segmentArrives(tcb, packet, segment, payload, bytes, transient)
}

/** RFC 9293 §3.10.7.4: SYN-RECEIVED and the synchronized states. */
export function segmentArrives(tcb: Tcb, packet: u32, segment: u32, payload: u32, bytes: u32, transient: bool): void {
  let flags = tcpFlags(segment)
  let sequence = tcpSequence(segment)
  if (flags & TCP_RST) {
    resetArrives(tcb, sequence)
    return
  }
  if (flags & TCP_SYN) {
    if (tcb.state != TCP_SYN_RECEIVED || sequence != tcb.irs) {
      // Whatever its sequence number (RFC 5961 §4.2), and in SYN-RECEIVED too: a blind SYN does not end the opening either.
      challengeAck(tcb)
      return
    }
    if ((flags & TCP_ACK) == 0) {
      // The peer has not seen our SYN-ACK.
      counters().tcpDuplicates++
      tcb.sndNxt = tcb.iss
      wantOutput(tcb)
      return
    }
    // Simultaneous open: the SYN is known, its ACK counts (RFC 9293 §3.5, figure 7).
    flags &= ~TCP_SYN
    sequence++
  }
  if (tcb.flags & F_TIMESTAMPS) {
    // Once agreed, a segment without the option is dropped in silence (RFC 7323 §3.2), an old one is answered (§5.3 R1).
    const stamped = options().hasTimestamps
    if (!stamped || !timestampAcceptable(tcb)) {
      drop(DROP_TCP_PAWS, tcb.handle, sequence)
      if (stamped) answerUnacceptable(tcb, bytes, flags)
      return
    }
  }

  // First: the sequence number. Trim to the window; what lies wholly outside is answered and dropped.
  const window = tcb.rcvAdvertised - tcb.rcvNxt
  const length = bytes + (flags & TCP_FIN ? 1 : 0)
  if (!acceptable(tcb.rcvNxt, window, sequence, length)) {
    counters().tcpDuplicates++
    drop(DROP_TCP_WINDOW, tcb.handle, sequence)
    if (window != 0 || sequence != tcb.rcvNxt) {
      if (bytes != 0 && seqLeq(sequence + bytes, tcb.rcvNxt)) receivedTwice(tcb, sequence, sequence + bytes)
      answerUnacceptable(tcb, bytes, flags)
      return
    }
    // A closed window still takes acknowledgements (RFC 9293 §3.10.7.4).
    acknowledgeNow(tcb)
    bytes = 0
    flags &= ~TCP_FIN
  }

  // Fifth: ACK.
  if ((flags & TCP_ACK) == 0) return
  const ack = tcpAcknowledgement(segment)
  if (tcb.state == TCP_SYN_RECEIVED) {
    if (!seqLt(tcb.sndUna, ack) || seqLt(tcb.sndMax, ack)) {
      replyReset(packet, segment, bytes)
      return
    }
    updateTimestamp(tcb, sequence)
    established(tcb, segment)
    if (<u32>tcb.state == TCP_CLOSED) return // its listener is gone
  } else {
    // RFC 5961 §5.2: an acknowledgement far in the past or of what was never sent is answered, not used.
    if (seqLt(ack, tcb.sndUna - tcb.maxSndWnd) || seqLt(tcb.sndMax, ack)) {
      challengeAck(tcb)
      return
    }
    updateTimestamp(tcb, sequence)
  }
  if (tcb.flags & F_KEEP_ALIVE) keepAliveHeard(tcb)
  acknowledged(tcb, segment, bytes)
  if (!ackTransition(tcb)) return

  // Seventh and eighth: text and FIN, trimmed to the window.
  let fin = (flags & TCP_FIN) != 0
  if (bytes == 0 && !fin) return
  const current: u32 = tcb.state
  if (current != TCP_ESTABLISHED && current != TCP_FIN_WAIT_1 && current != TCP_FIN_WAIT_2) return
  if (seqLt(sequence, tcb.rcvNxt)) {
    const skip = tcb.rcvNxt - sequence
    counters().tcpDuplicates++
    receivedTwice(tcb, sequence, sequence + min<u32>(skip, bytes))
    if (skip >= bytes) {
      payload += bytes
      bytes = 0
    } else {
      payload += skip
      bytes -= skip
    }
    sequence = tcb.rcvNxt
  }
  if (seqLt(tcb.rcvAdvertised, sequence + bytes)) {
    bytes = tcb.rcvAdvertised - sequence
    fin = false
  }
  receiveSegment(tcb, sequence, payload, bytes, fin, transient)
}

/** Second: RST. Only the exact next sequence number resets (RFC 5961 §3.2). */
function resetArrives(tcb: Tcb, sequence: u32): void {
  counters().tcpResetsIn++
  if (sequence != tcb.rcvNxt) {
    if (inWindow(sequence, tcb.rcvNxt, tcb.rcvAdvertised - tcb.rcvNxt)) challengeAck(tcb)
    return
  }
  if (tcb.state != TCP_SYN_RECEIVED) tcpFail(tcb, STATUS_ECONNRESET)
  // Back to LISTEN, or the active opener is refused.
  else if (tcb.flags & F_ACTIVE) tcpFail(tcb, STATUS_ECONNREFUSED)
  else tcpAbandon(tcb, false)
}

/** RFC 9293 §3.10.7.4, table of acceptability. */
function acceptable(next: u32, window: u32, sequence: u32, length: u32): bool {
  if (length == 0) return window == 0 ? sequence == next : inWindow(sequence, next, window) || sequence == next
  if (window == 0) return false
  return inWindow(sequence, next, window) || inWindow(sequence + length - 1, next, window)
}

/** PAWS (RFC 7323 §5.3). */
function timestampAcceptable(tcb: Tcb): bool {
  if (!seqLt(options().tsValue, tcb.tsRecent)) return true
  // An idle connection's timestamp grows old and then says nothing.
  return msReached(state().nowMs, tcb.tsRecentMs + TS_VALID_MS)
}

/** RFC 7323 §4.3 (2) and (3): the segment that fills the left edge sets what we echo. */
function updateTimestamp(tcb: Tcb, sequence: u32): void {
  const o = options()
  if (!o.hasTimestamps || (tcb.flags & F_TIMESTAMPS) == 0) return
  if (seqLeq(sequence, tcb.lastAckSent)) {
    tcb.tsRecent = o.tsValue
    tcb.tsRecentMs = state().nowMs
  }
}

/**
 * "If an incoming segment is not acceptable, an acknowledgment should be sent in reply" (RFC 9293 §3.10.7.4). Bare ACKs are
 * answered ten times a second at most, as two ends that disagree would answer each other for ever.
 */
function answerUnacceptable(tcb: Tcb, bytes: u32, flags: u32): void {
  if (bytes == 0 && (flags & (TCP_SYN | TCP_FIN)) == 0) {
    const now = state().nowMs
    if (now - tcb.bareAnswerMs < BARE_ANSWER_MS) return
    tcb.bareAnswerMs = now
  }
  acknowledgeNow(tcb)
}

function acknowledgeNow(tcb: Tcb): void {
  tcb.flags |= F_ACK_NOW
  wantOutput(tcb)
}

/** What the acknowledgement of our FIN changes. False if the endpoint is gone. */
function ackTransition(tcb: Tcb): bool {
  const current: u32 = tcb.state
  if (current == 0) return false
  if (current < <u32>TCP_FIN_WAIT_1 || (tcb.flags & F_FIN_SENT) == 0 || tcb.sndUna != tcb.sndEnd + 1) return true
  if (current == TCP_FIN_WAIT_1) {
    // "if the FIN segment is now acknowledged, then enter FIN-WAIT-2"
    setState(tcb, TCP_FIN_WAIT_2)
    if ((tcb.flags & F_HOST) == 0) timerStart(tcb, TIMER_STATE, FIN_WAIT_2_MS)
    return true
  }
  if (current == TCP_CLOSING) {
    enterTimeWait(tcb)
    return false
  }
  if (current == TCP_LAST_ACK) {
    fullyClosed(tcb)
    return false
  }
  return true
}
