import type { BootImage, BootLoader, SourceResolver } from '../../emulator/board.ts'
import type { Flash } from '../../emulator/devices/flash.ts'
import type { Symbols } from '../firmware/symbols.ts'
import { flashMap } from './flash-map.ts'
import type { Image } from './image.ts'
import { ImageError } from './image-error.ts'
import { readSlot } from './slot.ts'
import { formatVersion } from './version.ts'

/** Finds what is known about a firmware outside of its image; undefined if it was built elsewhere or since built anew. */
export type SymbolFinder = (wasm: Uint8Array) => Symbols | undefined

/**
 * The boot loader of a board: boots the primary slot if the image in it is whole and its hash is right, and otherwise
 * says what is wrong with it.
 */
export function bootLoader(findSymbols: SymbolFinder): BootLoader {
  return { load: (flash) => loadFromFlash(flash, findSymbols) }
}

function loadFromFlash(flash: Flash, findSymbols: SymbolFinder): BootImage | { error: string } {
  const slot = flashMap(flash.bytes).primary
  let image: Image
  try {
    image = readSlot(flash, slot)
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return { error: `the image in the ${slot.name} does not boot: ${error.message}` }
  }
  const symbols = findSymbols(image.payload)
  return {
    wasm: image.payload,
    description: `${formatVersion(image.version)} (${slot.name})`,
    ...(symbols && { resolveSource: sourceResolver(symbols) }),
  }
}

function sourceResolver(symbols: Symbols): SourceResolver {
  return (pc) => {
    const position = symbols.resolveSource(pc)
    return position?.source ? { ...position.source, name: position.functionName } : null
  }
}
