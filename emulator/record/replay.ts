/** Runs a board's recorded slices again, on a CPU and a memory of their own. */
import { GUARDED_RANGES, WATCHED_RANGE } from '../board.ts'
import { type Cpu, createCpu } from '../cpu/index.ts'
import { InicMemory } from '../devices/memory.ts'
import { ENTRY_EDIT, ENTRY_SLICE, FLAG_FAULT, FLAG_RESET, type LogCursor, type SliceLog } from './log.ts'
import type { Life } from './recorder.ts'

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
  readonly cpu: Cpu
  readonly #log: SliceLog
  #cursor: LogCursor | null = null
  /** The state is that before this slice; devices have not stored for it yet. -1: none. */
  #at = -1

  /** Throws ERR_CPU_ADDON_MISSING where there is no Wasmtime. */
  constructor(life: Life, log: SliceLog) {
    this.life = life
    this.#log = log
    const { module, memoryBytes, fuelPerSlice } = life
    this.cpu = createCpu('wasmtime', { module, memoryBytes, guard: GUARDED_RANGES, watch: WATCHED_RANGE, fuelPerSlice })
    this.memory = new InicMemory(this.cpu.memory)
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
    if (this.#cursor === null || this.#at > slice || this.#at < nearest) {
      checkpoints.restore(slice, this.memory.bytes)
      this.#cursor = this.#log.from(nearest)
      this.#advance()
    }
    let slices = 0
    for (; this.#at < slice; slices++) {
      this.#run()
      this.#advance()
    }
    return slices
  }

  /** The slice that comes next, with what devices store for it in memory; undefined at the end of the recording. Seek before you go on. */
  open(): SliceEntry | undefined {
    const cursor = this.#cursor
    if (cursor === null || this.#at === Number.POSITIVE_INFINITY) return undefined
    const { slice, timeNs, irqs, flags, fuel } = cursor
    cursor.apply(this.memory)
    this.#cursor = null
    return {
      ...{ slice, timeNs, irqs, fuel, isReset: (flags & FLAG_RESET) !== 0, faulted: (flags & FLAG_FAULT) !== 0 },
      edits: this.#edits(slice),
    }
  }

  dispose(): void {
    this.cpu.dispose()
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
    const { cpu } = this
    const { irqs, flags, fuel, slice } = this.#cursor!
    this.#cursor!.apply(this.memory)
    if ((flags & FLAG_RESET) !== 0) cpu.reset()
    else cpu.poll(irqs)
    const { cycles } = cpu
    if ((flags & FLAG_FAULT) === 0 && cycles !== fuel)
      throw new ReplayError(
        `${this.life.board}: slice ${slice} spends ${cycles} units of fuel and spent ${fuel} when it was recorded`,
      )
  }
}
