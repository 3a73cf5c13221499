import { EventEmitter } from 'node:events'
import {
  Board,
  type BoardHost,
  type BoardOptions,
  type BoardStatistics,
  type CrashReport,
  type Profile,
} from './board.ts'
import { wallEpochNs, wallNs } from './clock.ts'
import { countFolder } from './count-folder.ts'
import type { CountSink } from './cpu/index.ts'
import { Cable, type Direction } from './link/cable.ts'
import type { Alarm, LinkHost, LinkStatistics, Port } from './link/link.ts'
import { Switch, type SwitchOptions, type SwitchStatistics } from './link/switch.ts'
import type { WireOptions } from './link/wire.ts'
import type { Loop, RunResult } from './loop.ts'
import type { InterruptLine } from './process.ts'
import { RandomSource, type RandomStream, unpredictableSeed } from './random.ts'
import { RealLoop } from './real-loop.ts'
import { Router, type RouterOptions, type RouterStatistics } from './router/router.ts'
import type { Supervisor } from './supervisor.ts'
import { VirtualLoop } from './virtual-loop.ts'

export type { RunResult } from './loop.ts'

const DEFAULT_SLICE_NS = 1000
const DEFAULT_HOST_LATENCY_NS = 1000

export interface FarmOptions {
  /** Default 'real'. */
  clock?: 'real' | 'virtual'
  /** Everything random in the farm follows from it. Default: 'inic' in virtual time, one that nobody can guess in real time. */
  seed?: string
  /** Virtual time: a slice lasts its fuel × 1e9 / clockHz, which needs Wasmtime; otherwise `sliceNs`. Default false. */
  countFuel?: boolean
  /** Virtual time that a slice takes when fuel is not counted, nanoseconds. Default 1000. */
  sliceNs?: number
  /** Virtual time from an interrupt to the driver's handler, nanoseconds. Default 1000. */
  hostLatencyNs?: number
}

export interface FarmStatistics {
  nowNs: number
  boards: Record<string, BoardStatistics>
  switches: Record<string, SwitchStatistics>
  routers: Record<string, RouterStatistics>
  cables: Record<string, Record<Direction, LinkStatistics>>
}

interface FarmEvents {
  /** A line on a board's console. */
  console: [board: Board, line: string]
  /** A board stopped; the rest of the farm goes on. */
  crash: [board: Board, report: CrashReport]
}

/** Something that the farm closes when it stops: a stream, a TAP interface, a capture. */
export interface Closable {
  close(): void | Promise<void>
}

/** Boards, what joins them, and the clock that drives it all. */
export class Farm extends EventEmitter<FarmEvents> implements BoardHost, LinkHost {
  readonly virtual: boolean
  readonly boards: ReadonlyMap<string, Board>
  readonly switches: ReadonlyMap<string, Switch>
  readonly routers: ReadonlyMap<string, Router>
  readonly cables: ReadonlyMap<string, Cable>
  /** A recorder or debugger; to be set between slices. */
  supervisor: Supervisor | null = null
  readonly counts: CountSink | null
  readonly #boards = new Map<string, Board>()
  readonly #switches = new Map<string, Switch>()
  readonly #routers = new Map<string, Router>()
  readonly #cables = new Map<string, Cable>()
  readonly #closables = new Set<Closable>()
  readonly #random: RandomSource
  readonly #loop: Loop

  /** Throws RangeError for a time that is no number of nanoseconds. */
  constructor(options: FarmOptions = {}) {
    super()
    const {
      clock = 'real',
      countFuel = false,
      sliceNs = DEFAULT_SLICE_NS,
      hostLatencyNs = DEFAULT_HOST_LATENCY_NS,
    } = options
    for (const [name, value] of Object.entries({ sliceNs, hostLatencyNs })) {
      if (!Number.isInteger(value) || value < 0)
        throw new RangeError(`${name} is ${value}: not a whole number of nanoseconds.`)
    }
    this.virtual = clock === 'virtual'
    // In real time whoever waits for a board would wait too long.
    this.counts = this.virtual ? countFolder() : null
    this.boards = this.#boards
    this.switches = this.#switches
    this.routers = this.#routers
    this.cables = this.#cables
    this.#random = new RandomSource(options.seed ?? (this.virtual ? 'inic' : unpredictableSeed()))
    this.#loop = this.virtual ? new VirtualLoop({ countFuel, sliceNs, hostLatencyNs }) : new RealLoop()
  }

  // ── building ──

  /** A board, switched off. Throws RangeError for a name that is taken. */
  addBoard(name: string, options: BoardOptions = {}): Board {
    if (this.#boards.has(name)) throw new RangeError(`The farm has a board ${name} already.`)
    const board = new Board(name, this.#boards.size + 1, options, this)
    this.#boards.set(name, board)
    return board
  }

  /** A learning switch. Throws RangeError for a name that is taken. */
  addSwitch(name: string, options: SwitchOptions = {}): Switch {
    if (this.#switches.has(name)) throw new RangeError(`The farm has a switch ${name} already.`)
    const added = new Switch(name, options)
    this.#switches.set(name, added)
    return added
  }

  /** An IPv4 router. Throws RangeError for a name that is taken, and for interfaces or routes that cannot be meant. */
  addRouter(name: string, options: RouterOptions): Router {
    if (this.#routers.has(name)) throw new RangeError(`The farm has a router ${name} already.`)
    const router = new Router(name, this, options)
    this.#routers.set(name, router)
    return router
  }

  /** Plugs a cable into two ports. Throws RangeError if one has a cable, or if the name (default `a-b`) is taken. */
  connect(a: Port, b: Port, options: { name?: string; wire?: WireOptions } = {}): Cable {
    const { name = `${a.name}-${b.name}`, wire } = options
    if (this.#cables.has(name)) throw new RangeError(`The farm has a cable ${name} already.`)
    for (const cable of this.#cables.values()) {
      for (const port of [a, b])
        if (cable.a === port || cable.b === port)
          throw new RangeError(`Port ${port.name} is plugged into cable ${cable.name} already.`)
    }
    if (a === b) throw new RangeError(`Port ${a.name} cannot be joined to itself.`)
    const cable = new Cable(name, a, b, this, this.#random)
    if (wire !== undefined) cable.impair(wire)
    this.#cables.set(name, cable)
    return cable
  }

  /** Takes a cable away. */
  disconnect(cable: Cable): void {
    if (!this.#cables.delete(cable.name)) return
    cable.unplug()
  }

  /** Closes `closable` when the farm stops. */
  own<T extends Closable>(closable: T): T {
    this.#closables.add(closable)
    return closable
  }

  /** A random stream that follows from the farm's seed and `name`; for host code and tests. */
  randomStream(name: string): RandomStream {
    return this.#random.stream(name)
  }

  // ── running ──

  /** Nanoseconds since the farm was made. */
  now(): number {
    return this.#loop.now()
  }

  /** Nanoseconds since 1970 at which `now` was 0; 0 in virtual time. For captures. */
  get epochNs(): bigint {
    return this.virtual ? 0n : wallEpochNs() + BigInt(wallNs() - this.now())
  }

  /** Runs until `stop`. */
  start(): void {
    this.#loop.start()
  }

  /** Stops the clock, then closes what the farm owns. Boards stay as they are. */
  async stop(): Promise<void> {
    await this.#loop.stop()
    const closables = [...this.#closables]
    this.#closables.clear()
    for (const closable of closables) await closable.close()
  }

  /**
   * Runs until the clock shows `until` nanoseconds, or the condition holds, or in virtual time nothing is left to happen. In real time it
   * starts the farm if need be, and stops the clock again if it did.
   */
  run(until: number | (() => boolean)): Promise<RunResult> {
    return this.#loop.run(until)
  }

  /** Nothing happens any more and the clock stands still, until `resume`. Between two slices at once, else at the end of the slice. */
  halt(): void {
    this.#loop.halt()
  }

  /** Goes on after `halt`. Boards that were halted in mid-slice have come to its end, by `proceed`. */
  resume(): void {
    this.#loop.resume()
  }

  /** A board's firmware has returned from the call in which it was halted, with what `poll` gives; 0 for `reset`. */
  proceed(board: Board, delayUs: number): void {
    board.proceed(delayUs)
    this.#loop.proceed(board)
  }

  /** Whether a farm that runs in real time keeps the process alive; it does unless told otherwise. */
  ref(): this {
    this.#loop.setRef(true)
    return this
  }

  /** The opposite of `ref`. */
  unref(): this {
    this.#loop.setRef(false)
    return this
  }

  statistics(): FarmStatistics {
    const each = <V>(map: Map<string, { statistics(): V }>): Record<string, V> =>
      Object.fromEntries([...map].map(([name, thing]) => [name, thing.statistics()]))
    return {
      nowNs: this.now(),
      boards: each(this.#boards),
      switches: each(this.#switches),
      routers: each(this.#routers),
      cables: each(this.#cables),
    }
  }

  /** Switches profiling on, from zero, or off. It costs several readings of the clock a slice. */
  setProfiling(on: boolean): void {
    this.#loop.profile = on ? { firmwareNs: 0, linkNs: 0, dmaNs: 0, hostNs: 0, slices: 0 } : null
  }

  /** What was measured since profiling was switched on; null while it is off. */
  get profile(): Profile | null {
    return this.#loop.profile
  }

  // ── for boards and links ──

  setAlarm(alarm: Alarm, dueNs: number): void {
    this.#loop.setAlarm(alarm, dueNs)
  }

  clearAlarm(alarm: Alarm): void {
    this.#loop.clearAlarm(alarm)
  }

  wake(): void {
    this.#loop.wake()
  }

  ready(board: Board): void {
    this.#loop.ready(board)
  }

  due(board: Board): void {
    this.#loop.due(board)
  }

  halted(_board: Board): void {
    this.#loop.halt()
  }

  interrupt(line: InterruptLine): void {
    this.#loop.interrupt(line)
  }

  callHost(callback: () => void): void {
    this.#loop.hostRan()
    try {
      callback()
    } catch (error) {
      // It is the host program's error, not the farm's: it surfaces as it would out of any event handler.
      queueMicrotask(() => {
        throw error
      })
    }
  }

  consoleLine(board: Board, line: string): void {
    this.supervisor?.consoleLine(board, line)
    if (this.listenerCount('console') > 0) this.#tell(() => this.emit('console', board, line))
  }

  crashed(board: Board, report: CrashReport): void {
    this.#tell(() => this.emit('crash', board, report))
  }

  seedBytes(name: string): Uint8Array {
    return this.#random.bytes(name)
  }

  /** Calls listeners once the slice is over: they may switch boards off and on. */
  #tell(listener: () => void): void {
    this.#loop.hostRan()
    queueMicrotask(listener)
  }
}
