/** Values and expressions of one program, for front ends. */
import { REGISTER_BASE } from '../../../abi/memory.ts'
import { REGISTERS } from '../../../emulator/devices/registers.ts'
import { fitsRows } from '../../inspect/directory.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'
import type { Program } from '../symbols/index.ts'
import type { Names } from './binder.ts'
import { completeExpression } from './completion.ts'
import { compileExpression, evaluateStatement } from './expression.ts'
import { nameMeaning } from './meanings.ts'
import { Evaluation } from './nodes.ts'
import { directoryTables } from './tables.ts'
import { cell, tableValue, type World } from './tree.ts'
import { readerOf, type Type, typeNamed, U32 } from './type-model.ts'
import type { Completions, EvaluationContext, Expression, Scope, Value } from './types.ts'

const NO_CONSTANTS: ReadonlyMap<string, number> = new Map()

export class Values {
  readonly #program: Program | undefined
  readonly #world: World

  /** @param program undefined for a firmware that was not built here: registers, memory and frames only */
  constructor(program: Program | undefined) {
    this.#program = program
    this.#world = { layouts: program?.layouts, constants: program?.constants ?? NO_CONSTANTS }
  }

  /** Parses an expression and looks up its names. @throws ExpressionError */
  compile(text: string, scope: Scope = {}): Expression {
    return compileExpression(text, this.#names(scope))
  }

  /** Compiles and evaluates; `path = value` assigns, as do `+=` and its like. @throws ExpressionError */
  evaluate(text: string, context: EvaluationContext, scope: Scope = {}): Value {
    return evaluateStatement(text, this.#names(scope), context)
  }

  /**
   * Parameters and locals of a stopped frame; then the wasm function's other locals as `$3`, where the frame is that of the wasm function
   * itself. Empty without `scope.pc` or `context.frame`.
   */
  locals(scope: Scope, context: EvaluationContext): readonly Value[] {
    const { variables, locals = [] } = this.#names(scope)
    if (context.frame === undefined) return []
    const run = new Evaluation(context)
    const held = context.frame.locals().length
    const named = variables.filter(({ local }) => local < held)
    const value = (name: string, type: Type, local: number, declared: string) =>
      cell(this.#world, context.memory, {
        name,
        type,
        meaning: nameMeaning(name, declared),
        scalar: run.local(local, type, 1),
        path: name,
      })
    const wasmType = (local: number) => typeNamed(locals[local] ?? '', undefined) ?? U32
    const known = named.map(({ name, type, local }) =>
      value(name, typeNamed(type, this.#world.layouts) ?? wasmType(local), local, type),
    )
    if (this.#isInline(scope)) return known
    const used = new Set(named.map(({ local }) => local))
    const others = Array.from({ length: Math.min(held, locals.length) }, (_, local) => local).filter(
      (local) => !used.has(local),
    )
    return [...known, ...others.map((local) => value(`$${local}`, wasmType(local), local, ''))]
  }

  /** Registers by name. */
  registers(memory: MemoryAccess): readonly Value[] {
    return REGISTERS.map(({ name, offset }) => {
      const address = REGISTER_BASE + offset
      return cell(this.#world, memory, { name, type: U32, scalar: readerOf(U32)(memory, address), address, path: name })
    })
  }

  /** What the firmware directory holds: `state`, `counters`, tables. Empty before the firmware has made one. */
  tables(memory: MemoryAccess): readonly Value[] {
    return directoryTables(memory).flatMap((table) => {
      const extent = table.finder()(memory)
      if (extent === undefined) return []
      const type = table.className === undefined ? undefined : typeNamed(table.className, this.#world.layouts)
      const layout = type?.kind === 'class' && fitsRows(type.layout, extent) ? type.layout : undefined
      return [tableValue(this.#world, memory, { name: table.name, table, extent, layout })]
    })
  }

  complete(text: string, cursor: number, scope: Scope = {}): Completions {
    return completeExpression(text, cursor, this.#names(scope))
  }

  #names({ pc, caller, inline }: Scope): Names {
    if (pc === undefined || this.#program === undefined) return { world: this.#world, variables: [], locals: undefined }
    return {
      world: this.#world,
      variables: this.#program.variables(pc, { caller, inline }),
      locals: this.#program.functionAt(caller ? pc - 1 : pc)?.locals,
    }
  }

  #isInline({ pc, caller, inline = 0 }: Scope): boolean {
    return pc !== undefined && (this.#program?.frames(pc, { caller })[inline]?.inline ?? false)
  }
}
