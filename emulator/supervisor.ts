import type { Board } from './board.ts'
import type { Cpu } from './cpu/index.ts'
import type { CrashReport } from './crash.ts'

/**
 * Looks over a farm's shoulder: a recorder, a debugger. It is told of everything in the order in which it happens, and may halt the
 * farm (`Farm.halt`) from any of these calls.
 *
 *      poweredOn ─▶ beforeSlice ─ reset ─ afterSlice ┄┄▶ beforeSlice ─ poll ─ afterSlice ┄┄▶ … ┄▶ crashed ─▶ poweredOff
 */
export interface Supervisor {
  /**
   * A board has its firmware and its boot information, and is about to run `reset` on `cpu`. Gives the CPU to run instead: the same one,
   * or one that works on the same INIC memory.
   */
  poweredOn(board: Board, cpu: Cpu): Cpu
  poweredOff(board: Board): void
  /** INIC memory is as the firmware will find it. `irqs` is what `poll` gets; undefined for `reset`. */
  beforeSlice(board: Board, irqs: number | undefined, nowNs: number): void
  /** The firmware has returned, or `stopped` for good; no device has looked at what it left yet. */
  afterSlice(board: Board, stopped: boolean): void
  /** A process of the main board is interrupted. */
  interrupted(board: Board, set: number): void
  consoleLine(board: Board, line: string): void
  crashed(board: Board, report: CrashReport): void
}
