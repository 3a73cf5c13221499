/**
 * A front end's breakpoints by numbers of its own: the engine's ids change when a condition is changed, or when the farm is
 * started again; a person's numbers do not.
 */
import type { Breakpoint, BreakpointSpec, SessionApi } from '../session/api.ts'

export interface BookEntry {
  readonly number: number
  spec: BreakpointSpec
  /** The engine's own. */
  breakpoint: Breakpoint
  /** Hits before the engine's breakpoint was replaced. */
  hitsBefore: number
}

export class BreakpointBook {
  #session: SessionApi
  readonly #entries = new Map<number, BookEntry>()
  #last = 0

  /** What the session has already is taken in. */
  constructor(session: SessionApi) {
    this.#session = session
    this.#adopt()
  }

  get entries(): readonly BookEntry[] {
    return [...this.#entries.values()]
  }

  get(number: number): BookEntry | undefined {
    return this.#entries.get(number)
  }

  /** @throws DebugError `expression` */
  add(spec: BreakpointSpec): BookEntry {
    const breakpoint = this.#session.addBreakpoint(spec)
    const entry = { number: ++this.#last, spec, breakpoint, hitsBefore: 0 }
    this.#entries.set(entry.number, entry)
    return entry
  }

  /** Changes what a breakpoint is, and keeps its number. @throws DebugError `expression`; then it is as it was */
  replace(entry: BookEntry, spec: BreakpointSpec): void {
    const breakpoint = this.#session.addBreakpoint(spec)
    const { id, enabled, hits } = entry.breakpoint
    this.#session.removeBreakpoint(id)
    if (!enabled) this.#session.setEnabled(breakpoint.id, false)
    entry.spec = spec
    entry.breakpoint = breakpoint
    entry.hitsBefore += hits
  }

  remove(entry: BookEntry): void {
    this.#session.removeBreakpoint(entry.breakpoint.id)
    this.#entries.delete(entry.number)
  }

  setEnabled(entry: BookEntry, enabled: boolean): void {
    this.#session.setEnabled(entry.breakpoint.id, enabled)
  }

  /** The entry behind one of the engine's ids. */
  byEngineId(id: number): BookEntry | undefined {
    return this.entries.find(({ breakpoint }) => breakpoint.id === id)
  }

  /** The engine has changed it, or has taken it away by itself; gives its entry. */
  update(breakpoint: Breakpoint, change: 'changed' | 'removed'): BookEntry | undefined {
    const entry = this.byEngineId(breakpoint.id)
    if (entry === undefined) return undefined
    entry.breakpoint = breakpoint
    if (change === 'removed') this.#entries.delete(entry.number)
    return entry
  }

  /** Puts everything into another session, with the same numbers. */
  moveTo(session: SessionApi): void {
    this.#session = session
    for (const { id } of [...session.breakpoints]) session.removeBreakpoint(id)
    for (const entry of this.#entries.values()) {
      const { enabled } = entry.breakpoint
      entry.breakpoint = session.addBreakpoint(entry.spec)
      entry.hitsBefore = 0
      if (!enabled) session.setEnabled(entry.breakpoint.id, false)
    }
  }

  #adopt(): void {
    for (const breakpoint of this.#session.breakpoints) {
      const entry = { number: ++this.#last, spec: breakpoint.spec, breakpoint, hitsBefore: 0 }
      this.#entries.set(entry.number, entry)
    }
  }
}

/** `firmware/tcp/input.ts:90`, `tcpInput`, `frame tcp.flags.syn`: as the REPL's `break` takes it. */
export function describeSpec(spec: BreakpointSpec): string {
  switch (spec.kind) {
    case 'source':
      return `${spec.file}:${spec.line}${spec.column === undefined ? '' : `:${spec.column}`}`
    case 'function':
      return spec.name
    case 'instruction':
      return `*0x${spec.pc.toString(16)}`
    case 'watch':
      return spec.expression
    case 'frame':
      return words('frame', spec.filter, spec.direction, spec.port && `on ${spec.port}`)
    case 'tcp-state':
      return `state ${spec.from ?? 'any'} -> ${spec.to ?? 'any'}`
    case 'row':
      return words('row', spec.table, spec.event)
    case 'console':
      return `console ${spec.text}`
    case 'interrupt':
      return words('irq', spec.line)
    case 'exception':
      return words('exception', spec.filter)
  }
}

function words(...parts: readonly (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== '').join(' ')
}
