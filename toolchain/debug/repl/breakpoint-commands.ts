/** Commands about breakpoints and watchpoints. */
import { type BookEntry, describeSpec } from '../front/breakpoint-book.ts'
import type { BreakpointSpec } from '../session/api.ts'
import { parseNumber, parseNumbers, type ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { completeLocation, parseBreakpoint } from './locations.ts'

function add(context: ReplContext, spec: BreakpointSpec): void {
  const entry = context.book.add(spec)
  const { verified, message } = entry.breakpoint
  // Before any firmware runs, a breakpoint waits for it.
  if (!verified && context.session.modules.length > 0) {
    context.book.remove(entry)
    throw new ReplError(`${describeSpec(spec)}: ${message ?? 'nothing can stop there'}`)
  }
  const kind = spec.kind === 'watch' ? `${accessName(spec)} ` : spec.temporary ? 'Temporary breakpoint ' : 'Breakpoint '
  context.print(`${kind}${entry.number} at ${placeOf(context, entry)}`)
}

function accessName(spec: BreakpointSpec & { kind: 'watch' }): string {
  const names = { write: 'Watchpoint', read: 'Read watchpoint', access: 'Access watchpoint' }
  return names[spec.access ?? 'write']
}

function placeOf(context: ReplContext, { breakpoint, spec }: BookEntry): string {
  if (!breakpoint.verified) return `${describeSpec(spec)}: ${breakpoint.message ?? 'nothing can stop there yet'}`
  const [place] = breakpoint.places
  if (place === undefined) return describeSpec(spec)
  const name = place.functionName === undefined ? '' : `${context.paint('yellow', place.functionName)}, `
  const more = breakpoint.places.length > 1 ? ` (${breakpoint.places.length} places)` : ''
  return `${name}${context.place(place)}${place.source ? '' : ` pc 0x${place.pc.toString(16)}`}${more}`
}

/** The table of `info breakpoints`. */
export function showBreakpoints(context: ReplContext): void {
  const { entries } = context.book
  if (entries.length === 0) return context.print('No breakpoints or watchpoints.')
  context.print(context.paint('bold', 'Num  Type         Enb  Hits  What'))
  for (const entry of entries) {
    const { number, spec, breakpoint, hitsBefore } = entry
    const type = spec.kind === 'watch' ? `${spec.access ?? 'write'} watch` : spec.kind
    const cells = [
      String(number).padEnd(5),
      type.padEnd(13),
      (breakpoint.enabled ? 'y' : 'n').padEnd(5),
      String(hitsBefore + breakpoint.hits).padEnd(6),
    ]
    context.print(`${cells.join('')}${describeSpec(spec)}${describeWhere(context, entry)}`)
    for (const line of detailsOf(context, entry)) context.print(`     ${line}`)
  }
}

function describeWhere(context: ReplContext, entry: BookEntry): string {
  const code = ['source', 'function', 'instruction'].includes(entry.spec.kind)
  if (!entry.breakpoint.verified) return `  ${context.paint('dim', entry.breakpoint.message ?? 'not there yet')}`
  return code ? `  in ${placeOf(context, entry)}` : ''
}

function detailsOf(context: ReplContext, { number, spec }: BookEntry): string[] {
  return [
    ...(spec.condition === undefined ? [] : [`stop only if ${spec.condition}`]),
    ...(spec.hitCondition === undefined ? [] : [`stop at hits ${spec.hitCondition}`]),
    ...(spec.threads === undefined ? [] : [`only on ${spec.threads.map((id) => context.threadName(id)).join(', ')}`]),
    ...(spec.logMessage === undefined ? [] : [`print ${JSON.stringify(spec.logMessage)}`]),
    ...(context.scripts.get(number) ?? []).map((line) => `  ${line}`),
  ]
}

function find(context: ReplContext, text: string): BookEntry {
  const number = parseNumber(text, 'number of a breakpoint')
  const entry = context.book.get(number)
  if (entry === undefined) throw new ReplError(`there is no breakpoint ${number}`)
  return entry
}

/** All of them, or those named. */
function selection(context: ReplContext, args: string): readonly BookEntry[] {
  if (args === '') return context.book.entries
  return parseNumbers(args).map((number) => find(context, String(number)))
}

function changeCondition(context: ReplContext, args: string): void {
  const match = /^(\S+)(?:\s+(.*))?$/s.exec(args)
  if (match === null) throw new ReplError('write it as in condition 2 tcb.state == TCP_ESTABLISHED')
  const entry = find(context, match[1])
  const { condition: _, ...rest } = entry.spec
  context.book.replace(entry, match[2] ? { ...rest, condition: match[2] } : rest)
  context.print(
    match[2] ? `Breakpoint ${entry.number} stops only if ${match[2]}` : `Breakpoint ${entry.number} now stops always.`,
  )
}

function ignore(context: ReplContext, args: string): void {
  const [number, count = '', ...more] = args.split(/\s+/)
  if (more.length > 0 || count === '') throw new ReplError('write it as in ignore 2 10')
  const entry = find(context, number)
  const times = parseNumber(count, 'number of hits')
  const { hitCondition: _, ...rest } = entry.spec
  context.book.replace(entry, times === 0 ? rest : { ...rest, hitCondition: `>= ${times + 1}` })
  context.print(`Will ignore the next ${times} hits of breakpoint ${entry.number}.`)
}

function watch(access: 'read' | 'write' | 'access'): ReplCommand['run'] {
  return (context, args) => {
    const match = /^(.*?)(?:\s+if\s+(.+))?$/s.exec(args)!
    if (match[1] === '') throw new ReplError('say what: a place in memory, such as tcb[3].state or u32[0x12000]')
    add(context, {
      kind: 'watch',
      expression: match[1],
      access,
      ...(match[2] !== undefined && { condition: match[2] }),
    })
  }
}

function setAll(enabled: boolean): ReplCommand['run'] {
  return (context, args) => {
    for (const entry of selection(context, args)) context.book.setEnabled(entry, enabled)
  }
}

const numbersOnly: NonNullable<ReplCommand['complete']> = (context, args) => {
  const word = /\S*$/.exec(args)![0]
  return context.book.entries.map(({ number }) => String(number)).filter((number) => number.startsWith(word))
}

export const BREAKPOINT_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['break', 'b', 'br'],
    section: 'breakpoints',
    usage: 'break [LOCATION] [server NAME] [if CONDITION]',
    summary: 'stop there',
    details: [
      'LOCATION is one of',
      '  FILE:LINE[:COLUMN], LINE, +N, -N       a source line: b tcp/input.ts:90',
      '  FUNCTION                               tcpInput, Tcb#reset, tcp*',
      '  *PC                                    an instruction, by its offset in firmware.wasm',
      '  frame FILTER [in|out] [on PORT]        a frame: b frame tcp.flags.syn in on server1',
      '  state [FROM ->] TO                     a TCP state transition: b state SYN-RECEIVED -> ESTABLISHED',
      '  row TABLE [insert|remove]              a table row: b row tcb insert',
      '  console TEXT                           a line on a console; /pattern/ too',
      '  irq [NAME]                             an interrupt: b irq MAC0',
      '  exception [trap|bus-fault|watchdog]    a firmware that fails',
    ],
    run: (context, args) => add(context, parseBreakpoint(context, args)),
    complete: completeLocation,
  },
  {
    names: ['tbreak', 'tb'],
    section: 'breakpoints',
    usage: 'tbreak [LOCATION] [if CONDITION]',
    summary: 'stop there once',
    run: (context, args) => add(context, { ...parseBreakpoint(context, args), temporary: true }),
    complete: completeLocation,
  },
  {
    names: ['logpoint', 'dprintf'],
    section: 'breakpoints',
    usage: 'logpoint LOCATION, TEXT',
    summary: 'print there and go on; {expression} in the text is replaced by its value',
    run: (context, args) => {
      const match = /^(.+?),\s*(.+)$/s.exec(args)
      if (match === null) throw new ReplError('write it as in logpoint tcpInput, seq {seq}')
      const logMessage = match[2].replace(/^"(.*)"$/s, '$1')
      add(context, { ...parseBreakpoint(context, match[1]), logMessage })
    },
    complete: completeLocation,
  },
  {
    names: ['watch', 'wa'],
    section: 'breakpoints',
    usage: 'watch EXPRESSION [if CONDITION]',
    summary: 'stop when it is written: tcb[3].state, tcb[*].state, a register, u32[0x12000]',
    run: watch('write'),
  },
  {
    names: ['rwatch', 'rw'],
    section: 'breakpoints',
    usage: 'rwatch EXPRESSION [if CONDITION]',
    summary: 'stop when it is read',
    run: watch('read'),
  },
  {
    names: ['awatch', 'aw'],
    section: 'breakpoints',
    usage: 'awatch EXPRESSION [if CONDITION]',
    summary: 'stop when it is read or written',
    run: watch('access'),
  },
  {
    names: ['condition', 'cond'],
    section: 'breakpoints',
    usage: 'condition N [EXPRESSION]',
    summary: 'stop at breakpoint N only if the expression is true; always, without one',
    run: changeCondition,
    complete: numbersOnly,
  },
  {
    names: ['ignore', 'ig'],
    section: 'breakpoints',
    usage: 'ignore N COUNT',
    summary: 'pass breakpoint N so many times',
    run: ignore,
    complete: numbersOnly,
  },
  {
    names: ['commands'],
    section: 'breakpoints',
    usage: 'commands [N]',
    summary: 'lines that follow, up to `end`, are run whenever breakpoint N stops',
    run: (context, args) => {
      const entry = args === '' ? context.book.entries.at(-1) : find(context, args)
      if (entry === undefined) throw new ReplError('there is no breakpoint')
      context.collecting = { number: entry.number, lines: [] }
    },
    complete: numbersOnly,
  },
  {
    names: ['delete', 'd'],
    section: 'breakpoints',
    usage: 'delete [N…]',
    summary: 'remove breakpoints; all of them without a number',
    run: (context, args) => {
      for (const entry of selection(context, args)) {
        context.book.remove(entry)
        context.scripts.delete(entry.number)
      }
    },
    complete: numbersOnly,
  },
  {
    names: ['enable', 'en'],
    section: 'breakpoints',
    usage: 'enable [N…]',
    summary: 'let breakpoints stop again',
    run: setAll(true),
    complete: numbersOnly,
  },
  {
    names: ['disable', 'dis'],
    section: 'breakpoints',
    usage: 'disable [N…]',
    summary: 'keep breakpoints, but do not stop',
    run: setAll(false),
    complete: numbersOnly,
  },
]
