/** The state layout that an image names, by which a board sees whether its firmware can take over in service (docs/updating.md). */
import type { Image } from './image.ts'
import { TLV_STATE_LAYOUT, type Tlv } from './tlv.ts'

/** SHA-256. */
const LAYOUT_BYTES = 32

/** As 64 hexadecimal digits; undefined for an image that has none, or not one that can be read: it boots, and takes nothing over. */
export function stateLayoutOf({ protectedTlvs }: Image): string | undefined {
  const found = protectedTlvs.filter(({ type }) => type === TLV_STATE_LAYOUT)
  if (found.length !== 1 || found[0].value.length !== LAYOUT_BYTES) return undefined
  return Buffer.from(found[0].value).toString('hex')
}

/** Of 64 hexadecimal digits. */
export function stateLayoutTlv(layout: string): Tlv {
  return { type: TLV_STATE_LAYOUT, value: new Uint8Array(Buffer.from(layout, 'hex')) }
}
