import {
  type Cpu,
  type CpuFault,
  type DebugCpu,
  type DebugOutcome,
  POLL_HALTED,
  POLL_STOPPED,
} from '../../../emulator/cpu/index.ts'

/** Decides what becomes of a stop. */
export interface StopJudge {
  /** True: the call is to be halted before its first instruction. */
  wantsEntry(): boolean
  /** True: the firmware stays halted. False: it goes on. */
  stopped(outcome: DebugOutcome & { state: 'stopped' }): boolean
}

/** The debugged CPU in the place of a board's own: runs slices until one is halted in its midst. */
export class DebuggedCpu implements Cpu {
  readonly kind = 'wasmtime'
  readonly twin: DebugCpu
  halted = false
  readonly #judge: StopJudge

  constructor(twin: DebugCpu, judge: StopJudge) {
    this.twin = twin
    this.#judge = judge
  }

  get memory(): ArrayBuffer {
    return this.twin.memory
  }

  get cycles(): number {
    return this.twin.cycles
  }

  get stored(): boolean {
    return this.twin.stored
  }

  get fault(): CpuFault | null {
    return this.twin.fault
  }

  reset(): boolean {
    const { twin } = this
    return this.settle(this.#judge.wantsEntry() ? twin.runTo('reset', 0) : twin.reset()) >= 0
  }

  poll(irqs: number): number {
    const { twin } = this
    return this.settle(this.#judge.wantsEntry() ? twin.runTo(irqs, 0) : twin.poll(irqs))
  }

  /** Goes on from where it is halted; gives what `poll` gives. */
  resume(): number {
    return this.settle(this.twin.resume())
  }

  /** Asks the judge about a stop, until it halts there or the call is over. */
  settle(outcome: DebugOutcome): number {
    let next = outcome
    while (next.state === 'stopped') {
      if (this.#judge.stopped(next)) {
        this.halted = true
        return POLL_HALTED
      }
      next = this.twin.resume()
    }
    this.halted = false
    return next.state === 'done' ? next.result : POLL_STOPPED
  }

  clearFault(): void {
    throw new Error('a board that is debugged is not taken back')
  }

  usedPages(): Uint32Array {
    return this.twin.usedPages()
  }

  dispose(): void {
    this.twin.dispose()
  }
}
