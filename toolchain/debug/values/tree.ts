/** Values as front ends show them: scalars, objects of a class, tables, arrays. */

import { DESCRIPTOR_ADDRESS, DESCRIPTOR_LENGTH, MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../../abi/rings.ts'
import { formatIpv4 } from '../../config/addresses.ts'
import type { ClassLayout, Layouts } from '../../firmware/layouts.ts'
import type { TableExtent } from '../../inspect/directory.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'
import { tcpStateName } from '../../inspect/names.ts'
import { frameValue } from './frame.ts'
import { FRAME_DESCRIPTOR } from './hardware.ts'
import { fieldMeaning, type Meaning, meaningText } from './meanings.ts'
import type { TableName } from './tables.ts'
import { byteSize, readerOf, type Type, typeNamed, U32 } from './type-model.ts'
import type { Scalar, Value } from './types.ts'

/** What a program gives to values: its classes and the names of its numbers. */
export interface World {
  readonly layouts: Layouts | undefined
  readonly constants: ReadonlyMap<string, number>
}

/** Most bytes shown in one line. */
const SHOWN_BYTES = 32

/** What a field outside of INIC memory shows. */
const OUTSIDE = '<outside of INIC memory>'

interface Leaf {
  readonly name: string
  readonly type: string
  readonly display: string
  readonly scalar?: Scalar | undefined
  readonly address?: number | undefined
  readonly bytes?: number | undefined
  readonly path?: string | undefined
}

function leaf({ name, type, display, scalar, address, bytes, path }: Leaf): Value {
  return { name, type, display, scalar, address, bytes, path, indexed: 0, expandable: false, children: () => [] }
}

/** A line of text in the tree. */
export function textValue(name: string, type: string, display: string): Value {
  return leaf({ name, type, display })
}

export interface CellOptions {
  readonly name: string
  readonly type: Type
  readonly meaning?: Meaning | undefined
  readonly scalar: Scalar | undefined
  /** Where the scalar itself stands. */
  readonly address?: number | undefined
  readonly path?: string | undefined
}

/** A number, or what a reference refers to. */
export function cell(world: World, memory: MemoryAccess, options: CellOptions): Value {
  const { name, type, meaning, scalar, address, path } = options
  if (scalar === undefined) return leaf({ name, type: type.name, display: OUTSIDE, address, path })
  if (type.kind === 'class') {
    if (Number(scalar) === 0) return leaf({ name, type: type.name, display: 'null', scalar: 0, path })
    return objectValue(world, memory, { name, layout: type.layout, address: Number(scalar), path })
  }
  if (type.kind === 'pointer') return pointerValue(world, memory, type.element, options)
  const bytes = address === undefined ? undefined : byteSize(type)
  const display = scalarText(world, type, meaning, scalar)
  return leaf({ name, type: typeText(type, meaning), display, scalar, address, bytes, path })
}

function typeText(type: Type, meaning: Meaning | undefined): string {
  if (meaning?.kind === 'ip') return 'IPv4 address'
  if (meaning?.kind === 'mac') return 'MAC address'
  return type.name
}

/** `80 (0x50)`, `ESTABLISHED (3)`, `192.0.2.1 (0xc0000201)`, `true`. */
export function scalarText(world: World, type: Type, meaning: Meaning | undefined, scalar: Scalar): string {
  if (type.kind === 'bool' || typeof scalar === 'boolean') return String(Boolean(scalar))
  if (type.kind === 'float') return String(scalar)
  const words = meaning && meaningText(meaning, scalar, world.constants)
  if (meaning?.kind === 'ip' || meaning?.kind === 'mac' || meaning?.kind === 'bits') return `${words} (${hex(scalar)})`
  if (words !== undefined) return `${words} (${scalar})`
  if (meaning?.kind === 'hex' && Number(scalar) !== 0) return hex(scalar)
  if (typeof scalar === 'number' && !Number.isInteger(scalar)) return String(scalar)
  return scalar > -10 && scalar < 10 ? String(scalar) : `${scalar} (${hex(scalar)})`
}

function hex(value: Scalar): string {
  const number = BigInt(value)
  return number < 0n ? `-0x${(-number).toString(16)}` : `0x${number.toString(16)}`
}

export interface ObjectOptions {
  readonly name: string
  readonly layout: ClassLayout
  readonly address: number
  readonly path?: string | undefined
}

/** An object of a class at an address. */
export function objectValue(world: World, memory: MemoryAccess, options: ObjectOptions): Value {
  const { name, layout, address, path = `<${layout.name}>0x${address.toString(16)}` } = options
  if (address < 0 || address + layout.bytes > memory.size) {
    return leaf({ name, type: layout.name, display: `${hex(address)} ${OUTSIDE}`, scalar: address, path })
  }
  return {
    name,
    type: layout.name,
    get display() {
      return objectText(world, memory, layout, address)
    },
    scalar: address,
    address,
    bytes: layout.bytes,
    path,
    indexed: 0,
    expandable: layout.fields.length > 0,
    children: () => [
      ...layout.fields.map((field) => fieldValue(world, memory, layout, address, field.name, `${path}.${field.name}`)),
      ...(layout === FRAME_DESCRIPTOR ? frameOf(memory, address) : []),
    ],
  }
}

/** The frame in the buffer of a MAC ring's descriptor; none in one that is empty, as a receive buffer that waits is not. */
function frameOf(memory: MemoryAccess, descriptor: number): Value[] {
  const word = (offset: number) => Number(readerOf(U32)(memory, descriptor + offset) ?? 0)
  const bytes = word(DESCRIPTOR_LENGTH)
  if (bytes < MAC_MINIMUM_FRAME || bytes > MAC_MAXIMUM_FRAME) return []
  const frame = frameValue(memory, word(DESCRIPTOR_ADDRESS), bytes, 'frame')
  return frame === undefined ? [] : [frame]
}

function fieldValue(
  world: World,
  memory: MemoryAccess,
  layout: ClassLayout,
  address: number,
  name: string,
  path: string,
): Value {
  const field = layout.fields.find((one) => one.name === name)
  if (field === undefined) return leaf({ name, type: '', display: '' })
  const type = fieldType(world, field.type, field.bytes)
  const at = address + field.offset
  const meaning = fieldMeaning(layout.name, name, field.type)
  return cell(world, memory, { name, type, meaning, scalar: readerOf(type)(memory, at), address: at, path })
}

/** The type of a field; an unsigned integer of its size, if its own is not known. */
export function fieldType(world: World, name: string, bytes: number): Type {
  return typeNamed(name, world.layouts) ?? typeNamed(`u${bytes * 8}`, undefined) ?? U32
}

/** `Tcb 0x24140 192.0.2.1:80 - 198.51.100.7:40000 ESTABLISHED`: what most tells one object from another. */
function objectText(world: World, memory: MemoryAccess, layout: ClassLayout, address: number): string {
  const number = (name: string): number | undefined => {
    const field = layout.fields.find((one) => one.name === name)
    if (field === undefined) return undefined
    const scalar = readerOf(fieldType(world, field.type, field.bytes))(memory, address + field.offset)
    return scalar === undefined ? undefined : Number(scalar)
  }
  const words = [layout.name, hex(address)]
  const far = endpoint(number('remoteAddress'), number('remotePort'))
  const isPlace = layout.name.endsWith('Descriptor')
  const near =
    endpoint(number('localAddress'), number('localPort')) ??
    (isPlace ? undefined : endpoint(number('address'), number('port')))
  if (near !== undefined) words.push(far === undefined ? near : `${near} - ${far}`)
  for (const name of ['state', 'kind', 'phase', 'owner', 'event']) {
    const value = number(name)
    const meaning = fieldMeaning(layout.name, name, 'u8')
    if (value === undefined || meaning === undefined) continue
    words.push(
      meaning.kind === 'tcp state' ? tcpStateName(value) : (meaningText(meaning, value, world.constants) ?? ''),
    )
  }
  return words.join(' ').trimEnd()
}

function endpoint(address: number | undefined, port: number | undefined): string | undefined {
  if (address === undefined) return undefined
  const text = address === 0 ? '*' : formatIpv4(address >>> 0)
  return port === undefined ? text : `${text}:${port}`
}

export interface TableOptions {
  readonly name: string
  readonly table: TableName
  readonly extent: TableExtent
  readonly layout: ClassLayout | undefined
}

/** A table of the firmware directory, its rows by number. */
export function tableValue(world: World, memory: MemoryAccess, { name, table, extent, layout }: TableOptions): Value {
  const { base, stride, count } = extent
  if (table.single && layout !== undefined)
    return objectValue(world, memory, { name, layout, address: base, path: name })
  return {
    name,
    type: `${layout?.name ?? 'bytes'}[${count}]`,
    display: `${count} rows of ${stride} bytes at ${hex(base)}`,
    scalar: undefined,
    address: base,
    bytes: stride * count,
    path: name,
    indexed: count,
    expandable: count > 0,
    children: (start = 0, wanted = count) =>
      range(start, wanted, count).map((index) =>
        layout === undefined
          ? bytesValue(memory, { name: `[${index}]`, address: base + index * stride, bytes: stride })
          : objectValue(world, memory, {
              name: `[${index}]`,
              layout,
              address: base + index * stride,
              path: `${name}[${index}]`,
            }),
      ),
  }
}

export interface ElementsOptions {
  readonly name: string
  readonly type: Type
  readonly meaning?: Meaning | undefined
  readonly address: number
  readonly stride: number
  readonly count: number
  /** Path of one element. */
  readonly path: (index: number) => string
  /** The elements are objects themselves, and no references to such. */
  readonly inline?: boolean
}

/** Equal things one after the other: `u8[0x24000, 16]`, `tcb[*].state`. */
export function elementsValue(world: World, memory: MemoryAccess, options: ElementsOptions): Value {
  const { name, type, meaning, address, stride, count, path, inline = false } = options
  const read = readerOf(type)
  return {
    name,
    type: `${type.name}[${count}]`,
    get display() {
      if (type.name === 'u8' && stride === 1) return bytesText(memory, address, count)
      return `${count} × ${type.name} at ${hex(address)}`
    },
    scalar: undefined,
    address,
    bytes:
      count === 0 ? 0 : (count - 1) * stride + (inline && type.kind === 'class' ? type.layout.bytes : byteSize(type)),
    path: name,
    indexed: count,
    expandable: count > 0,
    children: (start = 0, wanted = count) =>
      range(start, wanted, count).map((index) => {
        const at = address + index * stride
        const common = { name: `[${index}]`, path: path(index) }
        if (inline && type.kind === 'class')
          return objectValue(world, memory, { ...common, layout: type.layout, address: at })
        return cell(world, memory, { ...common, type, meaning, scalar: read(memory, at), address: at })
      }),
  }
}

/** Raw bytes in one line. */
export function bytesValue(
  memory: MemoryAccess,
  { name, address, bytes }: { readonly name: string; readonly address: number; readonly bytes: number },
): Value {
  const path = `u8[0x${address.toString(16)}, ${bytes}]`
  return leaf({ name, type: `u8[${bytes}]`, display: bytesText(memory, address, bytes), address, bytes, path })
}

function pointerValue(world: World, memory: MemoryAccess, element: Type, options: CellOptions): Value {
  const { name, scalar = 0, path } = options
  const address = Number(scalar)
  const target = `*${path ?? name}`
  return {
    name,
    type: options.type.name,
    display: hex(address),
    scalar: address,
    address: options.address,
    bytes: options.address === undefined ? undefined : 4,
    path,
    indexed: 0,
    expandable: true,
    children: () => [
      cell(world, memory, {
        name: target,
        type: element,
        scalar: element.kind === 'class' ? address : readerOf(element)(memory, address),
        address,
        path: target,
      }),
    ],
  }
}

function bytesText(memory: MemoryAccess, address: number, count: number): string {
  const read = memory.read(address, Math.min(count, SHOWN_BYTES))
  if (read === undefined) return OUTSIDE
  return `${Buffer.from(read)
    .toString('hex')
    .replace(/..(?=.)/g, '$& ')}${count > SHOWN_BYTES ? ' …' : ''}`
}

function range(start: number, wanted: number, count: number): number[] {
  const first = Math.max(0, Math.min(start, count))
  return Array.from({ length: Math.max(0, Math.min(wanted, count - first)) }, (_, index) => first + index)
}
