/** What the command shows while it works: lines, and one line that changes on a terminal. Results go to stdout, the rest to stderr. */
import { styleText } from 'node:util'

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'

/** A piece of work shorter than this shows nothing. */
const SILENT_MS = 1000
const REDRAW_MS = 100
/** Without a terminal, long work says every so often that it goes on. */
const REMIND_MS = 15_000

export interface Progress {
  /** Says what is being done now, and how much of it is done (0 to 1) where that is known. */
  update(text: string, share?: number): void
  /** Takes the changing line away. */
  end(): void
}

/** True if `stream` takes colours: a terminal, unless NO_COLOR or TERM=dumb say otherwise; FORCE_COLOR says yes to all. */
export function wantsColour(stream: NodeJS.WriteStream): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env
  if (NO_COLOR) return false
  if (FORCE_COLOR && FORCE_COLOR !== '0') return true
  return stream.isTTY === true && TERM !== 'dumb'
}

export function paint(stream: NodeJS.WriteStream, style: Style, text: string): string {
  return wantsColour(stream) ? styleText(style, text, { validateStream: false }) : text
}

/** A result: what the command was asked for. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** A result for machines. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, undefined, 2))
}

/** A remark about the work; not part of the result. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`)
}

export function warn(line: string): void {
  note(`${paint(process.stderr, 'yellow', 'warning:')} ${line}`)
}

/** Shows work that may take longer than a second. */
export function startProgress(text: string): Progress {
  const { stderr } = process
  const startedAt = performance.now()
  let current = text
  let share: number | undefined
  let drawn = false
  let remindedAt = startedAt
  const timer = setInterval(() => {
    const now = performance.now()
    const seconds = (now - startedAt) / 1000
    if (now - startedAt < SILENT_MS) return
    const line = `${current}${share === undefined ? '' : ` ${Math.floor(share * 100)} %`}`
    if (stderr.isTTY) {
      stderr.write(`\r\x1b[K${line} … ${seconds.toFixed(1)} s`)
    } else if (!drawn || now - remindedAt >= REMIND_MS) {
      note(drawn ? `${line} … ${seconds.toFixed(0)} s` : `${line} …`)
      remindedAt = now
    }
    drawn = true
  }, REDRAW_MS)
  timer.unref()
  return {
    update(next, nextShare) {
      current = next
      share = nextShare
    },
    end() {
      clearInterval(timer)
      if (drawn && stderr.isTTY) stderr.write('\r\x1b[K')
    },
  }
}

/** Columns of equal width, numbers to the right. `rows` hold as many cells as `header`. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)))
  const numeric = header.map((_, column) => rows.length > 0 && rows.every((row) => /^-?[\d,.]*$/.test(row[column])))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (numeric[column] ? cell.padStart(widths[column]) : cell.padEnd(widths[column])))
      .join('  ')
      .trimEnd()
  return [paint(process.stdout, 'bold', line(header)), ...rows.map(line)]
}
