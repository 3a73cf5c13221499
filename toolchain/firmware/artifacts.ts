import { join } from 'node:path'

/** How a firmware is compiled; the names of the targets in asconfig.json. */
export type BuildTarget = 'debug' | 'release'

/** Where one target's results lie. */
export interface Artifacts {
  readonly directory: string
  /** The MCUboot image: what flash takes. */
  readonly image: string
  /** The module inside the image, byte for byte. */
  readonly wasm: string
  /** The module with DWARF behind it, for LLDB. */
  readonly debugWasm: string
  readonly sourceMap: string
  readonly layouts: string
  /** Functions and variables as the source has them, for the debugger. */
  readonly symbols: string
  /** What the results were made from; lets the next build see that nothing changed. */
  readonly manifest: string
}

/** Artifacts of the firmware whose asconfig.json lies in `projectDirectory`. */
export function artifacts(projectDirectory: string, target: BuildTarget): Artifacts {
  const directory = join(projectDirectory, 'build', target)
  return {
    directory,
    image: join(directory, 'firmware.img'),
    wasm: join(directory, 'firmware.wasm'),
    debugWasm: join(directory, 'firmware.debug.wasm'),
    sourceMap: join(directory, 'firmware.wasm.map'),
    layouts: join(directory, 'firmware.layouts.json'),
    symbols: join(directory, 'firmware.symbols.json'),
    manifest: join(directory, 'firmware.build.json'),
  }
}
