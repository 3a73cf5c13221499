/** Where the bytes of a firmware module come from: sections, source functions, data. Every byte of the file is counted once. */
import type { Program } from '../debug/symbols/index.ts'
import { WasmFormatError } from '../firmware/wasm-module.ts'

export interface SectionSize {
  /** As the specification calls it; of a custom section its own name. */
  readonly name: string
  /** With its header. */
  readonly bytes: number
}

export interface FunctionSize {
  readonly name: string
  /** As asc names it; undefined for what has no source. */
  readonly file: string | undefined
  readonly line: number | undefined
  /** Places where its code stands: 1, or more if it was put inline. */
  readonly copies: number
  readonly bytes: number
}

export interface DataSize {
  /** INIC address; undefined for a passive segment. */
  readonly address: number | undefined
  readonly bytes: number
}

export interface CodeSize {
  /** Of the file. */
  readonly bytes: number
  readonly sections: readonly SectionSize[]
  /** Greatest first. Their sum is `codeBytes`. */
  readonly functions: readonly FunctionSize[]
  /** Of the bodies of all functions, with the lengths before them. */
  readonly codeBytes: number
  readonly data: readonly DataSize[]
}

const HEADER_BYTES = 8
const SECTIONS = [
  ...[
    'custom',
    'type',
    'import',
    'function',
    'table',
    'memory',
    'global',
    'export',
    'start',
    'element',
    'code',
    'data',
  ],
  ...['data count', 'tag'],
]

/** @param wantsSource false: by functions of the module, as if nothing were known of its source */
export function codeSize(program: Program, wantsSource = true): CodeSize {
  const { wasm, module } = program
  const source = wantsSource && program.files.length > 0
  const functions = new Map<string, { bytes: number; places: Set<string> } & Omit<FunctionSize, 'copies' | 'bytes'>>()
  let codeBytes = 0
  const count = (bytes: number, place: string, name: string, file: string | undefined, line: number | undefined) => {
    const key = `${file}\0${line}\0${name}`
    const entry = functions.get(key) ?? { name, file, line, bytes: 0, places: new Set() }
    functions.set(key, entry)
    entry.bytes += bytes
    entry.places.add(place)
    codeBytes += bytes
  }
  // What stands before the instructions, the body's length and its locals, is the function's own.
  let end = module.codeStart + lebBytes(wasm, module.codeStart)
  for (const symbol of program.functions) {
    const known = source ? symbol.declaration : undefined
    const whole = known?.name ?? (source ? symbol.name : symbol.path)
    const file = known?.file ?? (source ? program.positionAt(symbol.range.start)?.file : undefined)
    count(symbol.range.start - end, `${symbol.index}`, whole, file, known?.line)
    end = symbol.range.end
    if (!source) {
      count(symbol.range.end - symbol.range.start, `${symbol.index}`, whole, file, undefined)
      continue
    }
    for (const { pc, bytes } of program.instructions(symbol.range.start, symbol.range.end)) {
      const [frame, ...callers] = program.frames(pc)
      const place = [symbol.index, ...callers.map((at) => `${at.source?.line}:${at.source?.column}`)].join(' ')
      if (frame === undefined || !frame.inline) count(bytes, place, whole, file, known?.line)
      else count(bytes, place, frame.name, frame.declaration?.file ?? frame.source?.file, frame.declaration?.line)
    }
  }
  return {
    ...{ bytes: wasm.length, sections: sections(wasm), codeBytes, data: module.data },
    functions: [...functions.values()]
      .map(({ places, ...one }) => ({ ...one, copies: places.size }))
      .sort((a, b) => b.bytes - a.bytes || a.name.localeCompare(b.name)),
  }
}

/** Bytes by file and by each folder above it, folders ending in `/`; what has no source is `-`. By name. */
export function sizeByFolder(functions: readonly FunctionSize[]): Map<string, number> {
  const sizes = new Map<string, number>()
  const add = (name: string, bytes: number) => sizes.set(name, (sizes.get(name) ?? 0) + bytes)
  for (const { file = '-', bytes } of functions) {
    for (let at = file.indexOf('/'); at >= 0; at = file.indexOf('/', at + 1)) add(file.slice(0, at + 1), bytes)
    add(file, bytes)
  }
  return new Map([...sizes].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** What grew, shrank, came or went. */
export interface Growth {
  readonly name: string
  readonly file: string | undefined
  /** 0 on the side where it is not there. */
  readonly before: number
  readonly after: number
}

/** Functions whose sizes differ, the greatest difference first. Lines may have moved: functions are known by name and file. */
export function growth(before: readonly FunctionSize[], after: readonly FunctionSize[]): Growth[] {
  const found = new Map<string, { name: string; file: string | undefined; before: number; after: number }>()
  const collect = (functions: readonly FunctionSize[], side: 'before' | 'after') => {
    for (const { name, file, bytes } of functions) {
      const key = `${file}\0${name}`
      const entry = found.get(key) ?? { name, file, before: 0, after: 0 }
      found.set(key, entry)
      entry[side] += bytes
    }
  }
  collect(before, 'before')
  collect(after, 'after')
  const difference = (one: Growth) => Math.abs(one.after - one.before)
  return [...found.values()]
    .filter((one) => difference(one) > 0)
    .sort((a, b) => difference(b) - difference(a) || a.name.localeCompare(b.name))
}

/** The module was read before: it is well-formed. */
function sections(wasm: Uint8Array): SectionSize[] {
  const found: SectionSize[] = [{ name: 'header', bytes: HEADER_BYTES }]
  for (let at = HEADER_BYTES; at < wasm.length; ) {
    const id = wasm[at]!
    const start = at + 1 + lebBytes(wasm, at + 1)
    const end = start + leb(wasm, at + 1)
    if (end > wasm.length) throw new WasmFormatError(`malformed WebAssembly at byte ${at}: the file ends in a section`)
    const custom = id === 0 ? customName(wasm, start) : undefined
    found.push({ name: custom ?? SECTIONS[id] ?? `section ${id}`, bytes: end - at })
    at = end
  }
  return found
}

function customName(wasm: Uint8Array, at: number): string {
  const start = at + lebBytes(wasm, at)
  return `custom '${new TextDecoder().decode(wasm.subarray(start, start + leb(wasm, at)))}'`
}

/** LEB128, unsigned. */
function leb(bytes: Uint8Array, at: number): number {
  let value = 0
  for (let n = 0; n < 5; n++) {
    value += (bytes[at + n]! & 0x7f) * 2 ** (7 * n)
    if (bytes[at + n]! < 0x80) break
  }
  return value
}

function lebBytes(bytes: Uint8Array, at: number): number {
  let length = 1
  while (length < 5 && bytes[at + length - 1]! >= 0x80) length++
  return length
}
