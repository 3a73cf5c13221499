/** Starts what a farm file lists as applications: each is a process of its server's main board, with a queue set of its own. */
import { pathToFileURL } from 'node:url'
import type { Board } from '../../emulator/board.ts'
import type { RandomStream } from '../../emulator/random.ts'
import { type BoardModule, startBoardProgram } from '../../host/board-program.ts'
import { DEFAULT_RAM_BYTES } from '../../host/driver/layout.ts'
import { startNodeProgram } from '../../host/node-program.ts'
import type { HostedProcess, ProcessExit, ProcessSettings } from '../../host/process.ts'
import type { ApplicationConfig } from '../config/farm-config.ts'
import { CommandError, usageError } from '../errors.ts'

export interface ApplicationOptions {
  readonly board: Board
  readonly application: ApplicationConfig
  /** For the card's Listening Sockets table; unique in the farm. */
  readonly processId: number
  /** Names that the program may connect to, with their addresses. */
  readonly hosts: Readonly<Record<string, string>>
  /** Servers that its connections can move to, with the address that names each. */
  readonly servers: Readonly<Record<string, string>>
  /** Where a board program draws its random numbers. */
  readonly random: RandomStream
  /** Takes a line that the program wrote. */
  readonly onLine: (source: string, line: string) => void
}

/** What a Node program sees of our own environment: where things are and how to write them, and nothing that may be secret. */
const PASSED_ON = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'NODE_ENV']

/**
 * Starts a program; its queue set goes back to the board when it ends.
 *
 * @throws CommandError if it is a board program that cannot be loaded; whatever goes wrong later is how the process ends
 */
export async function startApplication(options: ApplicationOptions): Promise<HostedProcess> {
  const { board, application, processId, hosts, servers, random, onLine } = options
  const name = `${board.name}/${application.name}`
  const isNode = application.kind === 'node'
  const module = isNode ? undefined : await loadBoardModule(name, application.program, processId)
  const { bus, set } = board.attachProcess({ ramBytes: DEFAULT_RAM_BYTES, shared: isNode })
  const settings: ProcessSettings = {
    name,
    program: application.program,
    args: application.args,
    env: { ...(isNode && inheritedEnvironment()), INIC_SERVER: board.name, ...application.env },
    hosts,
    servers,
    firstSpeakers: new Map(application.firstSpeakers),
    processId,
    output: (line) => onLine(name, line),
  }
  const memory = application.heapBytes === undefined ? {} : { memoryMb: Math.ceil(application.heapBytes / 2 ** 20) }
  const started =
    module === undefined
      ? startNodeProgram(bus, { ...settings, ...memory })
      : startBoardProgram(bus, board.hostClock, { ...settings, program: module, random: () => random.next() / 2 ** 32 })
  void started.exited.then(() => board.detachProcess(set))
  return started
}

/**
 * Loads a board program before time begins: reading files takes real time, which virtual time does not wait for. Each process
 * has the module to itself, as it would have on a board of its own.
 */
async function loadBoardModule(name: string, program: string, processId: number): Promise<BoardModule> {
  const url = pathToFileURL(program)
  url.searchParams.set('process', String(processId))
  let module: Partial<BoardModule>
  try {
    module = await import(url.href)
  } catch (error) {
    throw new CommandError(`${name} cannot be loaded: ${error instanceof Error ? error.stack : error}`, {
      cause: error,
    })
  }
  if (typeof module.main !== 'function') {
    throw usageError(
      `${name}: ${program} is no board program`,
      'it has to export a function: export function main(board) { ... }',
    )
  }
  return module as BoardModule
}

/** True if the program ended by itself and well. */
export function endedWell({ code, error }: ProcessExit): boolean {
  return code === 0 && error === null
}

function inheritedEnvironment(): Record<string, string> {
  return Object.fromEntries(
    PASSED_ON.flatMap((name) => {
      const value = process.env[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )
}
