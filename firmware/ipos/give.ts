import {
  IPOS_BLOCK,
  IPOS_CANCEL,
  IPOS_CONNECT,
  IPOS_CONNECT_TCP_BYTES,
  IPOS_CONNECTION_BYTES,
  IPOS_TCP,
  REFUSE_THREAD_TAKEN,
} from '../../abi/ipos.ts'
import { EVENT_MIGRATED, EVENT_SOCKET, EVENT_STATUS, EVENT_TYPE, MIGRATE_FLAG_HANDED_OVER } from '../../abi/messages.ts'
import {
  STATUS_EAGAIN,
  STATUS_ECONNREFUSED,
  STATUS_ECONNRESET,
  STATUS_EHOSTUNREACH,
  STATUS_EINVAL,
  STATUS_ENOBUFS,
  STATUS_ENOTCONN,
  STATUS_ETIMEDOUT,
  STATUS_OK,
} from '../../abi/status.ts'
import { TRACE_MIGRATE } from '../../abi/trace.ts'
import { trace } from '../hal/trace.ts'
import { chunkMeta, chunkReleaseList } from '../mem/chunk.ts'
import { timerArm } from '../mem/wheel.ts'
import { deliverAnswer } from '../socket/answer.ts'
import { attachByPort } from '../socket/attach.ts'
import { eventScratch } from '../socket/deliver.ts'
import { listenerFind } from '../socket/listener.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon, tcpFail } from '../tcp/close.ts'
import { outputBeforeMove, sendReset } from '../tcp/output.ts'
import { tableInsertForward, tableRemoveTcb } from '../tcp/table.ts'
import { F_ATTACHED, F_FROZEN, F_GUEST, F_HOST, F_QUIET, Tcb, tcbRelease, wantHost, wantOutput } from '../tcp/tcb.ts'
import { timersResume } from '../tcp/timer.ts'
import { blockStateMoves, blockWrite, firstUnread, receivedEnd } from './block.ts'
import { FORWARD_MOVED, FORWARDING, forwardAllocate, forwardAt, forwardList, LIST_REST } from './forward.ts'
import { iposBegin, iposCommit } from './frame.ts'
import { heldRelay, heldReplay } from './held.ts'
import {
  askedJustNow,
  Migration,
  MOVE_ANYWHERE,
  MOVE_BY_HOST,
  MOVE_HANDED_OVER,
  MOVE_OFFER_OUT,
  MOVE_SENDING,
  migrationOf,
  migrationRest,
  migrationTake,
  OFFERS,
  PHASE_ARRIVED,
  PHASE_ARRIVING,
  PHASE_COMMITTED,
  PHASE_OFFERED,
  PHASE_PREPARED,
  PHASE_RESTING,
  repeatIn,
  threadInsert,
  threadRemove,
} from './migration.ts'
import { placementChoose } from './placement.ts'
import { endpointLost, movingSend } from './release.ts'
import { SELF, SERVER_UP, serverAt, serverOfAddress } from './server.ts'
import { arrivalTimer } from './take.ts'
import { threadChoose } from './thread.ts'
import { namesOf, roundAnswered, roundsSend, roundsStart, sendCommit, stateSendAhead } from './transfer.ts'

/**
 * The giving side of a move (FIG. 7, FIG. 13; the state table of docs/protocol.md). The endpoint is frozen from the offer on: it sends
 * nothing, and the client's packets are kept. Until the other side has acknowledged it may be taken back; afterwards never.
 */

/** Connection packets that are sent in vain before another server is asked. */
const OFFER_TRIES: u32 = 8

/** Moves an endpoint whose request has come to server `row`. False if it must stay here: a table is full, or the server does not answer. */
export function giveByRequest(tcb: Tcb, row: u32): bool {
  const m = migrationTake(tcb)
  if (m == null) return false
  m.flags = <u16>MOVE_ANYWHERE
  if (offer(tcb, m, row)) return true
  migrationRest(tcb)
  return false
}

/** OP_MIGRATE. @param address of the server, 0 = the best @param flags MIGRATE_FLAG_* */
export function giveByHost(tcb: Tcb, address: u32, flags: u32): void {
  const m = migrationTake(tcb)
  const missing = receivedEnd(tcb) - firstUnread(tcb) - listBytes(tcb.unreadHead)
  if (m == null) {
    answer(tcb, STATUS_ENOBUFS)
    return
  }
  if (m.returnedBytes != missing) {
    // Records were on their way to the host while this command was on its way here.
    tcb.flags |= F_QUIET
    if (m.returnedBytes < missing) answer(tcb, STATUS_EAGAIN)
    else {
      // Bytes that it never had: a driver that keeps no account gets no connection.
      counters().commandsBad++
      sendReset(tcb)
      tcpFail(tcb, STATUS_EINVAL)
    }
    return
  }
  takeBack(tcb, m)
  m.flags = <u16>(MOVE_BY_HOST | (flags & MIGRATE_FLAG_HANDED_OVER ? MOVE_HANDED_OVER : 0))
  const named = serverOfAddress(address)
  if (!blockStateMoves(tcb.state)) giveFailed(tcb, m, STATUS_ENOTCONN)
  else if (address == 0) {
    m.flags |= <u16>MOVE_ANYWHERE
    elsewhere(tcb, m, STATUS_EHOSTUNREACH)
  } else if (named <= <i32>SELF) giveFailed(tcb, m, STATUS_EINVAL)
  else if (!offer(tcb, m, named)) giveFailed(tcb, m, STATUS_EHOSTUNREACH)
}

/** Bytes in a list of chunks. */
function listBytes(chunk: u32): u32 {
  let bytes: u32 = 0
  for (; chunk != 0; chunk = chunkMeta(chunk).next) bytes += chunkMeta(chunk).length
  return bytes
}

/** What the host has given back stands before all that it never had. */
function takeBack(tcb: Tcb, m: Migration): void {
  if (!m.returnedHead) return
  chunkMeta(m.returnedTail).next = tcb.unreadHead
  tcb.unreadHead = m.returnedHead
  if (!tcb.unreadTail) tcb.unreadTail = m.returnedTail
  m.returnedHead = m.returnedTail = m.returnedBytes = 0
}

/** Offers the endpoint to a server. False, and nothing has happened, if it cannot be. */
function offer(tcb: Tcb, m: Migration, row: u32): bool {
  const server = serverAt(row)
  if ((server.status & SERVER_UP) == 0) return false
  const thread = threadChoose(tcb.remoteAddress, tcb.remotePort)
  if (!thread) return false
  if (!m.forward) m.forward = forwardAllocate()
  if (!m.forward) return false
  threadRemove(OFFERS, m)
  threadInsert(OFFERS, m, thread)
  m.peer = <u8>row
  m.peerIncarnation = server.incarnation
  m.tries = 1
  m.stateAt = 0
  enter(tcb, m, PHASE_OFFERED)
  tcb.flags |= F_FROZEN
  // At the end of this poll, when all that came with the request is taken in.
  m.flags = (m.flags & <u16>~MOVE_OFFER_OUT) | <u16>MOVE_SENDING
  wantOutput(tcb)
  repeatIn(tcb, m)
  counters().migrationsOffered++
  return true
}

function enter(tcb: Tcb, m: Migration, phase: u32): void {
  m.phase = <u8>phase
  trace(TRACE_MIGRATE, phase | ((<u32>m.peer) << 8), tcb.handle, m.offered)
}

/** Sends what the phase wants to have sent. False if the transmit ring is full. */
export function giveOutput(tcb: Tcb): bool {
  const m = migrationOf(tcb)
  if ((m.flags & MOVE_SENDING) == 0) return true
  let done: bool = true
  if (m.phase == PHASE_OFFERED) done = sendOffer(tcb, m)
  else if (m.phase == PHASE_COMMITTED) done = roundsSend(tcb, m)
  if (done) m.flags &= <u16>~MOVE_SENDING
  return done
}

/** The connection packet, and in the next poll, while it is on its way, the application's state. */
function sendOffer(tcb: Tcb, m: Migration): bool {
  if (m.flags & MOVE_OFFER_OUT) return stateSendAhead(tcb, m)
  if (!sendConnect(tcb, m)) return false
  if (m.tries > 1 || m.stateBytes == 0) return true
  m.flags |= <u16>MOVE_OFFER_OUT
  return false
}

function sendConnect(tcb: Tcb, m: Migration): bool {
  if (m.tries == 1) outputBeforeMove(tcb)
  const header = iposBegin(IPOS_CONNECT, m.peer, namesOf(tcb, m.offered))
  if (!header) return false
  blockWrite(header + IPOS_BLOCK, tcb, m)
  iposCommit(header, m.peer, IPOS_CONNECT_TCP_BYTES)
  return true
}

/** The timer of an endpoint that moves. */
export function moveTimer(tcb: Tcb): void {
  const m = migrationOf(tcb)
  if (<i32>(state().nowMs - m.dueMs) < 0) {
    timerArm(tcb, m.dueMs)
    return
  }
  if (askedJustNow(tcb, m)) return
  if (m.phase == PHASE_PREPARED || m.phase == PHASE_ARRIVING || m.phase == PHASE_ARRIVED) {
    arrivalTimer(tcb, m)
    return
  }
  if (m.phase == PHASE_OFFERED && m.tries >= OFFER_TRIES) {
    cancel(tcb, m)
    elsewhere(tcb, m, STATUS_ETIMEDOUT)
    return
  }
  m.tries++
  if (m.phase == PHASE_OFFERED) {
    m.flags = (m.flags & <u16>~MOVE_OFFER_OUT) | <u16>MOVE_SENDING
    wantOutput(tcb)
  } else if ((m.flags & MOVE_SENDING) == 0) {
    // Rounds or answers were lost: the answer to this tells what is missing.
    m.roundsOut = 0
    sendCommit(tcb, m)
  }
  repeatIn(tcb, m)
}

function cancel(tcb: Tcb, m: Migration): void {
  const header = iposBegin(IPOS_CANCEL, m.peer, namesOf(tcb, m.offered))
  if (header) iposCommit(header, m.peer, IPOS_CONNECTION_BYTES)
}

/** IPOS_ACKNOWLEDGE: the endpoint waits there. From now on it is not ours. */
export function giveAcknowledged(tcb: Tcb, m: Migration): void {
  if (m.phase != PHASE_OFFERED) return
  m.tries = 1
  enter(tcb, m, PHASE_COMMITTED)
  // A third server speaks once the entry INIC forwards to it: that is on its way there while the bytes are.
  if ((tcb.flags & F_GUEST) != 0 && m.peer != m.entry) movingSend(tcb, m)
  roundsStart(m, firstUnread(tcb), tcb.sndUna, m.stateAt)
  m.flags |= <u16>MOVE_SENDING
  wantOutput(tcb)
  repeatIn(tcb, m)
}

/** IPOS_REFUSE. @param reason REFUSE_* */
export function giveRefused(tcb: Tcb, m: Migration, reason: u32): void {
  if (m.phase != PHASE_OFFERED) return
  if (reason == REFUSE_THREAD_TAKEN && m.tries < OFFER_TRIES) {
    const tries: u32 = m.tries
    if (offer(tcb, m, m.peer)) {
      m.tries = <u16>(tries + 1)
      return
    }
  }
  elsewhere(tcb, m, STATUS_ECONNREFUSED)
}

/** IPOS_COMMITTED: some has come. @param gap start again at what is there */
export function giveProgress(tcb: Tcb, m: Migration, received: u32, queued: u32, bytes: u32, gap: bool): void {
  if (m.phase != PHASE_COMMITTED) return
  const unread = firstUnread(tcb)
  if (received - unread > tcb.rcvNxt - unread || queued - tcb.sndUna > tcb.sndEnd - tcb.sndUna || bytes > m.stateBytes)
    return
  m.tries = 1
  if (gap || !roundAnswered(tcb, m)) roundsStart(m, received, queued, bytes)
  m.flags |= <u16>MOVE_SENDING
  wantOutput(tcb)
  repeatIn(tcb, m)
}

/** IPOS_COMMITTED: all has come. */
export function giveComplete(tcb: Tcb, m: Migration): void {
  if (m.phase == PHASE_COMMITTED) finish(tcb, m)
}

/** The endpoint is there, with all its bytes: what remains here is where to send the client's packets. */
function finish(tcb: Tcb, m: Migration): void {
  const index = m.forward
  const held = m.heldHead
  m.forward = 0
  m.heldHead = 0
  const row = forwardAt(index)
  row.protocol = <u8>IPOS_TCP
  row.localAddress = tcb.localAddress
  row.remoteAddress = tcb.remoteAddress
  row.localPort = tcb.localPort
  row.remotePort = tcb.remotePort
  row.peer = m.peer
  row.entry = m.entry
  row.thread = m.offered
  row.incarnation = m.peerIncarnation
  row.moves = m.moves + 1
  row.sequence = tcb.rcvNxt
  row.acknowledgement = tcb.sndUna
  row.usedMs = state().nowMs
  counters().migrationsGiven++
  if (m.flags & MOVE_BY_HOST) answer(tcb, STATUS_OK)
  tableRemoveTcb(tcb)
  row.kind = <u8>(tcb.flags & F_GUEST ? FORWARD_MOVED : FORWARDING)
  tableInsertForward(index)
  tcb.flags &= ~F_HOST
  tcbRelease(tcb)
  forwardList(row, LIST_REST)
  heldRelay(held, row)
}

/** The server that was asked does not take it: another one, or it stays here. @param status what the host hears if it stays */
function elsewhere(tcb: Tcb, m: Migration, status: u32): void {
  if (m.phase == PHASE_OFFERED) {
    m.tried |= 1 << m.peer
    threadRemove(OFFERS, m)
    enter(tcb, m, PHASE_RESTING)
  }
  const byHost = (m.flags & MOVE_BY_HOST) != 0
  const servedHere = !byHost && listenerFind(tcb.localAddress, tcb.localPort) != null
  while (m.flags & MOVE_ANYWHERE) {
    const next = placementChoose(tcb.localPort, IPOS_TCP, servedHere, (m.flags & MOVE_HANDED_OVER) != 0, m.tried)
    if (next <= <i32>SELF) break
    if (offer(tcb, m, next)) return
    m.tried |= 1 << next
  }
  giveFailed(tcb, m, status)
}

/** The endpoint stays, and goes on. */
function giveFailed(tcb: Tcb, m: Migration, status: u32): void {
  const byHost = (m.flags & MOVE_BY_HOST) != 0
  const held = m.heldHead
  counters().migrationsFailed++
  m.heldHead = 0
  const frozen = (tcb.flags & F_FROZEN) != 0
  const port: u32 = tcb.flags & F_GUEST ? state().hubPort : tcb.netInterface
  tcb.flags &= ~(F_FROZEN | F_QUIET)
  migrationRest(tcb)
  if (byHost) {
    answer(tcb, status)
    wantHost(tcb)
  } else if ((tcb.flags & F_ATTACHED) == 0 && !attachByPort(tcb)) {
    // Nobody serves it: it was reset.
    chunkReleaseList(held)
    return
  }
  if (frozen) {
    timersResume(tcb)
    wantOutput(tcb)
  }
  heldReplay(held, port)
}

/** EVENT_MIGRATED. */
function answer(tcb: Tcb, status: u32): void {
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>EVENT_MIGRATED)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_SOCKET, tcb.handle)
  deliverAnswer(tcb.queueSet, event)
}

/** IPOS_RELEASE for an endpoint that was committed: it has ended there, or never was. */
export function giveReleased(tcb: Tcb, m: Migration, ended: bool): void {
  if (m.phase != PHASE_COMMITTED) return
  if (ended) {
    if (m.flags & MOVE_BY_HOST) answer(tcb, STATUS_OK)
    tableRemoveTcb(tcb)
    tcb.flags &= ~F_HOST
    tcbRelease(tcb)
  } else giveLost(tcb)
}

/** The server that an endpoint was committed to is gone, and the endpoint with it. */
export function giveLost(tcb: Tcb): void {
  endpointLost(tcb)
  tcpFail(tcb, STATUS_ECONNRESET)
}

/** The server that an endpoint is offered to is gone. */
export function givePeerGone(tcb: Tcb, m: Migration): void {
  if (m.phase == PHASE_OFFERED) elsewhere(tcb, m, STATUS_EHOSTUNREACH)
  else giveLost(tcb)
}

/** The application lets go of an endpoint that moves: one that is only offered is taken back and reset, one that is committed goes its way. */
export function giveAbort(tcb: Tcb): void {
  const m = migrationOf(tcb)
  if (m.phase == PHASE_OFFERED) {
    cancel(tcb, m)
    tcb.flags &= ~F_FROZEN
    tcpAbandon(tcb, true)
  } else if (m.phase == PHASE_COMMITTED) {
    tcb.flags &= ~F_HOST
    m.flags &= <u16>~MOVE_BY_HOST
  }
}
