/**
 * From AssemblyScript sources to an image: asc by way of asconfig.json, the checks that make a module firmware, class
 * layouts and source map beside it, and the image around it.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join, relative, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { hasAddon } from '../../emulator/cpu/addon.ts'
import { CommandError, errorMessage, usageError } from '../errors.ts'
import { readIfPresent, replaceFile } from '../files.ts'
import { decodeImage, encodeImage, type Image } from '../image/image.ts'
import { stateLayoutTlv } from '../image/state-layout.ts'
import { type ImageVersion, parseVersion } from '../image/version.ts'
import { type Artifacts, artifacts, type BuildTarget } from './artifacts.ts'
import type { AscOutcome, AscRequest } from './asc-worker.ts'
import { checkFirmware } from './checks.ts'
import { appendDwarf, belongsTo } from './dwarf.ts'
import { filesOf, withPackageFiles } from './package-sources.ts'

const NO_DWARF =
  'no firmware.debug.wasm for LLDB: the addon that writes DWARF is not there; node emulator/cpu/build.mjs builds it and needs Rust'

/** Raise it when this file or the checks change what a build gives: results of an older one are then made anew. */
const MANIFEST_FORMAT = 6

export interface BuildOptions {
  /** Folder with asconfig.json. */
  readonly directory: string
  readonly target: BuildTarget
  /** Version in the image; the folder's package.json decides if it is left out. */
  readonly version?: ImageVersion
  /** Writes the module with DWARF for LLDB beside the others. Default: true, if the addon is there. */
  readonly dwarf?: boolean
  /** Colour in asc's diagnostics. */
  readonly colour?: boolean
  /** Called with what is being done, before it is done. */
  readonly onStage?: (stage: string) => void
}

export interface BuildResult {
  readonly target: BuildTarget
  readonly artifacts: Artifacts
  readonly image: Image
  readonly imageBytes: Uint8Array
  /** True if the sources were those of the last build and asc did not run. */
  readonly upToDate: boolean
  /** What asc had to say although it succeeded; empty if nothing. */
  readonly warnings: string
  /** What else a person may want to know; undefined if nothing. */
  readonly remark: string | undefined
}

interface Manifest {
  readonly format: number
  readonly asc: string
  /** SHA-256 of each file that asc asked for, null for one that was not there: it would count if it appeared. */
  readonly inputs: Readonly<Record<string, string | null>>
  /** SHA-256 of the module, so that a results folder that somebody touched is not trusted. */
  readonly wasm: string
  /** Names what INIC memory means to it (state-layout.ts). */
  readonly stateLayout: string
}

/** Builds the firmware. @throws CommandError with asc's diagnostics, or with what keeps the module from being firmware. */
export async function buildFirmware(options: BuildOptions): Promise<BuildResult> {
  const directory = resolve(options.directory)
  if (!existsSync(join(directory, 'asconfig.json'))) {
    throw usageError(
      `${shown(directory)} holds no firmware: there is no asconfig.json in it`,
      'name the folder of a firmware project: inic build DIR',
    )
  }
  const files = artifacts(directory, options.target)
  const version = options.version ?? (await projectVersion(directory))
  let warnings = ''
  let manifest = await upToDateManifest(directory, files)
  const upToDate = manifest !== undefined
  if (manifest === undefined) {
    options.onStage?.(`compiling firmware (${options.target})`)
    ;({ manifest, warnings } = await compile(directory, files, options))
  }
  const imageBytes = await writeImage(files, version, manifest)
  const { dwarf = true } = options
  if (dwarf && hasAddon()) await writeDebugModule(directory, files)
  else await rm(files.debugWasm, { force: true })
  return {
    target: options.target,
    artifacts: files,
    image: decodeImage(imageBytes),
    imageBytes,
    upToDate,
    warnings,
    remark: dwarf && !hasAddon() ? NO_DWARF : undefined,
  }
}

async function compile(
  directory: string,
  files: Artifacts,
  options: BuildOptions,
): Promise<{ manifest: Manifest; warnings: string }> {
  const outcome = await runAsc({
    directory,
    arguments: [
      ...['--config', 'asconfig.json', '--baseDir', directory, '--target', options.target],
      ...['--outFile', relative(directory, files.wasm), '--sourceMap'],
    ],
    colour: options.colour ?? false,
  })
  if (!outcome.ok) {
    throw new CommandError(`the firmware in ${shown(directory)} does not compile\n\n${outcome.diagnostics.trim()}`)
  }
  // Lines may have moved where the code did not change.
  await rm(files.debugWasm, { force: true })
  const wasm = await readFile(files.wasm)
  const problems = checkFirmware(wasm)
  if (problems.length > 0) {
    const list = problems.map((problem) => `  - ${problem}`).join('\n')
    throw new CommandError(`${shown(files.wasm)} compiled, but a board cannot run it:\n${list}`)
  }
  await replaceFile(files.sourceMap, withPackageFiles(await readFile(files.sourceMap, 'utf8'), filesOf(outcome.inputs)))
  await replaceFile(
    files.layouts,
    `${JSON.stringify(outcome.layouts, undefined, 1)}
`,
  )
  await replaceFile(files.symbols, `${JSON.stringify(outcome.symbols)}\n`)
  const manifest: Manifest = {
    format: MANIFEST_FORMAT,
    asc: outcome.version,
    inputs: Object.fromEntries(
      [...outcome.inputs]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, text]) => [name, text === null ? null : sha256(text)]),
    ),
    wasm: sha256(wasm),
    stateLayout: String(outcome.stateLayout),
  }
  await replaceFile(files.manifest, `${JSON.stringify(manifest, undefined, 1)}\n`)
  return { manifest, warnings: outcome.diagnostics.trim() }
}

/** Puts the module into an image, unless the one that is there already is it. */
async function writeImage(files: Artifacts, version: ImageVersion, { stateLayout }: Manifest): Promise<Uint8Array> {
  const bytes = encodeImage(await readFile(files.wasm), { version, protectedTlvs: [stateLayoutTlv(stateLayout)] })
  const present = await readIfPresent(files.image)
  if (present === undefined || Buffer.compare(present, bytes) !== 0) await replaceFile(files.image, bytes)
  return bytes
}

/** Puts DWARF behind the module, unless the one that is there already is made of it. */
async function writeDebugModule(directory: string, files: Artifacts): Promise<void> {
  const wasm = await readFile(files.wasm)
  const present = await readIfPresent(files.debugWasm)
  if (present !== undefined && belongsTo(present, wasm)) return
  const [sourceMap, layouts, symbols] = await Promise.all(
    [files.sourceMap, files.layouts, files.symbols].map((file) => readFile(file, 'utf8')),
  )
  await replaceFile(files.debugWasm, appendDwarf({ wasm, sourceMap, layouts, symbols, directory }))
}

/** What the results that are there were made from; undefined if they have to be made anew. */
async function upToDateManifest(directory: string, files: Artifacts): Promise<Manifest | undefined> {
  const manifest = await readManifest(files.manifest)
  if (manifest?.format !== MANIFEST_FORMAT || manifest.asc !== ascVersion()) return undefined
  const wasm = await readIfPresent(files.wasm)
  if (wasm === undefined || sha256(wasm) !== manifest.wasm) return undefined
  if (![files.layouts, files.symbols, files.sourceMap].every((file) => existsSync(file))) return undefined
  const same = await Promise.all(
    Object.entries(manifest.inputs).map(async ([name, digest]) => {
      const contents = await readIfPresent(resolve(directory, name))
      return (contents === undefined ? null : sha256(contents)) === digest
    }),
  )
  return same.every(Boolean) ? manifest : undefined
}

async function readManifest(path: string): Promise<Manifest | undefined> {
  const text = await readIfPresent(path)
  try {
    return text === undefined ? undefined : (JSON.parse(text.toString()) as Manifest)
  } catch {
    return undefined // cut short or not ours: the same as none, and overwritten by this build
  }
}

function runAsc(request: AscRequest): Promise<AscOutcome> {
  return new Promise((resolve, reject) => {
    // Compiled code sits beside this file; a URL is not rewritten from .ts as an import is.
    const worker = new Worker(new URL('./asc-worker.js', import.meta.url), { workerData: request })
    worker.once('message', resolve)
    worker.once('error', (error) => reject(new CommandError(`asc failed: ${errorMessage(error)}`, { cause: error })))
    worker.once('exit', (code) => reject(new CommandError(`asc ended without a result (exit code ${code})`)))
  })
}

async function projectVersion(directory: string): Promise<ImageVersion> {
  const text = await readIfPresent(join(directory, 'package.json'))
  const version: unknown = text === undefined ? undefined : JSON.parse(text.toString()).version
  return parseVersion(typeof version === 'string' ? version.replace(/[-+].*$/, '') : '0.0.0')
}

function ascVersion(): string {
  const require = createRequire(import.meta.url)
  return (require('assemblyscript/package.json') as { version: string }).version
}

function sha256(contents: Uint8Array | string): string {
  return createHash('sha256').update(contents).digest('hex')
}

function shown(path: string): string {
  return relative(process.cwd(), path) || '.'
}
