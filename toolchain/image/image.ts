/**
 * Firmware images in MCUboot's format, own code. All numbers little-endian.
 *
 *   0              ┌────────────────────────────┐
 *                  │ header (32 bytes, padded   │ magic, load address, sizes, flags, version
 *                  │ to headerBytes)            │
 *   headerBytes    ├────────────────────────────┤
 *                  │ payload                    │ firmware.wasm
 *                  ├────────────────────────────┤
 *                  │ protected TLVs (optional)  │ covered by the hash
 *                  ├────────────────────────────┤
 *                  │ TLVs                       │ SHA-256 over everything above; signatures
 *   totalBytes     └────────────────────────────┘
 *
 * Source: MCUboot documentation, "Image format" (struct image_header, struct image_tlv).
 */
import { createHash } from 'node:crypto'
import { isErased } from './flash-access.ts'
import { encodeHex } from './hex.ts'
import { ImageError } from './image-error.ts'
import {
  decodeTlvArea,
  encodeTlvArea,
  requireBytes,
  TLV_INFO_MAGIC,
  TLV_PROTECTED_INFO_MAGIC,
  TLV_SHA256,
  type Tlv,
  tlvAreaBytes,
} from './tlv.ts'
import { formatVersion, type ImageVersion } from './version.ts'

export const IMAGE_MAGIC = 0x96f3b83d
export const IMAGE_HEADER_BYTES = 32

const HEADER_MAGIC = 0 // u32
const HEADER_LOAD_ADDRESS = 4 // u32
const HEADER_SIZE = 8 // u16
const HEADER_PROTECTED_TLV_SIZE = 10 // u16
const HEADER_IMAGE_SIZE = 12 // u32
const HEADER_FLAGS = 16 // u32
const HEADER_VERSION_MAJOR = 20 // u8
const HEADER_VERSION_MINOR = 21 // u8
const HEADER_VERSION_REVISION = 22 // u16
const HEADER_VERSION_BUILD = 24 // u32

const SHA256_BYTES = 32

export interface ImageOptions {
  readonly version: ImageVersion
  /** Where a loader would copy the payload; 0, since a wasm module is compiled and not placed. */
  readonly loadAddress?: number
  readonly flags?: number
  /** Bytes from the image's start to its payload; at least 32, the rest is filled with zeros. */
  readonly headerBytes?: number
  /** TLVs that the hash covers: security counter, dependencies. */
  readonly protectedTlvs?: readonly Tlv[]
  /** Makes the TLVs that follow the hash from the digest of header, payload and protected TLVs: signatures. */
  readonly sign?: (digest: Uint8Array) => readonly Tlv[]
}

export interface Image {
  readonly version: ImageVersion
  readonly loadAddress: number
  readonly flags: number
  readonly headerBytes: number
  readonly payload: Uint8Array
  readonly protectedTlvs: readonly Tlv[]
  readonly tlvs: readonly Tlv[]
  /** SHA-256 over header, payload and protected TLVs; names the image. */
  readonly digest: Uint8Array
  /** Bytes of the whole image; what follows in the slot is not part of it. */
  readonly totalBytes: number
}

/** Encodes `payload` as an image with a SHA-256 TLV. @throws ImageError if a field does not fit the header. */
export function encodeImage(payload: Uint8Array, options: ImageOptions): Uint8Array {
  const headerBytes = options.headerBytes ?? IMAGE_HEADER_BYTES
  if (headerBytes < IMAGE_HEADER_BYTES || headerBytes > 0xffff) {
    throw new ImageError('HEADER', `a header of ${headerBytes} bytes; it takes ${IMAGE_HEADER_BYTES} to 65535`)
  }
  const protectedTlvs = options.protectedTlvs ?? []
  const { version } = options
  const header = new Uint8Array(headerBytes)
  const view = new DataView(header.buffer)
  view.setUint32(HEADER_MAGIC, IMAGE_MAGIC, true)
  view.setUint32(HEADER_LOAD_ADDRESS, options.loadAddress ?? 0, true)
  view.setUint16(HEADER_SIZE, headerBytes, true)
  view.setUint16(HEADER_PROTECTED_TLV_SIZE, tlvAreaBytes(protectedTlvs), true)
  view.setUint32(HEADER_IMAGE_SIZE, payload.length, true)
  view.setUint32(HEADER_FLAGS, options.flags ?? 0, true)
  view.setUint8(HEADER_VERSION_MAJOR, version.major)
  view.setUint8(HEADER_VERSION_MINOR, version.minor)
  view.setUint16(HEADER_VERSION_REVISION, version.revision, true)
  view.setUint32(HEADER_VERSION_BUILD, version.build, true)

  const signed = Buffer.concat([header, payload, encodeTlvArea(TLV_PROTECTED_INFO_MAGIC, protectedTlvs)])
  const digest = sha256(signed)
  const tlvs = [{ type: TLV_SHA256, value: digest }, ...(options.sign?.(digest) ?? [])]
  return Buffer.concat([signed, encodeTlvArea(TLV_INFO_MAGIC, tlvs)])
}

/**
 * Decodes the image at the start of `bytes` and checks its hash. Whatever follows the image (the rest of a slot) is ignored.
 *
 * @throws ImageError with the rule that was broken and the byte at which it shows.
 */
export function decodeImage(bytes: Uint8Array): Image {
  requireBytes(bytes, 0, IMAGE_HEADER_BYTES, 'image header')
  if (isErased(bytes.subarray(0, IMAGE_HEADER_BYTES)))
    throw new ImageError('ERASED', 'empty: every byte of its header is erased (0xff)')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const magic = view.getUint32(HEADER_MAGIC, true)
  if (magic !== IMAGE_MAGIC) {
    const found = `0x${magic.toString(16).padStart(8, '0')}`
    throw new ImageError('MAGIC', `not an image: it begins with ${found} and not with 0x${IMAGE_MAGIC.toString(16)}`)
  }
  const headerBytes = view.getUint16(HEADER_SIZE, true)
  if (headerBytes < IMAGE_HEADER_BYTES) {
    throw new ImageError(
      'HEADER',
      `the header says it is ${headerBytes} bytes long; the least is ${IMAGE_HEADER_BYTES}`,
    )
  }
  const payloadBytes = view.getUint32(HEADER_IMAGE_SIZE, true)
  const protectedBytes = view.getUint16(HEADER_PROTECTED_TLV_SIZE, true)
  requireBytes(bytes, headerBytes, payloadBytes, 'payload')

  let end = headerBytes + payloadBytes
  let protectedTlvs: readonly Tlv[] = []
  if (protectedBytes > 0) {
    const area = decodeTlvArea(bytes, end, TLV_PROTECTED_INFO_MAGIC)
    if (area.end !== end + protectedBytes) {
      const announced = `the header announces ${protectedBytes} bytes of protected TLVs`
      throw new ImageError('TLV_SIZE', `${announced}; the area at byte ${end} has ${area.end - end}`)
    }
    protectedTlvs = area.entries
    end = area.end
  }
  const digest = sha256(bytes.subarray(0, end))
  const area = decodeTlvArea(bytes, end, TLV_INFO_MAGIC)
  checkDigest(area.entries, digest)
  return {
    version: {
      major: view.getUint8(HEADER_VERSION_MAJOR),
      minor: view.getUint8(HEADER_VERSION_MINOR),
      revision: view.getUint16(HEADER_VERSION_REVISION, true),
      build: view.getUint32(HEADER_VERSION_BUILD, true),
    },
    loadAddress: view.getUint32(HEADER_LOAD_ADDRESS, true),
    flags: view.getUint32(HEADER_FLAGS, true),
    headerBytes,
    payload: bytes.slice(headerBytes, headerBytes + payloadBytes),
    protectedTlvs,
    tlvs: area.entries,
    digest,
    totalBytes: area.end,
  }
}

/** One line for people: version, size, the first digits of the hash. */
export function describeImage(image: Image): string {
  return `version ${formatVersion(image.version)}, ${image.totalBytes} bytes, SHA-256 ${encodeHex(image.digest).slice(0, 16)}…`
}

function checkDigest(tlvs: readonly Tlv[], digest: Uint8Array): void {
  const hashes = tlvs.filter((tlv) => tlv.type === TLV_SHA256)
  if (hashes.length !== 1) {
    throw new ImageError(
      'HASH_MISSING',
      `${hashes.length === 0 ? 'no' : hashes.length} SHA-256 TLVs; an image has exactly one`,
    )
  }
  const [{ value }] = hashes
  if (value.length !== SHA256_BYTES) {
    throw new ImageError('TLV_SIZE', `the SHA-256 TLV holds ${value.length} bytes and not ${SHA256_BYTES}`)
  }
  if (Buffer.compare(value, digest) !== 0) {
    throw new ImageError(
      'HASH_WRONG',
      `wrong SHA-256: the image says ${encodeHex(value)}, its bytes give ${encodeHex(digest)}`,
    )
  }
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest())
}
