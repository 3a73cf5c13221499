import type { DebugCpu, Watchpoint } from '../../../emulator/cpu/index.ts'
import type { BreakpointEntry } from './breakpoints.ts'

/** What an INIC's CPU is to stop at. */
export interface Arms {
  /** Instructions, and who wants to know. */
  readonly pcs: ReadonlyMap<number, readonly BreakpointEntry[]>
  readonly watches: readonly { readonly entry: BreakpointEntry; readonly watchpoint: Watchpoint }[]
}

export const NO_ARMS: Arms = { pcs: new Map(), watches: [] }

/** Breakpoints and watchpoints of one debugged CPU, kept as the session wants them. */
export class Armed {
  readonly cpu: DebugCpu
  #arms: Arms = NO_ARMS
  readonly #pcs = new Set<number>()
  #watches = new Map<number, BreakpointEntry>()

  constructor(cpu: DebugCpu) {
    this.cpu = cpu
  }

  set(arms: Arms): void {
    if (arms === this.#arms) return
    this.#arms = arms
    for (const pc of this.#pcs) {
      if (arms.pcs.has(pc)) continue
      this.cpu.removeBreakpoint(pc)
      this.#pcs.delete(pc)
    }
    for (const pc of arms.pcs.keys()) {
      if (this.#pcs.has(pc)) continue
      this.cpu.addBreakpoint(pc)
      this.#pcs.add(pc)
    }
    for (const id of this.#watches.keys()) this.cpu.removeWatchpoint(id)
    this.#watches = new Map(arms.watches.map(({ entry, watchpoint }) => [this.cpu.addWatchpoint(watchpoint), entry]))
  }

  /** Whose watchpoint that is. */
  watcher(id: number): BreakpointEntry | undefined {
    return this.#watches.get(id)
  }
}
