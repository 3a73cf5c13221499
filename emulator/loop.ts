import type { Board, Profile } from './board.ts'
import type { Alarm } from './link/link.ts'
import type { InterruptLine } from './process.ts'

/** Why `run` came back. */
export type RunResult = 'time' | 'condition' | 'idle' | 'stopped'

/** What drives a farm's boards, wires and host code: in virtual time or in real time. */
export interface Loop {
  /** Null while profiling is off. */
  profile: Profile | null
  /** Nanoseconds since the farm was switched on. */
  now(): number
  setAlarm(alarm: Alarm, dueNs: number): void
  clearAlarm(alarm: Alarm): void
  /** A board has work; it is neither queued nor in a slice. */
  ready(board: Board): void
  /** A board's alarm rang: its slice ends, or it wants to run. */
  due(board: Board): void
  /** An interrupt line went up. */
  interrupt(line: InterruptLine): void
  /** Something came from outside. */
  wake(): void
  /** Host code is about to run: its ticks and microtasks must drain before time goes on. */
  hostRan(): void
  run(until: number | (() => boolean)): Promise<RunResult>
  start(): void
  /** From now on nothing happens and the clock stands still, until `resume`. */
  halt(): void
  resume(): void
  /** A board that was halted in mid-slice has come to the end of its slice. */
  proceed(board: Board): void
  /** Whether a running farm alone keeps the process alive; at first it does. */
  setRef(ref: boolean): void
  stop(): Promise<void>
}
