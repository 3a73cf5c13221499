/** What those who watch a farm need to know of its frames. */

export const ETHERNET_BYTES = 14
export const ETHERTYPE_AT = 12
export const ETHERTYPE_IPV4 = 0x0800
export const ETHERTYPE_ARP = 0x0806
export const PROTOCOL_TCP = 6
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
