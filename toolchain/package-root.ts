import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Folder of this package. Compiled code runs from dist/, while firmware sources, examples and the built addon keep their
 * places, so they are found from here.
 */
export const packageRoot = findPackageRoot()

/** Version of this package. */
export const packageVersion = readPackage(packageRoot).version

function findPackageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json')) || readPackage(directory).name !== 'inic') {
    const parent = dirname(directory)
    if (parent === directory) throw new Error(`no package.json of 'inic' above ${fileURLToPath(import.meta.url)}`)
    directory = parent
  }
  return directory
}

function readPackage(directory: string): { name: string; version: string } {
  return JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
}
