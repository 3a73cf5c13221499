import {
  BOOT_FLAG_ALWAYS_COOKIES,
  BOOT_FLAG_NO_SACK,
  BOOT_FLAG_NO_TIMESTAMPS,
  BOOT_FLAG_NO_WINDOW_SCALE,
} from '../../abi/boot.ts'
import { IPOS_TCP, RELEASE_ENDED } from '../../abi/ipos.ts'
import { FIRST_SPEAKER_SERVER, SOCKET_OPTION_KEEP_ALIVE, SOCKET_OPTION_NO_DELAY } from '../../abi/messages.ts'
import { STATUS_ECONNREFUSED } from '../../abi/status.ts'
import { TCP_ESTABLISHED, TCP_SYN_RECEIVED } from '../../abi/tcp.ts'
import { transmitClaim } from '../hal/mac.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { naming } from '../ipos/frame.ts'
import { releaseSend } from '../ipos/release.ts'
import { serviceElsewhere } from '../ipos/service.ts'
import { arpLookup } from '../net/arp.ts'
import { nextHop, routeTo } from '../net/route.ts'
import { armPlacement, firstSpeaker, place } from '../socket/attach.ts'
import { Listener, listenerAt, listenerFind, listenerIndex } from '../socket/listener.ts'
import { counters, state } from '../state.ts'
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts'
import { IPV4_HEADER_BYTES, ipv4Destination, ipv4Source } from '../wire/ipv4.ts'
import {
  OPTION_MSS,
  OPTION_NOP,
  OPTION_SACK_PERMITTED,
  OPTION_WINDOW_SCALE,
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  TIMESTAMPS_BYTES,
  tcpAcknowledgement,
  tcpDestinationPort,
  tcpFlags,
  tcpHeader,
  tcpSequence,
  tcpSourcePort,
  tcpTimestamps,
  tcpWindow,
} from '../wire/tcp.ts'
import { tcpFail } from './close.ts'
import { congestionStart } from './congestion.ts'
import { cookieCheck, cookieMake, cookieSack, cookieScale, cookiesOut, cookieTimestamp } from './cookie.ts'
import { segmentArrives } from './input.ts'
import { initialSequence, timestampOffset } from './isn.ts'
import { options } from './options.ts'
import { interfaceMss, offeredMss, RECEIVE_SCALE } from './output.ts'
import { receiveSegment } from './rcv.ts'
import { challengeAllowed, finishBare, replyReset, sendBare } from './reset.ts'
import { seqLeq, seqLt } from './sequence.ts'
import { tableInsertTcb } from './table.ts'
import {
  F_ACK_NOW,
  F_ACTIVE,
  F_ATTACHED,
  F_CONNECTED_OWED,
  F_KEEP_ALIVE,
  F_NO_DELAY,
  F_SACK,
  F_TIMESTAMPS,
  F_TIMING,
  setState,
  Tcb,
  TIMER_KEEP_ALIVE,
  TIMER_RETRANSMIT,
  tcbAllocate,
  wantHost,
  wantOutput,
} from './tcb.ts'
import { RTO_INITIAL_MS, rttSample, timerStart, timerStop, WORST_ACK_DELAY_MS } from './timer.ts'
import { timeWaitAt, timeWaitRemove, timeWaitRestart } from './timewait.ts'

/** Largest MSS when the peer does not say (RFC 9293 §3.7.1, MUST-15). */
const DEFAULT_MSS: u32 = 536
/** Below this an MSS option is a mistake or an attack, and is raised. */
export const MINIMUM_MSS: u32 = 88
/** What an endpoint may have received and no application has taken over, bytes: the first flight of a peer (RFC 6928) fits. */
const UNATTACHED_WINDOW: u32 = 16384
/** A new connection of a 4-tuple in TIME-WAIT starts so far beyond the old one. */
const ISN_STEP: u32 = 65536
/** RFC 6298 (5.7): RTO after a handshake in which the SYN was lost, milliseconds. */
const RTO_AFTER_SYN_LOSS_MS: u32 = 3000
/** RFC 9293 §3.8.4: default idle time before the first keep-alive, milliseconds. */
export const KEEP_ALIVE_IDLE_MS: u32 = 7200000

/**
 * A segment for no connection: LISTEN, a returning cookie, or CLOSED (RFC 9293 §3.10.7.1, §3.10.7.2).
 *
 * @param floor initial sequence number of a new connection at least, 0 = any
 */
export function handshakeInput(
  interfaceIndex: u32,
  packet: u32,
  segment: u32,
  payload: u32,
  bytes: u32,
  transient: bool,
  floor: u32,
): void {
  const flags = tcpFlags(segment)
  if (flags & TCP_RST) return
  const local = ipv4Destination(packet)
  let listener = listenerFind(local, tcpDestinationPort(segment))
  // Row 0 stands for what only other servers of the farm serve.
  const outside = interfaceIndex != LOOPBACK_PORT
  if (listener == null && outside && serviceElsewhere(tcpDestinationPort(segment), IPOS_TCP) >= 0)
    listener = listenerAt(0)
  if (listener == null) {
    resetUnknown(packet, segment, bytes)
    return
  }
  if (flags & TCP_ACK) {
    const mss = flags & TCP_SYN ? 0 : cookieReturned(packet, segment)
    if (mss == 0) {
      // While cookies are out, data may have overtaken the ACK that brings one back. It comes again.
      if (bytes == 0 || !cookiesOut()) resetUnknown(packet, segment, bytes)
      return
    }
    const tcb = cookieOpen(packet, segment, listener, mss)
    // No memory: its data, or its next keep-alive, brings the cookie again.
    if (tcb != null) segmentArrives(tcb, packet, segment, payload, bytes, transient)
    return
  }
  if ((flags & TCP_SYN) == 0) return
  const st = state()
  if (st.synReceived >= st.synBacklog || (st.flags & BOOT_FLAG_ALWAYS_COOKIES) != 0) {
    cookieAnswer(packet, segment)
    return
  }
  const tcb = passiveOpen(packet, segment, listener)
  if (tcb == null) return // no memory: the peer tries again
  tcb.iss = initialSequence(tcb.localAddress, tcb.remoteAddress, tcb.localPort, tcb.remotePort)
  if (floor != 0 && seqLt(tcb.iss, floor)) tcb.iss = floor
  tcb.sndUna = tcb.sndNxt = tcb.sndMax = tcb.iss
  tcb.sndEnd = tcb.iss + 1
  takeSynOptions(tcb)
  // "The connection state should be changed to SYN-RECEIVED." The main board hears nothing of it.
  setState(tcb, TCP_SYN_RECEIVED)
  // The timer also bounds the wait for the neighbour.
  timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
  wantOutput(tcb)
}

/**
 * RST for a segment of no connection. In a farm not before a lease has passed since we were switched on: it may be of one that we had
 * forwarded, and as long as that we may have let another server speak to the client.
 */
function resetUnknown(packet: u32, segment: u32, bytes: u32): void {
  if ((tcpFlags(segment) & TCP_SYN) == 0 && state().newcomer != 0) return
  replyReset(packet, segment, bytes)
}

/** An endpoint for the segment's addresses, attached to nothing, in the table (FIG. 5: the Temporary table), or null. */
function passiveOpen(packet: u32, segment: u32, listener: Listener): Tcb | null {
  // An answer could not be sent: the SYN's source is forged, or our routes are wrong.
  if (routeTo(ipv4Source(packet), ipv4Destination(packet)) < 0) return null
  const tcb = tcbAllocate()
  if (tcb == null) return null
  tcb.localAddress = ipv4Destination(packet)
  tcb.remoteAddress = ipv4Source(packet)
  tcb.localPort = <u16>tcpDestinationPort(segment)
  tcb.remotePort = <u16>tcpSourcePort(segment)
  openPath(tcb)
  tcb.listener = listenerIndex(listener)
  tcb.irs = tcpSequence(segment)
  tcb.rcvNxt = tcb.irs + 1
  openWindows(tcb, min<u32>(state().receiveCredit, UNATTACHED_WINDOW))
  setOptions(tcb, listener.options)
  tcb.sndWnd = tcpWindow(segment)
  tcb.maxSndWnd = tcb.sndWnd
  tcb.sndWl1 = tcb.irs
  counters().tcpPassiveOpens++
  tableInsertTcb(tcb)
  return tcb
}

/** Options of the socket, as SOCKET_OPTION_* bits. */
export function setOptions(tcb: Tcb, bits: u32): void {
  if (bits & SOCKET_OPTION_NO_DELAY) tcb.flags |= F_NO_DELAY
  if (bits & SOCKET_OPTION_KEEP_ALIVE) {
    tcb.flags |= F_KEEP_ALIVE
    tcb.keepAliveIdleMs = KEEP_ALIVE_IDLE_MS
  }
}

/** Interface and next hop towards the peer. False if there is no route. */
export function openPath(tcb: Tcb): bool {
  const index = routeTo(tcb.remoteAddress, tcb.localAddress)
  if (index < 0) return false
  tcb.netInterface = <u8>index
  tcb.nextHop = nextHop(index, tcb.remoteAddress)
  return true
}

/** What is the same for every new endpoint, once rcvNxt and the addresses are known. @param window that is offered at first, bytes */
export function openWindows(tcb: Tcb, window: u32): void {
  const st = state()
  tcb.rtoMs = RTO_INITIAL_MS
  tcb.ackDelayMs = WORST_ACK_DELAY_MS
  tcb.rcvEdge = tcb.rcvNxt + window
  tcb.rcvAdvertised = tcb.rcvNxt
  tcb.creditGranted = st.sendCredit
  tcb.tsOffset = timestampOffset(tcb.localAddress, tcb.remoteAddress)
  tcb.mss = <u16>min<u32>(DEFAULT_MSS, interfaceMss(tcb.netInterface))
}

/** Takes over what the peer's SYN offered and we allow. */
function takeSynOptions(tcb: Tcb): void {
  const o = options()
  const boot = state().flags
  if (o.hasMss) tcb.mss = <u16>min<u32>(max<u32>(o.mss, MINIMUM_MSS), interfaceMss(tcb.netInterface))
  if (o.hasScale && (boot & BOOT_FLAG_NO_WINDOW_SCALE) == 0) {
    tcb.sndScale = o.scale
    tcb.rcvScale = <u8>RECEIVE_SCALE
  }
  if (o.sackPermitted && (boot & BOOT_FLAG_NO_SACK) == 0) tcb.flags |= F_SACK
  if (o.hasTimestamps && (boot & BOOT_FLAG_NO_TIMESTAMPS) == 0) {
    tcb.flags |= F_TIMESTAMPS
    tcb.tsRecent = o.tsValue
    tcb.tsRecentMs = state().nowMs
  }
  congestionStart(tcb)
}

/** SYN-RECEIVED and our SYN is acknowledged: "enter ESTABLISHED state" (RFC 9293 §3.10.7.4, fifth). */
export function established(tcb: Tcb, segment: u32): void {
  setState(tcb, TCP_ESTABLISHED)
  tcb.sndWnd = tcpWindow(segment) << tcb.sndScale
  tcb.sndWl1 = tcpSequence(segment)
  tcb.sndWl2 = tcpAcknowledgement(segment)
  tcb.maxSndWnd = max<u32>(tcb.maxSndWnd, tcb.sndWnd)
  synAcknowledged(tcb)
  if (tcb.flags & F_ACTIVE) {
    connected(tcb)
    return
  }
  if (tcb.flags & F_ATTACHED) return
  if (firstSpeaker(tcb) == FIRST_SPEAKER_SERVER) place(tcb)
  else armPlacement(tcb)
}

/** Our SYN, and nothing else, is acknowledged: the first round-trip time, and what a lost SYN means for the start. */
function synAcknowledged(tcb: Tcb): void {
  if (tcb.flags & F_TIMING) {
    tcb.flags &= ~F_TIMING
    rttSample(tcb, state().nowUs - tcb.rttStartUs, false)
  } else if (tcb.backoff != 0) tcb.rtoMs = RTO_AFTER_SYN_LOSS_MS
  // RFC 5681 §3.1, and RFC 6928 §2 for the one retransmission that may be spurious.
  if (tcb.backoff > 1) tcb.cwnd = tcb.mss
  tcb.backoff = 0
  tcb.sndUna = tcb.sndNxt = tcb.sndMax
  tcb.recover = tcb.sndUna
  tcb.stalledMs = state().nowMs
  timerStop(tcb, TIMER_RETRANSMIT)
  if (tcb.flags & F_KEEP_ALIVE) timerStart(tcb, TIMER_KEEP_ALIVE, tcb.keepAliveIdleMs)
}

function connected(tcb: Tcb): void {
  tcb.flags |= F_ATTACHED | F_CONNECTED_OWED
  wantHost(tcb)
}

/** RFC 9293 §3.10.7.3. */
export function synSentInput(tcb: Tcb, packet: u32, segment: u32, payload: u32, bytes: u32, transient: bool): void {
  const flags = tcpFlags(segment)
  const ack = tcpAcknowledgement(segment)
  if (flags & TCP_ACK && (seqLeq(ack, tcb.iss) || seqLt(tcb.sndMax, ack))) {
    replyReset(packet, segment, bytes)
    return
  }
  if (flags & TCP_RST) {
    // Only a reset that acknowledges our SYN is believed.
    counters().tcpResetsIn++
    if (flags & TCP_ACK) tcpFail(tcb, STATUS_ECONNREFUSED)
    return
  }
  if ((flags & TCP_SYN) == 0) return
  tcb.irs = tcpSequence(segment)
  tcb.rcvNxt = tcb.irs + 1
  tcb.rcvEdge = tcb.rcvNxt + state().receiveCredit
  tcb.rcvAdvertised = tcb.rcvNxt + min<u32>(state().receiveCredit, 0xffff) // what our SYN said
  tcb.lastAckSent = tcb.rcvNxt
  takeSynOptions(tcb)
  tcb.sndWnd = tcpWindow(segment)
  tcb.maxSndWnd = tcb.sndWnd
  tcb.sndWl1 = tcb.irs
  tcb.sndWl2 = ack
  tcb.flags |= F_ACK_NOW
  wantOutput(tcb)
  if ((flags & TCP_ACK) == 0) {
    // Simultaneous open: our SYN is repeated, now with an ACK.
    tcb.sndNxt = tcb.iss
    setState(tcb, TCP_SYN_RECEIVED)
    return
  }
  synAcknowledged(tcb)
  setState(tcb, TCP_ESTABLISHED)
  connected(tcb)
  const fin = (flags & TCP_FIN) != 0
  if (bytes != 0 || fin) {
    const taken = min<u32>(bytes, tcb.rcvAdvertised - tcb.rcvNxt)
    receiveSegment(tcb, tcb.rcvNxt, payload, taken, fin && taken == bytes, transient)
  }
}

/** A segment for a connection in TIME-WAIT. */
export function timeWaitInput(
  index: u32,
  interfaceIndex: u32,
  packet: u32,
  segment: u32,
  payload: u32,
  bytes: u32,
  transient: bool,
): void {
  const record = timeWaitAt(index)
  const flags = tcpFlags(segment)
  const sequence = tcpSequence(segment)
  // Assassination of TIME-WAIT is not possible by RST (RFC 1337).
  if (flags & TCP_RST) return
  const o = options()
  const stamped = (record.flags & F_TIMESTAMPS) != 0 && o.hasTimestamps
  if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
    // RFC 6191 §2, RFC 9293 MAY-2: a newer timestamp, or a higher sequence number, is a new connection.
    let newer = seqLt(record.rcvNxt, sequence)
    if (stamped && o.tsValue != record.tsRecent) newer = seqLt(record.tsRecent, o.tsValue)
    else if (o.hasTimestamps && !stamped) newer = (state().flags & BOOT_FLAG_NO_TIMESTAMPS) == 0 || newer
    if (newer && record.thread != 0) {
      // The entry INIC opens the new connection; that of this one is over.
      const n = naming(
        record.remoteAddress,
        record.remotePort,
        record.localAddress,
        record.localPort,
        record.thread,
        IPOS_TCP,
      )
      // Kept until that one has heard: should this be lost, the client's next SYN brings it about again.
      releaseSend(record.entry, n, RELEASE_ENDED, packet, record.sndNxt + ISN_STEP)
      return
    }
    if (newer && listenerFind(record.localAddress, record.localPort) != null) {
      // "assigns its initial sequence number for the new connection to be larger than the largest" of the old (RFC 1122 §4.2.2.13)
      const floor = record.sndNxt + ISN_STEP
      timeWaitRemove(index)
      handshakeInput(interfaceIndex, packet, segment, payload, bytes, transient, floor ? floor : 1)
      return
    }
  }
  if (flags & TCP_FIN && sequence + bytes + 1 == record.rcvNxt) {
    timeWaitRestart(index)
    if (stamped && seqLt(record.tsRecent, o.tsValue)) record.tsRecent = o.tsValue
  } else {
    // A bare ACK that is in order needs no answer; any other is answered as challenges are, so that no two ends do it for ever.
    if (bytes == 0 && (flags & (TCP_SYN | TCP_FIN)) == 0 && sequence == record.rcvNxt) return
    if (!challengeAllowed()) return
  }
  const st = state()
  record.lastSentMs = st.nowMs
  const tsValue = stamped ? st.nowMs + record.tsOffset : 0
  sendBare(
    record.localAddress,
    record.remoteAddress,
    record.localPort,
    record.remotePort,
    record.sndNxt,
    record.rcvNxt,
    TCP_ACK,
    min<u32>(record.rcvWnd >>> RECEIVE_SCALE, 0xffff),
    tsValue,
    stamped ? record.tsRecent : 0,
  )
}

/** SYN-ACK with a cookie; nothing is kept (RFC 4987 §3.6). */
function cookieAnswer(packet: u32, segment: u32): void {
  const o = options()
  const st = state()
  const local = ipv4Destination(packet)
  const remote = ipv4Source(packet)
  const localPort = tcpDestinationPort(segment)
  const remotePort = tcpSourcePort(segment)
  const peer = tcpSequence(segment)
  const index = routeTo(remote, local)
  if (index < 0) return
  const loopback = <u32>index == LOOPBACK_PORT
  const arp = loopback ? 0 : arpLookup(index, nextHop(index, remote))
  if (arp == 0 && !loopback) return
  const frame = transmitClaim(index)
  if (!frame) return
  const header = frame + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
  const limit = offeredMss(local, index)
  const mss = min<u32>(o.hasMss ? max<u32>(o.mss, MINIMUM_MSS) : DEFAULT_MSS, limit)
  let at = header + TCP_HEADER_BYTES
  store<u16>(at, <u16>(OPTION_MSS | (4 << 8)))
  store<u16>(at + 2, bswap<u16>(<u16>limit))
  at += 4
  if (o.hasTimestamps && (st.flags & BOOT_FLAG_NO_TIMESTAMPS) == 0) {
    const scale = o.hasScale && (st.flags & BOOT_FLAG_NO_WINDOW_SCALE) == 0
    const sack = o.sackPermitted && (st.flags & BOOT_FLAG_NO_SACK) == 0
    if (scale) {
      store<u32>(at, OPTION_NOP | (OPTION_WINDOW_SCALE << 8) | (3 << 16) | (RECEIVE_SCALE << 24))
      at += 4
    }
    if (sack) {
      store<u32>(at, OPTION_NOP | (OPTION_NOP << 8) | (OPTION_SACK_PERMITTED << 16) | (2 << 24))
      at += 4
    }
    tcpTimestamps(at, cookieTimestamp(st.nowMs + timestampOffset(local, remote), scale, o.scale, sack), o.tsValue)
    at += TIMESTAMPS_BYTES
  }
  const sequence = cookieMake(local, remote, localPort, remotePort, peer, mss)
  tcpHeader(
    header,
    localPort,
    remotePort,
    sequence,
    peer + 1,
    at - header,
    TCP_SYN | TCP_ACK,
    min<u32>(st.receiveCredit, UNATTACHED_WINDOW),
  )
  finishBare(frame, index, arp, local, remote, at - header)
  counters().tcpCookiesSent++
}

/** The ACK of a handshake may bring a cookie back: the MSS that it holds, or 0 if there is none that is good. */
function cookieReturned(packet: u32, segment: u32): u32 {
  const mss = cookieCheck(
    ipv4Destination(packet),
    ipv4Source(packet),
    tcpDestinationPort(segment),
    tcpSourcePort(segment),
    tcpSequence(segment) - 1,
    tcpAcknowledgement(segment) - 1,
  )
  if (mss == 0) counters().tcpCookiesRefused++
  return mss
}

/** Rebuilds the endpoint that was not kept when the SYN came; null if there is no memory. */
function cookieOpen(packet: u32, segment: u32, listener: Listener, mss: u32): Tcb | null {
  const tcb = passiveOpen(packet, segment, listener)
  if (tcb == null) return null
  counters().tcpCookiesAccepted++
  tcb.iss = tcpAcknowledgement(segment) - 1
  tcb.sndUna = tcb.iss
  tcb.sndNxt = tcb.sndMax = tcb.sndEnd = tcb.iss + 1
  // `passiveOpen` took the segment for a SYN.
  tcb.irs--
  tcb.rcvNxt--
  tcb.rcvEdge--
  tcb.rcvAdvertised = tcb.rcvEdge
  tcb.lastAckSent = tcb.rcvNxt
  tcb.mss = <u16>mss
  const o = options()
  if (o.hasTimestamps) {
    // TSval was the clock with its low five bits replaced, so the offset is part of them.
    tcb.flags |= F_TIMESTAMPS
    tcb.tsRecent = o.tsValue
    tcb.tsRecentMs = state().nowMs
    const scale = cookieScale(o.tsEcho)
    if (scale >= 0) {
      tcb.sndScale = <u8>scale
      tcb.rcvScale = <u8>RECEIVE_SCALE
    }
    if (cookieSack(o.tsEcho)) tcb.flags |= F_SACK
  }
  congestionStart(tcb)
  setState(tcb, TCP_SYN_RECEIVED)
  return tcb
}
