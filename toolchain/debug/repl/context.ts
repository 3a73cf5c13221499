/** What the commands of the REPL work on: the session, what is selected in it, and where text goes. */
import { styleText } from 'node:util'
import { BreakpointBook } from '../front/breakpoint-book.ts'
import { SourceFiles } from '../front/source-files.ts'
import type { SessionApi, StackFrame, Stop } from '../session/api.ts'

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** Wrong use of a command, in one line. */
export class ReplError extends Error {
  override readonly name = 'ReplError'
}

/** An expression that is shown at every stop. */
export interface Display {
  readonly number: number
  readonly expression: string
  readonly format: string
}

interface ReplContextOptions {
  readonly colour: boolean
  readonly server?: string
  readonly book?: BreakpointBook
}

export class ReplContext {
  readonly session: SessionApi
  readonly book: BreakpointBook
  readonly files: SourceFiles
  readonly displays: Display[] = []
  /** Commands that a breakpoint's stop runs, by its number. */
  readonly scripts = new Map<number, readonly string[]>()
  /** Lines that follow are commands of this breakpoint, up to `end`. */
  collecting: { readonly number: number; readonly lines: string[] } | undefined
  /** What `list` shows next. */
  listing: { readonly file: string; readonly next: number } | undefined
  /** Where `x` goes on. */
  examined: { readonly address: number; readonly format: string } | undefined
  /** Selected; a stop selects its own. */
  thread: number
  frame = 0
  /** Runs lines as if they had been typed. Set by the REPL. */
  runLines: (lines: readonly string[]) => Promise<void> = async () => {}
  /** Set by `quit` and `detach`: the front end ends. */
  ended: 'quit' | 'detach' | undefined
  readonly #colour: boolean
  #lines: string[] = []

  /** @throws ReplError if there is no server of that name */
  constructor(session: SessionApi, { colour, server, book }: ReplContextOptions) {
    this.session = session
    this.book = book ?? new BreakpointBook(session)
    this.files = new SourceFiles(() => session.sources)
    this.#colour = colour
    this.thread =
      server === undefined ? (session.stop?.thread ?? session.threads[0]?.id ?? 1) : this.threadNamed(server)
  }

  print(line: string): void {
    this.#lines.push(line)
  }

  /** What has been printed since the last time. */
  take(): string {
    const text = this.#lines.map((line) => `${line}\n`).join('')
    this.#lines = []
    return text
  }

  paint(style: Style, text: string): string {
    return this.#colour && text !== '' ? styleText(style, text, { validateStream: false }) : text
  }

  threadNamed(name: string): number {
    const found = this.session.threads.find((thread) => thread.name === name || String(thread.id) === name)
    if (found === undefined)
      throw new ReplError(
        `there is no INIC '${name}'; there are: ${this.session.threads.map((t) => t.name).join(', ')}`,
      )
    return found.id
  }

  threadName(id: number): string {
    return this.session.threads.find((thread) => thread.id === id)?.name ?? `INIC ${id}`
  }

  /** The selected frame of the call stack; undefined between two slices. */
  selectedFrame(): StackFrame | undefined {
    return this.session.frames(this.thread)[this.frame]
  }

  select(stop: Stop): void {
    this.thread = stop.thread
    this.frame = 0
    this.listing = undefined
  }

  /** `firmware/tcp/input.ts:90`. */
  place(frame: Pick<StackFrame, 'source'>): string {
    const { source } = frame
    if (source === undefined) return this.paint('dim', 'no source')
    return `${this.paint('green', this.files.shortName(source.file))}:${source.line}`
  }
}
