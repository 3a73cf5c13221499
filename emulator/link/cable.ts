import type { RandomSource } from '../random.ts'
import type { FrameSink, LinkHost, LinkStatistics, Port } from './link.ts'
import { Wire, type WireOptions } from './wire.ts'

/** Which way along a cable: from its first port to its second, or back. */
export type Direction = 'forward' | 'backward'

/** A cable between two ports: one wire each way. */
export class Cable {
  readonly name: string
  readonly a: Port
  readonly b: Port
  readonly #forward: Wire
  readonly #backward: Wire
  #isCut = false

  /** Plugs the cable in; both ports see their carrier. */
  constructor(name: string, a: Port, b: Port, host: LinkHost, random: RandomSource) {
    this.name = name
    this.a = a
    this.b = b
    this.#forward = new Wire(name, host, random.stream(`wire:${name}:forward`), b)
    this.#backward = new Wire(name, host, random.stream(`wire:${name}:backward`), a)
    a.plug(this.#forward)
    b.plug(this.#backward)
    a.setCarrier(true)
    b.setCarrier(true)
  }

  /** Changes what the cable does to frames, one way or both; options that are not given stay. Throws RangeError. */
  impair(options: WireOptions, direction?: Direction): void {
    for (const wire of this.#wires(direction)) wire.impair(options)
  }

  /** Both ports lose their carrier, and what they send is lost. */
  cut(): void {
    this.#setCut(true)
  }

  /** The opposite of `cut`. */
  mend(): void {
    this.#setCut(false)
  }

  get isCut(): boolean {
    return this.#isCut
  }

  /** Shows every frame sent into the cable to `capture`, before anything happens to it; null ends it. */
  capture(capture: FrameSink | null, direction?: Direction): void {
    for (const wire of this.#wires(direction)) wire.capture = capture
  }

  /** Takes the cable out of both ports. */
  unplug(): void {
    for (const wire of this.#wires()) wire.clear()
    for (const port of [this.a, this.b]) {
      port.plug(null)
      port.setCarrier(false)
    }
  }

  statistics(): Record<Direction, LinkStatistics> {
    return { forward: this.#forward.statistics(), backward: this.#backward.statistics() }
  }

  #wires(direction?: Direction): Wire[] {
    if (direction === undefined) return [this.#forward, this.#backward]
    return [direction === 'forward' ? this.#forward : this.#backward]
  }

  #setCut(cut: boolean): void {
    if (cut === this.#isCut) return
    this.#isCut = cut
    for (const wire of this.#wires()) wire.cut = cut
    this.a.setCarrier(!cut)
    this.b.setCarrier(!cut)
  }
}
