/** Requests about INIC memory: reading, writing, data breakpoints, instructions. */
import type { DebugProtocol } from '@vscode/debugprotocol'
import { hex, pathOf } from '../front/values.ts'
import { DebugError, type Instruction, type Value } from '../session/api.ts'
import { type Arguments, RequestError } from './arguments.ts'
import type { DapContext, Handlers } from './context.ts'
import { codeReference, dataReference, moduleOf, splitReference } from './references.ts'
import { clientSource } from './sources.ts'

const MAXIMUM_READ_BYTES = 1024 * 1024
const MAXIMUM_INSTRUCTIONS = 10_000
/** Widest place that a data breakpoint by address covers. */
const MAXIMUM_WATCH_BYTES = 8

/** The INIC and address that a client means. An address without an INIC is of the one that stopped last. @throws RequestError */
function place(context: DapContext, args: Arguments): { thread: number; address: number } {
  const { high, low } = splitReference(args.text('memoryReference'))
  const { session } = context
  const thread = high === 0 ? (session.stop?.thread ?? session.threads[0]?.id ?? 0) : high
  if (!session.threads.some(({ id }) => id === thread)) throw new RequestError(`there is no INIC ${thread}`)
  const address = low + args.integerOr('offset', 0, -(2 ** 32), 2 ** 32)
  return { thread, address }
}

export function dataHandlers(context: DapContext): Handlers {
  return {
    readMemory: (args) => readMemory(context, args),
    writeMemory: (args) => writeMemory(context, args),
    disassemble: (args) => disassemble(context, args),
  }
}

function readMemory(context: DapContext, args: Arguments): object {
  const { thread, address } = place(context, args)
  const count = args.integer('count', 0, MAXIMUM_READ_BYTES)
  const reference = dataReference(thread, Math.max(0, address))
  if (address < 0) return { address: reference, unreadableBytes: Math.min(count, -address) }
  let bytes: Uint8Array
  try {
    bytes = context.session.readMemory(thread, address, count)
  } catch (error) {
    if (!(error instanceof DebugError) || error.code !== 'memory') throw error
    bytes = new Uint8Array(0)
  }
  const unreadable = count - bytes.length
  return {
    address: reference,
    ...(bytes.length > 0 && { data: Buffer.from(bytes).toString('base64') }),
    ...(unreadable > 0 && { unreadableBytes: unreadable }),
  }
}

function writeMemory(context: DapContext, args: Arguments): object {
  const { thread, address } = place(context, args)
  const text = args.text('data')
  const bytes = Buffer.from(text, 'base64')
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 === 1) throw new RequestError("'data' is no base64")
  const room = context.session.memoryBytes(thread) - address
  if (address < 0 || room <= 0) throw new RequestError(`there is no memory at ${hex(Math.max(0, address))}`)
  if (bytes.length > room && !args.flag('allowPartial')) throw new RequestError(`memory ends after ${room} bytes`)
  const part = bytes.subarray(0, room)
  context.session.writeMemory(thread, address, part)
  memoryChanged(context, thread, address, part.length)
  return { offset: 0, bytesWritten: part.length }
}

/** Has the client ask again for what it shows. */
export function memoryChanged(context: DapContext, thread: number, address: number, bytes: number): void {
  context.send(event('memory', { memoryReference: dataReference(thread, address), offset: 0, count: bytes }))
  context.send(event('invalidated', { areas: ['variables'] }))
}

function event(name: string, body: object): DebugProtocol.Event {
  return { seq: 0, type: 'event', event: name, body }
}

function disassemble(context: DapContext, args: Arguments): object {
  const { high, low } = splitReference(args.text('memoryReference'))
  const { session } = context
  const module = session.modules.find(({ id }) => id === high) ?? session.modules[0]
  const thread = module?.threads[0]
  if (module === undefined || thread === undefined || (high !== 0 && module.id !== high))
    throw new RequestError(`there is no firmware ${high}`)
  const pc = Math.max(0, low + args.integerOr('offset', 0, -(2 ** 32), 2 ** 32))
  const from = args.integerOr('instructionOffset', 0, -MAXIMUM_INSTRUCTIONS, MAXIMUM_INSTRUCTIONS)
  const count = args.integer('instructionCount', 0, MAXIMUM_INSTRUCTIONS)
  const before = Math.max(0, -from)
  const found = count === 0 ? [] : session.disassemble(thread, pc, before + Math.max(0, from) + count, before)
  const first = found.findIndex((instruction) => instruction.pc >= pc)
  // The client counts on the instruction at its address to be where it asked for it.
  const lead = before - (first < 0 ? found.length : first)
  const rows = [...Array<undefined>(Math.max(0, lead)).fill(undefined), ...found]
  const wanted = rows.slice(Math.max(0, from), Math.max(0, from) + count)
  while (wanted.length < count) wanted.push(undefined)
  const show = instructionWriter(context, module.id)
  return { instructions: wanted.map(show) }
}

function instructionWriter(
  context: DapContext,
  module: number,
): (instruction: Instruction | undefined) => DebugProtocol.DisassembledInstruction {
  let shown = ''
  return (instruction) => {
    if (instruction === undefined)
      return { address: codeReference(module, 0), instruction: '', presentationHint: 'invalid' }
    const { pc, bytes, text, source } = instruction
    const place = source === undefined ? '' : `${source.file}:${source.line}`
    const withSource = source !== undefined && place !== shown
    shown = place
    return {
      address: codeReference(module, pc),
      instructionBytes: Buffer.from(bytes)
        .toString('hex')
        .replace(/..(?=.)/g, '$& '),
      instruction: text,
      ...(withSource && {
        location: clientSource(context, source.file),
        line: context.counting.lineToClient(source.line),
        column: context.counting.columnToClient(source.column),
      }),
    }
  }
}

// ── data breakpoints ──

/** `dataId`: what is watched, and on which INIC. */
function dataId(expression: string, thread: number | undefined): string {
  return `${thread ?? '*'} ${expression}`
}

/** @throws RequestError */
export function dataExpression(id: string): { expression: string; thread: number | undefined } {
  const match = /^(\*|\d{1,9}) (.+)$/s.exec(id)
  if (match === null) throw new RequestError(`'${id}' is no dataId of this adapter`)
  return { expression: match[2], thread: match[1] === '*' ? undefined : Number(match[1]) }
}

const ACCESS_TYPES: DebugProtocol.DataBreakpointAccessType[] = ['read', 'write', 'readWrite']

/** `dataBreakpointInfo`: for a variable that is shown, an expression, or an address. */
export function describeData(context: DapContext, args: Arguments): object {
  const name = args.text('name')
  if (args.flag('asAddress')) return byAddress(context, name, args.integerOr('bytes', 4, 1, 2 ** 31))
  const found = findValue(context, args, name)
  const expression = found.value === undefined ? undefined : pathOf(found.value)
  if (found.value?.address === undefined || expression === undefined)
    return { dataId: null, description: `${name} is not in INIC memory` }
  return {
    dataId: dataId(expression, found.thread),
    description: `${expression} (${found.value.bytes ?? '?'} bytes at ${hex(found.value.address)})`,
    accessTypes: ACCESS_TYPES,
  }
}

function byAddress(context: DapContext, name: string, bytes: number): object {
  const { high, low } = splitReference(name)
  if (bytes > MAXIMUM_WATCH_BYTES || ![1, 2, 4, 8].includes(bytes))
    return { dataId: null, description: 'a data breakpoint by address covers 1, 2, 4 or 8 bytes' }
  const thread = high === 0 ? context.session.stop?.thread : high
  const expression = `u${bytes * 8}[${hex(low)}]`
  return { dataId: dataId(expression, thread), description: `${bytes} bytes at ${hex(low)}`, accessTypes: ACCESS_TYPES }
}

function findValue(context: DapContext, args: Arguments, name: string): { value: Value | undefined; thread: number } {
  const reference = args.integerOr('variablesReference', 0, 0, 2 ** 31)
  if (reference > 0) {
    const container = context.references.findContainer(reference)
    const value = container.children(0, Number.POSITIVE_INFINITY).find((child) => child.name === name)
    if (value === undefined) throw new RequestError(`there is no variable '${name}' in ${reference}`)
    return { value, thread: container.thread }
  }
  const { thread, frame } = args.has('frameId')
    ? context.references.findFrame(args.integer('frameId'))
    : { thread: context.session.stop?.thread ?? 1, frame: undefined }
  return { value: context.session.evaluate(name, thread, frame), thread }
}

/** Where the INIC's code is, for the `moduleId` of a stack frame. */
export function instructionReference(context: DapContext, thread: number, pc: number): string {
  return codeReference(moduleOf(context.session, thread)?.id ?? 0, pc)
}
