/** Records a farm, and nothing else. */
import type { Board } from '../../emulator/board.ts'
import type { Cpu } from '../../emulator/cpu/index.ts'
import type { Farm } from '../../emulator/farm.ts'
import { Recorder, type RecorderOptions } from '../../emulator/record/recorder.ts'
import type { Supervisor } from '../../emulator/supervisor.ts'

export class RecordingSupervisor implements Supervisor {
  readonly recorder: Recorder

  constructor(farm: Farm, options: RecorderOptions = {}) {
    this.recorder = new Recorder(options)
    farm.supervisor = this
    for (const board of farm.boards.values()) if (board.memory !== null) this.recorder.add(board)
  }

  poweredOn(board: Board, cpu: Cpu): Cpu {
    this.recorder.add(board)
    return cpu
  }

  poweredOff(board: Board): void {
    this.recorder.remove(board)
  }

  beforeSlice(board: Board, irqs: number | undefined, nowNs: number): void {
    this.recorder.beforeSlice(board, irqs, nowNs)
  }

  afterSlice(board: Board): void {
    this.recorder.afterSlice(board)
  }

  interrupted(): void {}
  consoleLine(): void {}
  crashed(): void {}
}
