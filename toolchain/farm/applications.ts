/** Starts what a farm file lists as applications: each is a process of its server's main board, with a queue set of its own. */
import type { Board } from '../../emulator/board.ts'
import type { RandomStream } from '../../emulator/random.ts'
import { startBoardProgram } from '../../host/board-program.ts'
import { DEFAULT_RAM_BYTES } from '../../host/driver/layout.ts'
import { startNodeProgram } from '../../host/node-program.ts'
import type { HostedProcess, ProcessExit, ProcessSettings } from '../../host/process.ts'
import type { ApplicationConfig } from '../config/farm-config.ts'

export interface ApplicationOptions {
  readonly board: Board
  readonly application: ApplicationConfig
  /** For the card's Listening Sockets table; unique in the farm. */
  readonly processId: number
  /** Names that the program may connect to, with their addresses. */
  readonly hosts: Readonly<Record<string, string>>
  /** Where a board program draws its random numbers. */
  readonly random: RandomStream
  /** Takes a line that the program wrote. */
  readonly onLine: (source: string, line: string) => void
}

/** What a Node program sees of our own environment: where things are and how to write them, and nothing that may be secret. */
const PASSED_ON = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'NODE_ENV']

/** Starts a program; its queue set goes back to the board when it ends. */
export function startApplication(options: ApplicationOptions): HostedProcess {
  const { board, application, processId, hosts, random, onLine } = options
  const name = `${board.name}/${application.name}`
  const isNode = application.kind === 'node'
  const { bus, set } = board.attachProcess({ ramBytes: DEFAULT_RAM_BYTES, shared: isNode })
  const settings: ProcessSettings = {
    name,
    program: application.program,
    args: application.args,
    env: { ...(isNode && inheritedEnvironment()), INIC_SERVER: board.name, ...application.env },
    hosts,
    firstSpeakers: new Map(application.firstSpeakers),
    processId,
    output: (line) => onLine(name, line),
  }
  const memory = application.heapBytes === undefined ? {} : { memoryMb: Math.ceil(application.heapBytes / 2 ** 20) }
  const started = isNode
    ? startNodeProgram(bus, { ...settings, ...memory })
    : startBoardProgram(bus, board.hostClock, { ...settings, random: () => random.next() / 2 ** 32 })
  void started.exited.then(() => board.detachProcess(set))
  return started
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
