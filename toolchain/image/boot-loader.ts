/**
 * The boot loader of a board: decides by the slots' trailers what to do (MCUboot documentation, "High-level operation"), and boots the
 * primary slot if the image in it is one that the board may boot.
 *
 *   interrupted swap? ── yes ─▶ go on with it ─────────────────────────┐
 *     │ no                                                             │
 *   swap asked for? ── yes ─▶ is the other image good? ── yes ─▶ swap ─┤
 *     │ no                       │ no: erase it                        │
 *     ▼                          ▼                                     ▼
 *   is the primary image good? ◀───────────────────────────────────────┘
 *     │ yes                      │ no
 *     ▼                          ▼
 *   boot it                    is the secondary one? ── yes ─▶ swap, for good (MCUBOOT_BOOTSTRAP)
 *                                │ no
 *                                ▼
 *                              panic
 */
import type { BootImage, BootLoader, SourceResolver } from '../../emulator/board.ts'
import type { Flash } from '../../emulator/devices/flash.ts'
import type { Symbols } from '../firmware/symbols.ts'
import { BootArea } from './boot-area.ts'
import { FlashFailure, Region } from './flash-access.ts'
import { type FlashMap, flashMap, imageBytesOf, TRAILER_BLOCK_BYTES } from './flash-map.ts'
import { decodeImage, type Image } from './image.ts'
import { ImageError } from './image-error.ts'
import { checkPolicy, type ImagePolicy, securityCounterOf } from './manifest.ts'
import { stateLayoutOf } from './state-layout.ts'
import { type Pending, Slots } from './swap.ts'
import { imageOkWrite, type SwapType } from './trailer.ts'
import { formatVersion } from './version.ts'

/** Finds what is known about a firmware outside of its image; undefined if it was built elsewhere or since built anew. */
export type SymbolFinder = (wasm: Uint8Array) => Symbols | undefined

/** What a boot has come to. */
export type BootResult =
  | {
      readonly image: Image
      readonly swap: SwapType | 'none'
      /** Not confirmed: the next boot goes back to the other image. */
      readonly trial: boolean
      /** What a person may want to know; undefined if nothing. */
      readonly remark: string | undefined
    }
  | { readonly error: string }

export function bootLoader(findSymbols: SymbolFinder): BootLoader {
  return {
    load(flash): BootImage | { error: string } {
      const map = flashMap(flash.bytes)
      const result = boot(flash, map)
      if ('error' in result) return result
      const { image, swap, trial } = result
      const remark = result.remark ?? (swap === 'none' ? undefined : 'as it was asked to')
      const symbols = findSymbols(image.payload)
      const stateLayout = stateLayoutOf(image)
      const how = swap === 'none' || swap === 'test' ? '' : `, ${SWAP_TEXTS[swap]}`
      return {
        wasm: image.payload,
        description: `${formatVersion(image.version)} (primary slot${how})`,
        trial,
        update: {
          slotOffset: map.secondary.offset,
          slotBytes: map.secondary.bytes,
          confirmOffset: map.primary.offset + imageOkWrite(map.primary.bytes).offset,
        },
        ...(remark !== undefined && { remark }),
        ...(stateLayout !== undefined && { stateLayout }),
        ...(symbols && { resolveSource: sourceResolver(symbols) }),
      }
    },
  }
}

const SWAP_TEXTS: Readonly<Record<Exclude<SwapType, 'test'>, string>> = {
  permanent: 'updated',
  revert: 'reverted',
}

/** Boots a flash: carries out what its trailers ask for, writes the boot log, and locks what is not the firmware's. */
export function boot(flash: Flash, map: FlashMap): BootResult {
  flash.lock([])
  try {
    const result = new Boot(flash, map).run()
    lockFlash(flash, map)
    return result
  } catch (error) {
    if (!(error instanceof FlashFailure)) throw error
    return { error: `its flash fails: ${error.message}` }
  }
}

class Boot {
  readonly #map: FlashMap
  readonly #slots: Slots
  readonly #area: BootArea
  readonly #policy: ImagePolicy
  #swap: SwapType | 'none' = 'none'
  #resumed = false
  readonly #why: string[] = []

  constructor(flash: Flash, map: FlashMap) {
    this.#map = map
    this.#slots = new Slots(flash, map)
    this.#area = new BootArea(new Region(flash, map.boot))
    this.#policy = this.#area.readVault()
  }

  run(): BootResult {
    this.#obey(this.#slots.pending(this.#area))
    let primary = this.#examine(this.#slots.primary)
    if (primary instanceof ImageError) {
      const reason = brief(primary)
      const secondary = this.#examine(this.#slots.secondary)
      if (secondary instanceof ImageError) return this.#panic(reason, secondary)
      this.#why.push(`the primary image does not boot (${reason})`)
      this.#begin('permanent', secondary)
      primary = this.#examine(this.#slots.primary)
      if (primary instanceof ImageError) return this.#panic(brief(primary), new ImageError('ERASED', 'swapped away'))
    }
    const trial = !this.#slots.confirmed
    const counter = trial ? this.#policy.securityCounter : this.#raiseCounter(primary)
    const text = this.#why.join('; ')
    this.#area.log({
      kind: 'boot',
      swap: this.#swap,
      resumed: this.#resumed,
      securityCounter: counter,
      version: primary.version,
      digest: primary.digest,
      text,
    })
    return { image: primary, swap: this.#swap, trial, remark: text || undefined }
  }

  #obey(pending: Pending): void {
    if (pending.kind === 'none') return
    if (pending.kind === 'resume') {
      this.#resumed = true
      this.#swap = pending.type
      this.#why.push('an interrupted swap was completed')
      this.#slots.resume(pending)
      return
    }
    const image = this.#examine(this.#slots.secondary)
    if (image instanceof ImageError) {
      const what = pending.type === 'revert' ? 'nothing to go back to' : 'the update was refused'
      this.#why.push(`${what}: ${brief(image)}`)
      this.#area.log({ kind: 'refused', swap: pending.type, text: brief(image) })
      this.#slots.dropSecondary()
      return
    }
    if (pending.type === 'revert') this.#why.push('the image on trial was not confirmed')
    this.#resumed = pending.started
    this.#begin(pending.type, image)
  }

  /** Swaps, so much as the larger of the two images needs. */
  #begin(type: SwapType, image: Image): void {
    const other = this.#decode(this.#slots.primary)
    const swapBytes = Math.max(image.totalBytes, other instanceof ImageError ? 0 : other.totalBytes)
    this.#swap = type
    this.#slots.swap(type, swapBytes, this.#area)
  }

  /** Once an image is confirmed, nothing older boots any more. */
  #raiseCounter(image: Image): number {
    const counter = Math.max(this.#policy.securityCounter, securityCounterOf(image))
    if (counter > this.#policy.securityCounter)
      this.#area.writeVault({ ...this.#area.readVault(), securityCounter: counter })
    return counter
  }

  #panic(primary: string, secondary: ImageError): BootResult {
    this.#area.log({
      kind: 'panic',
      swap: this.#swap,
      resumed: this.#resumed,
      securityCounter: this.#policy.securityCounter,
      text: primary,
    })
    const other = secondary.code === 'ERASED' ? '' : `, nor does that in the secondary slot: ${secondary.message}`
    return { error: `the image in the primary slot does not boot: ${primary}${other}` }
  }

  /** The image in a slot if the board may boot it, or why not. */
  #examine(slot: Region): Image | ImageError {
    const image = this.#decode(slot)
    if (image instanceof ImageError) return image
    return attempt(() => {
      checkPolicy(image, this.#policy)
      return image
    })
  }

  #decode(slot: Region): Image | ImageError {
    return attempt(() => decodeImage(slot.read(0, imageBytesOf(this.#map.primary))))
  }
}

/** With digests cut short: a log record has room for one line. */
function brief({ message }: ImageError): string {
  return message.replace(/\b([0-9a-f]{8})[0-9a-f]{56}\b/g, '$1…')
}

function attempt(decode: () => Image): Image | ImageError {
  try {
    return decode()
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return error
  }
}

/** The firmware may write the secondary slot, and confirm itself. */
function lockFlash(flash: Flash, map: FlashMap): void {
  const { primary, scratch, boot } = map
  flash.lock([
    { offset: primary.offset, bytes: imageBytesOf(primary), keeps: 'write and erase' },
    { offset: primary.offset + imageBytesOf(primary), bytes: TRAILER_BLOCK_BYTES, keeps: 'erase' },
    { offset: scratch.offset, bytes: scratch.bytes, keeps: 'write and erase' },
    { offset: boot.offset, bytes: boot.bytes, keeps: 'write and erase' },
  ])
}

/** Finds the source of a place in a firmware with these symbols. */
export function sourceResolver(symbols: Symbols): SourceResolver {
  return (pc) => {
    const position = symbols.resolveSource(pc)
    return position?.source ? { ...position.source, name: position.functionName } : null
  }
}
