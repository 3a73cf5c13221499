/** Reads what farms in virtual time left in the folder that INIC_COVERAGE named. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { CountFile } from '../../emulator/count-folder.ts'

/** One firmware, and how often each of its instructions ran in all processes together. */
export interface CountedModule {
  readonly wasm: Uint8Array
  /** By offset in the module. */
  readonly counts: ReadonlyMap<number, number>
}

/** @throws what reading throws */
export function readCountFolder(directory: string): CountedModule[] {
  const modules = new Map<string, { wasm: Uint8Array; counts: Map<number, number> }>()
  for (const name of readdirSync(directory).sort()) {
    if (!name.endsWith('.counts.json')) continue
    const { sha256, counts } = JSON.parse(readFileSync(join(directory, name), 'utf8')) as CountFile
    let module = modules.get(sha256)
    if (module === undefined) {
      module = { wasm: readFileSync(join(directory, `${sha256}.wasm`)), counts: new Map() }
      modules.set(sha256, module)
    }
    for (const [pc, count] of counts) module.counts.set(pc, (module.counts.get(pc) ?? 0) + count)
  }
  return [...modules.values()]
}
