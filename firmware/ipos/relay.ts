import { IPOS_DATA, IPOS_HEADER_BYTES, IPOS_TCP } from '../../abi/ipos.ts'
import { DROP_NO_MEMORY, DROP_TTL } from '../../abi/trace.ts'
import { drop } from '../hal/trace.ts'
import { netInterface } from '../net/interface.ts'
import { counters, state } from '../state.ts'
import { checksumAdd, checksumCopy } from '../wire/checksum.ts'
import {
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL_TCP,
  ipv4CountDown,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4Protocol,
  ipv4Resize,
  ipv4TotalBytes,
  ipv4Ttl,
} from '../wire/ipv4.ts'
import { TCP_FIN, TCP_SYN, tcpAcknowledgement, tcpFlags, tcpHeaderBytes, tcpSequence } from '../wire/tcp.ts'
import { Forward } from './forward.ts'
import { iposBeginBare, iposCommitSummed, naming } from './frame.ts'

/** Sending a client's packets on to where its endpoint is (FIG. 9): one look-up found the row, the main board hears nothing of it. */

/**
 * Sends a packet on as it came, but for its TTL: that keeps packets from running round between stale tables for ever.
 *
 * @param packet its IPv4 header, checked
 */
export function relay(row: Forward, packet: u32): void {
  const st = state()
  row.usedMs = st.nowMs
  if (<u32>row.protocol == IPOS_TCP) note(row, packet)
  if (ipv4Ttl(packet) <= 1) {
    drop(DROP_TTL, row.remoteAddress, row.localAddress)
    return
  }
  const room = netInterface(st.hubPort).mtu - IPOS_HEADER_BYTES
  const total = ipv4TotalBytes(packet)
  if (total <= room) {
    const header = begin(row)
    if (header) finish(row, header, packet, total)
  } else relayFragments(row, packet, room)
}

/** A packet that came in fragments goes on in fragments. */
function relayFragments(row: Forward, packet: u32, room: u32): void {
  const headerBytes = ipv4HeaderBytes(packet)
  const bytes = ipv4TotalBytes(packet) - headerBytes
  const step = (room - headerBytes) & ~7
  const fragment = ipv4Fragment(packet)
  for (let offset: u32 = 0; offset < bytes; offset += step) {
    const header = begin(row)
    if (!header) return
    const piece = min<u32>(step, bytes - offset)
    const copy = header + IPOS_HEADER_BYTES
    memory.copy(copy, packet, headerBytes)
    const more = offset + piece < bytes ? IPV4_MORE_FRAGMENTS : 0
    ipv4Resize(copy, headerBytes + piece, (fragment & ~IPV4_OFFSET_MASK) | more | (offset >>> 3))
    memory.copy(copy + headerBytes, packet + headerBytes + offset, piece)
    finish(row, header, copy, headerBytes + piece)
  }
}

function begin(row: Forward): u32 {
  const n = naming(row.remoteAddress, row.remotePort, row.localAddress, row.localPort, row.thread, row.protocol)
  const header = iposBeginBare(IPOS_DATA, row.peer, n)
  if (!header) drop(DROP_NO_MEMORY, row.remoteAddress, row.localAddress)
  return header
}

/** @param packet may stand where it is sent from already */
function finish(row: Forward, header: u32, packet: u32, bytes: u32): void {
  const copy = header + IPOS_HEADER_BYTES
  const sum = packet == copy ? checksumAdd(packet, bytes, 0) : checksumCopy(copy, packet, bytes, 0)
  // The header's checksum makes up for the smaller TTL: the sum over both stays the same.
  ipv4CountDown(copy)
  iposCommitSummed(header, row.peer, IPOS_HEADER_BYTES + bytes, sum)
  counters().forwarded++
}

/** Remembers where the client stands, so that it can be reset should the endpoint be lost. */
function note(row: Forward, packet: u32): void {
  if (ipv4Protocol(packet) != IPV4_PROTOCOL_TCP) return
  const headerBytes = ipv4HeaderBytes(packet)
  const segment = packet + headerBytes
  const flags = tcpFlags(segment)
  if (flags & TCP_SYN) return
  const bytes = ipv4TotalBytes(packet) - headerBytes - tcpHeaderBytes(segment)
  row.sequence = tcpSequence(segment) + bytes + (flags & TCP_FIN ? 1 : 0)
  row.acknowledgement = tcpAcknowledgement(segment)
}
