import type { Board, Profile } from './board.ts'
import { AlarmQueue, NO_TIME, wallNs } from './clock.ts'
import type { Alarm } from './link/link.ts'
import type { Loop, RunResult } from './loop.ts'
import type { InterruptLine } from './process.ts'

/** Events between two breaths for the rest of the process: signals and sockets are served, the outcome is the same. */
const EVENTS_PER_BREATH = 4096

export interface VirtualTimeOptions {
  /** A slice lasts its fuel × 1e9 / clockHz; otherwise `sliceNs`. */
  countFuel: boolean
  /** Nanoseconds. */
  sliceNs: number
  /** From an interrupt to the driver's handler, nanoseconds. */
  hostLatencyNs: number
}

/**
 * Virtual time: discrete events, idle time skipped. Time stands still while host code runs, until all its ticks and
 * microtasks have drained. What a slice does shows at its end.
 */
export class VirtualLoop implements Loop {
  profile: Profile | null = null
  readonly #options: VirtualTimeOptions
  readonly #alarms = new AlarmQueue()
  #nowNs = NO_TIME
  #hostRan = false
  #running = false
  #stopping = false
  /** While halted: resolves when the farm goes on, or stops. */
  #halt: { readonly over: Promise<void>; readonly end: () => void } | null = null
  /** Resolves when `run` has left. */
  #left: Promise<unknown> = Promise.resolve()

  constructor(options: VirtualTimeOptions) {
    this.#options = options
    this.#nowNs = 0
  }

  now(): number {
    return this.#nowNs
  }

  setAlarm(alarm: Alarm, dueNs: number): void {
    this.#alarms.set(alarm, dueNs)
  }

  clearAlarm(alarm: Alarm): void {
    this.#alarms.clear(alarm)
  }

  ready(board: Board): void {
    if (board.slot < 0 || board.dueNs > this.#nowNs) this.#alarms.set(board, this.#nowNs)
  }

  interrupt(line: InterruptLine): void {
    this.#alarms.set(line, this.#nowNs + this.#options.hostLatencyNs)
  }

  wake(): void {}

  hostRan(): void {
    this.#hostRan = true
  }

  start(): void {
    // Nobody waits for it: errors of host code are uncaught exceptions, and the loop itself has none.
    void this.run(Number.POSITIVE_INFINITY)
  }

  setRef(): void {}

  halt(): void {
    if (this.#halt !== null) return
    let end = () => {}
    const over = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#halt = { over, end }
  }

  resume(): void {
    this.#halt?.end()
    this.#halt = null
  }

  proceed(board: Board): void {
    this.#endAt(board)
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.resume()
    await this.#left
    this.#stopping = false
  }

  run(until: number | (() => boolean)): Promise<RunResult> {
    if (this.#running) return Promise.reject(new Error('The farm runs already.'))
    this.#running = true
    const result = this.#run(until)
    this.#left = result
    return result
  }

  async #run(until: number | (() => boolean)): Promise<RunResult> {
    const limitNs = typeof until === 'number' ? until : Number.POSITIVE_INFINITY
    const condition = typeof until === 'number' ? null : until
    try {
      // What the caller did before is host code too.
      this.#hostRan = true
      for (let events = 0; ; events++) {
        if (this.#hostRan || events === EVENTS_PER_BREATH) {
          this.#hostRan = false
          events = 0
          const startNs = this.profile === null ? 0 : wallNs()
          await breath()
          if (this.profile !== null) this.profile.hostNs += wallNs() - startNs
        }
        if (this.#halt !== null) await this.#halt.over
        if (this.#stopping) return 'stopped'
        if (condition?.()) return 'condition'
        const alarm = this.#alarms.peek()
        if (alarm === undefined || alarm.dueNs > limitNs) {
          if (limitNs !== Number.POSITIVE_INFINITY && limitNs > this.#nowNs) this.#nowNs = limitNs
          return limitNs !== Number.POSITIVE_INFINITY ? 'time' : 'idle'
        }
        this.#alarms.clear(alarm)
        if (alarm.dueNs > this.#nowNs) this.#nowNs = alarm.dueNs
        alarm.fire(this.#nowNs)
      }
    } finally {
      this.#running = false
    }
  }

  due(board: Board): void {
    const nowNs = this.#nowNs
    if (board.halted) return
    if (board.busy) board.finish(nowNs)
    if (board.begin(nowNs)) {
      if (!board.halted) this.#endAt(board)
      return
    }
    const wakeNs = board.wakeNs
    if (wakeNs !== Number.POSITIVE_INFINITY && (board.slot < 0 || board.dueNs > wakeNs)) this.#alarms.set(board, wakeNs)
  }

  /** The slice ends as much later as it lasts. */
  #endAt(board: Board): void {
    const { countFuel, sliceNs } = this.#options
    const lengthNs = countFuel ? Math.round((board.cycles * 1e9) / board.clockHz) : sliceNs
    // A slice without length could repeat for ever at one time.
    this.#alarms.set(board, this.#nowNs + Math.max(lengthNs, 1))
  }
}

/** One turn of the event loop: every tick and microtask that is waiting runs. */
function breath(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
