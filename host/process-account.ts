import { differs } from './board-agent.ts'
import { ProcessDrain } from './drain.ts'
import type { ProcessState } from './driver/board-commands.ts'
import type { ProcessReport } from './process.ts'
import type { Stack } from './stack.ts'

/** What a process uses. */
export interface ProcessUsage {
  readonly memoryKib: number
  /** Since the last time that it was asked. */
  readonly cpuPermille: number
}

/** One process, as its main board manages it: what it uses, and how its drain goes. It lives beside the process's driver. */
export class ProcessAccount {
  readonly drain: ProcessDrain
  readonly #stack: Stack
  readonly #processId: number
  readonly #usage: () => ProcessUsage
  #told: ProcessState | null = null

  constructor(stack: Stack, processId: number, usage: () => ProcessUsage) {
    this.drain = new ProcessDrain(stack)
    this.#stack = stack
    this.#processId = processId
    this.#usage = usage
  }

  /** How the process is now. The card is told too, for the Application Information table, if it is not as it was. */
  report(): ProcessReport {
    const usage = this.#usage()
    const state = { processId: this.#processId, ...usage }
    if (this.#told === null || differs(this.#told, state)) {
      this.#told = state
      this.#stack.driver.reportProcess(state)
    }
    return { ...usage, ...this.drain.count() }
  }
}
