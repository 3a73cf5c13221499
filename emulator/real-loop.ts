import { nextTick } from 'node:process'
import { clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } from 'node:timers'
import type { Board, Profile } from './board.ts'
import { AlarmQueue, NO_TIME, wallNs } from './clock.ts'
import type { Alarm } from './link/link.ts'
import type { Loop, RunResult } from './loop.ts'
import type { InterruptLine } from './process.ts'

/** Slices in one turn of the event loop, before sockets and timers of the process get theirs. */
const SLICES_PER_TURN = 256
/** Time in one turn of the event loop, nanoseconds. */
const TURN_NS = 1e6
/**
 * Rounds of interrupt handlers in one turn, while boards have work, before the ticks and microtasks that the handlers left. They
 * see what they would see if one interrupt had brought it all.
 */
const HOST_ROUNDS_PER_TURN = 32
/**
 * Slices from one look at the clock to the next within a turn, a power of two: a look costs as much as a tenth of a slice. What they do in
 * between bears one time.
 */
const SLICES_PER_LOOK = 4
/** A wire's frame due in less than this is waited for actively, nanoseconds: timers of the event loop count milliseconds. */
const SPIN_NS = 1e6
/** Longest sleep, milliseconds: what a timer of Node.js can hold. */
const LONGEST_SLEEP_MS = 0x7fffffff
/** How often `run` looks at its condition while nothing happens, milliseconds. */
const CONDITION_POLL_MS = 1

/** A call of `run` that has not come back. */
interface Waiter {
  until: number | (() => boolean)
  timer: NodeJS.Timeout
  resolve(result: RunResult): void
  reject(error: unknown): void
}

/**
 * Real time: slices run as soon as there is work, and the process sleeps where there is none.
 *
 *     asleep ──work──▶ scheduled ──tick──▶ turn: rounds of { alarms due, each ready board once, interrupt handlers }
 *       ▲                  ▲                 │ handlers ran: their ticks and microtasks first
 *       └── nothing ───────┴── setImmediate ─┘ after SLICES_PER_TURN or TURN_NS
 */
export class RealLoop implements Loop {
  profile: Profile | null = null
  readonly #alarms = new AlarmQueue()
  /** When the clock showed 0. Moves on by the time that the farm was halted. */
  #originNs = wallNs()
  /** The time at which the clock stands; Infinity while it runs. */
  #haltedNs = Number.POSITIVE_INFINITY
  #nowNs = NO_TIME
  #started = false
  /** A call of #turn is on its way. */
  #scheduled = false
  /** #turn is on the stack. */
  #turning = false
  #hostRan = false
  /** When host code was let run, nanoseconds; Infinity = it was not. */
  #hostSinceNs = Number.POSITIVE_INFINITY

  // Boards and lines that wait, each at most once: rings of bounded length, grown as boards are added.
  #boards: (Board | null)[] = new Array(16).fill(null)
  #boardHead = 0
  #boardTail = 0
  #lines: (InterruptLine | null)[] = []
  #linesBeingServed: (InterruptLine | null)[] = []
  /** How many of #lines wait: to shorten an array costs more than to serve a line. */
  #lineCount = 0

  // What is left of this turn of the event loop.
  #slicesLeft = SLICES_PER_TURN
  #nsLeft = TURN_NS

  #timeout: NodeJS.Timeout | null = null
  #timeoutNs = Number.POSITIVE_INFINITY
  /** Keeps the process alive while the farm runs. */
  #anchor: NodeJS.Timeout | null = null
  #ref = true
  readonly #waiters = new Set<Waiter>()

  readonly #turn = (): void => this.#runTurn()
  readonly #freshTurn = (): void => {
    this.#slicesLeft = SLICES_PER_TURN
    this.#nsLeft = TURN_NS
    this.#runTurn()
  }
  readonly #timedTurn = (): void => {
    this.#timeout = null
    this.#timeoutNs = Number.POSITIVE_INFINITY
    this.#freshTurn()
  }
  readonly #tick = (): void => nextTick(this.#turn)
  readonly #resolved = Promise.resolve()

  now(): number {
    // Inside a turn time was read a moment ago; host code asks for the true one.
    return this.#turning ? this.#nowNs : this.#readClock()
  }

  setAlarm(alarm: Alarm, dueNs: number): void {
    this.#alarms.set(alarm, dueNs)
    if (!this.#turning) this.#sleep()
  }

  clearAlarm(alarm: Alarm): void {
    this.#alarms.clear(alarm)
  }

  ready(board: Board): void {
    this.#requeue(board)
    this.wake()
  }

  due(board: Board): void {
    if (!board.queued) this.#requeue(board)
  }

  interrupt(line: InterruptLine): void {
    this.#lines[this.#lineCount++] = line
    this.wake()
  }

  wake(): void {
    if (this.#scheduled || this.#turning || !this.#started || this.#halted) return
    this.#scheduled = true
    if (this.#slicesLeft > 0 && this.#nsLeft > 0) nextTick(this.#turn)
    else setImmediate(this.#freshTurn)
  }

  hostRan(): void {
    this.#hostRan = true
  }

  start(): void {
    if (this.#started) return
    this.#started = true
    this.#anchor = setInterval(() => {}, LONGEST_SLEEP_MS)
    if (!this.#ref) this.#anchor.unref()
    this.wake()
  }

  setRef(ref: boolean): void {
    this.#ref = ref
    for (const timer of [this.#anchor, this.#timeout]) {
      if (ref) timer?.ref()
      else timer?.unref()
    }
  }

  get #halted(): boolean {
    return this.#haltedNs !== Number.POSITIVE_INFINITY
  }

  halt(): void {
    if (!this.#halted) this.#haltedNs = this.now()
  }

  resume(): void {
    if (!this.#halted) return
    this.#originNs = wallNs() - this.#haltedNs
    this.#haltedNs = Number.POSITIVE_INFINITY
    this.wake()
  }

  proceed(board: Board): void {
    const nowNs = this.now()
    board.finish(nowNs)
    if (board.pending(nowNs)) this.#requeue(board)
    else this.#rest(board)
  }

  async stop(): Promise<void> {
    this.#started = false
    this.#haltedNs = Number.POSITIVE_INFINITY
    if (this.#anchor !== null) clearInterval(this.#anchor)
    if (this.#timeout !== null) clearTimeout(this.#timeout)
    this.#anchor = this.#timeout = null
    this.#timeoutNs = Number.POSITIVE_INFINITY
    for (const waiter of this.#waiters) waiter.resolve('stopped')
  }

  run(until: number | (() => boolean)): Promise<RunResult> {
    const startedHere = !this.#started
    this.start()
    return new Promise<RunResult>((resolve, reject) => {
      const waiter: Waiter = {
        until,
        timer: setInterval(() => this.#check(waiter), CONDITION_POLL_MS),
        resolve: (result) => {
          this.#waiters.delete(waiter)
          clearInterval(waiter.timer)
          if (startedHere && this.#waiters.size === 0) void this.stop()
          resolve(result)
        },
        reject: (error) => {
          reject(error)
          waiter.resolve('stopped')
        },
      }
      this.#waiters.add(waiter)
      this.#check(waiter)
    })
  }

  #readClock(): number {
    return this.#halted ? this.#haltedNs : wallNs() - this.#originNs
  }

  #runTurn(): void {
    this.#scheduled = false
    if (!this.#started || this.#turning || this.#halted) return
    const startNs = this.#readClock()
    if (this.#hostSinceNs !== Number.POSITIVE_INFINITY) this.#accountHost(startNs)
    if (this.#slicesLeft <= 0 || this.#nsLeft <= 0) {
      this.#scheduled = true
      setImmediate(this.#freshTurn)
      return
    }
    this.#hostRan = false
    this.#turning = true
    try {
      this.#runRounds(startNs)
    } finally {
      this.#turning = false
    }
    const nowNs = this.#readClock()
    this.#nsLeft -= nowNs - startNs
    for (const waiter of this.#waiters) this.#check(waiter)
    if (!this.#started || this.#halted) return
    if (this.#hostRan) {
      this.#hostSinceNs = nowNs
      this.#scheduled = true
      // A microtask runs after the ticks that the handlers left, the tick that it asks for after the microtasks. Both together
      // cost a quarter of a setImmediate.
      void this.#resolved.then(this.#tick)
    } else if (this.#boardHead !== this.#boardTail || this.#alarms.dueNs <= nowNs) {
      this.#scheduled = true
      setImmediate(this.#freshTurn)
    } else this.#sleep()
  }

  /** Runs rounds until nothing is left to do, host code has run, or the turn has lasted long enough. */
  #runRounds(startNs: number): void {
    let nowNs = startNs
    let hostRounds = 0
    this.#nowNs = nowNs
    do {
      if (this.#alarms.dueNs <= nowNs) {
        this.#ring(nowNs)
        if (this.#halted) return
        nowNs = this.#readClock()
        this.#nowNs = nowNs
      }
      for (let boards = this.#boardHead - this.#boardTail; boards > 0; boards--) {
        const board = this.#nextBoard()
        if (board.begin(nowNs)) {
          if (board.halted) return
          if ((--this.#slicesLeft & (SLICES_PER_LOOK - 1)) === 0) {
            nowNs = this.#readClock()
            this.#nowNs = nowNs
          }
          board.finish(nowNs)
          if (board.pending(nowNs)) {
            this.#requeue(board)
            if (this.#halted) return
            continue
          }
        }
        this.#rest(board)
        if (this.#halted) return
      }
      if (this.#lineCount > 0) {
        this.#serveLines()
        hostRounds++
      }
      if (this.#boardHead === this.#boardTail && (this.#hostRan || this.#alarms.dueNs > nowNs)) return
      if (hostRounds === HOST_ROUNDS_PER_TURN) return
    } while (this.#slicesLeft > 0 && nowNs - startNs < this.#nsLeft)
  }

  /** Rings the alarms that are due. An alarm that is set again at once rings in the next round. */
  #ring(nowNs: number): void {
    for (let rings = this.#alarms.size; rings > 0 && this.#alarms.dueNs <= nowNs && !this.#hostRan; rings--) {
      if (this.#halted) return
      const alarm = this.#alarms.peek()!
      this.#alarms.clear(alarm)
      alarm.fire(nowNs)
    }
  }

  /** Sets the timer for the earliest alarm. */
  #sleep(): void {
    if (!this.#started || this.#scheduled || this.#halted) return
    const alarm = this.#alarms.peek()
    if (alarm === undefined || alarm.dueNs >= this.#timeoutNs) return
    const delayNs = alarm.dueNs - this.#readClock()
    if (delayNs <= 0 || (alarm.precise && delayNs < SPIN_NS)) {
      this.#scheduled = true
      setImmediate(this.#freshTurn)
      return
    }
    if (this.#timeout !== null) clearTimeout(this.#timeout)
    const delayMs = Math.min(Math.ceil(delayNs / 1e6), LONGEST_SLEEP_MS)
    this.#timeout = setTimeout(this.#timedTurn, delayMs)
    if (!this.#ref) this.#timeout.unref()
    this.#timeoutNs = alarm.dueNs
  }

  /** The board has nothing to do until its wake time. An alarm set earlier stays: it costs less to ring in vain than to move. */
  #rest(board: Board): void {
    const wakeNs = board.wakeNs
    if (wakeNs !== Number.POSITIVE_INFINITY && (board.slot < 0 || board.dueNs > wakeNs)) this.#alarms.set(board, wakeNs)
  }

  /** Host code has had its turn: handlers, ticks and microtasks count like slices. */
  #accountHost(nowNs: number): void {
    const spentNs = nowNs - this.#hostSinceNs
    this.#hostSinceNs = Number.POSITIVE_INFINITY
    this.#nsLeft -= spentNs
    if (this.profile !== null) this.profile.hostNs += spentNs
  }

  #serveLines(): void {
    const lines = this.#lines
    const count = this.#lineCount
    this.#lines = this.#linesBeingServed
    this.#linesBeingServed = lines
    this.#lineCount = 0
    this.#hostRan = true
    for (let n = 0; n < count; n++) {
      const line = lines[n]!
      lines[n] = null
      line.fire()
    }
  }

  #nextBoard(): Board {
    const boards = this.#boards
    const place = this.#boardTail++ & (boards.length - 1)
    const board = boards[place]!
    boards[place] = null
    board.queued = false
    return board
  }

  #requeue(board: Board): void {
    board.queued = true
    this.#boards[this.#boardHead++ & (this.#boards.length - 1)] = board
    if (this.#boardHead - this.#boardTail === this.#boards.length) this.#growBoards()
  }

  #growBoards(): void {
    const old = this.#boards
    const waiting = this.#boardHead - this.#boardTail
    this.#boards = new Array(old.length * 2).fill(null)
    for (let n = 0; n < waiting; n++) this.#boards[n] = old[(this.#boardTail + n) & (old.length - 1)]
    this.#boardTail = 0
    this.#boardHead = waiting
  }

  #check(waiter: Waiter): void {
    const { until } = waiter
    try {
      if (typeof until === 'number') {
        if (this.#readClock() >= until) waiter.resolve('time')
      } else if (until()) waiter.resolve('condition')
    } catch (error) {
      waiter.reject(error)
    }
  }
}
