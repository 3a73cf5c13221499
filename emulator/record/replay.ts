/** Runs a board's recorded slices again, on a CPU and a memory of their own. */
import { GUARDED_RANGES, WATCHED_RANGE } from '../board-cpu.ts'
import { type DebugCall, type DebugCpu, WasmtimeCpu } from '../cpu/index.ts'
import { InicMemory } from '../devices/memory.ts'
import { ENTRY_EDIT, ENTRY_SLICE, FLAG_EDITED, FLAG_FAULT, FLAG_RESET, type LogCursor, type SliceLog } from './log.ts'
import { CHECKPOINT_SLICES, type Life } from './recorder.ts'

/** The firmware did something else than when it was recorded. */
export class ReplayError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ReplayError'
  }
}

/** A slice of a board's, ready to be run or already run. */
export interface SliceEntry {
  readonly slice: number
  readonly timeNs: number
  readonly irqs: number
  readonly isReset: boolean
  readonly fuel: number
  readonly faulted: boolean
  /** In the order of their steps. */
  readonly edits: readonly Edit[]
}

/** Bytes stored by hand, before instruction number `step`. */
export interface Edit {
  readonly step: number
  readonly address: number
  readonly bytes: Uint8Array
}

export class BoardReplay {
  readonly life: Life
  readonly memory: InicMemory
  readonly #cpu: WasmtimeCpu
  readonly #log: SliceLog
  #cursor: LogCursor | null = null
  /** The state is that before this slice; devices have not stored for it yet. -1: none. */
  #at = -1

  /** Throws ERR_CPU_ADDON_MISSING where there is no Wasmtime. */
  constructor(life: Life, log: SliceLog) {
    this.life = life
    this.#log = log
    const { module, memoryBytes, fuelPerSlice } = life
    this.#cpu = new WasmtimeCpu({ module, memoryBytes, guard: GUARDED_RANGES, watch: WATCHED_RANGE, fuelPerSlice })
    this.memory = new InicMemory(this.#cpu.memory)
  }

  /**
   * Brings memory to what it was before the first slice of this board that is `slice` or later. Gives how many slices were run for it.
   *
   * @throws ReplayError if history does not reach there, or the firmware leaves its recorded path
   */
  seek(slice: number): number {
    const { checkpoints, board } = this.life
    const nearest = checkpoints.before(slice)
    if (nearest === undefined) throw new ReplayError(`${board}: history does not reach back to slice ${slice}`)
    // At the end of a log that goes on.
    if (this.#cursor !== null && this.#at === Number.POSITIVE_INFINITY) this.#advance()
    if (this.#cursor === null || this.#at > slice || this.#at < nearest) {
      checkpoints.restore(slice, this.memory.bytes, this.#cpu.usedPages())
      this.#cpu.clearFault()
      this.#cursor = this.#log.from(nearest)
      this.#advance()
    }
    let slices = 0
    for (; this.#at < slice; slices++) {
      // New ground: the next one to come here shall not run all of it again.
      if (this.#at > checkpoints.newestSlice + CHECKPOINT_SLICES) {
        checkpoints.take(this.#at, this.memory.bytes, this.#cpu.usedPages())
      }
      this.#run()
      this.#advance()
    }
    return slices
  }

  /** Stores what devices store for the slice that comes next, and leaves it to be run by `seek`. */
  peek(): void {
    if (this.#at !== Number.POSITIVE_INFINITY) this.#cursor?.apply(this.memory)
  }

  /** Runs slices under the debugger, over the same memory. */
  get twin(): DebugCpu {
    return this.#cpu.debugTwin()
  }

  /**
   * The slice that comes next, with what devices store for it in memory; undefined at the end of the recording. Whoever opens a slice
   * runs it, and closes it.
   */
  open(): SliceEntry | undefined {
    const cursor = this.#cursor
    if (cursor === null || this.#at === Number.POSITIVE_INFINITY) return undefined
    const { slice, timeNs, irqs, flags, fuel } = cursor
    cursor.apply(this.memory)
    return {
      ...{ slice, timeNs, irqs, fuel, isReset: (flags & FLAG_RESET) !== 0, faulted: (flags & FLAG_FAULT) !== 0 },
      edits: (flags & FLAG_EDITED) !== 0 ? this.#edits(slice) : [],
    }
  }

  /** The slice that was opened has been run to its end, or was left in its midst. */
  close(ended: boolean): void {
    if (ended) this.#advance()
    else this.#cursor = null
  }

  /** Slices of this board from `from` up to but not including `to`. */
  *slices(from: number, to: number): Generator<number> {
    for (const cursor = this.#log.from(from); cursor.next() && cursor.slice < to; )
      if (cursor.life === this.life.id && cursor.kind === ENTRY_SLICE) yield cursor.slice
  }

  dispose(): void {
    this.#cpu.debugTwin().dispose()
    this.#cpu.dispose()
  }

  #edits(slice: number): Edit[] {
    const edits: Edit[] = []
    for (const entry = this.#log.from(slice); entry.next() && entry.slice === slice; )
      if (entry.kind === ENTRY_EDIT && entry.life === this.life.id) edits.push(entry.edit)
    return edits
  }

  /** To the next slice of this board. */
  #advance(): void {
    const cursor = this.#cursor!
    do {
      if (!cursor.next()) {
        this.#at = Number.POSITIVE_INFINITY
        return
      }
    } while (cursor.life !== this.life.id || cursor.kind !== ENTRY_SLICE)
    this.#at = cursor.slice
  }

  #run(): void {
    const cursor = this.#cursor!
    const { irqs, flags, fuel, slice } = cursor
    cursor.apply(this.memory)
    const cycles = (flags & FLAG_EDITED) !== 0 ? this.#runEdited(slice) : this.#runPlain(irqs, flags)
    if ((flags & FLAG_FAULT) === 0 && cycles !== fuel) {
      throw new ReplayError(
        `${this.life.board}: slice ${slice} spends ${cycles} units of fuel, and spent ${fuel} when it was recorded`,
      )
    }
  }

  #runPlain(irqs: number, flags: number): number {
    if ((flags & FLAG_RESET) !== 0) this.#cpu.reset()
    else this.#cpu.poll(irqs)
    return this.#cpu.cycles
  }

  /** With bytes stored by hand in its midst. */
  #runEdited(slice: number): number {
    const { twin } = this
    const { irqs, flags } = this.#cursor!
    let call: DebugCall = (flags & FLAG_RESET) !== 0 ? 'reset' : irqs
    for (const { step, address, bytes } of this.#edits(slice)) {
      if (call !== 'resume' || twin.steps !== step) twin.runTo(call, step)
      this.memory.bytes.set(bytes, address)
      call = 'resume'
    }
    let outcome = twin.resume()
    while (outcome.state === 'stopped') outcome = twin.resume()
    return twin.cycles
  }
}
