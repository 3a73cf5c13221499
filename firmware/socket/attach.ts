import { IPOS_TCP, SERVICE_FIRST_SPEAKER } from '../../abi/ipos.ts'
import {
  EVENT_ACCEPTED,
  EVENT_ARRIVED,
  EVENT_COOKIE,
  EVENT_LOCAL_ADDRESS,
  EVENT_LOCAL_PORT,
  EVENT_REMOTE_ADDRESS,
  EVENT_REMOTE_PORT,
  EVENT_SOCKET,
  EVENT_STATUS,
  EVENT_TYPE,
  EVENT_VALUE,
  EVENT_VALUE2,
  EVENT_VALUE3,
  FIRST_SPEAKER_AUTO,
  FIRST_SPEAKER_CLIENT,
  RX_FLAG_END,
  RX_FLAGS,
  RX_HEADER_BYTES,
  RX_LENGTH,
  RX_SOCKET,
  RX_STATE,
  RX_TYPE,
} from '../../abi/messages.ts'
import { TRACE_ATTACH } from '../../abi/trace.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { trace } from '../hal/trace.ts'
import { giveByRequest } from '../ipos/give.ts'
import { MOVE_HANDED_OVER, MOVE_STATE_OWED, migrationOf } from '../ipos/migration.ts'
import { placementChoose } from '../ipos/placement.ts'
import { inFarm, SELF } from '../ipos/server.ts'
import { serviceElsewhere } from '../ipos/service.ts'
import { clearBytes } from '../mem/bytes.ts'
import { chunkAddress, chunkMeta, chunkRelease } from '../mem/chunk.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { setOptions } from '../tcp/handshake.ts'
import { deliverUnread } from '../tcp/rcv.ts'
import {
  F_ACK_NOW,
  F_ATTACH_WANTED,
  F_ATTACHED,
  F_HOST,
  F_KEEP_ALIVE,
  F_NO_DELAY,
  F_QUIET,
  Tcb,
  TIMER_KEEP_ALIVE,
  TIMER_STATE,
  wantHost,
  wantOutput,
} from '../tcp/tcb.ts'
import { timerStart, timerStop } from '../tcp/timer.ts'
import { deliverEvent, deliverRecord, eventScratch } from './deliver.ts'
import { Listener, listenerAt } from './listener.ts'

/**
 * From the Temporary table to a socket (FIG. 6): an endpoint is unattached until its request, or its listener's rule, decides who
 * serves it. Until then the main board knows nothing of it.
 */

/** A window below this, bytes, is told to have opened as soon as an endpoint is attached. */
const LITTLE_WINDOW: u32 = 4096

/** FIRST_SPEAKER_* of an unattached endpoint: its listener's, or that of the servers that serve its port. */
export function firstSpeaker(tcb: Tcb): u32 {
  if (tcb.listener) return listenerAt(tcb.listener).firstSpeaker
  const flags = serviceElsewhere(tcb.localPort, IPOS_TCP)
  return flags < 0 ? FIRST_SPEAKER_AUTO : flags & SERVICE_FIRST_SPEAKER
}

/** Starts the wait for the request of an endpoint whose handshake is done. */
export function armPlacement(tcb: Tcb): void {
  const st = state()
  const listener = listenerAt(tcb.listener)
  if (firstSpeaker(tcb) == FIRST_SPEAKER_CLIENT) timerStart(tcb, TIMER_STATE, st.unattachedTimeoutMs)
  else timerStart(tcb, TIMER_STATE, listener.placeAfterMs ? listener.placeAfterMs : st.placeAfterMs)
}

/** The wait is over without a request. False if the endpoint is gone. */
export function placementTimeout(tcb: Tcb): bool {
  if (firstSpeaker(tcb) == FIRST_SPEAKER_CLIENT) {
    tcpAbandon(tcb, true)
    return false
  }
  return place(tcb)
}

/** The request packet has arrived and is kept as unread bytes. False if the endpoint is gone. */
export function attachByRequest(tcb: Tcb): bool {
  return place(tcb)
}

/** Decides who serves (FIG. 6), and sees to it. False if the endpoint is gone. */
export function place(tcb: Tcb): bool {
  // What this board asks of itself it answers itself.
  if (inFarm() && (tcb.flags & F_ATTACH_WANTED) == 0 && <u32>tcb.netInterface != LOOPBACK_PORT) {
    const row = placementChoose(tcb.localPort, IPOS_TCP, tcb.listener != 0, false, 0)
    if (row > <i32>SELF && giveByRequest(tcb, row)) return true
  }
  return attachByPort(tcb)
}

/** Attaches to the application of this server that listens on the endpoint's port. False if the endpoint is gone. */
export function attachByPort(tcb: Tcb): bool {
  const listener = listenerAt(tcb.listener)
  if (!listener.inUse || listener.port != tcb.localPort) {
    tcpAbandon(tcb, true)
    return false
  }
  if (!attach(tcb, listener)) {
    // The host has no room for the event: again when it has.
    tcb.queueSet = listener.queueSet
    tcb.flags |= F_ATTACH_WANTED
    wantHost(tcb)
  }
  return true
}

function attach(tcb: Tcb, listener: Listener): bool {
  tcb.queueSet = listener.queueSet
  tcb.cookie = listener.cookie
  const arrived = tcb.migration != 0
  const handedOver = arrived && (migrationOf(tcb).flags & MOVE_HANDED_OVER) != 0
  const goesOn = handedOver || (arrived && isInConversation(tcb))
  if (!connectionEvent(tcb, goesOn ? EVENT_ARRIVED : EVENT_ACCEPTED, 0)) return false
  // One that moved before it had an application has the options of another server's listener.
  if (arrived && !goesOn) replaceOptions(tcb, listener.options)
  counters().attached++
  trace(TRACE_ATTACH, tcb.queueSet, tcb.handle, tcb.remoteAddress)
  timerStop(tcb, TIMER_STATE)
  // What came from elsewhere has read already, and its edge stands (ipos/block.ts).
  const edge = arrived ? tcb.rcvEdge : tcb.irs + 1 + state().receiveCredit
  const more = edge != tcb.rcvEdge
  tcb.rcvEdge = edge
  if (more && tcb.rcvAdvertised - tcb.rcvNxt < LITTLE_WINDOW) {
    // Much came before there was somebody to read it; the peer learns that there is room now.
    tcb.flags |= F_ACK_NOW
    wantOutput(tcb)
  }
  tcb.flags = (tcb.flags & ~F_ATTACH_WANTED) | F_ATTACHED | F_HOST
  if (handedOver && migrationOf(tcb).stateHead != 0) {
    migrationOf(tcb).flags |= <u16>MOVE_STATE_OWED
    tcb.flags |= F_QUIET
    if (!deliverState(tcb)) {
      wantHost(tcb)
      return true
    }
  }
  if (!deliverUnread(tcb)) wantHost(tcb)
  return true
}

/** True if an application has read from the client, or has written to it. The endpoint has just come from another server. */
function isInConversation(tcb: Tcb): bool {
  return tcb.rcvEdge - state().receiveCredit != tcb.irs + 1 || tcb.sndEnd != tcb.iss + 1
}

/** Options of the socket are those of its listener, SOCKET_OPTION_*, and no others. */
function replaceOptions(tcb: Tcb, bits: u32): void {
  timerStop(tcb, TIMER_KEEP_ALIVE)
  tcb.flags &= ~(F_NO_DELAY | F_KEEP_ALIVE)
  setOptions(tcb, bits)
  if (tcb.flags & F_KEEP_ALIVE) timerStart(tcb, TIMER_KEEP_ALIVE, tcb.keepAliveIdleMs)
}

/** Sends an event about a connection with its addresses and credits. False if the host has no room. */
export function connectionEvent(tcb: Tcb, type: u32, status: u32): bool {
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>type)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_SOCKET, tcb.handle)
  store<u32>(event + EVENT_COOKIE, tcb.cookie)
  store<u32>(event + EVENT_LOCAL_ADDRESS, tcb.localAddress)
  store<u32>(event + EVENT_REMOTE_ADDRESS, tcb.remoteAddress)
  store<u16>(event + EVENT_LOCAL_PORT, tcb.localPort)
  store<u16>(event + EVENT_REMOTE_PORT, tcb.remotePort)
  // Below zero where more came along than is granted here: the host owes until so much is acknowledged.
  store<u32>(event + EVENT_VALUE, tcb.creditGranted - queuedBytes(tcb))
  store<u32>(event + EVENT_VALUE2, state().receiveCredit)
  if (tcb.migration) store<u32>(event + EVENT_VALUE3, migrationOf(tcb).stateBytes)
  return deliverEvent(tcb.queueSet, event)
}

/** Bytes in the send queue; none while the SYN, or only the FIN, is out. */
function queuedBytes(tcb: Tcb): u32 {
  return tcb.sndHead ? tcb.sndEnd - tcb.sndUna : 0
}

/** Delivers the state that another application has handed over with the connection. False if the host has no buffer for all of it. */
export function deliverState(tcb: Tcb): bool {
  const m = migrationOf(tcb)
  const header = state().udpHeader
  clearBytes(header, RX_HEADER_BYTES)
  store<u16>(header + RX_TYPE, <u16>RX_STATE)
  store<u32>(header + RX_SOCKET, tcb.handle)
  while (m.stateHead) {
    const chunk = m.stateHead
    const meta = chunkMeta(chunk)
    const next = meta.next
    store<u16>(header + RX_FLAGS, <u16>(next ? 0 : RX_FLAG_END))
    store<u32>(header + RX_LENGTH, meta.length)
    const payload = chunkAddress(chunk) + meta.offset
    if (!deliverRecord(tcb.queueSet, header, RX_HEADER_BYTES, payload, meta.length, true)) return false
    m.stateHead = next
    chunkRelease(chunk)
  }
  m.stateTail = m.stateBytes = 0
  m.flags &= <u16>~(MOVE_STATE_OWED | MOVE_HANDED_OVER)
  tcb.flags &= ~F_QUIET
  return true
}
