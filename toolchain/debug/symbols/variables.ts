/**
 * Which local of the wasm function holds which variable of the source, at one pc.
 *
 * An unoptimized build says it in the name section: each variable has a local of its own. For others see variable-evidence.ts.
 */
import type { Layouts } from '../../firmware/layouts.ts'
import type { SourceFunction, SourceSymbols } from '../../firmware/source-symbols.ts'
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import type { WasmModule } from '../../firmware/wasm-module.ts'
import type { Activation, Run } from './inlining.ts'
import type { SourceLines } from './source-lines.ts'
import type { FunctionSymbol, SourcePosition, Variable } from './types.ts'
import { inScope, VariableEvidence } from './variable-evidence.ts'

export interface VariableQuery {
  /** Index of the instruction before which, or in whose call, execution stands. */
  readonly at: number
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
  readonly #lines: SourceLines
  readonly #layouts: Layouts | undefined
  readonly #functions: ReadonlyMap<string, SourceFunction>
  readonly #evidence = new Map<FunctionSymbol, VariableEvidence>()
  readonly #types = new Map<number, ReadonlyMap<string, string>>()

  constructor(symbols: SourceSymbols, module: WasmModule, lines: SourceLines, layouts: Layouts | undefined) {
    this.#symbols = symbols
    this.#module = module
    this.#lines = lines
    this.#layouts = layouts
    this.#functions = new Map(symbols.functions.map((entry) => [entry.path, entry]))
  }

  find(query: VariableQuery): readonly Variable[] {
    const { symbol, activation, source, at } = query
    if (activation === undefined) return []
    const compiled = this.#functions.get(symbol.path)
    if (this.#module.localNames.has(symbol.index)) {
      return compiled === undefined || activation.parent !== undefined ? [] : this.#named(compiled, source)
    }
    let evidence = this.#evidence.get(symbol)
    if (evidence === undefined) {
      evidence = new VariableEvidence({
        symbols: this.#symbols,
        lines: this.#lines,
        layouts: this.#layouts,
        symbol,
        instructions: query.instructions,
        runs: query.runs,
        typesOf: (declaration) => this.#typesOf(declaration),
        parameters: compiled && this.#parameters(symbol, compiled),
      })
      this.#evidence.set(symbol, evidence)
    }
    return innermost(evidence.find(at, activation, source))
  }

  /** Variables by wasm parameter; undefined if the optimizer took parameters away, or for methods. */
  #parameters(symbol: FunctionSymbol, { declaration, locals }: SourceFunction): number[] | undefined {
    const parameters = this.#symbols.declarations[declaration].variables.filter(({ parameter }) => parameter)
    if (parameters.length !== symbol.parameters.length || locals[0]?.[0] === 'this') return undefined
    return parameters.map((_, index) => index)
  }

  /** Types of a declaration's variables as far as all its instances agree. */
  #typesOf(declaration: number): ReadonlyMap<string, string> {
    let known = this.#types.get(declaration)
    if (known === undefined) {
      const types = new Map<string, string>()
      const unsure = new Set<string>()
      for (const compiled of this.#symbols.functions) {
        if (compiled.declaration !== declaration) continue
        for (const local of compiled.locals) {
          if (local === null) continue
          const [name, type] = local
          if ((types.get(name) ?? type) !== type) unsure.add(name)
          types.set(name, type)
        }
      }
      for (const name of unsure) types.delete(name)
      known = types
      this.#types.set(declaration, known)
    }
    return known
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

/** Of two of one name the later hides the earlier. */
function innermost(variables: readonly Variable[]): Variable[] {
  return variables.filter((variable, index) => !variables.slice(index + 1).some(({ name }) => name === variable.name))
}
