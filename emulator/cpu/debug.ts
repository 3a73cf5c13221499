/**
 * The CPU under a debugger: breakpoints, watchpoints, steps, traces, frames with locals. Wasmtime only.
 *
 * A *call* of the firmware, `reset` or one `poll`, is a sequence of instructions, numbered from 0. As a call is a function
 * of INIC memory and the interrupt lines, (call, instruction) is a place in a run that can be gone to again.
 */

import { DEBUG_KINDS, DEBUG_VALUES, DebugIo, type NativeDebugCpu, type NativeValue } from './addon.ts'
import { CpuError, type CpuFault, type CpuFaultKind, type CpuFrame } from './cpu.ts'
import type { MemoryShare } from './share.ts'

/** A local or an operand. An i32 is signed; a v128 is an unsigned integer of 128 bits, lane 0 lowest. */
export type DebugValue =
  | { readonly type: 'i32' | 'f32' | 'f64' | 'ref'; readonly value: number }
  | { readonly type: 'i64' | 'v128'; readonly value: bigint }

/** A function of the firmware that is running. */
export interface DebugFrame extends CpuFrame {
  /** Offset in the module of the next instruction; in a caller, of the one behind the call. */
  readonly pc: number
  /** Parameters, then locals. */
  readonly locals: readonly DebugValue[]
  /** Operand stack, bottom first. */
  readonly stack: readonly DebugValue[]
}

/** How a call came back, as a number. */
const DebugCode = {
  /** The call returned. */
  done: 0,
  /** The firmware is stopped until `reset`. */
  fault: 1,
  /** Before an instruction with a breakpoint. */
  breakpoint: 2,
  /** Before an instruction: single step, or what `runTo`, `runSteps` or `trace` were asked for. */
  step: 3,
  /** At an instruction that is about to trap. */
  trap: 4,
  /** Behind an instruction that touched what a watchpoint watches. */
  watch: 5,
} as const

type DebugCode = (typeof DebugCode)[keyof typeof DebugCode]

/** How `reset`, `poll` or `resume` came back. */
export type DebugOutcome =
  /** Before an instruction: `frames` shows where. */
  | { readonly state: 'stopped'; readonly reason: 'breakpoint' | 'step' }
  /** At an instruction that is about to trap: `frames` shows where, `resume` ends the call with the fault. */
  | { readonly state: 'stopped'; readonly reason: 'trap'; readonly trap: CpuFaultKind }
  /** Before the instruction behind the access. A breakpoint there is not reported by a stop of its own. */
  | { readonly state: 'stopped'; readonly reason: 'watch'; readonly hits: readonly WatchHit[] }
  /** The call returned; `result` is that of `poll`, 0 for `reset`. */
  | { readonly state: 'done'; readonly result: number }
  /** The firmware is stopped until `reset`. A bus fault comes at once, without a stop before it, and has its frames. */
  | { readonly state: 'fault'; readonly fault: CpuFault }

/** What a watchpoint watches: INIC addresses `start` up to but not including `end`. */
export interface Watchpoint {
  readonly start: number
  readonly end: number
  /**
   * The range is a table with rows of this many bytes, and only the field at `offset` (default 0) of `bytes` (default:
   * the rest of the row) in each row is watched.
   */
  readonly stride?: number
  readonly offset?: number
  readonly bytes?: number
  /** Stop at loads, at stores, at both, or at stores that leave other bytes than they found. */
  readonly kind: 'read' | 'write' | 'access' | 'change'
}

/** A load or store that touched what a watchpoint watches. */
export interface WatchHit {
  /** Of the watchpoint. */
  readonly id: number
  /** `memory.copy` may do both: then there is a hit for each. */
  readonly kind: 'read' | 'write'
  /** First address of the access, and how many bytes it has. */
  readonly address: number
  readonly bytes: number
  /** Offset in the module of the instruction. */
  readonly pc: number
  /** First watched address that was touched. */
  readonly start: number
  /** The watched bytes from there on that were touched, within one row and 64 at most, before and after the access. */
  readonly before: Uint8Array
  readonly after: Uint8Array
}

/** What to run: `poll` with these interrupt lines, `reset`, or on from a stop. */
export type DebugCall = number | 'reset' | 'resume'

/** Addresses of the instructions of a call, in the order they ran. */
export interface Trace {
  /** Stopped with reason `step`: before the instruction that would have been one too many. */
  readonly outcome: DebugOutcome
  /** Offsets in the module. */
  readonly pcs: Uint32Array
}

/** Instructions that {@link DebugCpu.trace} keeps if not told otherwise. */
export const TRACE_LIMIT = 1 << 20

/** Numbers of a profile's samples that are kept if not told otherwise. */
export const SAMPLE_WORDS = 1 << 20

/**
 * Runs a firmware in calls that can be stopped within.
 *
 * Several times slower than the plain CPU, and it spends the same fuel. A running board is taken over by
 * `WasmtimeCpu.debugTwin()`, between two polls, and given back by going on with the plain CPU.
 *
 * While instructions are counted, traced or profiled, or a call is run to one of them, each costs one or two
 * microseconds in the addon, and no JavaScript runs.
 */
export class DebugCpu {
  /** INIC memory itself. To be read and written at stops too. Its length is 0 once its CPUs are disposed of. */
  readonly memory: ArrayBuffer
  readonly #native: NativeDebugCpu
  readonly #share: MemoryShare
  readonly #io: Float64Array
  readonly #kinds: Uint8Array
  readonly #i32: Int32Array
  readonly #i64: BigInt64Array
  readonly #u64: BigUint64Array
  readonly #f32: Float32Array
  readonly #f64: Float64Array
  readonly #reset: () => void
  readonly #poll: () => void
  readonly #resume: () => void
  #histogram: Uint32Array | undefined
  #counting = false
  #disposed = false

  /** Over the memory of another CPU. Throws ERR_CPU_MEMORY. */
  constructor(native: NativeDebugCpu, share: MemoryShare) {
    this.#native = native
    this.#share = share
    share.join()
    this.memory = share.memory
    this.#io = new Float64Array(ask(() => native.io()))
    const values = ask(() => native.values())
    this.#i32 = new Int32Array(values)
    this.#i64 = new BigInt64Array(values)
    this.#u64 = new BigUint64Array(values)
    this.#f32 = new Float32Array(values)
    this.#f64 = new Float64Array(values)
    this.#kinds = new Uint8Array(ask(() => native.kinds()))
    this.#reset = ask(() => native.resetFunction())
    this.#poll = ask(() => native.pollFunction())
    this.#resume = ask(() => native.resumeFunction())
  }

  /** It was disposed of. */
  get disposed(): boolean {
    return this.#disposed
  }

  /** A call is stopped in its midst. */
  get stopped(): boolean {
    return this.#io[DebugIo.code] >= DebugCode.breakpoint
  }

  /**
   * Fuel spent by the last call; after a fault a lower bound. At a stop that spent so far, up to the last call of, or
   * return from, a function: the engine keeps what came since in a register.
   */
  get cycles(): number {
    return this.#io[DebugIo.cycles]
  }

  /** The last call that ended left something in the watched range of {@link CpuOptions.watch} other than it found it. */
  get stored(): boolean {
    return this.#io[DebugIo.stored] !== 0
  }

  /** Why the firmware is stopped until `reset`, whichever CPU of this memory ran it; or null. */
  get fault(): CpuFault | null {
    this.#share.fault ??= this.#native.fault()
    return this.#share.fault
  }

  /** At a stop: offset in the module of the instruction before which it is; of the one that traps. Else undefined. */
  get pc(): number | undefined {
    return this.stopped ? this.#io[DebugIo.pc] : undefined
  }

  /**
   * Instructions of the call that were begun: at a stop the number of the next one (at a trap, of the one behind the
   * instruction that traps), after a call all there were. Undefined if it was not counted from its start; see
   * {@link counting}.
   */
  get steps(): number | undefined {
    const steps = this.#io[DebugIo.steps]
    return steps < 0 ? undefined : steps
  }

  /** Calls are counted in instructions, so that {@link steps} is known at any stop. Taken up by the next call. */
  get counting(): boolean {
    return this.#counting
  }

  set counting(on: boolean) {
    ask(() => this.#native.setCounting(on))
    this.#counting = on
  }

  /** Calls the firmware's `reset` and takes back a fault. Throws ERR_CPU_STATE in mid-call. */
  reset(): DebugOutcome {
    return this.#run('reset')
  }

  /** Calls the firmware's `poll`. Throws ERR_CPU_STATE in mid-call. After a fault: that fault. */
  poll(irqs: number): DebugOutcome {
    return this.#run(irqs)
  }

  /** Goes on from a stop. Throws ERR_CPU_STATE if there is none. */
  resume(): DebugOutcome {
    return this.#run('resume')
  }

  /**
   * Runs a call, or on from a stop, and stops with reason `step` before instruction number `step` of the call.
   * Breakpoints, watchpoints and single step do not stop it; a trap does, and a call that has fewer instructions ends.
   *
   * Throws ERR_CPU_STATE from a stop that is behind that instruction, or whose number is not known.
   */
  runTo(call: DebugCall, step: number): DebugOutcome {
    if (!Number.isSafeInteger(step) || step < 0) throw option(`step is ${step}: it has to be 0 or more`)
    if (call === 'resume' && !(step > (this.steps ?? Number.POSITIVE_INFINITY))) {
      throw new CpuError('ERR_CPU_STATE', `the call is not before instruction ${step}, or was not counted`)
    }
    this.#expectState(call)
    ask(() => this.#native.stopAtStep(step))
    return this.#run(call)
  }

  /** Goes on from a stop for `steps` instructions, as {@link runTo} does. Throws ERR_CPU_STATE if there is none. */
  runSteps(steps: number): DebugOutcome {
    if (!Number.isSafeInteger(steps) || steps <= 0) throw option(`steps is ${steps}: it has to be 1 or more`)
    this.#expectState('resume')
    ask(() => this.#native.stopAfter(steps))
    return this.#run('resume')
  }

  /**
   * Runs a call, or on from a stop, and notes the offset of each instruction: `limit` at most. Breakpoints, watchpoints
   * and single step do not stop it; a trap does. Throws ERR_CPU_STATE.
   */
  trace(call: DebugCall, limit = TRACE_LIMIT): Trace {
    if (!Number.isSafeInteger(limit) || limit <= 0 || limit > 2 ** 28) throw option(`the limit is ${limit}`)
    this.#expectState(call)
    ask(() => this.#native.startTrace(limit))
    return { outcome: this.#run(call), pcs: ask(() => this.#native.takeTrace()) }
  }

  /**
   * From the next `reset`, `poll` or `resume` on, counts how often each instruction runs, in {@link histogram}.
   *
   * With a `samplePeriod`, also notes the call stack each so many instructions, for {@link takeSamples}, up to
   * `sampleWords` numbers: then samples are lost until they are taken.
   */
  startProfile({ samplePeriod = 0, sampleWords = SAMPLE_WORDS } = {}): void {
    const valid = (n: number, max: number) => Number.isSafeInteger(n) && n >= 0 && n <= max
    if (!valid(samplePeriod, 2 ** 32 - 1)) throw option(`samplePeriod is ${samplePeriod}`)
    if (!valid(sampleWords, 2 ** 28)) throw option(`sampleWords is ${sampleWords}`)
    ask(() => this.#native.startProfile(samplePeriod, sampleWords))
  }

  /** Ends what {@link startProfile} began; the counts stay. */
  stopProfile(): void {
    ask(() => this.#native.stopProfile())
  }

  /** How often the instruction at each offset of the module ran under a profile, modulo 2³². To be written too. */
  get histogram(): Uint32Array {
    this.#histogram ??= new Uint32Array(ask(() => this.#native.histogram()))
    return this.#histogram
  }

  /**
   * Takes the samples away: one after the other, each its depth and then, from the innermost frame outwards, function
   * index and offset in the module.
   */
  takeSamples(): Uint32Array {
    return ask(() => this.#native.takeSamples())
  }

  /**
   * Stops before the instruction at offset `pc` of the module, whenever it is reached. Can be called at a stop.
   *
   * Returns the offset where it stops: that of the next instruction if `pc` is within one. Throws ERR_CPU_BREAKPOINT if
   * there is none.
   */
  addBreakpoint(pc: number): number {
    return ask(() => this.#native.addBreakpoint(pc))
  }

  /** Takes back a breakpoint, by the `pc` it was asked for. False if there is none. */
  removeBreakpoint(pc: number): boolean {
    return ask(() => this.#native.removeBreakpoint(pc))
  }

  /**
   * Stops behind each load or store of the firmware that touches a range of INIC memory, and returns a number to remove
   * it by. Can be called at a stop. Every load and store then costs a microsecond or so.
   *
   * Throws ERR_CPU_OPTION for what is no range in INIC memory, or no field of a row.
   */
  addWatchpoint(watchpoint: Watchpoint): number {
    const { start, end, stride = 0, kind } = watchpoint
    const row = stride || end - start
    const { offset = 0, bytes = row - offset } = watchpoint
    const whole = [start, end, stride, offset, bytes].every((n) => Number.isSafeInteger(n) && n >= 0)
    if (!whole || start >= end || end > this.memory.byteLength) {
      throw option(`a watchpoint at ${start}-${end}: no range in the ${this.memory.byteLength} bytes of INIC memory`)
    }
    if (bytes === 0 || offset + bytes > row) {
      throw option(`a watchpoint on ${bytes} bytes at ${offset}: no field of a row of ${row} bytes`)
    }
    return ask(() => this.#native.addWatchpoint({ start, end, stride: row, offset, bytes, kind }))
  }

  /** Takes back a watchpoint. False if there is none. */
  removeWatchpoint(id: number): boolean {
    return ask(() => this.#native.removeWatchpoint(id))
  }

  /** Stops before every instruction from the next `resume`, `reset` or `poll` on, or no longer. */
  singleStep(on: boolean): void {
    ask(() => this.#native.singleStep(on))
  }

  /** The stopped call stack, innermost first. Empty between calls. */
  frames(): DebugFrame[] {
    return ask(() => this.#native.frames())
  }

  /**
   * A local of the innermost frame: a signed i32 or a float as a number, an i64 or v128 as a bigint. Undefined if there is
   * none, or it is behind the 512th: {@link frames} has those too.
   */
  local(index: number): number | bigint | undefined {
    const count = this.stopped ? Math.min(this.#io[DebugIo.locals], DEBUG_VALUES) : 0
    return Number.isInteger(index) && index >= 0 && index < count ? this.#value(index) : undefined
  }

  /** As `Cpu.clearFault`. Does nothing in mid-call. */
  clearFault(): void {
    if (!this.stopped) this.#share.fault = null
    ask(() => this.#native.clearFault())
  }

  /** Ends a call that is stopped, where it is; INIC memory stays as it is. Does nothing between calls. */
  abandon(): void {
    ask(() => this.#native.abandon())
  }

  /** As `Cpu.usedPages`. */
  usedPages(): Uint32Array {
    return ask(() => this.#native.usedPages())
  }

  /**
   * Abandons a call that is stopped and frees the engine; detaches `memory` unless another CPU has it too. Safe to call
   * twice.
   */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    ask(() => this.#native.dispose(this.#share.leave()))
  }

  #value(at: number): number | bigint {
    const kind: NativeValue['type'] = DEBUG_KINDS[this.#kinds[at]]
    if (kind === 'i32') return this.#i32[at * 4]
    if (kind === 'i64') return this.#i64[at * 2]
    if (kind === 'f32') return this.#f32[at * 4]
    if (kind === 'f64') return this.#f64[at * 2]
    return kind === 'v128' ? this.#u64[at * 2] | (this.#u64[at * 2 + 1] << 64n) : 0
  }

  #run(call: DebugCall): DebugOutcome {
    const io = this.#io
    if (call === 'resume') this.#resume()
    else {
      if (call === 'reset') {
        if (!this.stopped) this.#share.fault = null
        this.#reset()
      } else {
        io[DebugIo.irqs] = call
        this.#poll()
      }
    }
    if (io[DebugIo.refused] !== 0) this.#refuse(call)
    return this.#outcome()
  }

  #expectState(call: DebugCall): void {
    if (this.#disposed || this.stopped !== (call === 'resume')) this.#refuse(call)
  }

  #refuse(call: DebugCall): never {
    if (this.#disposed) throw new CpuError('ERR_CPU_DISPOSED', 'the CPU was disposed of')
    const why =
      call === 'resume'
        ? 'the firmware is not stopped in a call: use reset or poll'
        : 'the firmware is stopped in a call: resume it first'
    throw new CpuError('ERR_CPU_STATE', why)
  }

  #outcome(): DebugOutcome {
    const code = this.#io[DebugIo.code] as DebugCode
    switch (code) {
      case DebugCode.done:
        return { state: 'done', result: this.#io[DebugIo.result] }
      case DebugCode.breakpoint:
        return { state: 'stopped', reason: 'breakpoint' }
      case DebugCode.step:
        return { state: 'stopped', reason: 'step' }
      case DebugCode.trap:
        return { state: 'stopped', reason: 'trap', trap: this.#native.trapKind() ?? 'internal' }
      case DebugCode.watch:
        return { state: 'stopped', reason: 'watch', hits: ask(() => this.#native.watchHits()) }
      case DebugCode.fault:
        return { state: 'fault', fault: this.fault ?? { kind: 'internal', message: 'no reason is known', frames: [] } }
    }
  }
}

const option = (message: string) => new CpuError('ERR_CPU_OPTION', message)

function ask<T>(question: () => T): T {
  try {
    return question()
  } catch (error) {
    throw CpuError.from(error)
  }
}
