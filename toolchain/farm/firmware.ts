/** Which firmware the boards of a farm boot: the image of the build, put into each server's flash unless a person put another there. */
import { relative } from 'node:path'
import { Flash } from '../../emulator/devices/flash.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { CommandError, errorMessage, usageError } from '../errors.ts'
import { readIfPresent, replaceFile } from '../files.ts'
import { artifacts } from '../firmware/artifacts.ts'
import { BootArea } from '../image/boot-area.ts'
import { type LoadedImage, loadImage, loadPublicKey } from '../image/files.ts'
import { Region } from '../image/flash-access.ts'
import { flashMap } from '../image/flash-map.ts'
import { type FlashStatus, readFlashStatus } from '../image/flash-status.ts'
import { encodeHex } from '../image/hex.ts'
import { ImageError } from '../image/image-error.ts'
import type { PublicKey } from '../image/keys.ts'
import { checkSignature } from '../image/manifest.ts'
import { programPrimary } from '../image/slot.ts'
import { formatVersion } from '../image/version.ts'
import { packageRoot } from '../package-root.ts'
import { isProject } from '../project.ts'
import type { FarmState } from '../state.ts'

export { type LoadedImage, loadImage } from '../image/files.ts'

/** Where `inic build --release` leaves ipOS. */
export const DEFAULT_IMAGE_PATH = artifacts(packageRoot, 'release').image

/** The image that a server's card boots: of its firmware project's release build, the file that is named, or ipOS. */
export function imagePathOf({ firmware }: Pick<ServerConfig, 'firmware'>): string {
  if (firmware === undefined) return DEFAULT_IMAGE_PATH
  return isProject(firmware) ? artifacts(firmware, 'release').image : firmware
}

/** Images by server. @param override takes the place of those that the farm names, or, where it names none, of all */
export async function loadImages(farm: FarmConfig, override?: string): Promise<Map<string, LoadedImage>> {
  const named = farm.servers.some(({ firmware }) => firmware !== undefined)
  const loaded = new Map<string, Promise<LoadedImage>>()
  const load = (path: string) => {
    const known = loaded.get(path) ?? loadImage(path)
    loaded.set(path, known)
    return known
  }
  const images = new Map<string, LoadedImage>()
  for (const server of farm.servers) {
    const replaced = override !== undefined && (!named || server.firmware !== undefined)
    images.set(server.name, await load(replaced ? override : imagePathOf(server)))
  }
  return images
}

/** What became of a server's flash. */
export interface PreparedFlash {
  readonly flash: Flash
  /** Something a person may want to know; undefined if nothing. */
  readonly remark: string | undefined
}

/**
 * Opens the flash of a server and sees to it that there is something to boot: `image` is written if the primary slot is empty, or
 * holds what an earlier run wrote, or if `force` is set. What was flashed by hand stays, be it good or not, and so does an update that is
 * asked for or under way.
 *
 * @throws CommandError if the flash cannot be used, or trusts another key than the farm file names, or would not boot what is written
 */
export async function prepareFlash(
  state: FarmState,
  server: ServerConfig,
  image: LoadedImage,
  force: boolean,
): Promise<PreparedFlash> {
  state.make()
  const flash = openFlash(state.flashPath(server.name), server)
  try {
    const key = await trustKey(flash, server)
    const status = readFlashStatus(flash)
    const present = digestOf(status)
    const wanted = encodeHex(image.image.digest)
    const own = await readOwnDigests(state)
    // An update of a board that is empty gets something to go back to.
    const empty = present === ERASED && isWaiting(status) && (key === undefined || isSignedBy(image, key))
    if (!force && !empty) {
      if (present === wanted || isUpdating(status)) return { flash, remark: undefined }
      if (present !== ERASED && present !== own[server.name]) {
        return { flash, remark: describeForeign(state, server, status, image) }
      }
    }
    if (key !== undefined) requireSigned(image, key, server)
    programPrimary(flash, flashMap(flash.bytes), image.bytes, { keepsUpdate: empty && !force })
    await replaceFile(state.flashedPath, `${JSON.stringify({ ...own, [server.name]: wanted }, undefined, 2)}\n`)
    return { flash, remark: `${server.name}: flashed firmware ${formatVersion(image.image.version)}` }
  } catch (error) {
    flash.close()
    throw error
  }
}

/**
 * Has the flash trust the key that the farm file names, if it trusts none yet. Returns the key that it trusts.
 *
 * @throws CommandError if it trusts another one: what a board has once trusted, it trusts for good
 */
export async function trustKey(
  flash: Flash,
  { name, key: path }: { readonly name: string; readonly key?: string | undefined },
): Promise<PublicKey | undefined> {
  const area = new BootArea(new Region(flash, flashMap(flash.bytes).boot))
  const vault = area.readVault()
  if (path === undefined) return vault.key
  const key = await loadPublicKey(path)
  if (vault.key === undefined) area.writeVault({ ...vault, key })
  else if (!vault.key.equals(key)) {
    throw usageError(
      `the flash of ${name} trusts the key ${vault.key.name}…, and the farm file names ${key.name}… (${shown(path)})`,
      'a board keeps the key that it was given first; to begin anew, remove its flash file',
    )
  }
  return key
}

const ERASED = 'erased'

/** Digest of the image in the primary slot; ERASED; or a text that is no digest, for one that is not whole. */
function digestOf({ primary }: FlashStatus): string {
  if (primary.image !== undefined) return encodeHex(primary.image.digest)
  return primary.fault?.code === 'ERASED' ? ERASED : 'broken'
}

/** True while the slots are the boot loader's: an update is asked for or half done, or what is in the primary slot is on trial. */
function isUpdating({ pending, confirmed }: FlashStatus): boolean {
  return pending.kind !== 'none' || !confirmed
}

/** True if an update was asked for, and nothing has moved. */
function isWaiting({ pending }: FlashStatus): boolean {
  return pending.kind === 'swap' && !pending.started
}

function isSignedBy({ image }: LoadedImage, key: PublicKey): boolean {
  try {
    checkSignature(image, key)
    return true
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return false
  }
}

function requireSigned({ path, image }: LoadedImage, key: PublicKey, { name }: ServerConfig): void {
  try {
    checkSignature(image, key)
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    throw usageError(
      `${shown(path)} would not boot on ${name}: ${error.message}`,
      'sign it, and name it: inic build --release --sign KEY -o FILE && inic run --image FILE',
    )
  }
}

function describeForeign(
  state: FarmState,
  { name }: ServerConfig,
  { primary }: FlashStatus,
  image: LoadedImage,
): string {
  const way = `inic flash ${shown(image.path)} --flash ${shown(state.flashPath(name))}`
  if (primary.image !== undefined && primary.fault === undefined)
    return `${name}: boots ${formatVersion(primary.image.version)}, which was flashed by hand; for the firmware of this build: ${way}`
  return `${name}: the image in its flash is left as it is (${primary.fault?.message}); for one that boots: ${way}`
}

export function openFlash(path: string, { name, flashBytes }: Pick<ServerConfig, 'name' | 'flashBytes'>): Flash {
  try {
    return Flash.open(path, flashBytes)
  } catch (error) {
    throw new CommandError(`the flash of ${name} cannot be opened: ${errorMessage(error)}`)
  }
}

/** Digests of what earlier runs wrote, by server. */
async function readOwnDigests(state: FarmState): Promise<Record<string, string>> {
  const text = await readIfPresent(state.flashedPath)
  if (text === undefined) return {}
  try {
    return JSON.parse(text.toString()) as Record<string, string>
  } catch {
    return {} // damaged: every image counts as flashed by hand, and none is overwritten
  }
}

function shown(path: string): string {
  return relative(process.cwd(), path)
}
