/** A debug session without a farm: what it was asked is in `calls`, and where it stops is what the test says. */
import { EventEmitter } from 'node:events'
import type {
  Breakpoint,
  BreakpointSpec,
  DebugEvents,
  DebugModule,
  DebugThread,
  Instruction,
  SessionApi,
  StackFrame,
  Stop,
  StopReason,
  Value,
} from '../../toolchain/debug/session/api.ts'
import { DebugError } from '../../toolchain/debug/session/api.ts'

export interface FakeFrame {
  readonly pc: number
  readonly locals?: readonly [type: string, scalar: number | bigint][]
  readonly stack?: readonly [type: string, scalar: number | bigint][]
  /** Functions of the source that stand there, the inlined ones too. */
  readonly inlined?: number
}

export interface FakeSessionOptions {
  readonly wasm: Uint8Array
  readonly memoryBytes?: number
  readonly servers?: number
}

const POSITION = { slice: 7, timeNs: 42, live: true, oldestSlice: 0 }

export class FakeDebugSession extends EventEmitter<DebugEvents> implements SessionApi {
  state: 'running' | 'halted' = 'running'
  stop: Stop | null = null
  readonly position = POSITION
  readonly threads: readonly DebugThread[]
  readonly modules: readonly DebugModule[]
  readonly sources: readonly string[] = []
  readonly breakpoints: Breakpoint[] = []
  readonly memory: Uint8Array
  /** Stacks by thread. */
  readonly stacks = new Map<number, FakeFrame[]>()
  /** What was asked for, as text. */
  readonly calls: string[] = []
  /** Each request to run ends at once, with a step. */
  stopsAtOnce = false
  #waiting: ((stop: Stop) => void)[] = []
  #next = 1

  constructor({ wasm, memoryBytes = 0x10000, servers = 2 }: FakeSessionOptions) {
    super()
    this.threads = Array.from({ length: servers }, (_, n) => ({ id: n + 1, name: `server${n + 1}`, state: 'halted' }))
    this.modules = [
      { id: 1, description: '1.2.3 (debug)', wasm, threads: this.threads.map(({ id }) => id), hasSource: true },
    ]
    this.memory = new Uint8Array(memoryBytes)
  }

  /** Ends what runs. */
  stopAt(reason: StopReason, more: Partial<Stop> = {}): void {
    const stop: Stop = { reason, thread: 1, breakpoints: [], text: '', position: POSITION, ...more }
    this.state = 'halted'
    this.stop = stop
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve(stop)
    this.emit('stopped', stop)
  }

  #run(call: string): Promise<Stop> {
    this.calls.push(call)
    if (this.state === 'running') return Promise.reject(new DebugError('running', 'the farm is running'))
    this.state = 'running'
    this.stop = null
    if (this.stopsAtOnce) queueMicrotask(() => this.stopAt('step'))
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  continue = () => this.#run('continue')
  reverseContinue = () => this.#run('reverseContinue')
  step = (thread: number, kind: string) => this.#run(`step ${thread} ${kind}`)
  stepBack = (thread: number, kind: string) => this.#run(`stepBack ${thread} ${kind}`)
  goTo = (slice: number) => this.#run(`goTo ${slice}`)
  goLive = () => this.#run('goLive')

  pause(): Promise<Stop> {
    this.calls.push('pause')
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      queueMicrotask(() => this.stopAt('pause', { text: 'paused' }))
    })
  }

  async detach(): Promise<void> {
    this.calls.push('detach')
    this.breakpoints.length = 0
    this.state = 'running'
  }

  addBreakpoint(spec: BreakpointSpec): Breakpoint {
    this.calls.push(`add ${JSON.stringify(spec)}`)
    const verified = spec.kind !== 'instruction' || spec.pc < this.modules[0].wasm.length
    const added: Breakpoint = { id: this.#next++, spec, enabled: true, verified, places: [], hits: 0 }
    this.breakpoints.push(added)
    return added
  }

  removeBreakpoint(id: number): boolean {
    this.calls.push(`remove ${id}`)
    const index = this.breakpoints.findIndex((each) => each.id === id)
    if (index >= 0) this.breakpoints.splice(index, 1)
    return index >= 0
  }

  setEnabled(): void {}

  breakableLines(): number[] {
    return []
  }

  frames(thread: number): readonly StackFrame[] {
    this.#mustBeHalted()
    return (this.stacks.get(thread) ?? []).flatMap(({ pc, inlined = 0 }, physical) =>
      Array.from({ length: inlined + 1 }, (_, n) => ({
        ...{ index: physical * 10 + n, functionName: `f${physical}`, source: undefined },
        ...{ pc, inlined: n < inlined, physical },
      })),
    )
  }

  locals(): readonly Value[] {
    return []
  }

  machineState(thread: number, frame: number) {
    this.#mustBeHalted()
    const { locals = [], stack = [] } = this.stacks.get(thread)?.[Math.floor(frame / 10)] ?? {}
    const values = (list: readonly [string, number | bigint][]): Value[] =>
      list.map(([type, scalar], n) => ({
        ...{ name: `$${n}`, type, display: String(scalar), scalar, address: undefined, bytes: undefined },
        ...{ path: undefined, indexed: 0, expandable: false, children: () => [] },
      }))
    return { locals: values(locals), stack: values(stack) }
  }

  globals(): readonly Value[] {
    return []
  }

  evaluate(): Value {
    throw new DebugError('expression', 'nothing is evaluated here')
  }

  assign(): Value {
    return this.evaluate()
  }

  complete(): readonly string[] {
    return []
  }

  readMemory(thread: number, address: number, bytes: number): Uint8Array {
    this.#mustBeHalted()
    this.calls.push(`read ${thread} ${address} ${bytes}`)
    return this.memory.slice(address, address + bytes)
  }

  writeMemory(thread: number, address: number, bytes: Uint8Array): void {
    this.#mustBeHalted()
    this.calls.push(`write ${thread} ${address} ${Buffer.from(bytes).toString('hex')}`)
    if (address + bytes.length > this.memory.length) throw new DebugError('memory', 'beyond the end of memory')
    this.memory.set(bytes, address)
  }

  memoryBytes(): number {
    return this.memory.length
  }

  disassemble(_thread: number, pc: number): readonly Instruction[] {
    return [{ pc, bytes: Uint8Array.of(0x0b), text: 'end', source: undefined }]
  }

  #mustBeHalted(): void {
    if (this.state === 'running') throw new DebugError('running', 'the farm is running')
  }
}
