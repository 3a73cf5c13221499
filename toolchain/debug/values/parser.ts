/** From words to the shape of an expression. C's precedence; nothing is looked up here. */
import { type Token, tokenize, tokenText } from './lexer.ts'
import { ExpressionError } from './types.ts'

export type Syntax =
  | {
      readonly kind: 'number'
      readonly value: number | bigint
      readonly as: 'number' | 'float' | 'ip' | 'mac'
      readonly column: number
    }
  | { readonly kind: 'name'; readonly name: string; readonly column: number }
  | { readonly kind: 'unary'; readonly operator: string; readonly operand: Syntax; readonly column: number }
  | {
      readonly kind: 'binary'
      readonly operator: string
      readonly left: Syntax
      readonly right: Syntax
      readonly column: number
    }
  | {
      readonly kind: 'conditional'
      readonly condition: Syntax
      readonly yes: Syntax
      readonly no: Syntax
      readonly column: number
    }
  | { readonly kind: 'member'; readonly object: Syntax; readonly name: string; readonly column: number }
  | {
      readonly kind: 'index'
      readonly object: Syntax
      /** Undefined for `[*]`. */
      readonly index: Syntax | undefined
      /** Second number of `u8[address, count]`. */
      readonly count: Syntax | undefined
      readonly column: number
    }
  | { readonly kind: 'call'; readonly name: string; readonly arguments: readonly Syntax[]; readonly column: number }
  | {
      readonly kind: 'cast'
      readonly type: string
      readonly pointer: boolean
      readonly operand: Syntax
      readonly column: number
    }

export interface Statement {
  readonly target: Syntax
  /** `=`, `+=`, ...; undefined if nothing is assigned. */
  readonly operator: string | undefined
  readonly value: Syntax | undefined
  readonly column: number
}

/** Deepest nesting that is read. */
const DEEPEST = 200

/** Binary operators, weakest first. */
const LEVELS: readonly (readonly string[])[] = [
  ['||'],
  ['&&'],
  ['|'],
  ['^'],
  ['&'],
  ['==', '!=', '===', '!=='],
  ['<', '<=', '>', '>='],
  ['<<', '>>', '>>>'],
  ['+', '-'],
  ['*', '/', '%'],
]
const ASSIGNMENTS = ['=', '+=', '-=', '*=', '/=', '%=', '&=', '|=', '^=', '<<=', '>>=', '>>>=']

/** @throws ExpressionError */
export function parseStatement(text: string): Statement {
  return new Parser(text).statement()
}

/** @throws ExpressionError, also for an assignment */
export function parseExpression(text: string): Syntax {
  const { target, operator, column } = parseStatement(text)
  if (operator !== undefined) {
    throw new ExpressionError(`nothing can be assigned here${operator === '=' ? '; "==" compares' : ''}`, column)
  }
  return target
}

class Parser {
  readonly #tokens: readonly Token[]
  #at = 0
  #depth = 0

  constructor(text: string) {
    this.#tokens = tokenize(text)
  }

  statement(): Statement {
    const target = this.#conditional()
    const { column } = this.#next
    const operator = ASSIGNMENTS.find((symbol) => this.#is(symbol))
    let value: Syntax | undefined
    if (operator !== undefined) {
      this.#at++
      value = this.#conditional()
    }
    if (this.#next.kind !== 'end') throw this.#expected('an operator or the end')
    return { target, operator, value, column }
  }

  #conditional(): Syntax {
    if (++this.#depth > DEEPEST) throw new ExpressionError(`nested deeper than ${DEEPEST}`, this.#next.column)
    const condition = this.#binary(0)
    const { column } = this.#next
    let result = condition
    if (this.#take('?')) {
      const yes = this.#conditional()
      this.#need(':')
      result = { kind: 'conditional', condition, yes, no: this.#conditional(), column }
    }
    this.#depth--
    return result
  }

  #binary(level: number): Syntax {
    if (level === LEVELS.length) return this.#unary()
    let left = this.#binary(level + 1)
    while (true) {
      const { column } = this.#next
      const operator = LEVELS[level].find((symbol) => this.#is(symbol))
      if (operator === undefined) return left
      this.#at++
      left = { kind: 'binary', operator, left, right: this.#binary(level + 1), column }
    }
  }

  #unary(): Syntax {
    const { column } = this.#next
    if (++this.#depth > DEEPEST) throw new ExpressionError(`nested deeper than ${DEEPEST}`, column)
    const result = this.#prefixed(column)
    this.#depth--
    return result
  }

  #prefixed(column: number): Syntax {
    for (const operator of ['-', '+', '!', '~', '*', '&']) {
      if (this.#take(operator)) return { kind: 'unary', operator, operand: this.#unary(), column }
    }
    if (this.#take('<')) {
      const type = this.#name('a type')
      this.#need('>')
      return { kind: 'cast', type, pointer: false, operand: this.#unary(), column }
    }
    const [open, name, star, close] = this.#tokens.slice(this.#at, this.#at + 4)
    if (isSymbol(open, '(') && name?.kind === 'name' && isSymbol(star, '*') && isSymbol(close, ')')) {
      this.#at += 4
      return { kind: 'cast', type: name.text, pointer: true, operand: this.#unary(), column }
    }
    return this.#postfix()
  }

  #postfix(): Syntax {
    let result = this.#primary()
    while (true) {
      const { column } = this.#next
      if (this.#take('.') || this.#take('->')) {
        const nameColumn = this.#next.column
        result = { kind: 'member', object: result, name: this.#name('a field'), column: nameColumn }
      } else if (this.#take('[')) {
        result = this.#index(result, column)
      } else return result
    }
  }

  #index(object: Syntax, column: number): Syntax {
    if (this.#take('*')) {
      this.#need(']')
      return { kind: 'index', object, index: undefined, count: undefined, column }
    }
    const index = this.#conditional()
    const count = this.#take(',') ? this.#conditional() : undefined
    this.#need(']')
    return { kind: 'index', object, index, count, column }
  }

  #primary(): Syntax {
    const token = this.#next
    const { column } = token
    switch (token.kind) {
      case 'number':
      case 'ip':
      case 'mac':
        this.#at++
        return { kind: 'number', value: token.value, as: isFloat(token) ? 'float' : token.kind, column }
      case 'name':
        this.#at++
        if (this.#take('(')) return { kind: 'call', name: token.text, arguments: this.#arguments(), column }
        return { kind: 'name', name: token.text, column }
    }
    if (this.#take('(')) {
      const inner = this.#conditional()
      this.#need(')')
      return inner
    }
    throw this.#expected('a value')
  }

  #arguments(): Syntax[] {
    const list: Syntax[] = []
    if (this.#take(')')) return list
    do list.push(this.#conditional())
    while (this.#take(','))
    this.#need(')')
    return list
  }

  get #next(): Token {
    return this.#tokens[this.#at]
  }

  #is(symbol: string): boolean {
    return isSymbol(this.#next, symbol)
  }

  #take(symbol: string): boolean {
    if (!this.#is(symbol)) return false
    this.#at++
    return true
  }

  #need(symbol: string): void {
    if (!this.#take(symbol)) throw this.#expected(`"${symbol}"`)
  }

  #name(what: string): string {
    const token = this.#next
    if (token.kind !== 'name') throw this.#expected(what)
    this.#at++
    return token.text
  }

  #expected(what: string): ExpressionError {
    return new ExpressionError(`${what} is expected, not ${tokenText(this.#next)}`, this.#next.column)
  }
}

function isFloat(token: Token): boolean {
  return token.kind === 'number' && token.float
}

function isSymbol(token: Token | undefined, symbol: string): boolean {
  return token?.kind === 'symbol' && token.text === symbol
}
