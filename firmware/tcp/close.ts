import { TCP_CLOSED, TCP_SYN_RECEIVED, TCP_SYN_SENT, TCP_TIME_WAIT } from '../../abi/tcp.ts'
import { endpointGone } from '../ipos/release.ts'
import { chunkReleaseList } from '../mem/chunk.ts'
import { timerCancel } from '../mem/wheel.ts'
import { TCP_ACK } from '../wire/tcp.ts'
import { sendReset, sendSegment } from './output.ts'
import { scoreboardClose } from './scoreboard.ts'
import { tableRemoveTcb } from './table.ts'
import {
  F_ACK_NOW,
  F_ACTIVE,
  F_CONNECTED_OWED,
  F_END_DELIVERED,
  F_FAILED_OWED,
  F_FIN_RECEIVED,
  F_GUEST,
  F_HOST,
  F_RESET_OWED,
  setState,
  Tcb,
  tcbRelease,
  wantHost,
} from './tcb.ts'
import { timeWaitEnter } from './timewait.ts'

/** The ways in which an endpoint ends. After each of these the TCB is in no table; it may only still owe the host a message. */

/** "Start the time-wait timer, turn off the other timers": a TIME-WAIT record takes over (RFC 9293 §3.10.7.4). */
export function enterTimeWait(tcb: Tcb): void {
  // The ACK of the peer's FIN leaves now, if it is still due; the record answers a repeated FIN.
  if ((tcb.flags & F_ACK_NOW) != 0 || tcb.unackedSegments != 0) sendSegment(tcb, tcb.sndNxt, 0, TCP_ACK)
  setState(tcb, TCP_TIME_WAIT)
  tableRemoveTcb(tcb)
  // An endpoint that served for another INIC goes on doing so in its record.
  timeWaitEnter(tcb)
  tcb.flags &= ~F_GUEST
  unlisted(tcb)
  leave(tcb)
}

/** LAST-ACK: our FIN is acknowledged (RFC 9293 §3.10.7.4: "delete the TCB, enter the CLOSED state"). */
export function fullyClosed(tcb: Tcb): void {
  setState(tcb, TCP_CLOSED)
  tableRemoveTcb(tcb)
  unlisted(tcb)
  leave(tcb)
}

/** The endpoint has left the connection table: what the ipOS layer keeps of it goes, and who forwards to it is told. */
function unlisted(tcb: Tcb): void {
  if (tcb.migration) endpointGone(tcb)
}

/** Frees the TCB, or leaves it on the host's list while received bytes or the end of the stream wait for a host buffer. */
function leave(tcb: Tcb): void {
  timerCancel(tcb)
  tcb.timers = 0
  if ((tcb.flags & F_HOST) != 0 && (tcb.flags & F_FIN_RECEIVED) != 0 && (tcb.flags & F_END_DELIVERED) == 0) {
    wantHost(tcb)
    return
  }
  tcbRelease(tcb)
}

/** Ends an endpoint that no application knows or wants. @param withReset tell the peer */
export function tcpAbandon(tcb: Tcb, withReset: bool): void {
  if (withReset) sendReset(tcb)
  setState(tcb, TCP_CLOSED)
  tableRemoveTcb(tcb)
  unlisted(tcb)
  tcbRelease(tcb)
}

/** Ends an endpoint with an error, which its application hears of. @param status abi/status.ts */
export function tcpFail(tcb: Tcb, status: u32): void {
  const opening = (tcb.state == TCP_SYN_SENT || tcb.state == TCP_SYN_RECEIVED) && (tcb.flags & F_ACTIVE) != 0
  setState(tcb, TCP_CLOSED)
  tableRemoveTcb(tcb)
  unlisted(tcb)
  timerCancel(tcb)
  tcb.timers = 0
  if ((tcb.flags & F_HOST) == 0) {
    tcbRelease(tcb)
    return
  }
  // What was received and not read goes with the connection, as after any reset.
  chunkReleaseList(tcb.sndHead)
  chunkReleaseList(tcb.unreadHead)
  chunkReleaseList(tcb.oooHead)
  tcb.sndHead = tcb.sndTail = tcb.sndCursor = tcb.unreadHead = tcb.unreadTail = tcb.oooHead = 0
  scoreboardClose(tcb)
  tcb.stateMs = status
  tcb.flags |= opening || (tcb.flags & F_CONNECTED_OWED) != 0 ? F_FAILED_OWED : F_RESET_OWED
  tcb.flags &= ~F_CONNECTED_OWED
  wantHost(tcb)
}
