/**
 * Counts of executed instructions, kept in a folder for whoever asked for them: `inic coverage -- COMMAND`. Every farm in virtual time
 * counts in a process whose environment names the folder, whatever has made the farm.
 *
 *     SHA256.wasm                     a firmware that ran
 *     SHA256-PID-THREAD.counts.json   { "sha256": …, "counts": [[offset, times], …] }: of one thread, all its boards together
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { threadId } from 'node:worker_threads'
import type { CountSink } from './cpu/counting.ts'

/** The environment variable that names the folder. */
export const COUNT_FOLDER_VARIABLE = 'INIC_COVERAGE'

/** What a file of counts holds. */
export interface CountFile {
  readonly sha256: string
  /** Offset in the module, and how often the instruction there ran. */
  readonly counts: readonly (readonly [number, number])[]
}

interface Module {
  readonly sha256: string
  /** Of boards that are off. */
  readonly sum: Float64Array
  readonly running: Set<Uint32Array>
}

export class CountFolder implements CountSink {
  readonly #directory: string
  readonly #modules: Module[] = []
  readonly #byBytes = new WeakMap<Uint8Array, Module>()
  readonly #byHistogram = new Map<Uint32Array, Module>()

  constructor(directory: string) {
    this.#directory = directory
    mkdirSync(directory, { recursive: true })
  }

  began(module: Uint8Array, histogram: Uint32Array): void {
    const known = this.#moduleOf(module, histogram.length)
    known.running.add(histogram)
    this.#byHistogram.set(histogram, known)
  }

  /** Adds the counts of a board that is switched off, and writes all that are known of its firmware. */
  ended(histogram: Uint32Array): void {
    const module = this.#byHistogram.get(histogram)
    if (module === undefined) return
    this.#byHistogram.delete(histogram)
    module.running.delete(histogram)
    add(module.sum, histogram)
    this.#write(module)
  }

  /** Writes the counts of boards that nobody has switched off, too. */
  close(): void {
    for (const module of this.#modules) this.#write(module)
  }

  #moduleOf(wasm: Uint8Array, length: number): Module {
    let module = this.#byBytes.get(wasm)
    if (module === undefined) {
      const sha256 = createHash('sha256').update(wasm).digest('hex')
      module = this.#modules.find((one) => one.sha256 === sha256)
      if (module === undefined) {
        module = { sha256, sum: new Float64Array(length), running: new Set() }
        this.#modules.push(module)
        const path = join(this.#directory, `${sha256}.wasm`)
        if (!existsSync(path)) this.#replace(path, wasm)
      }
      this.#byBytes.set(wasm, module)
    }
    return module
  }

  #write({ sha256, sum, running }: Module): void {
    const total = Float64Array.from(sum)
    for (const histogram of running) add(total, histogram)
    const counts: [number, number][] = []
    for (const [pc, count] of total.entries()) if (count > 0) counts.push([pc, count])
    const file: CountFile = { sha256, counts }
    this.#replace(join(this.#directory, `${sha256}-${process.pid}-${threadId}.counts.json`), JSON.stringify(file))
  }

  /** No reader sees half of a file. */
  #replace(path: string, contents: string | Uint8Array): void {
    const temporary = `${path}.${process.pid}-${threadId}`
    writeFileSync(temporary, contents)
    renameSync(temporary, path)
  }
}

function add(sum: Float64Array, histogram: Uint32Array): void {
  for (const [pc, count] of histogram.entries()) if (count !== 0) sum[pc] += count
}

let folder: CountFolder | null | undefined

/** The folder that the environment asks for, or null. Throws what making it throws. */
export function countFolder(): CountFolder | null {
  if (folder === undefined) {
    const directory = process.env[COUNT_FOLDER_VARIABLE]
    folder = directory === undefined || directory === '' ? null : new CountFolder(directory)
    if (folder !== null) process.once('exit', () => folder?.close())
  }
  return folder
}
