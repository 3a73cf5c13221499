import {
  IPOS_ACKNOWLEDGE,
  IPOS_CONNECT,
  IPOS_CONNECT_UDP_BYTES,
  IPOS_HEADER_BYTES,
  IPOS_REFUSE,
  IPOS_RELEASE,
  IPOS_UDP,
  REFUSE_BYTES,
  REFUSE_DRAINING,
  REFUSE_NO_LISTENER,
  REFUSE_NO_MEMORY,
  REFUSE_REASON,
  RELEASE_PACKET,
  RELEASE_PACKET_BYTES,
  RELEASE_UNKNOWN,
} from '../../abi/ipos.ts'
import { carve } from '../mem/carve.ts'
import {
  CHUNK_BYTES,
  chunkAddress,
  chunkAllocate,
  chunkMeta,
  chunkRelease,
  chunkReleaseList,
  chunksAreScarce,
} from '../mem/chunk.ts'
import { interfaceOf, netInterface } from '../net/interface.ts'
import { ipv4Deliver } from '../net/ipv4.ts'
import { udpServes } from '../socket/udp.ts'
import { counters, state } from '../state.ts'
import {
  iposLoad16,
  iposServer,
  iposServerPort,
  iposSource,
  iposSourcePort,
  iposStore16,
  iposThread,
} from '../wire/ipos.ts'
import { IPV4_OK, ipv4Check, ipv4Destination, ipv4HeaderBytes, ipv4Source, ipv4TotalBytes } from '../wire/ipv4.ts'
import { udpDestinationPort, udpSourcePort } from '../wire/udp.ts'
import {
  FORWARD_ASKING,
  FORWARD_GUEST,
  FORWARD_LOCAL,
  FORWARDING,
  Forward,
  forwardAllocate,
  forwardAt,
  forwardFree,
  forwardList,
  LIST_REPEAT,
  LIST_REST,
  REST_MS,
} from './forward.ts'
import { iposBegin, iposBeginBare, iposCommit, namesIn, naming } from './frame.ts'
import { placementChoose } from './placement.ts'
import { relay } from './relay.ts'
import { namesOfRow, releaseSend } from './release.ts'
import { inFarm, portOfServer, SELF, serverAt, serverOfAddress } from './server.ts'
import { serviceElsewhere } from './service.ts'
import { isDraining } from './state.ts'
import { threadChoose } from './thread.ts'

/**
 * UDP conversations: a client's address and port talking to one of our ports. The first datagram is placed by state, like a connection;
 * those that follow go where it went, until nothing was heard for a minute. A row's kind:
 *
 *   entry INIC    ASKING ──acknowledged──▶ FORWARDING        LOCAL: served here
 *                   └──refused by all────▶ LOCAL
 *   serving INIC  GUEST: answers carry the entry INIC's address
 */

/** Datagrams of one conversation that wait while another server is asked. */
const HELD_DATAGRAMS: u32 = 8
/** Times that a server is asked. */
const TRIES: u32 = 4

/** Carves the buckets: by the client's address and port alone, so that a thread port is found along the way. */
export function flowInitialize(): void {
  if (!inFarm()) return
  const st = state()
  let buckets: u32 = 256
  while (buckets < st.forwardCount / 2) buckets <<= 1
  st.flowBuckets = carve(buckets * 4)
  st.flowMask = buckets - 1
}

function bucketOf(client: u32, clientPort: u32): u32 {
  const st = state()
  let x = (<u64>client | ((<u64>clientPort) << 32)) ^ st.hashKey0
  x *= 0x9e3779b97f4a7c15
  x ^= x >> 32
  x *= 0xd6e8feb86659fd93
  return st.flowBuckets + (<u32>(x >> 40) & st.flowMask) * 4
}

/** The row of a conversation, or 0. */
function find(local: u32, remote: u32, localPort: u32, remotePort: u32): u32 {
  let index = load<u32>(bucketOf(remote, remotePort))
  while (index) {
    const row = forwardAt(index)
    const ports = <u32>row.localPort == localPort && <u32>row.remotePort == remotePort
    if (ports && row.remoteAddress == remote && row.localAddress == local) return index
    index = row.hashNext
  }
  return 0
}

/** The row of the client that a thread port names, or 0. */
function findThread(header: u32): u32 {
  const client = iposSource(header)
  const clientPort = iposSourcePort(header)
  let index = load<u32>(bucketOf(client, clientPort))
  while (index) {
    const row = forwardAt(index)
    const same = row.remoteAddress == client && <u32>row.remotePort == clientPort
    if (same && <u32>row.thread == iposThread(header) && row.kind != FORWARD_GUEST) return index
    index = row.hashNext
  }
  return 0
}

/** A new row, or 0: conversations have half of the table, so that connections always find room. */
function insert(local: u32, remote: u32, localPort: u32, remotePort: u32, kind: u32): u32 {
  const st = state()
  const index = st.flowUsed < st.forwardCount / 2 ? forwardAllocate() : 0
  if (!index) return 0
  const row = forwardAt(index)
  row.kind = <u8>kind
  row.protocol = <u8>IPOS_UDP
  row.localAddress = local
  row.remoteAddress = remote
  row.localPort = <u16>localPort
  row.remotePort = <u16>remotePort
  row.usedMs = st.nowMs
  const bucket = bucketOf(remote, remotePort)
  row.hashNext = load<u32>(bucket)
  store<u32>(bucket, index)
  st.flowUsed++
  forwardList(row, LIST_REST)
  return index
}

/** Forgets a conversation: its next datagram is placed anew. */
export function flowRemove(index: u32): void {
  const row = forwardAt(index)
  let link = bucketOf(row.remoteAddress, row.remotePort)
  while (load<u32>(link) != index)
    link = <u32>changetype<usize>(forwardAt(load<u32>(link))) + <u32>offsetof<Forward>('hashNext')
  store<u32>(link, row.hashNext)
  chunkReleaseList(row.heldHead)
  forwardFree(index)
  state().flowUsed--
}

// ── entry INIC ──

/**
 * A datagram from outside for one of our addresses. True if another server has it, or will have; false if it is for this one.
 *
 * @param servedHere an endpoint of this server serves the port
 */
export function flowPlaced(packet: u32, localPort: u32, remotePort: u32, servedHere: bool): bool {
  if (!inFarm()) return false
  const local = ipv4Destination(packet)
  const remote = ipv4Source(packet)
  const known = find(local, remote, localPort, remotePort)
  if (known) return followed(forwardAt(known), packet)
  // Where there is no choice nothing is to be remembered.
  if (serviceElsewhere(localPort, IPOS_UDP) < 0) return false
  const chosen = placementChoose(localPort, IPOS_UDP, servedHere, false, 0)
  if (chosen < 0) return false
  const index = insert(local, remote, localPort, remotePort, FORWARD_LOCAL)
  if (!index || chosen == <i32>SELF) return false
  const row = forwardAt(index)
  if (!ask(row, chosen)) return false
  hold(row, packet)
  return true
}

function followed(row: Forward, packet: u32): bool {
  row.usedMs = state().nowMs
  if (row.kind == FORWARDING) relay(row, packet)
  else if (row.kind == FORWARD_ASKING) hold(row, packet)
  else return false
  return true
}

/** Asks a server to take the conversation. False if there is no thread port for it: then it is served here. */
function ask(row: Forward, server: u32): bool {
  const thread = threadChoose(row.remoteAddress, row.remotePort)
  if (!thread) return false
  row.kind = <u8>FORWARD_ASKING
  row.peer = <u8>server
  row.incarnation = serverAt(server).incarnation
  row.thread = <u16>thread
  row.tries = 1
  sendConnect(row)
  forwardList(row, LIST_REPEAT)
  counters().migrationsOffered++
  return true
}

function sendConnect(row: Forward): void {
  const header = iposBegin(IPOS_CONNECT, row.peer, namesOfRow(row))
  if (header) iposCommit(header, row.peer, IPOS_CONNECT_UDP_BYTES)
}

function hold(row: Forward, packet: u32): void {
  const bytes = ipv4TotalBytes(packet)
  let count: u32 = 0
  let tail: u32 = 0
  for (let chunk = row.heldHead; chunk != 0; chunk = chunkMeta(chunk).next) {
    tail = chunk
    count++
  }
  const chunk = count < HELD_DATAGRAMS && bytes <= CHUNK_BYTES && !chunksAreScarce() ? chunkAllocate() : 0
  if (!chunk) {
    counters().udpDropped++
    return
  }
  memory.copy(chunkAddress(chunk), packet, bytes)
  if (tail) chunkMeta(tail).next = chunk
  else row.heldHead = chunk
}

/** Serves what was held: sends it on, or takes it here. */
function serveHeld(row: Forward): void {
  let chunk = row.heldHead
  row.heldHead = 0
  const forwards = row.kind == FORWARDING
  const port = interfaceOf(row.localAddress)
  while (chunk) {
    const next = chunkMeta(chunk).next
    if (forwards) relay(row, chunkAddress(chunk))
    else ipv4Deliver(port, chunkAddress(chunk), true)
    chunkRelease(chunk)
    chunk = next
  }
}

/** The server that was asked does not take it, or does not answer: another one, or this one. */
function elsewhere(row: Forward): void {
  row.tried |= 1 << row.peer
  const servedHere = udpServes(row.localAddress, row.localPort)
  const next = placementChoose(row.localPort, IPOS_UDP, servedHere, false, row.tried)
  if (next > <i32>SELF && ask(row, next)) return
  row.kind = <u8>FORWARD_LOCAL
  forwardList(row, LIST_REST)
  counters().migrationsFailed++
  serveHeld(row)
}

/** The turn of a row has come. */
export function flowTurn(index: u32): void {
  const row = forwardAt(index)
  if (row.kind == FORWARD_ASKING) {
    if (<u32>row.tries >= TRIES) {
      elsewhere(row)
      return
    }
    row.tries++
    sendConnect(row)
    forwardList(row, LIST_REPEAT)
  } else if (state().nowMs - row.usedMs < REST_MS) forwardList(row, LIST_REST)
  else flowRemove(index)
}

/** An ICMP error quotes a datagram that another server has sent with our address: sends it on, and returns true. */
export function flowError(packet: u32, local: u32, remote: u32, localPort: u32, remotePort: u32): bool {
  if (!inFarm()) return false
  const index = find(local, remote, localPort, remotePort)
  if (!index || forwardAt(index).kind != FORWARDING) return false
  relay(forwardAt(index), packet)
  return true
}

// ── packets of the hub ──

/** Takes a packet about a conversation, other than data. False for a type that there is not, or a packet that is too short. */
export function flowInput(from: u32, type: u32, header: u32, size: u32): bool {
  if (type == IPOS_CONNECT) {
    if (size < <u32>IPOS_CONNECT_UDP_BYTES) return false
    connectInput(from, header)
  } else if (type == IPOS_ACKNOWLEDGE) {
    const index = findThread(header)
    if (!index) return true
    const row = forwardAt(index)
    if (row.kind != FORWARD_ASKING || <u32>row.peer != from) return true
    row.kind = <u8>FORWARDING
    forwardList(row, LIST_REST)
    counters().migrationsGiven++
    serveHeld(row)
  } else if (type == IPOS_REFUSE) {
    if (size < <u32>REFUSE_BYTES) return false
    const index = findThread(header)
    if (index != 0 && forwardAt(index).kind == FORWARD_ASKING && <u32>forwardAt(index).peer == from)
      elsewhere(forwardAt(index))
  } else if (type == IPOS_RELEASE) return releaseInput(from, header, size)
  else return false
  return true
}

/** Where it went it is not known any more: the datagram that found nothing there is placed anew. */
function releaseInput(from: u32, header: u32, size: u32): bool {
  if (size < <u32>RELEASE_PACKET) return false
  const bytes = iposLoad16(header, RELEASE_PACKET_BYTES)
  const packet = header + RELEASE_PACKET
  const there = size - RELEASE_PACKET
  if (bytes != 0 && (bytes > there || ipv4Check(packet, there) != IPV4_OK || ipv4TotalBytes(packet) != bytes))
    return false
  const index = findThread(header)
  if (!index) return true
  const row = forwardAt(index)
  if (row.kind != FORWARDING || <u32>row.peer != from) return true
  const local = row.localAddress
  flowRemove(index)
  if (bytes != 0 && ipv4Destination(packet) == local) ipv4Deliver(interfaceOf(local), packet, false)
  return true
}

// ── serving INIC ──

/** IPOS_CONNECT for UDP. */
function connectInput(from: u32, header: u32): void {
  const local = iposServer(header)
  const localPort = iposServerPort(header)
  const remote = iposSource(header)
  const remotePort = iposSourcePort(header)
  let index = find(local, remote, localPort, remotePort)
  let reason: u32 = 0
  if (serverOfAddress(local) != <i32>from || !udpServes(addressHere(from, local), localPort))
    reason = REFUSE_NO_LISTENER
  else if (isDraining()) reason = REFUSE_DRAINING
  else if (!index) {
    index = insert(local, remote, localPort, remotePort, FORWARD_GUEST)
    if (!index) reason = REFUSE_NO_MEMORY
    else counters().migrationsTaken++
  }
  if (reason) {
    counters().migrationsRefused++
    const refusal = iposBegin(IPOS_REFUSE, from, namesIn(header))
    if (!refusal) return
    iposStore16(refusal, REFUSE_REASON, reason)
    iposCommit(refusal, from, REFUSE_BYTES)
    return
  }
  const row = forwardAt(index)
  row.peer = <u8>from
  row.incarnation = serverAt(from).incarnation
  row.thread = <u16>iposThread(header)
  const answer = iposBeginBare(IPOS_ACKNOWLEDGE, from, namesIn(header))
  if (answer) iposCommit(answer, from, IPOS_HEADER_BYTES)
}

/** Our address on the network where server `row` has `address`. */
function addressHere(row: u32, address: u32): u32 {
  return netInterface(portOfServer(row, address)).address
}

/**
 * A datagram that came over the hub. Returns the address of ours that its endpoint may be bound to, or 0 if the conversation is not known
 * here: then it goes back.
 */
export function flowArrived(packet: u32): u32 {
  const st = state()
  const local = ipv4Destination(packet)
  const remote = ipv4Source(packet)
  const datagram = packet + ipv4HeaderBytes(packet)
  const localPort = udpDestinationPort(datagram)
  const remotePort = udpSourcePort(datagram)
  const index = find(local, remote, localPort, remotePort)
  if (index != 0 && forwardAt(index).kind == FORWARD_GUEST) {
    const row = forwardAt(index)
    const address = addressHere(row.peer, local)
    if (udpServes(address, localPort)) {
      row.usedMs = st.nowMs
      return address
    }
    flowRemove(index)
  }
  const n = naming(remote, remotePort, local, localPort, st.dataThread, IPOS_UDP)
  releaseSend(st.dataFrom, n, RELEASE_UNKNOWN, packet, 0)
  return 0
}

/** The address that an answer to `remote` carries: that of the server which the client has asked; 0 = our own. */
export function flowSource(remote: u32, localPort: u32, remotePort: u32): u32 {
  const st = state()
  if (st.flowUsed == 0) return 0
  let source: u32 = 0
  let latest: u32 = 0
  for (let index = load<u32>(bucketOf(remote, remotePort)); index != 0; index = forwardAt(index).hashNext) {
    const row = forwardAt(index)
    if (row.kind != FORWARD_GUEST || row.remoteAddress != remote) continue
    if (<u32>row.remotePort != remotePort || <u32>row.localPort != localPort) continue
    // A client that asks several servers on the same port hears from the one that it asked last.
    if (source != 0 && <i32>(row.usedMs - latest) < 0) continue
    source = row.localAddress
    latest = row.usedMs
  }
  return source
}
