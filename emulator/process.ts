import type { Bus, HostClock } from '../abi/bus.ts'
import type { QueueSet } from './devices/queue-set.ts'
import type { Alarm } from './link/link.ts'

/** A process of a main board: its queue set and its end of the interrupt line. */
export interface AttachedProcess {
  /** Queue set, 0..QUEUE_SETS - 1. */
  readonly set: number
  readonly bus: Bus
}

/** What host code needs from the farm. */
export interface HostRunner {
  now(): number
  setAlarm(alarm: Alarm, dueNs: number): void
  clearAlarm(alarm: Alarm): void
  /** Calls host code; what it throws reaches the process as an uncaught exception, and the farm goes on. */
  callHost(callback: () => void): void
}

/** The interrupt line of one process: raised at the end of a slice, it runs the driver's handler between two slices. */
export class InterruptLine implements Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = false
  /** True from the raise to the handler. */
  raised = false
  /** How often it was raised. */
  count = 0
  readonly #set: QueueSet
  readonly #runner: HostRunner

  /** Number of the process's queue set. */
  get set(): number {
    return this.#set.index
  }

  constructor(set: QueueSet, runner: HostRunner) {
    this.#set = set
    this.#runner = runner
  }

  fire(): void {
    this.raised = false
    const handler = this.#set.handler
    if (handler !== null) this.#runner.callHost(handler)
  }
}

/** Timers of the host code of one board, on the farm's clock. */
export class BoardClock implements HostClock {
  readonly #runner: HostRunner
  readonly #timers = new Map<number, HostTimer>()
  #next = 1

  constructor(runner: HostRunner) {
    this.#runner = runner
  }

  now(): number {
    return this.#runner.now()
  }

  schedule(delayNs: number, callback: () => void): number {
    const handle = this.#next++
    const timer = new HostTimer(() => {
      this.#timers.delete(handle)
      this.#runner.callHost(callback)
    })
    this.#timers.set(handle, timer)
    this.#runner.setAlarm(timer, this.#runner.now() + Math.max(0, Math.round(delayNs) || 0))
    return handle
  }

  clear(handle: number): void {
    const timer = this.#timers.get(handle)
    if (timer === undefined) return
    this.#timers.delete(handle)
    this.#runner.clearAlarm(timer)
  }
}

class HostTimer implements Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = false
  readonly fire: () => void

  constructor(fire: () => void) {
    this.fire = fire
  }
}
