import {
  APPLICATION_BYTES,
  APPLICATION_DATA,
  APPLICATION_OFFSET,
  COMMIT_BYTES,
  COMMIT_OUT_OF_ORDER,
  COMMIT_RECEIVE_END,
  COMMIT_SEND_END,
  COMMIT_STATE_BYTES,
  IPOS_APPLICATION,
  IPOS_COMMIT,
  IPOS_DATA,
  IPOS_HEADER_BYTES,
  IPOS_TCP,
} from '../../abi/ipos.ts'
import { MAXIMUM_MIGRATING_BYTES } from '../../abi/messages.ts'
import { copyBytes } from '../mem/bytes.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta } from '../mem/chunk.ts'
import { netInterface } from '../net/interface.ts'
import { ipv4Header } from '../net/ipv4.ts'
import { MAXIMUM_CREDIT } from '../socket/credit.ts'
import { state } from '../state.ts'
import { drainOutOfOrder, keepOutOfOrder, keepUnread } from '../tcp/rcv.ts'
import { sendQueueAppend, sendQueueCopy } from '../tcp/sendqueue.ts'
import { seqLeq, seqLt } from '../tcp/sequence.ts'
import { Tcb } from '../tcp/tcb.ts'
import { checksumAdd, checksumCopy, checksumFinish, pseudoHeaderSum } from '../wire/checksum.ts'
import { iposLoad16, iposLoad32, iposStore16, iposStore32 } from '../wire/ipos.ts'
import { IPV4_HEADER_BYTES, IPV4_PROTOCOL_TCP, ipv4HeaderBytes, ipv4Source, ipv4TotalBytes } from '../wire/ipv4.ts'
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_HEADER_BYTES,
  TCP_PSH,
  tcpHeader,
  tcpHeaderBytes,
  tcpSequence,
} from '../wire/tcp.ts'
import { firstUnread, receivedEnd } from './block.ts'
import { iposBegin, iposBeginBare, iposCommit, iposCommitSummed, Naming, naming } from './frame.ts'
import { Migration, MOVE_GAP, migrationOf } from './migration.ts'

/**
 * The bytes of an endpoint on their way: what was received and not consumed as the client's own IP packets, what is unacknowledged or
 * unsent as packets to the client, the application's state in pieces. They go in rounds: so many frames, then IPOS_COMMIT, whose
 * answer calls for another round. A few rounds are under way at once; if something is missing all starts again at what has come.
 */
const ROUND_FRAMES: u32 = 64
const TTL: u32 = 64
const HEADERS: u32 = IPV4_HEADER_BYTES + TCP_HEADER_BYTES

/** The names of an endpoint, as the giving side uses them. */
export function namesOf(tcb: Tcb, thread: u32): Naming {
  return naming(tcb.remoteAddress, tcb.remotePort, tcb.localAddress, tcb.localPort, thread, IPOS_TCP)
}

/** Rounds under way: the receive ring of the other side holds them. */
const ROUNDS: u16 = 3

/** Sends the application's state while the offer is on its way; what gets lost goes again with the rounds. False if the transmit ring is full. */
export function stateSendAhead(tcb: Tcb, m: Migration): bool {
  while (m.stateAt < m.stateBytes) if (sendState(tcb, m) == RING_FULL) return false
  return true
}

/** Starts at what the other side has. */
export function roundsStart(m: Migration, received: u32, queued: u32, stateBytes: u32): void {
  m.receiveAt = received
  m.sendAt = queued
  m.stateAt = stateBytes
  m.roundsOut = 0
  m.roundsLeft = ROUNDS
  m.frames = 0
}

/** One round was answered: another one may go. False if nothing is under way and nothing left to be sent, so that something is missing. */
export function roundAnswered(tcb: Tcb, m: Migration): bool {
  if (m.roundsOut) m.roundsOut--
  if (isSent(tcb, m)) return m.roundsOut != 0 || m.roundsLeft != 0
  if (m.roundsOut + m.roundsLeft < ROUNDS) m.roundsLeft++
  return true
}

function isSent(tcb: Tcb, m: Migration): bool {
  if (m.stateAt < m.stateBytes || seqLt(m.receiveAt, receivedEnd(tcb)) || seqLt(m.sendAt, tcb.sndEnd)) return false
  return outOfOrderFrom(tcb, m.receiveAt) == 0
}

/** The first chunk beyond a gap that has bytes at `sequence` or behind it, 0 = none. */
function outOfOrderFrom(tcb: Tcb, sequence: u32): u32 {
  let chunk = tcb.oooHead
  while (chunk != 0 && !seqLt(sequence, chunkMeta(chunk).sequence + chunkMeta(chunk).length))
    chunk = chunkMeta(chunk).next
  return chunk
}

/** Sends the rounds that may go, each with IPOS_COMMIT behind it. False if the transmit ring is full: later, from here on. */
export function roundsSend(tcb: Tcb, m: Migration): bool {
  while (m.roundsLeft) {
    if (!roundSend(tcb, m)) return false
    m.frames = 0
    m.roundsOut++
    m.roundsLeft = isSent(tcb, m) ? 0 : m.roundsLeft - 1
  }
  return true
}

function roundSend(tcb: Tcb, m: Migration): bool {
  while (m.frames < ROUND_FRAMES) {
    let sent: i32
    if (m.stateAt < m.stateBytes) sent = sendState(tcb, m)
    else if (seqLt(m.receiveAt, receivedEnd(tcb))) sent = sendUnread(tcb, m)
    else {
      sent = sendOutOfOrder(tcb, m)
      if (sent == NOTHING) {
        if (!seqLt(m.sendAt, tcb.sndEnd)) break
        sent = sendQueued(tcb, m)
      }
    }
    if (sent == RING_FULL) return false
    m.frames++
  }
  return sendCommit(tcb, m)
}

const NOTHING: i32 = 0
const SENT: i32 = 1
const RING_FULL: i32 = -1

/** IPOS_COMMIT: what there is in all. */
export function sendCommit(tcb: Tcb, m: Migration): bool {
  const header = iposBegin(IPOS_COMMIT, m.peer, namesOf(tcb, m.offered))
  if (!header) return false
  iposStore32(header, COMMIT_RECEIVE_END, receivedEnd(tcb))
  iposStore32(header, COMMIT_SEND_END, tcb.sndEnd)
  iposStore32(header, COMMIT_STATE_BYTES, m.stateBytes)
  iposStore32(header, COMMIT_OUT_OF_ORDER, outOfOrderBytes(tcb))
  iposCommit(header, m.peer, COMMIT_BYTES)
  return true
}

/** Bytes that are held beyond a gap; where segments overlap they count once. */
export function outOfOrderBytes(tcb: Tcb): u32 {
  let bytes: u32 = 0
  let from = tcb.rcvNxt
  for (let chunk = tcb.oooHead; chunk != 0; chunk = chunkMeta(chunk).next) {
    const meta = chunkMeta(chunk)
    const start = seqLt(from, meta.sequence) ? meta.sequence : from
    const end = meta.sequence + meta.length
    if (!seqLt(start, end)) continue
    bytes += end - start
    from = end
  }
  return bytes
}

/** Payload of one packet, as the hub carries it. */
function pieceLimit(): u32 {
  return netInterface(state().hubPort).mtu - IPOS_HEADER_BYTES - HEADERS
}

function sendState(tcb: Tcb, m: Migration): i32 {
  let chunk = m.stateHead
  let offset = m.stateAt
  while (offset >= <u32>chunkMeta(chunk).length) {
    offset -= chunkMeta(chunk).length
    chunk = chunkMeta(chunk).next
  }
  const meta = chunkMeta(chunk)
  const bytes = min<u32>(<u32>meta.length - offset, pieceLimit())
  const header = iposBegin(IPOS_APPLICATION, m.peer, namesOf(tcb, m.offered))
  if (!header) return RING_FULL
  iposStore32(header, APPLICATION_OFFSET, m.stateAt)
  iposStore16(header, APPLICATION_BYTES, bytes)
  copyBytes(header + APPLICATION_DATA, chunkAddress(chunk) + meta.offset + offset, bytes)
  iposCommit(header, m.peer, APPLICATION_DATA + bytes)
  m.stateAt += bytes
  return SENT
}

function sendUnread(tcb: Tcb, m: Migration): i32 {
  let chunk = tcb.unreadHead
  let offset = m.receiveAt - firstUnread(tcb)
  while (offset >= <u32>chunkMeta(chunk).length) {
    offset -= chunkMeta(chunk).length
    chunk = chunkMeta(chunk).next
  }
  return sendReceived(tcb, m, chunk, offset)
}

function sendOutOfOrder(tcb: Tcb, m: Migration): i32 {
  const chunk = outOfOrderFrom(tcb, m.receiveAt)
  if (!chunk) return NOTHING
  const meta = chunkMeta(chunk)
  if (seqLt(m.receiveAt, meta.sequence)) m.receiveAt = meta.sequence
  return sendReceived(tcb, m, chunk, m.receiveAt - meta.sequence)
}

/** One packet from the client, with bytes of `chunk` from `offset` on; they begin at m.receiveAt. */
function sendReceived(tcb: Tcb, m: Migration, chunk: u32, offset: u32): i32 {
  const meta = chunkMeta(chunk)
  const bytes = min<u32>(<u32>meta.length - offset, pieceLimit())
  const header = iposBeginBare(IPOS_DATA, m.peer, namesOf(tcb, m.offered))
  if (!header) return RING_FULL
  const segment = header + IPOS_HEADER_BYTES + IPV4_HEADER_BYTES
  const window = min<u32>(tcb.sndWnd >>> tcb.sndScale, 0xffff)
  const flags = TCP_ACK | TCP_PSH
  tcpHeader(segment, tcb.remotePort, tcb.localPort, m.receiveAt, tcb.sndUna, TCP_HEADER_BYTES, flags, window)
  const sum = checksumCopy(segment + TCP_HEADER_BYTES, chunkAddress(chunk) + meta.offset + offset, bytes, 0)
  finishPiece(header, m.peer, tcb.remoteAddress, tcb.localAddress, bytes, sum)
  m.receiveAt += bytes
  return SENT
}

/** One packet to the client, from m.sendAt on. */
function sendQueued(tcb: Tcb, m: Migration): i32 {
  const bytes = min<u32>(tcb.sndEnd - m.sendAt, pieceLimit())
  const header = iposBeginBare(IPOS_DATA, m.peer, namesOf(tcb, m.offered))
  if (!header) return RING_FULL
  const segment = header + IPOS_HEADER_BYTES + IPV4_HEADER_BYTES
  tcpHeader(segment, tcb.localPort, tcb.remotePort, m.sendAt, tcb.rcvNxt, TCP_HEADER_BYTES, TCP_ACK, 0)
  const sum = sendQueueCopy(tcb, m.sendAt, segment + TCP_HEADER_BYTES, bytes)
  finishPiece(header, m.peer, tcb.localAddress, tcb.remoteAddress, bytes, sum)
  m.sendAt += bytes
  return SENT
}

function finishPiece(header: u32, row: u32, source: u32, destination: u32, bytes: u32, payloadSum: u32): void {
  const packet = header + IPOS_HEADER_BYTES
  const segment = packet + IPV4_HEADER_BYTES
  const segmentBytes = TCP_HEADER_BYTES + bytes
  const pseudo = pseudoHeaderSum(source, destination, IPV4_PROTOCOL_TCP, segmentBytes)
  const sum = checksumAdd(segment, TCP_HEADER_BYTES, pseudo) + payloadSum
  store<u16>(segment + TCP_CHECKSUM, <u16>checksumFinish(sum))
  ipv4Header(packet, IPV4_HEADER_BYTES + segmentBytes, IPV4_PROTOCOL_TCP, source, destination, TTL, true)
  // An IP header with its checksum sums up to nothing, a TCP segment to what its pseudo-header lacks.
  iposCommitSummed(header, row, IPOS_HEADER_BYTES + HEADERS + bytes, checksumFinish(pseudo))
}

// ── the taking side ──

/**
 * Takes a packet of the transfer. @param packet checked, and of this endpoint's addresses. What does not fit, or is there already, is
 * passed over: it comes again if it is missing.
 */
export function transferTake(tcb: Tcb, packet: u32): void {
  const segment = packet + ipv4HeaderBytes(packet)
  const segmentBytes = ipv4TotalBytes(packet) - ipv4HeaderBytes(packet)
  if (segmentBytes < TCP_HEADER_BYTES) return
  const headerBytes = tcpHeaderBytes(segment)
  if (headerBytes < TCP_HEADER_BYTES || headerBytes > segmentBytes) return
  const bytes = segmentBytes - headerBytes
  if (bytes == 0 || bytes > CHUNK_BYTES) return
  const payload = segment + headerBytes
  if (ipv4Source(packet) == tcb.localAddress) takeQueued(tcb, tcpSequence(segment), payload, bytes)
  else takeReceived(tcb, tcpSequence(segment), payload, bytes)
}

function takeReceived(tcb: Tcb, sequence: u32, payload: u32, bytes: u32): void {
  if (seqLt(tcb.rcvAdvertised, sequence + bytes)) return
  if (seqLt(tcb.rcvNxt, sequence)) {
    keepOutOfOrder(tcb, sequence, payload, bytes)
    return
  }
  const known = tcb.rcvNxt - sequence
  if (known >= bytes || !keepUnread(tcb, payload + known, bytes - known)) return
  tcb.rcvNxt += bytes - known
  if (tcb.oooHead) drainOutOfOrder(tcb)
}

function takeQueued(tcb: Tcb, sequence: u32, payload: u32, bytes: u32): void {
  if (!seqLeq(sequence, tcb.sndEnd)) {
    migrationOf(tcb).flags |= <u16>MOVE_GAP
    return
  }
  const known = tcb.sndEnd - sequence
  if (known >= bytes || tcb.sndEnd - tcb.sndUna + bytes > MAXIMUM_CREDIT + MAXIMUM_MIGRATING_BYTES) return
  const chunk = chunkAllocate()
  if (!chunk) return
  copyBytes(chunkAddress(chunk), payload + known, bytes - known)
  chunkMeta(chunk).length = <u16>(bytes - known)
  sendQueueAppend(tcb, chunk)
}

/** Takes a piece of the application's state. @param bytes of the packet, from the ipOS header on */
export function stateTake(m: Migration, header: u32, bytes: u32): void {
  const size = iposLoad16(header, APPLICATION_BYTES)
  const offset = iposLoad32(header, APPLICATION_OFFSET)
  if (offset > m.stateBytes) m.flags |= <u16>MOVE_GAP
  // In order alone: a later round repeats what has overtaken.
  if (offset != m.stateBytes || size == 0 || size > CHUNK_BYTES || size + APPLICATION_DATA > bytes) return
  if (size > m.stateEnd - m.stateBytes) return
  const chunk = chunkAllocate()
  if (!chunk) return
  copyBytes(chunkAddress(chunk), header + APPLICATION_DATA, size)
  chunkMeta(chunk).length = <u16>size
  stateAppend(m, chunk)
}

/** Appends a chunk to the application's state. */
export function stateAppend(m: Migration, chunk: u32): void {
  chunkMeta(chunk).next = 0
  if (m.stateTail) chunkMeta(m.stateTail).next = chunk
  else m.stateHead = chunk
  m.stateTail = chunk
  m.stateBytes += chunkMeta(chunk).length
}
