import { TRACE_HEAD } from '../../abi/registers.ts'
import { type Board, type CrashReport, formatCrash } from '../../emulator/board.ts'
import type { TraceEntry } from '../../emulator/devices/trace.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { FieldValue, Layouts } from '../firmware/layouts.ts'
import { InicMemoryReader, type Row } from '../inspect/inic-memory.ts'
import { macText } from './frames/index.ts'
import type { TestPort } from './test-port.ts'
import { DEFAULT_WITHIN_MS, ExpectationError } from './test-port.ts'

/** Lines of its console that a card keeps. */
const CONSOLE_LINES = 10_000

/** Trace entries that a failed expectation shows. */
const SHOWN_ENTRIES = 20

/** What a trace entry must be. */
export type TraceFilter = Partial<Pick<TraceEntry, 'event' | 'a' | 'b' | 'c'>> | ((entry: TraceEntry) => boolean)

/** What a card needs of its laboratory. */
export interface CardHost {
  /** The test's end of a cable to a MAC port; made when first asked for. */
  portOf(card: VirtualCard, port: number): TestPort
  wait(condition: () => boolean, withinMs: number): Promise<boolean>
  run(ms: number): Promise<unknown>
  close(): Promise<void>
}

/** An INIC in virtual time. */
export class VirtualCard {
  readonly name: string
  readonly board: Board
  /** Lines that the firmware has written, oldest first. */
  readonly console: string[] = []
  /** Cables of its ports, in the order in which they were plugged in. */
  readonly cables: readonly Cable[]
  protected readonly layouts: Layouts
  protected readonly host: CardHost
  /** Entries of the trace ring that `expectTrace` has gone past, free-running. */
  #traced = 0
  /** The crash that the test knows of. */
  #expected: CrashReport | null = null

  constructor(name: string, board: Board, layouts: Layouts, host: CardHost, cables: readonly Cable[] = []) {
    this.name = name
    this.board = board
    this.layouts = layouts
    this.host = host
    this.cables = cables
  }

  /** The test's end of a cable to MAC port `n`: frames injected there arrive at the card, and what the card sends is expected there. */
  port(n: number): TestPort {
    return this.host.portOf(this, n)
  }

  /** The MAC address of port `n`: `02:00:00:00:01:00`. */
  mac(n: number): string {
    return macText(this.board.ports[n]!.address)
  }

  /** Why the firmware stopped, or null. */
  get crash(): CrashReport | null {
    return this.board.crash
  }

  /** A crash that the test has not expected: it fails whatever waits. */
  get unexpectedCrash(): CrashReport | null {
    return this.crash === this.#expected ? null : this.crash
  }

  /**
   * Rows of the table whose class has this name, that are in use: those whose field `inUse` is not 0, or all if the class has no such field.
   *
   * @throws RangeError if the firmware keeps no such table (firmware/mem/directory.ts)
   */
  table(className: string): Record<string, FieldValue>[] {
    return readTable(this.memory(), className, this.name)
  }

  /** Rows of a table of INIC memory by its number, DIRECTORY_* of abi/memory.ts; those that are not in use too. */
  rows(kind: number): Row[] {
    return [...this.memory().rows(kind)]
  }

  /** INIC memory by the firmware's class layouts. @throws Error while the card is off */
  memory(): InicMemoryReader {
    const { memory } = this.board
    if (memory === null) throw new Error(`${this.name} is off`)
    const { bytes } = memory
    return new InicMemoryReader(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), this.layouts)
  }

  /** A register, by its offset (abi/registers.ts). */
  register(offset: number): number {
    return this.board.memory!.register(offset)
  }

  /** The newest entries of the trace ring, oldest first. */
  trace(maximum = 64): TraceEntry[] {
    return this.board.trace(maximum)
  }

  /**
   * The next entry of the trace ring that fits, counted from the last one that was expected; entries before it are passed over.
   *
   * @param filter numbers that the entry must have, or a function of it
   * @throws ExpectationError that shows the entries that came
   */
  async expectTrace(filter: TraceFilter, withinMs = DEFAULT_WITHIN_MS): Promise<TraceEntry> {
    const fits = typeof filter === 'function' ? filter : (entry: TraceEntry) => hasAll(entry, filter)
    const from = this.#traced
    let found: TraceEntry | undefined
    await this.host.wait(() => {
      if (found !== undefined) return true
      const head = this.board.memory?.register(TRACE_HEAD) ?? this.#traced
      const fresh = head === this.#traced ? [] : this.board.trace((head - this.#traced) >>> 0)
      const index = fresh.findIndex(fits)
      found = fresh[index]
      // What was overwritten before anybody looked is passed over too.
      this.#traced = found === undefined ? head : (head - fresh.length + index + 1) >>> 0
      return found !== undefined
    }, withinMs)
    if (found !== undefined) return found
    const came = this.board.trace((this.#traced - from) >>> 0).slice(-SHOWN_ENTRIES)
    const lines = came.map(({ timeNs, text }) => `  ${(timeNs / 1e6).toFixed(3)} ms ${text}`)
    throw new ExpectationError(
      [`${this.name}: no such trace entry within ${withinMs} ms. What came:`, ...lines].join('\n'),
    )
  }

  /** The next line on the console that fits, counted from its first. @throws ExpectationError that shows the console */
  async expectConsole(pattern: RegExp | string, withinMs = DEFAULT_WITHIN_MS): Promise<string> {
    const fits = (line: string) => (typeof pattern === 'string' ? line.includes(pattern) : pattern.test(line))
    await this.host.wait(() => this.console.some(fits), withinMs)
    const found = this.console.find(fits)
    if (found !== undefined) return found
    const lines = this.console.slice(-20).map((line) => `  ${line}`)
    throw new ExpectationError(
      [`${this.name}: nothing like ${pattern} on its console within ${withinMs} ms. What was:`, ...lines].join('\n'),
    )
  }

  /** The firmware stops, as it is meant to. @throws ExpectationError if it goes on */
  async expectCrash(withinMs = DEFAULT_WITHIN_MS): Promise<CrashReport> {
    const before = this.#expected
    // Whatever comes is expected from now on, or waiting for it would fail.
    const seen = () => {
      this.#expected = this.crash
      return this.crash !== null && this.crash !== before
    }
    if (await this.host.wait(seen, withinMs)) return this.crash!
    throw new ExpectationError(`${this.name}: its firmware has not stopped within ${withinMs} ms`)
  }

  /** Lets so much virtual time pass. */
  run(ms: number): Promise<unknown> {
    return this.host.run(ms)
  }

  /** Ends the laboratory that the card is in. */
  close(): Promise<void> {
    return this.host.close()
  }

  /** Keeps a line of the console; the laboratory's. */
  hear(line: string): void {
    if (this.console.length === CONSOLE_LINES) this.console.shift()
    this.console.push(line)
  }
}

function hasAll(entry: TraceEntry, numbers: Exclude<TraceFilter, (...values: never) => unknown>): boolean {
  return Object.entries(numbers).every(([name, value]) => entry[name as keyof TraceEntry] === value)
}

/** Rows in use of a table. @param name of the card, for the error @throws RangeError if it keeps no such table */
export function readTable(memory: InicMemoryReader, className: string, name: string): Record<string, FieldValue>[] {
  const entry = memory.entryOf(className)
  if (entry === undefined) {
    const known = memory.entries.flatMap((other) => (other.className === undefined ? [] : [other.className]))
    throw new RangeError(`${name} keeps no table of ${className}; it has: ${known.join(', ') || 'none'}`)
  }
  return [...memory.rows(entry.kind)]
    .filter((row) => row.get('inUse') === undefined || row.number('inUse') !== 0)
    .map((row) => Object.fromEntries(row.entries()))
}

/** The crash report of a card, as people read it. */
export function describeCrash(report: CrashReport): string {
  return formatCrash(report).join('\n')
}
