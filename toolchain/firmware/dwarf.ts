/**
 * DWARF for LLDB: what a build knows of its functions, lines, locals and classes, put behind the module as custom sections.
 *
 * The sections are written by the addon (gimli). The result begins with the module byte for byte, so that one can be told to belong to
 * the other, and offsets in one are offsets in the other. DWARF's addresses count from the contents of the code section.
 *
 * Source: DWARF 4; "DWARF for WebAssembly" (yurydelendik.github.io/webassembly-dwarf).
 */
import { decodedMappings, type SourceMapSegment, TraceMap } from '@jridgewell/trace-mapping'
import {
  type DwarfFunction,
  type DwarfInfo,
  type DwarfType,
  type DwarfVariable,
  loadAddon,
} from '../../emulator/cpu/addon.ts'
import { createProgram, type Program, type Variable } from '../debug/symbols/index.ts'
import { type ClassLayout, type Layouts, parseLayouts } from './layouts.ts'
import { parseSourceSymbols, type SourceFunction } from './source-symbols.ts'
import { decodeFunction, type FunctionBody } from './wasm-instructions.ts'
import { type CodeRange, functionName, readWasmModule, type WasmModule } from './wasm-module.ts'

/** A module, and the texts that a build leaves beside it. */
export interface DwarfInput {
  readonly wasm: Uint8Array
  readonly sourceMap: string
  readonly layouts: string
  readonly symbols: string
  /** Folder that the sources' names count from, absolute. */
  readonly directory: string
}

/** The module with DWARF behind it. @throws CpuError ERR_CPU_ADDON_MISSING */
export function appendDwarf(input: DwarfInput): Uint8Array {
  const { dwarfSections } = loadAddon()
  const parts = dwarfSections(new Description(input).info()).map(({ name, contents }) => customSection(name, contents))
  return Buffer.concat([input.wasm, ...parts])
}

/** True if `debugModule` is this module with DWARF behind it. */
export function belongsTo(debugModule: Uint8Array, wasm: Uint8Array): boolean {
  return debugModule.length > wasm.length && Buffer.compare(debugModule.subarray(0, wasm.length), wasm) === 0
}

const WASM_TYPES: ReadonlyMap<string, Scalar> = new Map([
  ['i32', { kind: 'signed', bytes: 4 }],
  ['i64', { kind: 'signed', bytes: 8 }],
  ['f32', { kind: 'float', bytes: 4 }],
  ['f64', { kind: 'float', bytes: 8 }],
])

/** AssemblyScript's numbers. */
const SCALARS: ReadonlyMap<string, Scalar> = new Map([
  ...WASM_TYPES,
  ['bool', { kind: 'boolean', bytes: 1 }],
  ['i8', { kind: 'signed', bytes: 1 }],
  ['i16', { kind: 'signed', bytes: 2 }],
  ['isize', { kind: 'signed', bytes: 4 }],
  ['u8', { kind: 'unsigned', bytes: 1 }],
  ['u16', { kind: 'unsigned', bytes: 2 }],
  ['u32', { kind: 'unsigned', bytes: 4 }],
  ['u64', { kind: 'unsigned', bytes: 8 }],
  ['usize', { kind: 'unsigned', bytes: 4 }],
])

interface Scalar {
  readonly kind: DwarfType['kind']
  readonly bytes: number
}

const POINTER_BYTES = 4
const VECTOR_BYTES = 16

class Description {
  readonly #input: DwarfInput
  readonly #module: WasmModule
  readonly #classes: ReadonlyMap<string, ClassLayout>
  readonly #compiled: ReadonlyMap<string, SourceFunction>
  readonly #program: Program
  readonly #layouts: Layouts
  /** The name section names locals. */
  readonly #isNamed: boolean
  readonly #types: DwarfType[] = []
  /** Index in `#types` by AssemblyScript's name; a class's is that of a pointer to it, since all that is ever held is its address. */
  readonly #typeIndices = new Map<string, number>()

  constructor(input: DwarfInput) {
    this.#input = input
    this.#module = readWasmModule(input.wasm)
    this.#isNamed = this.#module.localNames.size > 0
    this.#program = createProgram(input)
    this.#layouts = parseLayouts(input.layouts)
    this.#classes = new Map(this.#layouts.classes.map((layout) => [layout.name, layout]))
    const { functions } = parseSourceSymbols(input.symbols)
    this.#compiled = new Map(functions.map((compiled) => [compiled.path, compiled]))
  }

  info(): DwarfInfo {
    const { directory, sourceMap } = this.#input
    // asc sets a sourceRoot for browsers to find the sources under; its `sources` alone are the real paths.
    const map = new TraceMap({ ...JSON.parse(sourceMap), sourceRoot: '' })
    const files = map.sources.map((name) => name ?? '?')
    // The map has one line, whose segments ascend by column.
    const segments = decodedMappings(map)[0] ?? []
    const functions = this.#module.code.map((range) => this.#function(range, segments))
    const constantType = this.#type('u32')
    return {
      producer: 'inic build (asc)',
      name: files.find((name) => !name.startsWith('~lib/')) ?? 'firmware',
      directory,
      files,
      codeBytes: Math.max(...this.#module.code.map(({ end }) => end)) - this.#module.codeStart,
      functions,
      constants: Object.entries(this.#layouts.constants).map(([name, value]) => ({
        name,
        typeIndex: constantType,
        value: value >>> 0,
      })),
      types: this.#types,
    }
  }

  #function(range: CodeRange, segments: readonly SourceMapSegment[]): DwarfFunction {
    const { functions } = this.#module
    const path = functionName(this.#module, range.functionIndex)
    const { results } = functions[range.functionIndex]
    const body = decodeFunction(this.#input.wasm, range)
    const [start, end] = this.#addresses(body)
    const [result] = results
    return {
      name: path.slice(path.lastIndexOf('/') + 1),
      linkageName: path,
      start,
      end,
      rows: this.#rows(body.start, range.end, segments),
      ...(result !== undefined && { result: this.#type(result) }),
      variables: this.#isNamed ? this.#namedVariables(range, path, body) : this.#foundVariables(range, body),
    }
  }

  /** Where the line or column changes. Instructions without a source count to what stands before them. */
  #rows(start: number, end: number, segments: readonly SourceMapSegment[]): Uint32Array {
    const rows: number[] = []
    let last = ''
    for (let index = lowerBound(segments, start); index < segments.length && segments[index][0] < end; index++) {
      const segment = segments[index]
      if (segment.length === 1) continue
      const [pc, file, line, column] = segment
      const place = `${file}:${line}:${column}`
      if (place !== last) rows.push(pc - this.#module.codeStart, file, line + 1, column + 1)
      last = place
    }
    return Uint32Array.from(rows)
  }

  /** Locals that the name section names; a number is what the compiler calls a local of its own. */
  #namedVariables({ functionIndex }: CodeRange, path: string, body: FunctionBody): DwarfVariable[] {
    const { parameters } = this.#module.functions[functionIndex]
    const wasmTypes = [...parameters, ...body.locals]
    const declared = this.#compiled.get(path)?.locals
    const variables: DwarfVariable[] = []
    for (const [local, text] of this.#module.localNames.get(functionIndex) ?? []) {
      if (/^\d*$/.test(text) || local >= wasmTypes.length) continue
      // A name that is used twice has a number behind it: `index|2`.
      const name = text.replace(/\|\d+$/, '')
      const type = declared?.[local]?.[1] ?? this.#receiver(name, path) ?? wasmTypes[local]
      variables.push({
        name,
        typeIndex: this.#type(type, wasmTypes[local]),
        places: Uint32Array.of(...this.#addresses(body), local),
        parameter: local < parameters.length,
      })
    }
    return variables
  }

  /** An optimized build has no such names; where its locals hold variables of the source is found out instruction by instruction. */
  #foundVariables({ functionIndex }: CodeRange, body: FunctionBody): DwarfVariable[] {
    const { parameters } = this.#module.functions[functionIndex]
    const wasmTypes = [...parameters, ...body.locals]
    const found = new Map<string, { readonly variable: Variable; readonly places: [number, number, number][] }>()
    const { codeStart } = this.#module
    for (const { pc, bytes } of body.instructions) {
      // What was inlined has variables of its own, and LLDB no frame for them: those of the function itself count.
      const inline = this.#program.frames(pc).length - 1
      for (const variable of this.#program.variables(pc, { inline })) {
        const key = `${variable.name}\0${variable.type}`
        const entry = found.get(key) ?? { variable, places: [] }
        found.set(key, entry)
        const start = pc - codeStart
        const last = entry.places.at(-1)
        if (last?.[1] === start && last[2] === variable.local) last[1] = start + bytes
        else entry.places.push([start, start + bytes, variable.local])
      }
    }
    return [...found.values()].map(({ variable: { name, type, parameter }, places }) => ({
      name,
      typeIndex: this.#type(type, wasmTypes[places[0][2]]),
      places: Uint32Array.from(places.flat()),
      parameter,
    }))
  }

  /** Of a function's first instruction, and behind its last. */
  #addresses({ instructions }: FunctionBody): [number, number] {
    const { codeStart } = this.#module
    const last = instructions[instructions.length - 1]
    return [instructions[0].pc - codeStart, last.pc + last.bytes - codeStart]
  }

  /** The class of `this`, from the method's path, for methods that the compiler made up. */
  #receiver(name: string, path: string): string | undefined {
    return name === 'this' ? /([^/]+)#[^/]+$/.exec(path)?.[1] : undefined
  }

  /** Index of AssemblyScript's type `name`; of `fallback` for one that nothing is known of. */
  #type(name: string, fallback = 'u32'): number {
    const known = this.#typeIndices.get(name)
    if (known !== undefined) return known
    const scalar = SCALARS.get(name)
    const layout = this.#classes.get(name)
    if (scalar === undefined && layout === undefined && name !== 'v128') return this.#type(fallback)
    const target = name === 'v128' ? this.#type('u32') : undefined
    const index = this.#types.length
    this.#typeIndices.set(name, index)
    if (scalar) this.#types.push({ name, ...scalar })
    else if (layout) this.#class(layout, index)
    else this.#types.push({ kind: 'vector', name, bytes: VECTOR_BYTES, target: target as number })
    return index
  }

  /** The pointer first, as fields may be of this very class. */
  #class(layout: ClassLayout, index: number): void {
    const { name, bytes } = layout
    this.#types.push({ kind: 'pointer', name, bytes: POINTER_BYTES, target: index + 1 })
    const members: NonNullable<DwarfType['members']> = []
    this.#types.push({ kind: 'struct', name, bytes, members })
    for (const field of layout.fields) {
      const unsigned = `u${field.bytes * 8}`
      members.push({ name: field.name, typeIndex: this.#type(field.type, unsigned), offset: field.offset })
    }
  }
}

/** Index of the first segment whose column is not before `column`. */
function lowerBound(segments: readonly SourceMapSegment[], column: number): number {
  let [low, high] = [0, segments.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (segments[middle][0] < column) low = middle + 1
    else high = middle
  }
  return low
}

/** Section 0 of a wasm module. */
function customSection(name: string, contents: Uint8Array): Uint8Array {
  const text = Buffer.from(name)
  const head = Buffer.concat([leb128(text.length), text])
  return Buffer.concat([Buffer.of(0), leb128(head.length + contents.length), head, contents])
}

function leb128(value: number): Uint8Array {
  const bytes: number[] = []
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Uint8Array.from([...bytes, rest])
    bytes.push((rest & 0x7f) | 0x80)
  }
}
