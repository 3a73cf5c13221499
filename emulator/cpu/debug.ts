/** The CPU under a debugger: breakpoints, single step, frames with locals. Wasmtime only. */

import { loadAddon, type NativeDebugCpu, type NativeOutcome } from './addon.ts'
import {
  CpuError,
  type CpuFault,
  type CpuFaultKind,
  type CpuFrame,
  type CpuOptions,
  FUEL_PER_SLICE,
  WASM_PAGE_BYTES,
} from './cpu.ts'
import { checkOptions } from './options.ts'

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

/** How `reset`, `poll` or `resume` came back. */
export type DebugOutcome =
  /** Before an instruction: `frames` shows where. */
  | { readonly state: 'stopped'; readonly reason: 'breakpoint' | 'step' }
  /** At an instruction that is about to trap: `frames` shows where, `resume` ends the call with the fault. */
  | { readonly state: 'stopped'; readonly reason: 'trap'; readonly trap: CpuFaultKind }
  /** The call returned; `result` is that of `poll`, 0 for `reset`. */
  | { readonly state: 'done'; readonly result: number }
  /** The firmware is stopped until `reset`. A bus fault comes at once, without a stop before it. */
  | { readonly state: 'fault'; readonly fault: CpuFault }

/**
 * Runs a firmware in calls that can be stopped within.
 *
 * Several times slower than the plain CPU, and it spends the same fuel. A running board is taken over by creating one
 * with the same module and guard, and {@link copyMemory}, between two polls; and given back the same way.
 */
export class DebugCpu {
  readonly kind = 'wasmtime'
  /** INIC memory itself. To be read and written at stops too. */
  readonly memory: ArrayBuffer
  readonly #native: NativeDebugCpu
  #disposed = false

  /** Throws ERR_CPU_ADDON_MISSING, ERR_CPU_OPTION, ERR_CPU_MODULE, ERR_CPU_MEMORY. */
  constructor(options: CpuOptions) {
    checkOptions(options)
    const { DebugCpu: Native } = loadAddon()
    const { module, memoryBytes, fuelPerSlice = FUEL_PER_SLICE, guard = [] } = options
    const native = ask(() => new Native(module, memoryBytes / WASM_PAGE_BYTES, fuelPerSlice, guard))
    this.#native = native
    this.memory = ask(() => native.memory())
  }

  /** Fuel spent by the last call that ended; after a fault a lower bound. */
  get cycles(): number {
    return ask(() => this.#native.cycles())
  }

  /** Calls the firmware's `reset` and takes back a fault. Throws ERR_CPU_STATE in mid-call. */
  reset(): DebugOutcome {
    return outcome(() => this.#native.reset())
  }

  /** Calls the firmware's `poll`. Throws ERR_CPU_STATE in mid-call. After a fault: that fault. */
  poll(irqs: number): DebugOutcome {
    return outcome(() => this.#native.poll(irqs))
  }

  /** Goes on from a stop. Throws ERR_CPU_STATE if there is none. */
  resume(): DebugOutcome {
    return outcome(() => this.#native.resume())
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

  /** Stops before every instruction from the next `resume`, `reset` or `poll` on, or no longer. */
  singleStep(on: boolean): void {
    ask(() => this.#native.singleStep(on))
  }

  /** The stopped call stack, innermost first. Empty between calls. */
  frames(): DebugFrame[] {
    return ask(() => this.#native.frames())
  }

  /** Abandons a call that is stopped, detaches `memory` and frees the engine. Safe to call twice. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    ask(() => this.#native.dispose(this.memory))
  }
}

/**
 * Copies INIC memory, and with it all state of a firmware, from one CPU to another between two polls.
 *
 * Throws ERR_CPU_MEMORY if their sizes differ.
 */
export function copyMemory(from: { readonly memory: ArrayBuffer }, to: { readonly memory: ArrayBuffer }): void {
  const [source, target] = [from.memory.byteLength, to.memory.byteLength]
  if (source !== target) {
    throw new CpuError('ERR_CPU_MEMORY', `INIC memory of ${source} bytes does not fit one of ${target}`)
  }
  new Uint8Array(to.memory).set(new Uint8Array(from.memory))
}

function ask<T>(question: () => T): T {
  try {
    return question()
  } catch (error) {
    throw CpuError.from(error)
  }
}

function outcome(run: () => NativeOutcome): DebugOutcome {
  const { state, reason = 'step', trap = 'internal', result = 0, fault } = ask(run)
  if (fault) return { state: 'fault', fault }
  if (state !== 'stopped') return { state: 'done', result }
  return reason === 'trap' ? { state, reason, trap } : { state, reason }
}
