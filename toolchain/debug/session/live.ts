/** The present of a farm that is debugged: hears what happens, halts it, and lets it go on. */
import type { Board, CrashReport } from '../../../emulator/board.ts'
import { type Cpu, type DebugOutcome, POLL_HALTED } from '../../../emulator/cpu/index.ts'
import type { FrameWatcher, MacPort } from '../../../emulator/devices/mac.ts'
import type { Farm } from '../../../emulator/farm.ts'
import type { Recorder } from '../../../emulator/record/recorder.ts'
import type { Supervisor } from '../../../emulator/supervisor.ts'
import { errorMessage } from '../../errors.ts'
import { ExpressionError, type Scope } from '../values/index.ts'
import type { DebugEvents, StepKind, Stop, StopReason } from './api.ts'
import { NO_ARMS } from './armed.ts'
import type { BreakpointTable } from './breakpoint-table.ts'
import { type BreakpointEntry, isWanted } from './breakpoints.ts'
import { type History, littleEndian, type Moment, type PastEvent } from './history.ts'
import type { Inic, InicHost, LiveInic, LoadedFirmware } from './inic.ts'
import { irqBits, irqNames } from './interrupts.ts'
import { changeOf, enteringAfter, enteringAt, frameText, ids, placeText, watchReason } from './looking.ts'

/** What a stop says beside reason and thread. */
export type StopDetails = Partial<Omit<Stop, 'reason' | 'thread' | 'position'>> & {
  /** Innermost functions that begin with the next instruction, and are not shown: the stop is before their calls. */
  readonly entering?: number
}

export interface LiveHost {
  /** The farm is to run: what happens is compared with the breakpoints. */
  readonly running: boolean
  /** Something stops it: within a slice of `inic`, or at the end of the slice under way. */
  halt(reason: StopReason, inic: Inic, details: StopDetails): void
  haltAtEvent(event: PastEvent): void
  /** Emitted once the farm's own work is done. */
  tell<K extends keyof DebugEvents>(event: K, ...args: DebugEvents[K]): void
  /** The firmware of a board that is switched on, or was on. */
  firmware(wasm: Uint8Array, description: string): LoadedFirmware
  threadChanged(inic: Inic): void
}

export interface LiveParts {
  readonly farm: Farm
  readonly inics: readonly LiveInic[]
  readonly table: BreakpointTable
  readonly recorder: Recorder
  readonly history: History
  readonly host: LiveHost
}

export class LiveFarm implements Supervisor, FrameWatcher, InicHost {
  readonly #parts: LiveParts
  readonly #byBoard: ReadonlyMap<Board, LiveInic>
  readonly #byPort: ReadonlyMap<MacPort, LiveInic>
  /** Of the INIC that is halted in mid-slice: before which instruction, once that is known. */
  #step: number | undefined
  /** The INIC about whose stop is being decided: its board does not know yet. */
  #judged: LiveInic | undefined

  constructor(parts: LiveParts) {
    this.#parts = parts
    const { farm, inics } = parts
    this.#byBoard = new Map(inics.map((inic) => [inic.board, inic]))
    this.#byPort = new Map(inics.flatMap((inic) => inic.board.ports.map((port) => [port, inic] as const)))
    for (const inic of inics) inic.host = this
    farm.supervisor = this
    for (const port of this.#byPort.keys()) port.watcher = this
    for (const inic of inics) if (inic.board.cpu !== null) this.#meet(inic, inic.board.cpu)
  }

  get nowNs(): number {
    return this.#parts.farm.now()
  }

  /** The INIC that is halted in mid-slice. */
  get halted(): LiveInic | undefined {
    return this.#judged ?? this.#parts.inics.find(({ board }) => board.halted)
  }

  /** The slice under way, or that comes next. */
  get slice(): number {
    return this.#parts.recorder.slice - (this.halted === undefined ? 0 : 1)
  }

  get moment(): Moment {
    const inic = this.halted
    if (inic === undefined) return { slice: this.slice, step: undefined, inic: this.#parts.inics[0]! }
    return { slice: this.slice, step: this.stepOf(inic), inic }
  }

  /** The number of the instruction before which a halted INIC stands. */
  stepOf(inic: LiveInic): number {
    this.#step ??= this.#parts.history.stepOf(inic, inic.arms, this.slice, inic.anchor, inic.stops)
    return this.#step
  }

  /** Halts between two slices. */
  pause(): void {
    this.#parts.farm.halt()
  }

  /** Goes on: with the slice in which an INIC is halted, or the next one. */
  release(): void {
    const { farm } = this.#parts
    const inic = this.halted
    this.#step = undefined
    if (inic === undefined) {
      farm.resume()
      return
    }
    const delayUs = inic.debugged!.resume()
    if (delayUs === POLL_HALTED) return
    farm.resume()
    farm.proceed(inic.board, delayUs)
  }

  /** Goes on until the first line of an INIC's next slice. */
  enterNext(inic: LiveInic): void {
    inic.entry = true
    this.#choose(inic)
  }

  /** Steps within the slice in which an INIC is halted. False if the step leads out of it. */
  stepWithin(inic: LiveInic, kind: StepKind, entered: number): boolean {
    const { history, host } = this.#parts
    const { slice } = this
    const from = this.stepOf(inic)
    const walk = history.sandbox(inic, slice)!.walk(slice)
    const target = walk.step(from, kind, entered)
    const end = typeof target === 'number' ? target : walk.pcs.length
    const [event] = history.within(inic, inic.arms, slice, from, end, true)
    const to = event?.moment.step ?? target
    if (typeof to === 'string') return false
    inic.debugged!.twin.runSteps(to - from)
    this.#standAt(inic, to)
    const pc = inic.debugged!.twin.pc!
    const entering = enteringAfter(kind, inic, pc)
    if (event === undefined) host.halt('step', inic, { text: placeText(inic, pc, entering), entering })
    else {
      for (const entry of event.entries) entry.hits++
      host.haltAtEvent(event)
    }
    return true
  }

  /** Lets every CPU stop where the breakpoints say. */
  rearm(): void {
    const { inics, table } = this.#parts
    // Its place in the slice is counted by stops of the arms that it has until now.
    const { halted } = this
    if (halted !== undefined && !this.#parts.host.running) this.#standAt(halted, this.stepOf(halted))
    for (const inic of inics) {
      if (inic.firmware === null || inic.board.memory === null) continue
      inic.arms = table.armsOf(inic.thread, inic.firmware, inic.memory())
      this.#choose(inic)
    }
  }

  /** Stores bytes by hand. */
  store(inic: LiveInic, address: number, bytes: Uint8Array): void {
    const { recorder, history } = this.#parts
    const { board } = inic
    if (board.halted) {
      recorder.editedWithin(board, this.stepOf(inic), address, bytes)
      history.changed(this.slice)
    } else recorder.edited(board, address, bytes.length)
    board.memory!.bytes.set(bytes, address)
  }

  /** Takes every hand off the farm, which is not halted. */
  close(): void {
    const { farm, inics, recorder } = this.#parts
    for (const inic of inics) {
      inic.arms = NO_ARMS
      inic.entry = false
      this.#choose(inic)
      recorder.remove(inic.board)
    }
    farm.supervisor = null
    for (const port of this.#byPort.keys()) if (port.watcher === this) port.watcher = null
  }

  // ── Supervisor ──

  poweredOn(board: Board, cpu: Cpu): Cpu {
    const inic = this.#byBoard.get(board)
    if (inic === undefined) return cpu
    this.#meet(inic, cpu)
    this.#parts.host.threadChanged(inic)
    return inic.choose()
  }

  poweredOff(board: Board): void {
    const inic = this.#byBoard.get(board)
    if (inic === undefined) return
    this.#parts.recorder.remove(board)
    inic.poweredOff()
    this.#parts.host.threadChanged(inic)
  }

  beforeSlice(board: Board, irqs: number | undefined, nowNs: number): void {
    this.#parts.recorder.beforeSlice(board, irqs, nowNs)
    const inic = this.#byBoard.get(board)
    if (inic === undefined) return
    inic.anchor = -1
    inic.stops = 0
    const entries = this.#parts.table.ofKind('interrupt')
    if (irqs === undefined || irqs === 0 || entries.length === 0) return
    const hit = entries.filter((entry) => entry.isOn(inic.thread) && (irqs & irqBits(entry.spec)) !== 0)
    this.#hitBetween(inic, hit, 'interrupt', `${board.name} is interrupted: ${irqNames(irqs)}`, {})
  }

  afterSlice(board: Board, stopped: boolean): void {
    this.#parts.recorder.afterSlice(board, stopped)
    // A table that is watched may be there only after `reset`.
    if (board.slices === 0 && this.#byBoard.has(board)) this.rearm()
  }

  interrupted(board: Board, set: number): void {
    const entries = this.#parts.table.ofKind('interrupt')
    const inic = this.#byBoard.get(board)
    if (entries.length === 0 || inic === undefined) return
    const isHost = ({ spec }: BreakpointEntry) => spec.kind === 'interrupt' && spec.line?.toUpperCase() === 'HOST'
    const hit = entries.filter((entry) => entry.isOn(inic.thread) && isHost(entry))
    this.#hitBetween(inic, hit, 'interrupt', `${board.name} interrupts process ${set} of its main board`, {})
  }

  consoleLine(board: Board, line: string): void {
    this.#parts.host.tell('output', 'console', board.name, line)
    const entries = this.#parts.table.ofKind('console')
    const inic = this.#byBoard.get(board)
    if (entries.length === 0 || inic === undefined) return
    const hit = entries.filter((entry) => entry.isOn(inic.thread) && entry.pattern!.test(line))
    this.#hitBetween(inic, hit, 'console', `${board.name}: ${line}`, {})
  }

  crashed(board: Board, { kind, message }: CrashReport): void {
    const inic = this.#byBoard.get(board)
    if (inic === undefined) return
    this.#parts.host.threadChanged(inic)
    const hit = this.#parts.table.exceptions(inic.thread, kind === 'panic' ? 'trap' : kind)
    this.#hitBetween(inic, hit, 'exception', `${board.name} stopped: ${message}`, { exception: { kind, message } })
  }

  frame(port: MacPort, direction: 'in' | 'out', memory: Uint8Array, address: number, length: number): void {
    const inic = this.#byPort.get(port)
    if (inic === undefined) return
    const { recorder, table } = this.#parts
    const number = inic.board.ports.indexOf(port)
    recorder.frame(inic.board, number, direction, address, length)
    if (table.ofKind('frame').length === 0) return
    const hit = table.frames(inic.thread, inic.board.name, number, direction, memory, address, length)
    if (hit.length === 0) return
    const bytes = memory.slice(address, address + length)
    const text = frameText(port.name, direction, bytes)
    this.#hitBetween(inic, hit, 'frame', text, { frame: { port: port.name, direction, bytes } })
  }

  // ── InicHost ──

  judge(inic: LiveInic, outcome: DebugOutcome & { state: 'stopped' }): boolean {
    const { host } = this.#parts
    if (!host.running) return false
    this.#judged = inic
    try {
      return this.#judge(inic, outcome)
    } catch (error) {
      host.halt('pause', inic, { text: `the debugger cannot go on: ${errorMessage(error)}` })
      return true
    } finally {
      this.#judged = undefined
    }
  }

  #judge(inic: LiveInic, outcome: DebugOutcome & { state: 'stopped' }): boolean {
    const { host, table } = this.#parts
    const pc = inic.debugged!.twin.pc!
    switch (outcome.reason) {
      case 'step':
        return this.#entered(inic)
      case 'trap': {
        const kind = outcome.trap === 'watchdog' || outcome.trap === 'bus-fault' ? outcome.trap : 'trap'
        const hit = this.#hit(inic, table.exceptions(inic.thread, kind), { pc })
        if (hit.length === 0) return false
        const text = `${placeText(inic, pc)} is about to stop: ${outcome.trap}`
        host.halt('exception', inic, {
          ...{ text, breakpoints: ids(hit), exception: { kind: outcome.trap, message: outcome.trap } },
        })
        return true
      }
      case 'breakpoint': {
        const hit = this.#hit(inic, inic.arms.pcs.get(pc) ?? [], { pc })
        if (hit.length === 0) return false
        const entering = enteringAt(hit[0]!, inic.firmware!.program, pc)
        host.halt('breakpoint', inic, { text: placeText(inic, pc, entering), breakpoints: ids(hit), entering })
        return true
      }
      case 'watch':
        for (const hit of outcome.hits) {
          const entry = inic.watcher(hit.id)
          if (entry === undefined || !isWanted(entry.spec, littleEndian(hit.before), littleEndian(hit.after))) continue
          if (this.#hit(inic, [entry], { pc }).length === 0) continue
          const details = changeOf(inic, inic.memory(), entry.watched!, hit)
          host.halt(watchReason(entry.spec), inic, { breakpoints: [entry.id], ...details })
          return true
        }
        return false
    }
  }

  /** At the first instruction of the slice that a step waited for: on to its first line. */
  #entered(inic: LiveInic): boolean {
    const { history, host, recorder } = this.#parts
    const slice = recorder.slice - 1
    const first = history.sandbox(inic, slice)!.walk(slice).firstLine()
    if (typeof first === 'string') return false
    inic.entry = false
    const [event] = history.within(inic, inic.arms, slice, -1, first, true)
    const step = event?.moment.step ?? first
    const { twin } = inic.debugged!
    if (step > 0) twin.runTo('resume', step)
    this.#standAt(inic, step)
    const entering = enteringAfter('in', inic, twin.pc!)
    if (event === undefined) host.halt('step', inic, { text: placeText(inic, twin.pc!, entering), entering })
    else host.haltAtEvent(event)
    return true
  }

  /** Those of the entries at which the farm is to stop; log points have printed. */
  #hit(inic: LiveInic, entries: readonly BreakpointEntry[], scope: Scope): BreakpointEntry[] {
    const firmware = inic.firmware!
    const { context } = inic
    return entries.filter((entry) => {
      if (!entry.isOn(inic.thread)) return false
      try {
        if (!entry.passes(firmware, scope, context)) return false
      } catch (error) {
        if (!(error instanceof ExpressionError)) throw error
        const text = `condition of breakpoint ${entry.id}: ${error.message}`
        this.#parts.host.tell('output', 'remark', inic.board.name, text)
        return true
      }
      if (entry.spec.logMessage === undefined) return true
      const text = entry.logText(firmware, scope, context)
      this.#parts.host.tell('output', 'log', inic.board.name, text)
      return false
    })
  }

  /** Breakpoints that are met between slices, or at their ends. */
  #hitBetween(
    inic: LiveInic,
    entries: readonly BreakpointEntry[],
    reason: StopReason,
    text: string,
    details: StopDetails,
  ): void {
    const { farm, host } = this.#parts
    if (entries.length === 0 || !host.running) return
    const hit = this.#hit(inic, entries, {})
    if (hit.length === 0) return
    farm.halt()
    host.halt(reason, inic, { text, breakpoints: ids(hit), ...details })
  }

  #standAt(inic: LiveInic, step: number): void {
    inic.anchor = step
    inic.stops = 0
    this.#step = step
  }

  #choose(inic: LiveInic): void {
    if (inic.board.cpu !== null) inic.board.changeCpu(inic.choose())
  }

  #meet(inic: LiveInic, cpu: Cpu): void {
    const { recorder, table, host } = this.#parts
    const { wasm, description } = inic.board.image!
    const firmware = host.firmware(wasm, description ?? 'firmware')
    recorder.add(inic.board)
    inic.poweredOn(cpu, firmware)
    inic.arms = table.armsOf(inic.thread, firmware, inic.memory())
  }
}
