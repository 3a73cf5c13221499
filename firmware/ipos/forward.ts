import { BOOT_FORWARD_ENTRIES } from '../../abi/boot.ts'
import { BOOT_BASE, DIRECTORY_FORWARDS } from '../../abi/memory.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { clearBytes } from '../mem/bytes.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { state } from '../state.ts'
import { inFarm } from './server.ts'

/**
 * Forward table (FIG. 12): whose endpoint is on which server. A row begins as a TCB does, so that the connection table holds
 * both and one look-up finds either (tcp/table.ts). Rows also stand for what is still to be said about endpoints that have left.
 */
@unmanaged
export class Forward {
  /** Server's address and port, as the client uses them, and the client's. */
  localAddress: u32
  remoteAddress: u32
  localPort: u16
  remotePort: u16
  /** Next entry of the bucket, or next free row. */
  hashNext: u32

  /** FORWARD_* */
  kind: u8
  /** IPOS_TCP or IPOS_UDP */
  protocol: u8
  /** Row of the server where packets go; of a RELEASING row, of the one that is told. */
  peer: u8
  /** Row of the entry INIC, SELF for a FORWARDING row. */
  entry: u8
  thread: u16
  /** LIST_* that it is on. */
  list: u8
  tries: u8
  /** Which of the peer's lives it belongs to. */
  incarnation: u32
  /** BLOCK_MOVES of the move that made this row. */
  moves: u32
  /** The client's next sequence number and its last acknowledgement: with these it can be reset. */
  sequence: u32
  acknowledgement: u32
  /** Last packet of the client. */
  usedMs: u32
  dueMs: u32
  // Neighbours on the list, in the order of their turn.
  older: u32
  newer: u32
  /** UDP: chunks of datagrams that wait until the other server has answered, and the servers that have refused. */
  heldHead: u32
  tried: u32
}

export const FORWARD_BYTES: u32 = 64
/** In the connection table: the entry is the index of a Forward row. */
export const FORWARD_TAG: u32 = 0x40000000

export const FORWARD_FREE: u32 = 0
/** Taken, for a move that is going on. */
export const FORWARD_RESERVED: u32 = 1
/** We are the entry INIC, and the endpoint is on `peer`. */
export const FORWARDING: u32 = 2
/** The endpoint was here and is on `peer` now: what still comes here is sent on. */
export const FORWARD_MOVED: u32 = 3
/** The endpoint ended here: `peer`, its entry INIC, is told until it has heard. */
export const FORWARD_RELEASING: u32 = 4
/** As RELEASING, and the client does not know: the entry INIC is to reset it. */
export const FORWARD_LOST: u32 = 5
/** UDP, entry INIC: the other server has been asked. */
export const FORWARD_ASKING: u32 = 6
/** UDP, serving INIC: datagrams of this client come through `peer`, and answers carry its address. */
export const FORWARD_GUEST: u32 = 7
/** UDP, entry INIC: the conversation is served here, and stays so. */
export const FORWARD_LOCAL: u32 = 8

// Lists of rows whose turn comes after the same time.
export const LIST_NONE: u32 = 0
/** Something is said again. */
export const LIST_REPEAT: u32 = 1
/** Rows that are looked at now and then. */
export const LIST_REST: u32 = 2
const LISTS: u32 = 3

export const REPEAT_MS: u32 = 50
/** Maximum packet lifetime of the hub, and how often a resting row is looked at. */
export const REST_MS: u32 = 60000

/** Head and tail of a list. */
@unmanaged
class Ends {
  oldest: u32
  newest: u32
}

export function forwardInitialize(): void {
  if (offsetof<Forward>() > FORWARD_BYTES) panic(PANIC_POOL, offsetof<Forward>())
  const st = state()
  const wanted = load<u32>(BOOT_BASE + BOOT_FORWARD_ENTRIES)
  const count: u32 = inFarm() ? (wanted ? min<u32>(wanted, FORWARD_TAG - 1) : st.tcbCount * 4) : 0
  st.forwardCount = count
  st.forwardBase = carve((count + 1) * FORWARD_BYTES)
  st.forwardLists = carve(LISTS * offsetof<Ends>())
  st.forwardFree = count ? 1 : 0
  for (let i: u32 = 1; i < count; i++) forwardAt(i).hashNext = i + 1
  directoryAdd(DIRECTORY_FORWARDS, st.forwardBase, FORWARD_BYTES, count + 1)
}

export function forwardAt(index: u32): Forward {
  return changetype<Forward>(state().forwardBase + index * FORWARD_BYTES)
}

export function forwardIndex(row: Forward): u32 {
  return (<u32>changetype<usize>(row) - state().forwardBase) / FORWARD_BYTES
}

/** Takes a row, as RESERVED, or returns 0 if the table is full: then connections are served where they are. */
export function forwardAllocate(): u32 {
  const st = state()
  const index = st.forwardFree
  if (!index) return 0
  const row = forwardAt(index)
  st.forwardFree = row.hashNext
  st.forwardUsed++
  clearBytes(<u32>changetype<usize>(row), FORWARD_BYTES)
  row.kind = <u8>FORWARD_RESERVED
  return index
}

/** Gives a row back. It must be in no hash table; it leaves its list. */
export function forwardFree(index: u32): void {
  const st = state()
  const row = forwardAt(index)
  forwardUnlist(row)
  row.kind = <u8>FORWARD_FREE
  row.hashNext = st.forwardFree
  st.forwardFree = index
  st.forwardUsed--
}

function ends(list: u32): Ends {
  return changetype<Ends>(state().forwardLists + list * offsetof<Ends>())
}

/** Puts a row at the end of a list: its turn comes after the list's time. @param list LIST_REPEAT or LIST_REST */
export function forwardList(row: Forward, list: u32): void {
  forwardUnlist(row)
  const e = ends(list)
  const index = forwardIndex(row)
  row.list = <u8>list
  row.dueMs = state().nowMs + (list == LIST_REPEAT ? REPEAT_MS : REST_MS)
  row.older = e.newest
  row.newer = 0
  if (e.newest) forwardAt(e.newest).newer = index
  else e.oldest = index
  e.newest = index
}

export function forwardUnlist(row: Forward): void {
  if (row.list == LIST_NONE) return
  const e = ends(row.list)
  if (row.older) forwardAt(row.older).newer = row.newer
  else e.oldest = row.newer
  if (row.newer) forwardAt(row.newer).older = row.older
  else e.newest = row.older
  row.list = <u8>LIST_NONE
}

/** The next row of a list whose turn has come, taken off it; 0 = none. */
export function forwardDue(list: u32): u32 {
  const index = ends(list).oldest
  if (!index) return 0
  const row = forwardAt(index)
  if (<i32>(state().nowMs - row.dueMs) < 0) return 0
  forwardUnlist(row)
  return index
}

/** Milliseconds to the next turn on any list, 0xffffffff = never. */
export function forwardNextMs(): u32 {
  let next: u32 = 0xffffffff
  for (let list: u32 = LIST_REPEAT; list < LISTS; list++) {
    const oldest = ends(list).oldest
    if (oldest) next = min<u32>(next, max<i32>(<i32>(forwardAt(oldest).dueMs - state().nowMs), 0))
  }
  return next
}
