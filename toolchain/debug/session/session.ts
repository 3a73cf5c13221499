/** The debug engine: one session over the INICs of a farm, in the present and the past. */
import { EventEmitter } from 'node:events'
import type { Board } from '../../../emulator/board.ts'
import type { Farm } from '../../../emulator/farm.ts'
import { Recorder } from '../../../emulator/record/recorder.ts'
import type { Recording } from '../../../emulator/record/recording.ts'
import { errorMessage } from '../../errors.ts'
import { memoryOf } from '../values/index.ts'
import {
  type Breakpoint,
  type BreakpointSpec,
  DebugError,
  type DebugEvents,
  type DebugModule,
  type DebugThread,
  type Instruction,
  type SessionApi,
  type StackFrame,
  type StepKind,
  type Stop,
  type StopReason,
  type TimelinePosition,
  type Value,
} from './api.ts'
import { BreakpointTable } from './breakpoint-table.ts'
import { compareMoments, type FrameTest, History, type Moment, type PastEvent } from './history.ts'
import { Inic, LiveInic, type LoadedFirmware } from './inic.ts'
import { LiveFarm, type LiveHost, type LiveParts, type StopDetails } from './live.ts'
import { changeOf, enteringAfter, enteringAt, frameText, ids, liveFrames, placeText, watchReason } from './looking.ts'
import { View } from './view.ts'

export interface SessionOptions {
  /** What is known of a firmware; the same object for the same bytes. */
  readonly firmware: (wasm: Uint8Array, description: string) => LoadedFirmware
  /** Memory for the past, bytes. Default HISTORY_BYTES of the recorder. */
  readonly historyBytes?: number
}

interface Waiting {
  resolve(stop: Stop): void
  reject(error: Error): void
}

export class DebugSession extends EventEmitter<DebugEvents> implements SessionApi, LiveHost {
  readonly #options: SessionOptions
  readonly #inics: readonly Inic[]
  readonly #firmwares: LoadedFirmware[] = []
  readonly #table = new BreakpointTable()
  readonly #recording: Recording
  readonly #history: History
  /** Null for a recording, which has a past and no present. */
  readonly #live: LiveFarm | null
  #state: 'running' | 'halted' | 'detached' = 'running'
  #stop: Stop | null = null
  /** The moment of the past that is looked at; null: the present. */
  #past: Moment | null = null
  #waiting: Waiting[] = []
  /** Innermost functions of the stop's INIC that are not entered yet. */
  #entering = 0
  /** The same of the present, while the past is looked at. */
  #liveEntering = 0
  /** Views of the moment that is looked at, by thread. */
  readonly #views = new Map<number, View>()

  /** Takes a farm over, between two slices: `boards` are its threads, in this order. The farm runs on. */
  static attach(farm: Farm, boards: readonly Board[], options: SessionOptions): DebugSession {
    const { historyBytes } = options
    const recorder = new Recorder(historyBytes === undefined ? {} : { budgetBytes: historyBytes })
    const inics = boards.map((board, n) => new LiveInic(n + 1, board))
    return new DebugSession(options, inics, recorder, (parts) => new LiveFarm({ ...parts, inics, farm, recorder }))
  }

  /** Opens a recording, at its end. */
  static replay(recording: Recording, options: SessionOptions): DebugSession {
    const names = [...new Set(recording.lives.map(({ board }) => board))]
    const inics = names.map((name, n) => new Inic(n + 1, name))
    const session = new DebugSession(options, inics, recording, () => null)
    for (const { module } of recording.lives) session.firmware(module, '')
    session.#past = { slice: recording.slice, step: undefined, inic: inics[0]! }
    session.halt('entry', inics[0]!, { text: 'the end of the recording' })
    return session
  }

  private constructor(
    options: SessionOptions,
    inics: readonly Inic[],
    recording: Recording,
    live: (parts: Pick<LiveParts, 'table' | 'history' | 'host'>) => LiveFarm | null,
  ) {
    super()
    this.#options = options
    this.#inics = inics
    this.#recording = recording
    this.#history = new History(recording, (wasm) => this.firmware(wasm, ''))
    this.#table.add({ kind: 'exception' }, [])
    this.#live = live({ table: this.#table, history: this.#history, host: this })
  }

  // ── where it stands ──

  get state(): 'running' | 'halted' {
    return this.#state === 'halted' ? 'halted' : 'running'
  }

  get stop(): Stop | null {
    return this.#stop
  }

  get position(): TimelinePosition {
    const { oldestSlice } = this.#recording
    const past = this.#past
    if (past !== null) return { slice: past.slice, timeNs: this.#history.timeOf(past.slice), live: false, oldestSlice }
    return { slice: this.#live!.slice, timeNs: this.#live!.nowNs, live: true, oldestSlice }
  }

  get threads(): readonly DebugThread[] {
    return this.#inics.map((inic) => this.#thread(inic))
  }

  get modules(): readonly DebugModule[] {
    return this.#firmwares.map((firmware) => ({
      ...{ id: firmware.id, description: firmware.description, wasm: firmware.wasm },
      threads: this.#inics.filter((inic) => this.#firmwareOf(inic) === firmware).map(({ thread }) => thread),
      hasSource: firmware.program.files.length > 0,
    }))
  }

  get sources(): readonly string[] {
    const files = this.#firmwares.flatMap(({ program }) => program.files)
    return [...new Set(files.map(({ name, path }) => path ?? name))].sort()
  }

  // ── running ──

  continue(): Promise<Stop> {
    return this.#run(() => {
      if (this.#past === null) return this.#goOn()
      const event = this.#history.firstAfter(this.#past, this.#present(), this.#armed(), this.#frameTest())
      if (event === undefined) this.#goToPresent()
      else this.#goToEvent(event)
    })
  }

  reverseContinue(): Promise<Stop> {
    return this.#run(() => {
      const event = this.#history.lastBefore(this.#here(), this.#armed(), this.#frameTest())
      if (event === undefined) this.#goToOldest()
      else this.#goToEvent(event)
    })
  }

  step(thread: number, kind: StepKind): Promise<Stop> {
    const inic = this.#inic(thread)
    return this.#run(() => {
      if (kind === 'in' && this.#entering > 0 && this.#stop?.thread === thread) return this.#enter(inic)
      if (this.#past !== null) return this.#stepInPast(inic, kind)
      const live = this.#live!
      const { halted } = live
      if (halted !== undefined && halted === inic && live.stepWithin(halted, kind, this.#entered(inic))) return
      live.enterNext(inic as LiveInic)
      this.#goOn()
    })
  }

  stepBack(thread: number, kind: StepKind): Promise<Stop> {
    const inic = this.#inic(thread)
    return this.#run(() => this.#stepBack(inic, kind))
  }

  goTo(slice: number): Promise<Stop> {
    return this.#run(() => {
      const present = this.#present()
      const { oldestSlice } = this.#recording
      if (!Number.isSafeInteger(slice) || slice < oldestSlice || slice > present.slice) {
        const reach = `history goes from slice ${oldestSlice} to ${present.slice}`
        throw new DebugError('past', `${reach}; there is no slice ${slice}`)
      }
      const moment = { slice, step: undefined, inic: this.#here().inic }
      if (compareMoments(moment, present) >= 0) this.#goToPresent()
      else this.#goToMoment(moment, 'step', `before slice ${slice}`)
    })
  }

  goLive(): Promise<Stop> {
    return this.#run(() => this.#goToPresent())
  }

  pause(): Promise<Stop> {
    if (this.#state === 'halted') return Promise.resolve(this.#stop!)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#live!.pause()
      this.halt('pause', this.#inics[0]!, { text: 'paused' })
    })
  }

  async detach(): Promise<void> {
    if (this.#state === 'detached') return
    const wasHalted = this.#state === 'halted'
    this.#table.clear()
    this.#past = null
    this.#stop = null
    this.#state = 'detached'
    if (wasHalted) this.#live?.release()
    this.#live?.close()
    this.#history.dispose()
    this.#settle(({ reject }) => reject(new DebugError('halted', 'the session has ended')))
  }

  // ── breakpoints ──

  get breakpoints(): readonly Breakpoint[] {
    return this.#table.all
  }

  addBreakpoint(spec: BreakpointSpec): Breakpoint {
    const entry = this.#table.add(spec, this.#firmwares)
    this.#rearm()
    return entry
  }

  removeBreakpoint(id: number): boolean {
    const removed = this.#table.remove(id)
    if (removed) this.#rearm()
    return removed
  }

  setEnabled(id: number, enabled: boolean): void {
    const entry = this.#table.get(id)
    if (entry === undefined || entry.enabled === enabled) return
    entry.enabled = enabled
    this.#rearm()
  }

  breakableLines(file: string, first: number, last: number): number[] {
    const lines = this.#firmwares.flatMap(({ program }) => program.breakpointLines(file))
    return [...new Set(lines)].filter((line) => line >= first && line <= last).sort((a, b) => a - b)
  }

  // ── looking ──

  frames(thread: number): readonly StackFrame[] {
    return this.#view(thread).stack
  }

  locals(thread: number, frame: number): readonly Value[] {
    return this.#view(thread).locals(frame)
  }

  machineState(thread: number, frame: number): { readonly locals: readonly Value[]; readonly stack: readonly Value[] } {
    return this.#view(thread).machineState(frame)
  }

  globals(thread: number): readonly Value[] {
    return this.#view(thread).globals()
  }

  evaluate(expression: string, thread: number, frame?: number): Value {
    return this.#view(thread).evaluate(expression, frame)
  }

  assign(expression: string, value: string, thread: number, frame?: number): Value {
    return this.#view(thread).assign(expression, value, frame)
  }

  complete(text: string, thread: number, frame?: number): readonly string[] {
    return this.#view(thread).complete(text, frame)
  }

  readMemory(thread: number, address: number, bytes: number): Uint8Array {
    return this.#view(thread).readMemory(address, bytes)
  }

  writeMemory(thread: number, address: number, bytes: Uint8Array): void {
    this.#view(thread).writeMemory(address, bytes)
  }

  memoryBytes(thread: number): number {
    const inic = this.#inic(thread)
    if (this.#past === null) return (inic as LiveInic).board.memory?.length ?? 0
    return this.#history.life(inic, this.#past.slice)?.memoryBytes ?? 0
  }

  disassemble(thread: number, pc: number, count: number, before = 0): readonly Instruction[] {
    return this.#view(thread).disassemble(pc, count, before)
  }

  // ── LiveHost ──

  get running(): boolean {
    return this.#state === 'running'
  }

  halt(reason: StopReason, inic: Inic, details: StopDetails): void {
    this.#state = 'halted'
    this.#views.clear()
    const { text = reason, breakpoints = [], entering = 0, ...rest } = details
    this.#entering = entering
    if (this.#past === null) this.#liveEntering = entering
    const stop: Stop = { ...rest, text, breakpoints, reason, thread: inic.thread, position: this.position }
    this.#stop = stop
    for (const id of breakpoints) {
      const entry = this.#table.get(id)
      if (entry?.spec.temporary !== true) continue
      this.#table.remove(id)
      this.tell('breakpoint', entry, 'removed')
    }
    // The slice under way, if the farm halts between two, ends first.
    queueMicrotask(() => {
      if (this.#stop !== stop) return
      this.emit('stopped', stop)
      this.#settle(({ resolve }) => resolve(stop))
    })
  }

  haltAtEvent({ moment: { inic }, entries, hits, frame }: PastEvent): void {
    const breakpoints = ids(entries)
    const [entry] = entries
    const [hit] = hits
    if (frame !== undefined) {
      const { direction, bytes } = frame
      const port = `${inic.name}.${frame.port}`
      const text = frameText(port, direction, bytes)
      this.halt('frame', inic, { breakpoints, text, frame: { port, direction, bytes } })
    } else if (hit !== undefined) {
      this.#views.clear()
      const details = changeOf(inic, this.#viewOf(inic).memory, entry!.watched!, hit)
      this.halt(watchReason(entry!.spec), inic, { breakpoints, ...details })
    } else {
      this.#views.clear()
      const pc = this.#viewOf(inic).physical[0]?.pc ?? 0
      const entering = enteringAt(entry!, this.#firmwareOf(inic)!.program, pc)
      this.halt('breakpoint', inic, { breakpoints, text: placeText(inic, pc, entering), entering })
    }
  }

  tell<K extends keyof DebugEvents>(event: K, ...args: DebugEvents[K]): void {
    queueMicrotask(() => {
      ;(this as EventEmitter).emit(event, ...args)
    })
  }

  firmware(wasm: Uint8Array, description: string): LoadedFirmware {
    const firmware = this.#options.firmware(wasm, description)
    if (this.#firmwares.includes(firmware)) return firmware
    this.#firmwares.push(firmware)
    for (const entry of this.#table.all) {
      const { verified } = entry
      this.#table.locate(entry, this.#firmwares)
      if (entry.verified !== verified) this.tell('breakpoint', entry, 'changed')
    }
    return firmware
  }

  threadChanged(inic: Inic): void {
    this.#views.delete(inic.thread)
    this.tell('thread', this.#thread(inic))
  }

  // ── going on ──

  #run(begin: () => void): Promise<Stop> {
    return new Promise((resolve, reject) => {
      if (this.#state !== 'halted') {
        reject(new DebugError('running', 'the farm is running'))
        return
      }
      const waiting = { resolve, reject }
      this.#waiting.push(waiting)
      try {
        begin()
      } catch (error) {
        this.#waiting = this.#waiting.filter((each) => each !== waiting)
        reject(error instanceof DebugError ? error : new DebugError('past', errorMessage(error)))
      }
    })
  }

  #goOn(): void {
    this.#state = 'running'
    this.#stop = null
    this.#views.clear()
    this.emit('continued')
    this.#live!.release()
  }

  #settle(settle: (waiting: Waiting) => void): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const each of waiting) settle(each)
  }

  #rearm(): void {
    this.#live?.rearm()
    if (this.#live !== null) return
    for (const inic of this.#inics) {
      const life = this.#history.life(inic, this.#here().slice)
      if (life === undefined) continue
      inic.firmware = this.firmware(life.module, '')
      inic.arms = this.#table.armsOf(inic.thread, inic.firmware, this.#viewOf(inic).memory)
    }
  }

  // ── the past ──

  #present(): Moment {
    return this.#live?.moment ?? { slice: this.#recording.slice, step: undefined, inic: this.#inics[0]! }
  }

  #here(): Moment {
    return this.#past ?? this.#present()
  }

  #stepBack(inic: Inic, kind: StepKind): void {
    const here = this.#here()
    const isInside = here.inic === inic && here.step !== undefined
    let slice = isInside ? here.slice : this.#history.previous(inic, here.slice)
    let from = isInside ? here.step : undefined
    while (slice !== undefined) {
      const walk = this.#history.sandbox(inic, slice)!.walk(slice)
      const end = from ?? walk.pcs.length
      const target = walk.stepBack(end, kind)
      // To go back out of `poll` is to go to its beginning.
      const to = typeof target === 'number' ? target : kind === 'out' && from !== undefined && from > 0 ? 0 : -1
      const event = this.#history.within(inic, inic.arms, slice, to, end - 1, false).at(-1)
      if (event !== undefined) return this.#goToEvent(event)
      if (to >= 0) return this.#stepTo({ slice, step: to, inic }, kind, walk.pcs[to]!)
      slice = this.#history.previous(inic, slice)
      from = undefined
    }
    this.#goToOldest()
  }

  #stepInPast(inic: Inic, kind: StepKind): void {
    const here = this.#here()
    const present = this.#present()
    const isInside = here.inic === inic && here.step !== undefined
    let slice = isInside ? here.slice : this.#history.next(inic, here.slice)
    let from = isInside ? here.step : undefined
    while (slice !== undefined && slice <= present.slice) {
      const walk = this.#history.sandbox(inic, slice)!.walk(slice)
      const target = from === undefined ? walk.firstLine() : walk.step(from, kind, this.#entered(inic))
      const end = typeof target === 'number' ? target : walk.pcs.length
      const [event] = this.#history.within(inic, inic.arms, slice, from ?? -1, end, true)
      const step = event?.moment.step ?? (typeof target === 'number' ? target : undefined)
      if (step !== undefined) {
        const moment = { slice, step, inic }
        if (compareMoments(moment, present) >= 0) break
        if (event !== undefined) return this.#goToEvent(event)
        return this.#stepTo(moment, kind, walk.pcs[step]!)
      }
      slice = this.#history.next(inic, slice + 1)
      from = undefined
    }
    this.#goToPresent()
  }

  #stepTo(moment: Moment, kind: StepKind, pc: number): void {
    this.#past = moment
    const entering = enteringAfter(kind, moment.inic, pc)
    this.halt('step', moment.inic, { text: placeText(moment.inic, pc, entering), entering })
  }

  /** Into an inlined function that begins here: nothing moves. */
  #enter(inic: Inic): void {
    const entering = this.#entering - 1
    const pc = this.#viewOf(inic).physical[0]!.pc
    this.halt('step', inic, { text: placeText(inic, pc, entering), entering })
  }

  /** Of the functions that begin where an INIC stands, those that were stepped into. */
  #entered(inic: Inic): number {
    const pc = this.#viewOf(inic).physical[0]?.pc
    if (pc === undefined || this.#stop?.thread !== inic.thread) return 0
    return this.#firmwareOf(inic)!.program.entering(pc) - this.#entering
  }

  #goToEvent(event: PastEvent): void {
    this.#past = event.moment
    this.haltAtEvent(event)
  }

  #goToMoment(moment: Moment, reason: StopReason, text: string): void {
    this.#past = moment
    this.halt(reason, moment.inic, { text })
  }

  #goToOldest(): void {
    const moment = { slice: this.#recording.oldestSlice, step: undefined, inic: this.#here().inic }
    this.#goToMoment(moment, 'history', 'the beginning of the recorded history')
  }

  #goToPresent(): void {
    const present = this.#present()
    if (this.#live === null) return this.#goToMoment(present, 'history', 'the end of the recording')
    this.#past = null
    this.halt('live', present.inic, { text: 'the present', entering: this.#liveEntering })
  }

  #armed(): readonly Inic[] {
    return this.#inics.filter(({ firmware }) => firmware !== null)
  }

  #frameTest(): FrameTest | undefined {
    if (this.#table.ofKind('frame').length === 0) return undefined
    return ({ thread, name }, ...frame) => this.#table.frames(thread, name, ...frame)
  }

  // ── INICs ──

  #inic(thread: number): Inic {
    const inic = this.#inics[thread - 1]
    if (inic !== undefined) return inic
    throw new DebugError('no-thread', `there is no INIC number ${thread}; they are 1 to ${this.#inics.length}`)
  }

  #thread(inic: Inic): DebugThread {
    const { thread, name } = inic
    if (!(inic instanceof LiveInic)) return { id: thread, name, state: 'halted' }
    const { board, firmware } = inic
    const running = this.#state === 'running' ? 'running' : 'halted'
    const state = firmware === null ? 'off' : board.crash !== null ? 'crashed' : running
    return { id: thread, name, state }
  }

  #firmwareOf(inic: Inic): LoadedFirmware | null {
    if (this.#past === null) return inic.firmware
    const life = this.#history.life(inic, this.#past.slice)
    return life === undefined ? null : this.firmware(life.module, '')
  }

  #view(thread: number): View {
    const inic = this.#inic(thread)
    if (this.#state !== 'halted') throw new DebugError('running', 'the farm is running: pause it first')
    return this.#viewOf(inic)
  }

  #viewOf(inic: Inic): View {
    let view = this.#views.get(inic.thread)
    if (view === undefined) {
      view = this.#look(inic)
      this.#views.set(inic.thread, view)
    }
    return view
  }

  #look(inic: Inic): View {
    const firmware = this.#firmwareOf(inic)
    if (firmware === null) throw new DebugError('no-thread', `${inic.name} is off: it runs no firmware`)
    const past = this.#past
    const entering = this.#stop?.thread === inic.thread ? this.#entering : 0
    if (past === null) {
      const live = inic as LiveInic
      const memory = live.memory((address, bytes) => this.#live!.store(live, address, bytes))
      return new View(firmware, memory, liveFrames(live), entering)
    }
    const sandbox = this.#history.sandbox(inic, past.slice)!
    if (past.inic === inic && past.step !== undefined) sandbox.within(past.slice, past.step)
    else sandbox.between(past.slice)
    return new View(firmware, memoryOf(sandbox.memory), sandbox.frames(), entering)
  }
}
