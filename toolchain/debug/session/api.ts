/**
 * What a front end (DAP, gdb-remote, REPL) sees of the debug engine: one session over the INICs of one farm, on one timeline.
 *
 *            continue, step, pause …            stop
 *   halted ──────────────────────────▶ running ───────▶ halted
 *     │  ▲                                                │
 *     │  └─────────── stepBack, reverseContinue ──────────┤   the past: replayed, to be looked at, not to be changed
 *     └── detach: the farm runs on ◀──────────────────────┘
 *
 * The farm halts as a whole: while one INIC is stopped in mid-slice, its clock stands still. Everything but `running` operations is
 * synchronous; what needs a halted farm throws DebugError `running` while it runs.
 */
import type { EventEmitter } from 'node:events'
import type { SourcePosition } from '../../firmware/symbols.ts'
import type { Value } from '../values/index.ts'

export type { Value } from '../values/index.ts'

/** An INIC, as a debugger's thread: numbered from 1 in the order of the farm's boards. */
export interface DebugThread {
  readonly id: number
  /** The board's name: `server1`. */
  readonly name: string
  /** `off`: no power or no firmware; `crashed`: stopped for good, its last state can be looked at. */
  readonly state: 'running' | 'halted' | 'off' | 'crashed'
}

/** A place on the timeline. */
export interface TimelinePosition {
  /** Slices of the whole farm, counted from the session's start; the slice that is under way or comes next. */
  readonly slice: number
  /** The farm's clock, nanoseconds. */
  readonly timeNs: number
  /** False in the past. */
  readonly live: boolean
  /** Oldest slice that history still reaches. */
  readonly oldestSlice: number
}

export type StopReason =
  | 'entry' // the session took over a farm
  | 'pause'
  | 'step'
  | 'breakpoint' // line, function, instruction
  | 'watchpoint'
  | 'exception' // trap, bus fault, watchdog, crash
  | 'frame' // a frame that matches a filter
  | 'state' // a TCP state transition
  | 'row' // a table row inserted or removed
  | 'console'
  | 'interrupt'
  | 'history' // the oldest recorded moment, going back
  | 'live' // the live edge, going forward from the past

export interface Stop {
  readonly reason: StopReason
  /** Which INIC it is about. */
  readonly thread: number
  /** Ids of the breakpoints that were hit. */
  readonly breakpoints: readonly number[]
  /** One line for a person: `server1 sends SYN-ACK 192.0.2.1:80 → 192.0.2.9:40001`, `tcb[3].state SYN-RECEIVED → ESTABLISHED`. */
  readonly text: string
  readonly position: TimelinePosition
  /** Reason watchpoint, state and row: what changed. */
  readonly change?: {
    readonly expression: string
    readonly address: number
    readonly before: Value
    readonly after: Value
  }
  /** Reason exception. */
  readonly exception?: { readonly kind: string; readonly message: string; readonly address?: number }
  /** Reason frame: the frame's bytes, a copy. */
  readonly frame?: { readonly port: string; readonly direction: 'in' | 'out'; readonly bytes: Uint8Array }
}

/** One function of the call stack; an inlined one has the physical frame of the function that it was inlined into. */
export interface StackFrame {
  /** 0 is innermost. */
  readonly index: number
  /** As the source has it: `tcpInput`, `Tcb#reset`. */
  readonly functionName: string
  readonly source: SourcePosition | undefined
  /** Offset in firmware.wasm: of the next instruction, in callers of the one behind the call. */
  readonly pc: number
  readonly inlined: boolean
  /** Index of the wasm frame; several inlined frames share one. */
  readonly physical: number
}

/** Only for these threads; undefined: all. */
interface OnThreads {
  readonly threads?: readonly number[]
  /** Stop only if this is true (or not 0). */
  readonly condition?: string
  /** Stop only at the hits that match: `5`, `>= 3`, `% 10`. */
  readonly hitCondition?: string
  /** Print instead of stopping; `{expression}` is replaced by its value. */
  readonly logMessage?: string
  /** Gone after its first stop. */
  readonly temporary?: boolean
}

export type BreakpointSpec = OnThreads &
  (
    | { readonly kind: 'source'; readonly file: string; readonly line: number; readonly column?: number }
    /** `tcpInput`, `firmware/tcp/input/tcpInput`, `Tcb#reset`, or with `*`. */
    | { readonly kind: 'function'; readonly name: string }
    | { readonly kind: 'instruction'; readonly pc: number }
    /** `tcb[3].sndNxt`, `tcb[*].state`, a register's name, `u32[0x12000]`; default access: write. */
    | { readonly kind: 'watch'; readonly expression: string; readonly access?: 'read' | 'write' | 'access' }
    /** A frame filter (`tcp.flags.syn && ip.dst == 192.0.2.1`); port: `server1`, `server1.0`; undefined: any. */
    | { readonly kind: 'frame'; readonly filter: string; readonly port?: string; readonly direction?: 'in' | 'out' }
    /** RFC 9293's names; undefined: any. */
    | { readonly kind: 'tcp-state'; readonly from?: string; readonly to?: string }
    /** A table as the expressions name it: `tcb`, `forward`, `arp`. */
    | { readonly kind: 'row'; readonly table: string; readonly event?: 'insert' | 'remove' }
    /** Part of a console line, or `/pattern/flags`. */
    | { readonly kind: 'console'; readonly text: string }
    /** An interrupt of the card's own lines by name (`MAC0`, `TIMER`, `FETCH`); `HOST` for one of the main board; undefined: any. */
    | { readonly kind: 'interrupt'; readonly line?: string }
    /** A trap, bus fault or watchdog. The session has one of these from the start; removing it lets crashes pass. */
    | { readonly kind: 'exception'; readonly filter?: 'trap' | 'bus-fault' | 'watchdog' }
  )

/** Where a breakpoint really is. */
export interface BreakpointPlace {
  readonly pc: number
  readonly source: SourcePosition | undefined
  readonly functionName: string | undefined
}

export interface Breakpoint {
  readonly id: number
  readonly spec: BreakpointSpec
  enabled: boolean
  /** False if nothing can stop there; `message` says why. */
  readonly verified: boolean
  readonly message?: string
  /** Code breakpoints: every instruction that stops. */
  readonly places: readonly BreakpointPlace[]
  readonly hits: number
}

export type StepKind =
  /** To the next line, into calls. */
  | 'in'
  /** To the next line of this function or its caller. */
  | 'over'
  /** To the caller. */
  | 'out'
  /** One instruction, into calls. */
  | 'instruction'
  /** One instruction, over calls. */
  | 'instruction-over'

export interface DebugEvents {
  /** The farm halted; also after `pause` and every step. */
  stopped: [stop: Stop]
  /** It runs again. */
  continued: []
  /** A log point's text, a console line (source = board or program), a remark. */
  output: [category: 'log' | 'console' | 'remark', source: string, text: string]
  /** A breakpoint changed (verified when its firmware was booted, gone because it was temporary). */
  breakpoint: [breakpoint: Breakpoint, change: 'changed' | 'removed']
  thread: [thread: DebugThread]
  /** The farm ended. */
  terminated: []
}

export type DebugErrorCode =
  | 'running'
  | 'halted'
  | 'no-thread'
  | 'no-frame'
  | 'expression'
  | 'past'
  | 'memory'
  | 'unsupported'

/** Wrong use or wrong input; never the end of the session. */
export class DebugError extends Error {
  readonly code: DebugErrorCode

  constructor(code: DebugErrorCode, message: string) {
    super(message)
    this.name = 'DebugError'
    this.code = code
  }
}

export interface Instruction {
  readonly pc: number
  readonly bytes: Uint8Array
  /** `i32.load offset=8`, `call $firmware/tcp/input/tcpInput`. */
  readonly text: string
  readonly source: SourcePosition | undefined
}

/** A firmware that some INIC runs. */
export interface DebugModule {
  readonly id: number
  /** `0.1.0 (release)`. */
  readonly description: string
  readonly wasm: Uint8Array
  readonly threads: readonly number[]
  /** False: no source map, so there are no lines. */
  readonly hasSource: boolean
}

export interface SessionApi extends EventEmitter<DebugEvents> {
  readonly state: 'running' | 'halted'
  /** The last stop; null before the first and while running. */
  readonly stop: Stop | null
  readonly position: TimelinePosition
  readonly threads: readonly DebugThread[]
  readonly modules: readonly DebugModule[]
  /** Files that lines are known of: absolute where they are on this machine, else as the build named them. */
  readonly sources: readonly string[]

  // ── running; each resolves at the next stop, or when the session is detached ──

  /** Runs on, to the next stop. From the past: forward through it, and on from the live edge. */
  continue(): Promise<Stop>
  /** Runs back to the last stop before here. */
  reverseContinue(): Promise<Stop>
  step(thread: number, kind: StepKind): Promise<Stop>
  /** The same, backwards: `over` to the line before, `out` to the call of this function. */
  stepBack(thread: number, kind: StepKind): Promise<Stop>
  /** Runs, forward or back, to the moment before that slice of the timeline. */
  goTo(slice: number): Promise<Stop>
  /** Halts a running farm between two slices. */
  pause(): Promise<Stop>
  /** From the past to the live edge. */
  goLive(): Promise<Stop>
  /** Takes every breakpoint away and lets the farm run on. */
  detach(): Promise<void>

  // ── breakpoints; at any time ──

  readonly breakpoints: readonly Breakpoint[]
  /** @throws DebugError `expression` for one that cannot be understood */
  addBreakpoint(spec: BreakpointSpec): Breakpoint
  /** False if there is none. */
  removeBreakpoint(id: number): boolean
  setEnabled(id: number, enabled: boolean): void
  /** Lines of a file where a breakpoint can be, from `first` to `last`. */
  breakableLines(file: string, first: number, last: number): number[]

  // ── looking; the farm is halted ──

  /** Innermost first; empty for an INIC that is between two slices. */
  frames(thread: number): readonly StackFrame[]
  /** Parameters and locals that have a value here. Read-only: the engine cannot write them. */
  locals(thread: number, frame: number): readonly Value[]
  /** Locals and operand stack as the machine has them. */
  machineState(thread: number, frame: number): { readonly locals: readonly Value[]; readonly stack: readonly Value[] }
  /** Registers of the card, tables, State: the roots of what is in INIC memory. */
  globals(thread: number): readonly Value[]
  /** @throws DebugError `expression` with the column */
  evaluate(expression: string, thread: number, frame?: number): Value
  /** Assigns to memory or a register, `tcb[3].sndWnd = 0`. @throws DebugError `past`, `expression` (locals are read-only) */
  assign(expression: string, value: string, thread: number, frame?: number): Value
  complete(text: string, thread: number, frame?: number): readonly string[]
  /** At most `bytes`, less at the end of memory. A copy. */
  readMemory(thread: number, address: number, bytes: number): Uint8Array
  /** @throws DebugError `past`, `memory` */
  writeMemory(thread: number, address: number, bytes: Uint8Array): void
  memoryBytes(thread: number): number
  /** `count` instructions from the one at `pc` or the first behind it; `before` of them in front. */
  disassemble(thread: number, pc: number, count: number, before?: number): readonly Instruction[]
}
