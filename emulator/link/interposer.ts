import type { Alarm, FrameSink, LinkHost, Port } from './link.ts'
import { NOWHERE } from './link.ts'

/** What arrives of a frame: a copy, now or later, perhaps with a bit turned over. */
export interface Copy {
  /** Nanoseconds. */
  readonly delayNs?: number
  /** It waits until another frame has passed the same way, `delayNs` at the longest. */
  readonly afterNext?: boolean
  /** Bit that is turned over, counted from the first of the frame. */
  readonly flip?: number
}

/** Which way a frame passes an interposer: into the port that it stands in front of, or out of it. */
export type Passage = 'in' | 'out'

/** Sees every frame that passes the interposers that it is given, and decides what becomes of it. */
export interface Inspector {
  /**
   * `frame` is valid during the call alone. Returns the copies that arrive, none for a frame that is lost; null lets it pass.
   */
  inspect(interposer: Interposer, passage: Passage, frame: Uint8Array, nowNs: number): readonly Copy[] | null
}

interface Waiting {
  readonly passage: Passage
  readonly dueNs: number
  readonly afterNext: boolean
  readonly frame: Uint8Array
}

/**
 * Stands in front of a port, and is one: a cable that is plugged in here reaches that port through an inspector. Where a wire's
 * impairments are drawn from chance, an inspector names the very frame.
 */
export class Interposer implements Port, Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = true

  readonly name: string
  readonly #port: Port
  readonly #host: LinkHost
  readonly #inspector: Inspector
  readonly #waiting: Waiting[] = []
  #outlet: FrameSink = NOWHERE

  constructor(port: Port, host: LinkHost, inspector: Inspector, name = port.name) {
    this.name = name
    this.#port = port
    this.#host = host
    this.#inspector = inspector
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
    this.#port.plug({ frame: (...frame) => this.#pass('out', ...frame) })
  }

  setCarrier(up: boolean): void {
    this.#port.setCarrier(up)
  }

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    this.#pass('in', memory, offset, length, nowNs)
  }

  fire(nowNs: number): void {
    for (const { passage, frame } of this.#take((waiting) => waiting.dueNs <= nowNs))
      this.#deliver(passage, frame, nowNs)
    this.#arm()
  }

  /** Puts a frame of the inspector's own on its way. */
  send(passage: Passage, frame: Uint8Array, delayNs = 0): void {
    this.#wait({ passage, dueNs: this.#host.now() + delayNs, afterNext: false, frame: frame.slice() })
  }

  #pass(passage: Passage, memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    const frame = memory.subarray(offset, offset + length)
    const copies = this.#inspector.inspect(this, passage, frame, nowNs)
    if (copies === null) this.#deliver(passage, frame, nowNs)
    else for (const copy of copies) this.#copy(passage, frame, copy, nowNs)
    const passed = copies === null || copies.some(({ delayNs = 0, afterNext = false }) => delayNs === 0 && !afterNext)
    if (!passed || this.#waiting.length === 0) return
    for (const waiting of this.#take((other) => other.afterNext && other.passage === passage))
      this.#deliver(passage, waiting.frame, nowNs)
    this.#arm()
  }

  #copy(passage: Passage, frame: Uint8Array, { delayNs = 0, afterNext = false, flip }: Copy, nowNs: number): void {
    const own = frame.slice()
    if (flip !== undefined) own[flip >>> 3]! ^= 1 << (flip & 7)
    if (delayNs === 0 && !afterNext) this.#deliver(passage, own, nowNs)
    else this.#wait({ passage, dueNs: nowNs + delayNs, afterNext, frame: own })
  }

  #deliver(passage: Passage, frame: Uint8Array, nowNs: number): void {
    const sink = passage === 'in' ? this.#port : this.#outlet
    sink.frame(frame, 0, frame.length, nowNs)
  }

  #wait(waiting: Waiting): void {
    this.#waiting.push(waiting)
    this.#arm()
  }

  #take(due: (waiting: Waiting) => boolean): Waiting[] {
    const taken = this.#waiting.filter(due).sort((a, b) => a.dueNs - b.dueNs)
    for (const waiting of taken) this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    return taken
  }

  #arm(): void {
    if (this.#waiting.length === 0) this.#host.clearAlarm(this)
    else this.#host.setAlarm(this, Math.min(...this.#waiting.map(({ dueNs }) => dueNs)))
  }
}
