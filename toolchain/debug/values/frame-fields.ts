/**
 * Where the fields of an Ethernet frame lie: for the decoder's tree and for filters alike. Names are Wireshark's display filters;
 * ipOS has none there and is `ipos` here (`inic`, as our dissector calls it, means the same). Sequence numbers are as they stand in the
 * header, not relative.
 */
import {
  BLOCK_MOVES,
  BLOCK_RCV_NXT,
  BLOCK_SND_UNA,
  BLOCK_STATE,
  IPOS_BLOCK,
  IPOS_BLOCK_BYTES,
  IPOS_CHECKSUM,
  IPOS_COMMIT,
  IPOS_CONNECT,
  IPOS_CONNECTION_BYTES,
  IPOS_DATA,
  IPOS_DESTINATION_ADDRESS,
  IPOS_DESTINATION_PORT,
  IPOS_ETHERTYPE,
  IPOS_HEADER_BYTES,
  IPOS_PROTOCOL,
  IPOS_SERVER_ADDRESS,
  IPOS_SERVER_PORT,
  IPOS_SOURCE_ADDRESS,
  IPOS_SOURCE_PORT,
  IPOS_TCP,
  IPOS_TYPE,
} from '../../../abi/ipos.ts'

/** Layers, as indices into {@link FrameScan.at}. */
export const LAYER = {
  frame: 0,
  eth: 1,
  arp: 2,
  ipos: 3,
  iposConnection: 4,
  iposBlock: 5,
  ip: 6,
  icmp: 7,
  udp: 8,
  tcp: 9,
} as const
const LAYERS = 10

export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
const ETHERNET_BYTES = 14
const ARP_BYTES = 28
const IPV4_LEAST_BYTES = 20
const TCP_LEAST_BYTES = 20
const UDP_BYTES = 8
const ICMP_BYTES = 8
export const PROTOCOL_ICMP = 1
export const PROTOCOL_TCP = 6
export const PROTOCOL_UDP = 17

/** What a filter finds where a frame has no such field. */
export const ABSENT = -1

/** Finds the layers of one frame after the other, without making objects. */
export class FrameScan {
  /** Offset of each layer in the memory scanned, or ABSENT: the layer is not there, or cut off within its fixed part. */
  readonly at = new Int32Array(LAYERS)
  /** Of the frame. */
  start = 0
  end = 0
  /** Of the innermost layer's payload. */
  payloadStart = 0
  payloadEnd = 0
  /** Ethernet type of ipOS frames. */
  readonly #iposEtherType: number

  constructor(iposEtherType: number = IPOS_ETHERTYPE) {
    this.#iposEtherType = iposEtherType
  }

  /** @returns false if the range is not within `bytes` */
  scan(bytes: Uint8Array, start: number, length: number): boolean {
    this.at.fill(ABSENT)
    const end = start + length
    if (!(start >= 0 && length >= 0 && end <= bytes.length)) return false
    this.start = start
    this.end = end
    this.at[LAYER.frame] = start
    this.#payload(start, end)
    if (length < ETHERNET_BYTES) return true
    this.at[LAYER.eth] = start
    const payload = start + ETHERNET_BYTES
    this.#payload(payload, end)
    const etherType = u16(bytes, start + 12)
    if (etherType === ETHERTYPE_IPV4) this.#ipv4(bytes, payload, end)
    else if (etherType === ETHERTYPE_ARP && end - payload >= ARP_BYTES) {
      this.at[LAYER.arp] = payload
      this.#payload(payload + ARP_BYTES, end)
    } else if (etherType === this.#iposEtherType) this.#ipos(bytes, payload, end)
    return true
  }

  #payload(start: number, end: number): void {
    this.payloadStart = Math.min(start, end)
    this.payloadEnd = end
  }

  #ipos(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPOS_HEADER_BYTES) return
    this.at[LAYER.ipos] = at
    this.#payload(at + IPOS_HEADER_BYTES, end)
    const type = bytes[at + IPOS_TYPE]
    if (type === IPOS_DATA) {
      this.#ipv4(bytes, at + IPOS_HEADER_BYTES, end)
      return
    }
    if ((type !== IPOS_CONNECT && type < IPOS_COMMIT) || end - at < IPOS_CONNECTION_BYTES) return
    this.at[LAYER.iposConnection] = at
    this.#payload(at + IPOS_CONNECTION_BYTES, end)
    if (type !== IPOS_CONNECT || bytes[at + IPOS_PROTOCOL] !== IPOS_TCP) return
    if (end - at < IPOS_BLOCK + IPOS_BLOCK_BYTES) return
    this.at[LAYER.iposBlock] = at + IPOS_BLOCK
    this.#payload(at + IPOS_BLOCK + IPOS_BLOCK_BYTES, end)
  }

  #ipv4(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV4_LEAST_BYTES || bytes[at] >> 4 !== 4) return
    const headerBytes = (bytes[at] & 15) * 4
    const totalBytes = u16(bytes, at + 2)
    if (headerBytes < IPV4_LEAST_BYTES || totalBytes < headerBytes || at + headerBytes > end) return
    this.at[LAYER.ip] = at
    const payload = at + headerBytes
    const payloadEnd = Math.min(end, at + totalBytes)
    this.#payload(payload, payloadEnd)
    // A later fragment begins in the middle of a segment.
    if ((u16(bytes, at + 6) & 0x1fff) !== 0) return
    const room = payloadEnd - payload
    switch (bytes[at + 9]) {
      case PROTOCOL_TCP: {
        if (room < TCP_LEAST_BYTES) return
        this.at[LAYER.tcp] = payload
        this.#payload(payload + Math.max(TCP_LEAST_BYTES, (bytes[payload + 12] >> 4) * 4), payloadEnd)
        return
      }
      case PROTOCOL_UDP:
        if (room < UDP_BYTES) return
        this.at[LAYER.udp] = payload
        this.#payload(payload + UDP_BYTES, payloadEnd)
        return
      case PROTOCOL_ICMP:
        if (room < ICMP_BYTES) return
        this.at[LAYER.icmp] = payload
        this.#payload(payload + ICMP_BYTES, payloadEnd)
    }
  }
}

export type FieldFormat =
  | 'number'
  | 'hex'
  | 'ip'
  | 'mac'
  | 'flag'
  | 'ethertype'
  | 'ipos type'
  | 'protocol'
  | 'tcp state'

export interface FrameFieldSpec {
  readonly name: string
  readonly label: string
  readonly layer: number
  readonly format: FieldFormat
  /** From the layer's start, and bytes: what the field is read from. */
  readonly offset: number
  readonly bytes: number
  /** Of the bits in these bytes. */
  readonly shift: number
  readonly mask: number
  /** Multiplies what stands there: header lengths count in words. */
  readonly unit: number
  /** Reads what is not at a fixed place. */
  readonly read?: (bytes: Uint8Array, scan: FrameScan) => number
}

function field(
  name: string,
  label: string,
  layer: number,
  offset: number,
  bytes: number,
  format: FieldFormat = 'number',
  bits: { readonly shift?: number; readonly mask?: number; readonly unit?: number } = {},
): FrameFieldSpec {
  const { shift = 0, mask = 0, unit = 1 } = bits
  return { name, label, layer, offset, bytes, format, shift, mask, unit }
}

function computed(
  name: string,
  label: string,
  layer: number,
  read: (bytes: Uint8Array, scan: FrameScan) => number,
  format: FieldFormat = 'number',
): FrameFieldSpec {
  return { name, label, layer, offset: 0, bytes: 0, format, shift: 0, mask: 0, unit: 1, read }
}

function flag(
  name: string,
  label: string,
  layer: number,
  offset: number,
  bytes: number,
  shift: number,
): FrameFieldSpec {
  return field(name, label, layer, offset, bytes, 'flag', { shift, mask: 1 })
}

const { frame, eth, arp, ipos, iposConnection, iposBlock, ip, icmp, udp, tcp } = LAYER

/** In the order in which they are shown. */
export const FRAME_FIELDS: readonly FrameFieldSpec[] = [
  computed('frame.len', 'Length', frame, (_, scan) => scan.end - scan.start),
  field('eth.dst', 'Destination', eth, 0, 6, 'mac'),
  field('eth.src', 'Source', eth, 6, 6, 'mac'),
  field('eth.type', 'Type', eth, 12, 2, 'ethertype'),
  field('arp.opcode', 'Operation', arp, 6, 2),
  field('arp.src.hw_mac', 'Sender MAC address', arp, 8, 6, 'mac'),
  field('arp.src.proto_ipv4', 'Sender IP address', arp, 14, 4, 'ip'),
  field('arp.dst.hw_mac', 'Target MAC address', arp, 18, 6, 'mac'),
  field('arp.dst.proto_ipv4', 'Target IP address', arp, 24, 4, 'ip'),
  field('ipos.type', 'Type', ipos, IPOS_TYPE, 1, 'ipos type'),
  field('ipos.protocol', 'Protocol', ipos, IPOS_PROTOCOL, 1),
  field('ipos.src', 'Source address', ipos, IPOS_SOURCE_ADDRESS, 4, 'ip'),
  field('ipos.srcport', 'Source port', ipos, IPOS_SOURCE_PORT, 2),
  field('ipos.dst', 'Destination address', ipos, IPOS_DESTINATION_ADDRESS, 4, 'ip'),
  field('ipos.dstport', 'Thread port', ipos, IPOS_DESTINATION_PORT, 2),
  field('ipos.checksum', 'Checksum', ipos, IPOS_CHECKSUM, 2, 'hex'),
  field('ipos.server', 'Server address', iposConnection, IPOS_SERVER_ADDRESS, 4, 'ip'),
  field('ipos.serverport', 'Server port', iposConnection, IPOS_SERVER_PORT, 2),
  field('ipos.block.state', 'State', iposBlock, BLOCK_STATE, 1, 'tcp state'),
  field('ipos.block.moves', 'Moves', iposBlock, BLOCK_MOVES, 4),
  field('ipos.block.snd_una', 'SND.UNA', iposBlock, BLOCK_SND_UNA, 4),
  field('ipos.block.rcv_nxt', 'RCV.NXT', iposBlock, BLOCK_RCV_NXT, 4),
  field('ip.version', 'Version', ip, 0, 1, 'number', { shift: 4, mask: 15 }),
  field('ip.hdr_len', 'Header length', ip, 0, 1, 'number', { mask: 15, unit: 4 }),
  field('ip.dsfield', 'Differentiated services', ip, 1, 1, 'hex'),
  field('ip.len', 'Total length', ip, 2, 2),
  field('ip.id', 'Identification', ip, 4, 2, 'hex'),
  flag('ip.flags.df', "Don't fragment", ip, 6, 1, 6),
  flag('ip.flags.mf', 'More fragments', ip, 6, 1, 5),
  field('ip.frag_offset', 'Fragment offset', ip, 6, 2, 'number', { mask: 0x1fff, unit: 8 }),
  field('ip.ttl', 'Time to live', ip, 8, 1),
  field('ip.proto', 'Protocol', ip, 9, 1, 'protocol'),
  field('ip.checksum', 'Checksum', ip, 10, 2, 'hex'),
  field('ip.src', 'Source', ip, 12, 4, 'ip'),
  field('ip.dst', 'Destination', ip, 16, 4, 'ip'),
  field('icmp.type', 'Type', icmp, 0, 1),
  field('icmp.code', 'Code', icmp, 1, 1),
  field('icmp.checksum', 'Checksum', icmp, 2, 2, 'hex'),
  field('icmp.ident', 'Identifier', icmp, 4, 2),
  field('icmp.seq', 'Sequence number', icmp, 6, 2),
  field('udp.srcport', 'Source port', udp, 0, 2),
  field('udp.dstport', 'Destination port', udp, 2, 2),
  field('udp.length', 'Length', udp, 4, 2),
  field('udp.checksum', 'Checksum', udp, 6, 2, 'hex'),
  field('tcp.srcport', 'Source port', tcp, 0, 2),
  field('tcp.dstport', 'Destination port', tcp, 2, 2),
  field('tcp.seq', 'Sequence number', tcp, 4, 4),
  field('tcp.ack', 'Acknowledgement number', tcp, 8, 4),
  field('tcp.hdr_len', 'Header length', tcp, 12, 1, 'number', { shift: 4, mask: 15, unit: 4 }),
  field('tcp.flags', 'Flags', tcp, 12, 2, 'hex', { mask: 0xfff }),
  flag('tcp.flags.cwr', 'Congestion window reduced', tcp, 13, 1, 7),
  flag('tcp.flags.ece', 'ECN echo', tcp, 13, 1, 6),
  flag('tcp.flags.urg', 'Urgent', tcp, 13, 1, 5),
  flag('tcp.flags.ack', 'Acknowledgement', tcp, 13, 1, 4),
  flag('tcp.flags.push', 'Push', tcp, 13, 1, 3),
  flag('tcp.flags.reset', 'Reset', tcp, 13, 1, 2),
  flag('tcp.flags.syn', 'Syn', tcp, 13, 1, 1),
  flag('tcp.flags.fin', 'Fin', tcp, 13, 1, 0),
  field('tcp.window_size_value', 'Window, not scaled', tcp, 14, 2),
  field('tcp.checksum', 'Checksum', tcp, 16, 2, 'hex'),
  field('tcp.urgent_pointer', 'Urgent pointer', tcp, 18, 2),
  computed('tcp.options.mss_val', 'Maximum segment size', tcp, (bytes, scan) => tcpOption(bytes, scan, 2, 2, 2)),
  computed('tcp.options.wscale.shift', 'Window scale', tcp, (bytes, scan) => tcpOption(bytes, scan, 3, 2, 1)),
  computed('tcp.options.sack_perm', 'SACK permitted', tcp, (bytes, scan) => tcpOption(bytes, scan, 4, 0, 2), 'flag'),
  computed('tcp.options.timestamp.tsval', 'Timestamp value', tcp, (bytes, scan) => tcpOption(bytes, scan, 8, 2, 4)),
  computed('tcp.options.timestamp.tsecr', 'Timestamp echo reply', tcp, (bytes, scan) =>
    tcpOption(bytes, scan, 8, 6, 4),
  ),
  computed('tcp.len', 'Payload', tcp, (_, scan) => Math.max(0, scan.payloadEnd - scan.payloadStart)),
]

/** Names that mean several fields: either may match. */
export const EITHER: ReadonlyMap<string, readonly string[]> = new Map([
  ['eth.addr', ['eth.src', 'eth.dst']],
  ['ip.addr', ['ip.src', 'ip.dst']],
  ['ip.host', ['ip.src', 'ip.dst']],
  ['tcp.port', ['tcp.srcport', 'tcp.dstport']],
  ['udp.port', ['udp.srcport', 'udp.dstport']],
  ['ipos.addr', ['ipos.src', 'ipos.dst']],
])

/** Other names of the same field. */
export const FIELD_ALIASES: ReadonlyMap<string, string> = new Map([
  ['tcp.flags.rst', 'tcp.flags.reset'],
  ['tcp.flags.psh', 'tcp.flags.push'],
  ['tcp.seq_raw', 'tcp.seq'],
  ['tcp.ack_raw', 'tcp.ack'],
  ['tcp.window_size', 'tcp.window_size_value'],
  ['frame.length', 'frame.len'],
  ['ip.fragment_offset', 'ip.frag_offset'],
  ['ipos.thread', 'ipos.dstport'],
  // As our dissector for Wireshark calls them.
  ['ipos.source_address', 'ipos.src'],
  ['ipos.source_port', 'ipos.srcport'],
  ['ipos.destination_address', 'ipos.dst'],
  ['ipos.destination_port', 'ipos.dstport'],
  ['ipos.server_address', 'ipos.server'],
  ['ipos.server_port', 'ipos.serverport'],
])

/** Protocols that can be asked for by their name alone. */
export const PROTOCOL_LAYERS: ReadonlyMap<string, number> = new Map(
  Object.entries({ frame, eth, arp, ip, icmp, udp, tcp, ipos, 'ipos.block': iposBlock }),
)

const BY_NAME = new Map(FRAME_FIELDS.map((spec) => [spec.name, spec]))

/** The field of this name, by an alias too. */
export function frameField(name: string): FrameFieldSpec | undefined {
  return BY_NAME.get(FIELD_ALIASES.get(name) ?? name)
}

/** Value of a field, ABSENT if the frame has none. */
export function readFrameField(spec: FrameFieldSpec, bytes: Uint8Array, scan: FrameScan): number {
  const layer = scan.at[spec.layer]
  if (layer < 0) return ABSENT
  if (spec.read !== undefined) return spec.read(bytes, scan)
  const at = layer + spec.offset
  let value = 0
  for (let index = 0; index < spec.bytes; index++) value = value * 256 + bytes[at + index]
  if (spec.mask !== 0) value = (value >>> spec.shift) & spec.mask
  return value * spec.unit
}

/** A number in an option of the TCP header: `width` bytes at `offset` of the option `kind`. */
function tcpOption(bytes: Uint8Array, scan: FrameScan, kind: number, offset: number, width: number): number {
  const header = scan.at[LAYER.tcp]
  const end = Math.min(scan.payloadStart, scan.payloadEnd)
  for (let at = header + TCP_LEAST_BYTES; at < end; ) {
    if (bytes[at] === 0) return ABSENT
    if (bytes[at] === 1) {
      at++
      continue
    }
    const length = at + 1 < end ? bytes[at + 1] : 0
    if (length < 2 || at + length > end) return ABSENT
    if (bytes[at] === kind) {
      if (offset + width > length) return ABSENT
      // An option that says all by being there.
      if (offset === 0) return 1
      let value = 0
      for (let index = 0; index < width; index++) value = value * 256 + bytes[at + offset + index]
      return value
    }
    at += length
  }
  return ABSENT
}

function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1]
}
