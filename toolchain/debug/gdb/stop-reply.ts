/** Stops as LLDB hears of them: `T05thread:1;…`. */
import type { DebugThread, Stop } from '../session/api.ts'
import { registerHex } from './address.ts'
import { OWN_THREAD, REST_OF_FARM } from './inferior.ts'
import { encodeHex, hexByte } from './packet.ts'

const SIGINT = 2
const SIGTRAP = 5
const SIGSEGV = 11

/** Number of the only register. */
export const PC_REGISTER = 0

/** The INIC that is looked at, and the rest. */
export const THREAD_IDS = `${OWN_THREAD},${REST_OF_FARM.id}`

export interface StopPlace {
  readonly thread: DebugThread
  /** Address where the INIC stands. */
  readonly pc: bigint
  /** LLDB set a breakpoint there, and that is why. */
  readonly ownBreakpoint: boolean
  /** Address of LLDB's own watchpoint that was hit. */
  readonly watchpoint?: number | undefined
}

/**
 * The stop as a T packet. The pc goes along: LLDB looks for its breakpoint there before it asks for anything. Reasons that LLDB has no word
 * for are exceptions, whose text it shows.
 */
export function encodeStop(stop: Stop, { thread, pc, ownBreakpoint, watchpoint }: StopPlace): string {
  const { signal, reason } = classify(stop, ownBreakpoint, watchpoint)
  const description = describe(stop, reason, watchpoint)
  const fields = [
    ['thread', String(OWN_THREAD)],
    ['name', thread.name],
    ['threads', THREAD_IDS],
    [hexByte(PC_REGISTER), registerHex(pc)],
    ...(reason === undefined ? [] : [['reason', reason]]),
    ...(description === undefined ? [] : [['description', encodeHex(description)]]),
  ]
  return `T${hexByte(signal)}${fields.map(([name, value]) => `${name}:${value};`).join('')}`
}

/** The rest of the farm halts for no reason of its own; `reason` is for a step that it was asked for. */
export function encodeRest(reason?: 'trace'): string {
  const { id, name, pc } = REST_OF_FARM
  const why = reason === undefined ? '' : `threads:${THREAD_IDS};reason:${reason};`
  const signal = reason === undefined ? 0 : SIGTRAP
  return `T${hexByte(signal)}thread:${id};name:${name};${hexByte(PC_REGISTER)}:${registerHex(pc)};${why}`
}

/** What LLDB shows as the reason; for breakpoints and steps it has words of its own, which a description would take the place of. */
function describe(stop: Stop, reason: string | undefined, watchpoint: number | undefined): string | undefined {
  if (reason === 'watchpoint') return `${watchpoint} 0 ${watchpoint}`
  return reason === 'breakpoint' || reason === 'trace' || stop.text === '' ? undefined : stop.text
}

function classify(
  { reason }: Stop,
  ownBreakpoint: boolean,
  watchpoint: number | undefined,
): { signal: number; reason: string | undefined } {
  switch (reason) {
    case 'entry':
    case 'pause':
      return { signal: SIGINT, reason: undefined }
    case 'step':
      // A step may end where a breakpoint is, and then counts as one.
      return { signal: SIGTRAP, reason: ownBreakpoint ? 'breakpoint' : 'trace' }
    case 'breakpoint':
      return { signal: SIGTRAP, reason: ownBreakpoint ? 'breakpoint' : 'exception' }
    case 'watchpoint':
      return { signal: SIGTRAP, reason: watchpoint === undefined ? 'exception' : 'watchpoint' }
    case 'exception':
      return { signal: SIGSEGV, reason: 'exception' }
    case 'history':
    case 'live':
      return { signal: SIGTRAP, reason: 'history boundary' }
    default:
      return { signal: SIGTRAP, reason: 'exception' }
  }
}
