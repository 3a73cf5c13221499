import { REGISTER_BASE } from '../../abi/memory.ts'
import { WATCHDOG_KICK, WATCHDOG_TIMEOUT_MS } from '../../abi/registers.ts'
import type { InicMemory } from './memory.ts'

const TIMEOUT_MS = (REGISTER_BASE + WATCHDOG_TIMEOUT_MS) >>> 2
const KICK = (REGISTER_BASE + WATCHDOG_KICK) >>> 2

/**
 * Watchdog: the firmware changes KICK at least once in TIMEOUT_MS. It bites only after a poll: a process that was
 * suspended by the operating system for longer than the timeout gives the firmware one poll to kick before it is judged.
 */
export class Watchdog {
  /** Farm time by which a poll must have kicked, nanoseconds; Infinity = off. */
  deadlineNs = Number.POSITIVE_INFINITY
  #words: Uint32Array = new Uint32Array(0)
  #kick = 0
  #timeoutMs = 0

  powerOn(memory: InicMemory): void {
    this.#words = memory.words
    this.deadlineNs = Number.POSITIVE_INFINITY
    this.#kick = 0
    this.#timeoutMs = 0
  }

  /** After a poll; true = the firmware has not kicked in time. */
  bites(nowNs: number): boolean {
    const timeoutMs = this.#words[TIMEOUT_MS]
    const kick = this.#words[KICK]
    if (kick !== this.#kick || timeoutMs !== this.#timeoutMs) {
      this.#kick = kick
      this.#timeoutMs = timeoutMs
      this.deadlineNs = timeoutMs === 0 ? Number.POSITIVE_INFINITY : nowNs + timeoutMs * 1e6
      return false
    }
    return nowNs >= this.deadlineNs
  }

  /** TIMEOUT_MS as the firmware set it, for the crash report. */
  get timeoutMs(): number {
    return this.#timeoutMs
  }
}
