/** Which firmware the boards of a farm boot: the image of the build, put into each server's flash unless a person put another there. */
import { readFile } from 'node:fs/promises'
import { dirname, relative } from 'node:path'
import { Flash } from '../../emulator/devices/flash.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { CommandError, errorCode, errorMessage, usageError } from '../errors.ts'
import { readIfPresent, replaceFile } from '../files.ts'
import { artifacts } from '../firmware/artifacts.ts'
import { flashMap } from '../image/flash-map.ts'
import { decodeImage, encodeHex, type Image } from '../image/image.ts'
import { ImageError } from '../image/image-error.ts'
import { readSlot, writeSlot } from '../image/slot.ts'
import { formatVersion } from '../image/version.ts'
import { packageRoot } from '../package-root.ts'
import { findProject, isProject, projectOrOwn } from '../project.ts'
import type { FarmState } from '../state.ts'

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

/** An image that was read and checked. */
export interface LoadedImage {
  readonly path: string
  readonly bytes: Uint8Array
  readonly image: Image
}

/** Reads an image file. @throws CommandError that says why it cannot boot, or how to make one. */
export async function loadImage(path: string): Promise<LoadedImage> {
  try {
    const bytes = await readFile(path)
    const image = decodeImage(bytes)
    return { path, bytes: bytes.subarray(0, image.totalBytes), image }
  } catch (error) {
    const shown = relative(process.cwd(), path)
    if (error instanceof ImageError) {
      throw usageError(
        `${shown} is no image that boots: ${error.message}`,
        'make one with: inic build --release -o FILE',
      )
    }
    if (errorCode(error) === 'ENOENT') {
      throw usageError(
        `there is no firmware image ${shown}`,
        `make it with: inic build --release${projectArgument(path)}`,
      )
    }
    throw usageError(`${shown} cannot be read: ${errorMessage(error)}`)
  }
}

/** The folder to name to `inic build` for the image at `path`, where it is not the one that it would take by itself. */
function projectArgument(path: string): string {
  const project = findProject(dirname(path))
  return project === undefined || project === projectOrOwn() ? '' : ` ${relative(process.cwd(), project)}`
}

/** What became of a server's flash. */
export interface PreparedFlash {
  readonly flash: Flash
  /** Something a person may want to know; undefined if nothing. */
  readonly remark: string | undefined
}

/**
 * Opens the flash of a server and sees to it that there is something to boot: `image` is written if the slot is empty, or
 * holds what an earlier run wrote, or if `force` is set. What was flashed by hand stays, be it good or not.
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
    const slot = flashMap(server.flashBytes).primary
    const present = readDigest(flash)
    const wanted = encodeHex(image.image.digest)
    const own = await readOwnDigests(state)
    if (present === wanted) return { flash, remark: undefined }
    if (!force && present !== ERASED && present !== own[server.name]) {
      return { flash, remark: describeForeign(state, server, flash, image) }
    }
    writeSlot(flash, slot, image.bytes)
    await replaceFile(state.flashedPath, `${JSON.stringify({ ...own, [server.name]: wanted }, undefined, 2)}\n`)
    return { flash, remark: `${server.name}: flashed firmware ${formatVersion(image.image.version)}` }
  } catch (error) {
    flash.close()
    throw error
  }
}

const ERASED = 'erased'

/** Digest of the image in the primary slot; ERASED; or a text that is no digest, for one that does not boot. */
function readDigest(flash: Flash): string {
  try {
    return encodeHex(readSlot(flash, flashMap(flash.bytes).primary).digest)
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return error.code === 'ERASED' ? ERASED : `broken: ${error.message}`
  }
}

function describeForeign(state: FarmState, { name }: ServerConfig, flash: Flash, image: LoadedImage): string {
  const way = `inic flash ${relative(process.cwd(), image.path)} --flash ${relative(process.cwd(), state.flashPath(name))}`
  try {
    const { version } = readSlot(flash, flashMap(flash.bytes).primary)
    return `${name}: boots ${formatVersion(version)}, which was flashed by hand; for the firmware of this build: ${way}`
  } catch (error) {
    return `${name}: the image in its flash is left as it is (${errorMessage(error)}); for one that boots: ${way}`
  }
}

function openFlash(path: string, { name, flashBytes }: ServerConfig): Flash {
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
