import { resolve } from 'node:path'
import { Writable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import type { Bus, HostClock } from '../abi/bus.ts'
import { createDgram, type Dgram } from './dgram.ts'
import { Driver } from './driver/driver.ts'
import { createNet, type Net } from './net.ts'
import { LineSplitter } from './output.ts'
import type { HostedProcess, ProcessExit, ProcessReport, ProcessSettings } from './process.ts'
import { ProcessAccount, type ProcessUsage } from './process-account.ts'
import { NO_REFERENCES, nameTable, type Stack } from './stack.ts'

/** Time of the board, as programs know it: milliseconds for timers. */
export interface BoardClock {
  /** Nanoseconds since the farm was switched on. */
  now(): number
  setTimeout(callback: () => void, delayMs: number): number
  setInterval(callback: () => void, periodMs: number): number
  clear(handle: number): void
  sleep(delayMs: number): Promise<void>
}

/** What a board program is given; it has nothing else to reach the world with. */
export interface BoardApi {
  readonly name: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly net: Net
  readonly dgram: Dgram
  /** Servers of the farm that connections can move to, and the IPv4 address that names each. */
  readonly servers: Readonly<Record<string, string>>
  readonly clock: BoardClock
  /** The next number in [0, 1), the same in every run with the same seed. */
  readonly random: () => number
  readonly console: Console
  /** Aborted when the program is asked to end. */
  readonly signal: AbortSignal
  /** Ends the program. */
  exit(code?: number): void
}

/** `export function main(board)`; it may be async. The program runs until it exits, fails or is stopped, not until `main` returns. */
export interface BoardModule {
  main(board: BoardApi): unknown
}

export interface BoardProgramSettings extends Omit<ProcessSettings, 'program'> {
  /** A module, or the path of one. */
  readonly program: string | BoardModule
  readonly random: () => number
}

// TypeScript 7 does not see the member through the merged declarations of @types/node.
const ConsoleClass = (
  console as unknown as { Console: new (streams: { stdout: Writable; stderr: Writable }) => Console }
).Console

const DRAIN_ROUND_NS = 1e6
const DRAIN_ROUNDS = 250

/**
 * Runs a board program on this thread, on `bus` and `clock`. What it throws in `main`, in a timer, or where the card calls it, ends it alone;
 * what it throws in a tick of Node's or in a promise of its own reaches this process as an uncaught exception.
 */
export function startBoardProgram(bus: Bus, clock: HostClock, settings: BoardProgramSettings): HostedProcess {
  const program = new BoardProgram(bus, clock, settings)
  program.start()
  return program
}

class BoardProgram implements HostedProcess {
  readonly name: string
  readonly exited: Promise<ProcessExit>
  readonly #settings: BoardProgramSettings
  readonly #clock: HostClock
  readonly #driver: Driver
  readonly #board: BoardApi
  readonly #abort = new AbortController()
  readonly #splitters: LineSplitter[]
  readonly #timers = new Set<number>()
  /** Intervals: the handle of the first turn names them all, and stands for that of the next. */
  readonly #repeats = new Map<number, number>()
  readonly #account: ProcessAccount
  #exit!: (exit: ProcessExit) => void
  #ended = false
  /** Set once somebody wants to know how busy it is: when that was, and how long it has been at work since. */
  #busy: { sinceNs: number; ns: number } | null = null

  constructor(bus: Bus, clock: HostClock, settings: BoardProgramSettings) {
    this.name = settings.name
    this.#settings = settings
    this.#clock = clock
    this.exited = new Promise((done) => {
      this.#exit = done
    })
    const guarded: Bus = {
      ram: bus.ram,
      read: (register) => bus.read(register),
      write: (register, value) => bus.write(register, value),
      onInterrupt: (handler) => bus.onInterrupt(() => this.#run(handler)),
    }
    this.#driver = new Driver(guarded, { processId: settings.processId ?? 0, onFault: (error) => this.#end(1, error) })
    const stack: Stack = {
      driver: this.#driver,
      clock: {
        now: () => clock.now(),
        schedule: (delayNs, callback) => this.#schedule(delayNs, callback),
        clear: (handle) => this.#clear(handle),
      },
      hosts: nameTable(settings.hosts),
      servers: nameTable(settings.servers),
      references: NO_REFERENCES,
      ...(settings.firstSpeakers === undefined ? {} : { firstSpeakers: settings.firstSpeakers }),
    }
    this.#account = new ProcessAccount(stack, settings.processId ?? 0, () => this.#usage())
    this.#splitters = (['stdout', 'stderr'] as const).map(
      (stream) => new LineSplitter((line) => settings.output?.(line, stream)),
    )
    const [stdout, stderr] = this.#splitters.map(
      (splitter) =>
        new Writable({
          decodeStrings: false,
          write(chunk, _encoding, done) {
            splitter.write(String(chunk))
            done()
          },
        }),
    )
    this.#board = {
      name: settings.name,
      args: settings.args ?? [],
      env: settings.env ?? {},
      net: createNet(stack),
      dgram: createDgram(stack),
      servers: settings.servers ?? {},
      clock: {
        now: () => clock.now(),
        setTimeout: (callback, delayMs) => this.#schedule(delayMs * 1e6, callback),
        setInterval: (callback, periodMs) => this.#repeat(periodMs * 1e6, callback),
        clear: (handle) => this.#clear(handle),
        sleep: (delayMs) => new Promise((wake) => this.#schedule(delayMs * 1e6, wake)),
      },
      random: settings.random,
      console: new ConsoleClass({ stdout: stdout!, stderr: stderr! }),
      signal: this.#abort.signal,
      exit: (code = 0) => this.#end(code, null),
    }
  }

  start(): void {
    void this.#main()
  }

  async #main(): Promise<void> {
    try {
      const { program } = this.#settings
      const module =
        typeof program === 'string' ? ((await import(programUrl(program))) as Partial<BoardModule>) : program
      if (typeof module.main !== 'function')
        throw new Error(`The board program of ${this.name} exports no function main(board): ${String(program)}`)
      if (!this.#ended) await module.main(this.#board)
    } catch (error) {
      this.#fail(error)
    }
  }

  stop(graceMs = 0): Promise<ProcessExit> {
    if (!this.#ended) {
      this.#run(() => this.#abort.abort())
      if (graceMs === 0) this.#end(0, null)
      else this.#clock.schedule(graceMs * 1e6, () => this.#end(0, null))
    }
    return this.exited
  }

  drain(to?: string): void {
    this.#run(() => this.#account.drain.begin(to))
  }

  endDrain(): void {
    this.#account.drain.end()
  }

  async report(): Promise<ProcessReport | undefined> {
    return this.#ended ? undefined : this.#account.report()
  }

  /** Runs code of the program; what it throws is its end. */
  #run(callback: () => void): void {
    if (this.#ended) return
    const startNs = this.#busy === null ? 0 : this.#clock.now()
    try {
      callback()
    } catch (error) {
      this.#fail(error)
    }
    if (this.#busy !== null && startNs > 0) this.#busy.ns += this.#clock.now() - startNs
  }

  /** It shares its heap with the farm. On the farm's clock no time passes while it works, if that is virtual. */
  #usage(): ProcessUsage {
    const nowNs = this.#clock.now()
    const { sinceNs, ns } = this.#busy ?? { sinceNs: nowNs, ns: 0 }
    this.#busy = { sinceNs: nowNs, ns: 0 }
    const cpuPermille = nowNs > sinceNs ? Math.min(1000, Math.round((ns * 1000) / (nowNs - sinceNs))) : 0
    return { memoryKib: 0, cpuPermille }
  }

  #schedule(delayNs: number, callback: () => void): number {
    const handle = this.#clock.schedule(delayNs, () => {
      this.#timers.delete(handle)
      this.#run(callback)
    })
    this.#timers.add(handle)
    return handle
  }

  #repeat(periodNs: number, callback: () => void): number {
    const turn = () => {
      this.#repeats.set(first, this.#clock.schedule(periodNs, turn))
      this.#run(callback)
    }
    const first = this.#clock.schedule(periodNs, turn)
    this.#repeats.set(first, first)
    return first
  }

  #clear(handle: number): void {
    this.#clock.clear(this.#repeats.get(handle) ?? handle)
    this.#repeats.delete(handle)
    this.#timers.delete(handle)
  }

  #fail(error: unknown): void {
    this.#end(1, error instanceof Error ? error : new Error(`Uncaught ${String(error)}`))
  }

  #end(code: number, error: Error | null): void {
    if (this.#ended) return
    this.#ended = true
    this.#account.drain.end()
    for (const handle of this.#timers) this.#clock.clear(handle)
    for (const handle of this.#repeats.values()) this.#clock.clear(handle)
    for (const splitter of this.#splitters) splitter.end()
    this.#leave({ code, error }, DRAIN_ROUNDS)
  }

  /** What the program sent just before its end still leaves the main board, if the card takes it in time. */
  #leave(exit: ProcessExit, rounds: number): void {
    if (rounds > 0 && !this.#driver.drained) {
      this.#clock.schedule(DRAIN_ROUND_NS, () => this.#leave(exit, rounds - 1))
      return
    }
    this.#driver.close()
    this.#exit(exit)
  }
}

function programUrl(program: string): string {
  return program.startsWith('file:') ? program : pathToFileURL(resolve(program)).href
}
