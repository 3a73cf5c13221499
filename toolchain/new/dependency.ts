/**
 * How a new project asks for this package: as it was asked for itself. What came from the registry is asked for by its version, what came from a
 * packed file or a folder by that, so that the project installs where this package did, with or without the registry.
 */
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { packageRoot, packageVersion } from '../package-root.ts'

const NODE_MODULES = 'node_modules'
/** npm's own record of what lies in a node_modules folder. */
const LOCK_FILE = '.package-lock.json'

/** The version or path for package.json in `directory`. @param root folder of this package */
export function dependencyOn(directory: string, root = packageRoot): string {
  const modules = dirname(root)
  // A folder that was cloned, or linked into a project.
  if (basename(modules) !== NODE_MODULES) return fileReference(directory, root)
  const resolved = resolvedPath(modules, basename(root))
  return resolved !== undefined && existsSync(resolved) ? fileReference(directory, resolved) : `^${packageVersion}`
}

/** The file or folder that npm installed a package from; undefined if it was the registry, or npm does not say. */
function resolvedPath(modules: string, name: string): string | undefined {
  try {
    const lock: unknown = JSON.parse(readFileSync(join(modules, LOCK_FILE), 'utf8'))
    const { resolved } = (lock as { packages: Record<string, { resolved?: unknown }> }).packages[
      `${NODE_MODULES}/${name}`
    ]
    if (typeof resolved !== 'string' || !resolved.startsWith('file:')) return undefined
    return resolve(dirname(modules), decodeURI(resolved.slice('file:'.length)))
  } catch {
    return undefined // another package manager, or another form: the version says enough
  }
}

function fileReference(directory: string, path: string): string {
  const from = relative(directory, path)
  return `file:${from.startsWith('.') ? from : `./${from}`}`
}
