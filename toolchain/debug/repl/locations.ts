/** What stands behind `break`: a place in the code, or something of this field. */
import { parseFieldBreakpoint } from '../front/field-breakpoints.ts'
import { functionNames } from '../front/function-names.ts'
import type { BreakpointSpec } from '../session/api.ts'
import { parseNumber } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'

const FIELD_WORDS = { frame: 'frame', state: 'tcp-state', row: 'row', console: 'console', irq: 'interrupt' } as const

/**
 * `[LOCATION] [thread N | server NAME] [if CONDITION]`; nothing is where the selected frame stands.
 *
 * @throws ReplError
 */
export function parseBreakpoint(context: ReplContext, text: string): BreakpointSpec {
  const { head, condition } = splitCondition(text.trim())
  const { location, threads } = splitThread(context, head)
  const options = {
    ...(condition !== undefined && { condition }),
    ...(threads !== undefined && { threads }),
  }
  return { ...parseLocation(context, location), ...options }
}

function parseLocation(context: ReplContext, text: string): BreakpointSpec {
  const word = /^(frame|state|row|console|irq)(?:\s+|$)/.exec(text)
  if (word) {
    try {
      return parseFieldBreakpoint(FIELD_WORDS[word[1] as keyof typeof FIELD_WORDS], text.slice(word[0].length))
    } catch (error) {
      throw new ReplError((error as Error).message)
    }
  }
  const exception = /^exception(?:\s+(\S+))?$/.exec(text)
  if (exception) return parseException(exception[1])
  if (text.startsWith('*'))
    return { kind: 'instruction', pc: parseNumber(text.slice(1).trim(), 'address of an instruction') }
  return parseSource(context, text)
}

function parseException(filter: string | undefined): BreakpointSpec {
  if (filter === undefined) return { kind: 'exception' }
  if (filter !== 'trap' && filter !== 'bus-fault' && filter !== 'watchdog')
    throw new ReplError(`'${filter}' is no kind of exception: trap, bus-fault, watchdog`)
  return { kind: 'exception', filter }
}

function parseSource(context: ReplContext, text: string): BreakpointSpec {
  const place = /^(.+?):(\d{1,9})(?::(\d{1,9}))?$/.exec(text)
  if (place) {
    const [, file, line, column] = place
    return { kind: 'source', file, line: Number(line), ...(column !== undefined && { column: Number(column) }) }
  }
  if (text !== '' && !/^[+-]?\d{1,9}$/.test(text)) return { kind: 'function', name: text }
  const source = context.selectedFrame()?.source
  if (source === undefined) throw new ReplError('no source line is selected; say FILE:LINE or a function')
  const relative = /^[+-]/.test(text)
  const line = text === '' ? source.line : relative ? source.line + Number(text) : Number(text)
  return { kind: 'source', file: source.file, line }
}

function splitCondition(text: string): { head: string; condition?: string } {
  if (/^console\s/.test(text)) return { head: text } // its text may hold any word
  const match = /(?:^|\s)if\s+(.+)$/s.exec(text)
  return match ? { head: text.slice(0, match.index).trim(), condition: match[1] } : { head: text }
}

function splitThread(context: ReplContext, text: string): { location: string; threads?: readonly number[] } {
  const match = /(?:^|\s)(?:thread|server)\s+(\S+)$/.exec(text)
  if (match === null || text.startsWith('console ')) return { location: text }
  return { location: text.slice(0, match.index).trim(), threads: [context.threadNamed(match[1])] }
}

const LOCATION_WORDS = ['frame ', 'state ', 'row ', 'console ', 'irq ', 'exception ']

/** What a location that is being typed may become: a file, a function, or what begins another kind. */
export function completeLocation({ session, files }: ReplContext, text: string): readonly string[] {
  if (/\s/.test(text)) return []
  const sources = session.sources.map((file) => `${files.shortName(file)}:`)
  const functions = session.modules.flatMap((module) => functionNames(module))
  return [...LOCATION_WORDS, ...sources, ...new Set(functions)].filter((candidate) => candidate.startsWith(text))
}
