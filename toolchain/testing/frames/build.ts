/** Builders of packets; see index.ts. */

export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const PROTOCOL_ICMP = 1
export const PROTOCOL_TCP = 6
export const PROTOCOL_UDP = 17
export const BROADCAST_MAC = 'ff:ff:ff:ff:ff:ff'
export const NO_BYTES = new Uint8Array(0)

// ── numbers, addresses, checksum ──

export function ipNumber(address: string): number {
  const parts = address.split('.').map(Number)
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part <= 255))) {
    throw new RangeError(`no IPv4 address: ${address}`)
  }
  return parts.reduce((sum, part) => sum * 256 + part, 0)
}

export function ipText(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')
}

export function macBytes(address: string): Uint8Array {
  const bytes = Uint8Array.from(address.split(':'), (part) => Number.parseInt(part, 16))
  if (bytes.length !== 6) throw new RangeError(`no MAC address: ${address}`)
  return bytes
}

export function macText(bytes: Uint8Array): string {
  return Array.from(bytes.subarray(0, 6), (byte) => byte.toString(16).padStart(2, '0')).join(':')
}

export function concat(...pieces: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    all.set(piece, at)
    at += piece.length
  }
  return all
}

/** Bytes of a text, or a pattern of `text` bytes that differs from byte to byte. */
export function bytes(text: string | number): Uint8Array {
  if (typeof text === 'string') return new TextEncoder().encode(text)
  return Uint8Array.from({ length: text }, (_, i) => (i * 7 + (i >> 8) * 13 + 1) & 255)
}

/** Internet checksum (RFC 1071), the plain way: big-endian words, an odd last byte is a high byte. */
export function internetChecksum(...pieces: Uint8Array[]): number {
  const data = concat(...pieces)
  let sum = 0
  for (let i = 0; i < data.length; i += 2) sum += data[i]! * 256 + (data[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  return ~sum & 0xffff
}

/** Pseudo-header of TCP and UDP (RFC 9293 §3.1). */
export function pseudoHeader(source: string, destination: string, protocol: number, length: number): Uint8Array {
  const header = new Uint8Array(12)
  const view = viewOf(header)
  view.setUint32(0, ipNumber(source))
  view.setUint32(4, ipNumber(destination))
  header[9] = protocol
  view.setUint16(10, length)
  return header
}

export function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength)
}

// ── builders ──

export interface EthernetFields {
  destinationMac: string
  sourceMac: string
  type: number
  payload: Uint8Array
}

/** Fields of a whole frame given at once to `tcpFrame`, `udpFrame`, ... */
export interface LinkFields {
  destinationMac: string
  sourceMac: string
}

export interface ArpFields {
  operation: 'request' | 'reply' | number
  senderMac: string
  sender: string
  targetMac?: string
  target: string
}

export interface Ipv4Fields {
  source: string
  destination: string
  protocol: number
  payload: Uint8Array
  tos?: number
  identification?: number
  dontFragment?: boolean
  moreFragments?: boolean
  /** Fragment offset, bytes. */
  offset?: number
  ttl?: number
  options?: Uint8Array
  // What is normally computed.
  version?: number
  headerWords?: number
  totalLength?: number
  checksum?: number
}

export type Ipv4Envelope = Omit<Ipv4Fields, 'protocol' | 'payload' | 'checksum'>

export interface IcmpFields {
  type: number
  code?: number
  /** Bytes 4..7 as one number: identifier << 16 | sequence number, next-hop MTU, ... */
  rest?: number
  payload?: Uint8Array
  icmpChecksum?: number
}

export interface UdpFields {
  sourcePort: number
  destinationPort: number
  payload?: Uint8Array
  udpLength?: number
  /** 0 sends none. */
  udpChecksum?: number
}

export interface TcpOptions {
  mss?: number
  windowScale?: number
  sackPermitted?: boolean
  /** TSval, TSecr */
  timestamps?: [number, number]
  /** Blocks [left, right). */
  sack?: [number, number][]
}

export interface TcpFields {
  sourcePort: number
  destinationPort: number
  sequence?: number
  acknowledgment?: number
  /** Letters of S F R P A U E C in any order. */
  flags: string
  window?: number
  urgent?: number
  /** Laid out as Linux does, or raw bytes, padded to a multiple of 4. */
  options?: TcpOptions | Uint8Array
  payload?: Uint8Array
  tcpHeaderWords?: number
  tcpChecksum?: number
}

/** A frame without FCS, not padded. */
export function ethernet(fields: EthernetFields): Uint8Array {
  const type = Uint8Array.of(fields.type >> 8, fields.type & 255)
  return concat(macBytes(fields.destinationMac), macBytes(fields.sourceMac), type, fields.payload)
}

/** The frame padded with zeros to the 60 bytes that a wire demands. */
export function padded(frame: Uint8Array, byteCount = 60): Uint8Array {
  return frame.length >= byteCount ? frame : concat(frame, new Uint8Array(byteCount - frame.length))
}

export function arp(fields: ArpFields): Uint8Array {
  const packet = new Uint8Array(28)
  const view = viewOf(packet)
  view.setUint16(0, 1)
  view.setUint16(2, ETHERTYPE_IPV4)
  packet[4] = 6
  packet[5] = 4
  view.setUint16(6, fields.operation === 'request' ? 1 : fields.operation === 'reply' ? 2 : fields.operation)
  packet.set(macBytes(fields.senderMac), 8)
  view.setUint32(14, ipNumber(fields.sender))
  packet.set(macBytes(fields.targetMac ?? '00:00:00:00:00:00'), 18)
  view.setUint32(24, ipNumber(fields.target))
  return packet
}

export function ipv4(fields: Ipv4Fields): Uint8Array {
  const optionBytes = ((fields.options?.length ?? 0) + 3) & ~3
  const header = new Uint8Array(20 + optionBytes)
  const view = viewOf(header)
  header[0] = ((fields.version ?? 4) << 4) | (fields.headerWords ?? header.length / 4)
  header[1] = fields.tos ?? 0
  view.setUint16(2, fields.totalLength ?? header.length + fields.payload.length)
  view.setUint16(4, fields.identification ?? 0)
  const flags = (fields.dontFragment ? 0x4000 : 0) | (fields.moreFragments ? 0x2000 : 0)
  view.setUint16(6, flags | ((fields.offset ?? 0) >> 3))
  header[8] = fields.ttl ?? 64
  header[9] = fields.protocol
  view.setUint32(12, ipNumber(fields.source))
  view.setUint32(16, ipNumber(fields.destination))
  header.set(fields.options ?? NO_BYTES, 20)
  view.setUint16(10, fields.checksum ?? internetChecksum(header))
  return concat(header, fields.payload)
}

export function icmp(fields: IcmpFields): Uint8Array {
  const message = concat(new Uint8Array(8), fields.payload ?? NO_BYTES)
  const view = viewOf(message)
  message[0] = fields.type
  message[1] = fields.code ?? 0
  view.setUint32(4, fields.rest ?? 0)
  view.setUint16(2, fields.icmpChecksum ?? internetChecksum(message))
  return message
}

export function udp(fields: UdpFields & { source: string; destination: string }): Uint8Array {
  const datagram = concat(new Uint8Array(8), fields.payload ?? NO_BYTES)
  const view = viewOf(datagram)
  view.setUint16(0, fields.sourcePort)
  view.setUint16(2, fields.destinationPort)
  view.setUint16(4, fields.udpLength ?? datagram.length)
  const pseudo = pseudoHeader(fields.source, fields.destination, PROTOCOL_UDP, datagram.length)
  view.setUint16(6, fields.udpChecksum ?? (internetChecksum(pseudo, datagram) || 0xffff))
  return datagram
}

/** Letters of the TCP flags, bit 0 first. */
export const TCP_FLAGS = 'FSRPAUEC'

/** TCP options in the order in which Linux lays them out. */
export function tcpOptions(options: TcpOptions): Uint8Array {
  const out: number[] = []
  const word = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
  if (options.mss !== undefined) out.push(2, 4, options.mss >> 8, options.mss & 255)
  if (options.timestamps) {
    out.push(...(options.sackPermitted ? [4, 2] : [1, 1]), 8, 10)
    out.push(...options.timestamps.flatMap(word))
  } else if (options.sackPermitted) {
    out.push(1, 1, 4, 2)
  }
  if (options.windowScale !== undefined) out.push(1, 3, 3, options.windowScale)
  if (options.sack) out.push(1, 1, 5, 2 + 8 * options.sack.length, ...options.sack.flat().flatMap(word))
  return Uint8Array.from(out)
}

export function tcp(fields: TcpFields & { source: string; destination: string }): Uint8Array {
  const given = fields.options ?? NO_BYTES
  const options = given instanceof Uint8Array ? given : tcpOptions(given)
  const headerBytes = 20 + ((options.length + 3) & ~3)
  const segment = concat(new Uint8Array(headerBytes), fields.payload ?? NO_BYTES)
  const view = viewOf(segment)
  view.setUint16(0, fields.sourcePort)
  view.setUint16(2, fields.destinationPort)
  view.setUint32(4, fields.sequence ?? 0)
  view.setUint32(8, fields.acknowledgment ?? 0)
  segment[12] = (fields.tcpHeaderWords ?? headerBytes / 4) << 4
  for (const flag of fields.flags) {
    const bit = TCP_FLAGS.indexOf(flag)
    if (bit < 0) throw new RangeError(`no TCP flag: ${flag}`)
    segment[13]! |= 1 << bit
  }
  view.setUint16(14, fields.window ?? 65535)
  view.setUint16(18, fields.urgent ?? 0)
  segment.set(options, 20)
  const pseudo = pseudoHeader(fields.source, fields.destination, PROTOCOL_TCP, segment.length)
  view.setUint16(16, fields.tcpChecksum ?? internetChecksum(pseudo, segment))
  return segment
}

// Whole frames from one flat set of fields.

export function arpFrame(fields: ArpFields & Partial<LinkFields>): Uint8Array {
  const destinationMac = fields.destinationMac ?? (fields.operation === 'request' ? BROADCAST_MAC : fields.targetMac!)
  const sourceMac = fields.sourceMac ?? fields.senderMac
  return padded(ethernet({ destinationMac, sourceMac, type: ETHERTYPE_ARP, payload: arp(fields) }))
}

export function ipv4Frame(fields: LinkFields & Ipv4Fields): Uint8Array {
  return padded(ethernet({ ...fields, type: ETHERTYPE_IPV4, payload: ipv4(fields) }))
}

export function icmpFrame(fields: LinkFields & Ipv4Envelope & IcmpFields): Uint8Array {
  return ipv4Frame({ ...fields, protocol: PROTOCOL_ICMP, payload: icmp(fields) })
}

export function udpFrame(fields: LinkFields & Ipv4Envelope & UdpFields): Uint8Array {
  return ipv4Frame({ ...fields, protocol: PROTOCOL_UDP, payload: udp(fields) })
}

/** `options` are TCP's. */
export function tcpFrame(fields: LinkFields & Omit<Ipv4Envelope, 'options'> & TcpFields): Uint8Array {
  const { options: _, ...envelope } = fields
  return ipv4Frame({ ...envelope, protocol: PROTOCOL_TCP, payload: tcp(fields) } as LinkFields & Ipv4Fields)
}
