/** Faults of a file that a person wrote: each with its place, what is wrong there, and what to write instead. */
import { CommandError, EXIT_USAGE } from '../errors.ts'

export interface Issue {
  /** Characters from the start of the text. */
  readonly offset: number
  readonly length: number
  /** Begins with the setting's path, where there is one: `servers[0].memory: ...`. */
  readonly message: string
  /** What to write instead. */
  readonly hint: string | undefined
}

/** An issue with its place in the file: line and column from 1. */
export interface Problem {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly length: number
  /** The line that it is in. */
  readonly source: string
  readonly message: string
  readonly hint: string | undefined
}

/** More than these are not read by anyone who wanted to run a farm. */
const MAXIMUM_SHOWN = 10

/** The issues in the order of the file. */
export function problemsOf(file: string, text: string, issues: readonly Issue[]): Problem[] {
  return [...issues]
    .sort((a, b) => a.offset - b.offset)
    .map(({ offset, length, message, hint }) => ({ file, ...locate(text, offset), length, message, hint }))
}

/** One error that shows the first issues, each with its line and a mark under the place. */
export function issuesError(file: string, text: string, issues: readonly Issue[]): CommandError {
  return problemsError(problemsOf(file, text, issues), MAXIMUM_SHOWN)
}

/** One error that shows every problem with its line and a mark under the place; at most `limit` of them. */
export function problemsError(problems: readonly Problem[], limit = Number.POSITIVE_INFINITY): CommandError {
  const parts = problems.slice(0, limit).map(formatProblem)
  const left = problems.length - parts.length
  if (left > 0) parts.push(`… and ${left} more; inic check shows them all`)
  return new CommandError(parts.join('\n\n'), { exitCode: EXIT_USAGE })
}

function formatProblem({ file, line, column, length, source, message, hint }: Problem): string {
  const number = String(line)
  const margin = ' '.repeat(number.length)
  // The mark stays on its line, and under tabs it keeps their width.
  const before = source.slice(0, column - 1).replace(/[^\t]/g, ' ')
  const mark = '^'.repeat(Math.max(1, Math.min(length, source.length - column + 1)))
  const advice = hint === undefined ? '' : `\n${margin} = ${hint}`
  return `${file}:${line}:${column}: ${message}\n${number} | ${source}\n${margin} | ${before}${mark}${advice}`
}

/** Line and column, both from 1, of an offset in `text`, and that line. */
export function locate(text: string, offset: number): { line: number; column: number; source: string } {
  const start = text.lastIndexOf('\n', offset - 1) + 1
  const end = text.indexOf('\n', start)
  const source = text.slice(start, end === -1 ? undefined : end).replace(/\r$/, '')
  return { line: text.slice(0, start).split('\n').length, column: offset - start + 1, source }
}

/** `did you mean 'memory'?` for the one of `known` that is nearest to `word`, if one is near. */
export function suggest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best === undefined ? undefined : `did you mean '${best}'?`
}

/** Insertions, removals and replacements that make `b` of `a`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]
}
