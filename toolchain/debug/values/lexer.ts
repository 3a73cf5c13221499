/** Words of expressions and frame filters. */
import { parseIpv4, parseMac } from '../../config/addresses.ts'
import { ExpressionError } from './types.ts'

export type Token =
  | {
      readonly kind: 'number'
      readonly value: number | bigint
      /** Written with a point or an exponent. */
      readonly float: boolean
      readonly column: number
      readonly end: number
    }
  | { readonly kind: 'ip'; readonly value: number; readonly column: number; readonly end: number }
  | { readonly kind: 'mac'; readonly value: bigint; readonly column: number; readonly end: number }
  | { readonly kind: 'name'; readonly text: string; readonly column: number; readonly end: number }
  | { readonly kind: 'text'; readonly text: string; readonly column: number; readonly end: number }
  | { readonly kind: 'symbol'; readonly text: string; readonly column: number; readonly end: number }
  | { readonly kind: 'end'; readonly text: ''; readonly column: number; readonly end: number }

/** Longest expression that is read, characters. */
const LONGEST = 4096

const SPACE = /\s+/y
const MAC = /[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}(?![0-9a-zA-Z:])/y
const IP = /\d+\.\d+\.\d+\.\d+/y
const NUMBER = /0[xX][0-9a-fA-F_]*|0[bB][01_]*|\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?/y
const NAME = /[A-Za-z_$][\w$]*/y
const TEXT = /"([^"]*)"|'([^']*)'/y
/** Longer ones first. */
const SYMBOL =
  /->|<<=|>>>=|>>=|>>>|\+=|-=|\*=|\/=|%=|&=|\|=|\^=|<<|>>|<=|>=|===|!==|==|!=|&&|\|\||[-+*/%&|^~!<>=?:.,()[\]{}]/y

/** @param dotted names may hold dots, as those of frame fields do */
export function tokenize(text: string, dotted = false): Token[] {
  if (text.length > LONGEST) throw new ExpressionError(`longer than ${LONGEST} characters`, LONGEST)
  const tokens: Token[] = []
  let at = 0
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    return pattern.exec(text)
  }
  while (true) {
    at += match(SPACE)?.[0].length ?? 0
    const column = at + 1
    if (at >= text.length) {
      tokens.push({ kind: 'end', text: '', column, end: at })
      return tokens
    }
    const token =
      match(MAC) ?? match(IP) ?? match(NUMBER) ?? match(dotted ? DOTTED_NAME : NAME) ?? match(TEXT) ?? match(SYMBOL)
    if (token === null) throw new ExpressionError(`${JSON.stringify(text[at])} has no meaning here`, column)
    const word = token[0]
    at += word.length
    tokens.push(describe(word, token, column, at))
  }
}

const DOTTED_NAME = /[A-Za-z_$][\w$]*(?:\.[A-Za-z_][\w]*)*/y

function describe(word: string, match: RegExpExecArray, column: number, end: number): Token {
  const mac = parseMac(word)
  if (mac) return { kind: 'mac', value: mac.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n), column, end }
  if (/^\d+\.\d+\.\d+\.\d+$/.test(word)) {
    const value = parseIpv4(word)
    if (value === undefined) throw new ExpressionError(`${word} is no IPv4 address`, column)
    return { kind: 'ip', value, column, end }
  }
  if (/^\d/.test(word)) {
    const float = !/^0[xXbB]/.test(word) && /[.eE]/.test(word)
    return { kind: 'number', value: numberOf(word, float, column), float, column, end }
  }
  if (/^[A-Za-z_$]/.test(word)) return { kind: 'name', text: word, column, end }
  if (/^["']/.test(word)) return { kind: 'text', text: match[1] ?? match[2] ?? word.slice(1, -1), column, end }
  return { kind: 'symbol', text: word, column, end }
}

function numberOf(word: string, float: boolean, column: number): number | bigint {
  const digits = word.replaceAll('_', '')
  if (/^0[xXbB]$/.test(digits)) throw new ExpressionError(`${word} has no digits`, column)
  if (float) return Number(digits)
  const whole = BigInt(digits)
  if (whole > 0xffffffffffffffffn) throw new ExpressionError(`${word} has more than 64 bits`, column)
  return whole <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(whole) : whole
}

/** What a token is called in an error. */
export function tokenText(token: Token): string {
  switch (token.kind) {
    case 'end':
      return 'the end'
    case 'name':
    case 'symbol':
      return `"${token.text}"`
    case 'text':
      return 'a text'
    default:
      return 'a number'
  }
}
