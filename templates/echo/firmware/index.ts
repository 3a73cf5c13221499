/**
 * Answers on every port that the board gives an address: ARP requests for it (RFC 826), pings (RFC 792), and UDP datagrams to port 7
 * (RFC 862). Nothing is queued and nothing is remembered.
 */
import { BOOT_INTERFACE_ADDRESS, BOOT_INTERFACE_BYTES, BOOT_INTERFACES } from 'inic/abi/boot.ts'
import { BOOT_BASE } from 'inic/abi/memory.ts'
import { IRQ_ENABLE, IRQ_MAC0, IRQ_MAC1, IRQ_MAC2, MAC_PORTS, SYS_READY } from 'inic/abi/registers.ts'
import { DESCRIPTOR_ADDRESS, DESCRIPTOR_LENGTH } from 'inic/abi/rings.ts'
import {
  DROP_ARP,
  DROP_ETHERNET_SHORT,
  DROP_ETHERNET_TYPE,
  DROP_FRAGMENT,
  DROP_ICMP_HEADER,
  DROP_IPV4_DESTINATION,
  DROP_IPV4_HEADER,
  DROP_NO_SOCKET,
  DROP_PROTOCOL,
  DROP_UDP_CHECKSUM,
  DROP_UDP_HEADER,
} from 'inic/abi/trace.ts'
import { macAddress, receiveDone, receiveNext, transmitClaim, transmitCommit } from 'inic/firmware/hal/mac.ts'
import { halInitialize } from 'inic/firmware/hal/power.ts'
import { writeRegister } from 'inic/firmware/hal/registers.ts'
import { COUNTERS_BASE, Hal, HalCounters } from 'inic/firmware/hal/state.ts'
import { timerLatch } from 'inic/firmware/hal/timer.ts'
import { drop } from 'inic/firmware/hal/trace.ts'
import { uartIpv4, uartLine, uartNumber, uartText } from 'inic/firmware/hal/uart.ts'
import { copyBytes } from 'inic/firmware/mem/bytes.ts'
import { directoryTable } from 'inic/firmware/mem/directory.ts'
import {
  ARP_BYTES,
  ARP_REPLY,
  ARP_REQUEST,
  arpIsIpv4,
  arpOperation,
  arpSender,
  arpSenderMac,
  arpTarget,
  arpWrite,
} from 'inic/firmware/wire/arp.ts'
import { checksumAdd, checksumFold, pseudoHeaderSum } from 'inic/firmware/wire/checksum.ts'
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ethernetSource,
  ethernetType,
  ethernetWrite,
} from 'inic/firmware/wire/ethernet.ts'
import { ICMP_ECHO_REQUEST, ICMP_HEADER_BYTES, icmpTurnEcho, icmpType } from 'inic/firmware/wire/icmp.ts'
import {
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_OK,
  IPV4_PROTOCOL_ICMP,
  IPV4_PROTOCOL_UDP,
  ipv4Check,
  ipv4Destination,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4Identification,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalBytes,
  ipv4Write,
} from 'inic/firmware/wire/ipv4.ts'
import {
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
  udpBytes,
  udpChecksum,
  udpDestinationPort,
  udpSourcePort,
  udpWrite,
} from 'inic/firmware/wire/udp.ts'

const ECHO_PORT: u32 = 7
const TTL: u32 = 64
/** Frames that one poll takes from a port before the others have their turn. */
const FRAMES_PER_PORT: u32 = 64
const FOREVER: u32 = 0xffffffff

/** What was answered, behind the hardware layer's own counters. */
@unmanaged
class Counters extends HalCounters {
  arpReplies: u64
  icmpReplies: u64
  udpReplies: u64
}

function counters(): Counters {
  return changetype<Counters>(COUNTERS_BASE)
}

/** The address of a port, from the boot information; 0 = none. */
function portAddress(port: u32): u32 {
  return load<u32>(BOOT_BASE + BOOT_INTERFACES + port * BOOT_INTERFACE_BYTES + BOOT_INTERFACE_ADDRESS)
}

export function reset(): void {
  halInitialize(offsetof<Hal>())
  directoryTable<Counters>(COUNTERS_BASE, offsetof<Counters>(), 1)
  uartText('{{name}}: echo')
  for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
    if (portAddress(port) == 0) continue
    uartText(', port ')
    uartNumber(port)
    uartText(' is ')
    uartIpv4(portAddress(port))
  }
  uartLine()
  writeRegister(IRQ_ENABLE, IRQ_MAC0 | IRQ_MAC1 | IRQ_MAC2)
  writeRegister(SYS_READY, 1)
}

/** @returns 0 while frames are left, else "not before an interrupt" */
export function poll(_irqs: u32): u32 {
  timerLatch()
  let again = false
  for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
    for (let n: u32 = 0; n < FRAMES_PER_PORT; n++) {
      const descriptor = receiveNext(port)
      if (!descriptor) break
      frameInput(port, load<u32>(descriptor + DESCRIPTOR_ADDRESS), load<u32>(descriptor + DESCRIPTOR_LENGTH))
      receiveDone(port, descriptor)
    }
    if (receiveNext(port)) again = true
  }
  return again ? 0 : FOREVER
}

function frameInput(port: u32, frame: u32, bytes: u32): void {
  if (bytes < ETHERNET_HEADER_BYTES) return drop(DROP_ETHERNET_SHORT, port, bytes)
  const packet = frame + ETHERNET_HEADER_BYTES
  const type = ethernetType(frame)
  if (type == ETHERTYPE_ARP) arpInput(port, packet, bytes - ETHERNET_HEADER_BYTES)
  else if (type == ETHERTYPE_IPV4) ipv4Input(port, frame, packet, bytes - ETHERNET_HEADER_BYTES)
  else drop(DROP_ETHERNET_TYPE, port, type)
}

function arpInput(port: u32, packet: u32, bytes: u32): void {
  if (bytes < ARP_BYTES || !arpIsIpv4(packet)) return drop(DROP_ARP, port, bytes)
  const own = portAddress(port)
  if (arpOperation(packet) != ARP_REQUEST || own == 0 || arpTarget(packet) != own) return
  const reply = transmitClaim(port)
  if (!reply) return
  const asker = arpSenderMac(packet)
  ethernetWrite(reply, asker, macAddress(port), ETHERTYPE_ARP)
  arpWrite(reply + ETHERNET_HEADER_BYTES, ARP_REPLY, macAddress(port), own, asker, arpSender(packet))
  transmitCommit(port, ETHERNET_HEADER_BYTES + ARP_BYTES)
  counters().arpReplies++
}

function ipv4Input(port: u32, frame: u32, packet: u32, bytes: u32): void {
  // From here on the packet ends where it says, and bytes after that are the wire's padding.
  if (ipv4Check(packet, bytes) != IPV4_OK) return drop(DROP_IPV4_HEADER, port, bytes)
  const own = portAddress(port)
  if (own == 0 || ipv4Destination(packet) != own) return drop(DROP_IPV4_DESTINATION, port, ipv4Destination(packet))
  if (ipv4Fragment(packet) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) return drop(DROP_FRAGMENT, port, 0)
  if (ipv4HeaderBytes(packet) != IPV4_HEADER_BYTES) return drop(DROP_IPV4_HEADER, port, ipv4HeaderBytes(packet))
  const payload = packet + IPV4_HEADER_BYTES
  const payloadBytes = ipv4TotalBytes(packet) - IPV4_HEADER_BYTES
  const protocol = ipv4Protocol(packet)
  if (protocol == IPV4_PROTOCOL_ICMP) icmpInput(port, frame, payload, payloadBytes)
  else if (protocol == IPV4_PROTOCOL_UDP) udpInput(port, frame, payload, payloadBytes)
  else drop(DROP_PROTOCOL, port, protocol)
}

function icmpInput(port: u32, frame: u32, message: u32, bytes: u32): void {
  if (bytes < ICMP_HEADER_BYTES || checksumFold(checksumAdd(message, bytes, 0)) != 0xffff) {
    return drop(DROP_ICMP_HEADER, port, bytes)
  }
  if (icmpType(message) != ICMP_ECHO_REQUEST) return
  const reply = answer(port, frame, message, bytes)
  if (!reply) return
  icmpTurnEcho(reply, bytes)
  send(port, bytes)
  counters().icmpReplies++
}

function udpInput(port: u32, frame: u32, datagram: u32, bytes: u32): void {
  if (bytes < UDP_HEADER_BYTES || udpBytes(datagram) < UDP_HEADER_BYTES || udpBytes(datagram) > bytes) {
    return drop(DROP_UDP_HEADER, port, bytes)
  }
  const length = udpBytes(datagram)
  const packet = frame + ETHERNET_HEADER_BYTES
  const pseudo = pseudoHeaderSum(ipv4Source(packet), ipv4Destination(packet), IPV4_PROTOCOL_UDP, length)
  if (udpChecksum(datagram) != 0 && checksumFold(checksumAdd(datagram, length, pseudo)) != 0xffff) {
    return drop(DROP_UDP_CHECKSUM, port, length)
  }
  if (udpDestinationPort(datagram) != ECHO_PORT) return drop(DROP_NO_SOCKET, port, udpDestinationPort(datagram))
  const reply = answer(port, frame, datagram, length)
  if (!reply) return
  const checksum = udpChecksum(datagram)
  udpWrite(reply, ECHO_PORT, udpSourcePort(datagram), length)
  // Addresses and ports have changed places, and a sum does not mind the order of its numbers.
  store<u16>(reply, <u16>checksum, UDP_CHECKSUM)
  send(port, length)
  counters().udpReplies++
}

/**
 * Lays an answer out in the next transmit slot: headers back to the sender of `frame`, and a copy of its payload.
 *
 * @returns address of that copy, or 0 if no slot is free
 */
function answer(port: u32, frame: u32, payload: u32, bytes: u32): u32 {
  const reply = transmitClaim(port)
  if (!reply) return 0
  const packet = frame + ETHERNET_HEADER_BYTES
  const copy = reply + ETHERNET_HEADER_BYTES
  ethernetWrite(reply, ethernetSource(frame), macAddress(port), ETHERTYPE_IPV4)
  ipv4Write(
    copy,
    IPV4_HEADER_BYTES + bytes,
    ipv4Identification(packet),
    0,
    TTL,
    ipv4Protocol(packet),
    ipv4Destination(packet),
    ipv4Source(packet),
  )
  copyBytes(copy + IPV4_HEADER_BYTES, payload, bytes)
  return copy + IPV4_HEADER_BYTES
}

/** Sends what `answer` laid out. @param bytes behind the IPv4 header */
function send(port: u32, bytes: u32): void {
  transmitCommit(port, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + bytes)
}
