import { IPOS_ETHERTYPE, IPOS_HEADER_BYTES, IPOS_TYPE } from '../../abi/ipos.ts'

/** What those who watch a farm need to know of its frames. */

export const ETHERNET_BYTES = 14
export const ETHERTYPE_AT = 12
export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const PROTOCOL_TCP = 6
const TCP_FIN = 1
export const TCP_SYN = 2
export const TCP_RST = 4
export const TCP_ACK = 16

export function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')
}

export function addressNumber(text: string): number {
  return text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

/** Source address of a frame, as in `VirtualNode.macs`. */
export function macText(frame: Uint8Array): string {
  return Buffer.from(frame.buffer, frame.byteOffset + 6, 6).toString('hex')
}

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
