import type { Program } from '../symbols/index.ts'
import type { Completions, EvaluationContext, Expression, MemoryAccess, Scope, Value } from './types.ts'

/** Values and expressions of one program. */
export declare class Values {
  /** @param program undefined for a firmware that was not built here: registers, memory and frames only */
  constructor(program: Program | undefined)
  /** @throws ExpressionError */
  compile(text: string, scope?: Scope): Expression
  /** Compiles and evaluates; `path = value` assigns, as do `+=` and its like. @throws ExpressionError */
  evaluate(text: string, context: EvaluationContext, scope?: Scope): Value
  /** Parameters and locals of a stopped frame, then wasm locals without a known name as `$3`. */
  locals(scope: Scope, context: EvaluationContext): readonly Value[]
  /** Registers by name. */
  registers(memory: MemoryAccess): readonly Value[]
  /** The firmware directory: `state`, `counters`, tables. Empty before the firmware has made one. */
  tables(memory: MemoryAccess): readonly Value[]
  /** Constants of the source by name, those that fit `filter` if there is one. */
  constants(filter?: string): readonly Value[]
  complete(text: string, cursor: number, scope?: Scope): Completions
}

/** A decoded frame at `address` as a value; undefined outside INIC memory. */
export declare function frameValue(
  memory: MemoryAccess,
  address: number,
  bytes: number,
  name?: string,
): Value | undefined
