/** What the cards of a test boot. */
import { readFile } from 'node:fs/promises'
import { relative } from 'node:path'
import type { SourceResolver } from '../../emulator/board.ts'
import { CommandError } from '../errors.ts'
import { type Artifacts, artifacts, type BuildTarget } from '../firmware/artifacts.ts'
import { buildFirmware } from '../firmware/build.ts'
import { type Layouts, parseLayouts } from '../firmware/layouts.ts'
import { Symbols } from '../firmware/symbols.ts'
import { packageRoot } from '../package-root.ts'
import { findProject } from '../project.ts'

/** A firmware, and how to read its tables. */
export interface FarmFirmware {
  readonly wasm: Uint8Array
  readonly layouts: Layouts
  /** For updates in service (docs/updating.md). */
  readonly stateLayout?: string
  /** From a place in `wasm` to its source line, for crash reports. */
  readonly resolveSource?: SourceResolver
}

/**
 * Builds the firmware of a project, if its sources have changed since it was built last, and loads it.
 *
 * @param options.directory the project's folder; the one that the test runs in if left out
 * @param options.target default 'release'
 * @throws CommandError with the compiler's diagnostics
 */
export async function projectFirmware(
  options: { readonly directory?: string; readonly target?: BuildTarget } = {},
): Promise<FarmFirmware> {
  const { directory = findProject(), target = 'release' } = options
  if (directory === undefined) throw new CommandError(`there is no firmware project in ${process.cwd()}, or above it`)
  const built = await buildFirmware({ directory, target })
  return loadFirmware(built.artifacts)
}

/** ipOS as this package brings it. @throws CommandError if it was not built */
export function iposFirmware(): Promise<FarmFirmware> {
  return loadFirmware(artifacts(packageRoot, 'release'))
}

/** Loads what a build has left. @throws CommandError if there is none */
export async function loadFirmware(files: Artifacts): Promise<FarmFirmware> {
  try {
    const [wasm, sourceMap, layouts] = await Promise.all([
      readFile(files.wasm),
      readFile(files.sourceMap, 'utf8'),
      readFile(files.layouts, 'utf8'),
    ])
    const symbols = new Symbols(wasm, sourceMap, parseLayouts(layouts))
    return {
      wasm,
      layouts: symbols.layouts!,
      resolveSource: (pc) => {
        const position = symbols.resolveSource(pc)
        return position?.source ? { ...position.source, name: position.functionName } : null
      },
    }
  } catch (error) {
    throw new CommandError(`the firmware in ${relative(process.cwd(), files.directory) || '.'} cannot be loaded`, {
      hint: 'build it: inic build --release',
      cause: error,
    })
  }
}
