import { type FrameSink, NOWHERE, type Port } from '../../emulator/link/link.ts'
import { difference, formatAll, type Packet, type PacketPattern, parse } from './frames/index.ts'

/** A frame that came out of a card, or over a network. */
export interface CapturedFrame {
  readonly frame: Uint8Array
  /** When its last bit arrived, nanoseconds of virtual time. */
  readonly timeNs: number
}

/** A captured frame, decoded. */
export interface CapturedPacket extends Packet, CapturedFrame {}

/** What a frame must be: fields that it has (frames/pattern.ts), or a test of one's own. */
export type FrameFilter = PacketPattern | ((packet: CapturedPacket) => boolean)

/** An expectation that was not met; the message says what came instead. */
export class ExpectationError extends Error {
  override readonly name = 'ExpectationError'
}

/** What a port needs of its laboratory. */
export interface PortHost {
  now(): number
  /** Lets time pass until the condition holds: true; false once `withinMs` are over. Rejects when a card stops. */
  wait(condition: () => boolean, withinMs: number): Promise<boolean>
}

/** Time that an expectation waits if it does not say how long, milliseconds of virtual time. */
export const DEFAULT_WITHIN_MS = 1000
/** Frames that a failed expectation shows. */
const SHOWN_FRAMES = 20
/** Frames that a port keeps until a test asks for them. */
const MAXIMUM_FRAMES = 65536

/** The test's end of a cable: what is plugged into the other end receives what is injected here, and what it sends is expected here. */
export class TestPort implements Port {
  readonly name: string
  /** True while the cable is whole. */
  carrier = false
  /** Frames lost because nobody asked for those before them. */
  lost = 0
  readonly #host: PortHost
  readonly #frames: CapturedPacket[] = []
  /** Frames that came before the first of `#frames`. */
  #passed = 0
  #outlet: FrameSink = NOWHERE

  constructor(name: string, host: PortHost) {
    this.name = name
    this.#host = host
  }

  /** Sends a frame, without FCS, into the cable. It arrives when time passes next. */
  inject(frame: Uint8Array): void {
    this.#outlet.frame(frame.slice(), 0, frame.length, this.#host.now())
  }

  /**
   * The next frame that fits. Frames before it are passed over, and are gone.
   *
   * @param withinMs virtual time to wait for it
   * @throws ExpectationError that shows what came instead
   */
  async expectFrame(filter: FrameFilter = {}, withinMs = DEFAULT_WITHIN_MS): Promise<CapturedPacket> {
    let at = this.#passed
    let found: CapturedPacket | undefined
    await this.#host.wait(() => {
      // Frames are looked at once, also where time passes in small steps.
      for (at = Math.max(at, this.#passed); found === undefined && at < this.#passed + this.#frames.length; at++) {
        const packet = this.#frames[at - this.#passed]
        if (explain(packet, filter) === null) found = packet
      }
      return found !== undefined
    }, withinMs)
    if (found === undefined) throw this.#missing(filter, withinMs)
    this.#frames.splice(0, at - this.#passed)
    this.#passed = at
    return found
  }

  #missing(filter: FrameFilter, withinMs: number): ExpectationError {
    const shown = this.#frames.slice(-SHOWN_FRAMES)
    const lines = shown.map((packet) => {
      const reason = typeof filter === 'function' ? '' : `\n    ${explain(packet, filter)}`
      return `${formatAll([packet])}${reason}`
    })
    const came = lines.length > 0 ? lines.join('\n') : formatAll([])
    return new ExpectationError(`${this.name}: no such frame within ${withinMs} ms. What came:\n${came}`)
  }

  /** Lets `ms` pass, in which no frame that fits may come. @throws ExpectationError that shows it */
  async expectSilence(ms: number, filter: FrameFilter = {}): Promise<void> {
    const from = this.#passed + this.#frames.length
    const heard = () =>
      this.#frames.slice(Math.max(0, from - this.#passed)).filter((packet) => explain(packet, filter) === null)
    await this.#host.wait(() => heard().length > 0, ms)
    const offending = heard()
    if (offending.length === 0) return
    throw new ExpectationError(`${this.name}: silence was expected. What came:\n${formatAll(offending)}`)
  }

  /** Takes all frames that have come and were not asked for. */
  take(): CapturedPacket[] {
    const frames = this.#frames.splice(0)
    this.#passed += frames.length
    return frames
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(up: boolean): void {
    this.carrier = up
  }

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    if (this.#frames.length === MAXIMUM_FRAMES) {
      this.lost++
      return
    }
    const frame = memory.slice(offset, offset + length)
    this.#frames.push({ ...parse(frame), frame, timeNs: nowNs })
  }
}

/** Why a packet does not fit, or null if it does. */
function explain(packet: CapturedPacket, filter: FrameFilter): string | null {
  if (typeof filter !== 'function') return difference(packet, filter)
  return filter(packet) ? null : 'does not fit'
}
