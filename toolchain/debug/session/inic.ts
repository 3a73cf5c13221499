/** One INIC of a session: its board, its firmware, and the CPU that it runs on while somebody wants to stop it. */
import type { Board } from '../../../emulator/board.ts'
import { type Cpu, type DebugOutcome, WasmtimeCpu } from '../../../emulator/cpu/index.ts'
import { type EvaluationContext, type MemoryAccess, memoryOf } from '../values/index.ts'
import { DebugError } from './api.ts'
import { Armed, type Arms, NO_ARMS } from './armed.ts'
import type { Firmware } from './breakpoints.ts'
import { DebuggedCpu } from './debugged-cpu.ts'
import type { BuildTexts } from './firmware.ts'
import type { Sites } from './walk.ts'

/** A firmware that was looked at: shared by every INIC that runs it. */
export interface LoadedFirmware extends Firmware {
  readonly id: number
  readonly description: string
  readonly wasm: Uint8Array
  /** What the build keeps beside the module. */
  readonly texts: BuildTexts
  readonly sites: Sites
}

/** An INIC of a session: of a farm, or of a recording. */
export class Inic {
  readonly thread: number
  /** The board's name. */
  readonly name: string
  /** What it runs now; null while it is off. */
  firmware: LoadedFirmware | null = null
  /** What it is to stop at. */
  arms: Arms = NO_ARMS

  constructor(thread: number, name: string) {
    this.thread = thread
    this.name = name
  }
}

export interface InicHost {
  /** A slice was halted: before its first instruction if `entry` asked for that, or at a breakpoint, watchpoint or trap. */
  judge(inic: LiveInic, outcome: DebugOutcome & { state: 'stopped' }): boolean
}

/** An INIC of a farm: its board, and the CPU that it runs on while somebody wants to stop it. */
export class LiveInic extends Inic {
  readonly board: Board
  /** The next slice is to be halted before its first instruction. */
  entry = false
  /** Of the slice under way: the instruction before which it was halted last, or -1, and stops since. */
  anchor = -1
  stops = 0
  /** Decides about stops. */
  host: InicHost | null = null
  #plain: Cpu | null = null
  #debugged: DebuggedCpu | null = null
  #armed: Armed | null = null
  #stoppedContext: EvaluationContext | null = null

  constructor(thread: number, board: Board) {
    super(thread, board.name)
    this.board = board
  }

  /** The board has a CPU: it is about to be switched on, or was on when the session began. */
  poweredOn(cpu: Cpu, firmware: LoadedFirmware): void {
    this.#plain = cpu
    this.firmware = firmware
    this.#debugged = null
    this.#armed = null
    this.arms = NO_ARMS
  }

  poweredOff(): void {
    // The board disposes of the one that it ran on.
    const current = this.board.cpu
    if (this.#debugged !== current) this.#debugged?.dispose()
    if (this.#plain !== current) this.#plain?.dispose()
    this.#plain = this.#debugged = this.#armed = null
    this.firmware = null
    this.arms = NO_ARMS
  }

  get debugged(): DebuggedCpu | null {
    return this.#debugged
  }

  /** The CPU for the next slice: under the debugger where something may stop it. @throws DebugError on a CPU that cannot be debugged */
  choose(): Cpu {
    const { arms } = this
    if (!this.entry && arms.pcs.size === 0 && arms.watches.length === 0) {
      this.#armed?.set(NO_ARMS)
      return this.#plain!
    }
    this.#takeOver()
    this.#armed!.set(arms)
    return this.#debugged!
  }

  /** What conditions are evaluated against: memory as it is, and the function that the CPU is stopped in. */
  get context(): EvaluationContext {
    const twin = this.#debugged?.twin
    return twin?.stopped === true ? this.#stoppedContext! : { memory: this.memory() }
  }

  watcher(id: number): ReturnType<Armed['watcher']> {
    return this.#armed?.watcher(id)
  }

  /** INIC memory as it is. @throws DebugError for a board without power */
  memory(store?: (address: number, bytes: Uint8Array) => void): MemoryAccess {
    const memory = this.board.memory?.bytes
    if (memory === undefined)
      throw new DebugError('no-thread', `${this.board.name} is off: it has no memory to look at`)
    return memoryOf(memory, store)
  }

  #takeOver(): void {
    if (this.#debugged !== null) return
    const plain = this.#plain
    if (!(plain instanceof WasmtimeCpu))
      throw new DebugError(
        'unsupported',
        `${this.board.name} runs on ${plain?.kind ?? 'nothing'}: only Wasmtime can be stopped within a slice`,
      )
    const twin = plain.debugTwin()
    this.#armed = new Armed(twin)
    this.#stoppedContext = {
      memory: this.memory(),
      frame: { locals: () => twin.frames()[0]?.locals ?? [], local: (index) => twin.local(index) },
    }
    this.#debugged = new DebuggedCpu(twin, {
      wantsEntry: () => this.entry,
      stopped: (outcome) => {
        this.stops++
        return this.host?.judge(this, outcome) ?? false
      },
    })
  }
}
