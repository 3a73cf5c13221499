/** Parser of packets; see index.ts. */
import { IPOS_ETHERTYPE } from '../../../abi/ipos.ts'
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  internetChecksum,
  ipText,
  macText,
  NO_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoHeader,
  TCP_FLAGS,
  type TcpOptions,
  viewOf,
} from './build.ts'
import { type IposPacket, parseIpos } from './ipos.ts'

/** The order in which flags print. */
const FLAG_ORDER = 'SFRPAUEC'

export interface ArpPacket {
  operation: 'request' | 'reply' | number
  senderMac: string
  sender: string
  targetMac: string
  target: string
}

export interface Ipv4Packet {
  source: string
  destination: string
  protocol: number
  tos: number
  identification: number
  dontFragment: boolean
  moreFragments: boolean
  offset: number
  ttl: number
  totalLength: number
  options: Uint8Array
  payload: Uint8Array
}

export interface IcmpMessage {
  type: number
  code: number
  rest: number
  payload: Uint8Array
}

export interface UdpDatagram {
  sourcePort: number
  destinationPort: number
  checksum: number
  payload: Uint8Array
}

export interface ParsedTcpOptions extends TcpOptions {
  /** Kinds in their order, without padding. */
  kinds: number[]
}

export interface TcpSegment {
  sourcePort: number
  destinationPort: number
  sequence: number
  acknowledgment: number
  /** In the order S F R P A U E C. */
  flags: string
  window: number
  urgent: number
  options: ParsedTcpOptions
  payload: Uint8Array
}

export interface Packet {
  destinationMac: string
  sourceMac: string
  type: number
  arp?: ArpPacket
  ipv4?: Ipv4Packet
  icmp?: IcmpMessage
  udp?: UdpDatagram
  tcp?: TcpSegment
  ipos?: IposPacket
  /** What breaks a rule: lengths, checksums, versions. */
  problems: string[]
}

/** Decodes a frame. Never throws: what cannot be decoded is a problem. */
export function parse(frame: Uint8Array): Packet {
  const packet: Packet = { destinationMac: '', sourceMac: '', type: 0, problems: [] }
  if (frame.length < 14) {
    packet.problems.push(`frame of ${frame.length} bytes`)
    return packet
  }
  packet.destinationMac = macText(frame)
  packet.sourceMac = macText(frame.subarray(6))
  packet.type = (frame[12]! << 8) | frame[13]!
  if (packet.type === ETHERTYPE_ARP) parseArp(frame.subarray(14), packet)
  if (packet.type === ETHERTYPE_IPV4) parseIpv4(frame.subarray(14), packet)
  if (packet.type === IPOS_ETHERTYPE) {
    const ipos = parseIpos(frame.subarray(14), packet.problems)
    if (ipos !== undefined) packet.ipos = ipos
  }
  return packet
}

function parseArp(data: Uint8Array, packet: Packet): void {
  if (data.length < 28) {
    packet.problems.push(`ARP packet of ${data.length} bytes`)
    return
  }
  const view = viewOf(data)
  if (view.getUint32(0) !== 0x10800 || view.getUint16(4) !== 0x604)
    packet.problems.push('ARP not for Ethernet and IPv4')
  const operation = view.getUint16(6)
  packet.arp = {
    operation: operation === 1 ? 'request' : operation === 2 ? 'reply' : operation,
    senderMac: macText(data.subarray(8)),
    sender: ipText(view.getUint32(14)),
    targetMac: macText(data.subarray(18)),
    target: ipText(view.getUint32(24)),
  }
}

/** Decodes an IPv4 packet into `packet`. @param quoted the packet is cut short, in an ICMP error */
export function parseIpv4(data: Uint8Array, packet: Packet, quoted = false): void {
  if (data.length < 20) {
    packet.problems.push(`IPv4 packet of ${data.length} bytes`)
    return
  }
  const view = viewOf(data)
  const headerBytes = (data[0]! & 15) * 4
  const totalLength = view.getUint16(2)
  if (data[0]! >> 4 !== 4 || headerBytes < 20 || headerBytes > data.length) {
    packet.problems.push(`IPv4 version and IHL 0x${data[0]!.toString(16)}`)
    return
  }
  if (totalLength < headerBytes || (totalLength > data.length && !quoted)) {
    packet.problems.push(`IPv4 total length ${totalLength} of ${data.length}`)
    return
  }
  if (internetChecksum(data.subarray(0, headerBytes)) !== 0) packet.problems.push('IPv4 checksum')
  const flags = view.getUint16(6)
  const payload = data.subarray(headerBytes, totalLength)
  packet.ipv4 = {
    source: ipText(view.getUint32(12)),
    destination: ipText(view.getUint32(16)),
    protocol: data[9]!,
    tos: data[1]!,
    identification: view.getUint16(4),
    dontFragment: (flags & 0x4000) !== 0,
    moreFragments: (flags & 0x2000) !== 0,
    offset: (flags & 0x1fff) * 8,
    ttl: data[8]!,
    totalLength,
    options: data.subarray(20, headerBytes),
    payload,
  }
  if (packet.ipv4.moreFragments || packet.ipv4.offset > 0) return
  if (quoted) return
  const { protocol } = packet.ipv4
  if (protocol === PROTOCOL_ICMP) parseIcmp(payload, packet)
  if (protocol === PROTOCOL_UDP) parseUdp(payload, packet)
  if (protocol === PROTOCOL_TCP) parseTcp(payload, packet)
}

export function parseIcmp(data: Uint8Array, packet: Packet): void {
  if (data.length < 8) {
    packet.problems.push(`ICMP message of ${data.length} bytes`)
    return
  }
  if (internetChecksum(data) !== 0) packet.problems.push('ICMP checksum')
  packet.icmp = { type: data[0]!, code: data[1]!, rest: viewOf(data).getUint32(4), payload: data.subarray(8) }
}

export function parseUdp(data: Uint8Array, packet: Packet): void {
  const view = viewOf(data)
  const length = data.length < 8 ? 0 : view.getUint16(4)
  if (length < 8 || length > data.length) {
    packet.problems.push(`UDP length ${length} of ${data.length}`)
    return
  }
  const { source, destination } = packet.ipv4!
  const datagram = data.subarray(0, length)
  const checksum = view.getUint16(6)
  if (checksum !== 0 && internetChecksum(pseudoHeader(source, destination, PROTOCOL_UDP, length), datagram) !== 0) {
    packet.problems.push('UDP checksum')
  }
  packet.udp = {
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    checksum,
    payload: datagram.subarray(8),
  }
}

export function parseTcp(data: Uint8Array, packet: Packet): void {
  const headerBytes = data.length < 20 ? 0 : (data[12]! >> 4) * 4
  if (headerBytes < 20 || headerBytes > data.length) {
    packet.problems.push(`TCP header of ${headerBytes} bytes in ${data.length}`)
    return
  }
  const { source, destination } = packet.ipv4!
  if (internetChecksum(pseudoHeader(source, destination, PROTOCOL_TCP, data.length), data) !== 0) {
    packet.problems.push('TCP checksum')
  }
  const view = viewOf(data)
  const bits = data[13]!
  packet.tcp = {
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    sequence: view.getUint32(4),
    acknowledgment: view.getUint32(8),
    flags: [...FLAG_ORDER].filter((flag) => bits & (1 << TCP_FLAGS.indexOf(flag))).join(''),
    window: view.getUint16(14),
    urgent: view.getUint16(18),
    options: parseTcpOptions(data.subarray(20, headerBytes), packet.problems),
    payload: data.subarray(headerBytes),
  }
}

function parseTcpOptions(data: Uint8Array, problems: string[]): ParsedTcpOptions {
  const options: ParsedTcpOptions = { kinds: [] }
  const view = viewOf(data)
  for (let at = 0; at < data.length && data[at] !== 0; ) {
    const kind = data[at]!
    if (kind === 1) {
      at++
      continue
    }
    const length = data[at + 1] ?? 0
    if (length < 2 || at + length > data.length) {
      problems.push(`TCP option ${kind} of ${length} bytes`)
      break
    }
    options.kinds.push(kind)
    if (kind === 2 && length === 4) options.mss = view.getUint16(at + 2)
    if (kind === 3 && length === 3) options.windowScale = data[at + 2]!
    if (kind === 4 && length === 2) options.sackPermitted = true
    if (kind === 8 && length === 10) options.timestamps = [view.getUint32(at + 2), view.getUint32(at + 6)]
    if (kind === 5) {
      options.sack = []
      for (let block = at + 2; block + 8 <= at + length; block += 8) {
        options.sack.push([view.getUint32(block), view.getUint32(block + 4)])
      }
    }
    at += length
  }
  return options
}

/** The packet that an ICMP error quotes, ports and TCP sequence number included where they are there. */
export function quotedPacket(packet: Packet): Packet & { ports?: [number, number] } {
  const quoted: Packet & { ports?: [number, number] } = { destinationMac: '', sourceMac: '', type: 0, problems: [] }
  parseIpv4(packet.icmp?.payload ?? NO_BYTES, quoted, true)
  const payload = quoted.ipv4?.payload ?? NO_BYTES
  if (payload.length >= 4) quoted.ports = [viewOf(payload).getUint16(0), viewOf(payload).getUint16(2)]
  return quoted
}
