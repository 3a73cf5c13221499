/** Commands about the call stack, source lines and instructions. */
import { parseNumber, type ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { showInstructions } from './examine.ts'
import { numbered, showPlace } from './show.ts'

/** Lines that `list` shows. */
const LIST_LINES = 10
/** Instructions that `disassemble` shows, and how many of them in front of the selected one. */
const DISASSEMBLE_COUNT = 24
const DISASSEMBLE_BEFORE = 8

function backtrace(context: ReplContext, args: string): void {
  const frames = context.session.frames(context.thread)
  if (frames.length === 0)
    return context.print(`${context.threadName(context.thread)} is between two slices: no call stack`)
  const limit = args === '' ? frames.length : parseNumber(args, 'number of frames')
  for (const frame of frames.slice(0, limit)) {
    const mark = frame.index === context.frame ? '*' : ' '
    const inlined = frame.inlined ? context.paint('dim', ' [inlined]') : ''
    context.print(
      `${mark}#${String(frame.index).padEnd(3)}${context.paint('yellow', frame.functionName)}${inlined} at ${context.place(frame)}`,
    )
  }
  if (limit < frames.length) context.print(`(${frames.length - limit} more frames)`)
}

function selectFrame(context: ReplContext, index: number): void {
  const { length } = context.session.frames(context.thread)
  if (length === 0) throw new ReplError('there is no call stack between two slices')
  if (index < 0) throw new ReplError('this is the innermost frame')
  if (index >= length) throw new ReplError('this is the outermost frame')
  context.frame = index
  context.listing = undefined
  context.print(`#${index}`)
  showPlace(context)
}

/** `list`, `list LINE`, `list FIRST,LAST`, `list FILE:LINE`; goes on behind the last lines. */
function list(context: ReplContext, args: string): void {
  const { file, first, last } = listRange(context, args)
  const lines = context.files.lines(file)
  if (lines === undefined) throw new ReplError(`${file} is not on this machine`)
  if (first > lines.length) throw new ReplError(`${context.files.shortName(file)} has ${lines.length} lines`)
  const here = context.session.state === 'halted' ? context.selectedFrame()?.source : undefined
  const end = Math.min(last, lines.length)
  for (let line = first; line <= end; line++) {
    const current = here?.file === file && here.line === line
    const text = lines[line - 1]
    context.print(numbered(context, line, current ? context.paint('bold', text) : text, current ? '>' : ' '))
  }
  context.listing = { file, next: end + 1 }
}

interface LineRange {
  readonly file: string
  readonly first: number
  readonly last: number
}

function listRange(context: ReplContext, args: string): LineRange {
  const around = (file: string, line: number): LineRange => {
    const first = Math.max(1, line - LIST_LINES / 2)
    return { file, first, last: first + LIST_LINES - 1 }
  }
  if (args === '' && context.listing !== undefined) {
    const { file, next } = context.listing
    return { file, first: next, last: next + LIST_LINES - 1 }
  }
  const place = /^(?:(.+):)?(\d{1,9})(?:\s*,\s*(\d{1,9}))?$/.exec(args)
  if (place) {
    const [, name, first, last] = place
    const file = name === undefined ? currentFile(context) : findSource(context, name)
    return last === undefined
      ? around(file, Number(first))
      : { file, first: Math.max(1, Number(first)), last: Number(last) }
  }
  if (args !== '') return aroundFunction(context, args, around)
  const source = context.selectedFrame()?.source
  if (source === undefined) throw new ReplError('no source line is selected; say FILE:LINE')
  return around(source.file, source.line)
}

function aroundFunction(
  context: ReplContext,
  name: string,
  around: (file: string, line: number) => LineRange,
): LineRange {
  // The engine knows functions by their breakpoints: one that is there for a moment tells where.
  const breakpoint = context.session.addBreakpoint({ kind: 'function', name })
  context.session.removeBreakpoint(breakpoint.id)
  const source = breakpoint.places.find((place) => place.source !== undefined)?.source
  if (source === undefined) throw new ReplError(breakpoint.message ?? `there is no function '${name}'`)
  return around(source.file, source.line)
}

function currentFile(context: ReplContext): string {
  const file = context.listing?.file ?? context.selectedFrame()?.source?.file
  if (file === undefined) throw new ReplError('no source file is selected; say FILE:LINE')
  return file
}

function findSource(context: ReplContext, name: string): string {
  const { sources } = context.session
  const found = sources.filter((file) => file === name || file.endsWith(`/${name}`))
  if (found.length > 1)
    throw new ReplError(`'${name}' may be ${found.map((file) => context.files.shortName(file)).join(', ')}`)
  if (found.length === 0) throw new ReplError(`no code comes from a file '${name}'; try info sources`)
  return found[0]
}

function disassemble(context: ReplContext, args: string): void {
  const [at = '', count = ''] = args.split(/\s+/).filter((word) => word !== '')
  const pc = at === '' ? context.selectedFrame()?.pc : parseNumber(at.replace(/^\*/, ''), 'address of an instruction')
  if (pc === undefined) throw new ReplError('there is no pc between two slices; say disassemble PC')
  const total = count === '' ? DISASSEMBLE_COUNT : parseNumber(count, 'number of instructions')
  if (total < 1 || total > 10_000) throw new ReplError('from 1 to 10000 instructions can be shown')
  showInstructions(context, pc, total, at === '' ? DISASSEMBLE_BEFORE : 0)
}

export const SOURCE_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['backtrace', 'bt', 'where'],
    section: 'looking',
    usage: 'backtrace [N]',
    summary: 'the call stack, innermost first',
    run: backtrace,
    complete: () => [],
  },
  {
    names: ['frame', 'f'],
    section: 'looking',
    usage: 'frame [N]',
    summary: 'select a frame of the call stack, and show where it stands',
    run: (context, args) => selectFrame(context, args === '' ? context.frame : parseNumber(args, 'number of a frame')),
    complete: () => [],
  },
  {
    names: ['up'],
    section: 'looking',
    usage: 'up [N]',
    summary: 'select the caller',
    repeats: 'same',
    run: (context, args) =>
      selectFrame(context, context.frame + (args === '' ? 1 : parseNumber(args, 'number of frames'))),
    complete: () => [],
  },
  {
    names: ['down', 'do'],
    section: 'looking',
    usage: 'down [N]',
    summary: 'select the function that was called',
    repeats: 'same',
    run: (context, args) =>
      selectFrame(context, context.frame - (args === '' ? 1 : parseNumber(args, 'number of frames'))),
    complete: () => [],
  },
  {
    names: ['list', 'l'],
    section: 'looking',
    usage: 'list [LINE | FIRST,LAST | FILE:LINE | FUNCTION]',
    summary: 'source lines: around the selected one, then on',
    repeats: 'bare',
    run: list,
    complete: (context, args) =>
      context.session.sources
        .map((file) => `${context.files.shortName(file)}:`)
        .filter((name) => name.startsWith(args)),
  },
  {
    names: ['disassemble', 'disas'],
    section: 'looking',
    usage: 'disassemble [PC [COUNT]]',
    summary: 'instructions around the selected one, with their lines',
    run: disassemble,
    complete: () => [],
  },
]
