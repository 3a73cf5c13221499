import { BOOT_FLAG_NO_SACK, BOOT_FLAG_NO_TIMESTAMPS, BOOT_FLAG_NO_WINDOW_SCALE } from '../../abi/boot.ts'
import { MAC_MAXIMUM_FRAME } from '../../abi/rings.ts'
import {
  TCP_CLOSE_WAIT,
  TCP_CLOSED,
  TCP_CLOSING,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT_1,
  TCP_LAST_ACK,
  TCP_SYN_RECEIVED,
  TCP_SYN_SENT,
} from '../../abi/tcp.ts'
import { transmitClaim, transmitCommit } from '../hal/mac.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { giveOutput } from '../ipos/give.ts'
import { chunkMeta } from '../mem/chunk.ts'
import { arpLookup } from '../net/arp.ts'
import { ethernetHeader } from '../net/ethernet.ts'
import { interfaceOf, netInterface } from '../net/interface.ts'
import { ipv4Header } from '../net/ipv4.ts'
import { counters, state } from '../state.ts'
import { checksumAdd, checksumFinish, pseudoHeaderSum } from '../wire/checksum.ts'
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4 } from '../wire/ethernet.ts'
import { IPV4_HEADER_BYTES, IPV4_PROTOCOL_TCP } from '../wire/ipv4.ts'
import {
  OPTION_MSS,
  OPTION_NOP,
  OPTION_SACK,
  OPTION_SACK_PERMITTED,
  OPTION_WINDOW_SCALE,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TIMESTAMPS_BYTES,
  tcpHeader,
  tcpTimestamps,
} from '../wire/tcp.ts'
import { congestionIdle } from './congestion.ts'
import { neighborWait } from './neighbor.ts'
import { recoveryOutput } from './recovery.ts'
import { heldBelow, heldBytes, nextHeld, skipHeld } from './scoreboard.ts'
import { sendQueueCopy } from './sendqueue.ts'
import { seqLeq, seqLt, seqMax } from './sequence.ts'
import {
  F_ACK_NOW,
  F_FIN_QUEUED,
  F_FIN_SENT,
  F_FROZEN,
  F_LOSS,
  F_NO_DELAY,
  F_PROBE,
  F_RECOVERY,
  F_SACK,
  F_TIMESTAMPS,
  F_TIMING,
  setState,
  Tcb,
  TIMER_DELAYED_ACK,
  TIMER_PERSIST,
  TIMER_RETRANSMIT,
} from './tcb.ts'
import { lossTimerHasten, lossTimerStart, probesAlone, timerStart, timerStop } from './timer.ts'

/** Longest time that an ACK waits for data to ride on (RFC 9293 §3.8.6.3 allows 500 ms), milliseconds. */
const DELAYED_ACK_MS: u32 = 40
/** What one poll sends for one connection before others have their turn, segments. */
export const BURST_SEGMENTS: u32 = 64
/** IP and TCP headers without options. */
const FIXED_HEADERS: u32 = 40
const TTL: u32 = 64

/** Shift of our receive window (RFC 7323 §2.3); one for all, so that credit can grow to 8 MiB. */
export const RECEIVE_SCALE: u32 = 7

/** The clock of our timestamps (RFC 7323 §5.4): milliseconds, from an offset of the connection's own. */
export function timestampNow(tcb: Tcb): u32 {
  return state().nowMs + tcb.tsOffset
}

/** Largest payload of a segment with the options that every segment carries. */
export function payloadLimit(tcb: Tcb): u32 {
  return <u32>tcb.mss - (tcb.flags & F_TIMESTAMPS ? TIMESTAMPS_BYTES : 0)
}

/** Largest payload that an interface carries (RFC 9293 §3.7.1). */
export function interfaceMss(index: u32): u32 {
  return min<u32>(netInterface(index).mtu, MAC_MAXIMUM_FRAME - ETHERNET_HEADER_BYTES) - FIXED_HEADERS
}

/** Our MSS option (RFC 9293 §3.7.1): segments come in by the interface of our address, and leave by one that may be another. */
export function offeredMss(local: u32, outgoing: u32): u32 {
  const limit = interfaceMss(outgoing)
  const incoming = outgoing == LOOPBACK_PORT ? -1 : interfaceOf(local)
  return incoming < 0 ? limit : min<u32>(limit, interfaceMss(incoming))
}

/**
 * Sends what the connection has to send: SYN, retransmissions, data within the windows, FIN, or a bare ACK. Returns false if the
 * transmit ring was full, so that the connection keeps its place.
 */
export function tcpOutput(tcb: Tcb): bool {
  const current: u32 = tcb.state
  if (current == TCP_CLOSED) return true
  if (tcb.flags & F_FROZEN) return giveOutput(tcb)
  if (current == TCP_SYN_SENT || current == TCP_SYN_RECEIVED) {
    if (tcb.sndNxt != tcb.iss) return current == TCP_SYN_SENT || acknowledge(tcb)
    return sendSyn(tcb)
  }
  // With data missing, the ACK that says so goes by itself: as a duplicate ACK, and with all SACK blocks.
  if (tcb.oooHead != 0 && (tcb.flags & F_ACK_NOW) != 0 && !acknowledge(tcb)) return false
  if (tcb.flags & F_RECOVERY) {
    if (!recoveryOutput(tcb)) return false
  } else if (!sendNew(tcb)) return false
  return acknowledge(tcb)
}

/**
 * Before an endpoint moves: sends what came too late for the last poll, as far as the windows allow; the rest waits until the move is over.
 * A FIN waits too: LAST-ACK does not move.
 */
export function outputBeforeMove(tcb: Tcb): void {
  if ((tcb.flags & (F_FIN_QUEUED | F_RECOVERY | F_LOSS)) == 0) sendNew(tcb)
}

function sendSyn(tcb: Tcb): bool {
  const flags = tcb.state == TCP_SYN_SENT ? TCP_SYN : TCP_SYN | TCP_ACK
  if (!sendSegment(tcb, tcb.iss, 0, flags)) return neighborMissing(tcb)
  tcb.sndNxt = tcb.iss + 1
  if (tcb.sndMax == tcb.iss) {
    tcb.sndMax = tcb.sndNxt
    startTiming(tcb, tcb.sndNxt)
  }
  // A peer that repeats its SYN does not put off the end.
  if ((tcb.timers & TIMER_RETRANSMIT) == 0) timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
  return true
}

/** A segment could not leave: true if it waits for its neighbour's address, false if the ring is full. */
export function neighborMissing(tcb: Tcb): bool {
  if (tcb.arpEntry != 0 || <u32>tcb.netInterface == LOOPBACK_PORT) return false
  neighborWait(tcb)
  return true
}

/** Sends data and FIN in order from sndNxt, as the windows, Nagle and silly-window rules allow. */
function sendNew(tcb: Tcb): bool {
  if (tcb.sndHead == 0 && (tcb.flags & F_FIN_QUEUED) == 0) return true
  const limit = payloadLimit(tcb)
  const mayFin = canFin(tcb)
  const outstanding = tcb.sndMax - tcb.sndUna
  let sent: u32 = 0
  if (tcb.sndNxt == tcb.sndUna && tcb.sndMax == tcb.sndUna && idleLong(tcb)) congestionIdle(tcb)
  while (sent < BURST_SEGMENTS) {
    const repeating = (tcb.flags & F_LOSS) != 0 && seqLt(tcb.sndNxt, tcb.recover)
    if (repeating) tcb.sndNxt = skipHeld(tcb, tcb.sndNxt)
    const queued = seqLt(tcb.sndNxt, tcb.sndEnd) ? tcb.sndEnd - tcb.sndNxt : 0
    const fin = mayFin && !seqLt(tcb.sndEnd, tcb.sndNxt)
    if (queued == 0 && !fin) break
    const flight = tcb.sndNxt - tcb.sndUna
    // Limited transmit (RFC 3042): one segment beyond cwnd for each of the first two duplicate ACKs, or what the peer holds.
    const allowed = tcb.cwnd + min<u32>(tcb.dupAcks, 2) * tcb.mss
    const pipe = flight - (repeating ? heldBelow(tcb, tcb.sndNxt) : heldBytes(tcb))
    const usable = min<u32>(pipe < allowed ? allowed - pipe : 0, flight < tcb.sndWnd ? tcb.sndWnd - flight : 0)
    let bytes = min<u32>(min<u32>(queued, usable), limit)
    // The few bytes that cwnd = SMSS leaves behind a segment with options are no segment of their own.
    if (repeating && flight != 0 && bytes < min<u32>(queued, limit)) break
    if (repeating) bytes = min<u32>(bytes, nextHeld(tcb, tcb.sndNxt, tcb.sndNxt + bytes) - tcb.sndNxt)
    const last = bytes == queued
    if (queued != 0 && bytes == 0) break
    if (!worthSending(tcb, bytes, limit, last && (fin || mayFin), last, flight)) break
    let flags = TCP_ACK
    if (last && mayFin) flags |= TCP_FIN
    if (last && bytes != 0) flags |= TCP_PSH
    if (!sendSegment(tcb, tcb.sndNxt, bytes, flags)) {
      if (neighborMissing(tcb)) break
      armRetransmit(tcb, outstanding)
      return false
    }
    noteSent(tcb, tcb.sndNxt, bytes, flags)
    sent++
  }
  armRetransmit(tcb, outstanding)
  return sent < BURST_SEGMENTS
}

/** True in the states in which our FIN may be sent or repeated. */
function canFin(tcb: Tcb): bool {
  if ((tcb.flags & F_FIN_QUEUED) == 0) return false
  const s: u32 = tcb.state
  return s == TCP_ESTABLISHED || s == TCP_CLOSE_WAIT || s == TCP_FIN_WAIT_1 || s == TCP_CLOSING || s == TCP_LAST_ACK
}

/** RFC 9293 §3.8.6.2.1 (silly window) and §3.7.4 (Nagle). */
function worthSending(tcb: Tcb, bytes: u32, limit: u32, fin: bool, last: bool, flight: u32): bool {
  if (bytes >= limit || fin) return true
  if (seqLt(tcb.sndNxt, tcb.sndMax)) return true
  if (last && (flight == 0 || (tcb.flags & F_NO_DELAY) != 0)) return true
  return !last && bytes != 0 && bytes >= tcb.maxSndWnd >>> 1
}

/** Moves the sequence space past a segment that has left. */
export function noteSent(tcb: Tcb, sequence: u32, bytes: u32, flags: u32): void {
  const end = sequence + bytes + (flags & TCP_FIN ? 1 : 0)
  if (flags & TCP_FIN) {
    if ((tcb.flags & F_FIN_SENT) == 0) {
      tcb.flags |= F_FIN_SENT
      // RFC 9293 §3.10.4: CLOSE sends FIN and enters FIN-WAIT-1, or LAST-ACK from CLOSE-WAIT.
      if (tcb.state == TCP_ESTABLISHED) setState(tcb, TCP_FIN_WAIT_1)
      else if (tcb.state == TCP_CLOSE_WAIT) setState(tcb, TCP_LAST_ACK)
    }
  }
  if (seqLt(sequence, tcb.sndMax)) {
    counters().tcpRetransmits++
    // Karn's rule (RFC 6298 §3), also for what the ACK of the segment being timed has to wait for.
    if (seqLt(sequence, tcb.rttSequence)) tcb.flags &= ~F_TIMING
  } else {
    tcb.lastSentMs = state().nowMs
    if ((tcb.flags & F_TIMING) == 0) startTiming(tcb, end)
  }
  tcb.prrOut += bytes
  tcb.sndNxt = seqMax(tcb.sndNxt, end)
  tcb.sndMax = seqMax(tcb.sndMax, end)
}

function startTiming(tcb: Tcb, sequence: u32): void {
  tcb.flags |= F_TIMING
  tcb.rttSequence = sequence
  tcb.rttStartUs = state().nowUs
}

/** Nothing was outstanding for longer than an RTO. */
function idleLong(tcb: Tcb): bool {
  return (
    (tcb.flags & F_TIMING) == 0 && tcb.srttUs != 0 && state().nowMs - tcb.stalledMs > tcb.rtoMs && tcb.stalledMs != 0
  )
}

/**
 * Keeps the retransmission timer on while something is outstanding, or the persist timer while a closed window holds data back.
 *
 * @param before bytes that were outstanding before this output
 */
function armRetransmit(tcb: Tcb, before: u32): void {
  const windowClosed = tcb.sndWnd == 0 && tcb.sndNxt == tcb.sndUna
  if (seqLt(tcb.sndUna, tcb.sndMax) && !windowClosed) {
    if ((tcb.timers & TIMER_RETRANSMIT) == 0) {
      timerStop(tcb, TIMER_PERSIST)
      lossTimerStart(tcb)
      tcb.stalledMs = state().nowMs
    } else if (before <= <u32>tcb.mss && !probesAlone(tcb)) lossTimerHasten(tcb)
    return
  }
  timerStop(tcb, TIMER_RETRANSMIT)
  // Also where the window is open but too small to be worth a segment: the override of RFC 9293 §3.8.6.2.1 (4).
  if (tcb.sndHead != 0 && (tcb.timers & TIMER_PERSIST) == 0) {
    tcb.backoff = 0
    timerStart(tcb, TIMER_PERSIST, tcb.rtoMs)
    tcb.stalledMs = state().nowMs
  }
}

/** Sends a bare ACK if one is due and nothing carried it. */
function acknowledge(tcb: Tcb): bool {
  if ((tcb.flags & (F_ACK_NOW | F_PROBE)) == 0) {
    if (tcb.unackedSegments == 0) return true
    if (tcb.unackedSegments < 2 && tcb.quickAcks == 0) {
      if ((tcb.timers & TIMER_DELAYED_ACK) == 0) timerStart(tcb, TIMER_DELAYED_ACK, DELAYED_ACK_MS)
      return true
    }
  }
  // A probe lies one byte below the window, so the peer must answer it (RFC 9293 §3.8.4).
  const sequence = tcb.flags & F_PROBE ? tcb.sndUna - 1 : bareSequence(tcb)
  if (!sendSegment(tcb, sequence, 0, TCP_ACK)) return neighborMissing(tcb)
  tcb.flags &= ~F_PROBE
  return true
}

/**
 * SND.NXT for a segment without payload: the end of what was ever sent, as `sndNxt` may have gone back for a retransmission, and the
 * peer takes an ACK with an old number for an old ACK. Not beyond the peer's window, where it would not be acceptable either.
 */
function bareSequence(tcb: Tcb): u32 {
  if (tcb.state < <u8>TCP_ESTABLISHED) return tcb.sndNxt
  const edge = tcb.sndUna + tcb.sndWnd + (tcb.flags & F_FIN_SENT ? 1 : 0)
  return seqLt(edge, tcb.sndMax) ? edge : tcb.sndMax
}

/** What the receive window opens by at least, bytes. */
export function windowStep(tcb: Tcb): u32 {
  return min<u32>(state().receiveCredit >>> 1, tcb.mss)
}

/** The window field for the next segment; moves rcvAdvertised. */
function advertiseWindow(tcb: Tcb, syn: bool): u32 {
  const shift: u32 = syn ? 0 : tcb.rcvScale
  let right = tcb.rcvEdge
  // The right edge moves by a segment or half of the buffer at least (RFC 9293 §3.8.6.2.2).
  if (right - tcb.rcvAdvertised < windowStep(tcb)) right = tcb.rcvAdvertised
  const open = seqLt(tcb.rcvNxt, right) ? right - tcb.rcvNxt : 0
  const window = min<u32>(open >>> shift, 0xffff)
  const edge = tcb.rcvNxt + (window << shift)
  // Rounding by the scale may fall short of what was promised; the promise stays good (RFC 7323 §2.4).
  if (seqLt(tcb.rcvAdvertised, edge)) tcb.rcvAdvertised = edge
  return window
}

/**
 * Builds and sends one segment. Returns false if the ring is full or the neighbour unknown; nothing has changed then.
 *
 * @param sequence of the first byte
 * @param bytes of payload from the send queue, 0..payloadLimit
 * @param flags TCP_*; ACK also says that the acknowledgement number is meant
 */
export function sendSegment(tcb: Tcb, sequence: u32, bytes: u32, flags: u32): bool {
  const index: u32 = tcb.netInterface
  if (index != LOOPBACK_PORT) {
    tcb.arpEntry = arpLookup(index, tcb.nextHop)
    if (!tcb.arpEntry) return false
  }
  const frame = transmitClaim(index)
  if (!frame) return false
  const packet = frame + ETHERNET_HEADER_BYTES
  const segment = packet + IPV4_HEADER_BYTES
  const optionBytes =
    flags & TCP_SYN
      ? writeSynOptions(tcb, segment + TCP_HEADER_BYTES, flags)
      : writeOptions(tcb, segment + TCP_HEADER_BYTES, bytes)
  const headerBytes = TCP_HEADER_BYTES + optionBytes
  const window = advertiseWindow(tcb, (flags & TCP_SYN) != 0)
  const acknowledgement = flags & TCP_ACK ? tcb.rcvNxt : 0
  tcpHeader(segment, tcb.localPort, tcb.remotePort, sequence, acknowledgement, headerBytes, flags, window)
  let sum = pseudoHeaderSum(tcb.localAddress, tcb.remoteAddress, IPV4_PROTOCOL_TCP, headerBytes + bytes)
  sum = checksumAdd(segment, headerBytes, sum)
  if (bytes != 0) sum += sendQueueCopy(tcb, sequence, segment + headerBytes, bytes)
  store<u16>(segment + TCP_CHECKSUM, <u16>checksumFinish(sum))
  const total = IPV4_HEADER_BYTES + headerBytes + bytes
  ipv4Header(packet, total, IPV4_PROTOCOL_TCP, tcb.localAddress, tcb.remoteAddress, TTL, true)
  ethernetHeader(frame, index, tcb.arpEntry, ETHERTYPE_IPV4)
  transmitCommit(index, ETHERNET_HEADER_BYTES + total)
  counters().tcpOut++
  if (flags & TCP_ACK) {
    tcb.lastAckSent = tcb.rcvNxt
    if (tcb.quickAcks != 0) tcb.quickAcks -= <u8>min<u32>(tcb.quickAcks, tcb.unackedSegments)
    tcb.unackedSegments = 0
    tcb.flags &= ~F_ACK_NOW
    timerStop(tcb, TIMER_DELAYED_ACK)
  }
  return true
}

/** MSS, window scale, SACK-permitted and timestamps; on SYN-ACK only what the peer offered. */
function writeSynOptions(tcb: Tcb, at: u32, flags: u32): u32 {
  const boot = state().flags
  const answer = (flags & TCP_ACK) != 0
  const start = at
  store<u16>(at, <u16>(OPTION_MSS | (4 << 8)))
  store<u16>(at + 2, bswap<u16>(<u16>offeredMss(tcb.localAddress, tcb.netInterface)))
  at += 4
  if (answer ? tcb.rcvScale != 0 : (boot & BOOT_FLAG_NO_WINDOW_SCALE) == 0) {
    store<u32>(at, OPTION_NOP | (OPTION_WINDOW_SCALE << 8) | (3 << 16) | (RECEIVE_SCALE << 24))
    at += 4
  }
  if (answer ? (tcb.flags & F_SACK) != 0 : (boot & BOOT_FLAG_NO_SACK) == 0) {
    store<u32>(at, OPTION_NOP | (OPTION_NOP << 8) | (OPTION_SACK_PERMITTED << 16) | (2 << 24))
    at += 4
  }
  if (answer ? (tcb.flags & F_TIMESTAMPS) != 0 : (boot & BOOT_FLAG_NO_TIMESTAMPS) == 0) {
    tcpTimestamps(at, timestampNow(tcb), answer ? tcb.tsRecent : 0)
    at += TIMESTAMPS_BYTES
  }
  return at - start
}

function writeOptions(tcb: Tcb, at: u32, bytes: u32): u32 {
  let length: u32 = 0
  if (tcb.flags & F_TIMESTAMPS) {
    tcpTimestamps(at, timestampNow(tcb), tcb.tsRecent)
    length = TIMESTAMPS_BYTES
  }
  // SACK blocks ride on bare ACKs alone, so a full segment stays within the MSS.
  if (bytes == 0 && (tcb.flags & F_SACK) != 0 && (tcb.oooHead != 0 || tcb.twiceStart != tcb.twiceEnd))
    length += writeSackBlocks(tcb, at + length, tcb.flags & F_TIMESTAMPS ? 3 : 4)
  return length
}

/** Up to `limit` blocks: what came twice (RFC 2883 §4), then the one with the newest segment (RFC 2018 §4). Returns the bytes written. */
function writeSackBlocks(tcb: Tcb, at: u32, limit: u32): u32 {
  let blocks: u32 = 0
  let out = at + 4
  if (tcb.twiceStart != tcb.twiceEnd) {
    store<u32>(out, bswap<u32>(tcb.twiceStart))
    store<u32>(out + 4, bswap<u32>(tcb.twiceEnd))
    tcb.twiceStart = tcb.twiceEnd
    out += 8
    blocks++
  }
  // First pass writes the block with the newest segment, the second the others in order.
  for (let pass = 0; pass < 2; pass++) {
    let chunk = tcb.oooHead
    while (chunk != 0 && blocks < limit) {
      let meta = chunkMeta(chunk)
      const start = meta.sequence
      let end = start + meta.length
      while (meta.next != 0 && seqLeq(chunkMeta(meta.next).sequence, end)) {
        meta = chunkMeta(meta.next)
        end = seqMax(end, meta.sequence + meta.length)
      }
      const newest = seqLeq(start, tcb.oooNewest) && seqLt(tcb.oooNewest, end)
      if (newest == (pass == 0)) {
        store<u32>(out, bswap<u32>(start))
        store<u32>(out + 4, bswap<u32>(end))
        out += 8
        blocks++
      }
      chunk = meta.next
    }
  }
  store<u32>(at, OPTION_NOP | (OPTION_NOP << 8) | (OPTION_SACK << 16) | ((2 + blocks * 8) << 24))
  return 4 + blocks * 8
}

/** Sends RST for a connection that we give up (RFC 9293 §3.10.5). Best effort. */
export function sendReset(tcb: Tcb): void {
  counters().tcpResetsOut++
  sendSegment(tcb, bareSequence(tcb), 0, TCP_RST | TCP_ACK)
}
