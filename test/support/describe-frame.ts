import { IPOS_ETHERTYPE, IPOS_HEADER_BYTES, IPOS_TYPE } from '../../abi/ipos.ts'
import {
  ETHERNET_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_AT,
  ETHERTYPE_IPV4,
  PROTOCOL_TCP,
  TCP_ACK,
  TCP_RST,
  TCP_SYN,
} from '../../toolchain/soak/frames.ts'

const TCP_FIN = 1

/** For people: what a frame is. */
export function describeFrame(frame: Uint8Array): string {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const type = view.getUint16(ETHERTYPE_AT)
  const from = `${frame[10]}>${frame[4]}`
  if (type === ETHERTYPE_ARP) return `${from} ARP ${view.getUint16(ETHERNET_BYTES + 6)}`
  if (type === IPOS_ETHERTYPE) {
    const kind = view.getUint8(ETHERNET_BYTES + IPOS_TYPE)
    const inner = kind === 2 ? ` (${describeSegment(view, ETHERNET_BYTES + IPOS_HEADER_BYTES)})` : ''
    return `${from} ipOS 0x${kind.toString(16).padStart(2, '0')}${inner}`
  }
  if (type !== ETHERTYPE_IPV4) return `${from} type 0x${type.toString(16)}`
  return `${from} ${describeSegment(view, ETHERNET_BYTES)}`
}

function describeSegment(view: DataView, ip: number): string {
  if (view.getUint8(ip + 9) !== PROTOCOL_TCP) return `protocol ${view.getUint8(ip + 9)}`
  const tcp = ip + (view.getUint8(ip) & 15) * 4
  const flags = view.getUint8(tcp + 13)
  const bytes = view.getUint16(ip + 2) - (view.getUint8(ip) & 15) * 4 - (view.getUint8(tcp + 12) >>> 4) * 4
  const names = [
    [TCP_SYN, 'SYN'],
    [TCP_FIN, 'FIN'],
    [TCP_RST, 'RST'],
    [TCP_ACK, 'ACK'],
  ] as const
  const set = names.filter(([flag]) => flags & flag).map(([, text]) => text)
  return `${set.join('+')} ${bytes} bytes`
}
