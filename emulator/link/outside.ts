import { type FrameSink, type LinkHost, NOWHERE, type Port } from './link.ts'

/** Counters of a link to the world outside the farm; free-running. */
export interface OutsideStatistics {
  /** Frames that came in, and went out. */
  received: number
  sent: number
  /** Frames for outside that were lost: nobody is there, or the way out is full. */
  lost: number
  /** Frames from outside that no port of a card carries. */
  refused: number
}

/** A port whose other side is not in this farm: it works in real time alone. */
export abstract class OutsidePort implements Port {
  readonly name: string
  protected readonly host: LinkHost
  protected outlet: FrameSink = NOWHERE
  protected received = 0
  protected sent = 0
  protected lost = 0
  protected refused = 0

  constructor(name: string, host: LinkHost) {
    if (host.virtual) throw new RangeError(`${name} reaches outside, which a farm in virtual time cannot.`)
    this.name = name
    this.host = host
  }

  plug(outlet: FrameSink | null): void {
    this.outlet = outlet ?? NOWHERE
  }

  setCarrier(): void {}

  abstract frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void

  statistics(): OutsideStatistics {
    const { received, sent, lost, refused } = this
    return { received, sent, lost, refused }
  }
}
