import {
  IPOS_CONNECTION_BYTES,
  IPOS_MOVED,
  IPOS_RELEASE,
  IPOS_RELEASED,
  IPOS_TCP,
  MOVED_ADDRESS,
  MOVED_BYTES,
  MOVED_MOVES,
  MOVED_THREAD,
  RELEASE_ENDED,
  RELEASE_FLOOR,
  RELEASE_PACKET,
  RELEASE_PACKET_BYTES,
  RELEASE_REASON,
  RELEASE_UNKNOWN,
} from '../../abi/ipos.ts'
import { netInterface } from '../net/interface.ts'
import { counters, state } from '../state.ts'
import { sendReset } from '../tcp/output.ts'
import { tableFind, tableInsertForward, tableRemoveForward } from '../tcp/table.ts'
import { F_FROZEN, F_GUEST, Tcb } from '../tcp/tcb.ts'
import { iposStore16, iposStore32 } from '../wire/ipos.ts'
import { ipv4TotalBytes } from '../wire/ipv4.ts'
import {
  FORWARD_LOST,
  FORWARD_RELEASING,
  Forward,
  forwardAllocate,
  forwardAt,
  forwardFree,
  forwardList,
  LIST_REPEAT,
} from './forward.ts'
import { iposBegin, iposCommit, Naming, namesIn, naming } from './frame.ts'
import { CONNECTED, Migration, migrationDrop, migrationOf, threadRemove } from './migration.ts'
import { SELF, serverAt } from './server.ts'

/** What the entry INIC is told about endpoints that serve for it elsewhere: that they are gone, and where they went. */

/** Times that something is said before the leases and the entry INIC's own questions have to do: five seconds. */
const TRIES: u32 = 100

/** An endpoint that served for `entry` is gone: says so until it is heard. @param reason RELEASE_* */
export function releaseStart(
  local: u32,
  remote: u32,
  localPort: u32,
  remotePort: u32,
  entry: u32,
  thread: u32,
  reason: u32,
): void {
  const n = naming(remote, remotePort, local, localPort, thread, IPOS_TCP)
  releaseSend(entry, n, reason, 0, 0)
  const index = forwardAllocate()
  // Without a row it is said once; the entry INIC asks some day (ipos/forward.ts LIST_REST).
  if (!index) return
  const row = forwardAt(index)
  row.kind = <u8>(reason == RELEASE_ENDED ? FORWARD_RELEASING : FORWARD_LOST)
  row.protocol = <u8>IPOS_TCP
  row.localAddress = local
  row.remoteAddress = remote
  row.localPort = <u16>localPort
  row.remotePort = <u16>remotePort
  row.peer = <u8>entry
  row.entry = <u8>entry
  row.incarnation = serverAt(entry).incarnation
  row.thread = <u16>thread
  tableInsertForward(index)
  forwardList(row, LIST_REPEAT)
}

/** A prepared endpoint, which is in no table, goes without having been ours: its entry INIC is told, in case it forwards to us. */
export function releasePrepared(tcb: Tcb, m: Migration): void {
  const local = tcb.localAddress
  const remote = tcb.remoteAddress
  const localPort: u32 = tcb.localPort
  const remotePort: u32 = tcb.remotePort
  // Where an older word about the connection stands, once has to do.
  if (tableFind(local, remote, localPort, remotePort) == 0)
    releaseStart(local, remote, localPort, remotePort, m.entry, m.thread, RELEASE_UNKNOWN)
  else releaseSend(m.entry, naming(remote, remotePort, local, localPort, m.thread, IPOS_TCP), RELEASE_UNKNOWN, 0, 0)
}

/** Sends IPOS_RELEASE once. @param packet an IP packet that is handed back, 0 = none @param floor RELEASE_FLOOR */
export function releaseSend(row: u32, n: Naming, reason: u32, packet: u32, floor: u32): void {
  const header = iposBegin(IPOS_RELEASE, row, n)
  if (!header) return
  const total = packet ? ipv4TotalBytes(packet) : 0
  // One that is too long for the hub like this comes again by itself.
  const bytes = total <= netInterface(state().hubPort).mtu - RELEASE_PACKET ? total : 0
  iposStore16(header, RELEASE_REASON, reason)
  iposStore32(header, RELEASE_FLOOR, floor)
  iposStore16(header, RELEASE_PACKET_BYTES, bytes)
  memory.copy(header + RELEASE_PACKET, packet, bytes)
  iposCommit(header, row, RELEASE_PACKET + bytes)
}

/** IPOS_RELEASED, in answer to the release at `header`. */
export function releaseHear(from: u32, header: u32): void {
  const answer = iposBegin(IPOS_RELEASED, from, namesIn(header))
  if (answer) iposCommit(answer, from, IPOS_CONNECTION_BYTES)
}

/** True if the row says that an endpoint is gone. */
export function isReleasing(row: Forward): bool {
  return row.kind == FORWARD_RELEASING || row.kind == FORWARD_LOST
}

/** RELEASE_* that such a row says. */
export function releaseReason(row: Forward): u32 {
  return row.kind == FORWARD_RELEASING ? RELEASE_ENDED : RELEASE_UNKNOWN
}

/** The turn of a row that repeats something has come. */
export function releaseRepeat(index: u32): void {
  const row = forwardAt(index)
  row.tries++
  if (<u32>row.tries > TRIES || row.incarnation != serverAt(row.entry).incarnation) {
    forwardEvict(index)
    return
  }
  releaseSend(row.entry, namesOfRow(row), releaseReason(row), 0, 0)
  forwardList(row, LIST_REPEAT)
}

/** Tells the entry INIC that a guest is here now. */
export function movedSend(tcb: Tcb, m: Migration): void {
  moved(tcb, m, m.moves, SELF, m.thread)
}

/** Tells the entry INIC that a guest goes to our peer, which has it from now on. */
export function movingSend(tcb: Tcb, m: Migration): void {
  moved(tcb, m, m.moves + 1, m.peer, m.offered)
}

/** IPOS_MOVED. @param row of the server where it is @param thread by which it is known there */
function moved(tcb: Tcb, m: Migration, moves: u32, row: u32, thread: u32): void {
  const n = naming(tcb.remoteAddress, tcb.remotePort, tcb.localAddress, tcb.localPort, m.thread, IPOS_TCP)
  const header = iposBegin(IPOS_MOVED, m.entry, n)
  if (!header) return
  iposStore32(header, MOVED_MOVES, moves)
  iposStore32(header, MOVED_ADDRESS, serverAt(row).address)
  iposStore16(header, MOVED_THREAD, thread)
  iposCommit(header, m.entry, MOVED_BYTES)
}

export function namesOfRow(row: Forward): Naming {
  return naming(row.remoteAddress, row.remotePort, row.localAddress, row.localPort, row.thread, row.protocol)
}

/** Takes a row out of the connection table, and gives it back. */
export function forwardEvict(index: u32): void {
  tableRemoveForward(index)
  forwardFree(index)
}

/** An endpoint has ended. If it served for another INIC, that one is told; what is kept of its moves goes. */
export function endpointGone(tcb: Tcb): void {
  const m = migrationOf(tcb)
  if (tcb.flags & F_GUEST) release(tcb, m, RELEASE_ENDED)
  tcb.flags &= ~F_FROZEN
  threadRemove(CONNECTED, m)
  // The application may still be owed what another one handed over to it.
  if (m.stateHead == 0) migrationDrop(tcb)
}

function release(tcb: Tcb, m: Migration, reason: u32): void {
  releaseStart(tcb.localAddress, tcb.remoteAddress, tcb.localPort, tcb.remotePort, m.entry, m.thread, reason)
  tcb.flags &= ~F_GUEST
}

/**
 * What a server had of an endpoint is gone with it, and the endpoint is to end here without an owner. The client is reset, by the entry
 * INIC alone: only that one knows whether it is still ours, or has got farther than we have heard.
 */
export function endpointLost(tcb: Tcb): void {
  counters().migrationsLost++
  tcb.flags &= ~F_FROZEN
  if (tcb.flags & F_GUEST) release(tcb, migrationOf(tcb), RELEASE_UNKNOWN)
  else sendReset(tcb)
}
