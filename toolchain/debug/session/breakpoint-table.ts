/** The breakpoints of a session. */
import type { MemoryAccess } from '../values/index.ts'
import type { BreakpointSpec } from './api.ts'
import type { Arms } from './armed.ts'
import { BreakpointEntry } from './breakpoints.ts'
import type { LoadedFirmware } from './inic.ts'
import { enteringAt, explain } from './looking.ts'

/** Code is where these are; the others are met between slices, or watch memory. */
const CODE_KINDS: ReadonlySet<BreakpointSpec['kind']> = new Set(['source', 'function', 'instruction'])

export class BreakpointTable {
  readonly #entries = new Map<number, BreakpointEntry>()
  readonly #byKind = new Map<BreakpointSpec['kind'], readonly BreakpointEntry[]>()
  #next = 1

  get all(): readonly BreakpointEntry[] {
    return [...this.#entries.values()]
  }

  get(id: number): BreakpointEntry | undefined {
    return this.#entries.get(id)
  }

  /** @throws DebugError `expression` */
  add(spec: BreakpointSpec, firmwares: readonly LoadedFirmware[]): BreakpointEntry {
    const entry = new BreakpointEntry(this.#next, spec)
    for (const { values, program } of firmwares) {
      if (spec.condition === undefined) break
      const [pc] = entry.pcs(program)
      explain(() => values.compile(spec.condition!, { pc }))
    }
    this.#next++
    this.#entries.set(entry.id, entry)
    this.#byKind.clear()
    this.locate(entry, firmwares)
    return entry
  }

  remove(id: number): boolean {
    this.#byKind.clear()
    return this.#entries.delete(id)
  }

  clear(): void {
    this.#entries.clear()
    this.#byKind.clear()
  }

  /** Of one kind, whether they are enabled or not. */
  ofKind(kind: BreakpointSpec['kind']): readonly BreakpointEntry[] {
    let entries = this.#byKind.get(kind)
    if (entries === undefined) {
      entries = this.all.filter(({ spec }) => spec.kind === kind)
      this.#byKind.set(kind, entries)
    }
    return entries
  }

  /** Finds where in the code it is. */
  locate(entry: BreakpointEntry, firmwares: readonly LoadedFirmware[]): void {
    if (!CODE_KINDS.has(entry.spec.kind)) return
    entry.places = firmwares.flatMap(({ program }) =>
      entry.pcs(program).map((pc) => {
        const frame = program.frames(pc)[enteringAt(entry, program, pc)]
        return { pc, source: frame?.source ?? program.positionAt(pc), functionName: frame?.name }
      }),
    )
    entry.verified = entry.places.length > 0
    if (entry.verified) delete entry.message
    else entry.message = firmwares.length > 0 ? 'no code is there' : 'no firmware is running yet'
  }

  /** What the CPU of an INIC is to stop at. */
  armsOf(thread: number, firmware: LoadedFirmware, memory: MemoryAccess): Arms {
    const pcs = new Map<number, BreakpointEntry[]>()
    const watches: Arms['watches'][number][] = []
    for (const entry of this.#entries.values()) {
      if (!entry.isOn(thread)) continue
      for (const pc of entry.pcs(firmware.program)) {
        const there = pcs.get(pc)
        if (there === undefined) pcs.set(pc, [entry])
        else there.push(entry)
      }
      const watchpoint = entry.watchpoint(firmware, { memory })
      if (watchpoint !== undefined) watches.push({ entry, watchpoint })
    }
    return { pcs, watches }
  }

  /** Those for exceptions of a kind. */
  exceptions(thread: number, kind: string): BreakpointEntry[] {
    return this.ofKind('exception').filter(
      (entry) => entry.isOn(thread) && entry.spec.kind === 'exception' && (entry.spec.filter ?? kind) === kind,
    )
  }

  /** Those that a frame matches, which `board.port` receives or sends. */
  frames(
    thread: number,
    board: string,
    port: number,
    direction: 'in' | 'out',
    memory: Uint8Array,
    address: number,
    length: number,
  ): BreakpointEntry[] {
    return this.ofKind('frame').filter((entry) => {
      const { spec, filter } = entry
      if (spec.kind !== 'frame' || !entry.isOn(thread)) return false
      if (spec.port !== undefined && spec.port !== board && spec.port !== `${board}.${port}`) return false
      return (spec.direction === undefined || spec.direction === direction) && filter!(memory, address, length)
    })
  }
}
