/** Reads farm files, and knows the farm that runs when there is none. */
import { readFile } from 'node:fs/promises'
import { relative, resolve } from 'node:path'
import { errorCode, usageError } from '../errors.ts'
import { packageRoot } from '../package-root.ts'
import { projectFarm } from '../project.ts'
import { checkFarm } from './farm-checks.ts'
import type { FarmConfig } from './farm-config.ts'
import { farmFileReader } from './farm-file.ts'
import { type Issue, issuesError } from './issues.ts'
import { JsonDocument } from './reader.ts'
import type { Report } from './report.ts'
import { resolveFarm } from './resolve-farm.ts'

/** What a farm file says: the farm, unless something is wrong with it, and every fault that was found. */
export interface ReadFarm {
  /** As it is shown to people. */
  readonly path: string
  readonly text: string
  readonly farm: FarmConfig | undefined
  readonly issues: readonly Issue[]
}

/** The farm of a file. @throws CommandError (exit code 2) that shows every fault with its line. */
export async function loadFarm(path: string): Promise<FarmConfig> {
  return parseFarm(await readText(path), path)
}

/** The farm of a file, with every fault that is found in it. @throws CommandError (exit code 2) if it cannot be read */
export async function readFarm(path: string): Promise<ReadFarm> {
  return examineFarm(await readText(path), path)
}

/**
 * The farm that is meant when none is named: that of the firmware project that the command is run in, or else FIG. 3's addresses with one server,
 * and the example shop on it: server 1 is 123.123.123.1 behind router A and 222.222.222.1 behind router B.
 */
export async function defaultFarm(): Promise<FarmConfig> {
  const path = projectFarm()
  if (path !== undefined) return loadFarm(path)
  return { ...(await loadFarm(EXAMPLE_FARM)), file: undefined }
}

/** Where `defaultFarm` is read from. */
export function defaultFarmPath(): string {
  return projectFarm() ?? EXAMPLE_FARM
}

const EXAMPLE_FARM = resolve(packageRoot, 'examples', 'one-server.json')

/** The farm that `text` describes; `path` is for messages, and programs are found from its folder. */
export function parseFarm(text: string, path: string): FarmConfig {
  const { farm, issues, path: shownPath } = examineFarm(text, path)
  if (farm === undefined) throw issuesError(shownPath, text, issues)
  return farm
}

function examineFarm(text: string, path: string): ReadFarm {
  const document = new JsonDocument(text)
  const report: Report = (at, message, hint) => document.reportAt(at, message, hint)
  const raw = document.read(farmFileReader)
  const farm = raw && resolveFarm(raw, path, report)
  if (farm) checkFarm(farm, report, document.issues.length === 0)
  const { issues } = document
  return { path: shown(path), text, farm: issues.length > 0 ? undefined : farm, issues }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const reason = { ENOENT: 'there is no such file', EISDIR: 'it is a folder', EACCES: 'you may not read it' }[
      errorCode(error) ?? ''
    ]
    if (reason === undefined) throw error
    throw usageError(`${shown(path)} is no farm file: ${reason}`, 'name one, as in: inic run examples/farm.json')
  }
}

function shown(path: string): string {
  const fromHere = relative(process.cwd(), path)
  return fromHere.startsWith('..') ? resolve(path) : fromHere
}
