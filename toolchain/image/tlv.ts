/**
 * Type-length-value areas of an MCUboot image (MCUboot design document, "Image format"). All numbers little-endian.
 *
 *   0        2        4        6        8
 *   ├─MAGIC──┼─TOTAL──┼─TYPE───┼─LENGTH─┼─VALUE (LENGTH bytes)─┼─TYPE─ ...
 *   └─area header─────┘
 *
 * TOTAL counts the area header too.
 */
import { ImageError } from './image-error.ts'

export const TLV_INFO_MAGIC = 0x6907
export const TLV_PROTECTED_INFO_MAGIC = 0x6908
export const TLV_INFO_BYTES = 4
export const TLV_HEADER_BYTES = 4

/** SHA-256 of the public key that signed the image. */
export const TLV_KEY_HASH = 0x01
/** The public key itself, in its place: SubjectPublicKeyInfo, DER. */
export const TLV_PUBLIC_KEY = 0x02
/** SHA-256 over header, payload and protected area. */
export const TLV_SHA256 = 0x10
export const TLV_ED25519 = 0x24
export const TLV_DEPENDENCY = 0x40
export const TLV_SECURITY_COUNTER = 0x50
/** Ours, of MCUboot's range for vendors: what INIC memory means to the firmware. */
export const TLV_STATE_LAYOUT = 0xa0

const TLV_NAMES = new Map([
  [TLV_KEY_HASH, 'key hash'],
  [TLV_PUBLIC_KEY, 'public key'],
  [TLV_SHA256, 'SHA-256'],
  [TLV_ED25519, 'Ed25519 signature'],
  [TLV_DEPENDENCY, 'dependency'],
  [TLV_SECURITY_COUNTER, 'security counter'],
  [TLV_STATE_LAYOUT, 'state layout'],
])

export interface Tlv {
  readonly type: number
  readonly value: Uint8Array
}

/** A type as people read it: its name, or its number where we do not know one. */
export function tlvName(type: number): string {
  return TLV_NAMES.get(type) ?? `type 0x${type.toString(16).padStart(2, '0')}`
}

/** Bytes of an area with these entries; 0 for none, since an empty area is left out. */
export function tlvAreaBytes(entries: readonly Tlv[]): number {
  if (entries.length === 0) return 0
  return entries.reduce((sum, entry) => sum + TLV_HEADER_BYTES + entry.value.length, TLV_INFO_BYTES)
}

/** Encodes one area. `magic` says which: TLV_INFO_MAGIC or TLV_PROTECTED_INFO_MAGIC. */
export function encodeTlvArea(magic: number, entries: readonly Tlv[]): Uint8Array {
  const bytes = new Uint8Array(tlvAreaBytes(entries))
  if (bytes.length === 0) return bytes
  if (bytes.length > 0xffff)
    throw new ImageError('TLV_SIZE', `TLVs of ${bytes.length} bytes; an area holds at most 65535`)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, magic, true)
  view.setUint16(2, bytes.length, true)
  let at = TLV_INFO_BYTES
  for (const { type, value } of entries) {
    view.setUint16(at, type, true)
    view.setUint16(at + 2, value.length, true)
    bytes.set(value, at + TLV_HEADER_BYTES)
    at += TLV_HEADER_BYTES + value.length
  }
  return bytes
}

/**
 * Decodes the area at `offset`. Every length is checked against the area's own and against the end of `bytes`.
 *
 * @throws ImageError TRUNCATED, TLV_MAGIC or TLV_SIZE, naming the byte.
 */
export function decodeTlvArea(bytes: Uint8Array, offset: number, magic: number): { entries: Tlv[]; end: number } {
  const area = magic === TLV_PROTECTED_INFO_MAGIC ? 'protected TLV area' : 'TLV area'
  requireBytes(bytes, offset, TLV_INFO_BYTES, `header of the ${area}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = view.getUint16(offset, true)
  if (found !== magic) {
    throw new ImageError(
      'TLV_MAGIC',
      `no ${area} at byte ${offset}: found 0x${found.toString(16).padStart(4, '0')}, expected 0x${magic.toString(16)}`,
    )
  }
  const total = view.getUint16(offset + 2, true)
  if (total < TLV_INFO_BYTES)
    throw new ImageError('TLV_SIZE', `the ${area} at byte ${offset} says it is ${total} bytes long`)
  requireBytes(bytes, offset, total, area)
  const end = offset + total
  const entries: Tlv[] = []
  let at = offset + TLV_INFO_BYTES
  while (at < end) {
    const length = end - at < TLV_HEADER_BYTES ? undefined : view.getUint16(at + 2, true)
    if (length === undefined || length > end - at - TLV_HEADER_BYTES) {
      throw new ImageError('TLV_SIZE', `the TLV at byte ${at} runs past the end of its area at byte ${end}`)
    }
    const value = bytes.slice(at + TLV_HEADER_BYTES, at + TLV_HEADER_BYTES + length)
    entries.push({ type: view.getUint16(at, true), value })
    at += TLV_HEADER_BYTES + length
  }
  return { entries, end }
}

/** @throws ImageError TRUNCATED unless `bytes` holds `length` bytes at `offset`. */
export function requireBytes(bytes: Uint8Array, offset: number, length: number, what: string): void {
  if (offset + length <= bytes.length) return
  throw new ImageError('TRUNCATED', `truncated at byte ${bytes.length} of ${offset + length}: the ${what} is cut off`)
}
