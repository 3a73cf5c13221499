/** What can stand where the cursor is in an expression. */
import { bind, type Names } from './binder.ts'
import { FUNCTIONS } from './functions.ts'
import { parseExpression } from './parser.ts'
import { REGISTER_NAMES, TABLES } from './tables.ts'
import { BUILT_IN_TYPES, typeNamed } from './type-model.ts'
import { type Completion, type Completions, ExpressionError } from './types.ts'

/** Most that are offered. */
const LIMIT = 200

export function completeExpression(text: string, cursor: number, names: Names): Completions {
  const before = text.slice(0, cursor)
  const word = /[\w$]*$/.exec(before)?.[0] ?? ''
  const start = before.length - word.length
  const member = /(?:\.|->)\s*$/.exec(before.slice(0, start))
  const items = member ? fields(before.slice(0, start - member[0].length), names) : roots(names)
  const lower = word.toLowerCase()
  const matching = items.filter(({ text: name }) => name.toLowerCase().startsWith(lower))
  return { start, items: matching.slice(0, LIMIT) }
}

function roots({ variables, world }: Names): Completion[] {
  return [
    ...variables.map(({ name, type }) => ({ text: name, kind: 'variable', detail: type }) as const),
    ...TABLES.flatMap(({ name, aliases, className = 'bytes', single }) =>
      [name, ...aliases].map(
        (text) => ({ text, kind: 'table', detail: single ? className : `${className}[]` }) as const,
      ),
    ),
    ...[...FUNCTIONS].map(
      ([text, { parameters }]) => ({ text, kind: 'function', detail: `(${parameters.join(', ')})` }) as const,
    ),
    ...REGISTER_NAMES.map((text) => ({ text, kind: 'register', detail: 'u32' }) as const),
    ...(world.layouts?.classes ?? []).map(
      ({ name, source }) => ({ text: name, kind: 'class', detail: source }) as const,
    ),
    ...BUILT_IN_TYPES.map((text) => ({ text, kind: 'class', detail: 'type' }) as const),
    ...[...world.constants].map(([text, value]) => ({ text, kind: 'constant', detail: String(value) }) as const),
  ]
}

/** Fields of what stands before the dot; none if that cannot be understood. */
function fields(before: string, names: Names): Completion[] {
  const layout = layoutOf(lastOperand(before), names)
  return (layout?.fields ?? []).map(({ name, type }) => ({ text: name, kind: 'field', detail: type }))
}

function layoutOf(operand: string, names: Names) {
  try {
    const node = bind(parseExpression(operand), names)
    if (node.form !== 'scalar' && node.form !== 'rows') return undefined
    if (node.type.kind === 'class') return node.type.layout
    if (node.type.kind === 'pointer' && node.type.element.kind === 'class') return node.type.element.layout
    if (node.form !== 'scalar' || node.meaning?.kind !== 'row') return undefined
    const { table } = node.meaning
    const className = TABLES.find(({ name }) => name === table)?.className
    const type = className === undefined ? undefined : typeNamed(className, names.world.layouts)
    return type?.kind === 'class' ? type.layout : undefined
  } catch (error) {
    if (error instanceof ExpressionError) return undefined
    throw error
  }
}

/** The name, row, call or cast that a text ends with: `a + tcb[x + 1]` → `tcb[x + 1]`. */
function lastOperand(text: string): string {
  let at = text.length
  while (at > 0) {
    const character = text[at - 1]
    if (character === ')' || character === ']') at = openingOf(text, at - 1)
    else if (/[\w$.]/.test(character)) at--
    else if (character === '>' && text[at - 2] === '-') at -= 2
    else break
  }
  // A cast before it belongs to it: `<Tcb>addr`.
  const cast = /<\s*\w+\s*>\s*$/.exec(text.slice(0, at))
  return text.slice(cast ? cast.index : at)
}

function openingOf(text: string, closing: number): number {
  let depth = 0
  for (let at = closing; at >= 0; at--) {
    if (text[at] === ')' || text[at] === ']') depth++
    else if ((text[at] === '(' || text[at] === '[') && --depth === 0) return at
  }
  return 0
}
