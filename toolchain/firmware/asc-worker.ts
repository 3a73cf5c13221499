/**
 * Runs asc in a worker thread: compiling keeps a thread busy for seconds, and the one that shows progress and hears
 * Ctrl-C must not be it. One message comes back, an AscOutcome.
 */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { replaceFile } from '../files.ts'
import { layoutTransform } from './layout-transform.ts'
import type { Layouts } from './layouts.ts'
import { filesOf, packageFile, sourceFile } from './package-sources.ts'
import type { SourceSymbols } from './source-symbols.ts'
import { stateLayoutTransform } from './state-layout.ts'
import { symbolTransform } from './symbol-transform.ts'

export interface AscRequest {
  /** Folder that asc's paths count from; holds asconfig.json. */
  readonly directory: string
  readonly arguments: readonly string[]
  readonly colour: boolean
}

export interface AscOutcome {
  readonly ok: boolean
  /** Diagnostics as asc prints them, warnings too. */
  readonly diagnostics: string
  /** Absent if compiling failed before there were any. */
  readonly layouts: Layouts | undefined
  /** As `layouts`. */
  readonly symbols: SourceSymbols | undefined
  /** As `layouts`; 64 hexadecimal digits. */
  readonly stateLayout: string | undefined
  /** Files that asc asked for, relative to the directory; null for one that was not there. */
  readonly inputs: ReadonlyMap<string, string | null>
  readonly version: string
}

interface TextStream {
  readonly isTTY: boolean
  write(chunk: string): void
}

/** The part of asc's interface that is used; its own declarations would bring AssemblyScript's globals along. */
interface Asc {
  readonly version: string
  /** Files of the standard library, by name without extension. */
  readonly libraryFiles: Readonly<Record<string, string>>
  main(
    argv: readonly string[],
    options: {
      stdout: TextStream
      stderr: TextStream
      readFile(name: string, directory: string): Promise<string | null>
      writeFile(name: string, contents: Uint8Array | string, directory: string): Promise<void>
      transforms: readonly unknown[]
    },
  ): Promise<{ error: Error | null }>
}

/** Before the names of files that are not the project's own. */
const LIBRARY_PREFIX = '~lib/'
/** asc's remark that its last optimization made the module larger again: nothing that a person could mend. */
const NO_SMALLER = 'Last converge was suboptimal.'
const ASC_MODULE: string = 'assemblyscript/asc'

async function compile(request: AscRequest): Promise<AscOutcome> {
  const asc = (await import(ASC_MODULE)) as Asc
  const inputs = new Map<string, string | null>()
  let layouts: Layouts | undefined
  let symbols: SourceSymbols | undefined
  let stateLayout: string | undefined
  let diagnostics = ''
  const stream: TextStream = {
    isTTY: request.colour,
    write(chunk) {
      if (!chunk.startsWith(NO_SMALLER)) diagnostics += chunk
    },
  }
  const { error } = await asc.main(request.arguments, {
    stdout: stream,
    stderr: stream,
    async readFile(name, directory) {
      const text = await readFile(resolve(directory, name), 'utf8').catch(() => null)
      inputs.set(name, text)
      return text
    },
    writeFile: (name, contents, directory) => replaceFile(resolve(directory, name), contents),
    transforms: [
      layoutTransform(
        (classes) => {
          layouts = classes
        },
        (source) => packageFile(filesOf(inputs), source),
      ),
      symbolTransform((functions) => {
        symbols = { ...functions, files: functions.files.map((file) => sourceFile(filesOf(inputs), file)) }
      }),
      stateLayoutTransform(
        (path) =>
          path.startsWith(LIBRARY_PREFIX) && path.slice(LIBRARY_PREFIX.length, -'.ts'.length) in asc.libraryFiles,
        (layout) => {
          stateLayout = layout
        },
      ),
    ],
  })
  return { ok: error === null, diagnostics, layouts, symbols, stateLayout, inputs, version: asc.version }
}

parentPort?.postMessage(await compile(workerData as AscRequest))
