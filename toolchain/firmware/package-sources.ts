/**
 * Sources that come from a package. asc calls the file node_modules/inic/firmware/hal/uart.ts `~lib/inic/firmware/hal/uart`, as it
 * calls its own standard library; people and debuggers want the file.
 */

const LIBRARY_PREFIX = '~lib/'
const ENDING = '.ts'

/** Files that were there, of those that asc asked for. */
export function filesOf(inputs: ReadonlyMap<string, string | null>): string[] {
  return [...inputs].flatMap(([name, text]) => (text === null ? [] : [name]))
}

/**
 * The file, without its ending, behind a source that asc names `~lib/...`; undefined if it is of the standard library.
 *
 * @param files that asc has read, as it asked for them
 * @param source name of the source, with or without its ending
 */
export function packageFile(files: readonly string[], source: string): string | undefined {
  const path = `node_modules/${source.slice(LIBRARY_PREFIX.length).replace(/\.ts$/, '')}${ENDING}`
  for (const name of files) {
    if (name === path || name.endsWith(`/${path}`)) return name.slice(0, -ENDING.length)
  }
  return undefined
}

/** The file of a source, by whichever name; asc's own name of it where there is no file. @param files that asc has read */
export function sourceFile(files: readonly string[], source: string): string {
  const file = source.startsWith(LIBRARY_PREFIX) ? packageFile(files, source) : undefined
  return file === undefined ? source : file + ENDING
}

/** A source map whose sources are files, as far as there are files: for a debugger to open, and a crash report to name. */
export function withPackageFiles(sourceMap: string, files: readonly string[]): string {
  const map = JSON.parse(sourceMap) as { sources: string[] }
  return JSON.stringify({ ...map, sources: map.sources.map((source) => sourceFile(files, source)) })
}
