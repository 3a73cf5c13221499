/**
 * Which source function each instruction belongs to. The optimizer puts functions into others and leaves their source positions:
 * an instruction whose position lies in another declaration is inlined code. The calls that the source makes (source-symbols.ts) tell
 * by which way it came there.
 */
import type { SourceDeclaration, SourceSymbols } from '../../firmware/source-symbols.ts'
import type { SourceLines } from './source-lines.ts'
import type { Declaration, FunctionSymbol, PcRange, SourcePosition } from './types.ts'

/** A source function as it stands in one wasm function: the function itself, or one inlined call. */
export interface Activation {
  readonly declaration: DeclaredFunction | undefined
  /** Into which it was inlined; undefined for the wasm function itself. */
  readonly parent: Activation | undefined
  /** Where the parent calls it, as far as known. */
  readonly call: SourcePosition | undefined
}

/** Contiguous code of one activation and one line, without what is inlined into it. */
export interface Run extends PcRange {
  readonly activation: Activation
  readonly file: string
  readonly line: number
  /** The smallest in it. */
  readonly column: number
}

/** As a run, with what is inlined into the line. */
export interface Stretch extends Run {
  /** True if the activation's code before it is of the same line: it is no new beginning of that line. */
  readonly continues: boolean
}

export interface DeclaredFunction extends Declaration {
  /** Index in the symbols file. */
  readonly index: number
  /** Functions called, with the places. */
  readonly calls: ReadonlyMap<string, readonly SourcePosition[]>
}

/** Longest chain of calls that may have vanished between two functions whose code is left. */
const LONGEST_GAP = 4

/** How much farther a line before is than one behind. */
const BACKWARD_WEIGHT = 4

export class Declarations {
  readonly #between = new Map<number, readonly DeclaredFunction[] | undefined>()
  readonly all: readonly DeclaredFunction[]
  readonly #byFile = new Map<string, DeclaredFunction[]>()
  readonly #byFunction = new Map<string, DeclaredFunction>()
  readonly #byName = new Map<string, DeclaredFunction[]>()

  constructor(symbols: SourceSymbols | undefined) {
    this.all = (symbols?.declarations ?? []).map((declaration, index) =>
      describe(declaration, index, symbols?.files[declaration.file] ?? ''),
    )
    for (const declaration of this.all) {
      append(this.#byFile, declaration.file, declaration)
      for (const name of [declaration.path, declaration.name, declaration.name.replace(/^.*[#.]/, '')]) {
        append(this.#byName, name, declaration)
      }
    }
    for (const declarations of this.#byFile.values()) {
      declarations.sort((a, b) => a.line - b.line || a.column - b.column)
    }
    for (const { path, declaration } of symbols?.functions ?? []) this.#byFunction.set(path, this.all[declaration])
  }

  /** What a wasm function was compiled from. */
  ofFunction(path: string): DeclaredFunction | undefined {
    return this.#byFunction.get(path)
  }

  /** The declaration that a place in the source is in; the innermost, if one is within another. */
  at(file: string, line: number, column: number): DeclaredFunction | undefined {
    let found: DeclaredFunction | undefined
    for (const declaration of this.#byFile.get(file) ?? []) {
      if (declaration.line > line) break
      if (contains(declaration, line, column)) found = declaration
    }
    return found
  }

  /** Places where `from` calls `to`; empty if it does not. */
  calls(from: DeclaredFunction, to: DeclaredFunction): readonly SourcePosition[] {
    return from.calls.get(to.path) ?? from.calls.get(to.name.replace(/^.*[#.]/, '')) ?? []
  }

  /** Shortest chain of calls from one function to another, both left out; undefined if there is none within reach. */
  between(from: DeclaredFunction, to: DeclaredFunction): readonly DeclaredFunction[] | undefined {
    const key = from.index * this.all.length + to.index
    if (!this.#between.has(key)) this.#between.set(key, this.#search(from, to))
    return this.#between.get(key)
  }

  #search(from: DeclaredFunction, to: DeclaredFunction): readonly DeclaredFunction[] | undefined {
    let chains: DeclaredFunction[][] = [[]]
    const seen = new Set([from])
    for (let length = 0; length < LONGEST_GAP; length++) {
      const longer: DeclaredFunction[][] = []
      for (const chain of chains) {
        const last = chain.at(-1) ?? from
        if (this.calls(last, to).length > 0) return chain
        for (const path of last.calls.keys()) {
          for (const next of this.#byName.get(path) ?? []) {
            if (seen.has(next)) continue
            seen.add(next)
            longer.push([...chain, next])
          }
        }
      }
      chains = longer
    }
    return undefined
  }
}

/** The runs of one wasm function, ascending. */
export function findRuns(lines: SourceLines, declarations: Declarations, symbol: FunctionSymbol): readonly Run[] {
  return new RunFinder(lines, declarations, symbol).find()
}

/** The stretches of one wasm function, of every activation. By start; of those that begin alike the innermost first. */
export function findStretches(runs: readonly Run[]): readonly Stretch[] {
  const stretches: Writable<Stretch>[] = []
  const last = new Map<Activation, Writable<Stretch>>()
  for (const run of runs) {
    let at: Pick<Run, 'activation' | 'file' | 'line' | 'column'> | undefined = run
    while (at !== undefined) {
      const { activation, file, line, column }: Pick<Run, 'activation' | 'file' | 'line' | 'column'> = at
      const before = last.get(activation)
      const same = before !== undefined && before.line === line && before.file === file
      if (same && before.end === run.start) {
        before.end = run.end
        before.column = Math.min(before.column, column)
      } else {
        const stretch = { start: run.start, end: run.end, activation, file, line, column, continues: same }
        stretches.push(stretch)
        last.set(activation, stretch)
      }
      at = activation.parent && activation.call && { activation: activation.parent, ...activation.call }
    }
  }
  return stretches
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

/** An activation whose code may go on. */
interface Open {
  readonly activation: Activation
  /** Where its code begins. */
  first: SourcePosition | undefined
  last: SourcePosition | undefined
}

class RunFinder {
  readonly #lines: SourceLines
  readonly #declarations: Declarations
  readonly #symbol: FunctionSymbol
  /** Outermost first. */
  readonly #stack: Open[]
  /** Activations that were left for code of their caller's line of call: they may go on. */
  #left: Open | undefined

  constructor(lines: SourceLines, declarations: Declarations, symbol: FunctionSymbol) {
    this.#lines = lines
    this.#declarations = declarations
    this.#symbol = symbol
    const declaration = declarations.ofFunction(symbol.path)
    this.#stack = [
      { activation: { declaration, parent: undefined, call: undefined }, first: undefined, last: undefined },
    ]
  }

  find(): readonly Run[] {
    const { pc, file, line, column } = this.#lines
    const { start, end } = this.#symbol.range
    const runs: Writable<Run>[] = []
    for (let index = this.#lines.firstFrom(start); index < this.#lines.count && pc[index] < end; index++) {
      if (file[index] < 0) continue
      const position = { file: this.#lines.files[file[index]], line: line[index], column: column[index] }
      const activation = this.#enter(position, index)
      const open = runs.at(-1)
      if (open?.activation === activation && open.line === position.line && open.file === position.file) {
        open.column = Math.min(open.column, position.column)
        continue
      }
      // What has no source at the very beginning counts to the first that has.
      const from = open === undefined ? start : pc[index]
      if (open !== undefined) open.end = from
      runs.push({ start: from, end, activation, ...position })
    }
    return runs
  }

  /** The activation that code at `position` belongs to, given what stands before it. */
  #enter(position: SourcePosition, index: number): Activation {
    const top = this.#stack[this.#stack.length - 1]
    const declaration = this.#declarations.at(position.file, position.line, position.column)
    // Outside of all functions: a constant, which belongs to whoever uses it.
    if (declaration === undefined) return top.activation
    if (declaration === top.activation.declaration) {
      if (this.#beginsAgain(top, position)) {
        this.#stack.pop()
        return this.#inlined(declaration, position, undefined)
      }
      top.last = position
      return top.activation
    }
    const depth = this.#stack.findLastIndex(({ activation }) => activation.declaration === declaration)
    if (depth >= 0) {
      this.#left = this.#stack[depth + 1]
      this.#stack.length = depth + 1
      this.#stack[depth].last = position
      return this.#stack[depth].activation
    }
    return this.#inlined(declaration, position, this.#declarationBehind(declaration, index))
  }

  /** The same function called twice, `f(a) && f(b)`, with nothing of the caller's in between. */
  #beginsAgain({ activation, first, last }: Open, position: SourcePosition): boolean {
    const { declaration, parent } = activation
    if (declaration === undefined || parent?.declaration === undefined || first === undefined) return false
    if (first.line !== position.line || first.column !== position.column) return false
    if (last?.line === position.line && last.column === position.column) return false
    return this.#declarations.calls(parent.declaration, declaration).length > 1
  }

  /** Of the next code that is neither the function's own nor of what it calls: most often that of its caller. */
  #declarationBehind(declaration: DeclaredFunction, from: number): DeclaredFunction | undefined {
    const { pc, file, line, column, files, count } = this.#lines
    for (let index = from + 1; index < count && pc[index] < this.#symbol.range.end; index++) {
      if (file[index] < 0) continue
      const next = this.#declarations.at(files[file[index]], line[index], column[index])
      if (next === undefined || next === declaration) continue
      if (this.#declarations.between(declaration, next) === undefined) return next
    }
    return undefined
  }

  /** @param behind what the code behind it belongs to: its arguments may have come before its caller's first instruction */
  #inlined(declaration: DeclaredFunction, position: SourcePosition, behind: DeclaredFunction | undefined): Activation {
    const isOpen = this.#stack.some(({ activation }) => activation.declaration === behind)
    const ways =
      behind === undefined || isOpen || this.#declarations.calls(behind, declaration).length === 0
        ? [[declaration]]
        : [[behind, declaration], [declaration]]
    for (const way of ways) {
      for (let depth = this.#stack.length - 1; depth >= 0; depth--) {
        const caller = this.#stack[depth]
        const from = caller.activation.declaration
        const chain = from && this.#declarations.between(from, way[0])
        // Nearer callers are tried with direct calls first.
        if (chain === undefined || (chain.length > 0 && this.#calledDirectly(way[0], depth))) continue
        this.#stack.length = depth + 1
        for (const next of [...chain, ...way]) this.#push(next)
        const top = this.#stack[this.#stack.length - 1]
        top.first ??= position
        top.last = position
        return top.activation
      }
    }
    // No call explains it: all that is known is the wasm function that it is in.
    this.#stack.length = 1
    const activation = { declaration, parent: this.#stack[0].activation, call: undefined }
    this.#stack.push({ activation, first: position, last: position })
    return activation
  }

  /** True if an activation below `depth` calls the function itself. */
  #calledDirectly(declaration: DeclaredFunction, depth: number): boolean {
    return this.#stack
      .slice(0, depth)
      .some(
        ({ activation }) =>
          activation.declaration && this.#declarations.calls(activation.declaration, declaration).length > 0,
      )
  }

  #push(declaration: DeclaredFunction): void {
    const caller = this.#stack[this.#stack.length - 1]
    const parent = caller.activation
    const calls = parent.declaration ? this.#declarations.calls(parent.declaration, declaration) : []
    const call = nearest(calls, caller.last)
    const left = this.#left
    // Code of the caller amid the callee's: an argument, computed where it is used.
    if (
      left?.activation.parent === parent &&
      left.activation.declaration === declaration &&
      left.activation.call?.line === call?.line &&
      caller.last?.line === call?.line &&
      calls.filter(({ line }) => line === call?.line).length === 1
    ) {
      this.#stack.push(left)
    } else {
      this.#stack.push({ activation: { declaration, parent, call }, first: undefined, last: undefined })
    }
    this.#left = undefined
  }
}

/** The call that stands nearest to a place in the same function; the first if no place is known. */
function nearest(calls: readonly SourcePosition[], to: SourcePosition | undefined): SourcePosition | undefined {
  if (to === undefined) return calls[0]
  let best: SourcePosition | undefined
  for (const call of calls) {
    if (best === undefined || distance(call, to) < distance(best, to)) best = call
  }
  return best
}

/** Lines weigh more than any column, and code rather goes forward: from `last` to `call`. */
function distance(call: SourcePosition, last: SourcePosition): number {
  const lines = call.line - last.line
  return (lines < 0 ? lines * -BACKWARD_WEIGHT : lines) * 1000 + Math.min(999, Math.abs(call.column - last.column))
}

export function contains(span: Declaration, line: number, column: number): boolean {
  if (line < span.line || line > span.endLine) return false
  if (line === span.line && column < span.column) return false
  return line < span.endLine || column <= span.endColumn
}

function describe(declaration: SourceDeclaration, index: number, file: string): DeclaredFunction {
  const [line, column, endLine, endColumn] = declaration.span
  const calls = new Map<string, SourcePosition[]>()
  for (const [callLine, callColumn, path] of declaration.calls) {
    append(calls, path, { file, line: callLine, column: callColumn })
  }
  const { name, path } = declaration
  return { name, path, file, line, column, endLine, endColumn, index, calls }
}

function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key)
  if (list) list.push(value)
  else map.set(key, [value])
}
