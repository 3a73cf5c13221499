/** Images in a flash slot: written so that a half-written one never looks whole, read with every check. */

import { ERASE_BLOCK_BYTES, type Flash, WRITE_GRANULE_BYTES } from '../../emulator/devices/flash.ts'
import { CommandError, usageError } from '../errors.ts'
import { ERASED, Region } from './flash-access.ts'
import { type FlashMap, type FlashRegion, imageBytesOf, TRAILER_BLOCK_BYTES } from './flash-map.ts'
import { decodeImage, type Image } from './image.ts'
import { retireTrailer } from './swap.ts'
import { requestWrites, voidWrites } from './trailer.ts'

/** Bytes between two calls of `onProgress`. */
const STEP_BYTES = 0x10000

/** One operation on a slot; offsets count from its beginning. */
export type SlotStep =
  | { readonly kind: 'erase'; readonly offset: number; readonly bytes: number }
  | { readonly kind: 'write'; readonly offset: number; readonly data: Uint8Array }
  /** Reads back, and fails if anything else is there. */
  | { readonly kind: 'verify'; readonly offset: number; readonly data: Uint8Array }

/** The image in a slot. @throws ImageError if there is none that is whole, with the reason; FlashFailure */
export function readSlot(flash: Flash, slot: FlashRegion): Image {
  return decodeImage(new Region(flash, slot).read(0, imageBytesOf(slot)))
}

/**
 * What puts an image into the secondary slot and asks for a swap at the next boot, in this order: a cut after any step leaves no request, or one
 * for the whole image.
 *
 * @param permanent the swap is confirmed beforehand, and never reverted
 * @throws CommandError (exit code 2) if it does not fit
 */
export function stagingSteps(image: Uint8Array, slot: FlashRegion, permanent: boolean): SlotStep[] {
  requireFit(image, slot)
  const padded = pad(image)
  const request = requestWrites(slot.bytes, permanent)
  return [
    ...voidWrites(slot.bytes).map((write) => ({ kind: 'write' as const, ...write })),
    { kind: 'erase', offset: slot.bytes - TRAILER_BLOCK_BYTES, bytes: TRAILER_BLOCK_BYTES },
    ...imageSteps(padded),
    { kind: 'verify', offset: 0, data: padded },
    ...request.map((write) => ({ kind: 'write' as const, ...write })),
    ...request.map((write) => ({ kind: 'verify' as const, ...write })),
  ]
}

/** Carries steps out on a flash. @throws FlashFailure; CommandError if something else is read than was written */
export function runSteps(region: Region, steps: readonly SlotStep[], onProgress?: (share: number) => void): void {
  const total = steps.reduce((sum, step) => sum + stepBytes(step), 0)
  let done = 0
  for (const step of steps) {
    if (step.kind === 'erase') region.erase(step.offset, step.bytes)
    else if (step.kind === 'write') region.write(step.offset, step.data)
    else requireSame(region.read(step.offset, step.data.length), step, region.name)
    done += stepBytes(step)
    onProgress?.(done / total)
  }
}

/** How much work a step is, for progress. */
export function stepBytes(step: SlotStep): number {
  return step.kind === 'erase' ? step.bytes : step.data.length
}

/** @throws CommandError that names the first byte that differs */
export function requireSame(found: Uint8Array, step: Extract<SlotStep, { kind: 'verify' }>, name: string): void {
  if (Buffer.compare(found, step.data) === 0) return
  const at = step.data.findIndex((byte, n) => found[n] !== byte)
  throw new CommandError(`the ${name} holds something else than was written, from byte ${step.offset + at} on`, {
    hint: 'is the disk full, or is something else writing to it?',
  })
}

/**
 * Writes an image into the primary slot as a programmer in a factory does: it counts as confirmed, and whatever update was pending or half
 * done is forgotten, unless `keepsUpdate`.
 *
 * @throws CommandError if it does not fit (exit code 2); FlashFailure
 */
export function programPrimary(
  flash: Flash,
  map: FlashMap,
  image: Uint8Array,
  options: { keepsUpdate?: boolean; onProgress?: (share: number) => void } = {},
): void {
  requireFit(image, map.primary)
  const padded = pad(image)
  const primary = new Region(flash, map.primary)
  if (!options.keepsUpdate) {
    for (const region of [map.secondary, map.scratch]) retireTrailer(new Region(flash, region))
  }
  // Until its header is written, last, the slot reads as empty.
  primary.clear(0)
  retireTrailer(primary)
  runSteps(primary, [...imageSteps(padded), { kind: 'verify', offset: 0, data: padded }], options.onProgress)
}

/** Erases, writes, and leaves the first block, with the header, for last. */
function imageSteps(padded: Uint8Array): SlotStep[] {
  const first = Math.min(ERASE_BLOCK_BYTES, padded.length)
  const steps: SlotStep[] = [
    { kind: 'erase', offset: 0, bytes: Math.ceil(padded.length / ERASE_BLOCK_BYTES) * ERASE_BLOCK_BYTES },
  ]
  for (let offset = first; offset < padded.length; offset += STEP_BYTES) {
    steps.push({ kind: 'write', offset, data: padded.subarray(offset, offset + STEP_BYTES) })
  }
  steps.push({ kind: 'write', offset: 0, data: padded.subarray(0, first) })
  return steps
}

function requireFit(image: Uint8Array, slot: FlashRegion): void {
  if (image.length <= imageBytesOf(slot)) return
  throw usageError(
    `the image has ${image.length} bytes and the ${slot.name} room for ${imageBytesOf(slot)}`,
    'give the server more flash, or make the firmware smaller',
  )
}

function pad(image: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(image.length / WRITE_GRANULE_BYTES) * WRITE_GRANULE_BYTES).fill(ERASED)
  padded.set(image)
  return padded
}
