import {
  TCP_CLOSE_WAIT,
  TCP_CLOSED,
  TCP_CLOSING,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT_1,
  TCP_FIN_WAIT_2,
} from '../../abi/tcp.ts'
import { copyBytes } from '../mem/bytes.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkRelease, chunksAreScarce } from '../mem/chunk.ts'
import { attachByPort, attachByRequest } from '../socket/attach.ts'
import { deliverEnd, deliverStream } from '../socket/deliver.ts'
import { counters, state } from '../state.ts'
import { enterTimeWait } from './close.ts'
import { reset } from './reset.ts'
import { seqLeq, seqLt } from './sequence.ts'
import {
  F_ACK_NOW,
  F_ATTACHED,
  F_END_DELIVERED,
  F_FIN_RECEIVED,
  F_FIN_SEEN,
  F_FROZEN,
  F_HOST,
  setState,
  Tcb,
  wantHost,
  wantOutput,
} from './tcb.ts'

/**
 * The receiving half: in-order bytes go straight from the receive slot to the host's buffer when the host has one, into
 * chunks otherwise; out-of-order segments wait in a sorted list of chunks.
 */

/** Chunks that an endpoint may hold out of order: unattached, and one for so many bytes of window if attached. */
const OUT_OF_ORDER_UNATTACHED: u32 = 8
const OUT_OF_ORDER_SHARE: u32 = 1024
/** Segments acknowledged at once after one out of order. */
const QUICK_ACKS: u8 = 16

/**
 * Takes the acceptable part of a segment: [sequence, sequence + bytes) lies within the receive window.
 *
 * @param fin the segment ends with FIN at sequence + bytes
 * @param transient the payload does not outlive this call
 */
export function receiveSegment(tcb: Tcb, sequence: u32, payload: u32, bytes: u32, fin: bool, transient: bool): void {
  if (fin && (tcb.flags & F_FIN_SEEN) == 0 && finPossible(tcb, sequence + bytes)) {
    tcb.flags |= F_FIN_SEEN
    tcb.rcvFin = sequence + bytes
  }
  if ((tcb.flags & F_FIN_SEEN) != 0 && seqLt(tcb.rcvFin, sequence + bytes)) {
    // Bytes beyond the end that the peer has named.
    if (seqLt(tcb.rcvFin, sequence)) return
    bytes = tcb.rcvFin - sequence
  }
  // A segment that came in fragments is taken in pieces that fit into a chunk.
  while (bytes > CHUNK_BYTES) {
    takeText(tcb, sequence, payload, CHUNK_BYTES, transient)
    if (tcb.state == TCP_CLOSED) return
    tcb.unackedSegments = 2 // more than one segment's worth (RFC 5681 §4.2)
    sequence += CHUNK_BYTES
    payload += CHUNK_BYTES
    bytes -= CHUNK_BYTES
  }
  if (bytes != 0) {
    takeText(tcb, sequence, payload, bytes, transient)
    if (tcb.state == TCP_CLOSED) return
  } else if (sequence != tcb.rcvNxt) tcb.flags |= F_ACK_NOW // a FIN before its time
  if (tcb.unackedSegments < 255) tcb.unackedSegments++
  wantOutput(tcb)
  if ((tcb.flags & F_FIN_SEEN) != 0 && tcb.rcvNxt == tcb.rcvFin) receiveFin(tcb)
}

/** False if bytes beyond the named end have come already: one of the two is a lie, and the bytes were first. */
function finPossible(tcb: Tcb, end: u32): bool {
  for (let chunk = tcb.oooHead; chunk != 0; chunk = chunkMeta(chunk).next) {
    if (seqLt(end, chunkMeta(chunk).sequence + chunkMeta(chunk).length)) return false
  }
  return true
}

/** @param bytes 1..CHUNK_BYTES */
function takeText(tcb: Tcb, sequence: u32, payload: u32, bytes: u32, transient: bool): void {
  if ((tcb.flags & (F_ATTACHED | F_HOST)) == F_ATTACHED) {
    // The application has closed and will never read this (RFC 9293 §3.6.1, RFC 1122 §4.2.2.13).
    reset(tcb)
    return
  }
  if (sequence != tcb.rcvNxt) keepOutOfOrder(tcb, sequence, payload, bytes)
  else if (takeInOrder(tcb, payload, bytes, transient) && tcb.oooHead != 0) drainOutOfOrder(tcb)
}

/** In-order payload. False if the endpoint is gone or the bytes had to be refused. */
function takeInOrder(tcb: Tcb, payload: u32, bytes: u32, transient: bool): bool {
  if ((tcb.flags & F_ATTACHED) == 0) {
    // The request packet (FIG. 6): keep it, then let the placement decide who serves.
    if (!keepUnread(tcb, payload, bytes)) return false
    tcb.rcvNxt += bytes
    return tcb.flags & F_FROZEN ? true : attachByRequest(tcb)
  }
  if (tcb.unreadHead == 0 && deliverStream(tcb, payload, bytes, transient)) {
    tcb.rcvNxt += bytes
    return true
  }
  if (!keepUnread(tcb, payload, bytes)) return false
  tcb.rcvNxt += bytes
  wantHost(tcb)
  return true
}

/** Appends bytes to the unread list. False, with nothing kept, if there are no chunks: the peer sends again. */
export function keepUnread(tcb: Tcb, payload: u32, bytes: u32): bool {
  if (tcb.unreadTail != 0) {
    const tail = chunkMeta(tcb.unreadTail)
    const end: u32 = <u32>tail.offset + tail.length
    if (end + bytes <= CHUNK_BYTES) {
      copyBytes(chunkAddress(tcb.unreadTail) + end, payload, bytes)
      tail.length += <u16>bytes
      return true
    }
  }
  const chunk = chunksAreScarce() ? 0 : chunkAllocate()
  if (!chunk) {
    counters().tcpNoMemory++
    return false
  }
  copyBytes(chunkAddress(chunk), payload, bytes)
  chunkMeta(chunk).length = <u16>bytes
  appendUnread(tcb, chunk)
  return true
}

function appendUnread(tcb: Tcb, chunk: u32): void {
  chunkMeta(chunk).next = 0
  if (tcb.unreadTail) chunkMeta(tcb.unreadTail).next = chunk
  else tcb.unreadHead = chunk
  tcb.unreadTail = chunk
}

/** Hands unread bytes to the host while it has buffers, then the end of the stream. True once nothing is owed. */
export function deliverUnread(tcb: Tcb): bool {
  while (tcb.unreadHead) {
    const chunk = tcb.unreadHead
    const meta = chunkMeta(chunk)
    if (!deliverStream(tcb, chunkAddress(chunk) + meta.offset, meta.length, true)) return false
    tcb.unreadHead = meta.next
    if (!tcb.unreadHead) tcb.unreadTail = 0
    chunkRelease(chunk)
  }
  if ((tcb.flags & F_FIN_RECEIVED) != 0 && (tcb.flags & F_END_DELIVERED) == 0) return deliverEnd(tcb)
  return true
}

/** Inserts a segment in the sorted list; one that is wholly there already is dropped, overlaps are kept and trimmed on the way out. */
export function keepOutOfOrder(tcb: Tcb, sequence: u32, payload: u32, bytes: u32): void {
  // A gap: the peer learns of it at once (RFC 5681 §4.2).
  acknowledgeLoss(tcb)
  counters().tcpOutOfOrder++
  const end = sequence + bytes
  let previous: u32 = 0
  let chunk = tcb.oooHead
  let count: u32 = 0
  while (chunk != 0 && seqLeq(chunkMeta(chunk).sequence, sequence)) {
    const meta = chunkMeta(chunk)
    if (seqLeq(end, meta.sequence + meta.length)) {
      receivedTwice(tcb, sequence, end)
      tcb.oooNewest = sequence // the block around it goes next
      return
    }
    previous = chunk
    chunk = meta.next
    count++
  }
  tcb.oooNewest = sequence
  if (previous != 0 && extend(previous, sequence, payload, bytes)) return
  for (let rest = chunk; rest != 0; rest = chunkMeta(rest).next) count++
  const limit =
    tcb.flags & (F_ATTACHED | F_FROZEN)
      ? OUT_OF_ORDER_UNATTACHED + state().receiveCredit / OUT_OF_ORDER_SHARE
      : OUT_OF_ORDER_UNATTACHED
  if (count >= limit || chunksAreScarce()) return
  const fresh = chunkAllocate()
  if (!fresh) return
  const meta = chunkMeta(fresh)
  copyBytes(chunkAddress(fresh), payload, bytes)
  meta.sequence = sequence
  meta.length = <u16>bytes
  // Later segments that the new one covers go.
  while (chunk != 0) {
    const later = chunkMeta(chunk)
    if (seqLt(end, later.sequence + later.length)) break
    const next = later.next
    chunkRelease(chunk)
    chunk = next
  }
  meta.next = chunk
  if (previous) chunkMeta(previous).next = fresh
  else tcb.oooHead = fresh
}

/** The peer repairs a loss, or believes to: it hears of each segment at once (RFC 5681 §4.2), and of those that follow, as its window is small. */
function acknowledgeLoss(tcb: Tcb): void {
  tcb.flags |= F_ACK_NOW
  tcb.quickAcks = QUICK_ACKS
}

/** [start, end) was here already: the next bare ACK says so (RFC 2883). */
export function receivedTwice(tcb: Tcb, start: u32, end: u32): void {
  acknowledgeLoss(tcb)
  tcb.twiceStart = start
  tcb.twiceEnd = end
}

/** Small segments in a row share a chunk: appends to `chunk` if the bytes follow its own and fit. */
function extend(chunk: u32, sequence: u32, payload: u32, bytes: u32): bool {
  const meta = chunkMeta(chunk)
  const end: u32 = <u32>meta.offset + meta.length
  if (meta.sequence + meta.length != sequence || end + bytes > CHUNK_BYTES) return false
  copyBytes(chunkAddress(chunk) + end, payload, bytes)
  meta.length += <u16>bytes
  return true
}

/** Moves what has come in order from the out-of-order list to the host. */
export function drainOutOfOrder(tcb: Tcb): void {
  while (tcb.oooHead) {
    const chunk = tcb.oooHead
    const meta = chunkMeta(chunk)
    if (seqLt(tcb.rcvNxt, meta.sequence)) break
    tcb.oooHead = meta.next
    const end = meta.sequence + meta.length
    if (!seqLt(tcb.rcvNxt, end)) {
      chunkRelease(chunk)
      continue
    }
    const skip = <u16>(tcb.rcvNxt - meta.sequence)
    meta.offset += skip
    meta.length -= skip
    tcb.rcvNxt = end
    if (
      (tcb.flags & F_HOST) != 0 &&
      tcb.unreadHead == 0 &&
      deliverStream(tcb, chunkAddress(chunk) + meta.offset, meta.length, true)
    ) {
      chunkRelease(chunk)
      continue
    }
    appendUnread(tcb, chunk)
    wantHost(tcb)
  }
  // A hole was filled, wholly or in part: say so at once (RFC 5681 §4.2).
  tcb.flags |= F_ACK_NOW
}

/** The peer's FIN is in order (RFC 9293 §3.10.7.4, eighth). */
function receiveFin(tcb: Tcb): void {
  if (tcb.flags & F_FIN_RECEIVED) return
  tcb.flags |= F_FIN_RECEIVED
  tcb.rcvNxt++
  // A FIN may stand one beyond a full window.
  if (seqLt(tcb.rcvAdvertised, tcb.rcvNxt)) tcb.rcvAdvertised = tcb.rcvNxt
  const current: u32 = tcb.state
  if (current == TCP_ESTABLISHED) {
    setState(tcb, TCP_CLOSE_WAIT)
    if ((tcb.flags & (F_ATTACHED | F_FROZEN)) == 0 && !attachByPort(tcb)) return
  } else {
    tcb.flags |= F_ACK_NOW
    if (current == TCP_FIN_WAIT_1) setState(tcb, TCP_CLOSING)
    else if (current == TCP_FIN_WAIT_2) {
      deliverLast(tcb)
      enterTimeWait(tcb)
      return
    }
  }
  deliverLast(tcb)
}

function deliverLast(tcb: Tcb): void {
  if ((tcb.flags & F_HOST) != 0 && !deliverUnread(tcb)) wantHost(tcb)
}
