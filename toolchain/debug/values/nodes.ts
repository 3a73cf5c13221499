/** An expression bound to names: what each part is and how to get it. */

import type { ClassLayout } from '../../firmware/layouts.ts'
import type { TableExtent } from '../../inspect/directory.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'
import type { Meaning } from './meanings.ts'
import type { TableName } from './tables.ts'
import { fromLocal, type Type } from './type-model.ts'
import { type EvaluationContext, ExpressionError, type PlacePattern, type Scalar } from './types.ts'

/** One evaluation: its memory, and the locals once they were asked for. */
export class Evaluation {
  readonly memory: MemoryAccess
  readonly #context: EvaluationContext
  #locals: ReturnType<NonNullable<EvaluationContext['frame']>['locals']> | undefined

  constructor(context: EvaluationContext) {
    this.memory = context.memory
    this.#context = context
  }

  /** @throws ExpressionError if there is no frame, or none with such a local */
  local(index: number, type: Type, column: number): Scalar {
    const { frame } = this.#context
    if (frame === undefined) {
      throw new ExpressionError('locals have values only while the INIC is stopped in a function', column)
    }
    const value = frame.local?.(index)
    if (value !== undefined) return fromLocal(type, value)
    this.#locals ??= frame.locals()
    const local = this.#locals[index]
    if (local === undefined) throw new ExpressionError(`the function has ${this.#locals.length} locals`, column)
    return fromLocal(type, local.value)
  }
}

export interface ScalarNode {
  readonly form: 'scalar'
  readonly type: Type
  readonly meaning?: Meaning | undefined
  /** Known already. */
  readonly constant?: Scalar | undefined
  /** @throws ExpressionError */
  readonly get: (run: Evaluation) => Scalar
  /** Where it stands; of a class that is a row: the row itself. */
  readonly place?: ((run: Evaluation) => PlacePattern) | undefined
  /** Why it cannot be assigned, where that is not for want of a place. */
  readonly fixed?: string | undefined
  readonly path?: string | undefined
  readonly column: number
}

export interface TableNode {
  readonly form: 'table'
  readonly what: string
  readonly table: TableName
  readonly layout: ClassLayout | undefined
  readonly extent: (run: Evaluation) => TableExtent
  readonly column: number
}

/** Rows of a table, or one field of each. */
export interface RowsNode {
  readonly form: 'rows'
  readonly what: string
  readonly table: TableName
  readonly type: Type
  readonly meaning?: Meaning | undefined
  /** The rows themselves, and no field of theirs. */
  readonly whole: boolean
  readonly place: (run: Evaluation) => PlacePattern
  readonly path: (index: number) => string
  readonly column: number
}

/** `u8[address, count]`. */
export interface ArrayNode {
  readonly form: 'array'
  readonly what: string
  readonly type: Type
  readonly stride: number
  readonly place: (run: Evaluation) => { readonly address: number; readonly count: number }
  readonly column: number
}

/** `frame(address, length)`. */
export interface FrameNode {
  readonly form: 'frame'
  readonly what: string
  readonly place: (run: Evaluation) => { readonly address: number; readonly bytes: number }
  /** Field asked for so far: `tcp`. */
  readonly field: string
  readonly column: number
}

export type Node = ScalarNode | TableNode | RowsNode | ArrayNode | FrameNode
