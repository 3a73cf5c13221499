import { RELEASE_ENDED } from '../../abi/ipos.ts'
import { msReached } from '../hal/timer.ts'
import { migrationOf } from '../ipos/migration.ts'
import { releaseStart } from '../ipos/release.ts'
import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'
import { tableInsertTimeWait, tableRemoveTimeWait } from './table.ts'
import { F_GUEST, F_TIMESTAMPS, Tcb } from './tcb.ts'

/**
 * TIME-WAIT (RFC 9293 §3.3.2) in 64 bytes: the endpoint's memory is given back at once and this record answers for it.
 * Records expire in the order in which they were made, so one list does for a timer. When all are in use the oldest goes
 * early, as TIME-WAIT assassination by load is better than refusing connections.
 */
@unmanaged
export class TimeWait {
  localAddress: u32
  remoteAddress: u32
  localPort: u16
  remotePort: u16
  hashNext: u32
  /** Neighbours in the order of expiry; `newer` also links free records. */
  older: u32
  newer: u32
  expiresMs: u32
  sndNxt: u32
  rcvNxt: u32
  rcvWnd: u32
  tsRecent: u32
  tsOffset: u32
  /** Time of our last segment; a port is used again only after the timestamp clock has moved on (RFC 6191 §2). */
  lastSentMs: u32
  /** F_TIMESTAMPS or 0. */
  flags: u16
  /** Thread port of an endpoint that served for the INIC in row `entry`, in the life `entryIncarnation`; 0 = for this one. */
  thread: u16
  netInterface: u8
  entry: u8
  entryIncarnation: u32
}

export const TIME_WAIT_BYTES: u32 = 64
export const TIME_WAIT_TAG: u32 = 0x80000000

export function timeWaitInitialize(count: u32): void {
  const st = state()
  st.timeWaitCount = count
  st.timeWaitBase = carve((count + 1) * TIME_WAIT_BYTES)
  st.timeWaitFree = 1
  for (let i: u32 = 1; i < count; i++) timeWaitAt(i).newer = i + 1
}

export function timeWaitAt(index: u32): TimeWait {
  return changetype<TimeWait>(state().timeWaitBase + index * TIME_WAIT_BYTES)
}

/** Enters TIME-WAIT for the connection of `tcb`, which is in no table any more. */
export function timeWaitEnter(tcb: Tcb): void {
  const st = state()
  if (!st.timeWaitFree) timeWaitRemove(st.timeWaitOldest)
  const index = st.timeWaitFree
  const record = timeWaitAt(index)
  st.timeWaitFree = record.newer
  record.localAddress = tcb.localAddress
  record.remoteAddress = tcb.remoteAddress
  record.localPort = tcb.localPort
  record.remotePort = tcb.remotePort
  record.sndNxt = tcb.sndNxt
  record.rcvNxt = tcb.rcvNxt
  record.rcvWnd = tcb.rcvAdvertised - tcb.rcvNxt
  record.tsRecent = tcb.tsRecent
  record.tsOffset = tcb.tsOffset
  record.lastSentMs = st.nowMs
  record.flags = <u16>(tcb.flags & F_TIMESTAMPS)
  record.thread = 0
  if (tcb.flags & F_GUEST) {
    const m = migrationOf(tcb)
    record.thread = m.thread
    record.entry = m.entry
    record.entryIncarnation = m.entryIncarnation
  }
  record.netInterface = tcb.netInterface
  append(index, record)
  tableInsertTimeWait(index)
  st.timeWaitUsed++
}

/** Starts the 2 MSL again: the peer repeated its FIN (RFC 9293 §3.10.7.4). */
export function timeWaitRestart(index: u32): void {
  const record = timeWaitAt(index)
  unlink(record)
  append(index, record)
}

/** Ends the TIME-WAIT: its time is over, or a new connection takes its place. The entry INIC of one that served for it is told. */
export function timeWaitRemove(index: u32): void {
  const record = timeWaitAt(index)
  const thread = record.thread
  timeWaitForget(index)
  if (!thread) return
  releaseStart(
    record.localAddress,
    record.remoteAddress,
    record.localPort,
    record.remotePort,
    record.entry,
    thread,
    RELEASE_ENDED,
  )
}

/** Ends the TIME-WAIT without a word to anybody. */
export function timeWaitForget(index: u32): void {
  const st = state()
  const record = timeWaitAt(index)
  tableRemoveTimeWait(index)
  unlink(record)
  // A free record is nobody's (ipos/loss.ts goes through all of them).
  record.thread = 0
  record.newer = st.timeWaitFree
  st.timeWaitFree = index
  st.timeWaitUsed--
}

/** Ends what has expired, at most 256 a poll; returns milliseconds to the next, or -1. */
export function timeWaitServe(): i32 {
  const st = state()
  for (let n = 0; n < 256; n++) {
    const oldest = st.timeWaitOldest
    if (!oldest) return -1
    const record = timeWaitAt(oldest)
    if (!msReached(st.nowMs, record.expiresMs)) return <i32>(record.expiresMs - st.nowMs)
    timeWaitRemove(oldest)
  }
  return 0
}

function append(index: u32, record: TimeWait): void {
  const st = state()
  record.expiresMs = st.nowMs + st.timeWaitMs
  record.older = st.timeWaitNewest
  record.newer = 0
  if (st.timeWaitNewest) timeWaitAt(st.timeWaitNewest).newer = index
  else st.timeWaitOldest = index
  st.timeWaitNewest = index
}

function unlink(record: TimeWait): void {
  const st = state()
  if (record.older) timeWaitAt(record.older).newer = record.newer
  else st.timeWaitOldest = record.newer
  if (record.newer) timeWaitAt(record.newer).older = record.older
  else st.timeWaitNewest = record.older
}
