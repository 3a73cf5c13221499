/** A board's past: its recorded slices, run again under the debugger, to any instruction. */
import type { DebugCall, DebugCpu, DebugFrame, DebugOutcome, WatchHit } from '../../../emulator/cpu/index.ts'
import type { SliceLog } from '../../../emulator/record/log.ts'
import type { Life } from '../../../emulator/record/recorder.ts'
import { BoardReplay, ReplayError, type SliceEntry } from '../../../emulator/record/replay.ts'
import { Armed, type Arms } from './armed.ts'
import { type Sites, Walk } from './walk.ts'

/** Longest slice that can be walked, instructions. */
const LONGEST_WALK = 1 << 24
/** Walks that are kept. */
const KEPT_WALKS = 8

/** A stop within a recorded slice. */
export interface SandboxStop {
  /** Before this instruction. */
  readonly step: number
  readonly pc: number
  /** Watchpoints that were touched by the instruction before; none for a breakpoint. */
  readonly hits: readonly WatchHit[]
}

export class Sandbox {
  readonly life: Life
  readonly armed: Armed
  readonly #replay: BoardReplay
  readonly #twin: DebugCpu
  readonly #sites: Sites
  readonly #walks = new Map<number, Walk>()
  /** The slice that the CPU is in the midst of, and before which instruction. */
  #opened = false
  #inside: { readonly entry: SliceEntry; step: number } | null = null

  constructor(life: Life, log: SliceLog, sites: Sites) {
    this.life = life
    this.#replay = new BoardReplay(life, log)
    this.#twin = this.#replay.twin
    this.armed = new Armed(this.#twin)
    this.#sites = sites
  }

  get memory(): Uint8Array {
    return this.#replay.memory.bytes
  }

  /** Of the moment gone to last; innermost first, none between slices. */
  frames(): readonly DebugFrame[] {
    return this.#twin.frames()
  }

  get twin(): DebugCpu {
    return this.#twin
  }

  /** The state before the board's first slice that is `slice` or later. */
  between(slice: number): void {
    this.#leave(false)
    this.#replay.seek(slice)
  }

  /** Memory in which a frame lies that passed before `slice` began: what came in is stored for the board's next slice. */
  frameMemory(slice: number, direction: 'in' | 'out'): Uint8Array {
    this.between(slice)
    if (direction === 'in') this.#replay.peek()
    return this.memory
  }

  /** The state in slice `slice`, which is this board's, before instruction number `step`. */
  within(slice: number, step: number): void {
    if (this.#inside?.entry.slice === slice && this.#inside.step === step) return
    const entry = this.#open(slice)
    this.#inside = { entry, step }
    let call: DebugCall = entry.isReset ? 'reset' : entry.irqs
    for (const edit of entry.edits) {
      if (edit.step > step) break
      this.#expectStop(this.#twin.runTo(call, edit.step))
      this.memory.set(edit.bytes, edit.address)
      call = 'resume'
    }
    if (call !== 'resume' || this.#twin.steps !== step) this.#expectStop(this.#twin.runTo(call, step))
  }

  /** All instructions of a slice. */
  walk(slice: number): Walk {
    let walk = this.#walks.get(slice)
    if (walk === undefined) {
      const entry = this.#open(slice)
      const first = entry.edits[0]
      let call: DebugCall = entry.isReset ? 'reset' : entry.irqs
      const parts: Uint32Array[] = []
      // What is stored by hand at a step changes what comes after it.
      for (let edit = first, n = 0; edit !== undefined; edit = entry.edits[++n]) {
        const done = parts.reduce((sum, { length }) => sum + length, 0)
        if (edit.step > done) {
          parts.push(this.#twin.trace(call, edit.step - done).pcs)
          call = 'resume'
        } else if (call !== 'resume') {
          this.#expectStop(this.#twin.runTo(call, 0))
          call = 'resume'
        }
        this.memory.set(edit.bytes, edit.address)
      }
      const { pcs, outcome } = this.#twin.trace(call, LONGEST_WALK)
      parts.push(pcs)
      walk = new Walk(join(parts), this.#sites)
      if (this.#walks.size === KEPT_WALKS) this.#walks.delete(this.#walks.keys().next().value!)
      this.#walks.set(slice, walk)
      this.#leave(outcome.state === 'done')
    }
    return walk
  }

  /** Forgets what is known of slices from `slice` on: the present was changed by hand. */
  changed(slice: number): void {
    for (const known of this.#walks.keys()) if (known >= slice) this.#walks.delete(known)
    if (this.#inside !== null && this.#inside.entry.slice >= slice) this.#leave(false)
  }

  /** Runs a slice with `arms`; every stop is shown to `visit`, until it gives false. `counted`: with the number of its instruction. */
  run(slice: number, arms: Arms, counted: boolean, visit: (stop: SandboxStop, outcome: DebugOutcome) => boolean): void {
    const entry = this.#open(slice)
    const twin = this.#twin
    this.armed.set(arms)
    twin.counting = counted
    let ended = false
    try {
      let outcome = this.#begin(entry)
      while (outcome.state === 'stopped') {
        const hits = outcome.reason === 'watch' ? outcome.hits : []
        if (!visit({ step: twin.steps ?? -1, pc: twin.pc!, hits }, outcome)) break
        outcome = twin.resume()
      }
      ended = outcome.state === 'done'
    } finally {
      this.#leave(ended)
      twin.counting = false
    }
  }

  /** Slices of this board from `from` up to but not including `to`. */
  slices(from: number, to: number): Iterable<number> {
    return this.#replay.slices(from, to)
  }

  dispose(): void {
    this.#twin.dispose()
    this.#replay.dispose()
  }

  /** Begins to run a slice: to its first stop, or its end. What was stored by hand within it is stored first, without stops until then. */
  #begin({ edits, isReset, irqs }: SliceEntry): DebugOutcome {
    const twin = this.#twin
    let call: DebugCall = isReset ? 'reset' : irqs
    for (const { step, address, bytes } of edits) {
      if (call !== 'resume' || twin.steps !== step) this.#expectStop(twin.runTo(call, step))
      this.memory.set(bytes, address)
      call = 'resume'
    }
    return call === 'resume' ? twin.resume() : call === 'reset' ? twin.reset() : twin.poll(call)
  }

  #open(slice: number): SliceEntry {
    this.#leave(false)
    this.#replay.seek(slice)
    const entry = this.#replay.open()
    if (entry?.slice !== slice) throw new ReplayError(`${this.life.board}: slice ${slice} is none of its`)
    this.#opened = true
    return entry
  }

  #leave(ended: boolean): void {
    if (!this.#opened) return
    this.#opened = false
    this.#inside = null
    this.#twin.abandon()
    this.#replay.close(ended)
  }

  #expectStop(outcome: DebugOutcome): void {
    if (outcome.state !== 'stopped')
      throw new ReplayError(`${this.life.board}: the slice is over before it was when recorded`)
  }
}

function join(parts: readonly Uint32Array[]): Uint32Array {
  if (parts.length === 1) return parts[0]!
  const all = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
