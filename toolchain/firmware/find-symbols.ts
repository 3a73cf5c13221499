import { readIfPresentSync as read } from '../files.ts'
import { type Artifacts, artifacts } from './artifacts.ts'
import { parseLayouts } from './layouts.ts'
import { Symbols } from './symbols.ts'

/**
 * Symbols of `wasm` from the first of these projects' builds that holds this very module. What lies beside another module
 * would name wrong lines and wrong fields, so it is not taken.
 */
export function findSymbols(wasm: Uint8Array, projects: readonly string[]): Symbols | undefined {
  for (const directory of projects) {
    for (const target of ['release', 'debug'] as const) {
      const files = artifacts(directory, target)
      const built = read(files.wasm)
      if (built && Buffer.compare(built, wasm) === 0) return load(built, files)
    }
  }
  return undefined
}

function load(wasm: Uint8Array, files: Artifacts): Symbols {
  const layouts = read(files.layouts)
  return new Symbols(wasm, read(files.sourceMap)?.toString(), layouts && parseLayouts(layouts.toString()))
}
