/** Image files and key files, with what a person who named one wants to hear. */
import { readFile } from 'node:fs/promises'
import { dirname, relative } from 'node:path'
import { errorCode, errorMessage, usageError } from '../errors.ts'
import { findProject, projectOrOwn } from '../project.ts'
import { decodeImage, type Image } from './image.ts'
import { ImageError } from './image-error.ts'
import { type KeyPair, type PublicKey, parseKeyPair, parsePublicKey } from './keys.ts'
import { readPadding } from './trailer.ts'

/** An image that was read and checked. */
export interface LoadedImage {
  readonly path: string
  /** The image itself, without what imgtool --pad puts behind it. */
  readonly bytes: Uint8Array
  readonly image: Image
  /** What imgtool --pad has put behind it; undefined if nothing. */
  readonly padding: { readonly confirmed: boolean; readonly align: number } | undefined
}

/** Reads an image file. @throws CommandError (exit code 2) that says why it cannot boot, or how to make one. */
export async function loadImage(path: string): Promise<LoadedImage> {
  try {
    const file = await readFile(path)
    const image = decodeImage(file)
    const padding = file.length > image.totalBytes ? readPadding(file.subarray(image.totalBytes)) : undefined
    return { path, bytes: file.subarray(0, image.totalBytes), image, padding }
  } catch (error) {
    if (error instanceof ImageError) {
      throw usageError(
        `${shown(path)} is no image that boots: ${error.message}`,
        'make one with: inic build --release -o FILE',
      )
    }
    if (errorCode(error) === 'ENOENT')
      throw usageError(
        `there is no firmware image ${shown(path)}`,
        `make it with: inic build --release${projectArgument(path)}`,
      )
    throw usageError(`${shown(path)} cannot be read: ${errorMessage(error)}`)
  }
}

/** The folder to name to `inic build` for the image at `path`, where it is not the one that it would take by itself. */
function projectArgument(path: string): string {
  const project = findProject(dirname(path))
  return project === undefined || project === projectOrOwn() ? '' : ` ${relative(process.cwd(), project)}`
}

/** Reads a private key. @throws CommandError (exit code 2) */
export function loadKeyPair(path: string): Promise<KeyPair> {
  return loadKey(path, parseKeyPair)
}

/** Reads a public key, from a file that may hold the private one too. @throws CommandError (exit code 2) */
export function loadPublicKey(path: string): Promise<PublicKey> {
  return loadKey(path, parsePublicKey)
}

async function loadKey<T>(path: string, parse: (pem: string) => T): Promise<T> {
  try {
    return parse(await readFile(path, 'latin1'))
  } catch (error) {
    if (errorCode(error) === 'ENOENT') {
      throw usageError(`there is no key ${shown(path)}`, `make one with: inic image keygen -k ${shown(path)}`)
    }
    const reason = error instanceof ImageError ? error.message : `it cannot be read: ${errorMessage(error)}`
    throw usageError(`${shown(path)} is no key: ${reason}`)
  }
}

function shown(path: string): string {
  return relative(process.cwd(), path)
}
