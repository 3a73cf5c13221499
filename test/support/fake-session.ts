/** A debug session without a farm, for tests of front ends: it stops where the script says. */
import { EventEmitter } from 'node:events'
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
  type Stop,
  type StopReason,
  type TimelinePosition,
  type Value,
} from '../../toolchain/debug/session/api.ts'

export function fakeValue(name: string, display: string, more: Partial<Value> = {}): Value {
  const nowhere = { address: undefined, bytes: undefined, path: undefined, indexed: 0 }
  const number = /^(?:0x[0-9a-f]+|\d+)/.exec(display)
  const scalar = number === null ? undefined : Number(number[0])
  return {
    name,
    type: 'u32',
    display,
    scalar,
    ...nowhere,
    expandable: more.children !== undefined,
    children: () => [],
    ...more,
  }
}

const FILE = 'firmware/tcp/input.ts'
const MEMORY_BYTES = 0x10000
const TABLE_ROWS = 300

export class FakeSession extends EventEmitter<DebugEvents> implements SessionApi {
  state: 'running' | 'halted' = 'halted'
  stop: Stop | null
  /** What the farm does next, whatever it is asked for; without one it runs until `pause`. */
  readonly script: Partial<Stop>[] = []
  /** What was asked for: `step 1 over`. */
  readonly calls: string[] = []
  readonly memory = new Uint8Array(MEMORY_BYTES).map((_, index) => index & 0xff)
  readonly threads: DebugThread[] = [
    { id: 1, name: 'server1', state: 'halted' },
    { id: 2, name: 'server2', state: 'halted' },
  ]
  readonly modules: DebugModule[] = [
    { id: 1, description: '0.1.0 (release)', wasm: new Uint8Array(100), threads: [1, 2], hasSource: true },
  ]
  readonly sources = [FILE, 'firmware/tcp/rcv.ts', '~lib/memory.ts']
  readonly breakpoints: Breakpoint[] = []
  slice = 10
  line = 90
  live = true
  #lastId = 0
  #waiting: ((stop: Stop) => void)[] = []

  constructor() {
    super()
    this.addBreakpoint({ kind: 'exception' })
    this.stop = this.#makeStop({ reason: 'entry', text: 'halted at entry' })
  }

  get position(): TimelinePosition {
    return { slice: this.slice, timeNs: this.slice * 1000, live: this.live, oldestSlice: 2 }
  }

  #makeStop(stop: Partial<Stop>): Stop {
    const reason: StopReason = stop.reason ?? 'step'
    return { reason, thread: 1, breakpoints: [], text: `stopped: ${reason}`, position: this.position, ...stop }
  }

  #run(call: string): Promise<Stop> {
    this.calls.push(call)
    if (this.state === 'running') return Promise.reject(new DebugError('running', 'the farm runs'))
    this.state = 'running'
    this.stop = null
    this.emit('continued')
    const next = this.script.shift()
    const stopped = new Promise<Stop>((resolve) => this.#waiting.push(resolve))
    if (next !== undefined) setImmediate(() => this.halt(next))
    return stopped
  }

  halt(stop: Partial<Stop>): void {
    this.line++
    this.state = 'halted'
    this.stop = this.#makeStop(stop)
    this.emit('stopped', this.stop)
    for (const resolve of this.#waiting.splice(0)) resolve(this.stop)
  }

  continue = () => this.#run('continue')
  reverseContinue = () => this.#run('reverseContinue')
  step = (thread: number, kind: string) => this.#run(`step ${thread} ${kind}`)
  stepBack = (thread: number, kind: string) => this.#run(`stepBack ${thread} ${kind}`)
  goTo = (slice: number) => this.#run(`goTo ${slice}`)
  goLive = () => this.#run('goLive')

  pause(): Promise<Stop> {
    this.calls.push('pause')
    setImmediate(() => this.halt({ reason: 'pause', text: 'paused' }))
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  async detach(): Promise<void> {
    this.calls.push('detach')
    this.breakpoints.length = 0
    this.state = 'running'
  }

  addBreakpoint(spec: BreakpointSpec): Breakpoint {
    if (spec.condition === 'nonsense(') throw new DebugError('expression', 'column 9: an expression is missing')
    const known =
      spec.kind !== 'source' || this.sources.some((file) => spec.file.endsWith(file) || file.endsWith(spec.file))
    const position =
      spec.kind === 'source' ? { file: FILE, line: spec.line, column: 3 } : { file: FILE, line: 80, column: 1 }
    const code = spec.kind === 'source' || spec.kind === 'function' || spec.kind === 'instruction'
    const breakpoint: Breakpoint = {
      id: ++this.#lastId,
      spec,
      enabled: true,
      verified: known,
      ...(!known && { message: 'no code comes from this file' }),
      places: known && code ? [{ pc: 0x200, source: position, functionName: 'tcpInput' }] : [],
      hits: 0,
    }
    this.breakpoints.push(breakpoint)
    return breakpoint
  }

  removeBreakpoint(id: number): boolean {
    const index = this.breakpoints.findIndex((breakpoint) => breakpoint.id === id)
    if (index >= 0) this.breakpoints.splice(index, 1)
    return index >= 0
  }

  setEnabled(id: number, enabled: boolean): void {
    const found = this.breakpoints.find((breakpoint) => breakpoint.id === id)
    if (found) found.enabled = enabled
  }

  breakableLines(_file: string, first: number, last: number): number[] {
    return [90, 91, 95].filter((line) => line >= first && line <= last)
  }

  #needHalted(): void {
    if (this.state === 'running') throw new DebugError('running', 'the farm runs: pause it first')
  }

  frames(thread: number): readonly StackFrame[] {
    this.#needHalted()
    if (thread !== 1) return []
    const frame = (index: number, functionName: string, line: number): StackFrame => ({
      index,
      functionName,
      source: { file: FILE, line, column: 3 },
      pc: 0x200 + index * 16,
      inlined: index === 0,
      physical: index === 0 ? 0 : index - 1,
    })
    return [frame(0, 'parseOptions', this.line), frame(1, 'tcpInput', 70), frame(2, 'poll', 20)]
  }

  locals(): readonly Value[] {
    this.#needHalted()
    return [fakeValue('flags', '0x2 (SYN)'), fakeValue('tcb', 'Tcb 0x100', { type: 'Tcb', address: 0x100, bytes: 64 })]
  }

  machineState(): { locals: readonly Value[]; stack: readonly Value[] } {
    this.#needHalted()
    return { locals: [fakeValue('$0', '7', { type: 'i32' })], stack: [] }
  }

  globals(): readonly Value[] {
    this.#needHalted()
    const row = (index: number) =>
      fakeValue(`[${index}]`, `Tcb 0x${(0x100 + index * 64).toString(16)}`, { type: 'Tcb' })
    const rows = Array.from({ length: TABLE_ROWS }, (_, index) => row(index))
    const table = fakeValue('tcb', `Tcb[${TABLE_ROWS}]`, {
      ...{ type: `Tcb[${TABLE_ROWS}]`, address: 0x20000, bytes: TABLE_ROWS * 64, indexed: TABLE_ROWS },
      children: (start = 0, count = TABLE_ROWS) => rows.slice(start, start + count),
    })
    const register = fakeValue('IRQ_STATUS', '0x1', { address: 0x1004, bytes: 4 })
    return [table, register]
  }

  evaluate(expression: string): Value {
    this.#needHalted()
    if (!/^[\w.[\]$]+$/.test(expression)) throw new DebugError('expression', `column 1: '${expression}' is no name`)
    return fakeValue(expression, '0x1234', { address: 0x40, bytes: 4 })
  }

  assign(expression: string, value: string): Value {
    this.#needHalted()
    if (!this.live) throw new DebugError('past', 'the past cannot be changed')
    this.calls.push(`assign ${expression} = ${value}`)
    return fakeValue(expression, value, { address: 0x40, bytes: 4 })
  }

  complete(text: string): readonly string[] {
    const [word] = /\w*$/.exec(text)!
    const names = ['sndNxt', 'sndUna', 'state'].filter((name) => name.startsWith(word))
    return names.map((name) => text.slice(0, text.length - word.length) + name)
  }

  readMemory(_thread: number, address: number, bytes: number): Uint8Array {
    this.#needHalted()
    return this.memory.slice(address, address + bytes)
  }

  writeMemory(_thread: number, address: number, bytes: Uint8Array): void {
    this.memory.set(bytes, address)
  }

  memoryBytes(): number {
    return MEMORY_BYTES
  }

  disassemble(_thread: number, pc: number, count: number, before = 0): readonly Instruction[] {
    const first = Math.max(0, Math.ceil(pc / 2) - before)
    return Array.from({ length: count }, (_, index) => ({
      pc: (first + index) * 2,
      bytes: Uint8Array.of(0x20, index & 0xff),
      text: `local.get ${index}`,
      source: { file: FILE, line: 90, column: 1 },
    }))
  }
}
