/** Source text of the firmware, as far as it is on this machine. */
import { readFileSync, statSync } from 'node:fs'
import { isAbsolute, join, relative, sep } from 'node:path'
import { packageRoot } from '../../package-root.ts'

/** asc's own library, whose files are called `~lib/...`. */
const LIBRARY_PREFIX = '~lib/'
const LIBRARY_FOLDER = join(packageRoot, 'node_modules/assemblyscript/std/assembly')
/** A file longer than this is no source that a person wrote. */
const MAXIMUM_BYTES = 16 * 1024 * 1024

export class SourceFiles {
  readonly #known: () => readonly string[]
  readonly #roots: readonly string[]
  readonly #paths = new Map<string, string | undefined>()
  readonly #lines = new Map<string, readonly string[] | undefined>()

  /**
   * @param known the files that lines are known of, absolute where they are on this machine
   * @param roots folders that the others may lie in
   */
  constructor(known: () => readonly string[], roots: readonly string[] = [process.cwd(), packageRoot]) {
    this.#known = known
    this.#roots = roots
  }

  /** Absolute path of a file as the engine names it; undefined if it is not on this machine. */
  path(file: string): string | undefined {
    if (!this.#paths.has(file)) this.#paths.set(file, this.#find(file))
    return this.#paths.get(file)
  }

  /** The shortest name that tells a person which file it is. */
  shortName(file: string): string {
    for (const root of this.#roots) {
      const name = relative(root, file)
      if (isAbsolute(file) && !name.startsWith('..')) return name.split(sep).join('/')
    }
    return file
  }

  /** Lines of a file, the first at index 0; undefined if it is not on this machine. */
  lines(file: string): readonly string[] | undefined {
    if (!this.#lines.has(file)) this.#lines.set(file, this.#read(file))
    return this.#lines.get(file)
  }

  #find(file: string): string | undefined {
    const candidates = [
      ...(isAbsolute(file) ? [file] : []),
      ...this.#known().filter((name) => isAbsolute(name) && name.endsWith(`/${file}`)),
      ...(file.startsWith(LIBRARY_PREFIX) ? [join(LIBRARY_FOLDER, file.slice(LIBRARY_PREFIX.length))] : []),
      ...(isAbsolute(file) ? [] : this.#roots.map((root) => join(root, file))),
    ]
    return candidates.find(isSource)
  }

  #read(file: string): readonly string[] | undefined {
    const path = this.path(file)
    if (path === undefined) return undefined
    try {
      return readFileSync(path, 'utf8').split(/\r?\n/)
    } catch {
      return undefined // gone since it was found
    }
  }
}

function isSource(path: string): boolean {
  const status = statSync(path, { throwIfNoEntry: false })
  return status?.isFile() === true && status.size <= MAXIMUM_BYTES
}
