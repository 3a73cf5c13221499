/** Instructions as text, in WebAssembly's text format as far as single instructions can be. */
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import { functionName, type WasmModule } from '../../firmware/wasm-module.ts'
import type { Instruction, InstructionKind } from './types.ts'

/** @param localName name of a local of the function it is in, if it has one */
export function describeInstruction(
  instruction: DecodedInstruction,
  module: WasmModule,
  isLast: boolean,
  localName: (index: number) => string | undefined,
): Instruction {
  const { pc, bytes } = instruction
  return { pc, bytes, kind: kindOf(instruction, isLast), text: instructionText(instruction, module, localName) }
}

function kindOf({ opcode: { name, accessBytes, stores } }: DecodedInstruction, isLast: boolean): InstructionKind {
  if (accessBytes !== undefined) return stores ? 'store' : 'load'
  switch (name) {
    case 'call':
    case 'return_call':
      return 'call'
    case 'call_indirect':
    case 'return_call_indirect':
      return 'call_indirect'
    case 'return':
    case 'unreachable':
      return name
    case 'end':
      return isLast ? 'end of function' : 'control'
    case 'block':
    case 'loop':
    case 'if':
    case 'else':
    case 'br':
    case 'br_if':
    case 'br_table':
      return 'control'
    case 'memory.copy':
    case 'memory.fill':
    case 'memory.init':
      return 'bulk memory'
    default:
      return 'other'
  }
}

function instructionText(
  instruction: DecodedInstruction,
  module: WasmModule,
  localName: (index: number) => string | undefined,
): string {
  const { opcode, index, list, constant, offset, align, blockType } = instruction
  const { name } = opcode
  switch (opcode.immediates) {
    case 'none':
    case 'zero':
    case 'memory':
    case 'memory copy':
      return name
    case 'block':
      return blockType === '' ? name : `${name} (${blockType.startsWith('type') ? '' : 'result '}${blockType})`
    case 'function':
      return `${name} $${functionName(module, index).replaceAll(' ', '_')}`
    case 'local': {
      const known = localName(index)
      return known === undefined ? `${name} ${index}` : `${name} $${known}`
    }
    case 'global':
      return `${name} ${module.globals[index]?.name === undefined ? index : `$${module.globals[index].name}`}`
    case 'call_indirect':
      return `${name} (type ${index})`
    case 'memarg':
    case 'memarg lane': {
      const parts = [name]
      if (offset !== 0) parts.push(`offset=${offset}`)
      if (2 ** align !== opcode.accessBytes) parts.push(`align=${2 ** align}`)
      if (opcode.immediates === 'memarg lane') parts.push(String(index))
      return parts.join(' ')
    }
    case 'v128':
      return `${name} i32x4 ${lanes(constant as bigint).join(' ')}`
    case 'i32':
    case 'i64':
      return `${name} ${constant}`
    case 'f32':
    case 'f64':
      return `${name} ${floatText(constant as number)}`
    case 'labels':
    case 'lanes':
      return `${name} ${list.join(' ')}`
    case 'reference type':
      return `${name} ${blockType === 'funcref' ? 'func' : 'extern'}`
    case 'value types':
      return `${name} (result ${blockType})`
    default:
      return [name, index, ...list].join(' ')
  }
}

/** As the text format writes it. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf'
  return Object.is(value, -0) ? '-0' : String(value)
}

function lanes(value: bigint): string[] {
  return [0n, 32n, 64n, 96n].map((shift) => `0x${((value >> shift) & 0xffffffffn).toString(16).padStart(8, '0')}`)
}
