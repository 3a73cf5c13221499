/** Records what the boards of a farm are given, slice by slice, and checkpoints of their memory: what `BoardReplay` runs again. */
import { REGISTER_BASE } from '../../abi/memory.ts'
import { REGISTER_END } from '../../abi/registers.ts'
import type { Board } from '../board.ts'
import { NO_TIME } from '../clock.ts'
import type { Cpu } from '../cpu/index.ts'
import { type InicMemory, WriteJournal } from '../devices/memory.ts'
import { Checkpoints } from './checkpoints.ts'
import { FLAG_IN, FLAG_RESET, SliceLog, writeBytes } from './log.ts'
import type { Recording } from './recording.ts'

/** What a recording may take of memory unless told otherwise, bytes. */
export const HISTORY_BYTES = 256 << 20
/** A checkpoint is taken after so many slices of a board, or so many bytes for it. */
export const CHECKPOINT_SLICES = 16_384
const CHECKPOINT_BYTES = 16 << 20
const MAXIMUM_LIVES = 0xffff
const FIRST_REGISTER = REGISTER_BASE >>> 2
const END_REGISTER = FIRST_REGISTER + (REGISTER_END >>> 2)

/** A board from one power-on to the next: one firmware, one memory. */
export interface Life {
  readonly id: number
  readonly board: string
  readonly module: Uint8Array
  readonly memoryBytes: number
  readonly fuelPerSlice: number
  /** Slice at which it was first seen. */
  readonly firstSlice: number
  readonly checkpoints: Checkpoints
}

interface Recorded {
  readonly life: Life
  readonly memory: InicMemory
  readonly journal: WriteJournal
  /** Registers as the last slice left them. */
  readonly registers: Uint32Array
  slices: number
  bytes: number
}

export interface RecorderOptions {
  /** Memory for log and checkpoints together; the oldest is forgotten. Default HISTORY_BYTES. */
  readonly budgetBytes?: number
  readonly log?: SliceLog
  /** Default true. Without checkpoints only the whole of a recording can be run again, from its start. */
  readonly keepsCheckpoints?: boolean
  /** Called when a board's life begins, with its memory as it is. */
  onLife?(life: Life, memory: Uint8Array): void
}

export class Recorder implements Recording {
  readonly log: SliceLog
  /** By id; also those whose history is forgotten. */
  readonly lives: Life[] = []
  /** Slices recorded so far: the number that the next one gets. */
  slice = 0
  /** The oldest slice that history reaches. */
  oldestSlice = 0
  readonly #options: RecorderOptions
  readonly #keepsCheckpoints: boolean
  readonly #boards = new Map<Board, Recorded>()
  #nowNs = NO_TIME
  #current: Recorded | null = null

  constructor(options: RecorderOptions = {}) {
    this.#options = options
    this.#keepsCheckpoints = options.keepsCheckpoints ?? true
    this.log = options.log ?? new SliceLog()
  }

  lifeOf(board: Board): Life | undefined {
    return this.#boards.get(board)?.life
  }

  /** Begins with a board as it is: between two slices, or before its `reset`. */
  add(board: Board): void {
    const memory = board.memory!
    if (this.lives.length > MAXIMUM_LIVES)
      throw new RangeError(`no more than ${MAXIMUM_LIVES} power-ons can be recorded`)
    const life: Life = {
      ...{ id: this.lives.length, board: board.name, module: board.image!.wasm, memoryBytes: memory.length },
      ...{ fuelPerSlice: board.fuelPerSlice, firstSlice: this.slice, checkpoints: new Checkpoints(memory.length) },
    }
    this.lives.push(life)
    const journal = new WriteJournal()
    memory.journal = journal
    if (this.#keepsCheckpoints) life.checkpoints.take(this.slice, memory.bytes, board.cpu!.usedPages())
    const registers = memory.words.slice(FIRST_REGISTER, END_REGISTER)
    this.#boards.set(board, { life, memory, journal, registers, slices: 0, bytes: 0 })
    this.#options.onLife?.(life, memory.bytes)
  }

  /** The board is off, or nobody wants its history any more. */
  remove(board: Board): void {
    const recorded = this.#boards.get(board)
    if (recorded === undefined) return
    recorded.memory.journal = null
    this.#boards.delete(board)
    board.cpu?.count?.(false)
  }

  beforeSlice(board: Board, irqs: number | undefined, nowNs: number): void {
    const recorded = this.#boards.get(board)
    if (recorded === undefined) return
    if (this.#keepsCheckpoints && (recorded.slices >= CHECKPOINT_SLICES || recorded.bytes >= CHECKPOINT_BYTES))
      this.#checkpoint(recorded, board.cpu!)
    // A replay is held against it. Asked for each time: the board may have another CPU now.
    board.cpu!.count?.(true)
    this.#current = recorded
    this.#nowNs = nowNs
    const { memory, journal, registers, life } = recorded
    const { words } = memory
    const { ranges, count } = journal
    let bytes = 0
    for (let n = 0; n < count; n += 2) bytes += writeBytes(ranges[n + 1])
    let changed = 0
    for (let n = FIRST_REGISTER; n < END_REGISTER; n++) if (words[n] !== registers[n - FIRST_REGISTER]) changed++
    bytes += changed * writeBytes(4)
    this.log.slice(life.id, this.slice, nowNs, irqs ?? 0, irqs === undefined ? FLAG_RESET : 0, bytes)
    for (let n = 0; n < count; n += 2) this.log.write(memory, ranges[n], ranges[n + 1])
    if (changed > 0) {
      for (let n = FIRST_REGISTER; n < END_REGISTER; n++)
        if (words[n] !== registers[n - FIRST_REGISTER]) this.log.write(memory, n << 2, 4)
    }
    journal.clear()
    recorded.slices++
    recorded.bytes += bytes
    this.slice++
  }

  afterSlice(board: Board, stopped: boolean): void {
    const recorded = this.#boards.get(board)
    if (recorded === undefined || recorded !== this.#current) return
    this.#current = null
    this.log.ended(board.cpu!.cycles, stopped)
    this.#settle(recorded)
  }

  /** Stored by hand, between two slices of the board; `wrote` for what devices do. */
  edited(board: Board, address: number, length: number): void {
    this.#boards.get(board)?.journal.add(address, length)
  }

  /** Stored by hand in mid-slice, before instruction number `step` of the slice under way. */
  editedWithin(board: Board, step: number, address: number, bytes: Uint8Array): void {
    const recorded = this.#boards.get(board)
    if (recorded !== undefined) this.log.edit(recorded.life.id, this.slice - 1, this.#nowNs, step, address, bytes)
  }

  frame(board: Board, port: number, direction: 'in' | 'out', address: number, length: number): void {
    const recorded = this.#boards.get(board)
    if (recorded === undefined) return
    this.log.frame(recorded.life.id, this.slice, this.#nowNs, port, direction === 'in' ? FLAG_IN : 0, address, length)
  }

  /** Registers as the firmware left them: what differs at the next slice, devices have changed. */
  #settle({ memory, registers }: Recorded): void {
    const { words } = memory
    for (let n = 0; n < registers.length; n++) registers[n] = words[FIRST_REGISTER + n]
  }

  #checkpoint(recorded: Recorded, cpu: Cpu): void {
    recorded.slices = recorded.bytes = 0
    // Devices have stored for this slice already; to store the same once more does no harm.
    recorded.life.checkpoints.take(this.slice, recorded.memory.bytes, cpu.usedPages())
    const { budgetBytes = HISTORY_BYTES } = this.#options
    while (this.#bytes() > budgetBytes && this.#forget()) {}
  }

  #bytes(): number {
    return this.lives.reduce((sum, { checkpoints }) => sum + checkpoints.bytes, this.log.bytes)
  }

  /** Lets history begin at the second oldest checkpoint; false if that would be nothing. */
  #forget(): boolean {
    let oldest: Life | undefined
    for (const life of this.lives) {
      const { checkpoints } = life
      const isLive = [...this.#boards.values()].some((recorded) => recorded.life === life)
      // The last checkpoint of a board that runs is what its present is replayed from.
      if (checkpoints.count <= (isLive ? 1 : 0)) continue
      if (oldest === undefined || checkpoints.oldestSlice < oldest.checkpoints.oldestSlice) oldest = life
    }
    if (oldest === undefined) return false
    oldest.checkpoints.drop()
    this.oldestSlice = Math.max(this.oldestSlice, this.#reach())
    this.log.dropBefore(this.oldestSlice)
    return true
  }

  /** From here on every board that runs can be replayed. */
  #reach(): number {
    let reach = 0
    for (const { life } of this.#boards.values()) {
      const first = life.checkpoints.oldestSlice
      if (first !== life.firstSlice) reach = Math.max(reach, first)
    }
    return reach
  }
}
