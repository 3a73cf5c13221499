import {
  EVENT_BYTES,
  EVENT_SEQUENCE,
  RX_DATA,
  RX_FLAG_END,
  RX_FLAGS,
  RX_HEADER_BYTES,
  RX_LENGTH,
  RX_SEQUENCE,
  RX_SOCKET,
  RX_TYPE,
} from '../../abi/messages.ts'
import { DELIVER_BASE, DELIVER_ENTRIES, QUEUE_STATUS_BASE } from '../../abi/registers.ts'
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INFO,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_OWNER,
  INFO_FIRST,
  INFO_LAST,
  OWNER_DEVICE,
  QUEUE_COUNT,
  QUEUE_EVENT,
  QUEUE_RX,
  QUEUE_SETS,
  QUEUE_STATE_ENABLED,
  QUEUE_STATUS_AVAILABLE,
  QUEUE_STATUS_BUFFER_BYTES,
  QUEUE_STATUS_BYTES,
  QUEUE_STATUS_EPOCH,
  QUEUE_STATUS_STATE,
  QUEUES_PER_SET,
} from '../../abi/rings.ts'
import { writeRegister } from '../hal/registers.ts'
import { clearBytes, copyBytes } from '../mem/bytes.ts'
import { carve } from '../mem/carve.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkReleaseList } from '../mem/chunk.ts'
import { state } from '../state.ts'
import { F_CONNECTED_OWED, F_END_DELIVERED, F_FIN_QUEUED, F_HOST, F_QUIET, Tcb, tcbIndex } from '../tcp/tcb.ts'

/**
 * Card to host. A record is a header in a slot of its own and pieces of payload that stay where they are, in receive slots or
 * chunks, until the DMA engine has copied them at the end of the poll. The stream bytes that one connection receives in one
 * poll become one record.
 */

/** What the firmware knows of the queue set of one process. */
@unmanaged
export class QueueSet {
  /** Chains of the RX and event queues used since they were enabled. */
  rxDelivered: u32
  eventDelivered: u32
  /** Running number of the next record (EVENT_SEQUENCE). */
  sequence: u32
  /** Sum of the epochs of its queues: changes when the process goes or comes. */
  epoch: u32
  /** Chunks of answers that wait for an event buffer (socket/answer.ts). */
  answers: u32
}

export const QUEUE_SET_BYTES: u32 = 32
const ENTRIES: u32 = 2048
const HEADER_SLOT_BYTES: u32 = 64
/** Largest record of stream bytes: small enough that the host's buffers stay in its cache while it works through them. */
const STREAM_RECORD_BYTES: u32 = 16384

export function deliverInitialize(): void {
  const st = state()
  st.deliverBase = carve(ENTRIES * DESCRIPTOR_BYTES)
  st.deliverHeaders = carve((ENTRIES + 1) * HEADER_SLOT_BYTES) // the last is `eventScratch`
  st.queueStatus = carve(QUEUE_COUNT * QUEUE_STATUS_BYTES)
  st.queueSets = carve(QUEUE_SETS * QUEUE_SET_BYTES)
  writeRegister(DELIVER_BASE, st.deliverBase)
  writeRegister(DELIVER_ENTRIES, ENTRIES)
  writeRegister(QUEUE_STATUS_BASE, st.queueStatus)
}

export function queueSet(set: u32): QueueSet {
  return changetype<QueueSet>(state().queueSets + set * QUEUE_SET_BYTES)
}

/** Starts a poll: the device has taken everything that the last one gave. */
export function deliverBegin(): void {
  const st = state()
  st.deliverUsed = 0
  st.openRecordTcb = 0
  if (st.deliverFull) {
    st.deliverFull = 0
    st.hostLook = st.hostCount
  }
  if (st.deliverChunks) {
    chunkReleaseList(st.deliverChunks)
    st.deliverChunks = 0
  }
}

/** If the queues of the set were enabled or disabled since the last call, forgets what was counted and returns true. */
export function queueSetRenewed(set: u32): bool {
  let epoch: u32 = 0
  for (let q: u32 = 0; q < <u32>QUEUES_PER_SET; q++) epoch += load<u32>(queueStatus(set, q) + QUEUE_STATUS_EPOCH)
  const qs = queueSet(set)
  if (qs.epoch == epoch) return false
  qs.epoch = epoch
  qs.rxDelivered = 0
  qs.eventDelivered = 0
  qs.sequence = 0
  return true
}

function queueStatus(set: u32, queue: u32): u32 {
  return state().queueStatus + (set * QUEUES_PER_SET + queue) * QUEUE_STATUS_BYTES
}

/** True while the process has the queue on. @param queue QUEUE_* */
export function queueEnabled(set: u32, queue: u32): bool {
  return load<u32>(queueStatus(set, queue) + QUEUE_STATUS_STATE) == QUEUE_STATE_ENABLED
}

function room(set: u32, queue: u32, delivered: u32): bool {
  const status = queueStatus(set, queue)
  return (
    load<u32>(status + QUEUE_STATUS_STATE) == QUEUE_STATE_ENABLED &&
    load<u32>(status + QUEUE_STATUS_AVAILABLE) != delivered
  )
}

/** True if `descriptors` more fit into the ring in this poll. */
function ringRoom(descriptors: u32): bool {
  const st = state()
  if (st.deliverUsed + descriptors <= ENTRIES) return true
  st.deliverFull = 1
  return false
}

/** Appends a descriptor and returns its address. */
function push(address: u32, bytes: u32, info: u32): u32 {
  const st = state()
  const descriptor = st.deliverBase + (st.deliverNext & (ENTRIES - 1)) * DESCRIPTOR_BYTES
  store<u32>(descriptor + DESCRIPTOR_ADDRESS, address)
  store<u32>(descriptor + DESCRIPTOR_LENGTH, bytes)
  store<u32>(descriptor + DESCRIPTOR_INFO, info)
  store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_DEVICE)
  st.deliverNext++
  st.deliverUsed++
  return descriptor
}

/** The header slot that belongs to the next descriptor. */
function headerSlot(): u32 {
  const st = state()
  return st.deliverHeaders + (st.deliverNext & (ENTRIES - 1)) * HEADER_SLOT_BYTES
}

/** Copies payload that would not outlive the call into a chunk that lives until the next poll. Returns its address, or 0. */
function keep(payload: u32, bytes: u32): u32 {
  const chunk = chunkAllocate()
  if (!chunk) return 0
  const st = state()
  copyBytes(chunkAddress(chunk), payload, bytes)
  chunkMeta(chunk).next = st.deliverChunks
  st.deliverChunks = chunk
  return chunkAddress(chunk)
}

/**
 * Hands in-order stream bytes to the host. Returns false, and nothing has happened, if the host has no buffer or the ring no room.
 *
 * @param bytes 1..CHUNK_BYTES
 * @param transient the payload does not outlive this call
 */
export function deliverStream(tcb: Tcb, payload: u32, bytes: u32, transient: bool): bool {
  const st = state()
  const set: u32 = tcb.queueSet
  const capacity = load<u32>(queueStatus(set, QUEUE_RX) + QUEUE_STATUS_BUFFER_BYTES)
  const index = tcbIndex(tcb)
  const queue = set * QUEUES_PER_SET + QUEUE_RX
  // The host does not know the handle yet.
  if ((tcb.flags & (F_CONNECTED_OWED | F_QUIET)) != 0 || !ringRoom(2)) return false
  const appends = st.openRecordTcb == index && st.openRecordBytes + bytes <= min<u32>(capacity, STREAM_RECORD_BYTES)
  if (!appends && (!room(set, QUEUE_RX, queueSet(set).rxDelivered) || bytes + RX_HEADER_BYTES > capacity)) return false
  if (transient) {
    payload = keep(payload, bytes)
    if (!payload) return false
  }
  if (appends) {
    store<u32>(st.openRecordLast + DESCRIPTOR_INFO, load<u32>(st.openRecordLast + DESCRIPTOR_INFO) & ~INFO_LAST)
    st.openRecordLast = push(payload, bytes, queue | INFO_LAST)
    st.openRecordBytes += bytes
    const header = st.openRecordHeader
    store<u32>(header + RX_LENGTH, load<u32>(header + RX_LENGTH) + bytes)
    return true
  }
  openRecord(tcb, bytes, 0, queue, false)
  st.openRecordLast = push(payload, bytes, queue | INFO_LAST)
  st.openRecordTcb = index
  st.openRecordBytes = RX_HEADER_BYTES + bytes
  return true
}

function openRecord(tcb: Tcb, bytes: u32, flags: u32, queue: u32, last: bool): void {
  const st = state()
  const qs = queueSet(tcb.queueSet)
  const header = headerSlot()
  store<u16>(header + RX_TYPE, <u16>RX_DATA)
  store<u16>(header + RX_FLAGS, <u16>flags)
  store<u32>(header + RX_SOCKET, tcb.handle)
  store<u32>(header + RX_LENGTH, bytes)
  store<u32>(header + RX_SEQUENCE, qs.sequence++)
  qs.rxDelivered++
  st.openRecordHeader = header
  push(header, RX_HEADER_BYTES, queue | INFO_FIRST | (last ? INFO_LAST : 0))
}

/** Tells the host that the stream has ended. False if it has no buffer. */
export function deliverEnd(tcb: Tcb): bool {
  const st = state()
  const set: u32 = tcb.queueSet
  if (tcb.flags & (F_CONNECTED_OWED | F_QUIET)) return false
  if (st.openRecordTcb == tcbIndex(tcb)) {
    const header = st.openRecordHeader
    store<u16>(header + RX_FLAGS, load<u16>(header + RX_FLAGS) | <u16>RX_FLAG_END)
  } else {
    if (!ringRoom(1) || !room(set, QUEUE_RX, queueSet(set).rxDelivered)) return false
    st.openRecordTcb = 0
    openRecord(tcb, 0, RX_FLAG_END, set * QUEUES_PER_SET + QUEUE_RX, true)
  }
  tcb.flags |= F_END_DELIVERED
  // Both directions have ended for the host: the handle is dead (abi/messages.ts).
  if (tcb.flags & F_FIN_QUEUED) tcb.flags &= ~F_HOST
  return true
}

/** A zeroed EVENT_BYTES buffer to fill in and give to `deliverEvent`. */
export function eventScratch(): u32 {
  const slot = state().deliverHeaders + ENTRIES * HEADER_SLOT_BYTES
  clearBytes(slot, HEADER_SLOT_BYTES)
  return slot
}

/** True if the host can take an event now. */
export function eventRoom(set: u32): bool {
  return queueSet(set).answers == 0 && ringRoom(1) && room(set, QUEUE_EVENT, queueSet(set).eventDelivered)
}

/** Sends an event; its sequence number is filled in. False if the host has no buffer. @param record EVENT_BYTES */
export function deliverEvent(set: u32, record: u32): bool {
  if (!eventRoom(set)) return false
  const qs = queueSet(set)
  const slot = headerSlot()
  copyBytes(slot, record, EVENT_BYTES)
  store<u32>(slot + EVENT_SEQUENCE, qs.sequence++)
  qs.eventDelivered++
  push(slot, EVENT_BYTES, (set * QUEUES_PER_SET + QUEUE_EVENT) | INFO_FIRST | INFO_LAST)
  // Bytes that come later go behind the event.
  state().openRecordTcb = 0
  return true
}

/**
 * Sends a record of its own on the RX queue. False if the host has no buffer for it.
 *
 * @param header copied; its RX_SEQUENCE is filled in
 * @param headerBytes at most HEADER_SLOT_BYTES
 * @param bytes of payload, 0..65535
 * @param transient the payload does not outlive this call
 */
export function deliverRecord(
  set: u32,
  header: u32,
  headerBytes: u32,
  payload: u32,
  bytes: u32,
  transient: bool,
): bool {
  const st = state()
  const pieces = transient ? (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES : bytes != 0 ? 1 : 0
  const capacity = load<u32>(queueStatus(set, QUEUE_RX) + QUEUE_STATUS_BUFFER_BYTES)
  const qs = queueSet(set)
  if (!ringRoom(1 + pieces) || !room(set, QUEUE_RX, qs.rxDelivered) || headerBytes + bytes > capacity) return false
  if (transient && st.chunkFreeCount < pieces) return false
  const queue = set * QUEUES_PER_SET + QUEUE_RX
  const slot = headerSlot()
  copyBytes(slot, header, headerBytes)
  store<u32>(slot + RX_SEQUENCE, qs.sequence++)
  qs.rxDelivered++
  st.openRecordTcb = 0
  push(slot, headerBytes, queue | INFO_FIRST | (pieces == 0 ? INFO_LAST : 0))
  let done: u32 = 0
  for (let i: u32 = 0; i < pieces; i++) {
    const size = transient ? min<u32>(bytes - done, CHUNK_BYTES) : bytes
    const at = transient ? keep(payload + done, size) : payload
    done += size
    push(at, size, queue | (i + 1 == pieces ? INFO_LAST : 0))
  }
  return true
}
