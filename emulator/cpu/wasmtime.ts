/** The firmware in Wasmtime: fuel counted or not, watchdog, bus guard. */

import { CpuIo, loadAddon, type NativeCpu } from './addon.ts'
import {
  type Cpu,
  CpuError,
  type CpuFault,
  type CpuOptions,
  FUEL_PER_SLICE,
  type SliceLimit,
  WASM_PAGE_BYTES,
} from './cpu.ts'
import { DebugCpu } from './debug.ts'
import { readConstants } from './firmware.ts'
import { checkOptions } from './options.ts'
import { MemoryShare } from './share.ts'

/** The calls that cross into the addon, bound to one of its CPUs. */
interface Calls {
  readonly io: Float64Array
  readonly poll: () => void
  readonly reset: () => void
}

export class WasmtimeCpu implements Cpu {
  readonly kind = 'wasmtime'
  readonly halted = false
  /** INIC memory itself, not a copy. Its length is 0 once this CPU and its twin are disposed of. */
  readonly memory: ArrayBuffer
  readonly #native: NativeCpu
  readonly #share: MemoryShare
  readonly #limit: SliceLimit | undefined
  readonly #uncounted: Calls
  // What runs now: #uncounted, or #counted.
  #io: Float64Array
  #poll: () => void
  #reset: () => void
  /** Over the same memory and with fuel, made when first needed. */
  #counter: NativeCpu | undefined
  #counted: Calls | undefined
  #twin: DebugCpu | undefined
  #disposed = false

  /**
   * With a firmware and a memory of its own, or to go on where another one is. Throws ERR_CPU_ADDON_MISSING, ERR_CPU_MODULE, ERR_CPU_MEMORY.
   * Options are checked by `createCpu`.
   */
  constructor(from: CpuOptions | { native: NativeCpu; share: MemoryShare; limit: SliceLimit | undefined }) {
    try {
      this.#limit = from.limit
      this.#native = 'native' in from ? from.native : nativeCpu(from)
      this.#share = 'native' in from ? from.share : new MemoryShare(this.#native.memory())
      this.memory = this.#share.memory
      this.#uncounted = callsOf(this.#native)
      this.#io = this.#uncounted.io
      this.#poll = this.#uncounted.poll
      this.#reset = this.#uncounted.reset
    } catch (error) {
      throw CpuError.from(error)
    }
    this.#share.join()
  }

  get cycles(): number {
    return this.#io[CpuIo.cycles]
  }

  get stored(): boolean {
    return this.#io[CpuIo.stored] !== 0
  }

  get fault(): CpuFault | null {
    // Kept by the addon until asked for: a slice that ends well must not pay for it.
    this.#share.fault ??= this.#native.fault()
    return this.#share.fault
  }

  reset(): boolean {
    this.#share.fault = null
    this.#reset()
    return this.#io[CpuIo.result] >= 0
  }

  poll(irqs: number): number {
    const io = this.#io
    io[CpuIo.irqs] = irqs
    this.#poll()
    return io[CpuIo.result]
  }

  count(on: boolean): void {
    if (this.#limit === undefined || on === (this.#io === this.#counted?.io)) return
    const calls = on ? this.#counting() : this.#uncounted
    this.#io = calls.io
    this.#poll = calls.poll
    this.#reset = calls.reset
  }

  #counting(): Calls {
    if (this.#disposed) throw new CpuError('ERR_CPU_DISPOSED', 'the CPU was disposed of')
    try {
      this.#counter ??= this.#native.metered()
      this.#counted ??= callsOf(this.#counter)
    } catch (error) {
      throw CpuError.from(error)
    }
    return this.#counted
  }

  clearFault(): void {
    this.#share.fault = null
    this.#native.clearFault()
  }

  /**
   * The same CPU under a debugger, made at the first call: the same firmware over the same INIC memory, the same guard,
   * watched range, fuel and fault. Slices may be run by either, in any order. While the twin is stopped in mid-call,
   * `poll` here returns -1 and `reset` false.
   *
   * Each is disposed of by itself, and memory goes with the last; after the twin is, this makes another. Throws
   * ERR_CPU_DISPOSED, ERR_CPU_MEMORY.
   */
  debugTwin(): DebugCpu {
    if (this.#disposed) throw new CpuError('ERR_CPU_DISPOSED', 'the CPU was disposed of')
    if (this.#twin && !this.#twin.disposed) return this.#twin
    try {
      this.#twin = new DebugCpu(this.#native.debugTwin(), this.#share)
    } catch (error) {
      throw CpuError.from(error)
    }
    return this.#twin
  }

  successor(module: Uint8Array, constants: { readonly start: number; readonly end: number }): WasmtimeCpu {
    if (this.#disposed) throw new CpuError('ERR_CPU_DISPOSED', 'the CPU was disposed of')
    checkOptions({ module, memoryBytes: this.memory.byteLength })
    const segments = readConstants(module, constants)
    let successor: WasmtimeCpu
    try {
      successor = new WasmtimeCpu({ native: this.#native.successor(module), share: this.#share, limit: this.#limit })
    } catch (error) {
      throw CpuError.from(error)
    }
    const memory = new Uint8Array(this.memory)
    for (const { address, bytes } of segments) memory.set(bytes, address)
    return successor
  }

  usedPages(): Uint32Array {
    try {
      return this.#native.usedPages()
    } catch (error) {
      throw CpuError.from(error)
    }
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#counter?.dispose()
    this.#native.dispose(this.#share.leave())
  }
}

function callsOf(native: NativeCpu): Calls {
  return { io: new Float64Array(native.io()), poll: native.pollFunction(), reset: native.resetFunction() }
}

function nativeCpu(options: CpuOptions): NativeCpu {
  const { module, memoryBytes, fuelPerSlice = FUEL_PER_SLICE, limit, guard = [], watch } = options
  const { PlainCpu } = loadAddon()
  const { start, end } = watch ?? { start: 0, end: 0 }
  return new PlainCpu(module, memoryBytes / WASM_PAGE_BYTES, fuelPerSlice, guard, start, end, limit)
}
