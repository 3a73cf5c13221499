/**
 * The CPU of an INIC, as the board sees it.
 *
 * A firmware is a WebAssembly module that imports `env.memory`, its INIC memory, and nothing else, and exports
 * `reset(): void` and `poll(irqs: u32): u32`. All its state is in that memory.
 */

/** What runs the firmware: Wasmtime in the addon, or the JavaScript engine's own WebAssembly. */
export type CpuKind = 'wasmtime' | 'v8'

/** Addresses the firmware must not touch: `start` up to but not including `end`, multiples of 4096. */
export interface MemoryGuard {
  readonly start: number
  readonly end: number
}

/** What a slice may take where its fuel is not counted. */
export interface SliceLimit {
  /** Processor time, milliseconds; looked at 20 times a second. */
  readonly ms: number
  /**
   * Address of a byte that is 0. Firmware on the leash stores 0 there wherever it may pass again and again, and is stopped by taking the page away.
   * So the page must be one that it can write, and that no `memory.copy` or `memory.fill` goes to.
   */
  readonly leash: number
}

export interface CpuOptions {
  /** The firmware. */
  readonly module: Uint8Array
  /** Size of INIC memory in bytes, a multiple of 64 KiB. It never changes. */
  readonly memoryBytes: number
  /** Watchdog allowance: the fuel that `reset` or one `poll` may spend. Default 100 000 000. Ignored by v8. */
  readonly fuelPerSlice?: number
  /** The allowance of calls whose fuel is not counted, which are a twentieth faster; see {@link Cpu.count}. Default: all are counted. Ignored by v8. */
  readonly limit?: SliceLimit
  /**
   * Bus space without a device behind it: a load or store there stops the firmware at the instruction with a
   * `bus-fault`. Wasmtime on Linux only; elsewhere such an access goes to ordinary memory, and the board has to look
   * after each slice. JavaScript may read and write these addresses on every CPU.
   */
  readonly guard?: readonly MemoryGuard[]
  /**
   * Addresses, `start` up to but not including `end`, whose contents are compared before and after a slice, for
   * {@link Cpu.stored}. Default: none.
   */
  readonly watch?: { readonly start: number; readonly end: number }
}

export type CpuFaultKind =
  /** The slice spent its allowance without returning. */
  | 'watchdog'
  /** An `unreachable` instruction: an assertion of the firmware, or asc's `abort`. */
  | 'unreachable'
  | 'memory-out-of-bounds'
  /** A load or store where nothing is; see {@link CpuOptions.guard}. */
  | 'bus-fault'
  | 'divide-by-zero'
  | 'integer-overflow'
  /** A float that does not fit the integer it is converted to. */
  | 'invalid-conversion'
  | 'indirect-call'
  | 'stack-overflow'
  /** The CPU itself failed. */
  | 'internal'

/** A function of the firmware that was running. */
export interface CpuFrame {
  readonly functionIndex: number
  /** From the module's name section. */
  readonly functionName?: string
  /**
   * Offset in the module of the instruction that faulted or called: the generated column of asc's source map. Absent
   * where no instruction is to blame, as in a function's prologue.
   */
  readonly pc?: number
}

/** Why the firmware stopped. */
export interface CpuFault {
  readonly kind: CpuFaultKind
  /** A sentence for a person. */
  readonly message: string
  /**
   * INIC address of the access, where it is known. For a `memory.copy` or `memory.fill` it is some address in the
   * guarded range, not always the first.
   */
  readonly address?: number
  /** Call stack, innermost first; cut at 64 frames, on v8 at `Error.stackTraceLimit`. */
  readonly frames: readonly CpuFrame[]
}

export interface Cpu {
  readonly kind: CpuKind
  /** INIC memory itself, not a copy. Its length is 0 once disposed of, a debugged twin of the CPU included. */
  readonly memory: ArrayBuffer
  /** Fuel spent by the last `reset` or `poll`; after a fault a lower bound. 0 if it was not counted; on v8 always. */
  readonly cycles: number
  /** The last `reset` or `poll` left something in the watched range other than it found it. On v8 always true: it may have. */
  readonly stored: boolean
  /** Why the firmware is stopped, or null while it is not. */
  readonly fault: CpuFault | null
  /** Halted in mid-call, by a debugger. */
  readonly halted: boolean

  /** Runs the firmware's `reset` over memory as it is, and takes back a fault. False if the firmware stopped, or is halted, in it. */
  reset(): boolean

  /**
   * Runs one slice with interrupt lines `irqs` (32 bits).
   *
   * Returns the microseconds until the firmware wants to run again: 0 at once, 0xffffffff not before an input. Returns
   * -1 when the firmware stopped in this slice or before, or the CPU is disposed of. Never throws.
   */
  poll(irqs: number): number

  /**
   * Whether fuel is counted from the next call on, in spite of {@link CpuOptions.limit}. Not there where it is counted always, or never. The
   * first time it compiles the firmware once more, which holds up the farm. Throws ERR_CPU_MEMORY, ERR_CPU_DISPOSED.
   */
  count?(on: boolean): void

  /**
   * Takes back a fault without running anything, so that `poll` runs again: once INIC memory was loaded from a snapshot
   * of before it.
   */
  clearFault(): void

  /**
   * The pages of INIC memory that were ever used, as pairs of first page and page behind the last, in units of
   * {@link USED_PAGE_BYTES}: all others read as zero. On v8 all of them: it does not know. Throws ERR_CPU_DISPOSED.
   */
  usedPages(): Uint32Array

  /**
   * A CPU with another firmware that goes on where this one is: over the same INIC memory, into which the new firmware's
   * constants are written, and with the same guard, watched range and fuel. `reset` has not been called, nor need it be. This
   * one must not run any more, and is disposed of by itself. A debugged CPU cannot be succeeded.
   *
   * Throws, with memory as it was: ERR_CPU_STATE (the firmware is stopped, or in mid-call), ERR_CPU_MODULE (no firmware for this board, one with
   * constants outside of `constants`, or with a start function), ERR_CPU_MEMORY, ERR_CPU_DISPOSED.
   */
  successor?(module: Uint8Array, constants: { readonly start: number; readonly end: number }): Cpu

  /** Lets go of memory and engine. Safe to call twice. Without it both go with the last reference to the CPU. */
  dispose(): void
}

export type CpuErrorCode =
  /** The addon was not built, or not for this platform. */
  | 'ERR_CPU_ADDON_MISSING'
  | 'ERR_CPU_OPTION'
  /** The module is no firmware. */
  | 'ERR_CPU_MODULE'
  /** No INIC memory of that size, or guarded like that. */
  | 'ERR_CPU_MEMORY'
  | 'ERR_CPU_DISPOSED'
  /** A debugged CPU is, or is not, in mid-call; or the firmware is stopped. */
  | 'ERR_CPU_STATE'
  /** No instruction to stop at. */
  | 'ERR_CPU_BREAKPOINT'
  /** What is to be described contradicts itself. */
  | 'ERR_CPU_DWARF'
  | 'ERR_CPU_INTERNAL'

export class CpuError extends Error {
  readonly code: CpuErrorCode

  constructor(code: CpuErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'CpuError'
    this.code = code
  }

  /** An error of the addon, which carries its code as a property. */
  static from(error: unknown): CpuError {
    if (error instanceof CpuError) return error
    const { code, message } = error as { code?: unknown; message?: unknown }
    const known = typeof code === 'string' && code.startsWith('ERR_CPU_')
    return new CpuError(known ? (code as CpuErrorCode) : 'ERR_CPU_INTERNAL', String(message ?? error), { cause: error })
  }
}

/** Bytes of a WebAssembly page. */
export const WASM_PAGE_BYTES = 65536

/** The unit of {@link Cpu.usedPages}. */
export const USED_PAGE_BYTES = 4096

/** What boards in real time have for {@link SliceLimit.ms}: a slice takes microseconds, and a reset of large memory some tens of milliseconds. */
export const MS_PER_SLICE = 500

/** Default of {@link CpuOptions.fuelPerSlice}. */
export const FUEL_PER_SLICE = 100_000_000

/** The result of `poll` when the firmware is stopped. */
export const POLL_STOPPED = -1

/** The result of `poll` when the firmware is halted in mid-call: it has not ended. */
export const POLL_HALTED = -2

/** The result of `poll` when the firmware waits for an input. */
export const POLL_IDLE = 0xffffffff
