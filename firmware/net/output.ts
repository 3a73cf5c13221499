import { DROP_NO_MEMORY } from '../../abi/trace.ts'
import { transmitClaim, transmitCommit, transmitHasRoom } from '../hal/mac.ts'
import { drop } from '../hal/trace.ts'
import { carve } from '../mem/carve.ts'
import { chunkAddress, chunkAllocate, chunkMeta, chunkRelease, chunksAreScarce } from '../mem/chunk.ts'
import { udpSendFailed } from '../socket/udp.ts'
import { state } from '../state.ts'
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4 } from '../wire/ethernet.ts'
import {
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MAXIMUM_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL_TCP,
  IPV4_PROTOCOL_UDP,
  ipv4Fragment,
  ipv4Protocol,
  ipv4Write,
} from '../wire/ipv4.ts'
import { arpEntry, arpFind, arpLookup } from './arp.ts'
import { ethernetHeader } from './ethernet.ts'
import { identificationInitialize, ipv4Identify } from './identification.ts'
import { netInterface } from './interface.ts'
import { nextHop } from './route.ts'

/** Room in `State.datagramBuffer`: the largest IPv4 payload and a header or two before it. */
const DATAGRAM_BUFFER_BYTES: u32 = 65536 + 64

// What waits for ARP answers is bounded by neighbour and in all (RFC 1122 §2.3.2.2 asks for at least one packet).
const PENDING_DATAGRAMS: u32 = 8
const PENDING_PACKETS: u32 = 48
const PENDING_PACKETS_ALL: u32 = 512

export function outputInitialize(): void {
  state().datagramBuffer = carve(DATAGRAM_BUFFER_BYTES)
  identificationInitialize()
}

/**
 * Sends one datagram, in fragments where it exceeds the MTU; the bytes are copied. While the next hop's MAC address is
 * unknown a few datagrams wait. Returns false if the datagram was dropped: no next hop, too long, ring or queue full.
 *
 * @param payload address of what follows the IPv4 header, `bytes` long
 */
export function ipv4Send(
  interfaceIndex: u32,
  source: u32,
  destination: u32,
  protocol: u32,
  ttl: u32,
  payload: u32,
  bytes: u32,
): bool {
  const total = bytes + IPV4_HEADER_BYTES
  const hop = nextHop(interfaceIndex, destination)
  if (!hop || bytes > IPV4_MAXIMUM_BYTES - IPV4_HEADER_BYTES) return false
  const mtu = netInterface(interfaceIndex).mtu
  const step = (mtu - IPV4_HEADER_BYTES) & ~7
  const packets = total <= mtu ? 1 : (bytes + step - 1) / step
  const resolved = arpLookup(interfaceIndex, hop)
  const pending = resolved ? 0 : arpFind(interfaceIndex, hop)
  // All fragments or none: a part of a datagram is of no use to anybody.
  if (resolved ? !transmitHasRoom(interfaceIndex, packets) : !pendingHasRoom(pending, packets)) {
    drop(DROP_NO_MEMORY, destination, bytes)
    return false
  }
  // TCP's datagrams are atomic (RFC 6864 §4.1): of one address, several servers may send them.
  const atomic = protocol == IPV4_PROTOCOL_TCP
  const identification = atomic ? 0 : ipv4Identify(source, destination, protocol)
  const flags = atomic ? IPV4_DONT_FRAGMENT : 0
  let offset: u32 = 0
  do {
    const piece = total <= mtu ? bytes : min<u32>(step, bytes - offset)
    const more = offset + piece < bytes ? IPV4_MORE_FRAGMENTS : 0
    const size = IPV4_HEADER_BYTES + piece
    const packet = resolved ? transmitClaim(interfaceIndex) + ETHERNET_HEADER_BYTES : pendingClaim(pending, size)
    ipv4Write(packet, size, identification, flags | more | (offset >>> 3), ttl, protocol, source, destination)
    memory.copy(packet + IPV4_HEADER_BYTES, payload + offset, piece)
    if (resolved) {
      ethernetHeader(packet - ETHERNET_HEADER_BYTES, interfaceIndex, resolved, ETHERTYPE_IPV4)
      transmitCommit(interfaceIndex, ETHERNET_HEADER_BYTES + size)
    }
    offset += piece
  } while (offset < bytes)
  return true
}

/** True if a datagram of `count` packets may wait for entry `index`; counts it among those that wait. */
function pendingHasRoom(index: u32, count: u32): bool {
  const st = state()
  if (!index || chunksAreScarce() || st.arpQueued + count > PENDING_PACKETS_ALL) return false
  if (st.chunkFreeCount < count) return false
  const entry = arpEntry(index)
  if (<u32>entry.queuePackets + count > PENDING_PACKETS || <u32>entry.queueDatagrams == PENDING_DATAGRAMS) return false
  entry.queueDatagrams++
  return true
}

/** Address of a chunk for one packet at the end of the entry's queue. */
function pendingClaim(index: u32, bytes: u32): u32 {
  const entry = arpEntry(index)
  const chunk = chunkAllocate()
  chunkMeta(chunk).length = <u16>bytes
  if (entry.queueTail) chunkMeta(entry.queueTail).next = chunk
  else entry.queueHead = chunk
  entry.queueTail = chunk
  entry.queuePackets++
  state().arpQueued++
  return chunkAddress(chunk)
}

/** Takes the first packet off the entry's queue; the caller releases the chunk. */
function pendingTake(index: u32): u32 {
  const entry = arpEntry(index)
  const chunk = entry.queueHead
  if (!chunk) return 0
  entry.queueHead = chunkMeta(chunk).next
  if (!entry.queueHead) {
    entry.queueTail = 0
    entry.queueDatagrams = 0
  }
  entry.queuePackets--
  state().arpQueued--
  return chunk
}

/** The entry has a MAC address now: what waited for it goes out. */
export function pendingSend(index: u32): void {
  const netIndex: u32 = arpEntry(index).netInterface
  for (let chunk = pendingTake(index); chunk; chunk = pendingTake(index)) {
    const frame = transmitClaim(netIndex)
    if (frame) {
      const bytes: u32 = chunkMeta(chunk).length
      ethernetHeader(frame, netIndex, index, ETHERTYPE_IPV4)
      memory.copy(frame + ETHERNET_HEADER_BYTES, chunkAddress(chunk), bytes)
      transmitCommit(netIndex, ETHERNET_HEADER_BYTES + bytes)
    }
    chunkRelease(chunk)
  }
}

/** The entry will not get a MAC address: what waited for it goes, and the sockets that sent it learn `status`. */
export function pendingDrop(index: u32, status: u32): void {
  for (let chunk = pendingTake(index); chunk; chunk = pendingTake(index)) {
    const packet = chunkAddress(chunk)
    const first = (ipv4Fragment(packet) & IPV4_OFFSET_MASK) == 0
    if (first && ipv4Protocol(packet) == IPV4_PROTOCOL_UDP) udpSendFailed(packet, status)
    chunkRelease(chunk)
  }
}
