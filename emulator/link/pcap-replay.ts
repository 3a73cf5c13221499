import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { CaptureReader } from './capture-reader.ts'
import { type Alarm, type FrameSink, type LinkHost, NOWHERE, type Port } from './link.ts'

export { CaptureError } from './capture-reader.ts'

export interface ReplayOptions {
  /** 'original': with the gaps of the capture (default). 'compressed': each frame `gapNs` after the one before. */
  timing?: 'original' | 'compressed'
  /** Default 1000. */
  gapNs?: number
  /** Only frames of the interface with this name. */
  interface?: string
  /** Told when the last frame is sent, or when the file turned out to be broken. */
  onEnd?: (error: Error | null) => void
}

/** Frames sent by one firing of the alarm, so that a capture without gaps leaves room for others. */
const FRAMES_AT_ONCE = 64

/** A port that sends what a capture holds, and takes no notice of what it receives. */
export class PcapReplay implements Port, Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = true
  readonly name: string
  /** Frames sent. */
  frames = 0
  /** Frames that the capture had cut, or that no port carries. */
  skipped = 0
  /** Frames received, and dropped. */
  received = 0

  readonly #reader: CaptureReader
  readonly #host: LinkHost
  readonly #timing: 'original' | 'compressed'
  readonly #gapNs: number
  readonly #interface: string | undefined
  readonly #onEnd: ((error: Error | null) => void) | undefined
  #outlet: FrameSink = NOWHERE
  /** Time stamp of the capture's first frame, and when it was sent. */
  #firstNs: bigint | null = null
  #startNs = 0
  #ended = false

  /** Opens the capture; nothing is sent before `start`. Throws what node:fs throws, CaptureError, RangeError. */
  constructor(name: string, path: string, host: LinkHost, options: ReplayOptions = {}) {
    const { timing = 'original', gapNs = 1000, onEnd } = options
    if (!(gapNs >= 0)) throw new RangeError(`gapNs is ${gapNs}; give nanoseconds.`)
    this.name = name
    this.#host = host
    this.#timing = timing
    this.#gapNs = gapNs
    this.#interface = options.interface
    this.#onEnd = onEnd
    this.#reader = new CaptureReader(path)
  }

  /** Begins to send, now or at `atNs`. */
  start(atNs: number = this.#host.now()): void {
    this.#startNs = atNs
    if (this.#advance()) this.#host.setAlarm(this, atNs)
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(): void {}

  frame(): void {
    this.received++
  }

  fire(nowNs: number): void {
    if (this.#ended) return
    let dueNs = nowNs
    for (let n = 0; n < FRAMES_AT_ONCE; n++) {
      const reader = this.#reader
      this.frames++
      this.#outlet.frame(reader.memory, reader.offset, reader.length, nowNs)
      if (!this.#advance()) return
      dueNs =
        this.#timing === 'compressed'
          ? dueNs + this.#gapNs
          : this.#startNs + Number(reader.timestampNs - this.#firstNs!)
      if (dueNs > nowNs) break
    }
    this.#host.setAlarm(this, Math.max(dueNs, nowNs))
  }

  /** Stops sending and closes the file; `onEnd` is not told. */
  close(): void {
    if (this.#ended) return
    this.#ended = true
    this.#host.clearAlarm(this)
    this.#reader.close()
  }

  /** Goes to the next frame that can be sent; false at the end. */
  #advance(): boolean {
    const reader = this.#reader
    try {
      while (reader.next()) {
        if (this.#interface !== undefined && reader.interfaces[reader.interface].name !== this.#interface) continue
        if (
          reader.length !== reader.originalLength ||
          reader.length < MAC_MINIMUM_FRAME ||
          reader.length > MAC_MAXIMUM_FRAME
        ) {
          this.skipped++
          continue
        }
        this.#firstNs ??= reader.timestampNs
        return true
      }
      this.#end(null)
    } catch (error) {
      this.#end(error as Error)
    }
    return false
  }

  #end(error: Error | null): void {
    this.close()
    this.#onEnd?.(error)
  }
}
