/** Requests that look: call stack, scopes, variables, expressions. */
import type { DebugProtocol } from '@vscode/debugprotocol'
import { packetValues } from '../front/packet.ts'
import { registersOf, stateOf, tablesOf } from '../front/roots.ts'
import { bitsOf, formatNumber, pathOf, scalarOf } from '../front/values.ts'
import type { DebugThread, StackFrame, Value } from '../session/api.ts'
import { type Arguments, RequestError } from './arguments.ts'
import type { DapContext, Handlers } from './context.ts'
import { instructionReference, memoryChanged } from './data.ts'
import { type Container, dataReference, moduleOf } from './references.ts'
import { clientSource } from './sources.ts'

/** Variables of one answer, for a client that does not ask for pages. */
const MAXIMUM_VARIABLES = 5000

/** A command of the REPL within `evaluate` begins with this. */
const COMMAND_MARK = '`'

/** What runs and completes commands of the REPL. */
export interface CommandLine {
  run(line: string): Promise<string>
  complete(line: string): readonly string[]
}

export function lookingHandlers(context: DapContext, commands: () => CommandLine): Handlers {
  return {
    threads: () => ({ threads: context.session.threads.map(clientThread) }),
    stackTrace: (args) => stackTrace(context, args),
    scopes: (args) => scopes(context, args),
    variables: (args) => variables(context, args),
    setVariable: (args) => setVariable(context, args),
    setExpression: (args) => setExpression(context, args),
    evaluate: (args) => evaluate(context, args, commands),
    completions: (args) => completions(context, args, commands),
    exceptionInfo: (args) => exceptionInfo(context, args),
  }
}

function clientThread({ id, name, state }: DebugThread): DebugProtocol.Thread {
  return { id, name: state === 'off' || state === 'crashed' ? `${name} (${state})` : name }
}

function threadArgument(context: DapContext, args: Arguments): number {
  const id = args.integer('threadId')
  if (!context.session.threads.some((thread) => thread.id === id)) throw new RequestError(`there is no thread ${id}`)
  return id
}

// ── call stack ──

function stackTrace(context: DapContext, args: Arguments): object {
  const thread = threadArgument(context, args)
  const start = args.integerOr('startFrame', 0)
  const levels = args.integerOr('levels', 0) || Number.POSITIVE_INFINITY
  const frames = context.session.frames(thread)
  if (frames.length === 0) return { stackFrames: start === 0 ? [betweenSlices(context, thread)] : [], totalFrames: 1 }
  const shown = frames.slice(start, start + levels).map((frame) => clientFrame(context, thread, frame))
  return { stackFrames: shown, totalFrames: frames.length }
}

/** What stands for an INIC that is between two slices: its memory can be looked at. */
function betweenSlices(context: DapContext, thread: number): DebugProtocol.StackFrame {
  const id = context.references.frame(thread, undefined)
  return { id, name: 'between two slices', line: 0, column: 0, presentationHint: 'subtle' }
}

function clientFrame(context: DapContext, thread: number, frame: StackFrame): DebugProtocol.StackFrame {
  const { counting } = context
  const module = moduleOf(context.session, thread)
  const { source } = frame
  return {
    id: context.references.frame(thread, frame.index),
    name: frame.inlined ? `${frame.functionName} [inlined]` : frame.functionName,
    line: source === undefined ? 0 : counting.lineToClient(source.line),
    column: source === undefined ? 0 : counting.columnToClient(source.column),
    instructionPointerReference: instructionReference(context, thread, frame.pc),
    ...(source === undefined ? { presentationHint: 'subtle' } : { source: clientSource(context, source.file) }),
    ...(module !== undefined && { moduleId: module.id }),
  }
}

// ── variables ──

function scopes(context: DapContext, args: Arguments): object {
  const { thread, frame } = context.references.findFrame(args.integer('frameId'))
  const { session } = context
  const result: DebugProtocol.Scope[] = []
  const add = (
    name: string,
    values: readonly Value[],
    more: Partial<DebugProtocol.Scope> & { readOnly?: boolean } = {},
  ) => {
    if (values.length === 0) return
    const { readOnly = false, ...rest } = more
    const container = listContainer(values, { thread, frame, readOnly })
    const variablesReference = context.references.container(container)
    result.push({ name, variablesReference, namedVariables: values.length, expensive: false, ...rest })
  }
  if (frame !== undefined) add('Locals', session.locals(thread, frame), { presentationHint: 'locals', readOnly: true })
  const stopped = session.stop?.thread === thread ? session.stop.frame : undefined
  if (stopped !== undefined) add('Packet', packetValues(stopped), { readOnly: true })
  add('Registers', registersOf(session, thread), { presentationHint: 'registers' })
  add('Tables', tablesOf(session, thread))
  const state = stateOf(session, thread)
  if (state !== undefined) add('State', state.children(0, MAXIMUM_VARIABLES))
  if (frame !== undefined) {
    const { locals, stack } = session.machineState(thread, frame)
    add('Machine', [...locals, ...stack], { expensive: true, readOnly: true })
  }
  return { scopes: result }
}

function listContainer(values: readonly Value[], from: Omit<Container, 'indexed' | 'children'>): Container {
  return { ...from, indexed: 0, children: (start, count) => values.slice(start, start + count) }
}

function variables(context: DapContext, args: Arguments): object {
  const container = context.references.findContainer(args.integer('variablesReference'))
  const filter = args.textOr('filter', undefined)
  const start = args.integerOr('start', 0)
  const count = Math.min(args.integerOr('count', 0) || MAXIMUM_VARIABLES, MAXIMUM_VARIABLES)
  const none = (filter === 'named') !== (container.indexed === 0) && filter !== undefined
  const values = none ? [] : container.children(start, count)
  const asHex = args.object('format').flag('hex')
  return { variables: values.map((value) => clientVariable(context, value, container, asHex)) }
}

interface Shown {
  readonly value: string
  readonly type: string
  readonly variablesReference: number
  readonly indexedVariables?: number
  readonly memoryReference?: string
}

/** What `variables`, `evaluate` and both ways to set have in common. */
function show(context: DapContext, value: Value, from: Omit<Container, 'indexed' | 'children'>, asHex: boolean): Shown {
  const scalar = asHex ? scalarOf(value) : undefined
  const indexed = value.indexed
  return {
    value: scalar === undefined ? value.display : formatNumber(scalar, 'x', bitsOf(value)),
    type: value.type,
    variablesReference: value.expandable ? context.references.value(value, from) : 0,
    ...(indexed > 0 && { indexedVariables: indexed }),
    ...(value.address !== undefined && { memoryReference: dataReference(from.thread, value.address) }),
  }
}

function clientVariable(
  context: DapContext,
  value: Value,
  { thread, frame, readOnly }: Container,
  asHex: boolean,
): DebugProtocol.Variable {
  const path = pathOf(value)
  // What a local points to is in memory, and can be changed there.
  const inside = { thread, frame, readOnly: readOnly && value.address === undefined }
  return {
    name: value.name,
    ...show(context, value, inside, asHex),
    ...(path !== undefined && { evaluateName: path }),
    ...(readOnly && { presentationHint: { attributes: ['readOnly'] } }),
  }
}

function setVariable(context: DapContext, args: Arguments): object {
  const { children, thread, frame } = context.references.findContainer(args.integer('variablesReference'))
  const name = args.text('name')
  const value = children(0, Number.POSITIVE_INFINITY).find((child) => child.name === name)
  if (value === undefined) throw new RequestError(`there is no variable '${name}' there`)
  return assign(context, pathOf(value) ?? name, args, thread, frame)
}

function setExpression(context: DapContext, args: Arguments): object {
  const { thread, frame } = frameArgument(context, args)
  return assign(context, args.text('expression'), args, thread, frame)
}

function assign(
  context: DapContext,
  place: string,
  args: Arguments,
  thread: number,
  frame: number | undefined,
): object {
  const value = context.session.assign(place, args.text('value'), thread, frame)
  if (value.address !== undefined) memoryChanged(context, thread, value.address, value.bytes ?? 0)
  return show(context, value, { thread, frame, readOnly: false }, args.object('format').flag('hex'))
}

// ── expressions ──

/** The frame that is meant; without one, the innermost of the INIC that stopped last. */
function frameArgument(context: DapContext, args: Arguments): { thread: number; frame: number | undefined } {
  if (args.has('frameId')) return context.references.findFrame(args.integer('frameId'))
  const { session } = context
  return { thread: session.stop?.thread ?? session.threads[0]?.id ?? 1, frame: undefined }
}

async function evaluate(context: DapContext, args: Arguments, commands: () => CommandLine): Promise<object> {
  const expression = args.text('expression').trim()
  const where = args.textOr('context', 'repl')
  if (where === 'repl' && expression.startsWith(COMMAND_MARK))
    return { result: await commands().run(expression.slice(COMMAND_MARK.length)), variablesReference: 0 }
  // To look must not change anything.
  if (where !== 'repl' && /(^|[^=!<>])=(?!=)/.test(expression))
    throw new RequestError('an assignment is not evaluated here')
  const { thread, frame } = frameArgument(context, args)
  const value = context.session.evaluate(expression, thread, frame)
  const { value: result, ...rest } = show(
    context,
    value,
    { thread, frame, readOnly: false },
    args.object('format').flag('hex'),
  )
  return { result, ...rest }
}

function completions(context: DapContext, args: Arguments, commands: () => CommandLine): object {
  const { counting, session } = context
  const column = counting.columnFromClient(args.integer('column', 0, 2 ** 31))
  const before = args.text('text').slice(0, Math.max(0, column - 1))
  if (before.startsWith(COMMAND_MARK)) {
    const lines = commands().complete(before.slice(COMMAND_MARK.length))
    const start = counting.columnToClient(1)
    return {
      targets: lines.map((line) => ({
        label: `${COMMAND_MARK}${line}`,
        text: `${COMMAND_MARK}${line}`,
        start,
        length: before.length,
      })),
    }
  }
  if (session.state === 'running') return { targets: [] }
  const { thread, frame } = frameArgument(context, args)
  const { length } = /[\w$]*$/.exec(before)![0]
  const at = before.length - length
  const start = counting.columnToClient(at + 1)
  // The engine gives whole expressions; a client shows what their last word may be.
  const labels = session.complete(before, thread, frame).map((expression) => expression.slice(at))
  return { targets: labels.map((label) => ({ label, start, length })) }
}

// ── exceptions ──

function exceptionInfo(context: DapContext, args: Arguments): object {
  const thread = threadArgument(context, args)
  const { stop } = context.session
  if (stop === null || stop.thread !== thread) throw new RequestError(`thread ${thread} has not stopped for anything`)
  const { exception } = stop
  return {
    exceptionId: exception?.kind ?? stop.reason,
    description: stop.text,
    breakMode: 'always',
    details: {
      message: exception?.message ?? stop.text,
      typeName: exception?.kind ?? stop.reason,
      stackTrace: context.session
        .frames(thread)
        .map(
          ({ functionName, source }) =>
            `${functionName}${source ? ` (${source.file}:${source.line}:${source.column})` : ''}`,
        )
        .join('\n'),
    },
  }
}
