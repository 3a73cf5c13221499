import {
  EVENT_ACCEPTED,
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
  FIRST_SPEAKER_CLIENT,
} from '../../abi/messages.ts'
import { TRACE_ATTACH } from '../../abi/trace.ts'
import { trace } from '../hal/trace.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { deliverUnread } from '../tcp/rcv.ts'
import { F_ACK_NOW, F_ATTACH_WANTED, F_ATTACHED, F_HOST, Tcb, TIMER_STATE, wantHost, wantOutput } from '../tcp/tcb.ts'
import { timerStart, timerStop } from '../tcp/timer.ts'
import { deliverEvent, eventScratch } from './deliver.ts'
import { Listener, listenerAt } from './listener.ts'

/**
 * From the Temporary table to a socket (FIG. 6): an endpoint is unattached until its request, or its listener's rule, decides who
 * serves it. Until then the main board knows nothing of it.
 */

/** A window below this, bytes, is told to have opened as soon as an endpoint is attached. */
const LITTLE_WINDOW: u32 = 4096

/** Starts the wait for the request of an endpoint whose handshake is done. */
export function armPlacement(tcb: Tcb): void {
  const st = state()
  const listener = listenerAt(tcb.listener)
  if (listener.firstSpeaker == FIRST_SPEAKER_CLIENT) timerStart(tcb, TIMER_STATE, st.unattachedTimeoutMs)
  else timerStart(tcb, TIMER_STATE, listener.placeAfterMs ? listener.placeAfterMs : st.placeAfterMs)
}

/** The wait is over without a request. False if the endpoint is gone. */
export function placementTimeout(tcb: Tcb): bool {
  if (listenerAt(tcb.listener).firstSpeaker == FIRST_SPEAKER_CLIENT) {
    tcpAbandon(tcb, true)
    return false
  }
  return attachByPort(tcb)
}

/** The request packet has arrived and is kept as unread bytes. False if the endpoint is gone. */
export function attachByRequest(tcb: Tcb): bool {
  return attachByPort(tcb)
}

/** Attaches to the application that listens on the endpoint's port. False if the endpoint is gone. */
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
  if (!connectionEvent(tcb, EVENT_ACCEPTED, 0)) return false
  counters().attached++
  trace(TRACE_ATTACH, tcb.queueSet, tcb.handle, tcb.remoteAddress)
  timerStop(tcb, TIMER_STATE)
  const edge = tcb.irs + 1 + state().receiveCredit
  const more = edge != tcb.rcvEdge
  tcb.rcvEdge = edge
  if (more && tcb.rcvAdvertised - tcb.rcvNxt < LITTLE_WINDOW) {
    // Much came before there was somebody to read it; the peer learns that there is room now.
    tcb.flags |= F_ACK_NOW
    wantOutput(tcb)
  }
  tcb.flags = (tcb.flags & ~F_ATTACH_WANTED) | F_ATTACHED | F_HOST
  if (!deliverUnread(tcb)) wantHost(tcb)
  return true
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
  store<u32>(event + EVENT_VALUE, tcb.creditGranted)
  store<u32>(event + EVENT_VALUE2, state().receiveCredit)
  return deliverEvent(tcb.queueSet, event)
}
