/** One compiled firmware: see {@link Program}. */
import { join, relative, sep } from 'node:path'
import { type Layouts, parseLayouts } from '../../firmware/layouts.ts'
import { parseSourceSymbols, type SourceSymbols } from '../../firmware/source-symbols.ts'
import { type DecodedInstruction, decodeFunction, type FunctionBody } from '../../firmware/wasm-instructions.ts'
import { functionName, readWasmModule, type WasmModule } from '../../firmware/wasm-module.ts'
import { describeInstruction } from './disassembly.ts'
import { functionMatcher, lastPart } from './function-names.ts'
import { type Activation, Declarations, findRuns, findStretches, type Run, type Stretch } from './inlining.ts'
import { SourceLines } from './source-lines.ts'
import type {
  BreakpointPlace,
  FramePc,
  FunctionSymbol,
  InlinePc,
  Instruction,
  Program,
  ProgramInput,
  SourceFile,
  SourceFrame,
  SourcePosition,
  Variable,
} from './types.ts'
import { VariableFinder } from './variables.ts'

/** @throws WasmFormatError for bytes that are no module; Error for layouts or symbols of another format. */
export function createProgram(input: ProgramInput): Program {
  return new FirmwareProgram(input)
}

/** What is known of a function's code, found when it is first asked for. */
interface FunctionCode {
  readonly runs: readonly Run[]
  readonly stretches: readonly Stretch[]
  readonly lineStarts: ReadonlySet<number>
  /** First pc of each activation. */
  readonly entries: ReadonlyMap<Activation, number>
}

class FirmwareProgram implements Program {
  readonly wasm: Uint8Array
  readonly module: WasmModule
  readonly layouts: Layouts | undefined
  readonly constants: ReadonlyMap<string, number>
  readonly functions: readonly FunctionSymbol[]
  readonly files: readonly SourceFile[]
  readonly #lines: SourceLines
  readonly #symbols: SourceSymbols | undefined
  readonly #declarations: Declarations
  readonly #directory: string | undefined
  readonly #bodies: readonly FunctionBody[]
  readonly #code = new Map<FunctionSymbol, FunctionCode>()
  #stretchesByLine: Map<string, Map<number, Stretch[]>> | undefined
  #variables: VariableFinder | undefined

  constructor({ wasm, sourceMap, layouts, symbols, directory }: ProgramInput) {
    this.wasm = wasm
    this.module = readWasmModule(wasm)
    this.layouts = layouts === undefined ? undefined : parseLayouts(layouts)
    this.constants = new Map(Object.entries(this.layouts?.constants ?? {}))
    this.#lines = new SourceLines(sourceMap)
    this.#symbols = symbols === undefined ? undefined : parseSourceSymbols(symbols)
    this.#declarations = new Declarations(this.#symbols)
    this.#directory = directory
    this.#bodies = this.module.code.map((range) => decodeFunction(wasm, range))
    this.functions = this.module.code.map((range, at) => {
      const body = this.#bodies[at]
      const index = range.functionIndex
      const path = functionName(this.module, index)
      const { parameters } = this.module.functions[index]
      const symbol = {
        index,
        path,
        name: lastPart(path),
        range: { start: body.start, end: range.end },
        entry: body.start,
        declaration: this.#declarations.ofFunction(path),
        parameters,
        locals: [...parameters, ...body.locals],
      }
      // Found when it is asked for: it takes a walk through the function's lines.
      Object.defineProperty(symbol, 'entry', { get: () => this.#entry(symbol), enumerable: true })
      return symbol
    })
    this.files = [...new Set(this.#lines.files)]
      .filter((name) => name !== '')
      .sort()
      .map((name) => ({ name, path: this.#pathOf(name) }))
  }

  // ── lines ──

  findFiles(name: string): readonly SourceFile[] {
    const normal = name.replaceAll('\\', '/').replace(/^\.\//, '')
    const exact = this.files.filter((file) => file.name === normal || file.path === name)
    if (exact.length > 0) return exact
    // A path of the editor's under the project folder by another way, as a link: only its part from that folder on is the same.
    const inProject = this.#directory === undefined ? undefined : relative(this.#directory, name).replaceAll(sep, '/')
    const same = this.files.filter((file) => file.name === inProject)
    if (same.length > 0) return same
    const longer = this.files.filter((file) => file.name.endsWith(`/${normal}`))
    return longer.length > 0 ? longer : this.files.filter((file) => normal.endsWith(`/${file.name}`))
  }

  positionAt(pc: number, how?: FramePc): SourcePosition | undefined {
    const symbol = this.functionAt(this.#lookupPc(pc, how))
    return symbol && this.#positionIn(symbol, this.#lookupPc(pc, how))
  }

  breakpointsAt(file: string, line: number, column = 1): BreakpointPlace | undefined {
    for (const { name } of this.findFiles(file)) {
      const lines = this.#linesOf(name)
      for (const at of [...lines.keys()].sort((a, b) => a - b)) {
        if (at < line) continue
        const from = at === line ? column : 1
        const stretches = (lines.get(at) ?? []).filter((stretch) => !stretch.continues && stretch.column >= from)
        if (stretches.length === 0) continue
        const pcs = [...new Set(stretches.map(({ start }) => start))].sort((a, b) => a - b)
        return { file: name, line: at, column: Math.min(...stretches.map((stretch) => stretch.column)), pcs }
      }
    }
    return undefined
  }

  breakpointLines(file: string): readonly number[] {
    const lines = new Set(this.findFiles(file).flatMap(({ name }) => [...this.#linesOf(name).keys()]))
    return [...lines].sort((a, b) => a - b)
  }

  isLineStart(pc: number): boolean {
    const symbol = this.functionAt(pc)
    return symbol !== undefined && this.#codeOf(symbol).lineStarts.has(pc)
  }

  // ── functions and instructions ──

  functionAt(pc: number): FunctionSymbol | undefined {
    const at = this.#bodyAt(pc)
    return at === undefined ? undefined : this.functions[at]
  }

  findFunctions(name: string): readonly FunctionSymbol[] {
    const matches = functionMatcher(name)
    return this.functions.filter(({ path }) => matches(path))
  }

  functionBreakpoints(name: string): readonly number[] {
    const matches = functionMatcher(name)
    const pcs = new Set(this.findFunctions(name).map(({ entry }) => entry))
    const wanted = new Set(this.#declarations.all.filter(({ path }) => matches(path)))
    if (wanted.size > 0) {
      for (const symbol of this.functions) {
        const seen = new Set<Activation>()
        for (const { activation, start } of this.#codeOf(symbol).runs) {
          const { declaration, parent } = activation
          if (parent === undefined || declaration === undefined || !wanted.has(declaration)) continue
          if (!seen.has(activation)) pcs.add(start)
          seen.add(activation)
        }
      }
    }
    return [...pcs].sort((a, b) => a - b)
  }

  instructionAt(pc: number): Instruction | undefined {
    const at = this.#bodyAt(pc)
    if (at === undefined) return undefined
    const index = instructionIndex(this.#bodies[at].instructions, pc)
    return this.#bodies[at].instructions[index]?.pc === pc ? this.#describe(at, index) : undefined
  }

  instructions(start: number, end: number): readonly Instruction[] {
    const found: Instruction[] = []
    for (const [at, symbol] of this.functions.entries()) {
      if (symbol.range.end <= start || symbol.range.start >= end) continue
      for (const [index, { pc }] of this.#bodies[at].instructions.entries()) {
        if (pc >= start && pc < end) found.push(this.#describe(at, index))
      }
    }
    return found
  }

  // ── frames ──

  frames(pc: number, how?: FramePc): readonly SourceFrame[] {
    const at = this.#lookupPc(pc, how)
    const symbol = this.functionAt(at)
    if (symbol === undefined) return []
    let source = this.#positionIn(symbol, at)
    const frames: SourceFrame[] = []
    const whole = { name: symbol.name, declaration: symbol.declaration, inline: false }
    for (let activation = this.#runAt(at)?.activation; activation?.parent; activation = activation.parent) {
      const { declaration } = activation
      frames.push({ name: declaration?.name ?? symbol.name, declaration, source, inline: true })
      source = activation.call
    }
    return [...frames, { ...whole, source }]
  }

  entering(pc: number): number {
    const symbol = this.functionAt(pc)
    if (symbol === undefined) return 0
    const { entries } = this.#codeOf(symbol)
    let count = 0
    for (let at = this.#runAt(pc)?.activation; at?.parent && entries.get(at) === pc; at = at.parent) count++
    return count
  }

  variables(pc: number, how?: InlinePc): readonly Variable[] {
    const at = this.#lookupPc(pc, how)
    const body = this.#bodyAt(at)
    if (body === undefined || this.#symbols === undefined) return []
    const run = this.#runAt(at)
    const symbol = this.functions[body]
    const inline = how?.inline ?? 0
    const frame = this.frames(pc, how)[inline]
    if (frame === undefined) return []
    this.#variables ??= new VariableFinder(this.#symbols, this.module, this.#lines, this.layouts)
    return this.#variables.find({
      at: instructionIndex(this.#bodies[body].instructions, at),
      symbol,
      instructions: this.#bodies[body].instructions,
      runs: this.#codeOf(symbol).runs,
      activation: run && activationAt(run, inline),
      source: frame.source,
    })
  }

  // ── inside ──

  /** A pc within the instruction that counts. */
  #lookupPc(pc: number, how: FramePc | undefined): number {
    return how?.caller ? pc - 1 : pc
  }

  #bodyAt(pc: number): number | undefined {
    const { code } = this.module
    let [low, high] = [0, code.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (code[middle].end <= pc) low = middle + 1
      else high = middle
    }
    return low < code.length && pc >= this.#bodies[low].start ? low : undefined
  }

  #describe(at: number, index: number): Instruction {
    const { instructions } = this.#bodies[at]
    const names = this.module.localNames.get(this.functions[at].index)
    const isLast = index === instructions.length - 1
    return describeInstruction(instructions[index], this.module, isLast, (local) => names?.get(local))
  }

  /** What the compiler added counts to what stands before it, or else behind. */
  #positionIn({ range }: FunctionSymbol, pc: number): SourcePosition | undefined {
    const lines = this.#lines
    const after = lines.firstFrom(pc + 1)
    for (let index = after - 1; index >= 0 && lines.pc[index] >= range.start; index--) {
      if (lines.file[index] >= 0) return this.#position(index)
    }
    for (let index = after; index < lines.count && lines.pc[index] < range.end; index++) {
      if (lines.file[index] >= 0) return this.#position(index)
    }
    return undefined
  }

  #position(index: number): SourcePosition {
    const { files, file, line, column } = this.#lines
    return { file: files[file[index]], line: line[index], column: column[index] }
  }

  #codeOf(symbol: FunctionSymbol): FunctionCode {
    let code = this.#code.get(symbol)
    if (code === undefined) {
      const runs = findRuns(this.#lines, this.#declarations, symbol)
      const stretches = findStretches(runs)
      const lineStarts = new Set(stretches.filter(({ continues }) => !continues).map(({ start }) => start))
      const entries = new Map<Activation, number>()
      for (const { activation, start } of stretches) {
        if (!entries.has(activation)) entries.set(activation, start)
      }
      code = { runs, stretches, lineStarts, entries }
      this.#code.set(symbol, code)
    }
    return code
  }

  #runAt(pc: number): Run | undefined {
    const symbol = this.functionAt(pc)
    if (symbol === undefined) return undefined
    const { runs } = this.#codeOf(symbol)
    let [low, high] = [0, runs.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (runs[middle].end <= pc) low = middle + 1
      else high = middle
    }
    return runs[low]
  }

  #linesOf(file: string): ReadonlyMap<number, Stretch[]> {
    if (this.#stretchesByLine === undefined) {
      this.#stretchesByLine = new Map()
      for (const symbol of this.functions) {
        for (const stretch of this.#codeOf(symbol).stretches) {
          let lines = this.#stretchesByLine.get(stretch.file)
          if (lines === undefined) {
            lines = new Map()
            this.#stretchesByLine.set(stretch.file, lines)
          }
          const alike = lines.get(stretch.line)
          if (alike) alike.push(stretch)
          else lines.set(stretch.line, [stretch])
        }
      }
    }
    return this.#stretchesByLine.get(file) ?? new Map()
  }

  #entry(symbol: FunctionSymbol): number {
    const own = this.#codeOf(symbol).stretches.find(({ activation }) => activation.parent === undefined)
    return own?.start ?? symbol.range.start
  }

  #pathOf(name: string): string | undefined {
    return this.#directory === undefined || name.startsWith('~') ? undefined : join(this.#directory, name)
  }
}

/** Index of the last instruction that begins at or before `pc`. */
function instructionIndex(instructions: readonly DecodedInstruction[], pc: number): number {
  let [low, high] = [0, instructions.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (instructions[middle].pc <= pc) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** The activation `inline` levels out of a run's. */
function activationAt(run: Run, inline: number): Activation {
  let { activation } = run
  for (let level = inline; level > 0 && activation.parent !== undefined; level--) activation = activation.parent
  return activation
}
