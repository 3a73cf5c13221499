/** `x`: memory by address, in gdb's formats. */
import { formatNumber, hex, type NumberFormat, scalarOf } from '../front/values.ts'
import { type ReplContext, ReplError } from './context.ts'

const UNIT_BYTES: Readonly<Record<string, number>> = { b: 1, h: 2, w: 4, g: 8 }
const MAXIMUM_UNITS = 4096
/** Longest string that is looked for the end of, bytes. */
const MAXIMUM_STRING_BYTES = 1024
/** Bytes of a line, by the unit. */
const LINE_BYTES: Readonly<Record<number, number>> = { 1: 8, 2: 16, 4: 16, 8: 16 }

interface Format {
  readonly count: number
  readonly letter: string
  readonly unitBytes: number
}

/** @throws ReplError, DebugError */
export function examine(context: ReplContext, format: string, address: string): void {
  const parsed = parseFormat(format === '' && address === '' ? (context.examined?.format ?? '') : format)
  const start = address === '' ? context.examined?.address : addressOf(context, address)
  if (start === undefined) throw new ReplError('say where: x/16xb ADDRESS')
  const next = show(context, parsed, start)
  context.examined = { address: next, format: format === '' ? (context.examined?.format ?? '') : format }
}

function parseFormat(text: string): Format {
  const match = /^(\d*)([a-z]*)$/.exec(text)
  const count = match?.[1] ? Number(match[1]) : 1
  let letter = 'x'
  let unitBytes: number | undefined
  for (const character of match?.[2] ?? '?') {
    if (character in UNIT_BYTES) unitBytes = UNIT_BYTES[character]
    else if ('xduotcazsi'.includes(character)) letter = character
    else throw new ReplError(`'/${text}' is no format: a number, one of x d u o t c a z s i, one of b h w g`)
  }
  if (count < 1 || count > MAXIMUM_UNITS) throw new ReplError(`from 1 to ${MAXIMUM_UNITS} units can be shown`)
  return { count, letter, unitBytes: unitBytes ?? (letter === 'c' || letter === 's' ? 1 : 4) }
}

/** The number of an expression, or where it stands in memory. */
function addressOf(context: ReplContext, text: string): number {
  if (text === '$pc' || text === 'pc') {
    const frame = context.selectedFrame()
    if (frame === undefined) throw new ReplError('there is no pc between two slices')
    return frame.pc
  }
  if (/^(0x[0-9a-f]+|\d+)$/i.test(text)) return Number(text)
  const value = context.session.evaluate(text.replace(/^&/, ''), context.thread, context.frame)
  // What has a place and is no number is shown where it stands: a row, a header.
  const scalar = scalarOf(value)
  const at = text.startsWith('&') || scalar === undefined ? value.address : Number(scalar)
  if (at === undefined || !Number.isSafeInteger(at) || at < 0) throw new ReplError(`${text} is no address`)
  return at
}

/** Gives the address behind what was shown. */
function show(context: ReplContext, format: Format, address: number): number {
  if (format.letter === 'i') return showInstructions(context, address, format.count)
  if (format.letter === 's') return showStrings(context, address, format.count)
  const { unitBytes, count, letter } = format
  const bytes = context.session.readMemory(context.thread, address, count * unitBytes)
  if (bytes.length < unitBytes) throw new ReplError(`nothing can be read at ${hex(address)}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const perLine = LINE_BYTES[unitBytes] / unitBytes
  const units = Math.floor(bytes.length / unitBytes)
  for (let first = 0; first < units; first += perLine) {
    const cells: string[] = []
    for (let index = first; index < Math.min(first + perLine, units); index++)
      cells.push(cell(readUnit(view, index * unitBytes, unitBytes), letter, unitBytes))
    context.print(`${context.paint('cyan', hex(address + first * unitBytes, 8))}:  ${cells.join('  ')}`)
  }
  if (units < count) context.print(context.paint('dim', `memory ends at ${hex(address + bytes.length)}`))
  return address + units * unitBytes
}

function cell(unit: bigint, letter: string, unitBytes: number): string {
  const format = letter === 'x' ? 'z' : letter
  return formatNumber(unit, format as NumberFormat, unitBytes * 8)
}

function readUnit(view: DataView, offset: number, bytes: number): bigint {
  switch (bytes) {
    case 1:
      return BigInt(view.getUint8(offset))
    case 2:
      return BigInt(view.getUint16(offset, true))
    case 4:
      return BigInt(view.getUint32(offset, true))
    default:
      return view.getBigUint64(offset, true)
  }
}

function showStrings(context: ReplContext, address: number, count: number): number {
  let at = address
  for (let index = 0; index < count; index++) {
    const bytes = context.session.readMemory(context.thread, at, MAXIMUM_STRING_BYTES)
    if (bytes.length === 0) throw new ReplError(`nothing can be read at ${hex(at)}`)
    const end = bytes.indexOf(0)
    const text = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1')
    context.print(`${context.paint('cyan', hex(at, 8))}:  ${JSON.stringify(text)}${end < 0 ? '…' : ''}`)
    at += end < 0 ? bytes.length : end + 1
  }
  return at
}

/** Shows instructions, the selected one with an arrow; gives the pc behind them. */
export function showInstructions(context: ReplContext, pc: number, count: number, before = 0): number {
  const instructions = context.session.disassemble(context.thread, pc, count, before)
  if (instructions.length === 0) throw new ReplError(`there is no code at ${hex(pc)}`)
  const here = context.selectedFrame()?.pc
  let line: number | undefined
  for (const instruction of instructions) {
    const { source } = instruction
    if (source !== undefined && source.line !== line) {
      line = source.line
      const text = context.files.lines(source.file)?.[source.line - 1]?.trim() ?? ''
      context.print(context.paint('dim', `   ${context.files.shortName(source.file)}:${source.line}  ${text}`))
    }
    const arrow = instruction.pc === here ? '=> ' : '   '
    context.print(`${arrow}${context.paint('cyan', hex(instruction.pc, 6))}  ${instruction.text}`)
  }
  const last = instructions.at(-1)!
  return last.pc + last.bytes.length
}
