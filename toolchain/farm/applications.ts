import type { Board } from '../../emulator/board.ts'
import type { ApplicationConfig } from '../config/farm-config.ts'

/** A program on a main board. */
export interface Application {
  readonly name: string
  /** Settles when the program has ended: with why, if it did not end by itself. */
  readonly exited: Promise<Error | undefined>
  stop(): Promise<void>
}

export interface ApplicationOptions {
  readonly board: Board
  readonly server: string
  readonly application: ApplicationConfig
  /** Names that the program may connect to. */
  readonly hosts: ReadonlyMap<string, string>
  readonly onLine: (line: string) => void
}

export async function startApplication(_options: ApplicationOptions): Promise<Application> {
  throw new Error('not yet')
}
