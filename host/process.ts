import type { OutputListener } from './output.ts'
import type { FirstSpeaker } from './stack.ts'

/** What both kinds of process are told. */
export interface ProcessSettings {
  /** For people and for the program: `server1/shop`. */
  readonly name: string
  /** Path of the program's file, or its file: URL. */
  readonly program: string
  /** `process.argv` from the third on, or `board.args`. */
  readonly args?: readonly string[]
  /** Environment, all of it. */
  readonly env?: Readonly<Record<string, string>>
  /** Names that resolve, to IPv4 addresses. */
  readonly hosts?: Readonly<Record<string, string>>
  /** Servers of the farm that connections can move to, and the IPv4 address that names each. */
  readonly servers?: Readonly<Record<string, string>>
  /** Who speaks first on which port, for listeners that do not say so. */
  readonly firstSpeakers?: ReadonlyMap<number, FirstSpeaker>
  /** For the card's Listening Sockets table. */
  readonly processId?: number
  readonly output?: OutputListener
}

/** How a process ended. */
export interface ProcessExit {
  /** 0 = by itself, or because it was asked to. */
  readonly code: number
  /** What it did not catch, if that ended it. */
  readonly error: Error | null
}

/** How a process is. */
export interface ProcessReport {
  /** What its program uses of the main board. */
  readonly memoryKib: number
  /** Since the last report. */
  readonly cpuPermille: number
  /** Since `drain`: connections that have moved; and those of its servers that it has. */
  readonly moved: number
  readonly left: number
}

/** A process of a main board: a queue set, a driver, sockets, and an application. */
export interface HostedProcess {
  readonly name: string
  /** Never rejects. By then the queue set is disabled; detaching it from the board is the caller's. */
  readonly exited: Promise<ProcessExit>
  /** Asks it to end, and ends it after `graceMs` (default 1000). */
  stop(graceMs?: number): Promise<ProcessExit>
  /** Has its servers move their connections away, to server `to` or to whichever is best, until `endDrain`. */
  drain(to?: string): void
  endDrain(): void
  /** Undefined if it has ended, or does not answer. */
  report(): Promise<ProcessReport | undefined>
}

/** `server1/shop ended with code 1: TypeError: ...` and the stack, for people. */
export function describeExit(name: string, exit: ProcessExit): string {
  const how = `${name} ended with code ${exit.code}`
  return exit.error === null ? how : `${how}: ${exit.error.stack ?? exit.error.message}`
}
