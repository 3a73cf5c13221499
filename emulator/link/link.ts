/**
 * What joins networks: ports, and cables between them.
 *
 *     port ──frame()──▶ outlet of the cable ──frame()──▶ port
 *
 * A frame is passed as a range of somebody else's memory and is valid only during the call: a sink copies what it keeps.
 * Frames are Ethernet II or 802.3 without preamble and FCS. No object is made per frame.
 */
export interface FrameSink {
  /**
   * Takes one frame: `length` bytes of `memory` from `offset`. Never throws; a frame that the sink cannot take is dropped
   * and counted by the sink. `nowNs` is the farm's time, nanoseconds.
   */
  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void
}

/** One place where a cable can be plugged in: a MAC port, a port of a switch, a TAP interface, a stream to another process. */
export interface Port extends FrameSink {
  /** Shown in errors, captures and statistics: `server1.0`, `lan-a.3`, `tap0`. */
  readonly name: string
  /** Gives the port the sink for the frames that it sends; `null` takes it away. Called by the cable alone. */
  plug(outlet: FrameSink | null): void
  /** Tells the port that the cable to its peer came up or went down. */
  setCarrier(up: boolean): void
}

/** Counters of one direction of a link; free-running. */
export interface LinkStatistics {
  frames: number
  bytes: number
  /** Frames lost to a full queue. */
  overflowed: number
  /** Frames lost, doubled, held back or changed on purpose. */
  lost: number
  duplicated: number
  reordered: number
  corrupted: number
  /** Frames sent into a cable that was cut. */
  cut: number
}

/** A sink for ports that nothing is plugged into. */
export const NOWHERE: FrameSink = { frame() {} }

/** Something that wants to run at a time of the farm's clock. It is its own heap entry: setting it allocates nothing. */
export interface Alarm {
  /** Position in the queue, or -1; kept by the queue. */
  slot: number
  /** Nanoseconds, kept by the queue. */
  dueNs: number
  /** Order among alarms due at the same time, kept by the queue. */
  sequence: number
  /**
   * True when a delay of up to a millisecond, which the operating system's timers bring in real time, would change what the
   * alarm stands for (frames on a wire).
   */
  readonly precise: boolean
  /** Runs once when due. `nowNs` is the farm's time. */
  fire(nowNs: number): void
}

/** The part of the farm that a link sees. */
export interface LinkHost {
  /** Nanoseconds since the farm was switched on. */
  now(): number
  /** Sets or moves an alarm. */
  setAlarm(alarm: Alarm, dueNs: number): void
  /** Takes an alarm out; nothing happens if it is not set. */
  clearAlarm(alarm: Alarm): void
  /** Tells the farm that a frame came from outside, so that it runs even where it slept. */
  wake(): void
  /** True in virtual time, where nothing may come from outside. */
  readonly virtual: boolean
}
