/** What is known of the firmware that an INIC runs. */
import { readIfPresentSync } from '../../files.ts'
import { artifacts } from '../../firmware/artifacts.ts'
import { createProgram, type Program } from '../symbols/index.ts'
import { Values } from '../values/index.ts'
import type { LoadedFirmware } from './inic.ts'
import { Sites } from './walk.ts'

/** Texts of the build beside a module. */
export interface BuildTexts {
  readonly sourceMap?: string | undefined
  readonly layouts?: string | undefined
  readonly symbols?: string | undefined
  /** The project's folder. */
  readonly directory?: string | undefined
}

/**
 * Knows firmware by its bytes: from the builds of these projects, the first that holds this very module. What lies beside another one
 * would name wrong lines.
 */
export class FirmwareLibrary {
  readonly #projects: readonly string[]
  readonly #known: LoadedFirmware[] = []

  constructor(projects: readonly string[]) {
    this.#projects = projects
  }

  find(wasm: Uint8Array, description: string): LoadedFirmware {
    const known = this.#known.find((firmware) => Buffer.compare(firmware.wasm, wasm) === 0)
    return known ?? this.add(wasm, description, findTexts(wasm, this.#projects) ?? {})
  }

  has(wasm: Uint8Array): boolean {
    return this.#known.some((firmware) => Buffer.compare(firmware.wasm, wasm) === 0)
  }

  /** Takes a module with what was kept beside it. */
  add(wasm: Uint8Array, description: string, texts: BuildTexts): LoadedFirmware {
    const program: Program = createProgram({ wasm, ...texts })
    const firmware: LoadedFirmware = {
      ...{ id: this.#known.length + 1, description, wasm, program, texts },
      ...{ values: new Values(program), sites: new Sites(program) },
    }
    this.#known.push(firmware)
    return firmware
  }
}

function findTexts(wasm: Uint8Array, projects: readonly string[]): BuildTexts | undefined {
  for (const directory of projects) {
    for (const target of ['release', 'debug'] as const) {
      const files = artifacts(directory, target)
      const built = readIfPresentSync(files.wasm)
      if (built === undefined || Buffer.compare(built, wasm) !== 0) continue
      const read = (path: string) => readIfPresentSync(path)?.toString()
      return { sourceMap: read(files.sourceMap), layouts: read(files.layouts), symbols: read(files.symbols), directory }
    }
  }
  return undefined
}

/** What a recording keeps of a firmware's build. */
export function notesOf({ description, texts }: LoadedFirmware): Readonly<Record<string, string>> {
  const entries = Object.entries({ description, ...texts }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  )
  return Object.fromEntries(entries)
}
