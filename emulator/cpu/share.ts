/** What CPUs over the same INIC memory have in common. */

import type { CpuFault } from './cpu.ts'

/** INIC memory and why its firmware is stopped, held by one CPU or by a CPU and its debugged twin. */
export class MemoryShare {
  readonly memory: ArrayBuffer
  /** Kept by the addon until asked for. Null: not asked for yet, or there is none. */
  fault: CpuFault | null = null
  #users = 0

  constructor(memory: ArrayBuffer) {
    this.memory = memory
  }

  join(): void {
    this.#users++
  }

  /** One user less. Returns the buffer to detach with the last of them. */
  leave(): ArrayBuffer | undefined {
    this.#users--
    return this.#users === 0 ? this.memory : undefined
  }
}
