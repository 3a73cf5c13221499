/**
 * The state layout of a firmware: everything by which its memory means the same to a firmware that takes over from it in service. An
 * asc transform lists it from the declarations of the sources, used or not, so that a change in the body of a function changes nothing:
 *
 *   class   every class, with its fields in order and their types
 *   type    what a type stands for
 *   const   every constant that is not a text, enumerations too: states, flags, sizes, offsets, and the memory map
 *   base    where asc puts constant data
 *
 * Like layout-transform.ts it writes down the part of the compiler's internals that it uses.
 */
import { createHash } from 'node:crypto'

/** Raise it when the list below is made in another way. */
const FORMAT = 'inic state layout 1'

interface AscSource {
  /** With extension; `~lib/...` for files of a package, and for the standard library. */
  readonly normalizedPath: string
  readonly text: string
  readonly statements: readonly AscNode[]
}

interface AscNode {
  readonly kind: number
  readonly range: { readonly start: number; readonly end: number; readonly source: AscSource }
}

interface AscDeclaration extends AscNode {
  readonly name: { readonly text: string }
  readonly flags: number
}

interface AscVariable extends AscDeclaration {
  readonly type: AscNode | null
  readonly initializer: (AscNode & { readonly literalKind?: number }) | null
}

interface AscClassDeclaration extends AscDeclaration {
  readonly typeParameters: readonly AscNode[] | null
  readonly extendsType: AscNode | null
  readonly members: readonly AscDeclaration[]
}

interface AscProgram {
  readonly sources: readonly AscSource[]
  readonly options: { readonly memoryBase: number }
}

/** asc's `NodeKind`, as far as it matters here. */
const NODE = {
  literal: 17,
  variables: 48,
  class: 52,
  enum: 53,
  field: 55,
  namespace: 60,
  type: 61,
} as const
/** asc's `LiteralKind`: texts. */
const TEXT_LITERALS: readonly (number | undefined)[] = [2, 3]
/** asc's `CommonFlags`. */
const FLAG_CONST = 8
const FLAG_STATIC = 32

/** A transform class for asc's `transforms` option that gives the layout, 64 hexadecimal digits, to `receive` after compilation. */
export function stateLayoutTransform(
  isStandard: (path: string) => boolean,
  receive: (layout: string) => void,
): new () => object {
  return class StateLayoutTransform {
    /** Put on the prototype by asc. */
    declare readonly program: AscProgram

    afterCompile(): void {
      const { sources, options } = this.program
      const own = sources.filter(({ normalizedPath }) => !isStandard(normalizedPath))
      const lines = own.flatMap((source) => describe(source.statements, source.normalizedPath)).sort()
      receive(sha256([FORMAT, `base ${options.memoryBase}`, ...lines].join('\n')))
    }
  }
}

function describe(statements: readonly AscNode[], path: string): string[] {
  return statements.flatMap((statement) => {
    const { kind } = statement
    if (kind === NODE.variables) {
      const { declarations } = statement as AscNode & { readonly declarations: readonly AscVariable[] }
      return declarations.filter(({ flags }) => (flags & FLAG_CONST) !== 0).flatMap((item) => constant(item, path))
    }
    if (kind === NODE.class) return describeClass(statement as AscClassDeclaration, path)
    if (kind === NODE.enum) return describeEnum(statement as AscDeclaration & { readonly values: AscVariable[] }, path)
    if (kind === NODE.type) {
      const { name, type } = statement as AscDeclaration & { readonly type: AscNode }
      return [`type ${path}:${name.text} = ${text(type)}`]
    }
    if (kind === NODE.namespace) {
      const { name, members } = statement as AscDeclaration & { readonly members: readonly AscNode[] }
      return describe(members, `${path}:${name.text}`)
    }
    return []
  })
}

function describeClass(declaration: AscClassDeclaration, path: string): string[] {
  const { name, typeParameters, extendsType, members } = declaration
  const own = `${path}:${name.text}`
  const fields = members.filter(({ kind }) => kind === NODE.field) as AscVariable[]
  const stored = fields.filter(({ flags }) => (flags & FLAG_STATIC) === 0)
  const head = `${own}<${(typeParameters ?? []).map(text).join()}> extends ${text(extendsType)}`
  return [
    `class ${head}: ${stored.map(({ name, type }) => `${name.text} ${text(type)}`).join('; ')}`,
    ...fields.filter(({ flags }) => (flags & FLAG_STATIC) !== 0).flatMap((field) => constant(field, own)),
  ]
}

/** A value without an initializer is one more than that before it, so their order counts. */
function describeEnum({ name, values }: AscDeclaration & { readonly values: AscVariable[] }, path: string): string[] {
  return [`const ${path}:${name.text} = ${values.map((item) => `${item.name.text} ${text(item.initializer)}`).join()}`]
}

function constant({ name, type, initializer }: AscVariable, path: string): string[] {
  if (initializer?.kind === NODE.literal && TEXT_LITERALS.includes(initializer.literalKind)) return []
  return [`const ${path}:${name.text} ${text(type)} = ${text(initializer)}`]
}

/** As the source has it, but for the space between its words; empty for null. */
function text(node: AscNode | null): string {
  if (node === null) return ''
  const { start, end, source } = node.range
  return source.text.slice(start, end).replace(/\s+/g, ' ')
}

function sha256(contents: string): string {
  return createHash('sha256').update(contents).digest('hex')
}
