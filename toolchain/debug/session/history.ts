/** The recorded past of a farm: where its boards were, and when something would have stopped them. */
import type { WatchHit } from '../../../emulator/cpu/index.ts'
import { ENTRY_FRAME, FLAG_IN } from '../../../emulator/record/log.ts'
import type { Life } from '../../../emulator/record/recorder.ts'
import type { Recording } from '../../../emulator/record/recording.ts'
import { type EvaluationContext, ExpressionError, memoryOf, type Scope } from '../values/index.ts'
import type { Arms } from './armed.ts'
import { type BreakpointEntry, isWanted } from './breakpoints.ts'
import type { Inic, LoadedFirmware } from './inic.ts'
import { Sandbox, type SandboxStop } from './sandbox.ts'

/** Slices that are searched at once. */
const SEGMENT_SLICES = 8192

/** A moment of the farm: before slice `slice`, or within it, before its instruction number `step`. */
export interface Moment {
  readonly slice: number
  /** Undefined: between slices. Else the slice is this INIC's. */
  readonly step: number | undefined
  readonly inic: Inic
}

/** Negative, zero or positive as `a` is earlier than, the same as or later than `b`. */
export function compareMoments(a: Moment, b: Moment): number {
  return a.slice - b.slice || (a.step ?? -1) - (b.step ?? -1)
}

/** Something that a breakpoint waits for, in the past. */
export interface PastEvent {
  readonly moment: Moment
  readonly entries: readonly BreakpointEntry[]
  readonly hits: readonly WatchHit[]
  readonly frame?: { readonly port: number; readonly direction: 'in' | 'out'; readonly bytes: Uint8Array }
}

/** A frame breakpoint of one INIC. */
export type FrameTest = (
  inic: Inic,
  port: number,
  direction: 'in' | 'out',
  memory: Uint8Array,
  address: number,
  length: number,
) => readonly BreakpointEntry[]

export class History {
  readonly #recording: Recording
  readonly #firmware: (module: Uint8Array) => LoadedFirmware
  readonly #sandboxes = new Map<number, Sandbox>()

  /** @param firmware what is known of a module */
  constructor(recording: Recording, firmware: (module: Uint8Array) => LoadedFirmware) {
    this.#recording = recording
    this.#firmware = firmware
  }

  get oldestSlice(): number {
    return this.#recording.oldestSlice
  }

  /** The power-on of an INIC that `slice` belongs to; undefined while it was off. */
  life({ name }: Inic, slice: number): Life | undefined {
    return this.#recording.lives.findLast((life) => life.board === name && life.firstSlice <= slice)
  }

  sandbox(inic: Inic, slice: number): Sandbox | undefined {
    const life = this.life(inic, slice)
    if (life === undefined) return undefined
    let sandbox = this.#sandboxes.get(life.id)
    if (sandbox === undefined) {
      sandbox = new Sandbox(life, this.#recording.log, this.#firmware(life.module).sites)
      this.#sandboxes.set(life.id, sandbox)
    }
    return sandbox
  }

  /** The farm's clock when a slice began, nanoseconds. */
  timeOf(slice: number): number {
    let cursor = this.#recording.log.from(slice)
    if (cursor.next()) return cursor.timeNs
    cursor = this.#recording.log.from(slice - 1)
    while (cursor.next()) {}
    return cursor.timeNs
  }

  /** The last slice of an INIC before `slice` that history reaches. */
  previous(inic: Inic, slice: number): number | undefined {
    const sandbox = this.sandbox(inic, slice)
    if (sandbox === undefined) return undefined
    for (let span = 64, to = slice; to > this.oldestSlice; span *= 4) {
      const from = Math.max(to - span, this.oldestSlice)
      let last: number | undefined
      for (const own of sandbox.slices(from, to)) last = own
      if (last !== undefined) return last
      to = from
    }
    return undefined
  }

  /** The first slice of an INIC that is `slice` or later. */
  next(inic: Inic, slice: number): number | undefined {
    for (const own of this.sandbox(inic, slice)?.slices(slice, Number.POSITIVE_INFINITY) ?? []) return own
    return undefined
  }

  /** Forgets what was known of the slice under way and later ones: the present was changed by hand. */
  changed(slice: number): void {
    for (const sandbox of this.#sandboxes.values()) sandbox.changed(slice)
  }

  /** Events of one slice, between two of its instructions: after `from`, up to and with `to`. In order; `one` stops at the first. */
  within(inic: Inic, arms: Arms, slice: number, from: number, to: number, one: boolean): PastEvent[] {
    const events: PastEvent[] = []
    if (arms.pcs.size === 0 && arms.watches.length === 0) return events
    const sandbox = this.sandbox(inic, slice)
    sandbox?.run(slice, arms, true, (stop) => {
      if (stop.step > to) return false
      if (stop.step > from) {
        const event = this.#event(inic, sandbox, slice, stop)
        if (event !== undefined) events.push(event)
      }
      return !(one && events.length > 0)
    })
    return events
  }

  /** The number of the instruction before which an INIC stands that has stopped `stops` times after instruction `anchor` of a slice. */
  stepOf(inic: Inic, arms: Arms, slice: number, anchor: number, stops: number): number {
    let left = stops
    let step = Math.max(anchor, 0)
    this.sandbox(inic, slice)?.run(slice, arms, true, (stop) => {
      if (stop.step <= anchor) return true
      step = stop.step
      return --left > 0
    })
    return step
  }

  /** The last event before a moment, of all these INICs. */
  lastBefore(moment: Moment, inics: readonly Inic[], frames: FrameTest | undefined): PastEvent | undefined {
    for (let to = moment.slice + 1; to > this.oldestSlice; to -= SEGMENT_SLICES) {
      const from = Math.max(to - SEGMENT_SLICES, this.oldestSlice)
      let last: PastEvent | undefined
      for (const inic of inics) {
        for (const event of [
          this.#lastCode(inic, from, to, moment),
          frames && this.#frame(inic, from, to, frames, (at) => compareMoments(at, moment) < 0, true),
        ]) {
          if (event !== undefined && (last === undefined || compareMoments(event.moment, last.moment) > 0)) last = event
        }
      }
      if (last !== undefined) return last
    }
    return undefined
  }

  /** The first event after a moment and before another. */
  firstAfter(
    moment: Moment,
    end: Moment,
    inics: readonly Inic[],
    frames: FrameTest | undefined,
  ): PastEvent | undefined {
    for (let from = moment.slice; from <= end.slice; from += SEGMENT_SLICES) {
      const to = Math.min(from + SEGMENT_SLICES, end.slice + 1)
      let first: PastEvent | undefined
      const isIn = (at: Moment) => compareMoments(at, moment) > 0 && compareMoments(at, end) < 0
      for (const inic of inics) {
        for (const event of [
          this.#firstCode(inic, from, to, isIn),
          frames && this.#frame(inic, from, to, frames, isIn, false),
        ]) {
          if (event !== undefined && (first === undefined || compareMoments(event.moment, first.moment) < 0))
            first = event
        }
      }
      if (first !== undefined) return first
    }
    return undefined
  }

  dispose(): void {
    for (const sandbox of this.#sandboxes.values()) sandbox.dispose()
    this.#sandboxes.clear()
  }

  #lastCode(inic: Inic, from: number, to: number, before: Moment): PastEvent | undefined {
    const { arms } = inic
    if (arms.pcs.size === 0 && arms.watches.length === 0) return undefined
    const sandbox = this.sandbox(inic, to - 1)
    if (sandbox === undefined) return undefined
    const isBefore = (event: PastEvent) => compareMoments(event.moment, before) < 0
    const candidates: number[] = []
    for (const slice of sandbox.slices(Math.max(from, sandbox.life.firstSlice), to)) {
      if (slice === before.slice) candidates.push(slice)
      else if (this.#stops(inic, sandbox, slice)) candidates.push(slice)
    }
    for (const slice of candidates.reverse()) {
      const found = this.within(inic, arms, slice, -1, Number.POSITIVE_INFINITY, false).findLast(isBefore)
      if (found !== undefined) return found
    }
    return undefined
  }

  #firstCode(inic: Inic, from: number, to: number, isIn: (moment: Moment) => boolean): PastEvent | undefined {
    const { arms } = inic
    if (arms.pcs.size === 0 && arms.watches.length === 0) return undefined
    const sandbox = this.sandbox(inic, to - 1)
    if (sandbox === undefined) return undefined
    for (const slice of sandbox.slices(Math.max(from, sandbox.life.firstSlice), to)) {
      if (!this.#stops(inic, sandbox, slice)) continue
      const found = this.within(inic, arms, slice, -1, Number.POSITIVE_INFINITY, false).find(({ moment }) =>
        isIn(moment),
      )
      if (found !== undefined) return found
    }
    return undefined
  }

  /** True if anything stops this slice. */
  #stops(inic: Inic, sandbox: Sandbox, slice: number): boolean {
    let stops = false
    sandbox.run(slice, inic.arms, false, (stop) => {
      stops ||= this.#event(inic, sandbox, slice, stop) !== undefined
      return true
    })
    return stops
  }

  #event(inic: Inic, sandbox: Sandbox, slice: number, { step, pc, hits }: SandboxStop): PastEvent | undefined {
    const firmware = this.#firmware(sandbox.life.module)
    const context: EvaluationContext = {
      memory: memoryOf(sandbox.memory),
      frame: {
        locals: () => sandbox.frames()[0]?.locals ?? [],
        local: (index) => sandbox.twin.local(index),
      },
    }
    const scope: Scope = { pc }
    const wanted = (entry: BreakpointEntry): boolean => {
      try {
        return entry.isOn(inic.thread) && entry.holds(firmware, scope, context)
      } catch (error) {
        // What the condition asks for may not have been there yet.
        if (error instanceof ExpressionError) return false
        throw error
      }
    }
    const touched = hits.filter(({ id, before, after }) => {
      const entry = sandbox.armed.watcher(id)
      return entry !== undefined && isWanted(entry.spec, littleEndian(before), littleEndian(after)) && wanted(entry)
    })
    const entries = [
      ...(hits.length > 0 ? [] : (inic.arms.pcs.get(pc) ?? []).filter(wanted)),
      ...touched.map(({ id }) => sandbox.armed.watcher(id)!),
    ]
    return entries.length === 0 ? undefined : { moment: { slice, step, inic }, entries, hits: touched }
  }

  /** The first or last frame of an INIC that a breakpoint waits for. */
  #frame(
    inic: Inic,
    from: number,
    to: number,
    test: FrameTest,
    isIn: (moment: Moment) => boolean,
    last: boolean,
  ): PastEvent | undefined {
    let found: PastEvent | undefined
    const cursor = this.#recording.log.from(from)
    while (cursor.next() && cursor.slice < to) {
      if (cursor.kind !== ENTRY_FRAME) continue
      const { life, slice, flags } = cursor
      const sandbox = this.sandbox(inic, slice)
      const moment = { slice, step: undefined, inic }
      if (sandbox?.life.id !== life || !isIn(moment)) continue
      const { port, address, length } = cursor.frame
      const direction = (flags & FLAG_IN) !== 0 ? 'in' : 'out'
      const memory = sandbox.frameMemory(slice, direction)
      const entries = test(inic, port, direction, memory, address, length)
      if (entries.length === 0) continue
      found = { moment, entries, hits: [], frame: { port, direction, bytes: memory.slice(address, address + length) } }
      if (!last) return found
    }
    return found
  }
}

/** Up to four bytes as a number. */
export function littleEndian(bytes: Uint8Array): number {
  let number = 0
  for (let n = Math.min(bytes.length, 4) - 1; n >= 0; n--) number = number * 256 + bytes[n]!
  return number
}
