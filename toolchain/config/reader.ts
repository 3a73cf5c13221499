/**
 * Readers of JSON values that keep positions. A reader gives a typed value, or reports issues and gives nothing; and it
 * describes itself as JSON Schema, so that what editors offer is what the toolchain reads.
 */
import {
  findNodeAtLocation,
  getNodePath,
  type Node,
  type ParseError,
  parseTree,
  printParseErrorCode,
} from 'jsonc-parser'
import { type Issue, suggest } from './issues.ts'

export type JsonSchema = Readonly<Record<string, unknown>>

export type Path = readonly (string | number)[]

export interface Reader<T> {
  /** The value, or undefined once what is wrong with it was reported. */
  read(node: Node, document: JsonDocument): T | undefined
  readonly schema: JsonSchema
}

/** The value type of a reader. */
export type Value<R> = R extends Reader<infer T> ? T : never

/** A parsed text and the issues found in it so far. */
export class JsonDocument {
  readonly issues: Issue[] = []
  readonly #root: Node | undefined

  constructor(text: string) {
    if (text.trim() === '') {
      this.issues.push({
        offset: 0,
        length: 0,
        message: 'the file is empty',
        hint: 'docs/farm-file.md shows what a farm needs',
      })
      return
    }
    const errors: ParseError[] = []
    this.#root = parseTree(text, errors, { allowTrailingComma: true })
    for (const { error, offset, length } of errors) {
      this.issues.push({ offset, length, message: parseErrorText(printParseErrorCode(error)), hint: undefined })
    }
  }

  /** The whole document by `reader`. With syntax errors nothing is read: half a tree gives misleading issues. */
  read<T>(reader: Reader<T>): T | undefined {
    return this.#root === undefined || this.issues.length > 0 ? undefined : reader.read(this.#root, this)
  }

  report(node: Node, message: string, hint?: string): undefined {
    const path = formatPath(getNodePath(node))
    this.issues.push({
      offset: node.offset,
      length: node.length,
      message: path === '' ? message : `${path}: ${message}`,
      hint,
    })
  }

  /** Reports at the value that `path` leads to, or at the nearest one around it that is there. */
  reportAt(path: Path, message: string, hint?: string): void {
    let node: Node | undefined
    for (let length = path.length; node === undefined && length >= 0; length--) {
      node = this.#root && findNodeAtLocation(this.#root, path.slice(0, length))
    }
    const shown = formatPath(path)
    this.issues.push({
      offset: node?.offset ?? 0,
      length: node?.length ?? 0,
      message: shown === '' ? message : `${shown}: ${message}`,
      hint,
    })
  }
}

/** `servers[0].interfaces[1].address`. */
export function formatPath(path: Path): string {
  return path
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${part}`))
    .join('')
    .replace(/^\./, '')
}

export function boolean(): Reader<boolean> {
  return scalar('boolean', (node) => node.value as boolean)
}

export function integer(minimum: number, maximum: number): Reader<number> {
  return scalar(
    'number',
    (node, document) => {
      const value = node.value as number
      if (Number.isInteger(value) && value >= minimum && value <= maximum) return value
      return document.report(node, `${value} is no whole number from ${minimum} to ${maximum}`)
    },
    { type: 'integer', minimum, maximum },
  )
}

/** A string, of a form where one is asked for; `form` says in words what a fitting one looks like. */
export function string(pattern?: RegExp, form?: string): Reader<string> {
  return scalar(
    'string',
    (node, document) => {
      const value = node.value as string
      if (pattern === undefined || pattern.test(value)) return value
      return document.report(node, `${JSON.stringify(value)} does not fit`, form && `write ${form}`)
    },
    pattern === undefined ? { type: 'string' } : { type: 'string', pattern: pattern.source },
  )
}

/** A string that `parse` understands; `example` goes into the message for one that it does not. */
export function parsed<T>(parse: (text: string) => T | undefined, what: string, example: string): Reader<T> {
  return scalar(
    'string',
    (node, document) => {
      const value = parse(node.value as string)
      return (
        value ?? document.report(node, `${JSON.stringify(node.value)} is no ${what}`, `write it as in "${example}"`)
      )
    },
    { type: 'string', examples: [example] },
  )
}

export function oneOf<const T extends string>(values: readonly T[]): Reader<T> {
  return scalar(
    'string',
    (node, document) => {
      const value = values.find((item) => item === node.value)
      if (value !== undefined) return value
      const choice = `choose one of ${values.map((item) => `"${item}"`).join(', ')}`
      return document.report(
        node,
        `${JSON.stringify(node.value)} is not known here`,
        suggest(String(node.value), values) ?? choice,
      )
    },
    { enum: values },
  )
}

export function list<T>(item: Reader<T>, maximum = 1024): Reader<T[]> {
  return {
    read(node, document) {
      if (node.type !== 'array') return wrongType(node, document, 'a list: [ ... ]')
      const nodes = node.children ?? []
      if (nodes.length > maximum) return document.report(node, `${nodes.length} entries; at most ${maximum} fit`)
      const values = nodes.map((child) => item.read(child, document))
      return values.every((value) => value !== undefined) ? values : undefined
    },
    schema: { type: 'array', items: item.schema, maxItems: maximum },
  }
}

/** An object whose keys are free and whose values are alike. */
export function dictionary<T>(value: Reader<T>): Reader<Record<string, T>> {
  return {
    read(node, document) {
      const entries = objectEntries(node, document)
      const values: Record<string, T> = {}
      for (const [key, child] of entries ?? []) {
        const item = value.read(child, document)
        if (item !== undefined) values[key] = item
      }
      return entries && values
    },
    schema: { type: 'object', additionalProperties: value.schema },
  }
}

export interface Field<T, Required extends boolean> {
  readonly reader: Reader<T>
  readonly required: Required
  readonly description: string
}

export function required<T>(reader: Reader<T>, description: string): Field<T, true> {
  return { reader, required: true, description }
}

export function optional<T>(reader: Reader<T>, description: string): Field<T, false> {
  return { reader, required: false, description }
}

type Fields = Readonly<Record<string, Field<unknown, boolean>>>

/** What `object` gives for these fields: optional ones may be absent. */
export type ObjectValue<F extends Fields> = {
  readonly [K in keyof F as F[K]['required'] extends true ? K : never]: Value<F[K]['reader']>
} & {
  readonly [K in keyof F as F[K]['required'] extends true ? never : K]?: Value<F[K]['reader']>
}

/** An object with these keys and no others; `$schema` is let through for editors. */
export function object<F extends Fields>(fields: F): Reader<ObjectValue<F>> {
  const known = Object.keys(fields)
  return {
    read(node, document) {
      const entries = objectEntries(node, document)
      if (entries === undefined) return undefined
      const before = document.issues.length
      const values: Record<string, unknown> = {}
      for (const [key, child, keyNode] of entries) {
        if (key === '$schema') continue
        if (!Object.hasOwn(fields, key)) {
          document.report(keyNode, 'there is no such setting', suggest(key, known) ?? `known are: ${known.join(', ')}`)
          continue
        }
        const value = fields[key].reader.read(child, document)
        if (value !== undefined) values[key] = value
      }
      const given = new Set(entries.map(([key]) => key))
      for (const key of known) {
        if (fields[key].required && !given.has(key))
          document.report(node, `'${key}' is missing`, `it is ${fields[key].description}`)
      }
      return document.issues.length > before ? undefined : (values as ObjectValue<F>)
    },
    schema: {
      type: 'object',
      properties: Object.fromEntries(
        known.map((key) => [key, { description: fields[key].description, ...fields[key].reader.schema }]),
      ),
      required: known.filter((key) => fields[key].required),
      additionalProperties: false,
    },
  }
}

/** Keys, value nodes and key nodes of an object, each key once; undefined once it was reported that this is none. */
function objectEntries(node: Node, document: JsonDocument): [string, Node, Node][] | undefined {
  if (node.type !== 'object') return wrongType(node, document, 'an object: { ... }')
  const seen = new Map<string, Node>()
  const entries: [string, Node, Node][] = []
  for (const property of node.children ?? []) {
    const [keyNode, valueNode] = property.children ?? []
    if (keyNode === undefined || valueNode === undefined) continue // the parser reported it
    const key = String(keyNode.value)
    if (seen.has(key)) document.report(keyNode, `'${key}' stands here twice`, 'keep one of them')
    else entries.push([key, valueNode, keyNode])
    seen.set(key, keyNode)
  }
  return entries
}

function scalar<T>(
  type: 'string' | 'number' | 'boolean',
  read: (node: Node, document: JsonDocument) => T | undefined,
  schema: JsonSchema = { type },
): Reader<T> {
  const wanted = { string: 'a string: "..."', number: 'a number', boolean: 'true or false' }[type]
  return {
    read: (node, document) => (node.type === type ? read(node, document) : wrongType(node, document, wanted)),
    schema,
  }
}

function wrongType(node: Node, document: JsonDocument, wanted: string): undefined {
  const found = {
    string: 'a string',
    number: 'a number',
    boolean: 'true or false',
    array: 'a list',
    object: 'an object',
    null: 'null',
    property: 'a key',
  }
  return document.report(node, `found ${found[node.type]}`, `write ${wanted}`)
}

/** `CommaExpected` as words. */
function parseErrorText(code: string): string {
  return `not JSON: ${code.replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase()}`
}
