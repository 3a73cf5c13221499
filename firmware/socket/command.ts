import {
  BOARD_STATE_BYTES,
  COMMAND_A,
  COMMAND_B,
  COMMAND_FLAGS,
  COMMAND_HEADER_BYTES,
  COMMAND_SOCKET,
  CONNECT_BYTES,
  DATA_FLAG_FIN,
  DATA_FLAG_MIGRATING,
  LISTEN_BYTES,
  MAXIMUM_MIGRATING_BYTES,
  MAXIMUM_STATE_BYTES,
  OP_ABORT,
  OP_BOARD_STATE,
  OP_CANCEL,
  OP_CLOSE,
  OP_CONNECT,
  OP_CREDIT,
  OP_DATA,
  OP_DRAIN,
  OP_FLASH,
  OP_LISTEN,
  OP_LISTENER_OPTIONS,
  OP_MIGRATE,
  OP_PROCESS_STATE,
  OP_RETURN,
  OP_SET_OPTION,
  OP_STATE,
  OP_UDP_BIND,
  OP_UDP_CLOSE,
  OP_UDP_SEND,
  OP_UNLISTEN,
  OPTION_KEEP_ALIVE,
  OPTION_NO_DELAY,
  PROCESS_STATE_BYTES,
} from '../../abi/messages.ts'
import { STATUS_ENOBUFS } from '../../abi/status.ts'
import { TCP_ESTABLISHED, TCP_FIN_WAIT_2, TCP_SYN_RECEIVED } from '../../abi/tcp.ts'
import { processStateCommand } from '../ipos/application.ts'
import { giveAbort, giveByHost } from '../ipos/give.ts'
import { migrationTake, returnAppend } from '../ipos/migration.ts'
import { boardStateCommand, drainCommand } from '../ipos/state.ts'
import { stateAppend } from '../ipos/transfer.ts'
import { chunkMeta, chunkRelease, chunkReleaseList } from '../mem/chunk.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon, tcpFail } from '../tcp/close.ts'
import { sendReset } from '../tcp/output.ts'
import { sendQueueAppend } from '../tcp/sendqueue.ts'
import { seqLeq } from '../tcp/sequence.ts'
import {
  F_ACK_NOW,
  F_CONNECTED_OWED,
  F_CREDIT_OWED,
  F_END_DELIVERED,
  F_FIN_QUEUED,
  F_FIN_RECEIVED,
  F_FROZEN,
  F_HOST,
  F_KEEP_ALIVE,
  F_NO_DELAY,
  Tcb,
  TIMER_KEEP_ALIVE,
  TIMER_STATE,
  tcbOfHandle,
  wantOutput,
} from '../tcp/tcb.ts'
import { FIN_WAIT_2_MS, timerStart, timerStop } from '../tcp/timer.ts'
import { cancelConnect, connectCommand } from './connect.ts'
import { flashCommand } from './flash.ts'
import { listenCommand, listenerOptionsCommand, unlistenCommand } from './listen.ts'
import { isUdpHandle, udpCommand } from './udp.ts'

/** A window that has opened by this much is worth an ACK of its own, segments (RFC 9293 §3.8.6.2.2). */
const WINDOW_UPDATE_SEGMENTS: u32 = 2

/** A record of a control queue; the caller frees its chunks. @param record address of its first bytes, in chunk `head` */
export function controlCommand(set: u32, op: u32, record: u32, head: u32): void {
  const bytes: u32 = chunkMeta(head).length
  if (op == OP_LISTEN && bytes >= <u32>LISTEN_BYTES) listenCommand(set, record)
  else if (op == OP_UNLISTEN) unlistenCommand(set, load<u32>(record + COMMAND_SOCKET))
  else if (op == OP_CONNECT && bytes >= <u32>CONNECT_BYTES) connectCommand(set, record)
  else if (op == OP_CANCEL) cancelConnect(set, load<u32>(record + COMMAND_SOCKET))
  else if (op == OP_SET_OPTION) optionCommand(set, record)
  else if (op == OP_UDP_BIND || op == OP_UDP_CLOSE) udpCommand(set, op, record, head)
  else if (op == OP_BOARD_STATE && bytes >= <u32>BOARD_STATE_BYTES) boardStateCommand(record)
  else if (op == OP_PROCESS_STATE && bytes >= <u32>PROCESS_STATE_BYTES) processStateCommand(set, record)
  else if (op == OP_LISTENER_OPTIONS)
    listenerOptionsCommand(set, load<u32>(record + COMMAND_SOCKET), load<u32>(record + COMMAND_A))
  else if (op == OP_DRAIN) drainCommand(record)
  else counters().commandsBad++
}

/** The connection that a record names, if it is this process's and still open for it; not while it moves. */
function connectionOf(set: u32, record: u32): Tcb | null {
  const tcb = tcbOfHandle(load<u32>(record + COMMAND_SOCKET))
  // A handle that has just died is no mistake of the host: the news is on its way.
  if (tcb == null || <u32>tcb.queueSet != set || tcb.state < <u8>TCP_ESTABLISHED) return null
  return tcb.flags & F_FROZEN ? null : tcb
}

/** A record of a TX queue; takes over its chunks. */
export function streamCommand(set: u32, op: u32, record: u32, head: u32): void {
  if (op == OP_DATA) {
    const tcb = connectionOf(set, record)
    if (tcb == null) chunkReleaseList(head)
    else dataCommand(tcb, load<u16>(record + COMMAND_FLAGS), head)
    return
  }
  if (op == OP_RETURN || op == OP_STATE) {
    moveCommand(connectionOf(set, record), op, head)
    return
  }
  if (op == OP_FLASH) {
    flashCommand(set, record, head)
    return
  }
  const isUdp = isUdpHandle(load<u32>(record + COMMAND_SOCKET))
  if (op == OP_UDP_SEND || op == OP_UDP_CLOSE || (op == OP_CREDIT && isUdp)) {
    udpCommand(set, op, record, head)
  } else if (op == OP_CREDIT || op == OP_CLOSE || op == OP_ABORT || op == OP_MIGRATE) {
    const tcb = connectionOf(set, record)
    if (tcb == null) {
      if (op == OP_ABORT) abortMoving(set, record)
    } else {
      if (op == OP_MIGRATE) giveByHost(tcb, load<u32>(record + COMMAND_A), load<u16>(record + COMMAND_FLAGS))
      else if (op == OP_CREDIT) creditCommand(tcb, load<u32>(record + COMMAND_A))
      else if (op == OP_CLOSE) closeCommand(tcb)
      else abortCommand(tcb)
    }
  } else counters().commandsBad++
  chunkReleaseList(head)
}

function dataCommand(tcb: Tcb, flags: u32, head: u32): void {
  const first = chunkMeta(head)
  let bytes: u32 = 0
  for (let chunk = head; chunk != 0; chunk = chunkMeta(chunk).next) bytes += chunkMeta(chunk).length
  bytes -= COMMAND_HEADER_BYTES
  if (tcb.flags & F_FIN_QUEUED) {
    counters().commandsBad++
    chunkReleaseList(head)
    return
  }
  const more: u32 = flags & DATA_FLAG_MIGRATING ? MAXIMUM_MIGRATING_BYTES : 0
  // A move that failed may have left more than was granted: the end of the stream may follow it all the same.
  if (bytes != 0 && tcb.sndEnd - tcb.sndUna + tcb.creditOwed + bytes > tcb.creditGranted + more) {
    // More than was granted.
    chunkReleaseList(head)
    failBadly(tcb)
    return
  }
  first.offset += <u16>COMMAND_HEADER_BYTES
  first.length -= <u16>COMMAND_HEADER_BYTES
  let data = head
  if (first.length == 0) {
    data = first.next
    chunkRelease(head)
  }
  if (data) sendQueueAppend(tcb, data)
  if (flags & DATA_FLAG_FIN) endStream(tcb)
  wantOutput(tcb)
}

/** OP_RETURN and OP_STATE: what goes along with a move. Takes over the record's chunks. */
function moveCommand(tcb: Tcb | null, op: u32, head: u32): void {
  const m = tcb != null ? migrationTake(tcb) : null
  const first = chunkMeta(head)
  first.offset += <u16>COMMAND_HEADER_BYTES
  first.length -= <u16>COMMAND_HEADER_BYTES
  if (m == null) {
    chunkReleaseList(head)
    // Bytes that the host has given back and that are nowhere now.
    if (tcb != null && op == OP_RETURN) failBadly(tcb)
    return
  }
  while (head) {
    const chunk = head
    head = chunkMeta(chunk).next
    if (chunkMeta(chunk).length == 0) chunkRelease(chunk)
    else if (op == OP_RETURN) returnAppend(m, chunk)
    else stateAppend(m, chunk)
  }
  if (m.stateBytes > <u32>MAXIMUM_STATE_BYTES || m.returnedBytes > state().receiveCredit) failBadly(tcb!)
}

/** A driver that keeps no account gets no connection. */
function failBadly(tcb: Tcb): void {
  counters().commandsBad++
  sendReset(tcb)
  tcpFail(tcb, STATUS_ENOBUFS)
}

/** OP_ABORT for a connection that moves. */
function abortMoving(set: u32, record: u32): void {
  const tcb = tcbOfHandle(load<u32>(record + COMMAND_SOCKET))
  if (tcb != null && <u32>tcb.queueSet == set && (tcb.flags & F_FROZEN) != 0) giveAbort(tcb)
}

/** The application ends its stream: FIN follows the last queued byte. */
function endStream(tcb: Tcb): void {
  tcb.flags = (tcb.flags | F_FIN_QUEUED) & ~F_CREDIT_OWED
  if (tcb.flags & F_END_DELIVERED) tcb.flags &= ~F_HOST // the handle is dead (abi/messages.ts)
}

/** The application has consumed bytes: the window's right edge moves. */
function creditCommand(tcb: Tcb, bytes: u32): void {
  // Credit for what was never delivered would let the peer send more than the host bargained for.
  if (bytes > unconsumed(tcb)) {
    counters().commandsBad++
    return
  }
  tcb.rcvEdge += bytes
  // The largest window that the header can tell, and what it could tell now.
  const all = min<u32>(state().receiveCredit, (<u32>0xffff) << tcb.rcvScale)
  const right = tcb.rcvNxt + min<u32>(tcb.rcvEdge - tcb.rcvNxt, all)
  if (seqLeq(right, tcb.rcvAdvertised)) return
  const opened = right - tcb.rcvAdvertised
  // RFC 9293 §3.8.6.2.2: advertise once it is half of what the window can be, or two segments where little is left of it.
  const little = tcb.rcvAdvertised - tcb.rcvNxt < all >>> 2
  if (opened >= all >>> 1 || (little && opened >= WINDOW_UPDATE_SEGMENTS * <u32>tcb.mss)) {
    tcb.flags |= F_ACK_NOW
    wantOutput(tcb)
  }
}

/** The application has let go (abi/messages.ts OP_CLOSE). */
function closeCommand(tcb: Tcb): void {
  if (tcb.unreadHead != 0 || unconsumed(tcb) != 0) {
    // RFC 9293 §3.6.1, RFC 1122 §4.2.2.13: bytes that nobody will read mean a reset.
    tcpAbandon(tcb, true)
    return
  }
  tcb.flags &= ~(F_HOST | F_CONNECTED_OWED | F_CREDIT_OWED)
  if ((tcb.flags & F_FIN_QUEUED) == 0) tcb.flags |= F_FIN_QUEUED
  if (tcb.state == TCP_FIN_WAIT_2) timerStart(tcb, TIMER_STATE, FIN_WAIT_2_MS)
  wantOutput(tcb)
}

/** Bytes that were received and that the host has not returned as credit. */
function unconsumed(tcb: Tcb): u32 {
  const fin = tcb.flags & F_FIN_RECEIVED ? 1 : 0
  return state().receiveCredit - (tcb.rcvEdge - (tcb.rcvNxt - fin))
}

function abortCommand(tcb: Tcb): void {
  tcpAbandon(tcb, true)
}

function optionCommand(set: u32, record: u32): void {
  const tcb = connectionOf(set, record)
  if (tcb == null) {
    udpCommand(set, OP_SET_OPTION, record, 0)
    return
  }
  const option = load<u32>(record + COMMAND_A)
  const value = load<u32>(record + COMMAND_B)
  if (option == OPTION_NO_DELAY) {
    if (value) tcb.flags |= F_NO_DELAY
    else tcb.flags &= ~F_NO_DELAY
    wantOutput(tcb)
  } else if (option == OPTION_KEEP_ALIVE) {
    timerStop(tcb, TIMER_KEEP_ALIVE)
    tcb.flags &= ~F_KEEP_ALIVE
    if (value == 0) return
    tcb.flags |= F_KEEP_ALIVE
    tcb.keepAliveIdleMs = min<u32>(value, 1000000) * 1000
    tcb.keepAliveProbes = 0
    if (tcb.state > <u8>TCP_SYN_RECEIVED) timerStart(tcb, TIMER_KEEP_ALIVE, tcb.keepAliveIdleMs)
  } else counters().commandsBad++
}
