/** ipOS with something changed in its source, in a folder of its own. */
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type BuildResult, buildFirmware } from '../../toolchain/firmware/build.ts'
import { packageRoot } from '../../toolchain/package-root.ts'
import { temporaryDirectory } from './tiny-firmware.ts'

export interface SourceEdit {
  readonly file: string
  readonly from: string
  readonly to: string
}

/** The debug build: it compiles in seconds. Throws if the text that is to be replaced is not there. */
export async function iposVariant(...edits: readonly SourceEdit[]): Promise<BuildResult> {
  const directory = await temporaryDirectory()
  for (const item of ['firmware', 'abi', 'asconfig.json', 'package.json'])
    await cp(join(packageRoot, item), join(directory, item), { recursive: true })
  for (const { file, from, to } of edits) {
    const path = join(directory, file)
    await writeFile(path, edited(await readFile(path, 'utf8'), from, to))
  }
  return buildFirmware({ directory, target: 'debug' })
}

/** `text` with the first `from` replaced. Throws if there is none. */
export function edited(text: string, from: string, to: string): string {
  if (!text.includes(from)) throw new Error(`there is no '${from}' to be changed`)
  return text.replace(from, () => to)
}
