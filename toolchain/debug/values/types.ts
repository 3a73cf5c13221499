/** Shapes of typed values and expressions. */
import type { DebugValue } from '../../../emulator/cpu/debug.ts'
import type { MemoryAccess } from '../../inspect/memory-access.ts'

/** A stopped frame, for names of locals. */
export interface FrameAccess {
  /** Parameters, then locals, of the wasm function. Asked for at most once an evaluation. */
  locals(): readonly DebugValue[]
  /** One of them, where it can be had alone: for conditions, which are evaluated often. */
  local?(index: number): number | bigint | undefined
}

/** What an expression is evaluated against. */
export interface EvaluationContext {
  readonly memory: MemoryAccess
  /** Undefined between calls: then names of locals are errors. */
  readonly frame?: FrameAccess | undefined
}

/** Where names of an expression are looked up. */
export interface Scope {
  /** Undefined: no locals. */
  readonly pc?: number | undefined
  /** The pc is a return address. */
  readonly caller?: boolean | undefined
  /** Which of `program.frames(pc)`, 0 = innermost. */
  readonly inline?: number | undefined
}

/** A stretch of INIC memory. */
export interface Place {
  readonly address: number
  readonly bytes: number
}

/** A field of every row of a table: `tcb[*].state`. */
export interface PlacePattern extends Place {
  /** Of the first row's field. For a plain place `count` is 1 and `stride` is `bytes`. */
  readonly address: number
  /** Bytes from one row to the next. */
  readonly stride: number
  readonly count: number
}

export type Scalar = number | bigint | boolean

/**
 * A value as front ends show it: a lazy tree.
 *
 * Nothing is read before it is asked for, and it holds while the INIC stands still.
 */
export interface Value {
  /** `sndNxt`, `[3]`, or the expression. */
  readonly name: string
  /** `u32`, `Tcb`, `Tcb[4096]`, `IPv4 address`, ... */
  readonly type: string
  /** One line: `0xc0000201 (192.0.2.1)`, `ESTABLISHED (3)`, `Tcb 0x24000 192.0.2.1:80 ESTABLISHED`. */
  readonly display: string
  /** The number behind it; undefined for what is none, as a table. Of a class reference its address. */
  readonly scalar: Scalar | undefined
  /** Where it stands in INIC memory; undefined for a local or a computed value. Of a class reference: the object. */
  readonly address: number | undefined
  readonly bytes: number | undefined
  /** An expression that gives this value again, for watches; undefined if there is none. */
  readonly path: string | undefined
  /** Children that go by number, as rows of a table; 0 if there are none. Then `children` takes a window. */
  readonly indexed: number
  /** True if `children` gives anything. */
  readonly expandable: boolean
  /** Fields, or rows from `start` on, at most `count`. */
  children(start?: number, count?: number): readonly Value[]
}

/** Something that is wrong with an expression or filter: which character, and what was expected. */
export class ExpressionError extends Error {
  override readonly name = 'ExpressionError'
  /** From 1. */
  readonly column: number

  constructor(message: string, column: number) {
    super(`column ${column}: ${message}`)
    this.column = column
  }
}

/** An expression, parsed and bound to a program and a scope. Evaluating it does not parse again. */
export interface Expression {
  readonly text: string
  /** AssemblyScript's name of its type, as far as it has one: `u32`, `Tcb`, `bool`. */
  readonly type: string
  /** Typed, for people. @throws ExpressionError for an address outside INIC memory, a division by 0, a missing frame. */
  evaluate(context: EvaluationContext): Value
  /** For conditions: not 0, not false, not null. Well under 2 µs where memory has a `view`. @throws as evaluate. */
  test(context: EvaluationContext): boolean
  /** The bare number. @throws as evaluate; ExpressionError if it has none. */
  scalar(context: EvaluationContext): Scalar
  /** Where it stands in memory, rows with `[*]` too. @throws ExpressionError if it is no place. */
  place(context: EvaluationContext): PlacePattern
  /**
   * Stores `value`, an expression evaluated in the same scope or a number, there and gives what it is now.
   *
   * @throws ExpressionError: locals are read-only, a constant is no place, the memory is of the past
   */
  assign(context: EvaluationContext, value: Expression | Scalar): Value
}

export interface Completion {
  /** What to put in place of the text from `start`. */
  readonly text: string
  readonly kind: 'variable' | 'constant' | 'register' | 'table' | 'field' | 'function' | 'class'
  /** Type or value. */
  readonly detail: string
}

export interface Completions {
  /** Offset in the text where what is replaced begins. */
  readonly start: number
  readonly items: readonly Completion[]
}

/** True for a frame that the filter matches. `offset` and `length` are checked; a frame outside memory does not match. */
export type FrameFilter = (memory: Uint8Array, offset: number, length: number) => boolean

/** A field of a decoded frame. */
export interface FrameField {
  /** As filters name it: `tcp.dstport`; a header has the protocol's: `tcp`. */
  readonly name: string
  /** For people: `Destination port`. */
  readonly label: string
  readonly display: string
  readonly scalar: Scalar | undefined
  /** From the start of the frame, bytes. */
  readonly offset: number
  readonly bytes: number
  readonly children: readonly FrameField[]
}

export interface DecodedFrame {
  readonly bytes: number
  /** `TCP 192.0.2.1:80 → 198.51.100.7:40000 [SYN, ACK] seq 1 ack 2 win 65535 len 0`. */
  readonly summary: string
  /** Headers, outermost first. */
  readonly layers: readonly FrameField[]
}
