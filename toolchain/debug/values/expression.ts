/**
 * The expression language of the debugger.
 *
 * Operators, precedence and literals are C's; types and their arithmetic are AssemblyScript's: a difference of two u32 is a u32 and
 * wraps. Numbers without a type (`80`, `0xff`, `192.0.2.1`, `02:00:00:00:00:01`, a constant of the source) take that of what they meet.
 *
 *     tcb, tcb.state, tcb->cwnd, this.nowMs     locals and parameters of the stopped function, and fields
 *     $3                                       a local of the wasm function by its number
 *     tcb[3].sndNxt, forwards[0], state.nowMs   tables of the firmware directory, in the singular or the plural
 *     tcb[*].state                             that field of every row
 *     tcb[3].arpEntry.address                  a field that means a row is followed
 *     MAC0_RX_FRAMES, UART_HEAD                registers
 *     MAC0_RX[3].length, QUEUE_STATUS[1].state  descriptor rings (MAC0_RX, MAC0_TX, ..., FETCH, DELIVER), QUEUE_STATUS, TRACE
 *     TCP_ESTABLISHED                          constants
 *     <Tcb>0x24140, <u8>x                      casts; of an address to an object
 *     u8[addr], u32[addr, 4], *(u16*)addr      memory
 *     &tcb[3].state                            an address
 *     frame(addr, len).tcp.dstport             fields of a frame, by names of frame filters
 *     ip(x), mac(addr), seqLt(a, b), inWindow(n, start, size), min, max, ntohs, ntohl, len(tcb), signed(x)
 *
 * A name is a local, then a register, a table, a constant; one with an index is a table even if a local has its name.
 */
import { bind, type Names } from './binder.ts'
import { decodeFrame, frameFieldValue, frameValue } from './frame.ts'
import { FIELD_ALIASES } from './frame-fields.ts'
import { Evaluation, type FrameNode, type Node, type ScalarNode } from './nodes.ts'
import { binaryNode, converted, scalarOf, truth } from './operators.ts'
import { parseExpression, parseStatement, type Statement } from './parser.ts'
import { cell, elementsValue, objectValue, tableValue, type World } from './tree.ts'
import { encode } from './type-model.ts'
import {
  type EvaluationContext,
  type Expression,
  ExpressionError,
  type FrameField,
  type PlacePattern,
  type Scalar,
  type Value,
} from './types.ts'

/** @throws ExpressionError */
export function compileExpression(text: string, names: Names): Expression {
  return new BoundExpression(text, bind(parseExpression(text), names), names)
}

/** An expression, or an assignment carried out. @throws ExpressionError */
export function evaluateStatement(text: string, names: Names, context: EvaluationContext): Value {
  const statement = parseStatement(text)
  const target = new BoundExpression(text, bind(statement.target, names), names)
  return statement.operator === undefined ? target.evaluate(context) : target.carryOut(statement, context)
}

class BoundExpression implements Expression {
  readonly text: string
  readonly type: string
  readonly #node: Node
  readonly #names: Names
  readonly #test: ((run: Evaluation) => boolean) | undefined

  constructor(text: string, node: Node, names: Names) {
    this.text = text
    this.#node = node
    this.#names = names
    this.type = node.form === 'scalar' || node.form === 'rows' || node.form === 'array' ? node.type.name : node.what
    this.#test = node.form === 'scalar' ? truth(node) : undefined
  }

  get #world(): World {
    return this.#names.world
  }

  evaluate(context: EvaluationContext): Value {
    const run = new Evaluation(context)
    const node = this.#node
    const { memory } = context
    const name = this.text.trim()
    switch (node.form) {
      case 'scalar':
        return this.#scalarValue(node, run, name)
      case 'table':
        return tableValue(this.#world, memory, {
          name: node.table.name,
          table: node.table,
          extent: node.extent(run),
          layout: node.layout,
        })
      case 'rows': {
        const { type, meaning, path, whole: inline } = node
        const { address, stride, count } = node.place(run)
        return elementsValue(this.#world, memory, { name, type, meaning, address, stride, count, path, inline })
      }
      case 'array': {
        const { type, stride } = node
        const { address, count } = node.place(run)
        const path = (index: number) => `${type.name}[0x${(address + index * stride).toString(16)}]`
        return elementsValue(this.#world, memory, { name, type, address, stride, count, path, inline: true })
      }
      case 'frame':
        return this.#frameValue(node, run, name)
    }
  }

  test(context: EvaluationContext): boolean {
    if (this.#test !== undefined) return this.#test(new Evaluation(context))
    return Boolean(this.scalar(context))
  }

  scalar(context: EvaluationContext): Scalar {
    const run = new Evaluation(context)
    if (this.#node.form !== 'frame') return scalarOf(this.#node).get(run)
    const { scalar } = this.#frameField(this.#node, run)
    if (scalar === undefined) throw new ExpressionError(`${this.#node.field} is no number`, this.#node.column)
    return scalar
  }

  place(context: EvaluationContext): PlacePattern {
    const run = new Evaluation(context)
    const node = this.#node
    switch (node.form) {
      case 'scalar': {
        if (node.place === undefined) {
          throw new ExpressionError(
            node.fixed === undefined || node.fixed.includes('local')
              ? 'this is no place in INIC memory, and has no address'
              : node.fixed,
            node.column,
          )
        }
        const place = node.place(run)
        if (place.address < 0 || place.address + place.bytes > context.memory.size) {
          throw new ExpressionError(`0x${place.address.toString(16)} is not within INIC memory`, node.column)
        }
        return place
      }
      case 'table': {
        const { base, stride, count } = node.extent(run)
        return { address: base, bytes: stride * count, stride: stride * count, count: 1 }
      }
      case 'rows':
        return node.place(run)
      case 'array': {
        const { address, count } = node.place(run)
        const bytes = count * node.stride
        return { address, bytes, stride: bytes, count: 1 }
      }
      case 'frame': {
        const { address, bytes } = node.place(run)
        if (node.field === '') return { address, bytes, stride: bytes, count: 1 }
        const field = this.#frameField(node, run)
        return { address: address + field.offset, bytes: field.bytes, stride: field.bytes, count: 1 }
      }
    }
  }

  assign(context: EvaluationContext, value: Expression | Scalar): Value {
    const source = typeof value === 'object' ? value.scalar(context) : value
    return this.#store(context, source)
  }

  /** Carries out `target = value`, `target += value`. */
  carryOut({ operator = '=', value, column }: Statement, context: EvaluationContext): Value {
    if (value === undefined) return this.evaluate(context)
    const right = scalarOf(bind(value, this.#names))
    if (operator === '=') return this.#store(context, right.get(new Evaluation(context)), right)
    const sum = binaryNode(operator.slice(0, -1), scalarOf(this.#node), right, column)
    return this.#store(context, sum.get(new Evaluation(context)), sum)
  }

  #store(context: EvaluationContext, value: Scalar, from?: ScalarNode): Value {
    const node = this.#node
    if (node.form !== 'scalar') throw new ExpressionError(`${node.what} cannot be assigned as a whole`, node.column)
    if (node.fixed !== undefined) throw new ExpressionError(node.fixed, node.column)
    if (node.place === undefined) {
      throw new ExpressionError('this cannot be assigned: it is no place in INIC memory', node.column)
    }
    const { memory } = context
    if (memory.write === undefined) {
      throw new ExpressionError('INIC memory cannot be written here: it is of the past', node.column)
    }
    const { address } = this.place(context)
    // What was computed in a wider type wraps, as an assignment in the firmware does; a number that was written must fit.
    const isComputed = from !== undefined && from.constant === undefined
    const bytes = encode(node.type, isComputed ? converted(from, node.type)(new Evaluation(context)) : value)
    if (bytes === undefined) throw new ExpressionError(`${value} does not fit a ${node.type.name}`, node.column)
    memory.write(address, bytes)
    return this.#scalarValue(node, new Evaluation(context), node.path ?? this.text)
  }

  #scalarValue(node: ScalarNode, run: Evaluation, name: string): Value {
    const { type, meaning, path } = node
    const { memory } = run
    const address = type.kind === 'class' ? undefined : node.place?.(run).address
    if (type.kind === 'class' && node.place !== undefined && node.fixed !== undefined) {
      return objectValue(this.#world, memory, { name, layout: type.layout, address: Number(node.get(run)), path })
    }
    return cell(this.#world, memory, { name, type, meaning, scalar: node.get(run), address, path })
  }

  #frameValue(node: FrameNode, run: Evaluation, name: string): Value {
    const { address, bytes } = node.place(run)
    if (node.field !== '') return { ...frameFieldValue(this.#frameField(node, run), address), name }
    const value = frameValue(run.memory, address, bytes, name)
    if (value === undefined) throw new ExpressionError(`${bytes} bytes there are not within INIC memory`, node.column)
    return value
  }

  #frameField(node: FrameNode, run: Evaluation): FrameField {
    const { address, bytes } = node.place(run)
    const frame = run.memory.read(address, bytes)
    if (frame === undefined) throw new ExpressionError(`${bytes} bytes there are not within INIC memory`, node.column)
    const wanted = FIELD_ALIASES.get(node.field) ?? node.field
    const found = findField(decodeFrame(frame).layers, wanted)
    if (found === undefined) throw new ExpressionError(`the frame has no field ${node.field}`, node.column)
    return found
  }
}

function findField(fields: readonly FrameField[], name: string): FrameField | undefined {
  for (const field of fields) {
    if (field.name === name) return field
    const inner = findField(field.children, name)
    if (inner !== undefined) return inner
  }
  return undefined
}
