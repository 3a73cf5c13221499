/**
 * The firmware in the JavaScript engine's own WebAssembly.
 *
 * Runs where no addon was built. It counts no cycles, has no watchdog - an endless loop of the firmware ends with its
 * thread only - and no bus guard.
 */

import {
  type Cpu,
  CpuError,
  type CpuFault,
  type CpuFaultKind,
  type CpuFrame,
  type CpuOptions,
  POLL_STOPPED,
  USED_PAGE_BYTES,
  WASM_PAGE_BYTES,
} from './cpu.ts'
import { functionNames, readConstants } from './firmware.ts'
import { checkOptions } from './options.ts'

/** V8's words for a trap (`src/common/message-template.h`), by what they begin with or contain. */
const FAULTS: readonly (readonly [RegExp, CpuFaultKind])[] = [
  [/^unreachable/, 'unreachable'],
  [/^(memory access|data segment) out of bounds/, 'memory-out-of-bounds'],
  [/^(divide|remainder) by zero/, 'divide-by-zero'],
  [/^divide result unrepresentable/, 'integer-overflow'],
  [/^float unrepresentable/, 'invalid-conversion'],
  [/table index|table access|signature mismatch/, 'indirect-call'],
  [/^Maximum call stack size exceeded/, 'stack-overflow'],
]

/** Compiled firmware by content, so that a farm of equal boards compiles once; the engine has no such cache of its own. */
const compiled: { bytes: Buffer; module: WebAssembly.Module }[] = []
const COMPILED_KEPT = 16

function compile(bytes: Uint8Array): WebAssembly.Module {
  const known = compiled.find((entry) => entry.bytes.equals(bytes))
  if (known) return known.module
  // A copy: what the caller passed may change.
  const copy = Buffer.from(bytes)
  return keep(copy, new WebAssembly.Module(copy))
}

function keep(bytes: Buffer, module: WebAssembly.Module): WebAssembly.Module {
  compiled.unshift({ bytes, module })
  compiled.length = Math.min(compiled.length, COMPILED_KEPT)
  return module
}

/** Compiles for CPUs to come, while JavaScript goes on. Throws ERR_CPU_MODULE. */
export async function precompileForV8(bytes: Uint8Array): Promise<void> {
  const copy = Buffer.from(bytes)
  try {
    keep(copy, await WebAssembly.compile(copy))
  } catch (cause) {
    throw notCompiled(cause)
  }
}

const notCompiled = (cause: unknown) =>
  new CpuError('ERR_CPU_MODULE', `the firmware does not compile: ${cause}`, { cause })

export class V8Cpu implements Cpu {
  readonly kind = 'v8'
  readonly halted = false
  readonly cycles = 0
  readonly stored = true
  #instanceMemory: WebAssembly.Memory | null
  #memory: ArrayBuffer
  #fault: CpuFault | null = null
  #reset: () => void
  #poll: (irqs: number) => number
  #module: Uint8Array

  /**
   * With a memory of its own, or over another CPU's. Throws ERR_CPU_MODULE, ERR_CPU_MEMORY. Options are checked by `createCpu`.
   */
  constructor({ module, memoryBytes }: CpuOptions, over?: WebAssembly.Memory) {
    this.#module = module
    const memory = over ?? createMemory(memoryBytes)
    let code: WebAssembly.Module
    try {
      code = compile(module)
    } catch (cause) {
      throw notCompiled(cause)
    }
    try {
      const { exports } = new WebAssembly.Instance(code, { env: { memory } })
      // checkFirmware has seen their types.
      this.#reset = exports.reset as () => void
      this.#poll = exports.poll as (irqs: number) => number
    } catch (cause) {
      throw new CpuError('ERR_CPU_MODULE', `the firmware does not start: ${cause}`, { cause })
    }
    this.#instanceMemory = memory
    this.#memory = memory.buffer
  }

  get memory(): ArrayBuffer {
    return this.#memory
  }

  get fault(): CpuFault | null {
    return this.#fault
  }

  reset(): boolean {
    this.#fault = null
    try {
      this.#reset()
      return !this.#disposed
    } catch (error) {
      this.#fault = faultOf(error, this.#module)
      return false
    }
  }

  poll(irqs: number): number {
    if (this.#fault !== null || this.#disposed) return POLL_STOPPED
    try {
      return this.#poll(irqs) >>> 0
    } catch (error) {
      this.#fault = faultOf(error, this.#module)
      return POLL_STOPPED
    }
  }

  clearFault(): void {
    this.#fault = null
  }

  successor(module: Uint8Array, constants: { readonly start: number; readonly end: number }): V8Cpu {
    if (this.#instanceMemory === null) throw new CpuError('ERR_CPU_DISPOSED', 'the CPU was disposed of')
    if (this.#fault !== null) throw new CpuError('ERR_CPU_STATE', 'the firmware is stopped')
    const options = { module, memoryBytes: this.#memory.byteLength }
    checkOptions(options)
    // To see that there is nothing else in it: instantiating writes the segments.
    readConstants(module, constants)
    return new V8Cpu(options, this.#instanceMemory)
  }

  usedPages(): Uint32Array {
    return Uint32Array.of(0, this.#memory.byteLength / USED_PAGE_BYTES)
  }

  get #disposed(): boolean {
    return this.#memory.byteLength === 0
  }

  dispose(): void {
    // A memory cannot be taken from its instance: what others still hold goes with them.
    this.#instanceMemory = null
    this.#memory = new ArrayBuffer(0)
    this.#reset = () => {}
    this.#poll = () => POLL_STOPPED
    this.#module = new Uint8Array(0)
  }
}

function createMemory(memoryBytes: number): WebAssembly.Memory {
  const pages = memoryBytes / WASM_PAGE_BYTES
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages })
  } catch (cause) {
    throw new CpuError('ERR_CPU_MEMORY', `no INIC memory of ${memoryBytes} bytes: ${cause}`, { cause })
  }
}

function faultOf(error: unknown, module: Uint8Array): CpuFault {
  const { message = String(error), stack = '' } = error instanceof Error ? error : {}
  const kind = FAULTS.find(([words]) => words.test(message))?.[1] ?? 'internal'
  // Lines such as "at tcp/rcv/accept (wasm://wasm/0f3a2b1c:wasm-function[17]:0x1a2b)".
  const places = stack.matchAll(/wasm-function\[(\d+)\]:0x([0-9a-f]+)/g)
  const names = functionNames(module)
  const frames = Array.from(places, ([, index, offset]): CpuFrame => {
    const functionName = names.get(Number(index))
    const frame = { functionIndex: Number(index), pc: Number.parseInt(offset, 16) }
    return functionName === undefined ? frame : { ...frame, functionName }
  })
  return { kind, message, frames }
}
