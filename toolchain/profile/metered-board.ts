/** A board of a running farm whose instructions are measured for a while. */
import type { Board } from '../../emulator/board.ts'
import {
  CountingCpu,
  type Cpu,
  type CpuFault,
  type DebugCpu,
  type DebugOutcome,
  POLL_STOPPED,
  WasmtimeCpu,
} from '../../emulator/cpu/index.ts'
import { DebuggedCpu } from '../debug/session/debugged-cpu.ts'
import type { Sites } from '../debug/session/walk.ts'
import { usageError } from '../errors.ts'
import { createMeter, type Measurement, type Meter, type MeterHow } from './meter.ts'

/** The debugged CPU in the place of a board's own, under a meter. */
class MeteredCpu implements Cpu {
  readonly kind = 'wasmtime'
  readonly halted = false
  readonly #twin: DebugCpu
  readonly #meter: Meter
  /** The board's own. */
  readonly plain: WasmtimeCpu
  /** The board has its own CPU back, from its next slice on. */
  over = false

  constructor(plain: WasmtimeCpu, twin: DebugCpu, meter: Meter) {
    this.plain = plain
    this.#twin = twin
    this.#meter = meter
  }

  get memory(): ArrayBuffer {
    return this.#twin.memory
  }

  get cycles(): number {
    return this.#twin.cycles
  }

  get stored(): boolean {
    return this.#twin.stored
  }

  get fault(): CpuFault | null {
    return this.#twin.fault
  }

  reset(): boolean {
    return resultOf(this.#meter.run('reset')) >= 0
  }

  poll(irqs: number): number {
    return resultOf(this.#meter.run(irqs))
  }

  clearFault(): void {
    this.#twin.clearFault()
  }

  usedPages(): Uint32Array {
    return this.#twin.usedPages()
  }

  dispose(): void {
    this.#twin.dispose()
  }
}

export class MeteredBoard {
  readonly board: Board
  readonly wasm: Uint8Array
  readonly description: string
  readonly #plain: WasmtimeCpu
  readonly #meter: Meter
  readonly #metered: MeteredCpu

  /** Begins with the board's next slice. @throws CommandError for a board that cannot be measured, or not now */
  constructor(board: Board, how: MeterHow, sites: (wasm: Uint8Array) => Sites) {
    const { image } = board
    const cpu = board.cpu instanceof MeteredCpu && board.cpu.over ? board.cpu.plain : board.cpu
    if (cpu === null || image === null) throw usageError(`${board.name} is off: it executes nothing`)
    if (cpu.kind !== 'wasmtime')
      throw usageError(`${board.name} runs on ${cpu.kind}, which counts no instructions`, 'run the farm on Wasmtime')
    if (!(cpu instanceof WasmtimeCpu))
      throw usageError(`${board.name} is profiled or debugged already`, 'wait until that is over')
    if (cpu instanceof CountingCpu)
      throw usageError(`${board.name} is counted for inic coverage`, 'profile it in a run of its own')
    this.board = board
    this.wasm = image.wasm
    this.description = image.description ?? 'firmware'
    this.#plain = cpu
    const twin = cpu.debugTwin()
    this.#meter = createMeter(twin, how, () => sites(image.wasm))
    this.#metered = new MeteredCpu(cpu, twin, this.#meter)
    board.changeCpu(this.#metered)
  }

  /** Gives the board its own CPU back, if it still runs on what is measured. */
  end(): Measurement {
    const { cpu } = this.board
    this.#metered.over = true
    if (cpu?.memory !== this.#metered.memory) this.#plain.dispose()
    // The twin stays with its CPU, and the board on it, if somebody has come to debug it meanwhile.
    else if (!(cpu instanceof DebuggedCpu)) this.board.changeCpu(this.#plain)
    return this.#meter.end()
  }
}

function resultOf(outcome: DebugOutcome): number {
  return outcome.state === 'done' ? outcome.result : POLL_STOPPED
}
