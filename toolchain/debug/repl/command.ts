/** A command of the REPL, and how what a person types finds it. */
import { type ReplContext, ReplError } from './context.ts'

export interface ReplCommand {
  /** The full name first, then those that mean it although they are no unique prefix. */
  readonly names: readonly string[]
  readonly section: 'running' | 'back in time' | 'breakpoints' | 'looking' | 'session'
  /** `break [LOCATION] [if CONDITION]` */
  readonly usage: string
  /** One line. */
  readonly summary: string
  /** More lines of `help`. */
  readonly details?: readonly string[]
  /** What an empty line does after it: the same again, the command without its arguments, or nothing. */
  readonly repeats?: 'same' | 'bare'
  /** @throws ReplError, DebugError */
  run(context: ReplContext, args: string): void | Promise<void>
  /** What the last word of `args` may become; left out: what is typed is an expression. */
  complete?(context: ReplContext, args: string): readonly string[]
}

export class CommandTable {
  readonly commands: readonly ReplCommand[]
  readonly #byName = new Map<string, ReplCommand>()

  constructor(commands: readonly ReplCommand[]) {
    this.commands = commands
    for (const command of commands) {
      for (const name of command.names) this.#byName.set(name, command)
    }
  }

  /** The command that is called that, or whose name alone begins with it. @throws ReplError */
  find(word: string): ReplCommand {
    const exact = this.#byName.get(word)
    if (exact) return exact
    const candidates = new Set(this.matching(word).map((name) => this.#byName.get(name)!))
    if (candidates.size === 1) return [...candidates][0]
    if (candidates.size === 0) throw new ReplError(`there is no command '${word}'; try help`)
    throw new ReplError(`'${word}' may be ${[...candidates].map(({ names }) => names[0]).join(', ')}`)
  }

  /** Names that begin with `word`. */
  matching(word: string): readonly string[] {
    return this.commands.map(({ names }) => names[0]).filter((name) => name.startsWith(word))
  }
}

/** Splits `word/format rest`; an operator that begins a line is a word of its own. */
export function splitCommand(line: string): { word: string; args: string } {
  const match = /^([A-Za-z][A-Za-z0-9-]*|\S)(.*)$/s.exec(line.trim())
  return match ? { word: match[1], args: match[2].trim() } : { word: '', args: '' }
}

/** A number as a person writes it, decimal or with 0x. @throws ReplError */
export function parseNumber(text: string, what: string): number {
  const number = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(number)) throw new ReplError(`'${text}' is no ${what}`)
  return number
}

/** How often: nothing is once. @throws ReplError */
export function parseCount(text: string): number {
  if (text === '') return 1
  const count = parseNumber(text, 'number of times')
  if (count < 1 || count > 1_000_000) throw new ReplError(`${count} times is out of range`)
  return count
}

/** Numbers as in `1 3 5-7`. @throws ReplError */
export function parseNumbers(text: string): number[] {
  return text.split(/[\s,]+/).flatMap((word) => {
    const range = /^(\d{1,9})-(\d{1,9})$/.exec(word)
    if (range === null) return [parseNumber(word, 'number')]
    const [first, last] = [Number(range[1]), Number(range[2])]
    if (last < first || last - first > 10_000) throw new ReplError(`'${word}' is no range`)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
}
