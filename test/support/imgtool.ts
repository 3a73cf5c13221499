/** imgtool, MCUboot's own tool, from PyPI. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

let imgtool: Promise<string | { reason: string }> | undefined

/** Path of imgtool in a virtual environment in the user's cache, made once; or why there is none. */
export function findImgtool(): Promise<string | { reason: string }> {
  imgtool ??= installImgtool()
  return imgtool
}

async function installImgtool(): Promise<string | { reason: string }> {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'inic')
  const environment = join(cache, 'imgtool-2.5.0')
  const program = join(environment, 'bin', 'imgtool')
  if (existsSync(program)) return program
  try {
    await mkdir(cache, { recursive: true })
    await run('python3', ['-m', 'venv', environment])
    await run(join(environment, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', 'imgtool==2.5.0'])
    return program
  } catch (error) {
    return {
      reason: `imgtool cannot be installed with pip (${error instanceof Error ? error.message.split('\n')[0] : error})`,
    }
  }
}
