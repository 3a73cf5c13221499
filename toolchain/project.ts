/** The firmware project that a command is run in. */
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { packageRoot } from './package-root.ts'

/** What makes a folder a firmware project. */
const PROJECT_FILE = 'asconfig.json'
/** The farm that a project's commands mean when none is named. */
const FARM_FILE = 'farm.json'

/** The folder of the firmware project that `from` lies in, or undefined if it lies in none. */
export function findProject(from = process.cwd()): string | undefined {
  for (let directory = resolve(from); ; directory = dirname(directory)) {
    if (isProject(directory)) return directory
    if (dirname(directory) === directory) return undefined
  }
}

export function isProject(directory: string): boolean {
  return existsSync(join(directory, PROJECT_FILE))
}

/** The project that a command without an argument works on: the one that it is run in, or else ipOS's own, in this package. */
export function projectOrOwn(): string {
  return findProject() ?? packageRoot
}

/** The farm file of the project that the command is run in; undefined if there is none. */
export function projectFarm(): string | undefined {
  const project = findProject()
  const file = project && join(project, FARM_FILE)
  return file !== undefined && existsSync(file) ? file : undefined
}

/**
 * Folders in whose builds a command looks for what is known of a firmware: the projects that are named, the one that it is run in, ipOS's own.
 *
 * @param named what servers boot, as farm files say it: folders of projects, image files, undefined for ipOS
 */
export function knownProjects(named: readonly (string | undefined)[] = []): string[] {
  const projects = named.filter((path): path is string => path !== undefined && isProject(path))
  return [...new Set([...projects, projectOrOwn(), packageRoot])]
}
