/** The firmware in Wasmtime: fuel counted, watchdog, bus guard. */

import { CpuIo, loadAddon, type NativeCpu } from './addon.ts'
import { type Cpu, CpuError, type CpuFault, type CpuOptions, FUEL_PER_SLICE, WASM_PAGE_BYTES } from './cpu.ts'

export class WasmtimeCpu implements Cpu {
  readonly kind = 'wasmtime'
  readonly halted = false
  readonly memory: ArrayBuffer
  readonly #native: NativeCpu
  readonly #io: Float64Array
  readonly #poll: () => void
  readonly #reset: () => void
  #fault: CpuFault | null = null
  #disposed = false

  /** Throws ERR_CPU_ADDON_MISSING, ERR_CPU_MODULE, ERR_CPU_MEMORY. Options are checked by `createCpu`. */
  constructor(options: CpuOptions) {
    const { PlainCpu } = loadAddon()
    const { module, memoryBytes, fuelPerSlice = FUEL_PER_SLICE, guard = [], watch } = options
    const { start, end } = watch ?? { start: 0, end: 0 }
    try {
      this.#native = new PlainCpu(module, memoryBytes / WASM_PAGE_BYTES, fuelPerSlice, guard, start, end)
      this.memory = this.#native.memory()
      this.#io = new Float64Array(this.#native.io())
      this.#poll = this.#native.pollFunction()
      this.#reset = this.#native.resetFunction()
    } catch (error) {
      throw CpuError.from(error)
    }
  }

  get cycles(): number {
    return this.#io[CpuIo.cycles]
  }

  get stored(): boolean {
    return this.#io[CpuIo.stored] !== 0
  }

  get fault(): CpuFault | null {
    // Kept by the addon until asked for: a slice that ends well must not pay for it.
    this.#fault ??= this.#native.fault()
    return this.#fault
  }

  reset(): boolean {
    this.#fault = null
    this.#reset()
    return this.#io[CpuIo.result] >= 0
  }

  poll(irqs: number): number {
    const io = this.#io
    io[CpuIo.irqs] = irqs
    this.#poll()
    return io[CpuIo.result]
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#native.dispose(this.memory)
  }
}
