import {
  APPLICATION_DATA,
  BLOCK_MOVES,
  COMMIT_BYTES,
  COMMITTED_BYTES,
  COMMITTED_FLAG_COMPLETE,
  COMMITTED_FLAG_GAP,
  COMMITTED_FLAGS,
  COMMITTED_QUEUED,
  COMMITTED_RECEIVED,
  COMMITTED_STATE_BYTES,
  IPOS_ACKNOWLEDGE,
  IPOS_APPLICATION,
  IPOS_BLOCK,
  IPOS_CANCEL,
  IPOS_COMMIT,
  IPOS_COMMITTED,
  IPOS_CONNECT,
  IPOS_CONNECT_TCP_BYTES,
  IPOS_CONNECTION_BYTES,
  IPOS_DATA,
  IPOS_HEADER_BYTES,
  IPOS_MOVED,
  IPOS_MOVED_HEARD,
  IPOS_REFUSE,
  IPOS_RELEASE,
  IPOS_RELEASED,
  IPOS_STATE,
  IPOS_TCP,
  IPOS_UDP,
  MOVED_ADDRESS,
  MOVED_BYTES,
  MOVED_HEARD_BYTES,
  MOVED_HEARD_MOVES,
  MOVED_MOVES,
  MOVED_THREAD,
  REFUSE_BYTES,
  REFUSE_REASON,
  RELEASE_ENDED,
  RELEASE_FLOOR,
  RELEASE_PACKET,
  RELEASE_PACKET_BYTES,
  RELEASE_REASON,
  RELEASE_UNKNOWN,
} from '../../abi/ipos.ts'
import { DROP_IPOS } from '../../abi/trace.ts'
import { drop } from '../hal/trace.ts'
import { ipv4Deliver } from '../net/ipv4.ts'
import { reassemblyInput } from '../net/reassembly.ts'
import { counters, state } from '../state.ts'
import { tableFind } from '../tcp/table.ts'
import { F_FROZEN, Tcb, tcbAt } from '../tcp/tcb.ts'
import { TIME_WAIT_TAG, timeWaitAt, timeWaitForget } from '../tcp/timewait.ts'
import { ETHERNET_HEADER_BYTES, ethernetSource } from '../wire/ethernet.ts'
import {
  iposDestination,
  iposIsSound,
  iposLoad16,
  iposLoad32,
  iposProtocol,
  iposServer,
  iposServerPort,
  iposSource,
  iposSourcePort,
  iposStore32,
  iposThread,
  iposType,
} from '../wire/ipos.ts'
import {
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_OK,
  IPV4_PROTOCOL_TCP,
  IPV4_PROTOCOL_UDP,
  ipv4Check,
  ipv4Destination,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalBytes,
} from '../wire/ipv4.ts'
import { tcpDestinationPort, tcpSourcePort } from '../wire/tcp.ts'
import { flowError, flowInput } from './flow.ts'
import { FORWARD_MOVED, FORWARD_TAG, FORWARDING, forwardAt } from './forward.ts'
import { iposBegin, iposCommit, namesIn, naming } from './frame.ts'
import { giveAcknowledged, giveComplete, giveProgress, giveRefused, giveReleased } from './give.ts'
import { hold } from './held.ts'
import { forwardReset } from './loss.ts'
import {
  CONNECTED,
  Migration,
  migrationOf,
  OFFERS,
  PHASE_ARRIVING,
  PHASE_COMMITTED,
  PHASE_PREPARED,
  threadFind,
} from './migration.ts'
import { relay } from './relay.ts'
import { forwardEvict, isReleasing, releaseHear, releaseReason, releaseSend } from './release.ts'
import { ask } from './serve.ts'
import { peerOfMac, portOfServer, SELF, SERVER_KNOWN, serverAt, serverOfAddress } from './server.ts'
import { stateInput } from './state.ts'
import {
  committedWhole,
  takeCommit,
  takeCommitted,
  takeConnect,
  takeForget,
  takeHeard,
  takeProgress,
  takeRefused,
} from './take.ts'
import { stateTake, transferTake } from './transfer.ts'

/** Takes one ipOS frame of the synchronization hub. @param bytes of the frame */
export function iposInput(frame: u32, bytes: u32): void {
  counters().iposIn++
  const header = frame + ETHERNET_HEADER_BYTES
  const size = bytes - ETHERNET_HEADER_BYTES
  const from = peerOfMac(ethernetSource(frame))
  if (from == SELF || !iposIsSound(header, size)) {
    refuse(header, from)
    return
  }
  const type = iposType(header)
  if (type == IPOS_STATE) {
    stateInput(from, header, size)
    return
  }
  if (iposDestination(header) != serverAt(SELF).address) refuse(header, from)
  else if (type == IPOS_DATA) {
    if (!dataInput(from, header, size)) refuse(header, from)
  } else if (iposProtocol(header) == IPOS_UDP) {
    if (!flowInput(from, type, header, size)) refuse(header, from)
  } else if (!tcpMessage(from, type, header, size)) refuse(header, from)
}

function refuse(header: u32, from: u32): void {
  counters().iposRefused++
  drop(DROP_IPOS, from, iposType(header))
}

/** False for a type that there is not, or a packet that is too short for its type. */
function tcpMessage(from: u32, type: u32, header: u32, size: u32): bool {
  if (type == IPOS_ACKNOWLEDGE) {
    acknowledgeInput(from, header)
    return true
  }
  if (size < leastBytes(type)) return false
  if (type == IPOS_CONNECT) {
    if (iposProtocol(header) != IPOS_TCP) return false
    moveOnFirst(header)
    takeConnect(from, header)
  } else if (type == IPOS_COMMIT) commitInput(from, header)
  else if (type == IPOS_COMMITTED) committedInput(from, header)
  else if (type == IPOS_REFUSE) {
    const tcb = offered(header)
    if (tcb != null && <u32>migrationOf(tcb).peer == from)
      giveRefused(tcb, migrationOf(tcb), iposLoad16(header, REFUSE_REASON))
  } else if (type == IPOS_RELEASE) return releaseInput(from, header, size)
  else if (type == IPOS_RELEASED) releasedInput(from, header)
  else if (type == IPOS_CANCEL) {
    const tcb = connectedTo(header)
    if (tcb != null && migrationOf(tcb).phase == PHASE_PREPARED && comesFrom(from, migrationOf(tcb))) takeForget(tcb)
  } else if (type == IPOS_APPLICATION) applicationInput(from, header, size)
  else if (type == IPOS_MOVED) movedInput(from, header)
  else movedHeardInput(from, header)
  return true
}

/** Bytes from the ipOS header on that a packet of this type has at least; more than any frame for a type that there is not. */
function leastBytes(type: u32): u32 {
  if (type == IPOS_CONNECT) return IPOS_CONNECT_TCP_BYTES
  if (type == IPOS_COMMIT) return COMMIT_BYTES
  if (type == IPOS_COMMITTED) return COMMITTED_BYTES
  if (type == IPOS_REFUSE) return REFUSE_BYTES
  if (type == IPOS_RELEASE) return RELEASE_PACKET
  if (type == IPOS_RELEASED || type == IPOS_CANCEL) return IPOS_CONNECTION_BYTES
  if (type == IPOS_APPLICATION) return APPLICATION_DATA
  if (type == IPOS_MOVED) return MOVED_BYTES
  if (type == IPOS_MOVED_HEARD) return MOVED_HEARD_BYTES
  return 0xffffffff
}

/** The endpoint of the Forward-Connect table that the header names. */
function connected(header: u32): Tcb | null {
  return threadFind(CONNECTED, iposSource(header), iposSourcePort(header), iposThread(header))
}

/** As `connected`, of the server's address and port in the connection information. */
function connectedTo(header: u32): Tcb | null {
  const tcb = connected(header)
  if (tcb == null || tcb.localAddress != iposServer(header) || <u32>tcb.localPort != iposServerPort(header)) return null
  return tcb
}

/** The endpoint that is on offer under the header's names. */
function offered(header: u32): Tcb | null {
  return threadFind(OFFERS, iposSource(header), iposSourcePort(header), iposThread(header))
}

/** What the connection table has for the header's client and connection information. */
function entryOf(header: u32): u32 {
  return tableFind(iposServer(header), iposSource(header), iposServerPort(header), iposSourcePort(header))
}

// ── to the giving side ──

function acknowledgeInput(from: u32, header: u32): void {
  const tcb = offered(header)
  if (tcb != null && <u32>migrationOf(tcb).peer == from) giveAcknowledged(tcb, migrationOf(tcb))
}

function committedInput(from: u32, header: u32): void {
  const tcb = offered(header)
  if (tcb == null || <u32>migrationOf(tcb).peer != from) return
  const flags = iposLoad16(header, COMMITTED_FLAGS)
  if (flags & COMMITTED_FLAG_COMPLETE) {
    giveComplete(tcb, migrationOf(tcb))
    return
  }
  const received = iposLoad32(header, COMMITTED_RECEIVED)
  const queued = iposLoad32(header, COMMITTED_QUEUED)
  const bytes = iposLoad32(header, COMMITTED_STATE_BYTES)
  giveProgress(tcb, migrationOf(tcb), received, queued, bytes, (flags & COMMITTED_FLAG_GAP) != 0)
}

/** The endpoint comes, or has gone, farther than where we are still giving it to: it did arrive there. */
function finishIfPassed(entry: u32, moves: u32): bool {
  if (entry == 0 || (entry & (TIME_WAIT_TAG | FORWARD_TAG)) != 0) return false
  const tcb = tcbAt(entry)
  if ((tcb.flags & F_FROZEN) == 0) return false
  const m = migrationOf(tcb)
  if (m.phase != PHASE_COMMITTED || <i32>(moves - m.moves) < 2) return false
  giveComplete(tcb, m)
  return true
}

function moveOnFirst(header: u32): void {
  finishIfPassed(entryOf(header), iposLoad32(header, IPOS_BLOCK + BLOCK_MOVES))
}

// ── to the taking side ──

/**
 * IPOS_DATA. A packet of the transfer goes to its endpoint; a client's packet is taken as if it had come in by the port whose address it
 * is for. False if it carries no whole IP packet.
 */
function dataInput(from: u32, header: u32, size: u32): bool {
  const packet = header + IPOS_HEADER_BYTES
  if (size < <u32>IPOS_HEADER_BYTES || ipv4Check(packet, size - IPOS_HEADER_BYTES) != IPV4_OK) return false
  const fragment = (ipv4Fragment(packet) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) != 0
  const tcb = iposProtocol(header) == IPOS_TCP && !fragment ? connected(header) : null
  if (tcb != null && (tcb.flags & F_FROZEN) != 0 && ipv4Protocol(packet) == IPV4_PROTOCOL_TCP) {
    const m = migrationOf(tcb)
    // Once it knows, the entry INIC sends the client's packets here while the rest of the transfer is still coming from another one.
    if (comesFrom(from, m)) {
      if (!belongs(tcb, packet)) return false
      takeCommitted(tcb, m)
      transferTake(tcb, packet)
      takeProgress(tcb, m)
      return true
    }
    if (comesEarly(from, tcb)) {
      if (!belongs(tcb, packet)) return false
      hold(tcb, packet)
      return true
    }
  }
  // Of a transfer, and late.
  if (ipv4Protocol(packet) == IPV4_PROTOCOL_TCP && ipv4Source(packet) != iposSource(header)) return true
  const st = state()
  st.dataFrom = from
  st.dataThread = iposThread(header)
  counters().ipv4In++
  if (fragment) reassemblyInput(st.hubPort, packet)
  else ipv4Deliver(st.hubPort, packet, false)
  return true
}

/** True if `from` forwards to us already while what makes the endpoint ours is still coming from another INIC. */
function comesEarly(from: u32, tcb: Tcb): bool {
  return migrationOf(tcb).phase == PHASE_PREPARED && <u32>migrationOf(tcb).entry == from
}

/** True if what `from` sends of the endpoint belongs to its transfer. */
function comesFrom(from: u32, m: Migration): bool {
  return <u32>m.peer == from && (m.phase == PHASE_PREPARED || m.phase == PHASE_ARRIVING)
}

/** True if the packet is one between the endpoint's two addresses. */
function belongs(tcb: Tcb, packet: u32): bool {
  const source = ipv4Source(packet)
  const destination = ipv4Destination(packet)
  return (
    (source == tcb.remoteAddress && destination == tcb.localAddress) ||
    (source == tcb.localAddress && destination == tcb.remoteAddress)
  )
}

function applicationInput(from: u32, header: u32, size: u32): void {
  const tcb = connectedTo(header)
  if (tcb == null) return
  const m = migrationOf(tcb)
  if (!comesFrom(from, m)) return
  stateTake(m, header, size)
  takeProgress(tcb, m)
}

function commitInput(from: u32, header: u32): void {
  const tcb = connectedTo(header)
  if (tcb != null) {
    const m = migrationOf(tcb)
    if (comesFrom(from, m)) takeCommit(tcb, m, header)
    else committedWhole(from, header)
    return
  }
  const entry = entryOf(header)
  if (entry == 0) {
    releaseSend(from, namesIn(header), RELEASE_UNKNOWN, 0, 0)
    return
  }
  if (entry & FORWARD_TAG) {
    const row = forwardAt(entry & ~FORWARD_TAG)
    if (isReleasing(row)) {
      releaseSend(from, namesIn(header), releaseReason(row), 0, 0)
      return
    }
  }
  // It came here, and is here in another shape or has moved on.
  committedWhole(from, header)
}

// ── about endpoints that are elsewhere ──

function releaseInput(from: u32, header: u32, size: u32): bool {
  const packet = header + RELEASE_PACKET
  const there = size - RELEASE_PACKET
  const bytes = iposLoad16(header, RELEASE_PACKET_BYTES)
  if (bytes != 0 && (bytes > there || ipv4Check(packet, there) != IPV4_OK || ipv4TotalBytes(packet) != bytes))
    return false
  releaseHear(from, header)
  const ended = iposLoad16(header, RELEASE_REASON) == RELEASE_ENDED
  const entry = entryOf(header)
  if (entry & FORWARD_TAG) {
    const index = entry & ~FORWARD_TAG
    const row = forwardAt(index)
    if (<u32>row.peer != from || row.thread != <u16>iposThread(header)) {
      // Lost on its way from there to where we were told that it goes: is it there?
      if (row.kind == FORWARDING && bytes == 0 && !ended) ask(row)
      return true
    }
    if (row.kind != FORWARDING) {
      // It went on from here: what we had to say of it is said by where it went.
      if (row.kind == FORWARD_MOVED) forwardEvict(index)
      return true
    }
    if (bytes == 0 && !ended) forwardReset(row)
    forwardEvict(index)
    if (bytes == 0) return true
    // The packet that found nothing there is served here: a SYN opens a new connection, anything else is answered by a reset.
    const st = state()
    st.isnFloor = iposLoad32(header, RELEASE_FLOOR)
    ipv4Deliver(portOfServer(SELF, ipv4Destination(packet)), packet, false)
    st.isnFloor = 0
    return true
  }
  if (entry == 0 || (entry & TIME_WAIT_TAG) != 0) return true
  const tcb = tcbAt(entry)
  if ((tcb.flags & F_FROZEN) == 0) return true
  const m: Migration = migrationOf(tcb)
  if (<u32>m.peer == from && <u32>m.offered == iposThread(header)) giveReleased(tcb, m, ended)
  else if (<u32>m.entry == from && <u32>m.thread == iposThread(header)) takeRefused(tcb, m)
  return true
}

function releasedInput(from: u32, header: u32): void {
  const entry = entryOf(header)
  if (entry & TIME_WAIT_TAG) {
    // It has yielded to a new connection.
    const index = entry & ~TIME_WAIT_TAG
    const record = timeWaitAt(index)
    if (<u32>record.entry == from && record.thread != 0 && <u32>record.thread == iposThread(header))
      timeWaitForget(index)
    return
  }
  if ((entry & FORWARD_TAG) == 0) return
  const index = entry & ~FORWARD_TAG
  const row = forwardAt(index)
  if (isReleasing(row) && <u32>row.peer == from && row.thread == <u16>iposThread(header)) forwardEvict(index)
}

/**
 * IPOS_MOVED: an endpoint that we have forwarded is elsewhere now. Which of two servers is its owner is decided here, by whose word comes
 * first: once we forward there the loss of the one before means nothing; once we have reset the client nobody else is to speak.
 */
function movedInput(from: u32, header: u32): void {
  const moves = iposLoad32(header, MOVED_MOVES)
  const to = serverOfAddress(iposLoad32(header, MOVED_ADDRESS))
  finishIfPassed(entryOf(header), moves)
  const entry = entryOf(header)
  const row = forwardAt(entry & FORWARD_TAG ? entry & ~FORWARD_TAG : 0)
  const forwards = (entry & FORWARD_TAG) != 0 && row.kind == FORWARDING
  const newer = forwards && <i32>(moves - row.moves) > 0
  if (to != <i32>from) {
    // The word of who gives counts while we know the endpoint there, under that very name; a late one is of no use.
    const counts = newer && <u32>row.peer == from && row.thread == <u16>iposThread(header)
    if (!counts || to <= <i32>SELF || (serverAt(to).status & SERVER_KNOWN) == 0) return
  } else if (!forwards) {
    releaseSend(from, namesIn(header), RELEASE_UNKNOWN, 0, 0)
    return
  }
  if (newer) {
    row.peer = <u8>to
    row.thread = <u16>iposLoad16(header, MOVED_THREAD)
    row.moves = moves
    row.incarnation = serverAt(to).incarnation
  }
  const n = namesIn(header)
  n.thread = <u16>iposLoad16(header, MOVED_THREAD)
  const answer = iposBegin(IPOS_MOVED_HEARD, to, n)
  if (!answer) return
  iposStore32(answer, MOVED_HEARD_MOVES, moves)
  iposCommit(answer, to, MOVED_HEARD_BYTES)
}

function movedHeardInput(from: u32, header: u32): void {
  const tcb = connectedTo(header)
  if (tcb == null) return
  const m = migrationOf(tcb)
  if (<u32>m.entry == from && m.moves == iposLoad32(header, MOVED_HEARD_MOVES)) takeHeard(tcb, m)
}

/** The connection table has a Forward row for a client's packet: it goes on to where the endpoint is. @param packet checked */
export function forwardedInput(index: u32, packet: u32): void {
  const row = forwardAt(index)
  if (isReleasing(row)) forwardedUnknown(packet, releaseReason(row))
  else relay(row, packet)
}

/** A packet came over the hub for an endpoint that is not here: back to who sent it. @param reason RELEASE_* */
export function forwardedUnknown(packet: u32, reason: u32): void {
  const st = state()
  const segment = packet + ipv4HeaderBytes(packet)
  // One that came in fragments.
  const tcb = threadFind(CONNECTED, ipv4Source(packet), tcpSourcePort(segment), st.dataThread)
  if (tcb != null && (tcb.flags & F_FROZEN) != 0 && comesEarly(st.dataFrom, tcb) && belongs(tcb, packet)) {
    hold(tcb, packet)
    return
  }
  const n = naming(
    ipv4Source(packet),
    tcpSourcePort(segment),
    ipv4Destination(packet),
    tcpDestinationPort(segment),
    st.dataThread,
    IPOS_TCP,
  )
  releaseSend(st.dataFrom, n, reason, packet, 0)
}

/** An ICMP error quotes a packet of a connection or conversation that is elsewhere: sends it on, and returns true. */
export function forwardedError(
  packet: u32,
  protocol: u32,
  local: u32,
  remote: u32,
  localPort: u32,
  remotePort: u32,
): bool {
  if (protocol == IPV4_PROTOCOL_UDP) return flowError(packet, local, remote, localPort, remotePort)
  if (protocol != IPV4_PROTOCOL_TCP) return false
  const entry = tableFind(local, remote, localPort, remotePort)
  if ((entry & FORWARD_TAG) == 0) return false
  const row = forwardAt(entry & ~FORWARD_TAG)
  if (!isReleasing(row)) relay(row, packet)
  return true
}
