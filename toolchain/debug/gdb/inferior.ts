/** The INIC that LLDB looks at: where it stands, its memory, its locals, and the modules that the farm runs. */
import { readWasmModule } from '../../firmware/wasm-module.ts'
import {
  DebugError,
  type DebugModule,
  type DebugThread,
  type SessionApi,
  type StackFrame,
  type Stop,
} from '../session/api.ts'
import { codeAddress, type WasmAddress } from './address.ts'
import { machineValueHex } from './machine-values.ts'
import { findDebugModule, withVisibleBranches } from './served-module.ts'

/**
 * Offset of no instruction: where an INIC stands between two slices, and where its outermost function returns to. It is within the
 * module's header, so that LLDB finds neither function nor line.
 */
export const BETWEEN_SLICES = 4

/** LLDB's number of the thread that is the INIC that is looked at, whichever that is. */
export const OWN_THREAD = 1

/**
 * A second thread, for the rest of the farm. To step over a call LLDB lets the other threads run, to step into one it does not: the one
 * difference in what it sends, and there is none with a single thread. It stands where nothing else does, lest a breakpoint be there.
 */
export const REST_OF_FARM = { id: 2, name: 'rest of the farm', pc: codeAddress(0, 0) } as const

export class Inferior {
  readonly #session: SessionApi
  readonly #projects: readonly string[]
  readonly #served = new Map<number, Uint8Array>()
  #thread: number
  /** The INIC counts as being between two slices, though it stands at the first line of the next. */
  #outside = false

  constructor(session: SessionApi, projects: readonly string[]) {
    this.#session = session
    this.#projects = projects
    this.#thread = session.threads.find(({ state }) => state !== 'off')?.id ?? 1
  }

  get thread(): DebugThread {
    const thread = this.#session.threads.find(({ id }) => id === this.#thread)
    if (thread === undefined) throw new DebugError('no-thread', 'the farm has no INIC')
    return thread
  }

  /** From now on that INIC is looked at. */
  select(thread: number): void {
    this.#thread = thread
    this.#outside = false
  }

  /**
   * The outermost function was finished. The engine then stands at the first line of the next slice; to LLDB it is where the function returned
   * to, and a step from there is one into the slice.
   */
  leaveSlice(): void {
    this.#outside = true
  }

  /** Undoes {@link leaveSlice}; false if there is nothing to undo. */
  enterSlice(): boolean {
    const wasOutside = this.#outside
    this.#outside = false
    return wasOutside
  }

  stoppedAt(stop: Stop): void {
    if (this.#session.threads.some(({ id }) => id === stop.thread)) this.#thread = stop.thread
  }

  get modules(): readonly DebugModule[] {
    return this.#session.modules
  }

  /** Index of the module that the INIC runs; 0 if it runs none. */
  get #module(): number {
    return Math.max(
      0,
      this.modules.findIndex(({ threads }) => threads.includes(this.#thread)),
    )
  }

  /** What LLDB reads of a module. */
  servedModule(index: number): Uint8Array | undefined {
    const module = this.modules[index]
    if (module === undefined) return undefined
    let served = this.#served.get(module.id)
    if (served === undefined) {
      served = withVisibleBranches(findDebugModule(module.wasm, this.#projects) ?? module.wasm)
      this.#served.set(module.id, served)
    }
    return served
  }

  /** Functions of wasm, innermost first; what was inlined into one counts with it. */
  get frames(): readonly StackFrame[] {
    if (this.#outside || this.thread.state === 'off') return []
    const frames = this.#session.frames(this.#thread)
    return frames.filter(({ physical }, index) => index === 0 || frames[index - 1].physical !== physical)
  }

  /** Addresses of the call stack; its outermost entry is no function. */
  callStack(): bigint[] {
    const module = this.#module
    return [...this.frames.map(({ pc }) => pc), BETWEEN_SLICES].map((pc) => codeAddress(module, pc))
  }

  pc(): bigint {
    return this.callStack()[0]
  }

  /** A local or an operand of a function, in hex; operands from the top of the stack. Undefined if there is none. */
  machineValue(kind: 'locals' | 'stack', frame: number, index: number): string | undefined {
    const entry = this.frames[frame]
    if (entry === undefined) return undefined
    const state = this.#session.machineState(this.#thread, entry.index)
    const value = kind === 'locals' ? state.locals[index] : state.stack[state.stack.length - 1 - index]
    return value && machineValueHex(value)
  }

  /** A constant of the module that the INIC runs, in hex; undefined for what is none. Firmware has no other globals. */
  global(index: number): string | undefined {
    const wasm = this.modules[this.#module]?.wasm
    const value = wasm && readWasmModule(wasm).globals[index]?.value
    if (value === undefined) return undefined
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return bytes.toString('hex')
  }

  /** At most `bytes`, less at the end; undefined: nothing is there. */
  read(address: WasmAddress, bytes: number): Uint8Array | undefined {
    const { offset } = address
    if (address.space === 'code') {
      const served = this.servedModule(address.module)
      return served && offset < served.length ? served.subarray(offset, offset + bytes) : undefined
    }
    if (this.thread.state === 'off' || offset >= this.#session.memoryBytes(this.#thread)) return undefined
    return this.#session.readMemory(this.#thread, offset, bytes)
  }

  /** @throws DebugError */
  write(address: WasmAddress, bytes: Uint8Array): void {
    if (address.space === 'code') throw new DebugError('memory', 'code cannot be written')
    this.#session.writeMemory(this.#thread, address.offset, bytes)
  }
}
