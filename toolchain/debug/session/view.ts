/** One INIC at one moment, as it is looked at. */
import type { DebugFrame } from '../../../emulator/cpu/index.ts'
import type { EvaluationContext, MemoryAccess, Scope, Value } from '../values/index.ts'
import { DebugError, type Instruction, type StackFrame } from './api.ts'
import type { LoadedFirmware } from './inic.ts'
import { checkNumber, explain, machineValues } from './looking.ts'

/** Most that one request may read or disassemble. */
const MAXIMUM_READ_BYTES = 16 << 20
const MAXIMUM_INSTRUCTIONS = 65_536
/** Of an instruction that is longer than most. */
const LONG_INSTRUCTION_BYTES = 12

export class View {
  readonly memory: MemoryAccess
  /** Frames of the machine, innermost first. */
  readonly physical: readonly DebugFrame[]
  readonly #firmware: LoadedFirmware
  #stack: readonly StackFrame[] | undefined

  readonly #entering: number

  /**
   * @param memory can be written in the present alone
   * @param entering innermost functions that begin with the next instruction and are not shown
   */
  constructor(firmware: LoadedFirmware, memory: MemoryAccess, frames: readonly DebugFrame[], entering: number) {
    this.#entering = entering
    this.#firmware = firmware
    this.memory = memory
    this.physical = frames
  }

  /** Frames as the source has them. */
  get stack(): readonly StackFrame[] {
    this.#stack ??= this.#stackFrames()
    return this.#stack
  }

  locals(frame: number): readonly Value[] {
    const { scope, context } = this.#at(frame)
    return this.#firmware.values.locals(scope, context)
  }

  machineState(frame: number): { readonly locals: readonly Value[]; readonly stack: readonly Value[] } {
    const { locals, stack } = this.physical[this.#frame(frame).physical]!
    return { locals: machineValues(locals, '$'), stack: machineValues(stack, '') }
  }

  globals(): readonly Value[] {
    const { values } = this.#firmware
    return [...values.tables(this.memory), ...values.registers(this.memory)]
  }

  evaluate(expression: string, frame: number | undefined): Value {
    const { scope, context } = this.#at(frame)
    return explain(() => this.#firmware.values.evaluate(expression, context, scope))
  }

  assign(expression: string, value: string, frame: number | undefined): Value {
    const { scope, context } = this.#at(frame)
    if (this.memory.write === undefined) throw pastError()
    const { values } = this.#firmware
    return explain(() => values.compile(expression, scope).assign(context, values.compile(value, scope)))
  }

  complete(text: string, frame: number | undefined): readonly string[] {
    const { scope } = this.#at(frame)
    const { start, items } = this.#firmware.values.complete(text, text.length, scope)
    return items.map((item) => text.slice(0, start) + item.text)
  }

  readMemory(address: number, bytes: number): Uint8Array {
    const start = checkNumber(address, this.memory.size)
    const length = Math.min(checkNumber(bytes, MAXIMUM_READ_BYTES), this.memory.size - start)
    return this.memory.read(start, length)!.slice()
  }

  writeMemory(address: number, bytes: Uint8Array): void {
    const { size, write } = this.memory
    if (write === undefined) throw pastError()
    if (!Number.isSafeInteger(address) || address < 0 || address + bytes.length > size) {
      const range = `${bytes.length} bytes at ${address}`
      throw new DebugError('memory', `${range} are not within the ${size} bytes of INIC memory`)
    }
    write(address, bytes)
  }

  disassemble(pc: number, count: number, before: number): readonly Instruction[] {
    const { program } = this.#firmware
    const end = program.wasm.length
    const at = checkNumber(pc, end)
    const wanted = checkNumber(count, MAXIMUM_INSTRUCTIONS)
    const wantedBefore = checkNumber(before, MAXIMUM_INSTRUCTIONS)
    const reach = (instructions: number) => (instructions + 1) * LONG_INSTRUCTION_BYTES
    const following = program.instructions(at, Math.min(at + reach(wanted), end)).slice(0, wanted)
    const preceding = program.instructions(Math.max(at - reach(wantedBefore), 0), at)
    return [...preceding.slice(preceding.length - Math.min(wantedBefore, preceding.length)), ...following].map(
      (instruction) => ({
        pc: instruction.pc,
        bytes: program.wasm.subarray(instruction.pc, instruction.pc + instruction.bytes),
        text: instruction.text,
        source: program.positionAt(instruction.pc),
      }),
    )
  }

  #stackFrames(): StackFrame[] {
    const { program } = this.#firmware
    const stack: StackFrame[] = []
    for (const [physical, { pc, functionName, functionIndex }] of this.physical.entries()) {
      const frames = program.frames(pc, { caller: physical > 0 }).slice(physical > 0 ? 0 : this.#entering)
      for (const { name, source, inline } of frames)
        stack.push({ index: stack.length, functionName: name, source, pc, inlined: inline, physical })
      if (frames.length > 0) continue
      const name = functionName ?? `function ${functionIndex}`
      stack.push({ index: stack.length, functionName: name, source: undefined, pc, inlined: false, physical })
    }
    return stack
  }

  #frame(index: number): StackFrame {
    const frame = this.stack[index]
    if (frame === undefined) throw new DebugError('no-frame', `there is no frame ${index}`)
    return frame
  }

  /** Where names are looked up, in a frame or without one. */
  #at(index: number | undefined): { readonly scope: Scope; readonly context: EvaluationContext } {
    const { memory } = this
    if (index === undefined || this.physical.length === 0) return { scope: {}, context: { memory } }
    const { pc, physical } = this.#frame(index)
    const innermost = this.stack.find((frame) => frame.physical === physical)!
    return {
      scope: { pc, caller: physical > 0, inline: index - innermost.index + (physical > 0 ? 0 : this.#entering) },
      context: { memory, frame: { locals: () => this.physical[physical]!.locals } },
    }
  }
}

function pastError(): DebugError {
  return new DebugError('past', 'the past cannot be changed; go to the present first')
}
