/** Small things that a session shows values by. */
import type { DebugFrame, DebugValue, WatchHit } from '../../../emulator/cpu/index.ts'
import type { Program } from '../symbols/index.ts'
import { decodeFrame, ExpressionError, type MemoryAccess, type Value } from '../values/index.ts'
import { type BreakpointSpec, DebugError, type StepKind, type Stop, type StopReason } from './api.ts'
import type { BreakpointEntry } from './breakpoints.ts'
import type { Inic, LiveInic } from './inic.ts'

/** Frames of an INIC as it stands: halted, or stopped by a fault, whose frames have no locals. */
export function liveFrames({ board, debugged }: LiveInic): readonly DebugFrame[] {
  if (board.halted) return debugged!.twin.frames()
  const frames = board.crash === null ? [] : (board.cpu?.fault?.frames ?? [])
  return frames.flatMap((frame) => (frame.pc === undefined ? [] : [{ locals: [], stack: [], ...frame, pc: frame.pc }]))
}

export function watchReason({ kind }: BreakpointSpec): StopReason {
  return kind === 'tcp-state' ? 'state' : kind === 'row' ? 'row' : 'watchpoint'
}

/** `server1.0 receives TCP 192.0.2.9:40001 → 192.0.2.1:80 [SYN] …`. */
export function frameText(port: string, direction: 'in' | 'out', bytes: Uint8Array): string {
  return `${port} ${direction === 'in' ? 'receives' : 'sends'} ${decodeFrame(bytes).summary}`
}

/** Memory as it is but for some bytes. */
export function overlaid(memory: MemoryAccess, start: number, bytes: Uint8Array): MemoryAccess {
  return {
    size: memory.size,
    read(address, length) {
      const found = memory.read(address, length)?.slice()
      for (let n = 0; found !== undefined && n < bytes.length; n++) {
        const at = start + n - address
        if (at >= 0 && at < length) found[at] = bytes[n]!
      }
      return found
    },
  }
}

/** Locals or operands as the machine has them, `$0`, `$1` or `0`, `1`. */
export function machineValues(values: readonly DebugValue[], prefix: string): Value[] {
  return values.map(({ type, value }, n) => ({
    ...{ name: `${prefix}${n}`, type, display: String(value), scalar: value },
    ...{ address: undefined, bytes: undefined, path: undefined, indexed: 0, expandable: false },
    children: () => [],
  }))
}

/** Runs something with expressions; what is wrong with them is a DebugError. */
export function explain<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof ExpressionError) throw new DebugError('expression', error.message)
    throw error
  }
}

/** @throws DebugError unless it is a whole number from 0 to `maximum` */
export function checkNumber(number: number, maximum: number): number {
  if (!Number.isSafeInteger(number) || number < 0 || number > maximum)
    throw new DebugError('memory', `${number} is no number from 0 to ${maximum}`)
  return number
}

export function ids(entries: readonly BreakpointEntry[]): number[] {
  return entries.map(({ id }) => id)
}

/** `server1 in tcpInput at firmware/tcp/input.ts:90`. @param entering innermost functions that are not entered yet */
export function placeText({ name, firmware }: Inic, pc: number, entering = 0): string {
  const frame = firmware?.program.frames(pc)[entering]
  const source = frame?.source
  return `${name} in ${frame?.name ?? `pc ${pc}`}${source ? ` at ${source.file}:${source.line}` : ''}`
}

/** What a watched expression was and is, for a stop. `memory` is as it is behind the access. */
export function changeOf(
  { name, firmware }: Inic,
  memory: MemoryAccess,
  watched: string,
  { start, before, after }: WatchHit,
): { readonly text: string; readonly change: NonNullable<Stop['change']> } {
  const { values } = firmware!
  const { address, stride, count } = values.compile(watched).place({ memory })
  const expression = count > 1 ? watched.replace('*', String(Math.floor((start - address) / stride))) : watched
  const value = (bytes: Uint8Array): Value => values.evaluate(expression, { memory: overlaid(memory, start, bytes) })
  const change = { expression, address: start, before: value(before), after: value(after) }
  return { text: `${name}: ${expression} ${change.before.display} → ${change.after.display}`, change }
}

/** Functions that begin at the instruction where a step ended, and are not entered yet. */
export function enteringAfter(kind: StepKind, { firmware }: Inic, pc: number): number {
  return kind === 'instruction' || kind === 'instruction-over' ? 0 : (firmware?.program.entering(pc) ?? 0)
}

/** Functions that begin at the instruction of a breakpoint, and are not what it means: it is on the line that calls them. */
export function enteringAt({ spec }: BreakpointEntry, program: Program, pc: number): number {
  const frames = program.frames(pc).slice(0, program.entering(pc) + 1)
  const isMeant = ({ name, source }: (typeof frames)[number]) =>
    spec.kind === 'source' ? source?.line === spec.line : spec.kind === 'function' && name === spec.name
  return Math.max(0, frames.findIndex(isMeant))
}
