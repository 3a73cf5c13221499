/** Makes a firmware project's folder from a template. */
import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { errorCode, usageError } from '../errors.ts'
import { replaceFile } from '../files.ts'
import { packageRoot } from '../package-root.ts'
import { TEMPLATES, type TemplateName } from './templates.ts'

const TEMPLATE_ROOT = join(packageRoot, 'templates')
/** Files of every project. */
const COMMON = 'common'
/** Names that npm would not pack as they are. */
const STORED_NAMES: Readonly<Record<string, string>> = { gitignore: '.gitignore' }
/** The name of a package, of a farm and of its state folder. */
const PROJECT_NAME = /^[a-z][a-z0-9-]{0,30}$/

export interface ProjectOptions {
  /** The folder to make, with an absolute path; its last part is the project's name. */
  readonly directory: string
  readonly template: TemplateName
  /** How the project's package.json asks for this package. */
  readonly dependency: string
}

/** Makes the folder. Returns the paths of its files, from the folder. @throws CommandError if there is something in it, or for a name that cannot be */
export async function createProject({ directory, template, dependency }: ProjectOptions): Promise<string[]> {
  const name = basename(directory)
  if (!PROJECT_NAME.test(name)) {
    throw usageError(
      `'${name}' cannot be the name of a project`,
      'small letters, digits and hyphens, beginning with a letter, at most 31: inic new my-nic',
    )
  }
  if ((await entriesOf(directory)).length > 0) {
    throw usageError(`${relative(process.cwd(), directory) || '.'} is not empty`, 'choose another name')
  }
  const { about, network } = TEMPLATES[template]
  const values = { name, about, network, inic: dependency }
  const made: string[] = []
  for (const source of [COMMON, template]) {
    for (const path of await filesIn(join(TEMPLATE_ROOT, source))) {
      const target = join(dirname(path), STORED_NAMES[basename(path)] ?? basename(path))
      const text = await readFile(join(TEMPLATE_ROOT, source, path), 'utf8')
      await replaceFile(join(directory, target), fill(text, values))
      made.push(target)
    }
  }
  return made.sort()
}

/** Puts values in the places of {{name}}, {{inic}}, ... */
function fill(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(/\{\{(\w+)\}\}/g, (place, key: string) => values[key] ?? place)
}

/** Files below a folder, by their paths from it. */
async function filesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    if (!(await stat(directory)).isDirectory()) throw usageError(`there is a file ${directory}`, 'choose another name')
    return await readdir(directory)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  }
}
