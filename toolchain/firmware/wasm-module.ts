/**
 * The sections of a wasm module that the toolchain looks at: what it imports, exports and declares, where each function's
 * code lies in the file (a ModulePC is such an offset), and the name section. Code is decoded by wasm-instructions.ts.
 *
 * Source: WebAssembly core specification, "Binary Format"; the name section of its appendix.
 */

import { WasmCursor, WasmFormatError } from './wasm-cursor.ts'

export { WasmFormatError }

export type WasmKind = 'function' | 'table' | 'memory' | 'global' | 'tag'

export interface FunctionType {
  readonly parameters: readonly string[]
  readonly results: readonly string[]
}

export interface WasmImport {
  readonly module: string
  readonly name: string
  readonly kind: WasmKind
}

export interface WasmExport {
  readonly name: string
  readonly kind: WasmKind
  readonly index: number
}

export interface WasmGlobal {
  readonly type: string
  readonly mutable: boolean
  /** From the name section, or an export, or undefined. */
  readonly name: string | undefined
  /** Of a global that is set to an i32.const, unsigned; else undefined. */
  readonly value: number | undefined
}

export interface WasmMemory {
  readonly minimumPages: number
  readonly maximumPages: number | undefined
  readonly shared: boolean
  readonly is64: boolean
}

export interface CodeRange {
  /** Index in the module's function index space, imports first. */
  readonly functionIndex: number
  /** File offsets of the function body, local declarations included. */
  readonly start: number
  readonly end: number
}

export interface DataSegment {
  /** Address that an active segment is copied to, or undefined: passive, or not a constant. */
  readonly address: number | undefined
  readonly bytes: number
}

export interface WasmModule {
  readonly imports: readonly WasmImport[]
  readonly exports: readonly WasmExport[]
  readonly types: readonly FunctionType[]
  /** Types of all functions, imported ones first. */
  readonly functions: readonly FunctionType[]
  readonly globals: readonly WasmGlobal[]
  readonly memories: readonly WasmMemory[]
  readonly importedMemories: number
  readonly startFunction: number | undefined
  /** File offset of the contents of the code section: DWARF addresses count from here. */
  readonly codeStart: number
  /** Ascending by `start`. */
  readonly code: readonly CodeRange[]
  readonly data: readonly DataSegment[]
  readonly functionNames: ReadonlyMap<number, string>
  /** Names of parameters and locals by function and index; an optimized build has none. */
  readonly localNames: ReadonlyMap<number, ReadonlyMap<number, string>>
  readonly importedFunctions: number
}

const MAGIC = 0x6d736100
const VERSION = 1
const KINDS: readonly WasmKind[] = ['function', 'table', 'memory', 'global', 'tag']
/** By their code in the binary format. */
export const VALUE_TYPES: ReadonlyMap<number, string> = new Map([
  [0x7f, 'i32'],
  [0x7e, 'i64'],
  [0x7d, 'f32'],
  [0x7c, 'f64'],
  [0x7b, 'v128'],
  [0x70, 'funcref'],
  [0x6f, 'externref'],
])

/** Reads the sections named above. @throws WasmFormatError, naming the byte. */
export function readWasmModule(bytes: Uint8Array): WasmModule {
  return new ModuleReader(bytes).read()
}

/** Name of a function as the name section has it, else its index. */
export function functionName(module: WasmModule, index: number): string {
  return module.functionNames.get(index) ?? `function ${index}`
}

class ModuleReader extends WasmCursor {
  readonly #types: FunctionType[] = []
  readonly #imports: WasmImport[] = []
  readonly #exports: WasmExport[] = []
  readonly #functions: FunctionType[] = []
  readonly #globals: { type: string; mutable: boolean; value: number | undefined }[] = []
  readonly #memories: WasmMemory[] = []
  readonly #code: CodeRange[] = []
  readonly #data: DataSegment[] = []
  readonly #functionNames = new Map<number, string>()
  readonly #localNames = new Map<number, Map<number, string>>()
  readonly #globalNames = new Map<number, string>()
  #importedMemories = 0
  #importedFunctions = 0
  #startFunction: number | undefined
  #codeStart = 0

  constructor(bytes: Uint8Array) {
    super(bytes, 0, bytes.length)
  }

  read(): WasmModule {
    if (this.bytes.length < 8 || this.view.getUint32(0, true) !== MAGIC || this.view.getUint32(4, true) !== VERSION) {
      throw new WasmFormatError('not a WebAssembly module: it does not begin with \\0asm and version 1')
    }
    this.at = 8
    while (this.at < this.bytes.length) this.#section()
    for (const item of this.#exports) {
      if (item.kind === 'global' && !this.#globalNames.has(item.index)) this.#globalNames.set(item.index, item.name)
    }
    return {
      imports: this.#imports,
      exports: this.#exports,
      types: this.#types,
      functions: this.#functions,
      globals: this.#globals.map((global, index) => ({ ...global, name: this.#globalNames.get(index) })),
      memories: this.#memories,
      importedMemories: this.#importedMemories,
      startFunction: this.#startFunction,
      codeStart: this.#codeStart,
      code: this.#code,
      data: this.#data,
      functionNames: this.#functionNames,
      localNames: this.#localNames,
      importedFunctions: this.#importedFunctions,
    }
  }

  #section(): void {
    const id = this.byte()
    const size = this.u32()
    const end = this.at + size
    if (end > this.bytes.length) throw this.error(`section ${id} announces ${size} bytes and the file ends before`)
    switch (id) {
      case 0:
        this.#customSection(end)
        break
      case 1:
        this.#vector(() => this.#functionType())
        break
      case 2:
        this.#vector(() => this.#import())
        break
      case 3:
        this.#importedFunctions = this.#functions.length
        this.#vector(() => this.#functions.push(this.#typeAt(this.u32())))
        break
      case 5:
        this.#vector(() => this.#memories.push(this.#memoryType()))
        break
      case 6:
        this.#vector(() => {
          const type = this.#globalType()
          this.#globals.push({ ...type, value: this.#constantExpression() })
        })
        break
      case 7:
        this.#vector(() => this.#exports.push({ name: this.#name(), kind: this.#kind(), index: this.u32() }))
        break
      case 8:
        this.#startFunction = this.u32()
        break
      case 10:
        this.#codeStart = this.at
        this.#codeSection()
        break
      case 11:
        this.#vector(() => this.#dataSegment())
        break
      default: // tables, elements, data count, tags: nothing in them is looked at
        this.at = end
    }
    if (this.at !== end) throw this.error(`section ${id} ends at byte ${end} and its contents do not`)
  }

  #functionType(): void {
    const form = this.byte()
    if (form !== 0x60) throw this.error(`type form 0x${form.toString(16)}, of which only functions (0x60) are known`)
    const parameters: string[] = []
    const results: string[] = []
    this.#vector(() => parameters.push(this.#valueType()))
    this.#vector(() => results.push(this.#valueType()))
    this.#types.push({ parameters, results })
  }

  #import(): void {
    const module = this.#name()
    const name = this.#name()
    const kind = this.#kind()
    this.#imports.push({ module, name, kind })
    switch (kind) {
      case 'function':
        this.#functions.push(this.#typeAt(this.u32()))
        this.#importedFunctions = this.#functions.length
        break
      case 'table':
        this.byte()
        this.#limits()
        break
      case 'memory':
        this.#memories.push(this.#memoryType())
        this.#importedMemories++
        break
      case 'global':
        this.#globals.push({ ...this.#globalType(), value: undefined })
        break
      case 'tag':
        this.byte()
        this.u32()
    }
  }

  #codeSection(): void {
    let functionIndex = this.#importedFunctions
    this.#vector(() => {
      const size = this.u32()
      const start = this.at
      this.#skip(size)
      this.#code.push({ functionIndex: functionIndex++, start, end: this.at })
    })
  }

  #dataSegment(): void {
    const flags = this.u32()
    if (flags === 2) this.u32()
    const address = flags === 1 ? undefined : this.#constantExpression()
    const bytes = this.u32()
    this.#skip(bytes)
    this.#data.push({ address, bytes })
  }

  #customSection(end: number): void {
    const name = this.#name()
    while (name === 'name' && this.at < end) {
      const subsection = this.byte()
      const size = this.u32()
      const subsectionEnd = this.at + size
      const names = subsection === 1 ? this.#functionNames : subsection === 7 ? this.#globalNames : undefined
      if (names) this.#vector(() => names.set(this.u32(), this.#name()))
      else if (subsection === 2) this.#vector(() => this.#localNameMap())
      this.at = subsectionEnd
    }
    this.at = end
  }

  #localNameMap(): void {
    const names = new Map<number, string>()
    this.#localNames.set(this.u32(), names)
    this.#vector(() => names.set(this.u32(), this.#name()))
  }

  /** Value of an expression that is one i32.const, else undefined; either way the reader stands after it. */
  #constantExpression(): number | undefined {
    let value: number | undefined
    for (let first = true; ; first = false) {
      const opcode = this.byte()
      if (opcode === 0x0b) return value
      value = undefined
      if (opcode === 0x41) {
        const constant = this.signed()
        if (first) value = Number(BigInt.asUintN(32, constant))
      } else if (opcode === 0x42) this.signed()
      else if (opcode === 0x43) this.#skip(4)
      else if (opcode === 0x44) this.#skip(8)
      else if (opcode === 0x23 || opcode === 0xd2) this.u32()
      else if (opcode === 0xd0) this.signed()
      else if (opcode === 0xfd && this.u32() === 12) this.#skip(16)
      else if (![0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e].includes(opcode)) {
        throw this.error(`opcode 0x${opcode.toString(16)} in a constant expression`)
      }
    }
  }

  #globalType(): { type: string; mutable: boolean } {
    return { type: this.#valueType(), mutable: this.byte() === 1 }
  }

  #memoryType(): WasmMemory {
    const { flags, minimum, maximum } = this.#limits()
    return { minimumPages: minimum, maximumPages: maximum, shared: (flags & 2) !== 0, is64: (flags & 4) !== 0 }
  }

  #limits(): { flags: number; minimum: number; maximum: number | undefined } {
    const flags = this.byte()
    const minimum = this.u32()
    return { flags, minimum, maximum: flags & 1 ? this.u32() : undefined }
  }

  #typeAt(index: number): FunctionType {
    const type = this.#types[index]
    if (type === undefined) throw this.error(`type ${index} of ${this.#types.length}`)
    return type
  }

  #valueType(): string {
    const code = this.byte()
    const type = VALUE_TYPES.get(code)
    if (type === undefined) throw this.error(`value type 0x${code.toString(16)}, which ipOS firmware does not use`)
    return type
  }

  #kind(): WasmKind {
    const code = this.byte()
    const kind = KINDS[code]
    if (kind === undefined) throw this.error(`import or export kind ${code}`)
    return kind
  }

  #vector(item: () => unknown): void {
    for (let left = this.u32(); left > 0; left--) item()
  }

  #name(): string {
    const length = this.u32()
    const start = this.at
    this.#skip(length)
    return new TextDecoder().decode(this.bytes.subarray(start, this.at))
  }

  #skip(count: number): void {
    this.need(count)
    this.at += count
  }

  protected override shortage(count: number): string {
    return `${count} bytes announced and the file ends before`
  }
}
