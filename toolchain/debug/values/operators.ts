/** Operators of expressions, with AssemblyScript's types: a difference of two u32 is a u32 and wraps. */
import type { Evaluation, Node, ScalarNode } from './nodes.ts'
import { BOOL, F64, I32, I64, type IntegerType, LITERAL, type Type, U32, U64 } from './type-model.ts'
import { ExpressionError, type Scalar } from './types.ts'

type Get = (run: Evaluation) => Scalar

/** A value that is known already. */
export function constantNode(value: Scalar, column: number, meaning?: ScalarNode['meaning']): ScalarNode {
  const isFraction = typeof value === 'number' && !Number.isInteger(value)
  const type = typeof value === 'boolean' ? BOOL : isFraction ? F64 : LITERAL
  return { form: 'scalar', type, meaning, constant: value, get: () => value, column }
}

/** @throws ExpressionError for what is no number: a table, rows, a frame */
export function scalarOf(node: Node): ScalarNode {
  if (node.form === 'scalar') return node
  throw new ExpressionError(`this is ${node.what}, and no number`, node.column)
}

export function unaryNode(operator: string, operand: ScalarNode, column: number): ScalarNode {
  if (operator === '!') {
    const test = truth(operand)
    return fold({ form: 'scalar', type: BOOL, get: (run) => !test(run), column }, operand)
  }
  if (operator === '+') return { ...operand, place: undefined, path: undefined, column }
  const type = promoted(operand.type)
  const zero = operator === '-' ? constantNode(0, column) : constantNode(-1, column)
  if (type.kind === 'float' && operator === '~') throw new ExpressionError('"~" takes integers', column)
  return arithmetic(operator === '-' ? '-' : '^', zero, operand, column)
}

export function binaryNode(operator: string, left: ScalarNode, right: ScalarNode, column: number): ScalarNode {
  switch (operator) {
    case '&&':
    case '||': {
      const [first, second] = [truth(left), truth(right)]
      const get: Get = operator === '&&' ? (run) => first(run) && second(run) : (run) => first(run) || second(run)
      return fold({ form: 'scalar', type: BOOL, get, column }, left, right)
    }
    case '==':
    case '!=':
    case '===':
    case '!==':
    case '<':
    case '<=':
    case '>':
    case '>=':
      return comparison(operator, left, right, column)
    default:
      return arithmetic(operator, left, right, column)
  }
}

export function conditionalNode(condition: ScalarNode, yes: ScalarNode, no: ScalarNode, column: number): ScalarNode {
  const test = truth(condition)
  if (yes.type.name === no.type.name) {
    const get: Get = (run) => (test(run) ? yes.get(run) : no.get(run))
    return fold({ form: 'scalar', type: yes.type, meaning: yes.meaning, get, column }, condition, yes, no)
  }
  const type = common(yes, no)
  const [first, second] = [converted(yes, type), converted(no, type)]
  return fold(
    { form: 'scalar', type, get: (run) => (test(run) ? first(run) : second(run)), column },
    condition,
    yes,
    no,
  )
}

/** Not 0, not false, not null. */
export function truth({ type, get }: ScalarNode): (run: Evaluation) => boolean {
  if (type.kind === 'bool') return get as (run: Evaluation) => boolean
  return (run) => Boolean(get(run))
}

/** Gives the value of a node as one of another type; wraps as a cast does. */
export function converted(node: ScalarNode, to: Type): Get {
  const get = conversion(node, to)
  if (node.constant === undefined) return get
  const value = get(NOWHERE)
  return () => value
}

function conversion({ type: from, get }: ScalarNode, to: Type): Get {
  if (from.name === to.name) return get
  switch (to.kind) {
    case 'bool':
      return (run) => Boolean(get(run))
    case 'float':
      return to.bits === 32 ? (run) => Math.fround(Number(get(run))) : (run) => Number(get(run))
    case 'literal':
      return get
    case 'integer':
      if (to.bits > 32) {
        const wrap = to.signed ? BigInt.asIntN : BigInt.asUintN
        return (run) => wrap(to.bits, toBigInt(get(run)))
      }
      return narrow(from, to, get)
    default:
      return narrow(from, U32, get)
  }
}

function narrow(from: Type, to: IntegerType, get: Get): Get {
  const isNumber = from.kind === 'integer' && from.bits <= 32
  // What fits is left alone: it is so in nearly every comparison.
  if (isNumber && !from.signed && !to.signed && from.bits <= to.bits) return get
  if (to.bits === 32) {
    if (isNumber || from.kind === 'class' || from.kind === 'pointer') {
      return to.signed ? (run) => (get(run) as number) | 0 : (run) => (get(run) as number) >>> 0
    }
    return to.signed ? (run) => wrap32(get(run)) | 0 : (run) => wrap32(get(run)) >>> 0
  }
  const shift = 32 - to.bits
  return to.signed ? (run) => (wrap32(get(run)) << shift) >> shift : (run) => (wrap32(get(run)) << shift) >>> shift
}

function wrap32(value: Scalar): number {
  return typeof value === 'bigint' ? Number(BigInt.asIntN(32, value)) : Number(value) | 0
}

function toBigInt(value: Scalar): bigint {
  return typeof value === 'number' ? BigInt(Math.trunc(value)) : BigInt(value)
}

function comparison(operator: string, left: ScalarNode, right: ScalarNode, column: number): ScalarNode {
  const type = common(left, right)
  const [a, b] = [converted(left, type), converted(right, type)]
  const get = comparisons(a, b)[operator.slice(0, 2)]
  return fold({ form: 'scalar', type: BOOL, get, column }, left, right)
}

/** Literals may be a number here and a bigint there, so == is meant. */
function comparisons(a: Get, b: Get): Readonly<Record<string, Get>> {
  return {
    // biome-ignore lint/suspicious/noDoubleEquals: 1n == 1
    '==': (run) => a(run) == b(run),
    // biome-ignore lint/suspicious/noDoubleEquals: 1n != 1
    '!=': (run) => a(run) != b(run),
    '<': (run) => a(run) < b(run),
    '<=': (run) => a(run) <= b(run),
    '>': (run) => a(run) > b(run),
    '>=': (run) => a(run) >= b(run),
  }
}

function arithmetic(operator: string, left: ScalarNode, right: ScalarNode, column: number): ScalarNode {
  const isShift = operator === '<<' || operator === '>>' || operator === '>>>'
  const type = isShift ? promoted(left.type) : common(left, right)
  const [a, b] = [converted(left, type), isShift ? shiftCount(right) : converted(right, type)]
  if (type.kind === 'float') {
    const get = floatOperators(a, b)[operator]
    if (get === undefined) throw new ExpressionError(`"${operator}" takes integers`, column)
    return fold({ form: 'scalar', type, get, column }, left, right)
  }
  const get =
    type.kind === 'integer' && type.bits <= 32
      ? narrowOperators(a, b, type.signed, column)[operator]
      : wideOperators(a, b, type.kind === 'integer' ? type : undefined, column)[operator]
  return fold({ form: 'scalar', type, get, column }, left, right)
}

/** A count is a number, whatever the left side is. */
function shiftCount(right: ScalarNode): Get {
  return (run) => wrap32(right.get(run))
}

function floatOperators(a: Get, b: Get): Readonly<Record<string, Get | undefined>> {
  return {
    '+': (run) => Number(a(run)) + Number(b(run)),
    '-': (run) => Number(a(run)) - Number(b(run)),
    '*': (run) => Number(a(run)) * Number(b(run)),
    '/': (run) => Number(a(run)) / Number(b(run)),
    '%': (run) => Number(a(run)) % Number(b(run)),
  }
}

function narrowOperators(a: Get, b: Get, signed: boolean, column: number): Readonly<Record<string, Get>> {
  const operators: Record<string, (x: number, y: number) => number> = {
    '+': (x, y) => x + y,
    '-': (x, y) => x - y,
    '*': Math.imul,
    '/': (x, y) => Math.trunc(x / divisor(y, column)),
    '%': (x, y) => x % divisor(y, column),
    '&': (x, y) => x & y,
    '|': (x, y) => x | y,
    '^': (x, y) => x ^ y,
    '<<': (x, y) => x << y,
    '>>': signed ? (x, y) => x >> y : (x, y) => x >>> y,
    '>>>': (x, y) => x >>> y,
  }
  return Object.fromEntries(
    Object.entries(operators).map(([name, apply]) => [
      name,
      signed
        ? (run: Evaluation) => apply(a(run) as number, b(run) as number) | 0
        : (run: Evaluation) => apply(a(run) as number, b(run) as number) >>> 0,
    ]),
  )
}

/** @param type undefined: without a width */
function wideOperators(a: Get, b: Get, type: IntegerType | undefined, column: number): Readonly<Record<string, Get>> {
  const wrap = (value: bigint): Scalar => {
    if (type !== undefined) return type.signed ? BigInt.asIntN(type.bits, value) : BigInt.asUintN(type.bits, value)
    const isSafe = value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
    return isSafe ? Number(value) : BigInt.asIntN(128, value)
  }
  const mask = BigInt((type?.bits ?? 64) - 1)
  const operators: Record<string, (x: bigint, y: bigint) => bigint> = {
    '+': (x, y) => x + y,
    '-': (x, y) => x - y,
    '*': (x, y) => x * y,
    '/': (x, y) => x / divisor(y, column),
    '%': (x, y) => x % divisor(y, column),
    '&': (x, y) => x & y,
    '|': (x, y) => x | y,
    '^': (x, y) => x ^ y,
    '<<': (x, y) => x << (y & mask),
    '>>': (x, y) => x >> (y & mask),
    '>>>': (x, y) => BigInt.asUintN(type?.bits ?? 64, x) >> (y & mask),
  }
  return Object.fromEntries(
    Object.entries(operators).map(([name, apply]) => [
      name,
      (run: Evaluation) => wrap(apply(toBigInt(a(run)), toBigInt(b(run)))),
    ]),
  )
}

function divisor<T extends number | bigint>(value: T, column: number): T {
  if (!value) throw new ExpressionError('a division by 0', column)
  return value
}

/** The type in which two values meet: the wider one, unsigned if either is. */
function common(left: ScalarNode, right: ScalarNode): Type {
  const [a, b] = [promoted(left.type), promoted(right.type)]
  if (a.kind === 'literal' && b.kind === 'literal') return LITERAL
  if (a.kind === 'literal') return forLiteral(b, left)
  if (b.kind === 'literal') return forLiteral(a, right)
  if (a.kind === 'float' || b.kind === 'float') return F64
  if (a.kind !== 'integer' || b.kind !== 'integer') return U32
  const signed = a.signed && b.signed
  if (a.bits > 32 || b.bits > 32) return signed ? I64 : U64
  return signed ? I32 : U32
}

function forLiteral(type: Type, literal: ScalarNode): Type {
  const value = literal.constant
  if (type.kind !== 'integer' || type.bits > 32 || value === undefined) return type
  return Number(value) >= -0x80000000 && Number(value) <= 0xffffffff ? type : I64
}

/** What operators compute in. */
function promoted(type: Type): Type {
  switch (type.kind) {
    case 'integer':
      if (type.bits > 32) return type.signed ? I64 : U64
      return type.signed ? I32 : U32
    case 'float':
      return F64
    case 'literal':
      return type
    default:
      return U32
  }
}

/** Computes now what does not depend on memory. */
function fold(node: ScalarNode, ...operands: readonly ScalarNode[]): ScalarNode {
  if (operands.some(({ constant }) => constant === undefined)) return node
  const value = node.get(NOWHERE)
  return { ...node, constant: value, get: () => value }
}

/** Constants ask nothing of it. */
const NOWHERE = undefined as unknown as Evaluation
