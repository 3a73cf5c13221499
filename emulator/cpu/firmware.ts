/** What a firmware module declares, read from its bytes, so that both CPUs refuse the same modules in the same words. */

import { CpuError, type CpuOptions, WASM_PAGE_BYTES } from './cpu.ts'

/** WebAssembly core specification, 5.5.2 Sections. */
const SECTION_CUSTOM = 0
const SECTION_TYPE = 1
const SECTION_IMPORT = 2
const SECTION_FUNCTION = 3
const SECTION_EXPORT = 7
const SECTION_START = 8
const SECTION_DATA = 11

/** 5.5.5 and 5.5.10: what imports and exports name. */
const EXTERNAL_KINDS = ['function', 'table', 'memory', 'global', 'tag'] as const
const KIND_FUNCTION = 0
const KIND_TABLE = 1
const KIND_MEMORY = 2
const KIND_GLOBAL = 3

/** 5.3.1 Number types and onwards, as far as a signature is printed. */
const VALUE_TYPES = new Map([
  [0x7f, 'i32'],
  [0x7e, 'i64'],
  [0x7d, 'f32'],
  [0x7c, 'f64'],
  [0x7b, 'v128'],
])

/** 7.4.1 Name section: the sub-section with function names. */
const NAMES_OF_FUNCTIONS = 1

interface Section {
  readonly id: number
  readonly reader: Reader
}

interface Import {
  readonly name: string
  readonly kind: number
  /** Of a function: its index into the types. Of a memory: its limits. */
  readonly type: number
  readonly limits: Limits | undefined
}

interface Limits {
  readonly flags: number
  readonly min: number
  readonly max: number | undefined
}

class Reader {
  readonly bytes: Uint8Array
  offset: number
  readonly end: number

  constructor(bytes: Uint8Array, offset: number, end: number) {
    this.bytes = bytes
    this.offset = offset
    this.end = end
  }

  byte(): number {
    if (this.offset >= this.end) throw malformed(this.offset)
    return this.bytes[this.offset++]
  }

  /** An unsigned LEB128 of at most 32 bits. */
  u32(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw malformed(this.offset)
  }

  /** A signed LEB128 of at most 32 bits, as an unsigned number. */
  i32(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return (shift < 28 && (byte & 0x40) !== 0 ? value | (-1 << (shift + 7)) : value) >>> 0
    }
    throw malformed(this.offset)
  }

  sub(length: number): Reader {
    const start = this.offset
    if (length > this.end - start) throw malformed(start)
    this.offset += length
    return new Reader(this.bytes, start, start + length)
  }

  name(): string {
    const { offset, end } = this.sub(this.u32())
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + offset, end - offset).toString()
  }

  limits(): Limits {
    const flags = this.byte()
    // 64-bit limits may not fit, but such a memory is refused for its flags.
    const min = this.u32()
    return { flags, min, max: flags & 1 ? this.u32() : undefined }
  }
}

const malformed = (offset: number) =>
  new CpuError('ERR_CPU_MODULE', `the firmware is no WebAssembly module: malformed at offset ${offset}`)

function* sections(module: Uint8Array): Generator<Section> {
  const reader = new Reader(module, 0, module.length)
  for (const expected of [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]) {
    if (reader.byte() !== expected) throw malformed(reader.offset - 1)
  }
  while (reader.offset < reader.end) {
    const id = reader.byte()
    yield { id, reader: reader.sub(reader.u32()) }
  }
}

/** The signatures of function types, such as `(i32): i32`. */
function readTypes(reader: Reader): string[] {
  const list = () => Array.from({ length: reader.u32() }, () => VALUE_TYPES.get(reader.byte()) ?? '?').join(', ')
  return Array.from({ length: reader.u32() }, () => {
    if (reader.byte() !== 0x60) {
      throw new CpuError('ERR_CPU_MODULE', 'the firmware uses types of the GC proposal, which the CPU has not')
    }
    return `(${list()}): ${list() || 'void'}`
  })
}

function readImport(reader: Reader): Import {
  const name = `${reader.name()}.${reader.name()}`
  const kind = reader.byte()
  let type = -1
  let limits: Limits | undefined
  if (kind === KIND_FUNCTION) type = reader.u32()
  else if (kind === KIND_MEMORY) limits = reader.limits()
  else if (kind === KIND_TABLE) {
    reader.byte()
    reader.limits()
  } else if (kind === KIND_GLOBAL) {
    reader.byte()
    reader.byte()
  } else {
    reader.byte()
    reader.u32()
  }
  return { name, kind, type, limits }
}

/**
 * Checks that a module is a firmware for a board with this much memory.
 *
 * Throws ERR_CPU_MODULE: an import besides `env.memory`, that import not a memory of this size, `reset` or `poll`
 * missing or of another type. Function bodies are left to the engine.
 */
export function checkFirmware({ module, memoryBytes }: CpuOptions): void {
  let types: string[] = []
  const imports: Import[] = []
  const functions: number[] = []
  const exports = new Map<string, { kind: number; index: number }>()
  for (const { id, reader } of sections(module)) {
    if (id === SECTION_TYPE) types = readTypes(reader)
    else if (id === SECTION_IMPORT) for (let n = reader.u32(); n > 0; n--) imports.push(readImport(reader))
    else if (id === SECTION_FUNCTION) for (let n = reader.u32(); n > 0; n--) functions.push(reader.u32())
    else if (id === SECTION_EXPORT) {
      for (let n = reader.u32(); n > 0; n--) exports.set(reader.name(), { kind: reader.byte(), index: reader.u32() })
    }
  }
  for (const found of imports) {
    if (found.name !== 'env.memory') {
      const kind = EXTERNAL_KINDS[found.kind] ?? 'value'
      throw new CpuError(
        'ERR_CPU_MODULE',
        `the firmware imports ${kind} ${found.name}: the board offers env.memory only`,
      )
    }
  }
  if (imports.length !== 1) {
    // Also what asc's optimizer leaves of a firmware that never touches memory.
    const found = imports.length === 0 ? 'does not import env.memory' : 'imports env.memory more than once'
    throw new CpuError('ERR_CPU_MODULE', `the firmware ${found}: compile it with --importMemory`)
  }
  checkMemory(imports[0], memoryBytes)
  const signature = (name: string) => {
    const found = exports.get(name)
    if (!found) return 'missing'
    if (found.kind !== KIND_FUNCTION) return `a ${EXTERNAL_KINDS[found.kind] ?? 'value'}`
    return types[functions[found.index]] ?? 'malformed' // No function is imported.
  }
  for (const [name, type] of [
    ['reset', '(): void'],
    ['poll', '(i32): i32'],
  ]) {
    const found = signature(name)
    if (found !== type) {
      throw new CpuError('ERR_CPU_MODULE', `the firmware's export ${name} is ${found}: it has to be ${type}`)
    }
  }
}

function checkMemory({ kind, limits }: Import, memoryBytes: number): void {
  if (kind !== KIND_MEMORY || !limits) {
    const found = EXTERNAL_KINDS[kind] ?? 'value'
    throw new CpuError('ERR_CPU_MODULE', `the firmware imports env.memory as a ${found}: it has to be a memory`)
  }
  if (limits.flags & ~1) {
    throw new CpuError('ERR_CPU_MODULE', 'the firmware imports env.memory as shared or 64-bit: it has to be neither')
  }
  const { min, max } = limits
  if (min * WASM_PAGE_BYTES > memoryBytes) {
    const needs = `needs ${min * WASM_PAGE_BYTES} bytes of memory`
    throw new CpuError('ERR_CPU_MODULE', `the firmware ${needs} and the board has ${memoryBytes}`)
  }
  if (max !== undefined && max * WASM_PAGE_BYTES < memoryBytes) {
    const allows = `allows at most ${max * WASM_PAGE_BYTES} bytes of memory`
    throw new CpuError('ERR_CPU_MODULE', `the firmware ${allows} and the board has ${memoryBytes}: set no maximum`)
  }
}

/** What a module puts into memory before it runs. */
export interface DataSegment {
  readonly address: number
  readonly bytes: Uint8Array
}

/** Opcodes of the only expression that a firmware's segments have: i32.const n, end. */
const OPCODE_I32_CONST = 0x41
const OPCODE_END = 0x0b

/**
 * The data segments of a firmware that is to run where another one ran. For a module that `checkFirmware` has let pass.
 *
 * Throws ERR_CPU_MODULE for what would change memory besides: a start function, or a segment that is not within `constants`.
 */
export function readConstants(module: Uint8Array, constants: { start: number; end: number }): DataSegment[] {
  const segments: DataSegment[] = []
  for (const { id, reader } of sections(module)) {
    if (id === SECTION_START)
      throw new CpuError(
        'ERR_CPU_MODULE',
        'the firmware has a start function, which would run over state that is in use',
      )
    if (id !== SECTION_DATA) continue
    for (let n = reader.u32(); n > 0; n--) {
      const segment = readSegment(reader)
      if (segment === undefined) continue
      const { address, bytes } = segment
      const end = address + bytes.length
      if (bytes.length > 0 && (address < constants.start || end > constants.end)) {
        const [from, to, first, last] = [address, end, constants.start, constants.end].map(
          (at) => `0x${at.toString(16)}`,
        )
        throw new CpuError(
          'ERR_CPU_MODULE',
          `the firmware's constants at ${from} to ${to} are not within ${first} to ${last}`,
        )
      }
      segments.push(segment)
    }
  }
  return segments
}

/** Undefined for a passive segment, which is not in memory until the firmware copies it. */
function readSegment(reader: Reader): DataSegment | undefined {
  const flags = reader.u32()
  if (flags === 2) reader.u32()
  let address: number | undefined
  if (flags !== 1) {
    const opcode = reader.byte()
    if (opcode === OPCODE_I32_CONST) address = reader.i32()
    if (address === undefined || reader.byte() !== OPCODE_END)
      throw new CpuError('ERR_CPU_MODULE', "the firmware's constants have addresses that are not constant")
  }
  const { bytes, offset, end } = reader.sub(reader.u32())
  return address === undefined ? undefined : { address, bytes: bytes.subarray(offset, end) }
}

/** Function names by index, from the name section; empty if there is none. For a module that compiles. */
export function functionNames(module: Uint8Array): Map<number, string> {
  const names = new Map<number, string>()
  for (const { id, reader } of sections(module)) {
    if (id !== SECTION_CUSTOM || reader.name() !== 'name') continue
    while (reader.offset < reader.end) {
      const kind = reader.byte()
      const content = reader.sub(reader.u32())
      if (kind !== NAMES_OF_FUNCTIONS) continue
      for (let n = content.u32(); n > 0; n--) {
        const index = content.u32()
        names.set(index, content.name())
      }
    }
  }
  return names
}
