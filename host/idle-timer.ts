import type { HostClock } from '../abi/bus.ts'

const NS_PER_MS = 1e6

/**
 * A socket's idle timer on the board's clock. Activity only notes the time: the clock's own timer is moved when it fires, so that a busy
 * socket costs one timer a timeout and not one a packet.
 */
export class IdleTimer {
  readonly #clock: HostClock
  readonly #onTimeout: () => void
  readonly #fire: () => void
  /** 0 = off. */
  #timeoutNs = 0
  #lastNs = 0
  #handle: number | null = null
  /** When `#handle` fires. */
  #dueNs = 0

  constructor(clock: HostClock, onTimeout: () => void) {
    this.#clock = clock
    this.#onTimeout = onTimeout
    this.#fire = () => {
      this.#handle = null
      if (this.#timeoutNs === 0) return
      const now = this.#clock.now()
      if (now < this.#lastNs + this.#timeoutNs) this.#schedule(now)
      else this.#onTimeout()
    }
  }

  /** Starts over with `timeoutMs`; 0 = off. */
  set(timeoutMs: number): void {
    this.#timeoutNs = timeoutMs * NS_PER_MS
    if (this.#timeoutNs === 0) return
    this.#lastNs = this.#clock.now()
    this.#ensure(this.#lastNs)
  }

  /** Something happened on the socket. */
  touch(): void {
    if (this.#timeoutNs === 0) return
    this.#lastNs = this.#clock.now()
    if (this.#handle === null) this.#schedule(this.#lastNs)
  }

  /** The socket is gone. */
  clear(): void {
    this.#timeoutNs = 0
    if (this.#handle !== null) this.#clock.clear(this.#handle)
    this.#handle = null
  }

  /** A timer that fires too early will find out; one that fires too late must be replaced. */
  #ensure(now: number): void {
    if (this.#handle !== null && this.#dueNs > now + this.#timeoutNs) {
      this.#clock.clear(this.#handle)
      this.#handle = null
    }
    if (this.#handle === null) this.#schedule(now)
  }

  #schedule(now: number): void {
    this.#dueNs = this.#lastNs + this.#timeoutNs
    this.#handle = this.#clock.schedule(Math.max(0, this.#dueNs - now), this.#fire)
  }
}
