/** Decodes the instructions of a function's body. What they mean is in wasm-opcodes.ts. */

import { WasmCursor } from './wasm-cursor.ts'
import { type CodeRange, VALUE_TYPES } from './wasm-module.ts'
import { CORE_OPCODES, type Opcode, PREFIXED_OPCODES } from './wasm-opcodes.ts'

export interface DecodedInstruction {
  /** Offset in the module. */
  readonly pc: number
  /** Encoded length. */
  readonly bytes: number
  readonly opcode: Opcode
  /** Index of a local, global, function, type, table or data segment; of the first label of a branch; a lane. */
  readonly index: number
  /** Static offset of a memory access. */
  readonly offset: number
  /** Alignment of a memory access, as a power of two. */
  readonly align: number
  /** Of a constant; a v128 is an unsigned integer of 128 bits. */
  readonly constant: number | bigint | undefined
  /** Labels of a br_table, the default last; lanes of a shuffle; further indices. */
  readonly list: readonly number[]
  /** Result of a block: a value type, `type N`, or empty. */
  readonly blockType: string
  /** Blocks open before it. */
  readonly depth: number
}

export interface FunctionBody {
  /** wasm value types of the locals that are no parameters. */
  readonly locals: readonly string[]
  /** Offset of the first instruction. */
  readonly start: number
  readonly instructions: readonly DecodedInstruction[]
}

/** Most locals of a function that a decoder accepts; engines have the same limit. */
const MAXIMUM_LOCALS = 50_000

/** Decodes a whole body. @throws WasmFormatError, naming the byte */
export function decodeFunction(wasm: Uint8Array, range: CodeRange): FunctionBody {
  return new BodyReader(wasm, range).read()
}

class BodyReader extends WasmCursor {
  constructor(bytes: Uint8Array, range: CodeRange) {
    super(bytes, range.start, range.end)
  }

  read(): FunctionBody {
    const locals: string[] = []
    for (let groups = this.u32(); groups > 0; groups--) {
      const count = this.u32()
      const type = this.#valueType()
      if (locals.length + count > MAXIMUM_LOCALS) throw this.error(`more than ${MAXIMUM_LOCALS} locals`)
      for (let left = count; left > 0; left--) locals.push(type)
    }
    const start = this.at
    const instructions: DecodedInstruction[] = []
    let depth = 0
    while (this.at < this.end) {
      const instruction = this.#instruction(depth)
      const { name } = instruction.opcode
      if (instruction.opcode.immediates === 'block') depth++
      else if (name === 'end' && --depth < 0 && this.at !== this.end) throw this.error('code behind the last end')
      instructions.push(instruction)
    }
    if (depth !== -1) throw this.error('the body ends within a block')
    return { locals, start, instructions }
  }

  #instruction(depth: number): DecodedInstruction {
    const pc = this.at
    const opcode = this.#opcode()
    let [index, offset, align] = [0, 0, 0]
    let constant: number | bigint | undefined
    let list: number[] = []
    let blockType = ''
    switch (opcode.immediates) {
      case 'none':
        break
      case 'block':
        blockType = this.#blockType()
        break
      case 'labels':
        list = this.#list()
        list.push(this.u32())
        break
      case 'label':
      case 'function':
      case 'local':
      case 'global':
      case 'table':
      case 'element':
      case 'memory':
      case 'data':
        index = this.u32()
        break
      case 'call_indirect':
      case 'memory init':
      case 'memory copy':
      case 'table init':
      case 'table copy':
        index = this.u32()
        list = [this.u32()]
        break
      case 'memarg':
      case 'memarg lane':
        align = this.u32()
        if (align & 0x40) this.u32() // a memory other than 0
        offset = this.u32()
        if (opcode.immediates === 'memarg lane') index = this.byte()
        break
      case 'lane':
      case 'zero':
        index = this.byte()
        break
      case 'lanes':
        list = Array.from({ length: 16 }, () => this.byte())
        break
      case 'i32':
        constant = Number(BigInt.asIntN(32, this.signed()))
        break
      case 'i64':
        constant = this.signed()
        break
      case 'f32':
        this.need(4)
        constant = this.view.getFloat32(this.at, true)
        this.at += 4
        break
      case 'f64':
        this.need(8)
        constant = this.view.getFloat64(this.at, true)
        this.at += 8
        break
      case 'v128':
        this.need(16)
        constant = this.view.getBigUint64(this.at, true) | (this.view.getBigUint64(this.at + 8, true) << 64n)
        this.at += 16
        break
      case 'reference type':
        blockType = this.#valueType()
        break
      case 'value types':
        blockType = Array.from({ length: this.#count() }, () => this.#valueType()).join(' ')
    }
    // The end of a block stands outside of it, and so does an else.
    const within = opcode.name === 'end' || opcode.name === 'else' ? Math.max(0, depth - 1) : depth
    return { pc, bytes: this.at - pc, opcode, index, offset, align, constant, list, blockType, depth: within }
  }

  #opcode(): Opcode {
    const first = this.byte()
    const prefixed = PREFIXED_OPCODES.get(first)
    if (prefixed === undefined) {
      const opcode = CORE_OPCODES.get(first)
      if (opcode === undefined) throw this.error(`opcode 0x${first.toString(16)}`)
      return opcode
    }
    const second = this.u32()
    const opcode = prefixed.get(second)
    if (opcode === undefined) throw this.error(`opcode 0x${first.toString(16)} ${second}`)
    return opcode
  }

  #blockType(): string {
    const code = this.signed()
    if (code === -64n) return ''
    if (code >= 0n) return `type ${code}`
    const type = VALUE_TYPES.get(Number(code & 0x7fn))
    if (type === undefined) throw this.error(`block type ${code}`)
    return type
  }

  #valueType(): string {
    const code = this.byte()
    const type = VALUE_TYPES.get(code)
    if (type === undefined) throw this.error(`value type 0x${code.toString(16)}`)
    return type
  }

  #list(): number[] {
    return Array.from({ length: this.#count() }, () => this.u32())
  }

  /** A number of things that each take a byte at least. */
  #count(): number {
    const count = this.u32()
    if (count > this.end - this.at) throw this.error(`${count} entries announced and the body ends before`)
    return count
  }

  protected override shortage(): string {
    return 'an instruction that goes beyond its function'
  }
}
