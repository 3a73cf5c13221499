import type { Board } from '../board.ts'
import type { Cpu } from '../cpu/index.ts'
import type { FrameWatcher, MacPort } from '../devices/mac.ts'
import type { Farm } from '../farm.ts'
import type { Supervisor } from '../supervisor.ts'
import type { Recorder } from './recorder.ts'

/** Lets a recorder hear what happens to the boards of a farm, all but those that are left out; and nobody else. */
export class FarmRecorder implements Supervisor, FrameWatcher {
  readonly recorder: Recorder
  readonly #farm: Farm
  readonly #isWanted: (board: Board) => boolean
  readonly #ports = new Map<MacPort, Board>()

  /** Begins between two slices: with boards that are on as they are. */
  constructor(farm: Farm, recorder: Recorder, isWanted: (board: Board) => boolean = () => true) {
    this.#farm = farm
    this.recorder = recorder
    this.#isWanted = isWanted
    farm.supervisor = this
    for (const board of farm.boards.values()) if (board.memory !== null) this.#add(board)
  }

  /** Hears nothing any more. */
  close(): void {
    if (this.#farm.supervisor === this) this.#farm.supervisor = null
    for (const board of this.#farm.boards.values()) this.#remove(board)
  }

  poweredOn(board: Board, cpu: Cpu): Cpu {
    this.#add(board)
    return cpu
  }

  poweredOff(board: Board): void {
    this.#remove(board)
  }

  beforeSlice(board: Board, irqs: number | undefined, nowNs: number): void {
    this.recorder.beforeSlice(board, irqs, nowNs)
  }

  afterSlice(board: Board, stopped: boolean): void {
    this.recorder.afterSlice(board, stopped)
  }

  frame(port: MacPort, direction: 'in' | 'out', _memory: Uint8Array, address: number, length: number): void {
    const board = this.#ports.get(port)
    if (board !== undefined) this.recorder.frame(board, board.ports.indexOf(port), direction, address, length)
  }

  interrupted(): void {}
  consoleLine(): void {}
  crashed(): void {}

  #add(board: Board): void {
    if (!this.#isWanted(board)) return
    this.recorder.add(board)
    for (const port of board.ports) {
      port.watcher = this
      this.#ports.set(port, board)
    }
  }

  #remove(board: Board): void {
    this.recorder.remove(board)
    for (const port of board.ports) {
      if (port.watcher === this) port.watcher = null
      this.#ports.delete(port)
    }
  }
}
