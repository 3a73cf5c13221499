/**
 * Swap using scratch, as MCUboot does it: piece by piece, from the last to the first,
 *
 *   state 0 ── erase scratch, secondary → scratch ──▶ 1
 *   state 1 ── erase secondary, primary → secondary ▶ 2
 *   state 2 ── erase primary, scratch → primary ────▶ 3
 *
 * and after each step a record in the trailer of the primary slot. A step that was cut is done again: what it copies from is whole until
 * the record after it is written. A piece is as large as scratch without its trailer block, and the trailer blocks are not swapped, so that
 * no piece needs the special case of the one that holds a trailer.
 *
 * Beyond MCUboot: a magic is zeroed before its block is erased (see trailer.ts), and kind and size of a swap stand in the boot log too, with
 * a checksum.
 *
 * Source: MCUboot documentation, "Image swapping", "Swap status", "Reset recovery".
 */
import { ERASE_BLOCK_BYTES, type Flash } from '../../emulator/devices/flash.ts'
import type { BootArea } from './boot-area.ts'
import { isErased, Region } from './flash-access.ts'
import { type FlashMap, imageBytesOf, TRAILER_BLOCK_BYTES } from './flash-map.ts'
import {
  copyDoneWrite,
  imageOkWrite,
  readTrailer,
  STATES_PER_SECTOR,
  type SwapType,
  statusWrite,
  swapWrites,
  type Trailer,
  type TrailerWrite,
  voidWrites,
} from './trailer.ts'

/** What the trailers of a flash ask for. */
export type Pending =
  | { readonly kind: 'none' }
  /** A swap that was cut in the middle: it goes on. */
  | { readonly kind: 'resume'; readonly type: SwapType; readonly swapBytes: number; readonly records: number }
  /** A swap that is to begin; `started`: it has been, but nothing has moved. */
  | { readonly kind: 'swap'; readonly type: SwapType; readonly started: boolean }

/** The parts of a flash that take part in a swap. */
export class Slots {
  readonly primary: Region
  readonly secondary: Region
  readonly scratch: Region
  /** Bytes that are swapped at a time. */
  readonly pieceBytes: number
  readonly #imageBytes: number

  constructor(flash: Flash, map: FlashMap) {
    this.primary = new Region(flash, map.primary)
    this.secondary = new Region(flash, map.secondary)
    this.scratch = new Region(flash, map.scratch)
    this.pieceBytes = map.scratch.bytes - TRAILER_BLOCK_BYTES
    this.#imageBytes = imageBytesOf(map.primary)
  }

  /** What is to be done at boot. @param log tells of a swap that has begun where the trailer is damaged */
  pending(log: BootArea): Pending {
    const primary = readTrailer(this.primary)
    const secondary = readTrailer(this.secondary)
    const scratch = readTrailer(this.scratch)
    const swapping = primary.magic === 'good' && !primary.copyDone
    if (swapping && primary.records > 0) {
      const { type, swapBytes } = swapBegun(primary, log)
      return { kind: 'resume', type, swapBytes, records: primary.records }
    }
    // One that has begun and has moved nothing yet: what asked for it may be gone from the slots' trailers.
    for (const trailer of [scratch, ...(swapping ? [primary] : [])]) {
      // Without a swap it is what imgtool --pad puts behind an image.
      if (trailer.magic === 'good' && trailer.swapType !== 'none')
        return { kind: 'swap', type: swapBegun(trailer, log).type, started: true }
    }
    if (secondary.magic === 'good')
      return { kind: 'swap', type: secondary.imageOk ? 'permanent' : 'test', started: false }
    if (primary.magic === 'good' && primary.copyDone && !primary.imageOk)
      return { kind: 'swap', type: 'revert', started: false }
    return { kind: 'none' }
  }

  /** True if the image in the primary slot is there for good: confirmed, or put there by hand. */
  get confirmed(): boolean {
    const { magic, copyDone, imageOk } = readTrailer(this.primary)
    return magic !== 'good' || !copyDone || imageOk
  }

  /** Begins a swap of the first `swapBytes` of both slots, and carries it through. */
  swap(type: SwapType, swapBytes: number, log: BootArea): void {
    const whole = Math.min(roundUp(swapBytes, ERASE_BLOCK_BYTES), this.#imageBytes)
    log.log({ kind: 'swap', swap: type, swapBytes: whole })
    // What the primary slot's trailer says now may be all that tells of the swap: it goes into scratch first.
    retireTrailer(this.scratch)
    writeAll(this.scratch, swapWrites(this.scratch.bytes, type, whole))
    retireTrailer(this.primary)
    writeAll(this.primary, swapWrites(this.primary.bytes, type, whole))
    retireTrailer(this.scratch)
    this.#run(whole, 0)
    this.#finish(type)
  }

  /** Goes on with a swap that was cut. */
  resume({ type, swapBytes, records }: Extract<Pending, { kind: 'resume' }>): void {
    this.#run(Math.min(roundUp(swapBytes, ERASE_BLOCK_BYTES), this.#imageBytes), records)
    this.#finish(type)
  }

  /**
   * Takes the image out of the secondary slot, and with it every request to swap. The image in the primary slot counts as confirmed: there is
   * nothing left to go back to.
   */
  dropSecondary(): void {
    retireTrailer(this.secondary)
    this.secondary.clear(0)
    const { magic, copyDone } = readTrailer(this.primary)
    if (magic === 'good' && !copyDone) retireTrailer(this.primary)
    this.confirm()
    retireTrailer(this.scratch)
  }

  /** Confirms the image in the primary slot, if it is there on trial. False if it was not. */
  confirm(): boolean {
    if (this.confirmed) return false
    writeAll(this.primary, [imageOkWrite(this.primary.bytes)])
    return true
  }

  #run(swapBytes: number, done: number): void {
    const { primary, secondary, scratch, pieceBytes } = this
    const pieces = Math.ceil(swapBytes / pieceBytes)
    for (let piece = pieces - 1; piece >= 0; piece--) {
      const offset = piece * pieceBytes
      const bytes = Math.min(pieceBytes, swapBytes - offset)
      const record = (pieces - 1 - piece) * STATES_PER_SECTOR
      if (done <= record) {
        move(secondary, offset, scratch, 0, bytes)
        this.#record(record)
      }
      if (done <= record + 1) {
        // From here on the primary slot's trailer alone says what goes on.
        if (record === 0) retireTrailer(secondary)
        move(primary, offset, secondary, offset, bytes)
        this.#record(record + 1)
      }
      if (done <= record + 2) {
        move(scratch, 0, primary, offset, bytes)
        this.#record(record + 2)
      }
    }
  }

  #record(record: number): void {
    writeAll(this.primary, [statusWrite(this.primary.bytes, record)])
  }

  /** In this order: an image that is reverted to must never be seen as one on trial. */
  #finish(type: SwapType): void {
    if (type !== 'test') writeAll(this.primary, [imageOkWrite(this.primary.bytes)])
    writeAll(this.primary, [copyDoneWrite(this.primary.bytes)])
  }
}

/** Erases the trailer of a slot, unless it is erased. */
export function retireTrailer(slot: Region): void {
  const block = slot.bytes - TRAILER_BLOCK_BYTES
  if (isErased(slot.read(block, TRAILER_BLOCK_BYTES))) return
  writeAll(slot, voidWrites(slot.bytes))
  slot.erase(block, TRAILER_BLOCK_BYTES)
}

/** Writes to a trailer. Where a bit of an erased cell has flipped, the write goes on without it: a trailer is read with tolerance for that. */
export function writeAll(slot: Region, writes: readonly TrailerWrite[]): void {
  for (const { offset, data } of writes) {
    const present = slot.read(offset, data.length)
    slot.write(
      offset,
      data.map((byte, n) => byte & present[n]),
    )
  }
}

function swapBegun(trailer: Trailer, log: BootArea): { type: SwapType; swapBytes: number } {
  const newest = log.readLog().at(-1)
  if (newest?.kind === 'swap' && newest.swap !== 'none') return { type: newest.swap, swapBytes: newest.swapBytes }
  const { swapType, swapBytes } = trailer
  return { type: swapType === 'none' || swapType === 'unknown' ? 'test' : swapType, swapBytes }
}

function move(from: Region, fromOffset: number, to: Region, toOffset: number, bytes: number): void {
  to.erase(toOffset, bytes)
  to.write(toOffset, from.read(fromOffset, bytes))
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step
}
