import type { Bus, HostClock } from '../abi/bus.ts'
import type { BoardState } from './driver/board-commands.ts'
import { Driver } from './driver/driver.ts'
import type { CardFlash } from './driver/flash.ts'
import type { QueueFault } from './driver/virtqueue.ts'

/** RAM of the agent's queue set, bytes. */
export const AGENT_RAM_BYTES = 2 << 20

export interface BoardAgentOptions {
  readonly clock: HostClock
  /** Time between two looks, nanoseconds; undefined: one look, when the card starts. */
  readonly periodNs?: number
  /** How the board is now. */
  measure(): BoardState | Promise<BoardState>
  readonly onFault?: (error: QueueFault) => void
}

/** A change of less than this, of the larger value, is not worth a command. */
const WORTH_TELLING = 0.02

/**
 * What a main board as a whole has to say to its card, in a queue set of its own: how loaded it is, for the Server State table, whether
 * it takes anything new, and updates of its firmware. A card that is started anew is told again.
 */
export class BoardAgent {
  readonly #clock: HostClock
  readonly #options: BoardAgentOptions
  readonly #driver: Driver
  #told: BoardState | null = null
  #draining = false
  #timer: number | null = null
  #closed = false

  constructor(bus: Bus, options: BoardAgentOptions) {
    this.#clock = options.clock
    this.#options = options
    let started = false
    const onStart = () => {
      // The card may run before there is a driver to talk to it with.
      if (started) this.#tellAll()
    }
    this.#driver = new Driver(bus, { onStart, ...(options.onFault && { onFault: options.onFault }) })
    started = true
    this.#tellAll()
  }

  /** True while nothing new is placed on this server. */
  get draining(): boolean {
    return this.#draining
  }

  /** Where updates of the card's firmware are written. */
  get flash(): CardFlash {
    return this.#driver.flash
  }

  /** While on, nothing new is placed on this server. */
  drain(on: boolean): void {
    this.#draining = on
    this.#driver.drain(on)
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) this.#clock.clear(this.#timer)
    this.#driver.close()
  }

  #tellAll(): void {
    this.#told = null
    if (this.#draining) this.#driver.drain(true)
    this.#look()
  }

  #look(): void {
    if (this.#timer !== null) this.#clock.clear(this.#timer)
    this.#timer = null
    const state = this.#options.measure()
    // At once where that can be, so that in virtual time it is a function of nothing else.
    if (state instanceof Promise) void state.then((known) => this.#tell(known))
    else this.#tell(state)
  }

  #tell(state: BoardState): void {
    if (this.#closed) return
    if (this.#told === null || differs(this.#told, state)) {
      this.#told = state
      this.#driver.reportBoard(state)
    }
    const { periodNs } = this.#options
    if (periodNs !== undefined && this.#timer === null) this.#timer = this.#clock.schedule(periodNs, () => this.#look())
  }
}

/** True if `b` says something that `a` does not, and that is worth a command. */
export function differs<T extends object>(a: T, b: T): boolean {
  const values = Object.entries(b) as [keyof T, number | undefined][]
  return values.some(([name, now = 0]) => {
    const before = (a[name] as number | undefined) ?? 0
    const scale = name === 'cpuPermille' ? 1000 : Math.max(before, now)
    return Math.abs(now - before) > scale * WORTH_TELLING
  })
}
