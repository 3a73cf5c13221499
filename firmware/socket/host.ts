import {
  EVENT_CONNECT_FAILED,
  EVENT_CONNECTED,
  EVENT_CREDIT,
  EVENT_RESET,
  EVENT_SOCKET,
  EVENT_TYPE,
  EVENT_VALUE,
} from '../../abi/messages.ts'
import { QUEUE_SETS } from '../../abi/rings.ts'
import { TCP_CLOSED, TCP_SYN_SENT, TCP_TIME_WAIT } from '../../abi/tcp.ts'
import { applicationQueueSetGone } from '../ipos/application.ts'
import { giveAbort } from '../ipos/give.ts'
import { MOVE_STATE_OWED, migrationOf } from '../ipos/migration.ts'
import { state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { deliverUnread } from '../tcp/rcv.ts'
import {
  appendHost,
  F_ACTIVE,
  F_ATTACH_WANTED,
  F_ATTACHED,
  F_CONNECTED_OWED,
  F_CREDIT_OWED,
  F_FAILED_OWED,
  F_FROZEN,
  F_HOST,
  F_ON_HOST,
  F_QUIET,
  F_RESET_OWED,
  Tcb,
  tcbAt,
  tcbRelease,
  tcbUnlisted,
} from '../tcp/tcb.ts'
import { answersForget } from './answer.ts'
import { attachByPort, connectionEvent, deliverState } from './attach.ts'
import { deliverEvent, eventRoom, eventScratch, queueSetRenewed } from './deliver.ts'
import { listenerAt, listenerQueueSetGone } from './listener.ts'
import { udpQueueSetGone } from './udp.ts'

/** What connections owe their host: messages that wait for a host buffer. */

/** Connections that one poll serves, so that a host that takes nothing does not cost every poll a walk. */
const PER_POLL: u32 = 256

/** Looks at connections of the host list that were not looked at since something changed; those that still wait go to its end. */
export function hostServe(): void {
  const st = state()
  for (let n: u32 = 0; n < PER_POLL && st.hostLook != 0; n++) {
    const index = st.hostHead
    const tcb = tcbAt(index)
    st.hostHead = tcb.hostNext
    if (!st.hostHead) st.hostTail = 0
    st.hostCount--
    st.hostLook--
    if (tcbUnlisted(tcb, F_ON_HOST) && !serve(tcb)) appendHost(tcb)
  }
}

/** Delivers what is owed, in order. False if the host had no buffer for all of it. */
function serve(tcb: Tcb): bool {
  if (tcb.flags & (F_FAILED_OWED | F_RESET_OWED)) {
    if (!connectionEvent(tcb, tcb.flags & F_FAILED_OWED ? EVENT_CONNECT_FAILED : EVENT_RESET, tcb.stateMs)) return false
    tcbRelease(tcb)
    return true
  }
  if (tcb.flags & F_ATTACH_WANTED) {
    if (!eventRoom(tcb.queueSet)) return false
    attachByPort(tcb)
    return true // it lists itself again if bytes still wait
  }
  // It says itself again what it owes, if it stays.
  if (tcb.flags & F_FROZEN) return true
  if ((tcb.flags & F_HOST) == 0) {
    if (tcb.state == TCP_CLOSED || tcb.state == TCP_TIME_WAIT) tcbRelease(tcb)
    return true
  }
  if (tcb.flags & F_CONNECTED_OWED) {
    if (!connectionEvent(tcb, EVENT_CONNECTED, 0)) return false
    tcb.flags &= ~F_CONNECTED_OWED
  }
  if (tcb.flags & F_QUIET) {
    // An application's state goes first; what a move takes along is not delivered.
    if ((migrationOf(tcb).flags & MOVE_STATE_OWED) == 0) return true
    if (!deliverState(tcb)) return false
  }
  if (!deliverUnread(tcb)) return false
  if (tcb.state == TCP_CLOSED || tcb.state == TCP_TIME_WAIT) {
    // The connection is over and only its last bytes had to be delivered.
    tcbRelease(tcb)
    return true
  }
  return (tcb.flags & F_CREDIT_OWED) == 0 || creditEvent(tcb)
}

function creditEvent(tcb: Tcb): bool {
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>EVENT_CREDIT)
  store<u32>(event + EVENT_SOCKET, tcb.handle)
  store<u32>(event + EVENT_VALUE, tcb.creditOwed)
  if (!deliverEvent(tcb.queueSet, event)) return false
  tcb.creditOwed = 0
  tcb.flags &= ~F_CREDIT_OWED
  return true
}

/** Queue states changed: whatever belonged to a process that is gone is reset and freed. */
export function queueSetsChanged(): void {
  for (let set: u32 = 0; set < <u32>QUEUE_SETS; set++) {
    if (!queueSetRenewed(set)) continue
    answersForget(set)
    udpQueueSetGone(set)
    connectionsGone(set)
    listenerQueueSetGone(set)
    applicationQueueSetGone(set)
  }
  // Buffers may have come back.
  const st = state()
  st.hostLook = st.hostCount
}

function connectionsGone(set: u32): void {
  const st = state()
  for (let i: u32 = 1; i <= st.tcbCount; i++) {
    const tcb = tcbAt(i)
    if (!belongsTo(tcb, set)) continue
    if (tcb.flags & F_FROZEN) {
      giveAbort(tcb)
      continue
    }
    if (tcb.state == TCP_CLOSED || tcb.state == TCP_TIME_WAIT) tcbRelease(tcb)
    else tcpAbandon(tcb, tcb.state != TCP_SYN_SENT)
  }
}

/** True for what would have to be told to the process: its sockets, and what waits unattached for its listeners. */
function belongsTo(tcb: Tcb, set: u32): bool {
  if (tcb.flags & F_HOST) return <u32>tcb.queueSet == set
  if (tcb.state == TCP_CLOSED || (tcb.flags & (F_ATTACHED | F_ACTIVE)) != 0) return false
  return <u32>listenerAt(tcb.listener).queueSet == set
}
