/** What the parts of the adapter share. */
import type { DebugProtocol } from '@vscode/debugprotocol'
import type { BreakpointBook } from '../front/breakpoint-book.ts'
import type { SourceFiles } from '../front/source-files.ts'
import type { DebugTarget } from '../front/target.ts'
import type { SessionApi } from '../session/api.ts'
import type { Arguments } from './arguments.ts'
import type { References } from './references.ts'

/** Lines and columns as the client counts them, and as we do: from 1. */
export interface Counting {
  lineToClient(line: number): number
  columnToClient(column: number): number
  lineFromClient(line: number): number
  columnFromClient(column: number): number
}

export interface DapContext {
  /** @throws RequestError before a farm was launched or attached to */
  readonly target: DebugTarget
  /** @throws RequestError as `target` */
  readonly session: SessionApi
  readonly book: BreakpointBook
  readonly files: SourceFiles
  readonly references: References
  readonly counting: Counting
  /** Files that a client knows by number, because it cannot open them itself. */
  readonly sourceNumbers: string[]
  /** Run without debugging: breakpoints are not set. */
  readonly noDebug: boolean
  send(event: DebugProtocol.Event): void
}

/** Carries out one request and gives the body of its answer. @throws RequestError, DebugError, CommandError: the answer */
export type Handler = (args: Arguments, requestId: number) => object | Promise<object>

export type Handlers = Readonly<Record<string, Handler>>
