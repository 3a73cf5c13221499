/**
 * Which local of the wasm function holds which variable of the source, at one pc.
 *
 * An unoptimized build says it in the name section: each variable has a local of its own. For others see variable-evidence.ts.
 */
import type { Layouts } from '../../firmware/layouts.ts'
import type { SourceFunction, SourceSymbols, SourceVariable } from '../../firmware/source-symbols.ts'
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import type { WasmModule } from '../../firmware/wasm-module.ts'
import type { Activation, Run } from './inlining.ts'
import { isAnalysable } from './local-flow.ts'
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
    const names = this.#module.localNames.get(symbol.index)
    if (names !== undefined) {
      return compiled === undefined || activation.parent !== undefined ? [] : this.#named(compiled, names, source)
    }
    let evidence = this.#evidence.get(symbol)
    if (evidence === undefined) {
      if (!isAnalysable(query.instructions, symbol.locals.length)) return []
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
  #named(compiled: SourceFunction, names: ReadonlyMap<number, string>, source: SourcePosition | undefined): Variable[] {
    const declared = this.#symbols.declarations[compiled.declaration].variables
    const found: Variable[] = []
    for (const [local, label] of names) {
      const index = compilerIndex(compiled, label)
      const entry = compiled.locals[index]
      if (entry === undefined || entry === null) continue
      const [name, type] = entry
      const variable = declaredAs(compiled, index, name, declared)
      // `this` is declared nowhere.
      if (variable === undefined && name !== 'this') continue
      if (variable !== undefined && source !== undefined && !inScope(variable, source)) continue
      found.push({ name, type, parameter: variable?.parameter ?? true, local })
    }
    return innermost(found)
  }
}

/**
 * The compiler's number of a local by its name in the name section. They differ from those in the module, where locals stand by type;
 * of several variables of one name all but the first have that number behind it: `i|7`.
 */
function compilerIndex({ locals }: SourceFunction, label: string): number {
  const numbered = /^(.*)\|(\d+)$/.exec(label)
  return numbered ? Number(numbered[2]) : locals.findIndex((local) => local?.[0] === label)
}

/** The variable of the source that a local is: the compiler meets those of one name in the source's order. */
function declaredAs(
  { locals }: SourceFunction,
  index: number,
  name: string,
  declared: readonly SourceVariable[],
): SourceVariable | undefined {
  const variables = declared.filter((variable) => variable.name === name)
  const alike = locals.flatMap((local, at) => (local?.[0] === name ? [at] : []))
  // Some have no local, as they are constant or never come to: which ones cannot be told.
  return variables.length === alike.length ? variables[alike.indexOf(index)] : undefined
}

/** Of two of one name the later hides the earlier. */
function innermost(variables: readonly Variable[]): Variable[] {
  return variables.filter((variable, index) => !variables.slice(index + 1).some(({ name }) => name === variable.name))
}
