/** Types of the expression language, and how a value of each lies in INIC memory. */

import { type ClassLayout, findClass, type Layouts } from '../../firmware/layouts.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'
import { HARDWARE_LAYOUTS } from './hardware.ts'
import type { Scalar } from './types.ts'

export interface IntegerType {
  readonly kind: 'integer'
  readonly name: string
  readonly bits: 8 | 16 | 32 | 64 | 128
  readonly signed: boolean
}

export type Type =
  | IntegerType
  | { readonly kind: 'float'; readonly name: string; readonly bits: 32 | 64 }
  | { readonly kind: 'bool'; readonly name: 'bool' }
  /** A number of the source or of the expression: it takes the type of what it is combined with. */
  | { readonly kind: 'literal'; readonly name: string }
  /** A reference: the value is the object's address, 0 for null. */
  | { readonly kind: 'class'; readonly name: string; readonly layout: ClassLayout }
  | { readonly kind: 'pointer'; readonly name: string; readonly element: Type }

function integer(name: string, bits: IntegerType['bits'], signed: boolean): IntegerType {
  return { kind: 'integer', name, bits, signed }
}

export const U8 = integer('u8', 8, false)
export const U16 = integer('u16', 16, false)
export const U32 = integer('u32', 32, false)
export const I32 = integer('i32', 32, true)
export const U64 = integer('u64', 64, false)
export const I64 = integer('i64', 64, true)
export const BOOL: Type = { kind: 'bool', name: 'bool' }
export const F64: Type = { kind: 'float', name: 'f64', bits: 64 }
export const LITERAL: Type = { kind: 'literal', name: 'number' }

const BUILT_IN: ReadonlyMap<string, Type> = new Map(
  [
    U8,
    U16,
    U32,
    U64,
    integer('i8', 8, true),
    integer('i16', 16, true),
    I32,
    I64,
    integer('usize', 32, false),
    integer('isize', 32, true),
    integer('v128', 128, false),
    BOOL,
    F64,
    { kind: 'float', name: 'f32', bits: 32 } satisfies Type,
  ].map((type) => [type.name, type as Type]),
)

/** Names of the types that need no class. */
export const BUILT_IN_TYPES: readonly string[] = [...BUILT_IN.keys()]

/** The type of this name: built in, or a class of the firmware or of the hardware; undefined if there is none. */
export function typeNamed(name: string, layouts: Layouts | undefined): Type | undefined {
  const known = BUILT_IN.get(name)
  if (known) return known
  const layout = (layouts && findClass(layouts, name)) ?? HARDWARE_LAYOUTS.find((one) => one.name === name)
  return layout && { kind: 'class', name, layout }
}

/** Bytes that a value takes in memory; of a reference those of the address. */
export function byteSize(type: Type): number {
  switch (type.kind) {
    case 'integer':
    case 'float':
      return type.bits / 8
    case 'bool':
      return 1
    default:
      return 4
  }
}

/** Reads a value; undefined if any of its bytes is outside of INIC memory. */
export type Reader = (memory: MemoryAccess, address: number) => Scalar | undefined

/** A reader for a type, chosen once. */
export function readerOf(type: Type): Reader {
  const decode = decoderOf(type)
  const bytes = byteSize(type)
  return (memory, address) => {
    if (address < 0 || address + bytes > memory.size) return undefined
    const { view } = memory
    if (view !== undefined) return decode(view, address)
    const read = memory.read(address, bytes)
    return read && decode(new DataView(read.buffer, read.byteOffset, read.byteLength), 0)
  }
}

function decoderOf(type: Type): (view: DataView, at: number) => Scalar {
  if (type.kind === 'bool') return (view, at) => view.getUint8(at) !== 0
  if (type.kind === 'float') {
    return type.bits === 32 ? (view, at) => view.getFloat32(at, true) : (view, at) => view.getFloat64(at, true)
  }
  if (type.kind !== 'integer') return (view, at) => view.getUint32(at, true)
  switch (type.bits) {
    case 8:
      return type.signed ? (view, at) => view.getInt8(at) : (view, at) => view.getUint8(at)
    case 16:
      return type.signed ? (view, at) => view.getInt16(at, true) : (view, at) => view.getUint16(at, true)
    case 32:
      return type.signed ? (view, at) => view.getInt32(at, true) : (view, at) => view.getUint32(at, true)
    case 64:
      return type.signed ? (view, at) => view.getBigInt64(at, true) : (view, at) => view.getBigUint64(at, true)
    case 128:
      return (view, at) => view.getBigUint64(at, true) | (view.getBigUint64(at + 8, true) << 64n)
  }
}

/** The bytes of a value of `type`; undefined if it does not fit. -1 fits an unsigned type, as all ones. */
export function encode(type: Type, value: Scalar): Uint8Array | undefined {
  const bytes = new Uint8Array(byteSize(type))
  const view = new DataView(bytes.buffer)
  if (type.kind === 'float') {
    if (type.bits === 32) view.setFloat32(0, Number(value), true)
    else view.setFloat64(0, Number(value), true)
    return bytes
  }
  if (type.kind === 'bool') {
    bytes[0] = Number(value) === 0 ? 0 : 1
    return bytes
  }
  if (typeof value === 'number' && !Number.isInteger(value)) return undefined
  const whole = BigInt(value)
  const bits = BigInt(bytes.length * 8)
  if (whole < -(1n << (bits - 1n)) || whole >= 1n << bits) return undefined
  const unsigned = BigInt.asUintN(Number(bits), whole)
  for (let index = 0; index < bytes.length; index++) bytes[index] = Number((unsigned >> BigInt(index * 8)) & 0xffn)
  return bytes
}

/** A wasm local as a value of `type`: an i32 is signed there, whatever the source makes of it. */
export function fromLocal(type: Type, value: number | bigint): Scalar {
  switch (type.kind) {
    case 'bool':
      return Number(value) !== 0
    case 'float':
      return Number(value)
    case 'integer': {
      if (type.bits > 32)
        return type.signed ? BigInt.asIntN(type.bits, BigInt(value)) : BigInt.asUintN(type.bits, BigInt(value))
      const number = Number(value) | 0
      if (type.bits === 32) return type.signed ? number : number >>> 0
      const shift = 32 - type.bits
      return type.signed ? (number << shift) >> shift : (number << shift) >>> shift
    }
    default:
      return Number(value) >>> 0
  }
}
