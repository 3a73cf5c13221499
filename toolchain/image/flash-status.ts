/** What is in a flash, and what the boot loader will make of it, without changing anything. */
import type { Flash } from '../../emulator/devices/flash.ts'
import { BootArea, type BootLogEntry, type Vault } from './boot-area.ts'
import { Region } from './flash-access.ts'
import { type FlashMap, type FlashRegion, flashMap } from './flash-map.ts'
import { encodeHex } from './hex.ts'
import type { Image } from './image.ts'
import { ImageError } from './image-error.ts'
import { checkPolicy, isSigned, securityCounterOf } from './manifest.ts'
import { readSlot } from './slot.ts'
import { type Pending, Slots } from './swap.ts'
import { formatVersion } from './version.ts'

export interface SlotStatus {
  readonly image: Image | undefined
  /** Why it would not boot; undefined if it would. */
  readonly fault: ImageError | undefined
}

export interface FlashStatus {
  readonly primary: SlotStatus
  readonly secondary: SlotStatus
  readonly pending: Pending
  /** The image in the primary slot is there for good. */
  readonly confirmed: boolean
  readonly vault: Vault
}

export function readFlashStatus(flash: Flash, map: FlashMap = flashMap(flash.bytes)): FlashStatus {
  const area = new BootArea(new Region(flash, map.boot))
  const slots = new Slots(flash, map)
  const vault = area.readVault()
  return {
    primary: slotStatus(flash, map.primary, vault),
    secondary: slotStatus(flash, map.secondary, vault),
    pending: slots.pending(area),
    confirmed: slots.confirmed,
    vault,
  }
}

function slotStatus(flash: Flash, slot: FlashRegion, vault: Vault): SlotStatus {
  let image: Image | undefined
  try {
    image = readSlot(flash, slot)
    checkPolicy(image, vault)
    return { image, fault: undefined }
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return { image, fault: error }
  }
}

/** A flash for machines; the control socket carries it too. */
export interface FlashReport {
  readonly primary: SlotReport
  readonly secondary: SlotReport
  /** What the next boot does: `none`, `test`, `permanent`, `revert`, or `resume` for a swap that was cut. */
  readonly nextBoot: string
  readonly confirmed: boolean
  readonly securityCounter: number
  /** SHA-256 of the key that images must be signed by; null: none. */
  readonly trustedKey: string | null
  readonly wear: { readonly erasures: number; readonly mostWornBlock: number }
  readonly log: readonly LogReport[]
}

export interface SlotReport {
  readonly version?: string
  readonly bytes?: number
  readonly sha256?: string
  readonly signed?: boolean
  readonly securityCounter?: number
  /** Why it would not boot. */
  readonly fault?: string
}

export interface LogReport {
  readonly number: number
  readonly event: string
  readonly swap: string
  readonly resumed: boolean
  readonly version?: string
  readonly securityCounter: number
  readonly why: string
}

export function reportFlash(flash: Flash, map: FlashMap = flashMap(flash.bytes)): FlashReport {
  const { primary, secondary, pending, confirmed, vault } = readFlashStatus(flash, map)
  const log = new BootArea(new Region(flash, map.boot)).readLog()
  return {
    primary: reportSlot(primary),
    secondary: reportSlot(secondary),
    nextBoot: pending.kind === 'swap' ? pending.type : pending.kind,
    confirmed,
    securityCounter: vault.securityCounter,
    trustedKey: vault.key === undefined ? null : encodeHex(vault.key.hash),
    wear: {
      erasures: flash.wear.reduce((sum, count) => sum + count, 0),
      mostWornBlock: flash.wear.reduce((most, count) => Math.max(most, count), 0),
    },
    log: log.map(reportEntry),
  }
}

function reportSlot({ image, fault }: SlotStatus): SlotReport {
  return {
    ...(image && {
      version: formatVersion(image.version),
      bytes: image.totalBytes,
      sha256: encodeHex(image.digest),
      signed: isSigned(image),
      securityCounter: counterOf(image),
    }),
    ...(fault && { fault: fault.message }),
  }
}

function counterOf(image: Image): number {
  try {
    return securityCounterOf(image)
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return 0 // the slot's fault says what is wrong with it
  }
}

function reportEntry(entry: BootLogEntry): LogReport {
  const { number, kind, swap, resumed, version, securityCounter, text } = entry
  return {
    number,
    event: kind,
    swap,
    resumed,
    ...(version && { version: formatVersion(version) }),
    securityCounter,
    why: text,
  }
}
