/**
 * Variables of optimized code.
 *
 * The optimizer keeps no names: it renumbers locals, shares them among variables and drops variables. What stays is the source position of
 * each instruction. Where the source names a variable and the code mapped to that very character reads local 7, local 7 holds that
 * variable there; and so it does wherever its value comes from the same stores. That is taken for certain in two cases alone:
 *
 * - the variable is never assigned after its declaration, and every store that may have given the local its value has been seen to
 *   give the variable's value;
 * - the variable is assigned, or belongs to an inlined call: then the local's value must also be read as that variable later on. Were
 *   the variable assigned in between, that read would show a store.
 *
 * Of several locals that would do, none is taken unless the variable cannot change. So a variable may be missing, but is not wrong
 * where the source map is right.
 */
import type { ClassLayout, Layouts } from '../../firmware/layouts.ts'
import { findClass } from '../../firmware/layouts.ts'
import type { SourceReference, SourceSymbols, SourceVariable } from '../../firmware/source-symbols.ts'
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import type { Activation, Run } from './inlining.ts'
import { LocalFlow } from './local-flow.ts'
import type { SourceLines } from './source-lines.ts'
import type { FunctionSymbol, SourcePosition, Variable } from './types.ts'

/** What is known of one variable in one activation. */
interface Evidence {
  /** Stores that give a local its value, by their index in the flow. */
  readonly stores: Set<number>
  /** By local: instructions that read it as this variable. */
  readonly uses: Map<number, Set<number>>
}

export interface EvidenceInput {
  readonly symbols: SourceSymbols
  readonly lines: SourceLines
  readonly layouts: Layouts | undefined
  readonly symbol: FunctionSymbol
  readonly instructions: readonly DecodedInstruction[]
  readonly runs: readonly Run[]
  /** Types of a declaration's variables, by name. */
  readonly typesOf: (declaration: number) => ReadonlyMap<string, string>
  /** Variables that are the wasm function's parameters, in their order; undefined if the optimizer took some away. */
  readonly parameters: readonly number[] | undefined
}

export class VariableEvidence {
  readonly #input: EvidenceInput
  readonly #flow: LocalFlow
  readonly #evidence = new Map<Activation, Map<number, Evidence>>()
  readonly #references = new Map<number, ReadonlyMap<string, readonly SourceReference[]>>()

  constructor(input: EvidenceInput) {
    this.#input = input
    this.#flow = new LocalFlow(input.instructions, input.symbol.locals.length)
    this.#collect()
  }

  /** Variables of `activation` before the instruction of this index. */
  find(at: number, activation: Activation, source: SourcePosition | undefined): Variable[] {
    const declaration = activation.declaration?.index
    if (declaration === undefined || this.#input.instructions[at] === undefined) return []
    const { variables } = this.#input.symbols.declarations[declaration]
    const types = this.#input.typesOf(declaration)
    return variables.flatMap((variable, index): Variable[] => {
      if (source !== undefined && !inScope(variable, source)) return []
      const local = this.#localOf(at, activation, index, variable)
      if (local === undefined) return []
      const { name, parameter } = variable
      return [{ name, type: types.get(name) ?? this.#input.symbol.locals[local], parameter, local }]
    })
  }

  #localOf(at: number, activation: Activation, index: number, variable: SourceVariable): number | undefined {
    const evidence = this.#evidence.get(activation)?.get(index)
    if (evidence === undefined) return undefined
    const isFixed = !variable.reassigned && activation.parent === undefined
    const locals = [...new Set([...evidence.stores].map((store) => this.#flow.stores[store].local))].filter((local) => {
      const reaching = this.#flow.reaching(at, local)
      if (reaching.length === 0 || !reaching.every((store) => evidence.stores.has(store))) return false
      return isFixed || this.#flow.leadsTo(at, local, evidence.uses.get(local) ?? NONE)
    })
    return isFixed || locals.length === 1 ? locals[0] : undefined
  }

  #collect(): void {
    const { instructions, lines, runs, parameters } = this.#input
    const root = rootOf(runs[0]?.activation)
    if (root !== undefined) {
      for (const [local, index] of parameters?.entries() ?? []) this.#evidenceOf(root, index).stores.add(local)
    }
    let segment = 0
    let run = 0
    for (const [at, instruction] of instructions.entries()) {
      while (segment + 1 < lines.count && lines.pc[segment + 1] <= instruction.pc) segment++
      while (run + 1 < runs.length && runs[run].end <= instruction.pc) run++
      if (runs[run] === undefined || lines.file[segment] < 0 || lines.pc[segment] > instruction.pc) continue
      this.#look(at, instruction, runs[run].activation, `${lines.line[segment]}:${lines.column[segment]}`)
    }
  }

  #look(at: number, instruction: DecodedInstruction, activation: Activation, place: string): void {
    const declaration = activation.declaration?.index
    if (declaration === undefined) return
    for (const [, , index, kind, field] of this.#referencesOf(declaration).get(place) ?? []) {
      const { name } = instruction.opcode
      if (kind === 'read' && name === 'local.get') this.#use(at, instruction.index, activation, index)
      if (kind === 'write' && (name === 'local.set' || name === 'local.tee')) this.#store(at, activation, index)
      if (kind === 'field' && field !== undefined) this.#fieldUse(at, instruction, activation, index, field)
    }
  }

  /** A load of the named field, from a local: other code that begins at the same character may read anything. */
  #fieldUse(at: number, load: DecodedInstruction, activation: Activation, index: number, field: string): void {
    const base = this.#input.instructions[at - 1]
    if (base?.opcode.name !== 'local.get' || load.opcode.accessBytes === undefined || load.opcode.stores) return
    const layout = this.#classOf(activation, index)
    const known = layout?.fields.find((one) => one.name === field)
    if (known === undefined || known.offset !== load.offset || known.bytes !== load.opcode.accessBytes) return
    this.#use(at - 1, base.index, activation, index)
  }

  #classOf(activation: Activation, index: number): ClassLayout | undefined {
    const { symbols, layouts, typesOf } = this.#input
    const declaration = activation.declaration?.index
    if (declaration === undefined || layouts === undefined) return undefined
    const type = typesOf(declaration).get(symbols.declarations[declaration].variables[index].name)
    return type === undefined ? undefined : findClass(layouts, type)
  }

  #use(at: number, local: number, activation: Activation, index: number): void {
    const evidence = this.#evidenceOf(activation, index)
    const uses = evidence.uses.get(local)
    if (uses) uses.add(at)
    else evidence.uses.set(local, new Set([at]))
    for (const store of this.#flow.reaching(at, local)) evidence.stores.add(store)
  }

  #store(at: number, activation: Activation, index: number): void {
    const store = this.#flow.storeAt(at)
    if (store !== undefined) this.#evidenceOf(activation, index).stores.add(store)
  }

  #evidenceOf(activation: Activation, index: number): Evidence {
    let variables = this.#evidence.get(activation)
    if (variables === undefined) {
      variables = new Map()
      this.#evidence.set(activation, variables)
    }
    let evidence = variables.get(index)
    if (evidence === undefined) {
      evidence = { stores: new Set(), uses: new Map() }
      variables.set(index, evidence)
    }
    return evidence
  }

  /** References of a declaration by place, and its variables' own declarations as stores. */
  #referencesOf(declaration: number): ReadonlyMap<string, readonly SourceReference[]> {
    let known = this.#references.get(declaration)
    if (known === undefined) {
      const places = new Map<string, SourceReference[]>()
      const { references, variables } = this.#input.symbols.declarations[declaration]
      const declared = variables.flatMap((variable, index): SourceReference[] =>
        variable.declared === undefined ? [] : [[...variable.declared, index, 'write']],
      )
      for (const reference of [...references, ...declared]) {
        const place = `${reference[0]}:${reference[1]}`
        const list = places.get(place)
        if (list) list.push(reference)
        else places.set(place, [reference])
      }
      known = places
      this.#references.set(declaration, known)
    }
    return known
  }
}

const NONE: ReadonlySet<number> = new Set()

function rootOf(activation: Activation | undefined): Activation | undefined {
  let at = activation
  while (at?.parent !== undefined) at = at.parent
  return at
}

export function inScope({ scope: [line, column, endLine, endColumn] }: SourceVariable, at: SourcePosition): boolean {
  if (at.line < line || (at.line === line && at.column < column)) return false
  return at.line < endLine || (at.line === endLine && at.column <= endColumn)
}
