import { REGISTER_BASE } from '../abi/memory.ts'
import { SYS_PANIC, SYS_PANIC_DETAIL } from '../abi/registers.ts'
import type { SourceLocation, SourceResolver } from './boot.ts'
import type { CpuFault } from './cpu/cpu.ts'
import { hex, type InicMemory } from './devices/memory.ts'
import { REGISTERS } from './devices/registers.ts'
import { readTrace } from './devices/trace.ts'

/** Trace entries in a crash report. */
const REPORTED_TRACE_ENTRIES = 32

export type CrashKind =
  /** An instruction that cannot be carried out. */
  | 'trap'
  /** The firmware gave up by itself: SYS_PANIC says why. */
  | 'panic'
  /** A slice spent its fuel or its time, or WATCHDOG_KICK did not come. */
  | 'watchdog'
  /** An access where nothing is mapped, or a descriptor that no device could use. */
  | 'bus-fault'

export interface CrashFrame {
  function: string
  /** Offset in the firmware's wasm file, if known. */
  pc: number | null
  source: SourceLocation | null
}

/** Why a board stopped, and what it looked like then. */
export interface CrashReport {
  board: string
  kind: CrashKind
  /** A sentence for a person. */
  message: string
  /** Since the board's power-on. */
  timeNs: number
  /** Call stack, innermost first; empty where the fault was found after the poll. */
  frames: CrashFrame[]
  registers: { name: string; value: number }[]
  panic: { reason: number; detail: number } | null
  /** Oldest first. */
  trace: { timeNs: number; text: string }[]
  /** The last lines on the console, oldest first. */
  console: string[]
}

/** Writes the report of a board whose CPU stopped with `fault`, or that the devices stopped with `message`. */
export function reportCrash(options: {
  board: string
  timeNs: number
  memory: InicMemory
  cpuFault: CpuFault | null
  kind: CrashKind
  message: string
  console: string[]
  resolveSource: SourceResolver | null
}): CrashReport {
  const { board, timeNs, memory, cpuFault, console, resolveSource } = options
  const reason = memory.register(SYS_PANIC)
  const detail = memory.register(SYS_PANIC_DETAIL)
  const panic = reason === 0 && detail === 0 ? null : { reason, detail }
  return {
    board,
    kind: cpuFault === null ? options.kind : crashKind(cpuFault, panic !== null),
    message: cpuFault === null ? options.message : faultMessage(cpuFault, panic),
    timeNs,
    frames: (cpuFault?.frames ?? []).map((frame) => {
      const pc = frame.pc ?? null
      return {
        function: frame.functionName ?? `function ${frame.functionIndex}`,
        pc,
        source: pc === null ? null : resolve(resolveSource, pc),
      }
    }),
    registers: REGISTERS.map(({ name, offset }) => ({ name, value: memory.words[(REGISTER_BASE + offset) >>> 2] })),
    panic,
    trace: readTrace(memory, timeNs, REPORTED_TRACE_ENTRIES).map(({ timeNs, text }) => ({ timeNs, text })),
    console,
  }
}

/** The report as lines of text, without the registers that are 0. */
export function formatCrash(report: CrashReport): string[] {
  const what = report.message.startsWith(`${report.kind}: `) ? report.message : `${report.kind}: ${report.message}`
  const lines = [`${report.board} stopped at ${(report.timeNs / 1e9).toFixed(6)} s: ${what}`]
  for (const frame of report.frames) {
    const place = frame.source
      ? `${frame.source.file}:${frame.source.line}:${frame.source.column}`
      : frame.pc === null
        ? ''
        : `wasm ${hex(frame.pc)}`
    lines.push(`    at ${frame.function}${place && ` (${place})`}`)
  }
  const registers = report.registers
    .filter(({ value }) => value !== 0)
    .map(({ name, value }) => `${name}=${hex(value)}`)
  if (registers.length > 0) lines.push('registers:')
  for (let n = 0; n < registers.length; n += 4) lines.push(`    ${registers.slice(n, n + 4).join(' ')}`)
  if (report.trace.length > 0) lines.push('last trace entries:')
  for (const { timeNs, text } of report.trace) lines.push(`    ${(timeNs / 1e9).toFixed(6)} ${text}`)
  if (report.console.length > 0) lines.push('last console lines:')
  for (const line of report.console) lines.push(`    ${line}`)
  return lines
}

function crashKind(fault: CpuFault, panicked: boolean): CrashKind {
  if (fault.kind === 'watchdog' || fault.kind === 'bus-fault') return fault.kind
  return fault.kind === 'unreachable' && panicked ? 'panic' : 'trap'
}

function faultMessage(fault: CpuFault, panic: { reason: number; detail: number } | null): string {
  if (fault.kind === 'unreachable' && panic !== null)
    return `the firmware gave up: reason ${panic.reason}, detail ${panic.detail} (${hex(panic.detail)})`
  return fault.message
}

function resolve(resolver: SourceResolver | null, pc: number): SourceLocation | null {
  // The resolver belongs to somebody else; a report without a line is better than none.
  try {
    return resolver?.(pc) ?? null
  } catch {
    return null
  }
}
