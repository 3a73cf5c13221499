/** The firmware in Wasmtime, with a count of how often each instruction runs: for coverage. */

import { type Cpu, CpuError, type CpuFault, type CpuOptions, POLL_STOPPED } from './cpu.ts'
import type { DebugCpu, DebugOutcome } from './debug.ts'
import { WasmtimeCpu } from './wasmtime.ts'

/** Takes what was counted: a number for each offset of the module. It may still grow until `ended`. */
export interface CountSink {
  began(module: Uint8Array, histogram: Uint32Array): void
  ended(histogram: Uint32Array): void
}

/**
 * Runs every call on its debugged twin, under a profile; in all else a {@link WasmtimeCpu}. A debugger works with the same twin, so what
 * runs under it is counted too. About a microsecond an instruction.
 */
export class CountingCpu extends WasmtimeCpu implements Cpu {
  readonly #module: Uint8Array
  readonly #sink: CountSink
  #counted: DebugCpu | undefined

  constructor(options: CpuOptions, sink: CountSink) {
    super(options)
    this.#module = options.module
    this.#sink = sink
  }

  override get cycles(): number {
    return this.#twin().cycles
  }

  override get stored(): boolean {
    return this.#twin().stored
  }

  override get fault(): CpuFault | null {
    return this.#twin().fault
  }

  override reset(): boolean {
    return this.#settle(this.#twin().reset()) >= 0
  }

  override poll(irqs: number): number {
    return this.#settle(this.#twin().poll(irqs))
  }

  override clearFault(): void {
    super.clearFault()
    this.#twin().clearFault()
  }

  override successor(): never {
    throw new CpuError('ERR_CPU_STATE', 'the instructions of the firmware are counted, and not those of another one')
  }

  override dispose(): void {
    const twin = this.#counted
    this.#counted = undefined
    if (twin !== undefined) {
      this.#sink.ended(twin.histogram)
      twin.dispose()
    }
    super.dispose()
  }

  /** The twin that counts; another one once a debugger has disposed of it. */
  #twin(): DebugCpu {
    const before = this.#counted
    if (before !== undefined && !before.disposed) return before
    const twin = this.debugTwin()
    twin.startProfile()
    this.#sink.began(this.#module, twin.histogram)
    if (before !== undefined) this.#sink.ended(before.histogram)
    this.#counted = twin
    return twin
  }

  #settle(outcome: DebugOutcome): number {
    let next = outcome
    // At a trap: what follows is the fault.
    while (next.state === 'stopped') next = this.#twin().resume()
    return next.state === 'done' ? next.result : POLL_STOPPED
  }
}
