import { STATUS_ECONNREFUSED, STATUS_EHOSTUNREACH, STATUS_EMSGSIZE, STATUS_ENETUNREACH } from '../../abi/status.ts'
import { DROP_ICMP_HEADER } from '../../abi/trace.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { drop } from '../hal/trace.ts'
import { forwardedError } from '../ipos/input.ts'
import { udpError } from '../socket/udp.ts'
import { counters, state } from '../state.ts'
import { tcpIcmpError } from '../tcp/icmp.ts'
import { checksumAdd, checksumFold } from '../wire/checksum.ts'
import {
  ICMP_CODE_FRAGMENTATION_NEEDED,
  ICMP_CODE_NET,
  ICMP_CODE_NET_PROHIBITED,
  ICMP_CODE_NET_UNKNOWN,
  ICMP_CODE_PORT,
  ICMP_CODE_PROTOCOL,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMP_PARAMETER_PROBLEM,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  icmpCode,
  icmpMtu,
  icmpTurnEcho,
  icmpType,
  icmpWrite,
} from '../wire/icmp.ts'
import {
  IPV4_HEADER_BYTES,
  IPV4_MINIMUM_MTU,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL_ICMP,
  IPV4_PROTOCOL_TCP,
  IPV4_PROTOCOL_UDP,
  ipv4Destination,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalBytes,
} from '../wire/ipv4.ts'
import { interfaceOf, isLocalAddress } from './interface.ts'
import { ipv4Send } from './output.ts'
import { replyPort } from './route.ts'

const TTL: u32 = 64
/** ICMP errors a second, over all peers (RFC 1812 §4.3.2.8). */
const ERRORS_PER_SECOND: u32 = 100
const SECOND_MS: u32 = 1000
/** An error quotes as much of the packet as fits in 576 bytes with both headers (RFC 1812 §4.3.2.3). */
const QUOTE_BYTES: u32 = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES
/** Of the quoted payload we need the ports, and for TCP the sequence number (RFC 792: 64 bits). */
const QUOTED_PAYLOAD: u32 = 8

/** Takes one ICMP message. Errors go to the socket that sent the quoted packet; echo requests are answered. */
export function icmpInput(port: u32, packet: u32, message: u32, bytes: u32, broadcast: bool): void {
  counters().icmpIn++
  if (bytes < ICMP_HEADER_BYTES || checksumFold(checksumAdd(message, bytes, 0)) != 0xffff) {
    drop(DROP_ICMP_HEADER, port, bytes)
    return
  }
  // RFC 1122 §3.2.2.6 allows silence for an echo request to a broadcast address; nothing else may come that way.
  if (broadcast) return
  const type = icmpType(message)
  if (type == ICMP_ECHO_REQUEST) echo(port, packet, message, bytes)
  else if (type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM) {
    errorInput(port, packet, message, bytes)
  }
  // Source quench (RFC 6633) and redirects are ignored, as is what we did not ask for.
}

/** The reply has the request's bytes and goes back where it came from (RFC 1122 §3.2.2.6). */
function echo(port: u32, packet: u32, message: u32, bytes: u32): void {
  icmpTurnEcho(message, bytes)
  send(port, packet, message, bytes)
}

/** Sends a message about `packet`, which came in by `port`, to its source. */
function send(port: u32, packet: u32, message: u32, bytes: u32): void {
  const remote = ipv4Source(packet)
  const way = replyPort(port, remote)
  if (ipv4Send(way, ipv4Destination(packet), remote, IPV4_PROTOCOL_ICMP, TTL, message, bytes)) counters().icmpOut++
}

/** An error about a packet that we are said to have sent. What the quote cannot show to be ours is ignored. */
function errorInput(port: u32, packet: u32, message: u32, bytes: u32): void {
  const quote = message + ICMP_HEADER_BYTES
  const there = bytes - ICMP_HEADER_BYTES
  if (there < IPV4_HEADER_BYTES + QUOTED_PAYLOAD || load<u8>(quote) >>> 4 != 4) return
  const headerBytes = ipv4HeaderBytes(quote)
  if (headerBytes < IPV4_HEADER_BYTES || there < headerBytes + QUOTED_PAYLOAD) return
  const local = ipv4Source(quote)
  // What comes over the hub quotes what we sent with a peer's address.
  if (!isLocalAddress(local) && port != state().hubPort) return
  if ((ipv4Fragment(quote) & IPV4_OFFSET_MASK) != 0) return
  const remote = ipv4Destination(quote)
  const protocol = ipv4Protocol(quote)
  const type = icmpType(message)
  const code = icmpCode(message)
  const payload = quote + headerBytes
  const localPort: u32 = bswap<u16>(load<u16>(payload))
  const remotePort: u32 = bswap<u16>(load<u16>(payload, 2))
  // The packet that it is about was sent by the server that the connection was forwarded to, or has moved on to: on to there.
  if (forwardedError(packet, protocol, local, remote, localPort, remotePort)) return
  if (protocol == IPV4_PROTOCOL_TCP) {
    const sequence = bswap<u32>(load<u32>(payload, 4))
    const tooBig = type == ICMP_UNREACHABLE && code == ICMP_CODE_FRAGMENTATION_NEEDED
    const mtu = tooBig ? reportedMtu(message, quote) : 0
    tcpIcmpError(local, remote, localPort, remotePort, sequence, type, code, mtu)
  } else if (protocol == IPV4_PROTOCOL_UDP) {
    udpError(local, localPort, remote, remotePort, statusOf(type, code))
  }
}

/** The next hop's MTU; from a router that does not tell, the plateau below the packet's size (RFC 1191 §5, §7.1). */
function reportedMtu(message: u32, quote: u32): u32 {
  const told = icmpMtu(message)
  if (told >= IPV4_MINIMUM_MTU) return told
  if (told) return IPV4_MINIMUM_MTU
  const total = ipv4TotalBytes(quote)
  if (total > 32000) return 32000
  if (total > 17914) return 17914
  if (total > 8166) return 8166
  if (total > 4352) return 4352
  if (total > 2002) return 2002
  if (total > 1492) return 1492
  if (total > 1006) return 1006
  if (total > 508) return 508
  return total > 296 ? 296 : IPV4_MINIMUM_MTU
}

/** The status that a socket sees for an ICMP error (RFC 1122 §4.2.3.9), as Linux maps them. */
function statusOf(type: u32, code: u32): u32 {
  if (type != ICMP_UNREACHABLE) return STATUS_EHOSTUNREACH
  if (code == ICMP_CODE_PORT || code == ICMP_CODE_PROTOCOL) return STATUS_ECONNREFUSED
  if (code == ICMP_CODE_FRAGMENTATION_NEEDED) return STATUS_EMSGSIZE
  if (code == ICMP_CODE_NET || code == ICMP_CODE_NET_UNKNOWN || code == ICMP_CODE_NET_PROHIBITED)
    return STATUS_ENETUNREACH
  return STATUS_EHOSTUNREACH
}

/**
 * Sends an ICMP error about a packet that was sent to us, quoting it from its IPv4 header on. Never about an ICMP error, a
 * later fragment, or a packet that was not for us alone (RFC 1122 §3.2.2), and not more often than the limit allows.
 *
 * @param rest bytes 4..7 of the message, host order
 */
export function icmpError(port: u32, packet: u32, type: u32, code: u32, rest: u32): void {
  const local = ipv4Destination(packet)
  if (port == LOOPBACK_PORT ? !isLocalAddress(local) : interfaceOf(local) != <i32>port) return
  if ((ipv4Fragment(packet) & IPV4_OFFSET_MASK) != 0) return
  const headerBytes = ipv4HeaderBytes(packet)
  const total = ipv4TotalBytes(packet)
  if (ipv4Protocol(packet) == IPV4_PROTOCOL_ICMP) {
    const about: u32 = total > headerBytes ? load<u8>(packet + headerBytes) : ICMP_UNREACHABLE
    if (about != ICMP_ECHO_REQUEST && about != ICMP_ECHO_REPLY) return
  }
  if (!mayComplain()) {
    counters().icmpSuppressed++
    return
  }
  const quoted = min<u32>(total, QUOTE_BYTES)
  const message = state().datagramBuffer
  memory.copy(message + ICMP_HEADER_BYTES, packet, quoted)
  icmpWrite(message, type, code, rest, ICMP_HEADER_BYTES + quoted)
  send(port, packet, message, ICMP_HEADER_BYTES + quoted)
}

function mayComplain(): bool {
  const st = state()
  if (st.nowMs - st.icmpWindowMs >= SECOND_MS) {
    st.icmpWindowMs = st.nowMs
    st.icmpSent = 0
  }
  if (st.icmpSent >= ERRORS_PER_SECOND) return false
  st.icmpSent++
  return true
}
