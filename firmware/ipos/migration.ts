import { DIRECTORY_MIGRATIONS } from '../../abi/memory.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { clearBytes } from '../mem/bytes.ts'
import { carve } from '../mem/carve.ts'
import { chunkMeta, chunkReleaseList } from '../mem/chunk.ts'
import { directoryAdd } from '../mem/directory.ts'
import { timerArm } from '../mem/wheel.ts'
import { counters, state } from '../state.ts'
import { tablePorts } from '../tcp/table.ts'
import { F_GUEST, Tcb, tcbAt, tcbIndex } from '../tcp/tcb.ts'
import { forwardFree } from './forward.ts'
import { pastRemember } from './past.ts'
import { inFarm } from './server.ts'

/**
 * What a TCB needs besides while it moves, and as long as it serves for another INIC. The phases and what each does with each
 * packet are the state table of docs/protocol.md.
 *
 *   giving    RESTING ──offer──▶ OFFERED ──acknowledged──▶ COMMITTED ──all there──▶ gone, a Forward row is left
 *                ▲───refused, silent──┘
 *   taking    PREPARED ──first data or commit──▶ ARRIVING ──all there──▶ ARRIVED ──the entry INIC knows──▶ RESTING
 */
@unmanaged
export class Migration {
  tcb: u32
  /** Next row of the bucket of the Forward-Connect table, or next free row; and of the bucket of offers. */
  connectNext: u32
  offerNext: u32
  /** MOVE_* */
  flags: u16
  /** PHASE_* */
  phase: u8
  /** Row of the entry INIC; SELF = this is it. */
  entry: u8
  /** Row of the server that it goes to, or last came from. */
  peer: u8
  /** Thread port by which we know it, as serving INIC; 0 = none. */
  thread: u16
  /** Thread port that is proposed to `peer`. */
  offered: u16
  /** Lives of the entry INIC and of the peer that this belongs to. */
  entryIncarnation: u32
  peerIncarnation: u32
  /** How often the endpoint has moved. */
  moves: u32
  /** Servers that have refused this move, a bit for each row. */
  tried: u32
  tries: u16
  /** When `dueMs` was set, microseconds, the low bits. */
  askedUs: u16
  /** When something is to be said again, or the waiting is over. */
  dueMs: u32
  /** ARRIVING: when the waiting is over. */
  endMs: u32
  /** Forward row that is taken for the end of the move. */
  forward: u32

  /** The client's packets that came meanwhile: chunks, a whole IP packet in each. */
  heldHead: u32
  heldTail: u32
  heldCount: u32
  /** Delivered and not consumed bytes that the host has given back. */
  returnedHead: u32
  returnedTail: u32
  returnedBytes: u32
  /** The application's state. */
  stateHead: u32
  stateTail: u32
  stateBytes: u32

  /** Giving: what is to be sent next, as sequence numbers and bytes of state. */
  receiveAt: u32
  sendAt: u32
  stateAt: u32
  /** Rounds that are not answered (taking: heard), that may go now, and frames of the present one. */
  roundsOut: u16
  roundsLeft: u16
  frames: u32
  /** Taking: what there is in all, as the control block says, or IPOS_COMMIT. */
  receiveEnd: u32
  sendEnd: u32
  stateEnd: u32
  outOfOrder: u32
}

/** Stride of the pool, bytes. */
const MIGRATION_BYTES: u32 = 128
const LONELY_ROWS: u32 = 64

/** No move is going on. */
export const PHASE_RESTING: u32 = 0
/** The connection packet is out; the endpoint may be taken back. */
export const PHASE_OFFERED: u32 = 1
/** The peer has it, or will: never taken back. Its bytes are on their way. */
export const PHASE_COMMITTED: u32 = 2
/** Built for a peer, silent, in no table but Forward-Connect. */
export const PHASE_PREPARED: u32 = 3
/** Ours; its bytes are coming. Silent until they are all here. */
export const PHASE_ARRIVING: u32 = 4
/** They are all here. Silent until the entry INIC has heard where it is. */
export const PHASE_ARRIVED: u32 = 5

/** The host has asked for the move, and waits for EVENT_MIGRATED. */
export const MOVE_BY_HOST: u32 = 1
/** Another server will do if the first one refuses. */
export const MOVE_ANYWHERE: u32 = 2
/** An application hands over (BLOCK_FLAG_HANDED_OVER). */
export const MOVE_HANDED_OVER: u32 = 4
/** Taking: it is known what there is in all. */
export const MOVE_ENDS_KNOWN: u32 = 8
/** Giving, until it is acknowledged: the connection packet has left, and the application's state follows. */
export const MOVE_OFFER_OUT: u32 = 512
/** There is something to be sent, as the phase says, as soon as the transmit ring has room. */
export const MOVE_SENDING: u32 = 16
/** The client's FIN is in order, behind the last of the bytes that come. */
export const MOVE_FIN_RECEIVED: u32 = 32
/** The state that came is still to be delivered to the application. */
export const MOVE_STATE_OWED: u32 = 64
/** Taking: something has come whose predecessor has not. */
export const MOVE_GAP: u32 = 128
/** Taking: the entry INIC is to be told where the endpoint is now, and has not heard yet. */
export const MOVE_UNHEARD: u32 = 256
/** Taking, until it is committed: the entry INIC has said already that it forwards to us. */
export const MOVE_HEARD: u32 = 1024

/** First and second wait for an answer, milliseconds, as a hub may lose a packet; then it doubles. */
const REPEAT_MS: u32 = 1
/** The clock's next millisecond may begin at once: what was asked less than this ago is not repeated, microseconds. */
const JUST_NOW_US: u32 = 500
const REPEAT_MAXIMUM_MS: u32 = 250

export function migrationInitialize(): void {
  if (offsetof<Migration>() > MIGRATION_BYTES) panic(PANIC_POOL, offsetof<Migration>())
  const st = state()
  // Outside a farm a row only keeps what the host gives back with a move that fails.
  const count: u32 = inFarm() ? st.tcbCount : LONELY_ROWS
  st.migrationCount = count
  st.migrationBase = carve((count + 1) * MIGRATION_BYTES)
  st.migrationFree = 1
  for (let i: u32 = 1; i < count; i++) migrationAt(i).connectNext = i + 1
  directoryAdd(DIRECTORY_MIGRATIONS, st.migrationBase, MIGRATION_BYTES, count + 1)
  let buckets: u32 = 64
  while (buckets < count) buckets <<= 1
  st.connectBuckets = carve(2 * buckets * 4)
  st.connectMask = buckets - 1
}

export function migrationAt(index: u32): Migration {
  return changetype<Migration>(state().migrationBase + index * MIGRATION_BYTES)
}

function indexOf(m: Migration): u32 {
  return (<u32>changetype<usize>(m) - state().migrationBase) / MIGRATION_BYTES
}

/** The row of a TCB that has one. */
export function migrationOf(tcb: Tcb): Migration {
  return migrationAt(tcb.migration)
}

/** The TCB's row, a new one if it has none; null if there is none left. */
export function migrationTake(tcb: Tcb): Migration | null {
  if (tcb.migration) return migrationAt(tcb.migration)
  const st = state()
  const index = st.migrationFree
  if (!index) {
    counters().tcpNoMemory++
    return null
  }
  const m = migrationAt(index)
  st.migrationFree = m.connectNext
  st.migrationUsed++
  clearBytes(<u32>changetype<usize>(m), MIGRATION_BYTES)
  m.tcb = tcbIndex(tcb)
  tcb.migration = index
  return m
}

/** Gives the TCB's row back with all that it holds. */
export function migrationDrop(tcb: Tcb): void {
  if (!tcb.migration) return
  const st = state()
  const m = migrationAt(tcb.migration)
  threadRemove(CONNECTED, m)
  migrationEmpty(m)
  m.connectNext = st.migrationFree
  st.migrationFree = tcb.migration
  st.migrationUsed--
  tcb.migration = 0
  tcb.flags &= ~F_GUEST
}

/** Frees what a move holds. */
export function migrationEmpty(m: Migration): void {
  chunkReleaseList(m.heldHead)
  chunkReleaseList(m.returnedHead)
  chunkReleaseList(m.stateHead)
  m.heldHead = m.heldTail = m.heldCount = 0
  m.returnedHead = m.returnedTail = m.returnedBytes = 0
  m.stateHead = m.stateTail = m.stateBytes = 0
  threadRemove(OFFERS, m)
  if (m.forward) forwardFree(m.forward)
  m.forward = 0
}

/** Appends a chunk to what the host has given back. */
export function returnAppend(m: Migration, chunk: u32): void {
  chunkMeta(chunk).next = 0
  if (m.returnedTail) chunkMeta(m.returnedTail).next = chunk
  else m.returnedHead = chunk
  m.returnedTail = chunk
  m.returnedBytes += chunkMeta(chunk).length
}

/** Sees to it that the timer of the endpoint's move looks again, later each time. */
export function repeatIn(tcb: Tcb, m: Migration): void {
  const doublings = min<u32>(max<u32>(m.tries, 2) - 2, 8)
  m.dueMs = state().nowMs + min<u32>(REPEAT_MS << doublings, REPEAT_MAXIMUM_MS)
  m.askedUs = <u16>state().nowUs
  timerArm(tcb, m.dueMs)
}

/** True if the timer has gone off too soon after a question: it was put off until the next millisecond. */
export function askedJustNow(tcb: Tcb, m: Migration): bool {
  if (m.tries == 0 || m.tries > 2 || <u32>(<u16>(state().nowUs - m.askedUs)) >= JUST_NOW_US) return false
  m.dueMs = state().nowMs + 1
  timerArm(tcb, m.dueMs)
  return true
}

/** The move is over and the endpoint lives on here. How often it has moved is not forgotten: later moves must count on. */
export function migrationRest(tcb: Tcb): void {
  const m = migrationOf(tcb)
  if (m.moves == 0) {
    migrationDrop(tcb)
    return
  }
  migrationEmpty(m)
  m.phase = <u8>PHASE_RESTING
  m.flags = 0
  m.tried = 0
  m.tries = 0
}

// ── two hash tables over client's address and port and a thread port ──

/** Forward-Connect table (FIG. 12): endpoints that came from elsewhere, under the thread port by which they are known here. */
export const CONNECTED: u32 = 0
/** Endpoints that are on offer, under the thread port that is proposed. */
export const OFFERS: u32 = 1

function bucketOf(table: u32, client: u32, clientPort: u32, thread: u32): u32 {
  const st = state()
  let x = (<u64>client | ((<u64>tablePorts(clientPort, thread)) << 32)) ^ st.hashKey1
  x *= 0x9e3779b97f4a7c15
  x ^= x >> 32
  x *= 0xd6e8feb86659fd93
  return st.connectBuckets + (table * (st.connectMask + 1) + (<u32>(x >> 40) & st.connectMask)) * 4
}

function threadIn(table: u32, m: Migration): u32 {
  return table == CONNECTED ? m.thread : m.offered
}

/** Address of the row's link to the next in its bucket. */
function linkOf(table: u32, m: Migration): u32 {
  const next = table == CONNECTED ? offsetof<Migration>('connectNext') : offsetof<Migration>('offerNext')
  return <u32>changetype<usize>(m) + <u32>next
}

/** Enters a row under its TCB's client and `thread`, which is not 0. */
export function threadInsert(table: u32, m: Migration, thread: u32): void {
  const tcb = tcbAt(m.tcb)
  if (table == CONNECTED) m.thread = <u16>thread
  else m.offered = <u16>thread
  const bucket = bucketOf(table, tcb.remoteAddress, tcb.remotePort, thread)
  store<u32>(linkOf(table, m), load<u32>(bucket))
  store<u32>(bucket, indexOf(m))
}

/** Takes a row out, if it is in. */
export function threadRemove(table: u32, m: Migration): void {
  const thread = threadIn(table, m)
  if (!thread) return
  const tcb = tcbAt(m.tcb)
  const index = indexOf(m)
  let link = bucketOf(table, tcb.remoteAddress, tcb.remotePort, thread)
  while (load<u32>(link) != index) link = linkOf(table, migrationAt(load<u32>(link)))
  store<u32>(link, load<u32>(linkOf(table, m)))
  if (table == OFFERS) {
    m.offered = 0
    return
  }
  pastRemember(tcb.remoteAddress, tcb.remotePort, thread)
  m.thread = 0
}

/** The endpoint that a packet's header names, or null. */
export function threadFind(table: u32, client: u32, clientPort: u32, thread: u32): Tcb | null {
  let index = load<u32>(bucketOf(table, client, clientPort, thread))
  while (index) {
    const m = migrationAt(index)
    const tcb = tcbAt(m.tcb)
    if (tcb.remoteAddress == client && <u32>tcb.remotePort == clientPort && threadIn(table, m) == thread) return tcb
    index = load<u32>(linkOf(table, m))
  }
  return null
}
