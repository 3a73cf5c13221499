/** Ethernet frames as trees of fields, and in one line. */

import {
  IPOS_ACKNOWLEDGE,
  IPOS_APPLICATION,
  IPOS_CANCEL,
  IPOS_COMMIT,
  IPOS_COMMITTED,
  IPOS_CONNECT,
  IPOS_DATA,
  IPOS_MOVED,
  IPOS_MOVED_HEARD,
  IPOS_REFUSE,
  IPOS_RELEASE,
  IPOS_RELEASED,
  IPOS_STATE,
} from '../../../abi/ipos.ts'
import { formatIpv4 } from '../../config/addresses.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'
import { tcpStateName } from '../../inspect/names.ts'
import {
  ABSENT,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  FRAME_FIELDS,
  type FrameFieldSpec,
  FrameScan,
  frameField,
  LAYER,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  readFrameField,
} from './frame-fields.ts'
import { macText } from './meanings.ts'
import type { DecodedFrame, FrameField, Value } from './types.ts'

/** Headers in the order in which they stand; one line for each that is there. */
const LAYERS: readonly { readonly layer: number; readonly name: string; readonly label: string }[] = [
  { layer: LAYER.eth, name: 'eth', label: 'Ethernet' },
  { layer: LAYER.arp, name: 'arp', label: 'ARP' },
  { layer: LAYER.ipos, name: 'ipos', label: 'ipOS' },
  { layer: LAYER.iposConnection, name: 'ipos', label: 'ipOS connection' },
  { layer: LAYER.iposBlock, name: 'ipos.block', label: 'TCP control block' },
  { layer: LAYER.ip, name: 'ip', label: 'IPv4' },
  { layer: LAYER.icmp, name: 'icmp', label: 'ICMP' },
  { layer: LAYER.udp, name: 'udp', label: 'UDP' },
  { layer: LAYER.tcp, name: 'tcp', label: 'TCP' },
]

const IPOS_TYPES: ReadonlyMap<number, string> = new Map([
  [IPOS_CONNECT, 'Connect'],
  [IPOS_DATA, 'Data'],
  [IPOS_ACKNOWLEDGE, 'Acknowledge'],
  [IPOS_STATE, 'State'],
  [IPOS_COMMIT, 'Commit'],
  [IPOS_COMMITTED, 'Committed'],
  [IPOS_REFUSE, 'Refuse'],
  [IPOS_RELEASE, 'Release'],
  [IPOS_RELEASED, 'Released'],
  [IPOS_CANCEL, 'Cancel'],
  [IPOS_APPLICATION, 'Application state'],
  [IPOS_MOVED, 'Moved'],
  [IPOS_MOVED_HEARD, 'Moved heard'],
])

const PROTOCOLS: ReadonlyMap<number, string> = new Map([
  [PROTOCOL_ICMP, 'ICMP'],
  [PROTOCOL_TCP, 'TCP'],
  [PROTOCOL_UDP, 'UDP'],
])

const TCP_FLAGS = ['fin', 'syn', 'reset', 'push', 'ack', 'urg', 'ece', 'cwr']

/** Most bytes of payload that are shown. */
const SHOWN_BYTES = 64

/**
 * Decodes an Ethernet frame. Never throws: what is cut short is not in the tree.
 *
 * @param options.iposEtherType Ethernet type of ipOS frames, where the farm has another
 */
export function decodeFrame(frame: Uint8Array, options: { readonly iposEtherType?: number } = {}): DecodedFrame {
  const scan = new FrameScan(options.iposEtherType)
  scan.scan(frame, 0, frame.length)
  const layers = LAYERS.filter(({ layer }) => scan.at[layer] >= 0).map(({ layer, name, label }) => {
    const children = FRAME_FIELDS.filter((spec) => spec.layer === layer).flatMap((spec) => {
      const decoded = decodeField(spec, frame, scan)
      return decoded === undefined ? [] : [decoded]
    })
    const offset = scan.at[layer]
    const end = Math.max(offset, ...children.map((child) => child.offset + child.bytes))
    // The label says which protocol it is.
    const display = describeLayer(layer, frame, scan).replace(/^(ARP|ipOS|IPv4|ICMP|UDP|TCP) /, '')
    return { name, label, display, scalar: undefined, offset, bytes: end - offset, children }
  })
  const payload = decodePayload(frame, scan)
  return {
    bytes: frame.length,
    summary: summarize(frame, scan),
    layers: payload === undefined ? layers : [...layers, payload],
  }
}

/** A decoded frame at `address` as a value; undefined outside INIC memory. */
export function frameValue(
  memory: MemoryAccess,
  address: number,
  bytes: number,
  name = `frame(0x${address.toString(16)}, ${bytes})`,
): Value | undefined {
  const frame = memory.read(address, bytes)
  if (frame === undefined) return undefined
  const { summary, layers } = decodeFrame(frame)
  return {
    name,
    type: `frame of ${bytes} bytes`,
    display: summary,
    scalar: undefined,
    address,
    bytes,
    path: `frame(0x${address.toString(16)}, ${bytes})`,
    indexed: 0,
    expandable: layers.length > 0,
    children: () => layers.map((layer) => frameFieldValue(layer, address)),
  }
}

/** A field of a frame that begins at `address`. */
export function frameFieldValue(field: FrameField, address: number): Value {
  const { name, label, display, scalar, offset, bytes, children } = field
  return {
    name: label,
    type: name,
    display,
    scalar,
    address: bytes === 0 ? undefined : address + offset,
    bytes: bytes === 0 ? undefined : bytes,
    path: undefined,
    indexed: 0,
    expandable: children.length > 0,
    children: () => children.map((child) => frameFieldValue(child, address)),
  }
}

function decodeField(spec: FrameFieldSpec, frame: Uint8Array, scan: FrameScan): FrameField | undefined {
  const value = readFrameField(spec, frame, scan)
  if (value === ABSENT) return undefined
  const offset = spec.bytes === 0 ? 0 : scan.at[spec.layer] + spec.offset
  const { name, label, bytes } = spec
  const scalar = spec.format === 'flag' ? value !== 0 : value
  return { name, label, display: fieldText(spec, value), scalar, offset, bytes, children: [] }
}

function fieldText({ format, bytes }: FrameFieldSpec, value: number): string {
  const hex = `0x${value.toString(16).padStart(bytes * 2, '0')}`
  switch (format) {
    case 'ip':
      return formatIpv4(value)
    case 'mac':
      return macText(BigInt(value))
    case 'hex':
      return hex
    case 'flag':
      return value === 0 ? 'not set' : 'set'
    case 'ethertype':
      return value === ETHERTYPE_IPV4 ? `IPv4 (${hex})` : value === ETHERTYPE_ARP ? `ARP (${hex})` : hex
    case 'ipos type':
      return `${IPOS_TYPES.get(value) ?? 'unknown'} (${hex})`
    case 'protocol':
      return `${PROTOCOLS.get(value) ?? 'unknown'} (${value})`
    case 'tcp state':
      return `${tcpStateName(value)} (${value})`
    case 'number':
      return String(value)
  }
}

function decodePayload(frame: Uint8Array, scan: FrameScan): FrameField | undefined {
  const bytes = scan.payloadEnd - scan.payloadStart
  if (bytes <= 0) return undefined
  const shown = frame.subarray(scan.payloadStart, Math.min(scan.payloadEnd, scan.payloadStart + SHOWN_BYTES))
  const text = Array.from(shown, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
  const display = `${bytes} bytes: ${text}${bytes > SHOWN_BYTES ? '…' : ''}`
  return { name: 'data', label: 'Payload', display, scalar: undefined, offset: scan.payloadStart, bytes, children: [] }
}

function summarize(frame: Uint8Array, scan: FrameScan): string {
  if (scan.at[LAYER.eth] < 0) return `${frame.length} bytes, too short for Ethernet`
  const inner = [LAYER.tcp, LAYER.udp, LAYER.icmp, LAYER.ip].find((layer) => scan.at[layer] >= 0)
  const parts: string[] = []
  if (scan.at[LAYER.ipos] >= 0) parts.push(describeLayer(LAYER.ipos, frame, scan))
  if (scan.at[LAYER.arp] >= 0) parts.push(describeLayer(LAYER.arp, frame, scan))
  if (inner !== undefined) parts.push(describeLayer(inner, frame, scan))
  if (parts.length > 0) return parts.join(' · ')
  return `Ethernet ${describeLayer(LAYER.eth, frame, scan)}, ${frame.length} bytes`
}

function describeLayer(layer: number, frame: Uint8Array, scan: FrameScan): string {
  const field = fields(frame, scan)
  switch (layer) {
    case LAYER.eth:
      return `${field('eth.src')} → ${field('eth.dst')} type ${field('eth.type')}`
    case LAYER.arp: {
      const target = field('arp.dst.proto_ipv4')
      const sender = field('arp.src.proto_ipv4')
      if (field('arp.opcode') === '1') return `ARP who has ${target}? tell ${sender}`
      return `ARP ${sender} is at ${field('arp.src.hw_mac')}, to ${target}`
    }
    case LAYER.ipos: {
      const ends = `${field('ipos.src')}:${field('ipos.srcport')} → ${field('ipos.dst')} thread ${field('ipos.dstport')}`
      return `ipOS ${field('ipos.type')} ${ends}`
    }
    case LAYER.iposConnection:
      return `server ${field('ipos.server')}:${field('ipos.serverport')}`
    case LAYER.iposBlock:
      return `${field('ipos.block.state')}, moved ${field('ipos.block.moves')} times`
    case LAYER.ip:
      return `IPv4 ${field('ip.src')} → ${field('ip.dst')} protocol ${field('ip.proto')} len ${field('ip.len')}`
    case LAYER.icmp:
      return `ICMP ${field('ip.src')} → ${field('ip.dst')} type ${field('icmp.type')} code ${field('icmp.code')}`
    case LAYER.udp:
      return `UDP ${endpoints('udp', field)} len ${scan.payloadEnd - scan.payloadStart}`
    case LAYER.tcp: {
      const flags = TCP_FLAGS.filter((name) => field(`tcp.flags.${name}`) === 'set').map((name) =>
        (name === 'reset' ? 'rst' : name === 'push' ? 'psh' : name).toUpperCase(),
      )
      const numbers = `seq ${field('tcp.seq')} ack ${field('tcp.ack')} win ${field('tcp.window_size_value')} len ${field('tcp.len')}`
      return `TCP ${endpoints('tcp', field)} [${flags.join(', ')}] ${numbers}`
    }
    default:
      return ''
  }
}

function endpoints(protocol: string, field: (name: string) => string): string {
  return `${field('ip.src')}:${field(`${protocol}.srcport`)} → ${field('ip.dst')}:${field(`${protocol}.dstport`)}`
}

function fields(frame: Uint8Array, scan: FrameScan): (name: string) => string {
  return (name) => {
    const spec = frameField(name)
    const value = spec && readFrameField(spec, frame, scan)
    return spec === undefined || value === undefined || value === ABSENT ? '?' : fieldText(spec, value)
  }
}
