/** Requests about breakpoints of all kinds. A client sends the whole list of a kind, and of a file; what is in it already stays. */
import { isDeepStrictEqual } from 'node:util'
import type { DebugProtocol } from '@vscode/debugprotocol'
import { errorMessage } from '../../errors.ts'
import type { BookEntry } from '../front/breakpoint-book.ts'
import { type FieldKind, parseFieldBreakpoint } from '../front/field-breakpoints.ts'
import type { BreakpointSpec } from '../session/api.ts'
import { type Arguments, RequestError } from './arguments.ts'
import type { DapContext, Handlers } from './context.ts'
import { dataExpression, describeData } from './data.ts'
import { codeReference, splitReference } from './references.ts'
import { clientSource, sourceName } from './sources.ts'

const EXCEPTIONS = new Set(['trap', 'bus-fault', 'watchdog'])
const FIELD_KINDS = new Set(['frame', 'tcp-state', 'row', 'console', 'interrupt'])
/** Lines that `breakpointLocations` looks at, at most. */
const MAXIMUM_LOCATION_LINES = 100_000

/** A breakpoint as it was asked for; or why it cannot be. */
type Wanted = BreakpointSpec | RequestError

export class DapBreakpoints {
  readonly #context: DapContext
  /** What belongs to each list of the client: `source /path`, `function`, `data`, ... */
  readonly #lists = new Map<string, readonly BookEntry[]>()

  constructor(context: DapContext) {
    this.#context = context
  }

  readonly handlers: Handlers = {
    setBreakpoints: (args) => this.#setSource(args),
    setFunctionBreakpoints: (args) => this.#set('function', args.objects('breakpoints'), functionSpec),
    setInstructionBreakpoints: (args) =>
      this.#set('instruction', args.objects('breakpoints'), (item) => this.#instructionSpec(item)),
    setDataBreakpoints: (args) => this.#set('data', args.objects('breakpoints'), dataSpec),
    setExceptionBreakpoints: (args) => this.#setExceptions(args),
    dataBreakpointInfo: (args) => describeData(this.#context, args),
    breakpointLocations: (args) => this.#locations(args),
  }

  /** As the client sees it. */
  describe({ number, breakpoint, spec }: BookEntry): DebugProtocol.Breakpoint {
    const { counting, session } = this.#context
    const place = breakpoint.places.find(({ source }) => source !== undefined) ?? breakpoint.places[0]
    const module =
      spec.threads === undefined
        ? session.modules[0]
        : session.modules.find(({ threads }) => threads.includes(spec.threads![0]))
    return {
      id: number,
      verified: breakpoint.verified,
      ...(breakpoint.message !== undefined && { message: breakpoint.message }),
      ...(place?.source !== undefined && {
        source: clientSource(this.#context, place.source.file),
        line: counting.lineToClient(place.source.line),
        column: counting.columnToClient(place.source.column),
      }),
      ...(place !== undefined && module !== undefined && { instructionReference: codeReference(module.id, place.pc) }),
    }
  }

  #setSource(args: Arguments): object {
    const { counting } = this.#context
    const file = sourceName(this.#context, args.object('source'))
    const items = args.has('breakpoints') ? args.objects('breakpoints') : undefined
    const line = (number: number) => counting.lineFromClient(number)
    if (items === undefined) {
      const lines = args
        .integers('lines')
        .map((number): BreakpointSpec => ({ kind: 'source', file, line: line(number) }))
      return { breakpoints: this.#replace(`source ${file}`, lines) }
    }
    return this.#set(`source ${file}`, items, (item) => {
      const column = item.integerOr('column', undefined)
      return {
        kind: 'source',
        file,
        line: line(item.integer('line', 0, 2 ** 31)),
        ...(column !== undefined && { column: counting.columnFromClient(column) }),
        ...conditions(item),
      }
    })
  }

  #instructionSpec(item: Arguments): BreakpointSpec {
    const { high, low } = splitReference(item.text('instructionReference'))
    const { modules } = this.#context.session
    const module = modules.find(({ id }) => id === high)
    if (module === undefined && high !== 0) throw new RequestError(`there is no firmware ${high}`)
    const pc = low + item.integerOr('offset', 0, -(2 ** 32), 2 ** 32)
    if (pc < 0) throw new RequestError('the offset leads before the code')
    return {
      kind: 'instruction',
      pc,
      ...(module !== undefined && modules.length > 1 && { threads: module.threads }),
      ...conditions(item),
    }
  }

  #setExceptions(args: Arguments): object {
    // The session's own comes from the start, until a client says what it wants.
    const { book } = this.#context
    const mine = new Set(this.#lists.get('exception'))
    for (const entry of book.entries) if (entry.spec.kind === 'exception' && !mine.has(entry)) book.remove(entry)
    const filters = args.texts('filters').map((filter) => wanted(() => exceptionSpec(filter, '')))
    const options = args
      .objects('filterOptions')
      .map((item) => wanted(() => exceptionSpec(item.text('filterId'), item.textOr('condition', ''))))
    return { breakpoints: this.#replace('exception', [...filters, ...options]) }
  }

  #set(list: string, items: readonly Arguments[], spec: (item: Arguments) => BreakpointSpec): object {
    return {
      breakpoints: this.#replace(
        list,
        items.map((item) => wanted(() => spec(item))),
      ),
    }
  }

  /** Makes the list what is wanted, and describes it in this order. */
  #replace(list: string, specs: readonly Wanted[]): DebugProtocol.Breakpoint[] {
    const { book, noDebug } = this.#context
    if (noDebug) return specs.map(() => ({ verified: false, message: 'the farm runs without debugging' }))
    const left = [...(this.#lists.get(list) ?? [])].filter(({ number }) => book.get(number) !== undefined)
    const results = specs.map((spec) => (spec instanceof RequestError ? spec : this.#take(left, spec)))
    for (const entry of left) book.remove(entry)
    this.#lists.set(
      list,
      results.filter((result): result is BookEntry => !(result instanceof RequestError)),
    )
    return results.map((result) =>
      result instanceof RequestError ? { verified: false, message: result.message } : this.describe(result),
    )
  }

  /** The breakpoint that is there already, out of `left`; else a new one. */
  #take(left: BookEntry[], spec: BreakpointSpec): BookEntry | RequestError {
    const index = left.findIndex((entry) => isDeepStrictEqual(entry.spec, spec))
    if (index >= 0) return left.splice(index, 1)[0]
    try {
      return this.#context.book.add(spec)
    } catch (error) {
      return new RequestError(errorMessage(error))
    }
  }

  #locations(args: Arguments): object {
    const { counting, session } = this.#context
    const file = sourceName(this.#context, args.object('source'))
    const first = counting.lineFromClient(args.integer('line', 0, 2 ** 31))
    const last = args.has('endLine') ? counting.lineFromClient(args.integer('endLine', 0, 2 ** 31)) : first
    const lines = session.breakableLines(file, first, Math.min(last, first + MAXIMUM_LOCATION_LINES))
    return { breakpoints: lines.map((line) => ({ line: counting.lineToClient(line) })) }
  }
}

/** The specification, or what is wrong with it: one bad breakpoint does not take the others with it. */
function wanted(spec: () => BreakpointSpec): Wanted {
  try {
    return spec()
  } catch (error) {
    return error instanceof RequestError ? error : new RequestError(errorMessage(error))
  }
}

interface Conditions {
  condition?: string
  hitCondition?: string
  logMessage?: string
}

function conditions(item: Arguments): Conditions {
  const result: Conditions = {}
  for (const name of ['condition', 'hitCondition', 'logMessage'] as const) {
    const text = item.optionalText(name)
    if (text !== undefined) result[name] = text
  }
  return result
}

function functionSpec(item: Arguments): BreakpointSpec {
  return { kind: 'function', name: item.text('name'), ...conditions(item) }
}

function dataSpec(item: Arguments): BreakpointSpec {
  const { expression, thread } = dataExpression(item.text('dataId'))
  const access = item.textOr('accessType', 'write')
  if (access !== 'read' && access !== 'write' && access !== 'readWrite')
    throw new RequestError(`'${access}' is no way to access: read, write, readWrite`)
  return {
    kind: 'watch',
    expression,
    access: access === 'readWrite' ? 'access' : access,
    ...(thread !== undefined && { threads: [thread] }),
    ...conditions(item),
  }
}

function exceptionSpec(filter: string, condition: string): BreakpointSpec {
  if (EXCEPTIONS.has(filter)) return { kind: 'exception', filter: filter as 'trap' | 'bus-fault' | 'watchdog' }
  if (!FIELD_KINDS.has(filter)) throw new RequestError(`there is no exception filter '${filter}'`)
  // A frame filter that matches every frame; the other kinds have a meaning without more.
  if (filter === 'frame' && condition.trim() === '') return { kind: 'frame', filter: 'eth' }
  return parseFieldBreakpoint(filter as FieldKind, condition)
}
