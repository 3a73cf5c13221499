/** Filters of frames, in the manner of Wireshark's display filters. */
import { netmask } from '../../config/addresses.ts'
import {
  ABSENT,
  EITHER,
  FIELD_ALIASES,
  FRAME_FIELDS,
  FrameScan,
  frameField,
  PROTOCOL_LAYERS,
  readFrameField,
} from './frame-fields.ts'
import { type Token, tokenize, tokenText } from './lexer.ts'
import { ExpressionError, type FrameFilter } from './types.ts'

/** One value of a frame, ABSENT if it has none. */
type Read = (bytes: Uint8Array) => number
type Test = (bytes: Uint8Array) => boolean

/** What stands at either side of a comparison. */
interface Operand {
  /** More than one for names like `ip.addr`. */
  readonly reads: readonly Read[]
  /** Known already. */
  readonly constant: number | undefined
  /** Of an IPv4 network, `192.0.2.0/24`. */
  readonly mask: number
  readonly name: string | undefined
}

const COMPARISONS: ReadonlyMap<string, string> = new Map([
  ['==', '=='],
  ['===', '=='],
  ['eq', '=='],
  ['!=', '!='],
  ['!==', '!='],
  ['ne', '!='],
  ['<', '<'],
  ['lt', '<'],
  ['<=', '<='],
  ['le', '<='],
  ['>', '>'],
  ['gt', '>'],
  ['>=', '>='],
  ['ge', '>='],
])

const DEEPEST = 100

/**
 * A filter by fields of frames: `tcp.flags.syn && ip.dst == 192.0.2.1`, `arp`, `tcp.port in {80, 8000..8080}`, `ip.src == 10.0.0.0/8`,
 * `tcp.flags & 0x12 == 0x12`, `not udp`. A field that a frame does not have compares false, also with `!=`. An empty text matches
 * every frame. Nothing is allocated for a frame.
 *
 * @param options.iposEtherType Ethernet type of ipOS frames, where the farm has another
 * @throws ExpressionError
 */
export function compileFrameFilter(text: string, options: { readonly iposEtherType?: number } = {}): FrameFilter {
  const scan = new FrameScan(options.iposEtherType)
  if (text.trim() === '') return (memory, offset, length) => scan.scan(memory, offset, length)
  const test = new FilterParser(text, scan).parse()
  return (memory, offset, length) => scan.scan(memory, offset, length) && test(memory)
}

/** Names that a filter can begin with. */
export function frameFilterNames(): readonly string[] {
  return [...PROTOCOL_LAYERS.keys(), ...FRAME_FIELDS.map(({ name }) => name), ...EITHER.keys()].sort()
}

class FilterParser {
  readonly #tokens: readonly Token[]
  readonly #scan: FrameScan
  #at = 0
  #depth = 0

  constructor(text: string, scan: FrameScan) {
    this.#tokens = tokenize(text, true)
    this.#scan = scan
  }

  parse(): Test {
    const test = this.#or()
    if (this.#next.kind !== 'end') throw this.#expected('"&&", "||" or the end')
    return test
  }

  #or(): Test {
    let left = this.#and()
    while (this.#take('||', 'or')) {
      const [a, b] = [left, this.#and()]
      left = (bytes) => a(bytes) || b(bytes)
    }
    return left
  }

  #and(): Test {
    let left = this.#not()
    while (this.#take('&&', 'and')) {
      const [a, b] = [left, this.#not()]
      left = (bytes) => a(bytes) && b(bytes)
    }
    return left
  }

  #not(): Test {
    if (++this.#depth > DEEPEST) throw new ExpressionError(`nested deeper than ${DEEPEST}`, this.#next.column)
    const test = this.#negated()
    this.#depth--
    return test
  }

  #negated(): Test {
    if (this.#take('!', 'not')) {
      const test = this.#not()
      return (bytes) => !test(bytes)
    }
    if (this.#take('(')) {
      const test = this.#or()
      this.#need(')')
      return test
    }
    return this.#comparison()
  }

  #comparison(): Test {
    const { column } = this.#next
    const layer = this.#next.kind === 'name' ? PROTOCOL_LAYERS.get(canonical(this.#next.text)) : undefined
    if (layer !== undefined) {
      this.#at++
      const { at } = this.#scan
      return () => at[layer] >= 0
    }
    const left = this.#operand()
    if (this.#take('in')) return this.#members(left)
    const token = this.#next
    const operator = token.kind === 'symbol' || token.kind === 'name' ? COMPARISONS.get(token.text) : undefined
    if (operator === undefined) return this.#alone(left, column)
    this.#at++
    return compare(operator, left, this.#operand(), token.column)
  }

  /** A field by itself: a flag that is set, any other field that is there. */
  #alone({ reads, name, constant }: Operand, column: number): Test {
    if (constant !== undefined)
      throw new ExpressionError('a number alone is no filter; compare it with a field', column)
    const isFlag = name !== undefined && frameField(name)?.format === 'flag'
    // A mask, `tcp.flags & 2`, is asked for its bits.
    if (isFlag || name === undefined) return (bytes) => reads.some((read) => read(bytes) > 0)
    return (bytes) => reads.some((read) => read(bytes) !== ABSENT)
  }

  #members(left: Operand): Test {
    this.#need('{')
    const tests: Test[] = []
    do {
      const { column } = this.#next
      const from = this.#constant()
      if (this.#take('.')) {
        this.#need('.')
        const to = this.#constant()
        const [first, last] = [from.constant ?? 0, to.constant ?? 0]
        tests.push(any(left.reads, (value) => value >= first && value <= last))
      } else tests.push(compare('==', left, from, column))
    } while (this.#take(','))
    this.#need('}')
    return (bytes) => {
      for (const test of tests) if (test(bytes)) return true
      return false
    }
  }

  #constant(): Operand {
    const { column } = this.#next
    const operand = this.#operand()
    if (operand.constant === undefined)
      throw new ExpressionError('a number or address is expected, not a field', column)
    return operand
  }

  #operand(): Operand {
    const left = this.#value()
    if (!this.#take('&')) return left
    const right = this.#constant()
    const bits = right.constant ?? 0
    const reads = left.reads.map(
      (read): Read =>
        (bytes) => {
          const value = read(bytes)
          return value === ABSENT ? ABSENT : (value & bits) >>> 0
        },
    )
    return { reads, constant: undefined, mask: NO_MASK, name: undefined }
  }

  #value(): Operand {
    const token = this.#next
    this.#at++
    switch (token.kind) {
      case 'number':
        if (typeof token.value === 'bigint' || !Number.isInteger(token.value)) {
          throw new ExpressionError('fields are whole numbers of up to 48 bits', token.column)
        }
        return constantOperand(token.value)
      case 'mac':
        return constantOperand(Number(token.value))
      case 'ip':
        return { ...constantOperand(token.value), mask: this.#prefix() }
      case 'name':
        return this.#field(token.text, token.column)
    }
    this.#at--
    throw this.#expected('a field, a protocol, a number or an address')
  }

  #prefix(): number {
    if (!this.#take('/')) return NO_MASK
    const token = this.#next
    if (token.kind !== 'number' || typeof token.value !== 'number' || token.value > 32) {
      throw this.#expected('a prefix length up to 32')
    }
    this.#at++
    return netmask(token.value)
  }

  #field(text: string, column: number): Operand {
    if (text === 'true' || text === 'false') return constantOperand(text === 'true' ? 1 : 0)
    const name = canonical(text)
    const specs = (EITHER.get(name) ?? [name]).map((one) => frameField(one))
    const scan = this.#scan
    const reads = specs.map((spec): Read => {
      if (spec === undefined) throw new ExpressionError(unknownField(text), column)
      return (bytes) => readFrameField(spec, bytes, scan)
    })
    return { reads, constant: undefined, mask: NO_MASK, name }
  }

  get #next(): Token {
    return this.#tokens[this.#at]
  }

  #take(...words: readonly string[]): boolean {
    const token = this.#next
    if ((token.kind !== 'symbol' && token.kind !== 'name') || !words.includes(token.text)) return false
    this.#at++
    return true
  }

  #need(symbol: string): void {
    if (!this.#take(symbol)) throw this.#expected(`"${symbol}"`)
  }

  #expected(what: string): ExpressionError {
    return new ExpressionError(`${what} is expected, not ${tokenText(this.#next)}`, this.#next.column)
  }
}

const NO_MASK = 0xffffffff

function constantOperand(constant: number): Operand {
  return { reads: [() => constant], constant, mask: NO_MASK, name: undefined }
}

function canonical(name: string): string {
  const own = name.replace(/^inic(?=\.|$)/, 'ipos')
  return FIELD_ALIASES.get(own) ?? own
}

function unknownField(name: string): string {
  const [protocol] = canonical(name).split('.')
  const known = frameFilterNames().filter((one) => one.startsWith(`${protocol}.`))
  if (known.length > 0) return `frames have no field ${name}; of ${protocol} there are ${known.join(', ')}`
  return `no protocol is called ${protocol}; there are ${[...PROTOCOL_LAYERS.keys()].join(', ')}`
}

function compare(operator: string, left: Operand, right: Operand, column: number): Test {
  if (left.reads.length > 1 && right.reads.length > 1) {
    throw new ExpressionError('only one side may be a name that means several fields', column)
  }
  const [many, one] = right.reads.length > 1 ? [right.reads, left] : [left.reads, right]
  const [other] = one.reads
  const mask = left.mask === NO_MASK ? right.mask : left.mask
  if (mask !== NO_MASK && operator !== '==' && operator !== '!=') {
    throw new ExpressionError('a network is compared by "==" or "!="', column)
  }
  const matches = comparison(right.reads.length > 1 ? mirrored(operator) : operator, mask)
  const isAll = operator === '!='
  return (bytes) => {
    const value = other(bytes)
    if (value === ABSENT) return false
    let present = false
    for (const read of many) {
      const candidate = read(bytes)
      if (candidate === ABSENT) continue
      present = true
      if (matches(candidate, value) !== isAll) return !isAll
    }
    return present && isAll
  }
}

function mirrored(operator: string): string {
  return operator.replace(/[<>]/, (sign) => (sign === '<' ? '>' : '<'))
}

function comparison(operator: string, mask: number): (a: number, b: number) => boolean {
  switch (operator) {
    case '==':
      return mask === NO_MASK ? (a, b) => a === b : (a, b) => ((a ^ b) & mask) === 0
    case '!=':
      return mask === NO_MASK ? (a, b) => a !== b : (a, b) => ((a ^ b) & mask) !== 0
    case '<':
      return (a, b) => a < b
    case '<=':
      return (a, b) => a <= b
    case '>':
      return (a, b) => a > b
    default:
      return (a, b) => a >= b
  }
}

function any(reads: readonly Read[], matches: (value: number) => boolean): Test {
  return (bytes) => {
    for (const read of reads) {
      const value = read(bytes)
      if (value !== ABSENT && matches(value)) return true
    }
    return false
  }
}
