/** A person at a terminal, or a file of commands, before the debugger's command line. */
import type { EventEmitter } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import type { Outcome } from './repl.ts'

export interface CommandLineEvents {
  output: [text: string]
  /** The farm has ended. */
  terminated: []
}

/** The debugger's command line: in this process, or in the farm's. */
export interface TerminalCommandLine extends EventEmitter<CommandLineEvents> {
  readonly prompt: string
  execute(line: string): Promise<Outcome>
  complete(line: string): readonly string[] | Promise<readonly string[]>
  interrupt(): void
}

const MAXIMUM_HISTORY = 1000

/**
 * Runs the lines of a file and prints what a person would see who types them. Stops at the first that goes wrong.
 *
 * @returns false if one went wrong; `ended` if one of them was `quit`
 */
export async function runLines(
  commandLine: TerminalCommandLine,
  lines: readonly string[],
  write: (text: string) => void,
): Promise<{ readonly ok: boolean; readonly ended: boolean }> {
  const onOutput = (text: string) => write(text)
  commandLine.on('output', onOutput)
  try {
    for (const line of lines) {
      // An empty line of a file is there for its reader, and repeats nothing.
      if (line.trim() === '') continue
      write(`${commandLine.prompt}${line}\n`)
      const { text, ok, ended } = await commandLine.execute(line)
      write(text)
      if (!ok || ended !== undefined) return { ok, ended: true }
    }
    return { ok: true, ended: false }
  } finally {
    commandLine.off('output', onOutput)
  }
}

export interface TerminalOptions {
  readonly input: NodeJS.ReadableStream
  readonly output: NodeJS.WritableStream
  /** False: lines come from a pipe; they are not edited, and there are no prompts. */
  readonly interactive: boolean
  /** Where lines are remembered; undefined: nowhere. */
  readonly historyFile: string | undefined
}

/** Reads and runs lines until `quit`, the end of the input, or of the farm. */
export class Terminal {
  readonly #commandLine: TerminalCommandLine
  readonly #options: TerminalOptions
  readonly #lines: string[] = []
  readonly #readline: Interface
  #busy = false
  #closed = false
  #finish: () => void = () => {}

  constructor(commandLine: TerminalCommandLine, options: TerminalOptions) {
    this.#commandLine = commandLine
    this.#options = options
    const { input, output, interactive } = options
    this.#readline = createInterface({
      input,
      output,
      terminal: interactive,
      historySize: MAXIMUM_HISTORY,
      history: readHistory(options.historyFile),
      removeHistoryDuplicates: true,
      completer: (line: string, answer: (error: null, result: [string[], string]) => void) => {
        void Promise.resolve(commandLine.complete(line)).then((items) => answer(null, lastWords(items, line)))
      },
    })
  }

  async run(): Promise<void> {
    const done = new Promise<void>((resolve) => {
      this.#finish = resolve
    })
    this.#commandLine.on('output', this.#onOutput)
    this.#commandLine.on('terminated', this.#onTerminated)
    this.#readline.on('line', (line) => {
      this.#lines.push(line)
      void this.#work()
    })
    this.#readline.on('SIGINT', () => this.#interrupt())
    this.#readline.on('history', (history: string[]) => writeHistory(this.#options.historyFile, history))
    this.#readline.on('close', () => {
      this.#closed = true
      if (this.#busy) this.#commandLine.interrupt()
      else if (this.#lines.length === 0) this.#finish()
    })
    this.#prompt()
    await done
    this.#commandLine.off('output', this.#onOutput)
    this.#commandLine.off('terminated', this.#onTerminated)
    this.#readline.close()
  }

  /** Runs the lines that have come, one after the other. */
  async #work(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) {
      const { text, ended } = await this.#commandLine.execute(line)
      this.#options.output.write(text)
      if (ended !== undefined) return this.#finish()
    }
    this.#busy = false
    if (this.#closed) this.#finish()
    else this.#prompt()
  }

  #interrupt(): void {
    if (this.#busy) return this.#commandLine.interrupt()
    this.#options.output.write('\n(q leaves)\n')
    // What was typed so far is given up.
    this.#readline.write(null, { ctrl: true, name: 'u' })
    this.#prompt()
  }

  #prompt(): void {
    if (!this.#options.interactive) return
    this.#readline.setPrompt(this.#commandLine.prompt)
    this.#readline.prompt(true)
  }

  readonly #onOutput = (text: string): void => {
    const atPrompt = this.#options.interactive && !this.#busy
    this.#options.output.write(atPrompt ? `\r\x1b[K${text}` : text)
    if (atPrompt) this.#readline.prompt(true)
  }

  readonly #onTerminated = (): void => {
    this.#options.output.write('The farm has ended.\n')
    this.#finish()
  }
}

/** Candidates, which are whole lines, as their last words, and what of the line these take the place of. */
function lastWords(items: readonly string[], line: string): [string[], string] {
  const start = /[\w$-]*$/.exec(line)!.index
  const head = line.slice(0, start)
  if (!items.every((item) => item.startsWith(head))) return [[...items], line]
  return [items.map((item) => item.slice(start)), line.slice(start)]
}

function readHistory(file: string | undefined): string[] {
  if (file === undefined) return []
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .slice(0, MAXIMUM_HISTORY)
  } catch {
    return [] // there is none yet
  }
}

/** A history that cannot be kept is no reason to stop debugging. */
function writeHistory(file: string | undefined, history: readonly string[]): void {
  if (file === undefined) return
  try {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, history.map((line) => `${line}\n`).join(''), { mode: 0o600 })
  } catch {}
}
