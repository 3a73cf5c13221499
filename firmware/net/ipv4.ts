import { DROP_IPV4_CHECKSUM, DROP_IPV4_DESTINATION, DROP_IPV4_HEADER, DROP_PROTOCOL } from '../../abi/trace.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { drop } from '../hal/trace.ts'
import { udpInput } from '../socket/udp.ts'
import { counters } from '../state.ts'
import { tcpInput } from '../tcp/input.ts'
import { ethernetDestination, macIsGroup } from '../wire/ethernet.ts'
import { ICMP_CODE_PROTOCOL, ICMP_UNREACHABLE } from '../wire/icmp.ts'
import {
  IPV4_BAD_CHECKSUM,
  IPV4_DONT_FRAGMENT,
  IPV4_LIMITED_BROADCAST,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_OK,
  IPV4_PROTOCOL_ICMP,
  IPV4_PROTOCOL_TCP,
  IPV4_PROTOCOL_UDP,
  ipv4Check,
  ipv4Destination,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4IsLoopback,
  ipv4IsUnicast,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalBytes,
  ipv4Write,
} from '../wire/ipv4.ts'
import { icmpError, icmpInput } from './icmp.ts'
import { ipv4Identify } from './identification.ts'
import { Interface, isLocalAddress, netInterface } from './interface.ts'
import { reassemblyInput } from './reassembly.ts'

/**
 * Takes one received packet. Options are skipped; what is not for us is dropped without a word, as this is no router.
 *
 * @param frame the Ethernet header
 * @param packet the IPv4 header
 * @param bytes from the IPv4 header to the end of the frame
 */
export function ipv4Input(port: u32, frame: u32, packet: u32, bytes: u32): void {
  counters().ipv4In++
  const check = ipv4Check(packet, bytes)
  if (check != IPV4_OK) {
    drop(check == IPV4_BAD_CHECKSUM ? DROP_IPV4_CHECKSUM : DROP_IPV4_HEADER, port, bytes)
    return
  }
  const ni = netInterface(port)
  const source = ipv4Source(packet)
  const destination = ipv4Destination(packet)
  if (port == LOOPBACK_PORT ? !isLocalAddress(destination) : !isAcceptable(ni, frame, source, destination)) {
    drop(DROP_IPV4_DESTINATION, source, destination)
    return
  }
  if ((ipv4Fragment(packet) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) != 0) {
    counters().ipv4Fragments++
    reassemblyInput(port, packet)
    return
  }
  ipv4Deliver(port, packet, port == LOOPBACK_PORT)
}

/** Source and destination of a packet from outside (RFC 1122 §3.2.1.3, §3.3.4.2, §3.3.6; RFC 1812 §5.3.7). */
function isAcceptable(ni: Interface, frame: u32, source: u32, destination: u32): bool {
  if (!ni.address) return false
  if (!ipv4IsUnicast(source) || ipv4IsLoopback(source) || isLocalAddress(source)) return false
  if (source == ni.broadcast) return false
  // A frame to many that carries a packet to one is an error or an attack.
  if (destination == ni.address) return !macIsGroup(ethernetDestination(frame))
  return isBroadcast(ni, destination)
}

/** True for the two broadcast addresses that a host on the interface's link listens to. */
function isBroadcast(ni: Interface, destination: u32): bool {
  return destination == IPV4_LIMITED_BROADCAST || (destination == ni.broadcast && destination != 0)
}

/**
 * Hands a whole datagram to its protocol.
 *
 * @param packet the IPv4 header, the payload behind it
 * @param transient the bytes do not outlive this call
 */
export function ipv4Deliver(port: u32, packet: u32, transient: bool): void {
  const protocol = ipv4Protocol(packet)
  const headerBytes = ipv4HeaderBytes(packet)
  const payload = packet + headerBytes
  const bytes = ipv4TotalBytes(packet) - headerBytes
  const broadcast = port != LOOPBACK_PORT && isBroadcast(netInterface(port), ipv4Destination(packet))
  if (protocol == IPV4_PROTOCOL_TCP && !broadcast) {
    tcpInput(port, packet, payload, bytes, transient)
  } else if (protocol == IPV4_PROTOCOL_UDP) {
    udpInput(port, packet, payload, bytes, broadcast, transient)
  } else if (protocol == IPV4_PROTOCOL_ICMP) {
    icmpInput(port, packet, payload, bytes, broadcast)
  } else {
    drop(DROP_PROTOCOL, protocol, ipv4Source(packet))
    icmpError(port, packet, ICMP_UNREACHABLE, ICMP_CODE_PROTOCOL, 0)
  }
}

/**
 * Writes a header of 20 bytes, checksum included.
 *
 * @param totalBytes of header and payload
 * @param dontFragment true makes the datagram atomic, so that its identification means nothing and is 0 (RFC 6864 §4.1)
 */
export function ipv4Header(
  packet: u32,
  totalBytes: u32,
  protocol: u32,
  source: u32,
  destination: u32,
  ttl: u32,
  dontFragment: bool,
): void {
  const identification = dontFragment ? 0 : ipv4Identify(source, destination, protocol)
  const fragment = dontFragment ? IPV4_DONT_FRAGMENT : 0
  ipv4Write(packet, totalBytes, identification, fragment, ttl, protocol, source, destination)
}
