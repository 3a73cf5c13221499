import { performance } from 'node:perf_hooks'
import { hrtime } from 'node:process'
import type { Alarm } from './link/link.ts'

const [ORIGIN_SECONDS] = hrtime()

/**
 * The place where the wall clock enters: nanoseconds, monotonic, from an origin of its own. One call costs some 35 ns, where
 * `performance.now` costs half as much again. A double holds nanoseconds exactly for 104 days.
 */
export function wallNs(): number {
  const [seconds, nanoseconds] = hrtime()
  return (seconds - ORIGIN_SECONDS) * 1e9 + nanoseconds
}

/**
 * What a field that holds a time starts with, where it is not Infinity: with a double. V8 keeps a field as what was stored there first, and one that
 * outgrows small integers, as nanoseconds do after two seconds, slows all code down that was compiled for its object.
 */
export const NO_TIME = Number.NaN

/** Nanoseconds since 1970 at which `wallNs` was 0; for captures of farms that run in real time. */
export function wallEpochNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n - BigInt(wallNs())
}

/**
 * Alarms ordered by time, and among equals by the order in which they were set: a binary heap in which each alarm knows its
 * place, so that moving or clearing one allocates nothing.
 */
export class AlarmQueue {
  readonly #heap: Alarm[] = []
  #sequence = 0

  /** The earliest alarm, or undefined. */
  peek(): Alarm | undefined {
    return this.#heap[0]
  }

  /** When the earliest alarm is due, nanoseconds; Infinity if there is none. */
  get dueNs(): number {
    const first = this.#heap[0]
    return first === undefined ? Number.POSITIVE_INFINITY : first.dueNs
  }

  get size(): number {
    return this.#heap.length
  }

  /** Sets or moves an alarm. */
  set(alarm: Alarm, dueNs: number): void {
    const before = alarm.slot
    alarm.sequence = this.#sequence++
    if (before < 0) {
      alarm.dueNs = dueNs
      this.#heap.push(alarm)
      this.#rise(alarm, this.#heap.length - 1)
      return
    }
    const later = dueNs >= alarm.dueNs
    alarm.dueNs = dueNs
    if (later) this.#sink(alarm, before)
    else this.#rise(alarm, before)
  }

  /** Takes an alarm out. */
  clear(alarm: Alarm): void {
    const slot = alarm.slot
    if (slot < 0) return
    alarm.slot = -1
    const last = this.#heap.pop()!
    if (last === alarm) return
    // The last one takes the free place, and goes from there where it belongs.
    this.#rise(last, slot)
    this.#sink(last, last.slot)
  }

  #rise(alarm: Alarm, from: number): void {
    const heap = this.#heap
    let slot = from
    while (slot > 0) {
      const parentSlot = (slot - 1) >>> 1
      const parent = heap[parentSlot]
      if (!before(alarm, parent)) break
      heap[slot] = parent
      parent.slot = slot
      slot = parentSlot
    }
    heap[slot] = alarm
    alarm.slot = slot
  }

  #sink(alarm: Alarm, from: number): void {
    const heap = this.#heap
    let slot = from
    for (;;) {
      let childSlot = 2 * slot + 1
      if (childSlot >= heap.length) break
      if (childSlot + 1 < heap.length && before(heap[childSlot + 1], heap[childSlot])) childSlot++
      const child = heap[childSlot]
      if (!before(child, alarm)) break
      heap[slot] = child
      child.slot = slot
      slot = childSlot
    }
    heap[slot] = alarm
    alarm.slot = slot
  }
}

function before(a: Alarm, b: Alarm): boolean {
  return a.dueNs < b.dueNs || (a.dueNs === b.dueNs && a.sequence < b.sequence)
}
