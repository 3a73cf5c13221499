/**
 * Image trailers: the last bytes of a slot, by which the boot loader knows what it was asked to do, and how far it has got. Offsets from
 * the slot's end, for writes of 8 bytes:
 *
 *   -3120 ┌───────────────────────────┐
 *         │ swap status               │ 3 records for each of 128 sectors: 1, 2, 3 = the state that its swap has reached
 *     -48 ├───────────────────────────┤
 *         │ swap size (u32)           │ bytes to swap
 *     -40 ├───────────────────────────┤
 *         │ swap info (u8)            │ SWAP_*: why
 *     -32 ├───────────────────────────┤
 *         │ copy done (u8)            │ 1 = the swap is over
 *     -24 ├───────────────────────────┤
 *         │ image ok (u8)             │ 1 = confirmed
 *     -16 ├───────────────────────────┤
 *         │ magic (16 bytes)          │ written last
 *       0 └───────────────────────────┘
 *
 * What is not written is erased. Source: MCUboot documentation, "Image trailer", with BOOT_MAX_ALIGN and min-write-size 8.
 *
 * Single flipped bits are put right when a trailer is read: a flag's two values are seven bits apart, a magic and what is none, more than
 * thirty.
 */
import { WRITE_GRANULE_BYTES } from '../../emulator/devices/flash.ts'
import { ERASED, isErased, type Region } from './flash-access.ts'

/** BOOT_MAX_IMG_SECTORS, imgtool's default too. */
export const MAXIMUM_SECTORS = 128
/** Records of the swap status for each sector. */
export const STATES_PER_SECTOR = 3

const ALIGN = WRITE_GRANULE_BYTES
const MAGIC = Uint8Array.of(
  ...[0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f],
  ...[0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80],
)
/** What ends the magic of an image for another alignment, which the two bytes before it tell. */
const ALIGNED_MAGIC = Uint8Array.of(
  ...[0x2d, 0xe1, 0x5d, 0x29, 0x41, 0x0b, 0x8d, 0x77, 0x67, 0x9c, 0x11, 0x0f, 0x1f, 0x8a],
)
const MAGIC_BYTES = MAGIC.length

// Distances from the slot's end.
const AT_MAGIC = MAGIC_BYTES
const AT_IMAGE_OK = AT_MAGIC + ALIGN
const AT_COPY_DONE = AT_IMAGE_OK + ALIGN
const AT_SWAP_INFO = AT_COPY_DONE + ALIGN
const AT_SWAP_SIZE = AT_SWAP_INFO + ALIGN
/** Bytes of a trailer. */
export const TRAILER_BYTES = AT_SWAP_SIZE + MAXIMUM_SECTORS * STATES_PER_SECTOR * ALIGN

const FLAG_SET = 1
/** Bits of a flag, and of a magic, that may be wrong. */
const FLAG_TOLERANCE = 3
const MAGIC_TOLERANCE = 4

// BOOT_SWAP_TYPE_*.
export const SWAP_TEST = 2
export const SWAP_PERMANENT = 3
export const SWAP_REVERT = 4
export type SwapType = 'test' | 'permanent' | 'revert'

const SWAP_NUMBERS: Readonly<Record<SwapType, number>> = {
  test: SWAP_TEST,
  permanent: SWAP_PERMANENT,
  revert: SWAP_REVERT,
}

export interface Trailer {
  /** `bad`: neither written nor erased; the trailer says nothing. */
  readonly magic: 'good' | 'unset' | 'bad'
  readonly imageOk: boolean
  readonly copyDone: boolean
  /** `unknown`: one that cannot be. */
  readonly swapType: SwapType | 'none' | 'unknown'
  readonly swapBytes: number
  /** How many records of the swap status are there, in the order in which they are written. */
  readonly records: number
}

/** Bytes to be written at an offset of a slot. */
export interface TrailerWrite {
  readonly offset: number
  readonly data: Uint8Array
}

/** Reads the trailer at the end of a slot or of scratch. */
export function readTrailer(slot: Region): Trailer {
  return parseTrailer(slot.read(slot.bytes - TRAILER_BYTES))
}

/** @param bytes ends where the slot ends; at least TRAILER_BYTES */
export function parseTrailer(bytes: Uint8Array): Trailer {
  const end = bytes.length
  const flag = (distance: number) => distanceOf(bytes[end - distance], FLAG_SET) <= FLAG_TOLERANCE
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let records = 0
  for (let at = end - TRAILER_BYTES; at < end - AT_SWAP_SIZE; at += ALIGN, records++) {
    if (distanceOf(bytes[at], (records % STATES_PER_SECTOR) + 1) > FLAG_TOLERANCE) break
  }
  return {
    magic: readMagic(bytes.subarray(end - AT_MAGIC)),
    imageOk: flag(AT_IMAGE_OK),
    copyDone: flag(AT_COPY_DONE),
    swapType: swapTypeOf(bytes[end - AT_SWAP_INFO]),
    swapBytes: view.getUint32(end - AT_SWAP_SIZE, true),
    records,
  }
}

/** What makes the image in the secondary slot one to be swapped in at the next boot; to be written in this order. */
export function requestWrites(slotBytes: number, permanent: boolean): TrailerWrite[] {
  return [
    swapInfoWrite(slotBytes, permanent ? 'permanent' : 'test'),
    ...(permanent ? [imageOkWrite(slotBytes)] : []),
    ...magicWrites(slotBytes),
  ]
}

/** What a swap begins with, before its status; to be written in this order. */
export function swapWrites(slotBytes: number, type: SwapType, swapBytes: number): TrailerWrite[] {
  const size = new Uint8Array(ALIGN).fill(ERASED)
  new DataView(size.buffer).setUint32(0, swapBytes, true)
  return [
    swapInfoWrite(slotBytes, type),
    ...(type === 'permanent' ? [imageOkWrite(slotBytes)] : []),
    { offset: slotBytes - AT_SWAP_SIZE, data: size },
    ...magicWrites(slotBytes),
  ]
}

export function imageOkWrite(slotBytes: number): TrailerWrite {
  return byteWrite(slotBytes - AT_IMAGE_OK, FLAG_SET)
}

export function copyDoneWrite(slotBytes: number): TrailerWrite {
  return byteWrite(slotBytes - AT_COPY_DONE, FLAG_SET)
}

/** Record number `record` of the swap status. */
export function statusWrite(slotBytes: number, record: number): TrailerWrite {
  return byteWrite(slotBytes - TRAILER_BYTES + record * ALIGN, (record % STATES_PER_SECTOR) + 1)
}

/**
 * Zeros over the magic: no mixture of them and of erased cells is a magic, so that an erasure that is cut leaves no trailer that looks whole
 * and has lost some of its fields. Flash takes zeros over anything.
 */
export function voidWrites(slotBytes: number): TrailerWrite[] {
  return [{ offset: slotBytes - AT_MAGIC, data: new Uint8Array(MAGIC_BYTES) }]
}

/** What imgtool --pad has put behind an image: a slot's end. Undefined if there is none, whatever the alignment it is for. */
export function readPadding(file: Uint8Array): { readonly confirmed: boolean; readonly align: number } | undefined {
  if (file.length < MAGIC_BYTES) return undefined
  const magic = file.subarray(file.length - MAGIC_BYTES)
  let align = ALIGN
  if (Buffer.compare(magic, MAGIC) !== 0) {
    if (Buffer.compare(magic.subarray(2), ALIGNED_MAGIC) !== 0) return undefined
    align = magic[0] | (magic[1] << 8)
  }
  const imageOk = file.length - Math.max(MAGIC_BYTES, align) - align
  if (align === 0 || imageOk < 0) return undefined
  return { confirmed: file[imageOk] === FLAG_SET, align }
}

/** An image with the padding of imgtool --pad: erased bytes, and a trailer at `slotBytes`. */
export function padImage(image: Uint8Array, slotBytes: number, confirmed: boolean): Uint8Array {
  const padded = new Uint8Array(slotBytes).fill(ERASED)
  padded.set(image)
  const writes = [...(confirmed ? [imageOkWrite(slotBytes)] : []), ...magicWrites(slotBytes)]
  for (const { offset, data } of writes) padded.set(data, offset)
  return padded
}

function magicWrites(slotBytes: number): TrailerWrite[] {
  return [{ offset: slotBytes - AT_MAGIC, data: MAGIC }]
}

function swapInfoWrite(slotBytes: number, type: SwapType): TrailerWrite {
  return byteWrite(slotBytes - AT_SWAP_INFO, SWAP_NUMBERS[type])
}

function byteWrite(offset: number, value: number): TrailerWrite {
  const data = new Uint8Array(ALIGN).fill(ERASED)
  data[0] = value
  return { offset, data }
}

function readMagic(bytes: Uint8Array): Trailer['magic'] {
  if (isErased(bytes)) return 'unset'
  let distance = 0
  for (let n = 0; n < MAGIC_BYTES; n++) distance += distanceOf(bytes[n], MAGIC[n])
  return distance <= MAGIC_TOLERANCE ? 'good' : 'bad'
}

function swapTypeOf(info: number): Trailer['swapType'] {
  if (distanceOf(info, ERASED) <= FLAG_TOLERANCE) return 'none'
  return (Object.keys(SWAP_NUMBERS) as SwapType[]).find((type) => SWAP_NUMBERS[type] === info) ?? 'unknown'
}

/** Bits in which two bytes differ. */
function distanceOf(a: number, b: number): number {
  let bits = (a ^ b) & 0xff
  let count = 0
  for (; bits !== 0; bits &= bits - 1) count++
  return count
}
