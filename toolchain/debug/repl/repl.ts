/**
 * The debugger's command line, without its terminal: lines in, text out. gdb's habits: commands may be cut short, an empty line
 * repeats, `if` makes a condition.
 */
import { EventEmitter } from 'node:events'
import { errorMessage } from '../../errors.ts'
import type { BreakpointBook } from '../front/breakpoint-book.ts'
import { DebugError, type DebugEvents, type SessionApi } from '../session/api.ts'
import { BREAKPOINT_COMMANDS } from './breakpoint-commands.ts'
import { CommandTable, type ReplCommand, splitCommand } from './command.ts'
import { ReplContext, ReplError } from './context.ts'
import { DISPLAY_COMMANDS, splitFormat } from './display-commands.ts'
import { INFO_COMMANDS } from './info-commands.ts'
import { RUN_COMMANDS } from './run-commands.ts'
import { helpCommand, SESSION_COMMANDS } from './session-commands.ts'
import { showPlace } from './show.ts'
import { SOURCE_COMMANDS } from './source-commands.ts'

const COMMANDS: readonly ReplCommand[] = [
  ...RUN_COMMANDS,
  ...BREAKPOINT_COMMANDS,
  ...DISPLAY_COMMANDS,
  ...SOURCE_COMMANDS,
  ...INFO_COMMANDS,
  ...SESSION_COMMANDS,
]
const TABLE = new CommandTable([...COMMANDS, helpCommand(COMMANDS)])
/** Longest line that is looked at, characters. */
const MAXIMUM_LINE = 16 * 1024
/** Breakpoints' commands may continue to further breakpoints with commands, so often. */
const MAXIMUM_SCRIPT_DEPTH = 100

export interface ReplOptions {
  readonly colour: boolean
  /** The INIC that is selected at first. */
  readonly server?: string
  /** Breakpoints that are somebody else's, too. */
  readonly book?: BreakpointBook
  /** False: log points and console lines are shown by somebody else. */
  readonly echoesOutput?: boolean
}

export interface Outcome {
  /** What the command printed, lines with their ends. */
  readonly text: string
  /** False if the command was wrong, or failed. */
  readonly ok: boolean
  /** The session is to end: `quit` and `detach`. */
  readonly ended?: 'quit' | 'detach'
}

interface ReplEvents {
  /** Text that comes by itself: log points, lines of consoles. */
  output: [text: string]
  /** The farm has ended. */
  terminated: []
}

export class Repl extends EventEmitter<ReplEvents> {
  readonly #context: ReplContext
  readonly #session: SessionApi
  #last = ''
  #depth = 0
  #busy = false

  /** @throws ReplError if there is no server of that name */
  constructor(session: SessionApi, options: ReplOptions) {
    super()
    this.#session = session
    this.#context = new ReplContext(session, options)
    this.#context.runLines = (lines) => this.#runScript(lines)
    if (options.echoesOutput !== false) session.on('output', this.#onOutput)
    session.on('breakpoint', this.#onBreakpoint)
    session.on('terminated', this.#onTerminated)
  }

  /** What stands before the cursor. */
  get prompt(): string {
    if (this.#context.collecting) return '> '
    const past = this.#session.state === 'halted' && !this.#session.position.live
    return `(inic${past ? ' past' : ''}) `
  }

  /** What a person sees first: where the farm stands. */
  greeting(): string {
    const { stop, threads, state } = this.#session
    const names = threads.map(({ name }) => name).join(', ')
    this.#context.print(`${threads.length === 1 ? 'INIC' : 'INICs'}: ${names}; help tells the commands`)
    if (state === 'halted') {
      // It was halted for us; whoever halted it before has more to say.
      if (stop !== null && stop.reason !== 'entry' && stop.reason !== 'pause') this.#context.print(stop.text)
      showPlace(this.#context)
    }
    return this.#context.take()
  }

  /** Runs one line. Resolves when the command is over: one that lets the farm run, at the next stop. */
  async execute(line: string): Promise<Outcome> {
    if (this.#busy) return { text: 'the command before is not over\n', ok: false }
    this.#busy = true
    try {
      return await this.#execute(line)
    } finally {
      this.#busy = false
    }
  }

  /** Halts the farm if it runs; what `execute` waits for then comes. */
  interrupt(): void {
    if (this.#session.state === 'running') this.#session.pause().catch(() => {}) // it stopped by itself meanwhile
  }

  /** What the end of the line may become, each a whole line. */
  complete(line: string): readonly string[] {
    try {
      return this.#complete(line)
    } catch {
      return [] // nothing to offer for what cannot be understood
    }
  }

  /** Lets go of the session, which goes on. */
  close(): void {
    this.#session.off('output', this.#onOutput)
    this.#session.off('breakpoint', this.#onBreakpoint)
    this.#session.off('terminated', this.#onTerminated)
  }

  async #execute(line: string): Promise<Outcome> {
    const context = this.#context
    try {
      if (line.length > MAXIMUM_LINE) throw new ReplError(`a line has at most ${MAXIMUM_LINE} characters`)
      await this.#dispatch(line)
      return { text: context.take(), ok: true, ...(context.ended !== undefined && { ended: context.ended }) }
    } catch (error) {
      const known = error instanceof ReplError || error instanceof DebugError
      const message = known
        ? error.message
        : `a defect of inic itself: ${(error as Error).stack ?? errorMessage(error)}`
      return { text: `${context.take()}${context.paint('red', message)}\n`, ok: false }
    }
  }

  async #dispatch(line: string): Promise<void> {
    const context = this.#context
    if (context.collecting) return this.#collect(line.trim())
    let text = line.trim()
    if (text.startsWith('#')) return
    if (text === '') text = this.#last
    if (text === '') return
    const { word, args } = splitCommand(text)
    const command = TABLE.find(word)
    this.#last = command.repeats === 'same' ? text : command.repeats === 'bare' ? command.names[0] : ''
    await command.run(context, args)
  }

  #collect(line: string): void {
    const { collecting } = this.#context
    if (line !== 'end') {
      collecting!.lines.push(line)
      return
    }
    if (collecting!.lines.length === 0) this.#context.scripts.delete(collecting!.number)
    else this.#context.scripts.set(collecting!.number, collecting!.lines)
    this.#context.collecting = undefined
  }

  async #runScript(lines: readonly string[]): Promise<void> {
    if (this.#depth === MAXIMUM_SCRIPT_DEPTH)
      throw new ReplError(`commands of breakpoints are nested ${this.#depth} deep`)
    this.#depth++
    try {
      for (const line of lines) {
        if (this.#context.ended !== undefined) return
        if (line !== 'silent') await this.#dispatch(line)
      }
    } finally {
      this.#depth--
    }
  }

  #complete(line: string): readonly string[] {
    const typed = line.trimStart()
    const { word, args } = splitCommand(typed)
    if (typed === word) return TABLE.matching(word)
    const command = TABLE.find(word)
    if (command.complete !== undefined) {
      const head = typed.replace(/\S*$/, '')
      return command.complete(this.#context, args).map((candidate) => head + candidate)
    }
    if (this.#session.state === 'running') return []
    const { rest } = splitFormat(args)
    const head = typed.slice(0, typed.length - rest.length)
    const { thread, frame } = this.#context
    return this.#session.complete(rest, thread, frame).map((expression) => head + expression)
  }

  readonly #onOutput = (...[category, source, text]: DebugEvents['output']): void => {
    const prefix = category === 'console' ? `${this.#context.paint('dim', `${source} |`)} ` : ''
    this.emit('output', `${prefix}${text}\n`)
  }

  readonly #onBreakpoint = (...[breakpoint, change]: DebugEvents['breakpoint']): void => {
    this.#context.book.update(breakpoint, change)
  }

  readonly #onTerminated = (): void => {
    this.emit('terminated')
  }
}
