/** What the tests of images and updates share: a flash small enough to try every cell of it, and images to put there. */
import { Flash } from '../../emulator/devices/flash.ts'
import { BootArea } from '../../toolchain/image/boot-area.ts'
import { type BootResult, boot } from '../../toolchain/image/boot-loader.ts'
import { Region } from '../../toolchain/image/flash-access.ts'
import { layOut } from '../../toolchain/image/flash-map.ts'
import { encodeImage } from '../../toolchain/image/image.ts'
import type { KeyPair } from '../../toolchain/image/keys.ts'
import { securityCounterTlv, signatureTlvs } from '../../toolchain/image/manifest.ts'
import { programPrimary, runSteps, stagingSteps } from '../../toolchain/image/slot.ts'
import { Slots } from '../../toolchain/image/swap.ts'

/** Slots of three blocks and a trailer, swapped a block at a time. */
export const MAP = layOut(0x4000, 0x2000, 0x4000)
export const FLASH_BYTES = MAP.boot.offset + MAP.boot.bytes

export interface TestImage {
  readonly name: string
  readonly payload: Uint8Array
  readonly bytes: Uint8Array
}

/** An image of `payloadBytes` that differ from those of another `name`. */
export function testImage(
  name: string,
  options: { payloadBytes?: number; counter?: number; key?: KeyPair; minor?: number } = {},
): TestImage {
  const { payloadBytes = 5000, counter, key, minor = 0 } = options
  const seed = [...name].reduce((sum, character) => sum * 31 + character.charCodeAt(0), 7)
  const payload = Uint8Array.from({ length: payloadBytes }, (_, n) => (seed + n * 13 + (n >> 8) * 101) & 0xff)
  const bytes = encodeImage(payload, {
    version: { major: 1, minor, revision: 0, build: 0 },
    ...(counter !== undefined && { protectedTlvs: [securityCounterTlv(counter)] }),
    ...(key !== undefined && { sign: (digest) => signatureTlvs(key, digest) }),
  })
  return { name, payload, bytes }
}

/** A flash whose primary slot holds `image`, as it leaves the factory. */
export function flashWith(image: TestImage): Flash {
  const flash = Flash.inMemory(FLASH_BYTES)
  programPrimary(flash, MAP, image.bytes)
  return flash
}

/** Writes an image into the secondary slot, to be swapped in at the next boot. */
export function stage(flash: Flash, image: TestImage, permanent = false): void {
  runSteps(new Region(flash, MAP.secondary), stagingSteps(image.bytes, MAP.secondary, permanent))
}

/** What running firmware does to confirm itself. */
export function confirm(flash: Flash): void {
  new Slots(flash, MAP).confirm()
}

export function bootFlash(flash: Flash): BootResult {
  return boot(flash, MAP)
}

export function bootArea(flash: Flash): BootArea {
  return new BootArea(new Region(flash, MAP.boot))
}

/** All cells of a flash. */
export function cellsOf(flash: Flash): Uint8Array {
  const cells = new Uint8Array(flash.bytes)
  flash.read(0, cells)
  return cells
}
