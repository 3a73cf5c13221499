/** Breakpoints of a session: where they are in each firmware, and whether a stop is one of theirs. */
import type { Watchpoint } from '../../../emulator/cpu/index.ts'
import { errorMessage } from '../../errors.ts'
import { TCP_STATE_NAMES } from '../../inspect/names.ts'
import type { Program } from '../symbols/index.ts'
import {
  compileFrameFilter,
  type EvaluationContext,
  type Expression,
  ExpressionError,
  type FrameFilter,
  type Scope,
  type Values,
} from '../values/index.ts'
import { type Breakpoint, type BreakpointPlace, type BreakpointSpec, DebugError } from './api.ts'
import { irqBits } from './interrupts.ts'

/** Field of a row that is 0 while the row is free. */
const ROW_FIELDS: ReadonlyMap<string, string> = new Map([
  ['tcb', 'state'],
  ['forward', 'kind'],
  ['migration', 'phase'],
  ['arp', 'state'],
  ['listener', 'inUse'],
  ['application', 'inUse'],
  ['udp', 'flags'],
])

/** A firmware with what is known of it. */
export interface Firmware {
  readonly program: Program
  readonly values: Values
}

export class BreakpointEntry implements Breakpoint {
  readonly id: number
  readonly spec: BreakpointSpec
  enabled = true
  verified = true
  message?: string
  places: readonly BreakpointPlace[] = []
  hits = 0
  /** Kind frame. */
  readonly filter: FrameFilter | undefined
  /** Kind console. */
  readonly pattern: RegExp | undefined
  /** Expression of kinds watch, tcp-state and row. */
  readonly watched: string | undefined
  readonly #hit: ((hits: number) => boolean) | undefined
  readonly #pcs = new Map<Program, readonly number[]>()
  readonly #conditions = new Map<Firmware, Map<number | undefined, Expression>>()

  /** @throws DebugError `expression` */
  constructor(id: number, spec: BreakpointSpec) {
    this.id = id
    this.spec = spec
    this.filter = spec.kind === 'frame' ? attempt(() => compileFrameFilter(spec.filter)) : undefined
    this.pattern = spec.kind === 'console' ? consolePattern(spec.text) : undefined
    this.watched = watchedExpression(spec)
    if (spec.kind === 'interrupt') irqBits(spec)
    this.#hit = spec.hitCondition === undefined ? undefined : hitTest(spec.hitCondition)
  }

  isOn(thread: number): boolean {
    return this.enabled && (this.spec.threads === undefined || this.spec.threads.includes(thread))
  }

  /** Its instructions in one firmware; empty for kinds without. */
  pcs(program: Program): readonly number[] {
    let pcs = this.#pcs.get(program)
    if (pcs === undefined) {
      pcs = findPcs(this.spec, program)
      this.#pcs.set(program, pcs)
    }
    return pcs
  }

  /** The addresses that it watches in one INIC; undefined if it watches none, or none yet. */
  watchpoint({ values }: Firmware, context: EvaluationContext): Watchpoint | undefined {
    if (this.watched === undefined) return undefined
    try {
      const { address, bytes, stride, count } = values.compile(this.watched).place(context)
      const kind =
        this.spec.kind !== 'watch'
          ? 'change'
          : this.spec.access === undefined || this.spec.access === 'write'
            ? 'change'
            : this.spec.access
      this.verified = true
      delete this.message
      const rows = count > 1 ? { stride, offset: 0, bytes } : {}
      return {
        start: address,
        end: count > 1 ? address + stride * (count - 1) + bytes : address + bytes,
        kind,
        ...rows,
      }
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error
      this.verified = false
      this.message = error.message
      return undefined
    }
  }

  /** True if the condition holds and enough hits were counted. @throws ExpressionError */
  passes(firmware: Firmware, scope: Scope, context: EvaluationContext): boolean {
    const { condition } = this.spec
    if (condition !== undefined && !this.#condition(condition, firmware, scope).test(context)) return false
    this.hits++
    return this.#hit === undefined || this.#hit(this.hits)
  }

  /** The condition alone: for the past, whose hits were counted when they happened. */
  holds(firmware: Firmware, scope: Scope, context: EvaluationContext): boolean {
    const { condition } = this.spec
    return condition === undefined || this.#condition(condition, firmware, scope).test(context)
  }

  /** What a log point prints: its message, with values in place of `{expressions}`. */
  logText({ values }: Firmware, scope: Scope, context: EvaluationContext): string {
    return this.spec.logMessage!.replace(/\{([^{}]*)\}/g, (_, expression: string) => {
      try {
        return values.evaluate(expression, context, scope).display
      } catch (error) {
        return `<${errorMessage(error)}>`
      }
    })
  }

  #condition(text: string, firmware: Firmware, scope: Scope): Expression {
    let byPc = this.#conditions.get(firmware)
    if (byPc === undefined) {
      byPc = new Map()
      this.#conditions.set(firmware, byPc)
    }
    let expression = byPc.get(scope.pc)
    if (expression === undefined) {
      expression = firmware.values.compile(text, scope)
      byPc.set(scope.pc, expression)
    }
    return expression
  }
}

/** True if what a change shows is what a tcp-state or row breakpoint waits for. */
export function isWanted(spec: BreakpointSpec, before: number, after: number): boolean {
  if (spec.kind === 'row')
    return spec.event === 'insert'
      ? before === 0 && after !== 0
      : spec.event === 'remove'
        ? before !== 0 && after === 0
        : (before === 0) !== (after === 0)
  if (spec.kind !== 'tcp-state') return true
  return (
    (spec.from === undefined || stateNumber(spec.from) === before) &&
    (spec.to === undefined || stateNumber(spec.to) === after)
  )
}

function findPcs(spec: BreakpointSpec, program: Program): readonly number[] {
  switch (spec.kind) {
    case 'source':
      return program.breakpointsAt(spec.file, spec.line, spec.column)?.pcs ?? []
    case 'function':
      return program.functionBreakpoints(spec.name)
    case 'instruction':
      return [spec.pc]
    default:
      return []
  }
}

function watchedExpression(spec: BreakpointSpec): string | undefined {
  switch (spec.kind) {
    case 'watch':
      return spec.expression
    case 'tcp-state':
      for (const name of [spec.from, spec.to]) if (name !== undefined) stateNumber(name)
      return 'tcb[*].state'
    case 'row': {
      const field = ROW_FIELDS.get(spec.table)
      if (field === undefined)
        throw new DebugError(
          'expression',
          `no table '${spec.table}' whose rows come and go; there are ${[...ROW_FIELDS.keys()].join(', ')}`,
        )
      return `${spec.table}[*].${field}`
    }
    default:
      return undefined
  }
}

function stateNumber(name: string): number {
  const wanted = name.toUpperCase().replaceAll('_', '-')
  for (const [number, known] of TCP_STATE_NAMES) if (known === wanted) return number
  throw new DebugError('expression', `'${name}' is no TCP state; they are ${[...TCP_STATE_NAMES.values()].join(', ')}`)
}

function consolePattern(text: string): RegExp {
  const expression = /^\/(.+)\/([a-z]*)$/.exec(text)
  if (expression === null) return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  try {
    return new RegExp(expression[1]!, expression[2])
  } catch (error) {
    throw new DebugError('expression', (error as Error).message)
  }
}

/** `5` (the fifth), `>= 3`, `> 3`, `== 3`, `< 3`, `<= 3`, `% 10` (each tenth). */
function hitTest(text: string): (hits: number) => boolean {
  const match = /^\s*(>=|<=|==|=|>|<|%)?\s*(\d{1,15})\s*$/.exec(text)
  if (match === null || (match[1] === '%' && Number(match[2]) === 0))
    throw new DebugError('expression', `'${text}' is no hit condition; write 5, >= 5 or % 5`)
  const number = Number(match[2])
  switch (match[1]) {
    case '>=':
      return (hits) => hits >= number
    case '<=':
      return (hits) => hits <= number
    case '>':
      return (hits) => hits > number
    case '<':
      return (hits) => hits < number
    case '%':
      return (hits) => hits % number === 0
    default:
      return (hits) => hits === number
  }
}

function attempt<T>(compile: () => T): T {
  try {
    return compile()
  } catch (error) {
    if (error instanceof ExpressionError) throw new DebugError('expression', error.message)
    throw error
  }
}
