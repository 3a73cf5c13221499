import {
  BLOCK_ENTRY,
  BLOCK_FLAG_HANDED_OVER,
  BLOCK_FLAGS,
  BLOCK_MOVES,
  BLOCK_RCV_ADVERTISED,
  BLOCK_RCV_NXT,
  BLOCK_RCV_READ,
  BLOCK_RECEIVER,
  BLOCK_SND_END,
  BLOCK_SND_UNA,
  BLOCK_STATE,
  BLOCK_STATE_BYTES,
  COMMIT_OUT_OF_ORDER,
  COMMIT_RECEIVE_END,
  COMMIT_SEND_END,
  COMMITTED_BYTES,
  COMMITTED_FLAG_COMPLETE,
  COMMITTED_FLAG_GAP,
  COMMITTED_FLAGS,
  COMMITTED_OUT_OF_ORDER,
  COMMITTED_QUEUED,
  COMMITTED_RECEIVED,
  COMMITTED_STATE_BYTES,
  IPOS_ACKNOWLEDGE,
  IPOS_BLOCK,
  IPOS_COMMITTED,
  IPOS_HEADER_BYTES,
  IPOS_REFUSE,
  REFUSE_BLOCK,
  REFUSE_BYTES,
  REFUSE_DRAINING,
  REFUSE_NO_LEASE,
  REFUSE_NO_LISTENER,
  REFUSE_NO_MEMORY,
  REFUSE_REASON,
  REFUSE_THREAD_TAKEN,
  REFUSE_WINDOW,
} from '../../abi/ipos.ts'
import { SOCKET_OPTION_TAKES_OVER } from '../../abi/messages.ts'
import { TRACE_MIGRATE } from '../../abi/trace.ts'
import { msReached } from '../hal/timer.ts'
import { trace } from '../hal/trace.ts'
import { chunksAreScarce } from '../mem/chunk.ts'
import { timerArm } from '../mem/wheel.ts'
import { arpLookup } from '../net/arp.ts'
import { netInterface } from '../net/interface.ts'
import { attachByPort } from '../socket/attach.ts'
import { Listener, listenerFind, listenerIndex } from '../socket/listener.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { openPath } from '../tcp/handshake.ts'
import { seqLt } from '../tcp/sequence.ts'
import { tableFind, tableInsertTcb } from '../tcp/table.ts'
import {
  F_FIN_RECEIVED,
  F_FROZEN,
  F_GUEST,
  setState,
  Tcb,
  tcbAllocate,
  tcbAt,
  tcbRelease,
  wantOutput,
} from '../tcp/tcb.ts'
import { lossTimerStart, timersResume } from '../tcp/timer.ts'
import { TIME_WAIT_TAG, timeWaitForget } from '../tcp/timewait.ts'
import {
  iposLoad32,
  iposServer,
  iposServerPort,
  iposSource,
  iposSourcePort,
  iposStore16,
  iposStore32,
  iposThread,
} from '../wire/ipos.ts'
import { block8, block16, block32, blockIsSound, blockOpen, blockRead } from './block.ts'
import { FORWARD_TAG } from './forward.ts'
import { iposBegin, iposBeginBare, iposCommit, namesIn } from './frame.ts'
import { heldReplay } from './held.ts'
import {
  CONNECTED,
  Migration,
  MOVE_ENDS_KNOWN,
  MOVE_FIN_RECEIVED,
  MOVE_GAP,
  MOVE_HANDED_OVER,
  MOVE_HEARD,
  MOVE_UNHEARD,
  migrationOf,
  migrationTake,
  PHASE_ARRIVED,
  PHASE_ARRIVING,
  PHASE_PREPARED,
  PHASE_RESTING,
  repeatIn,
  threadFind,
  threadInsert,
} from './migration.ts'
import { pastKnows } from './past.ts'
import { endpointLost, forwardEvict, movedSend, releasePrepared } from './release.ts'
import { portOfServer, SELF, SERVER_LEASED, serverAt, serverOfAddress } from './server.ts'
import { isDraining } from './state.ts'
import { outOfOrderBytes } from './transfer.ts'

/** The taking side of a move (FIG. 8, FIG. 13; the state table of docs/protocol.md). */

/** How long a prepared endpoint waits for its first packet, and an arriving one for its last, milliseconds. */
const PREPARED_MS: u32 = 10000
const ARRIVING_MS: u32 = 60000
/** Rounds of a transfer in which out-of-order bytes are waited for. */
const ROUNDS_FOR_GAPS: u16 = 256
/** Bytes that a chunk of the transfer holds at least, for the estimate of what a move needs. */
const PIECE_BYTES: u32 = 1024

/** IPOS_CONNECT for TCP, of the right length. @param from row of the sender */
export function takeConnect(from: u32, header: u32): void {
  const block = blockOpen(header + IPOS_BLOCK)
  const client = iposSource(header)
  const clientPort = iposSourcePort(header)
  const server = iposServer(header)
  const serverPort = iposServerPort(header)
  const thread = iposThread(header)
  // Late: we were switched off since.
  if (block32(block, BLOCK_RECEIVER) != serverAt(SELF).incarnation) return
  if (pastKnows(client, clientPort, thread)) {
    // Late as well, and then nobody waits for an answer; or the sender was switched off and on and has come to the same number again.
    refuse(from, header, REFUSE_THREAD_TAKEN)
    return
  }
  const known = threadFind(CONNECTED, client, clientPort, thread)
  if (known != null) {
    const m = migrationOf(known)
    const same = known.localAddress == server && <u32>known.localPort == serverPort
    // Said again: so is the answer. Else another endpoint of this client has the number.
    if (same && m.moves == block32(block, BLOCK_MOVES)) acknowledge(from, header)
    else refuse(from, header, REFUSE_THREAD_TAKEN)
    return
  }
  const entry = serverOfAddress(block32(block, BLOCK_ENTRY))
  if (entry < 0 || serverOfAddress(server) != entry || !blockIsSound(block)) {
    refuse(from, header, REFUSE_BLOCK)
    return
  }
  const present = tableFind(server, client, serverPort, clientPort)
  if (present != 0 && (present & (TIME_WAIT_TAG | FORWARD_TAG)) == 0) {
    // The endpoint itself is here, so this word is old; or it is none of ours, and the sender is wrong.
    const tcb = tcbAt(present)
    if (!tcb.migration || migrationOf(tcb).moves < block32(block, BLOCK_MOVES)) refuse(from, header, REFUSE_BLOCK)
    return
  }
  const listener = listenerFor(entry, server, serverPort)
  const reason = objection(entry, block, listener)
  if (reason) refuse(from, header, reason)
  else if (prepare(from, header, block, entry, listener!)) acknowledge(from, header)
  else refuse(from, header, REFUSE_NO_MEMORY)
}

/** The listener here for what server `entry` serves at `address`: one for any address, or for ours on the same network. */
function listenerFor(entry: u32, address: u32, port: u32): Listener | null {
  if (entry == SELF) return listenerFind(address, port)
  return listenerFind(netInterface(portOfServer(entry, address)).address, port)
}

/** Why the endpoint cannot be taken, or 0. */
function objection(entry: u32, block: u32, listener: Listener | null): u32 {
  const st = state()
  // Without a lease there is nothing that ends it, should the entry INIC fall silent.
  if (entry != SELF && (serverAt(entry).status & SERVER_LEASED) == 0) return REFUSE_NO_LEASE
  if (isDraining()) return REFUSE_DRAINING
  if (listener == null) return REFUSE_NO_LISTENER
  const handedOver = (block16(block, BLOCK_FLAGS) & BLOCK_FLAG_HANDED_OVER) != 0
  if (handedOver && (listener.options & SOCKET_OPTION_TAKES_OVER) == 0) return REFUSE_NO_LISTENER
  const read = block32(block, BLOCK_RCV_READ)
  if (block32(block, BLOCK_RCV_ADVERTISED) - read > st.receiveCredit) return REFUSE_WINDOW
  const unread = block32(block, BLOCK_RCV_NXT) - read
  const queued = block32(block, BLOCK_SND_END) - block32(block, BLOCK_SND_UNA)
  const chunks = (unread + (<i32>queued > 0 ? queued : 0) + block32(block, BLOCK_STATE_BYTES)) / PIECE_BYTES
  if (chunksAreScarce() || chunks > st.chunkFreeCount >>> 1) return REFUSE_NO_MEMORY
  return 0
}

/** Builds the endpoint from the open block, silent and in no table but Forward-Connect. False if there is no room, or no way to the client. */
function prepare(from: u32, header: u32, block: u32, entry: u32, listener: Listener): bool {
  const st = state()
  const tcb = tcbAllocate()
  if (tcb == null) return false
  const m = migrationTake(tcb)
  tcb.localAddress = iposServer(header)
  tcb.remoteAddress = iposSource(header)
  tcb.localPort = <u16>iposServerPort(header)
  tcb.remotePort = <u16>iposSourcePort(header)
  if (m == null || !openPath(tcb)) {
    tcbRelease(tcb)
    return false
  }
  tcb.flags = F_FROZEN | (entry == SELF ? 0 : F_GUEST)
  tcb.listener = listenerIndex(listener)
  tcb.creditGranted = st.sendCredit
  blockRead(block, tcb, m)
  setState(tcb, block8(block, BLOCK_STATE))
  m.entry = <u8>entry
  m.peer = <u8>from
  m.entryIncarnation = serverAt(entry).incarnation
  m.peerIncarnation = serverAt(from).incarnation
  threadInsert(CONNECTED, m, iposThread(header))
  enter(tcb, m, PHASE_PREPARED, PREPARED_MS)
  // Asked for now, the client's MAC address is there when the endpoint may speak.
  arpLookup(tcb.netInterface, tcb.nextHop)
  return true
}

function enter(tcb: Tcb, m: Migration, phase: u32, waitMs: u32): void {
  m.phase = <u8>phase
  m.dueMs = state().nowMs + waitMs
  timerArm(tcb, m.dueMs)
  trace(TRACE_MIGRATE, phase | ((<u32>m.peer) << 8), tcb.handle, m.thread)
}

function acknowledge(to: u32, header: u32): void {
  const answer = iposBeginBare(IPOS_ACKNOWLEDGE, to, namesIn(header))
  if (answer) iposCommit(answer, to, IPOS_HEADER_BYTES)
}

function refuse(to: u32, header: u32, reason: u32): void {
  counters().migrationsRefused++
  const answer = iposBegin(IPOS_REFUSE, to, namesIn(header))
  if (!answer) return
  iposStore16(answer, REFUSE_REASON, reason)
  iposCommit(answer, to, REFUSE_BYTES)
}

/** The first packet after the acknowledgement: the endpoint is ours. */
export function takeCommitted(tcb: Tcb, m: Migration): void {
  if (m.phase != PHASE_PREPARED) return
  // What stood here for the connection is an older word: that we forwarded it, that it had moved on, that an earlier one had ended.
  const older = tableFind(tcb.localAddress, tcb.remoteAddress, tcb.localPort, tcb.remotePort)
  if (older & TIME_WAIT_TAG) timeWaitForget(older & ~TIME_WAIT_TAG)
  else if (older & FORWARD_TAG) forwardEvict(older & ~FORWARD_TAG)
  else if (older) tcpAbandon(tcbAt(older), false)
  tableInsertTcb(tcb)
  enter(tcb, m, PHASE_ARRIVING, ARRIVING_MS)
  m.endMs = m.dueMs
  if (!isThird(tcb, m) || (m.flags & MOVE_HEARD) != 0) return
  // Chains collapse: the entry INIC forwards straight to us, once it has heard.
  m.flags |= <u16>MOVE_UNHEARD
  m.tries = 0
  tell(tcb, m)
}

function tell(tcb: Tcb, m: Migration): void {
  movedSend(tcb, m)
  m.tries++
  repeatIn(tcb, m)
}

/** True if the entry INIC is neither this one nor the one that the endpoint comes from. */
function isThird(tcb: Tcb, m: Migration): bool {
  return (tcb.flags & F_GUEST) != 0 && m.peer != m.entry
}

/** IPOS_MOVED_HEARD: the entry INIC forwards to us, and nobody else is its word for the owner. */
export function takeHeard(tcb: Tcb, m: Migration): void {
  // It had the word of who gives, which has given: what makes it ours is on its way.
  if (m.phase == PHASE_PREPARED) m.flags |= <u16>MOVE_HEARD
  if ((m.flags & MOVE_UNHEARD) == 0) return
  m.flags &= <u16>~MOVE_UNHEARD
  if (m.phase == PHASE_ARRIVED) settle(tcb, m)
}

/** IPOS_RELEASE in answer to IPOS_MOVED: the entry INIC has given the connection up. */
export function takeRefused(tcb: Tcb, m: Migration): void {
  if ((m.flags & MOVE_UNHEARD) == 0) return
  counters().migrationsLost++
  tcb.flags &= ~(F_FROZEN | F_GUEST)
  tcpAbandon(tcb, false)
}

/** IPOS_COMMIT for an endpoint that is prepared or arriving, from who gives it. */
export function takeCommit(tcb: Tcb, m: Migration, header: u32): void {
  takeCommitted(tcb, m)
  m.receiveEnd = iposLoad32(header, COMMIT_RECEIVE_END)
  m.sendEnd = iposLoad32(header, COMMIT_SEND_END)
  // Where it does not get them across, for whatever reason, the client sends again what is beyond a gap (RFC 2018 §8).
  if (m.roundsOut < ROUNDS_FOR_GAPS) m.roundsOut++
  m.outOfOrder = m.roundsOut < ROUNDS_FOR_GAPS ? iposLoad32(header, COMMIT_OUT_OF_ORDER) : 0
  m.flags |= <u16>MOVE_ENDS_KNOWN
  const from: u32 = m.peer
  takeProgress(tcb, m)
  if (m.phase == PHASE_ARRIVING) committedSoFar(from, header, tcb, m)
  else committedWhole(from, header)
}

/** Answers an IPOS_COMMIT: what is here, and that more is missing. */
function committedSoFar(to: u32, header: u32, tcb: Tcb, m: Migration): void {
  const answer = iposBegin(IPOS_COMMITTED, to, namesIn(header))
  if (!answer) return
  iposStore32(answer, COMMITTED_RECEIVED, tcb.rcvNxt)
  iposStore32(answer, COMMITTED_QUEUED, tcb.sndEnd)
  iposStore32(answer, COMMITTED_STATE_BYTES, m.stateBytes)
  iposStore32(answer, COMMITTED_OUT_OF_ORDER, outOfOrderBytes(tcb))
  iposStore16(answer, COMMITTED_FLAGS, m.flags & MOVE_GAP ? COMMITTED_FLAG_GAP : 0)
  m.flags &= <u16>~MOVE_GAP
  iposCommit(answer, to, COMMITTED_BYTES)
}

/** Answers an IPOS_COMMIT: all that it counts came here. */
export function committedWhole(to: u32, header: u32): void {
  const answer = iposBegin(IPOS_COMMITTED, to, namesIn(header))
  if (!answer) return
  store<u64>(answer + COMMITTED_RECEIVED, 0)
  store<u64>(answer + COMMITTED_STATE_BYTES, 0)
  iposStore16(answer, COMMITTED_FLAGS, COMMITTED_FLAG_COMPLETE)
  iposCommit(answer, to, COMMITTED_BYTES)
}

/** Bytes have come: once they are all here the endpoint lives. */
export function takeProgress(tcb: Tcb, m: Migration): void {
  if (m.phase != PHASE_ARRIVING || (m.flags & MOVE_ENDS_KNOWN) == 0) return
  if (seqLt(tcb.rcvNxt, m.receiveEnd) || seqLt(tcb.sndEnd, m.sendEnd) || m.stateBytes < m.stateEnd) return
  // Out-of-order bytes may be dropped where memory is short (RFC 2018 §8).
  if (outOfOrderBytes(tcb) < m.outOfOrder && !chunksAreScarce()) return
  if (m.flags & MOVE_UNHEARD) m.phase = <u8>PHASE_ARRIVED
  else settle(tcb, m)
}

function settle(tcb: Tcb, m: Migration): void {
  const held = m.heldHead
  m.heldHead = m.heldTail = m.heldCount = 0
  if (m.flags & MOVE_FIN_RECEIVED) {
    tcb.rcvNxt++
    tcb.flags |= F_FIN_RECEIVED
  }
  trace(TRACE_MIGRATE, PHASE_RESTING | ((<u32>m.peer) << 8), tcb.handle, m.thread)
  m.phase = <u8>PHASE_RESTING
  m.flags &= <u16>MOVE_HANDED_OVER
  m.tries = 0
  const port: u32 = tcb.flags & F_GUEST ? state().hubPort : tcb.netInterface
  tcb.flags &= ~F_FROZEN
  counters().migrationsTaken++
  // What the other side had not acknowledged yet we do, with data if there is any.
  if (tcb.lastAckSent != tcb.rcvNxt) tcb.unackedSegments = 1
  if (seqLt(tcb.sndUna, tcb.sndMax) && tcb.sndWnd != 0) lossTimerStart(tcb)
  timersResume(tcb)
  wantOutput(tcb)
  attachByPort(tcb)
  heldReplay(held, port)
}

/** The timer of an endpoint that was prepared, or is arriving. */
export function arrivalTimer(tcb: Tcb, m: Migration): void {
  if (m.phase == PHASE_PREPARED) preparedLost(tcb, m)
  else if (m.phase == PHASE_ARRIVING && msReached(state().nowMs, m.endMs)) arrivalLost(tcb)
  else if (m.flags & MOVE_UNHEARD) tell(tcb, m)
  else timerArm(tcb, m.endMs)
}

/** A prepared endpoint goes, without a word: it never was ours. */
export function takeForget(tcb: Tcb): void {
  tcb.flags &= ~(F_FROZEN | F_GUEST)
  tcbRelease(tcb)
}

/** The first packet for a prepared endpoint will never come. */
export function preparedLost(tcb: Tcb, m: Migration): void {
  // Who was to give it may have told the entry INIC that it is here.
  if (isThird(tcb, m)) releasePrepared(tcb, m)
  takeForget(tcb)
}

/** The rest of an endpoint that is ours will never come. */
export function arrivalLost(tcb: Tcb): void {
  endpointLost(tcb)
  tcpAbandon(tcb, false)
}
