/**
 * Which local of the wasm function holds which variable of the source, at one pc.
 *
 * An unoptimized build says it in the name section: each variable has a local of its own.
 */
import type { Layouts } from '../../firmware/layouts.ts'
import type { SourceFunction, SourceSymbols, SourceVariable } from '../../firmware/source-symbols.ts'
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import type { WasmModule } from '../../firmware/wasm-module.ts'
import type { Activation, Run } from './inlining.ts'
import type { SourceLines } from './source-lines.ts'
import type { FunctionSymbol, SourcePosition, Variable } from './types.ts'

export interface VariableQuery {
  readonly pc: number
  readonly symbol: FunctionSymbol
  readonly instructions: readonly DecodedInstruction[]
  readonly runs: readonly Run[]
  /** Of the frame that is asked about. */
  readonly activation: Activation | undefined
  /** Where execution stands in that frame. */
  readonly source: SourcePosition | undefined
}

export class VariableFinder {
  readonly #symbols: SourceSymbols
  readonly #module: WasmModule
  readonly #functions: ReadonlyMap<string, SourceFunction>

  constructor(symbols: SourceSymbols, module: WasmModule, _lines: SourceLines, _layouts: Layouts | undefined) {
    this.#symbols = symbols
    this.#module = module
    this.#functions = new Map(symbols.functions.map((entry) => [entry.path, entry]))
  }

  find(query: VariableQuery): readonly Variable[] {
    const names = this.#module.localNames.get(query.symbol.index)
    const compiled = this.#functions.get(query.symbol.path)
    if (names === undefined || compiled === undefined || query.activation?.parent !== undefined) return []
    return this.#named(compiled, query.source)
  }

  /** The compiler's own locals: one for each variable, in the order in which it met them. */
  #named(compiled: SourceFunction, source: SourcePosition | undefined): Variable[] {
    const declared = this.#symbols.declarations[compiled.declaration].variables
    const found: Variable[] = []
    for (const [local, entry] of compiled.locals.entries()) {
      if (entry === null) continue
      const [name, type] = entry
      const alike = declared.filter((variable) => variable.name === name)
      const indices = compiled.locals.flatMap((other, index) => (other?.[0] === name ? [index] : []))
      // `this` is declared nowhere.
      if (alike.length === 0 && name !== 'this') continue
      const variable = alike.length === indices.length ? alike[indices.indexOf(local)] : alike[0]
      if (alike.length !== indices.length && name !== 'this' && indices.length > 1) continue
      if (variable !== undefined && source !== undefined && !inScope(variable, source)) continue
      found.push({ name, type, parameter: variable?.parameter ?? true, local })
    }
    return innermost(found)
  }
}

function inScope({ scope: [line, column, endLine, endColumn] }: SourceVariable, at: SourcePosition): boolean {
  if (at.line < line || (at.line === line && at.column < column)) return false
  return at.line < endLine || (at.line === endLine && at.column <= endColumn)
}

/** Of two of one name the later hides the earlier. */
function innermost(variables: readonly Variable[]): Variable[] {
  return variables.filter((variable, index) => !variables.slice(index + 1).some(({ name }) => name === variable.name))
}
