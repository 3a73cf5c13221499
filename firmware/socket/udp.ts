import { DIRECTORY_UDP_ENDPOINTS } from '../../abi/memory.ts'
import {
  COMMAND_A,
  COMMAND_B,
  COMMAND_HEADER_BYTES,
  COMMAND_SOCKET,
  EVENT_COOKIE,
  EVENT_LOCAL_ADDRESS,
  EVENT_LOCAL_PORT,
  EVENT_REMOTE_ADDRESS,
  EVENT_REMOTE_PORT,
  EVENT_SOCKET,
  EVENT_STATUS,
  EVENT_TYPE,
  EVENT_UDP_BOUND,
  EVENT_UDP_ERROR,
  EVENT_VALUE2,
  OP_CREDIT,
  OP_SET_OPTION,
  OP_UDP_BIND,
  OP_UDP_CLOSE,
  OP_UDP_SEND,
  OPTION_TTL,
  OPTION_UDP_BROADCAST,
  RX_DATAGRAM,
  RX_DATAGRAM_HEADER_BYTES,
  RX_DATAGRAM_LOCAL_ADDRESS,
  RX_DATAGRAM_REMOTE_ADDRESS,
  RX_DATAGRAM_REMOTE_PORT,
  RX_LENGTH,
  RX_SOCKET,
  RX_TYPE,
  UDP_FLAG_REUSE,
} from '../../abi/messages.ts'
import {
  STATUS_EACCES,
  STATUS_EADDRINUSE,
  STATUS_EADDRNOTAVAIL,
  STATUS_EINVAL,
  STATUS_EMSGSIZE,
  STATUS_ENETUNREACH,
  STATUS_ENOBUFS,
  STATUS_OK,
} from '../../abi/status.ts'
import { DROP_NO_SOCKET, DROP_UDP_CHECKSUM, DROP_UDP_HEADER } from '../../abi/trace.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { random32 } from '../hal/random.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { drop } from '../hal/trace.ts'
import { flowArrived, flowPlaced, flowSource } from '../ipos/flow.ts'
import { servicesChanged } from '../ipos/service.ts'
import { carve } from '../mem/carve.ts'
import { chunkAddress, chunkMeta } from '../mem/chunk.ts'
import { directoryAdd } from '../mem/directory.ts'
import { icmpError } from '../net/icmp.ts'
import { isLocalAddress, netInterface } from '../net/interface.ts'
import { ipv4Send } from '../net/output.ts'
import { routeSource, routeTo } from '../net/route.ts'
import { counters, state } from '../state.ts'
import {
  checksumAdd,
  checksumCopy,
  checksumFinish,
  checksumFold,
  checksumOdd,
  pseudoHeaderSum,
} from '../wire/checksum.ts'
import { ICMP_CODE_PORT, ICMP_UNREACHABLE } from '../wire/icmp.ts'
import {
  IPV4_LIMITED_BROADCAST,
  IPV4_PROTOCOL_UDP,
  ipv4Destination,
  ipv4HeaderBytes,
  ipv4IsLoopback,
  ipv4Source,
} from '../wire/ipv4.ts'
import {
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
  UDP_MAXIMUM_PAYLOAD,
  udpBytes,
  udpChecksum,
  udpDestinationPort,
  udpSourcePort,
  udpWrite,
} from '../wire/udp.ts'
import { deliverEvent, deliverRecord, eventScratch } from './deliver.ts'

/**
 * UDP endpoints (RFC 768, RFC 1122 §4.1) and the messages about them (abi/messages.ts).
 *
 * A handle has its highest bit set, which no TCP handle has: 1 · generation (20 bits) · row (11 bits).
 */
export const UDP_ENDPOINTS: u32 = 1024
/** Stride of the table, bytes. */
const UDP_ENDPOINT_BYTES: u32 = 32
const BUCKETS: u32 = 1024
const HANDLE_UDP: u32 = 0x80000000
const HANDLE_ROW_BITS: u32 = 11
const HANDLE_ROW_MASK: u32 = 0x7ff
const GENERATION_MASK: u32 = 0xfffff

// Ports for those who do not choose (the range that Linux uses; RFC 6056 §3.2 wants it large).
const EPHEMERAL_FIRST: u32 = 32768
const EPHEMERAL_COUNT: u32 = 28232
const DEFAULT_TTL: u32 = 64
/** Least receive credit: one datagram of the largest size must fit. */
const LEAST_CREDIT: u32 = 65536

const FLAG_USED: u32 = 0x100
const FLAG_BROADCAST: u32 = 0x200
/** Its process chose the port: clients know it. */
const FLAG_SERVICE: u32 = 0x400

@unmanaged
export class UdpEndpoint {
  /** Address that it is bound to, 0 = any. */
  localAddress: u32
  localPort: u16
  /** UDP_FLAG_* and FLAG_*. */
  flags: u16
  /** Counts the uses of this row, so that a handle does not come again soon. */
  generation: u32
  /** Next endpoint of the bucket, newest first, or of the free list. */
  next: u32
  /** Payload that may still be delivered, bytes. */
  credit: u32
  set: u8
  ttl: u8
}

function endpoint(row: u32): UdpEndpoint {
  return changetype<UdpEndpoint>(state().udpBase + row * UDP_ENDPOINT_BYTES)
}

export function udpInitialize(): void {
  if (offsetof<UdpEndpoint>() > UDP_ENDPOINT_BYTES) panic(PANIC_POOL, offsetof<UdpEndpoint>())
  const st = state()
  st.udpBase = carve((UDP_ENDPOINTS + 1) * UDP_ENDPOINT_BYTES)
  directoryAdd(DIRECTORY_UDP_ENDPOINTS, st.udpBase, UDP_ENDPOINT_BYTES, UDP_ENDPOINTS + 1)
  st.udpBuckets = carve(BUCKETS * 4)
  st.udpHeader = carve(RX_DATAGRAM_HEADER_BYTES)
  for (let row: u32 = 1; row < UDP_ENDPOINTS; row++) endpoint(row).next = row + 1
  st.udpFree = 1
}

function bucketOf(port: u32): u32 {
  return state().udpBuckets + (port & (BUCKETS - 1)) * 4
}

function handleOf(row: u32): u32 {
  return HANDLE_UDP | ((endpoint(row).generation & GENERATION_MASK) << HANDLE_ROW_BITS) | row
}

/** True for handles of this table. */
export function isUdpHandle(handle: u32): bool {
  return (handle & HANDLE_UDP) != 0
}

/** Row of a handle of queue set `set`, or 0: a process has no say over another one's endpoints. */
function rowOf(set: u32, handle: u32): u32 {
  const row = handle & HANDLE_ROW_MASK
  if (row == 0 || row > UDP_ENDPOINTS || handleOf(row) != handle) return 0
  const e = endpoint(row)
  return e.flags & FLAG_USED && <u32>e.set == set ? row : 0
}

// ── commands ──

/**
 * Carries out OP_UDP_BIND, OP_UDP_CLOSE, OP_UDP_SEND, and OP_SET_OPTION and OP_CREDIT for UDP handles. A command for a handle
 * that is dead or not this process's is ignored: the host may not know yet.
 *
 * @param set queue set that it came from
 * @param record address of the header, COMMAND_HEADER_BYTES long, in the first chunk
 * @param chunk list of the whole record, for OP_UDP_SEND; the caller releases it
 */
export function udpCommand(set: u32, op: u32, record: u32, chunk: u32): void {
  const a = load<u32>(record + COMMAND_A)
  const b = load<u32>(record + COMMAND_B)
  const socket = load<u32>(record + COMMAND_SOCKET)
  if (op == OP_UDP_BIND) {
    bind(set, socket, a, b & 0xffff, b >>> 16)
    return
  }
  const row = rowOf(set, socket)
  if (!row) return
  if (op == OP_UDP_SEND) send(row, a, b, record, chunk)
  else if (op == OP_UDP_CLOSE) close(row)
  else if (op == OP_CREDIT) endpoint(row).credit += min<u32>(a, fullCredit() - endpoint(row).credit)
  else if (op == OP_SET_OPTION) setOption(row, a, b)
  else counters().commandsBad++
}

function fullCredit(): u32 {
  return max<u32>(state().receiveCredit, LEAST_CREDIT)
}

function bind(set: u32, cookie: u32, address: u32, wanted: u32, flags: u32): void {
  const st = state()
  let status: u32 = STATUS_OK
  let port = wanted
  const reuse = flags & UDP_FLAG_REUSE
  if (address != 0 && !isLocalAddress(address)) status = STATUS_EADDRNOTAVAIL
  else if (!st.udpFree) status = STATUS_ENOBUFS
  else if (port == 0) {
    port = choosePort(address)
    if (!port) status = STATUS_EADDRINUSE
  } else if (isTaken(address, port, reuse != 0)) status = STATUS_EADDRINUSE
  let row: u32 = 0
  if (status == STATUS_OK) {
    row = st.udpFree
    const e = endpoint(row)
    st.udpFree = e.next
    e.localAddress = address
    e.localPort = <u16>port
    e.flags = <u16>(reuse | FLAG_USED | (wanted ? FLAG_SERVICE : 0))
    if (wanted) servicesChanged()
    e.generation++
    e.credit = fullCredit()
    e.set = <u8>set
    e.ttl = <u8>DEFAULT_TTL
    const bucket = bucketOf(port)
    e.next = load<u32>(bucket)
    store<u32>(bucket, row)
  }
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, EVENT_UDP_BOUND)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_COOKIE, cookie)
  store<u32>(event + EVENT_LOCAL_ADDRESS, address)
  store<u16>(event + EVENT_LOCAL_PORT, <u16>port)
  if (row) {
    store<u32>(event + EVENT_SOCKET, handleOf(row))
    store<u32>(event + EVENT_VALUE2, fullCredit())
  }
  // A host that never hears of the handle could not close it.
  if (!deliverEvent(set, event) && row) close(row)
}

/** True if an endpoint stands in the way: same port, and the same address or one of the two any, unless both share. */
function isTaken(address: u32, port: u32, reuse: bool): bool {
  for (let row = load<u32>(bucketOf(port)); row; row = endpoint(row).next) {
    const e = endpoint(row)
    if (<u32>e.localPort != port) continue
    if (reuse && (e.flags & UDP_FLAG_REUSE) != 0) continue
    if (e.localAddress == address || e.localAddress == 0 || address == 0) return true
  }
  return false
}

/** A free port, sought from a random place on (RFC 6056 §3.3.1), or 0. */
function choosePort(address: u32): u32 {
  const start = random32() % EPHEMERAL_COUNT
  for (let i: u32 = 0; i < EPHEMERAL_COUNT; i++) {
    const port = EPHEMERAL_FIRST + ((start + i) % EPHEMERAL_COUNT)
    if (!isTaken(address, port, false)) return port
  }
  return 0
}

function close(row: u32): void {
  const st = state()
  const e = endpoint(row)
  let link = bucketOf(e.localPort)
  while (load<u32>(link) != row) link = changetype<u32>(endpoint(load<u32>(link))) + <u32>offsetof<UdpEndpoint>('next')
  store<u32>(link, e.next)
  if (e.flags & FLAG_SERVICE) servicesChanged()
  e.flags = 0
  e.next = st.udpFree
  st.udpFree = row
}

/** The port that the endpoint serves, 0 = none: a client's own, one of 127/8, or one that an endpoint before it in the bucket serves. */
export function udpService(row: u32): u32 {
  const port: u32 = endpoint(row).localPort
  if (!isService(row)) return 0
  for (let other = load<u32>(bucketOf(port)); other != row; other = endpoint(other).next) {
    if (<u32>endpoint(other).localPort == port && isService(other)) return 0
  }
  return port
}

function isService(row: u32): bool {
  const e = endpoint(row)
  return (e.flags & FLAG_SERVICE) != 0 && !ipv4IsLoopback(e.localAddress)
}

/** True if an endpoint that clients know takes datagrams to this address and port. */
export function udpServes(address: u32, port: u32): bool {
  const row = lookup(address, port)
  return row != 0 && isService(row)
}

/** The process behind a queue set is gone: its endpoints go with it. */
export function udpQueueSetGone(set: u32): void {
  for (let row: u32 = 1; row <= UDP_ENDPOINTS; row++) {
    const e = endpoint(row)
    if ((e.flags & FLAG_USED) != 0 && <u32>e.set == set) close(row)
  }
}

function setOption(row: u32, option: u32, value: u32): void {
  const e = endpoint(row)
  if (option == OPTION_TTL && value >= 1 && value <= 255) e.ttl = <u8>value
  else if (option == OPTION_UDP_BROADCAST) {
    e.flags = <u16>(value ? e.flags | FLAG_BROADCAST : e.flags & ~FLAG_BROADCAST)
  } else counters().commandsBad++
}

// ── sending ──

function send(row: u32, remote: u32, remotePort: u32, record: u32, chunk: u32): void {
  const bytes = payloadBytes(record, chunk)
  const e = endpoint(row)
  const local = e.localAddress
  const port: u32 = e.localPort
  let status: u32 = STATUS_OK
  const route = routeTo(remote, local)
  if (remotePort == 0 || remotePort > 0xffff) status = STATUS_EINVAL
  else if (bytes > UDP_MAXIMUM_PAYLOAD) status = STATUS_EMSGSIZE
  else if (route < 0) status = STATUS_ENETUNREACH
  else if (isBroadcast(route, remote) && (e.flags & FLAG_BROADCAST) == 0) status = STATUS_EACCES
  if (status != STATUS_OK) {
    errorEvent(row, local, remote, remotePort, status)
    return
  }
  const asked = flowSource(remote, port, remotePort)
  const source = asked ? asked : routeSource(remote, local)
  const datagram = state().datagramBuffer
  const length = UDP_HEADER_BYTES + bytes
  udpWrite(datagram, port, remotePort, length)
  let sum = pseudoHeaderSum(source, remote, IPV4_PROTOCOL_UDP, length)
  sum = checksumAdd(datagram, UDP_HEADER_BYTES, sum)
  sum = gather(datagram + UDP_HEADER_BYTES, record + COMMAND_HEADER_BYTES, chunk, sum)
  // RFC 768: a checksum that computes to 0 is sent as all ones, since 0 says that there is none.
  const checksum = checksumFinish(sum)
  store<u16>(datagram, <u16>(checksum ? checksum : 0xffff), UDP_CHECKSUM)
  if (ipv4Send(routeTo(remote, source), source, remote, IPV4_PROTOCOL_UDP, e.ttl, datagram, length)) counters().udpOut++
}

function isBroadcast(route: u32, address: u32): bool {
  return address == IPV4_LIMITED_BROADCAST || address == netInterface(route).broadcast
}

/** Bytes of a record behind its header. */
function payloadBytes(record: u32, chunk: u32): u32 {
  let bytes: u32 = 0
  for (let c = chunk; c; c = chunkMeta(c).next) bytes += chunkMeta(c).length
  return bytes - (record + COMMAND_HEADER_BYTES - chunkAddress(chunk) - chunkMeta(chunk).offset)
}

/** Copies the record's payload, from `from` in the first chunk on, to `target`; returns the sum with it added. */
function gather(target: u32, from: u32, chunk: u32, sum: u32): u32 {
  const start = target
  let source = from
  let bytes = chunkAddress(chunk) + chunkMeta(chunk).offset + chunkMeta(chunk).length - from
  while (true) {
    const piece = checksumCopy(target, source, bytes, 0)
    sum = checksumFold(sum + ((target - start) & 1 ? checksumOdd(piece) : piece))
    target += bytes
    chunk = chunkMeta(chunk).next
    if (!chunk) return sum
    source = chunkAddress(chunk) + chunkMeta(chunk).offset
    bytes = chunkMeta(chunk).length
  }
}

/** A datagram that waited for its neighbour's MAC address did not go out. @param packet its IPv4 header */
export function udpSendFailed(packet: u32, status: u32): void {
  const datagram = packet + ipv4HeaderBytes(packet)
  const local = ipv4Source(packet)
  udpError(local, udpSourcePort(datagram), ipv4Destination(packet), udpDestinationPort(datagram), status)
}

/** An error came back for a datagram that we sent. @param status STATUS_*; addresses and ports as in the datagram */
export function udpError(local: u32, localPort: u32, remote: u32, remotePort: u32, status: u32): void {
  const row = lookup(local, localPort)
  if (row) errorEvent(row, local, remote, remotePort, status)
}

function errorEvent(row: u32, local: u32, remote: u32, remotePort: u32, status: u32): void {
  const e = endpoint(row)
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, EVENT_UDP_ERROR)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_SOCKET, handleOf(row))
  store<u32>(event + EVENT_LOCAL_ADDRESS, local)
  store<u16>(event + EVENT_LOCAL_PORT, e.localPort)
  store<u32>(event + EVENT_REMOTE_ADDRESS, remote)
  store<u16>(event + EVENT_REMOTE_PORT, <u16>remotePort)
  deliverEvent(e.set, event)
}

// ── receiving ──

/** Takes one datagram. @param broadcast it was sent to a broadcast address @param transient its bytes do not outlive this call */
export function udpInput(port: u32, packet: u32, datagram: u32, bytes: u32, broadcast: bool, transient: bool): void {
  counters().udpIn++
  const length: u32 = bytes < UDP_HEADER_BYTES ? 0 : udpBytes(datagram)
  if (length < UDP_HEADER_BYTES || length > bytes) {
    drop(DROP_UDP_HEADER, port, bytes)
    return
  }
  const source = ipv4Source(packet)
  const destination = ipv4Destination(packet)
  if (udpChecksum(datagram) != 0) {
    const sum = checksumAdd(datagram, length, pseudoHeaderSum(source, destination, IPV4_PROTOCOL_UDP, length))
    if (checksumFold(sum) != 0xffff) {
      drop(DROP_UDP_CHECKSUM, source, udpDestinationPort(datagram))
      return
    }
  }
  const localPort = udpDestinationPort(datagram)
  if (port == state().hubPort) {
    const address = flowArrived(packet)
    if (address) deliver(lookup(address, localPort), source, destination, datagram, length, transient)
    return
  }
  if (broadcast) {
    // Everybody who listens on the port and has not bound to one address gets it, as on other hosts.
    let heard = false
    for (let row = load<u32>(bucketOf(localPort)); row; row = endpoint(row).next) {
      const e = endpoint(row)
      if (<u32>e.localPort != localPort || e.localAddress != 0) continue
      deliver(row, source, destination, datagram, length, transient)
      heard = true
    }
    if (!heard) drop(DROP_NO_SOCKET, source, localPort)
    return
  }
  const row = lookup(destination, localPort)
  const serves = row != 0 && isService(row)
  // A client's own port hears what it has asked for; what a port serves may be served elsewhere.
  if ((row == 0 || serves) && port != LOOPBACK_PORT && flowPlaced(packet, localPort, udpSourcePort(datagram), serves))
    return
  if (row) {
    deliver(row, source, destination, datagram, length, transient)
    return
  }
  counters().udpNoPort++
  drop(DROP_NO_SOCKET, source, localPort)
  icmpError(port, packet, ICMP_UNREACHABLE, ICMP_CODE_PORT, 0)
}

/** The endpoint for an own address and port, or 0: one bound to the address before one bound to any, the newest first. */
function lookup(address: u32, port: u32): u32 {
  let any: u32 = 0
  for (let row = load<u32>(bucketOf(port)); row; row = endpoint(row).next) {
    const e = endpoint(row)
    if (<u32>e.localPort != port) continue
    if (e.localAddress == address) return row
    if (e.localAddress == 0 && any == 0) any = row
  }
  return any
}

function deliver(row: u32, source: u32, destination: u32, datagram: u32, length: u32, transient: bool): void {
  const e = endpoint(row)
  const bytes = length - UDP_HEADER_BYTES
  if (bytes > e.credit) {
    counters().udpDropped++
    return
  }
  const header = state().udpHeader
  store<u16>(header + RX_TYPE, RX_DATAGRAM)
  store<u32>(header + RX_SOCKET, handleOf(row))
  store<u32>(header + RX_LENGTH, bytes)
  store<u32>(header + RX_DATAGRAM_REMOTE_ADDRESS, source)
  store<u32>(header + RX_DATAGRAM_LOCAL_ADDRESS, destination)
  store<u16>(header + RX_DATAGRAM_REMOTE_PORT, <u16>udpSourcePort(datagram))
  const payload = datagram + UDP_HEADER_BYTES
  if (deliverRecord(e.set, header, RX_DATAGRAM_HEADER_BYTES, payload, bytes, transient)) e.credit -= bytes
  else counters().udpDropped++
}
