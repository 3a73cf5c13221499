/**
 * An asc transform that records the functions of a firmware as the source has them (source-symbols.ts). It walks the syntax tree of
 * each function that was compiled. Like layout-transform.ts it writes down the part of the compiler's internals that it uses.
 */
import {
  type ReferenceKind,
  type SourceCall,
  type SourceDeclaration,
  type SourceFunction,
  type SourceReference,
  type SourceSpan,
  type SourceSymbols,
  type SourceVariable,
  SYMBOLS_FORMAT,
} from './source-symbols.ts'

interface AscSource {
  readonly normalizedPath: string
  readonly text: string
}

interface AscRange {
  readonly start: number
  readonly end: number
  readonly source: AscSource
}

interface AscNode {
  readonly kind: number
  readonly range: AscRange
  readonly [property: string]: unknown
}

interface AscIdentifier extends AscNode {
  readonly text: string
}

interface AscFunctionDeclaration extends AscNode {
  readonly name: AscIdentifier
  readonly signature: AscNode & { readonly parameters: readonly (AscNode & { readonly name: AscIdentifier })[] }
  readonly body: AscNode | null
}

interface AscType {
  toString(): string
  getClass(): { readonly name: string } | null
}

interface AscLocal {
  readonly name: string
  readonly index: number
  readonly type: AscType
}

interface AscFile {
  lookup(name: string): AscElement | null
}

interface AscElement {
  readonly kind: number
  readonly name: string
  readonly internalName: string
  readonly file: AscFile
}

interface AscFunction extends AscElement {
  readonly prototype: AscElement & { readonly declaration: AscFunctionDeclaration }
  readonly localsByIndex: readonly AscLocal[]
  /** The function reference; 0 if it was never compiled on its own. */
  readonly ref: number
}

interface AscProgram {
  /** Every function instance, compiled or not. */
  readonly instancesByName: ReadonlyMap<string, AscElement>
}

/** asc's `NodeKind`, as far as it matters here. */
const NODE = {
  parameter: 6,
  identifier: 7,
  binary: 9,
  call: 10,
  function: 15,
  propertyAccess: 22,
  this: 25,
  unaryPostfix: 28,
  unaryPrefix: 29,
  block: 31,
  for: 40,
  forOf: 41,
  switchCase: 65,
  variable: 48,
  variableDeclaration: 62,
} as const
/** Kinds of nodes that name types or labels, and no value. */
const NO_VALUES: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 32, 33, 63, 64])
/** asc's `ElementKind.Function` and `FunctionPrototype`. */
const ELEMENT_FUNCTION = 5
const ELEMENT_PROTOTYPE = 4
/** asc's `Token`: assignments, and the two steps. */
const TOKEN_FIRST_ASSIGNMENT = 101
const TOKEN_LAST_ASSIGNMENT = 112
const TOKEN_PLUS_PLUS = 87
const TOKEN_MINUS_MINUS = 88

/** A transform class for asc's `transforms` option that gives the symbols to `receive` after compilation. */
export function symbolTransform(receive: (symbols: SourceSymbols) => void): new () => object {
  return class SymbolTransform {
    /** Put on the prototype by asc. */
    declare readonly program: AscProgram

    afterCompile(): void {
      receive(new SymbolCollector().collect(this.program))
    }
  }
}

class SymbolCollector {
  readonly #files: string[] = []
  readonly #declarations: SourceDeclaration[] = []
  readonly #functions: SourceFunction[] = []
  readonly #declarationIndex = new Map<AscNode, number>()
  readonly #positions = new Map<AscSource, LineTable>()

  collect(program: AscProgram): SourceSymbols {
    for (const element of program.instancesByName.values()) {
      if (element.kind === ELEMENT_FUNCTION) this.#function(element as AscFunction)
    }
    return {
      format: SYMBOLS_FORMAT,
      files: this.#files,
      declarations: this.#declarations,
      functions: this.#functions,
    }
  }

  #function(instance: AscFunction): void {
    const { declaration } = instance.prototype
    // What asc makes up (accessors of fields, stubs) has no body of its own.
    if (declaration.body === null || declaration.body === undefined || declaration.range.source.text === '') return
    this.#functions.push({
      path: instance.internalName,
      declaration: this.#declaration(instance),
      locals: instance.localsByIndex.map(({ name, type }) =>
        /^\d/.test(name) ? null : [name, type.getClass()?.name ?? type.toString()],
      ),
    })
  }

  #declaration(instance: AscFunction): number {
    const { prototype } = instance
    const { declaration } = prototype
    const known = this.#declarationIndex.get(declaration)
    if (known !== undefined) return known
    const { source } = declaration.range
    let lines = this.#positions.get(source)
    if (lines === undefined) {
      lines = new LineTable(source.text)
      this.#positions.set(source, lines)
    }
    let file = this.#files.indexOf(source.normalizedPath)
    if (file < 0) file = this.#files.push(source.normalizedPath) - 1
    const path = prototype.internalName
    const index = this.#declarations.push({
      name: path.slice(path.lastIndexOf('/') + 1),
      path,
      file,
      span: lines.span(declaration.range),
      ...new FunctionWalker(lines, prototype.file).walk(declaration),
    })
    this.#declarationIndex.set(declaration, index - 1)
    return index - 1
  }
}

interface Variable {
  readonly name: string
  readonly parameter: boolean
  reassigned: boolean
  readonly start: number
  end: number
  readonly declared: number | undefined
}

/** Resolves the names in one function to its variables, by AssemblyScript's scopes. */
class FunctionWalker {
  readonly #lines: LineTable
  readonly #file: AscFile
  readonly #variables: Variable[] = []
  readonly #scopes: Map<string, number>[] = [new Map()]
  readonly #references: SourceReference[] = []
  readonly #calls: SourceCall[] = []

  constructor(lines: LineTable, file: AscFile) {
    this.#lines = lines
    this.#file = file
  }

  walk(declaration: AscFunctionDeclaration): Pick<SourceDeclaration, 'variables' | 'references' | 'calls'> {
    const { start, end } = declaration.range
    for (const { name } of declaration.signature.parameters) {
      this.#declare({ name: name.text, parameter: true, reassigned: false, start, end, declared: undefined })
    }
    this.#visit(declaration.body as AscNode, undefined)
    const variables: SourceVariable[] = this.#variables.map(({ name, parameter, reassigned, declared, ...range }) => ({
      name,
      parameter,
      reassigned,
      scope: this.#lines.span(range),
      declared: declared === undefined ? undefined : this.#lines.position(declared),
    }))
    return { variables, references: this.#references, calls: this.#calls }
  }

  /** @param outer the innermost expression around it that begins at the same character */
  #visit(node: AscNode, outer: AscNode | undefined): void {
    if (NO_VALUES.has(node.kind)) return
    switch (node.kind) {
      case NODE.function: // no closures in AssemblyScript: it sees none of our variables
        return
      case NODE.identifier:
        this.#read(node as AscIdentifier, outer)
        return
      case NODE.block:
      case NODE.for:
      case NODE.forOf:
      case NODE.switchCase:
        this.#scopes.push(new Map())
        this.#children(node)
        this.#closeScope(node.range.end)
        return
      case NODE.variable:
        this.#variableStatement(node)
        return
      case NODE.propertyAccess:
        this.#visit(node.expression as AscNode, node)
        return
      case NODE.call:
        this.#call(node)
        return
      case NODE.binary:
        if (isAssignment(node.operator)) this.#write(node.left as AscNode, node.range.start)
        break
      case NODE.unaryPrefix:
      case NODE.unaryPostfix:
        if (node.operator === TOKEN_PLUS_PLUS || node.operator === TOKEN_MINUS_MINUS) {
          this.#write(node.operand as AscNode, node.range.start)
        }
    }
    this.#children(node)
  }

  #children(node: AscNode): void {
    for (const child of childrenOf(node)) {
      this.#visit(child, child.range.start === node.range.start ? node : undefined)
    }
  }

  #variableStatement(node: AscNode): void {
    const declarations = node.declarations as readonly (AscNode & { readonly name: AscIdentifier })[]
    for (const declaration of declarations) {
      const initializer = declaration.initializer as AscNode | null
      if (initializer) this.#visit(initializer, undefined)
      const { end } = declaration.range
      this.#declare({
        name: declaration.name.text,
        parameter: false,
        reassigned: false,
        start: end,
        end,
        declared: declarations.length === 1 ? node.range.start : undefined,
      })
    }
  }

  #call(node: AscNode): void {
    const callee = node.expression as AscNode
    if (callee.kind === NODE.identifier) {
      const { text } = callee as AscIdentifier
      const element = this.#file.lookup(text)
      const path = element?.kind === ELEMENT_PROTOTYPE ? element.internalName : text
      this.#calls.push([...this.#lines.position(node.range.start), path])
    } else if (callee.kind === NODE.propertyAccess) {
      this.#calls.push([...this.#lines.position(node.range.start), (callee.property as AscIdentifier).text])
      this.#visit(callee.expression as AscNode, node)
    }
    for (const argument of node.args as readonly AscNode[]) this.#visit(argument, undefined)
  }

  #read(node: AscIdentifier, outer: AscNode | undefined): void {
    const variable = this.#resolve(node.text)
    if (variable === undefined) return
    if (outer === undefined) this.#refer(node.range.start, variable, 'read')
    else if (outer.kind === NODE.propertyAccess && (outer.expression as AscNode) === node) {
      this.#refer(node.range.start, variable, 'field', (outer.property as AscIdentifier).text)
    }
  }

  #write(target: AscNode, start: number): void {
    if (target.kind !== NODE.identifier) return
    const variable = this.#resolve((target as AscIdentifier).text)
    if (variable === undefined) return
    this.#variables[variable].reassigned = true
    this.#refer(start, variable, 'write')
  }

  #refer(start: number, variable: number, kind: ReferenceKind, field?: string): void {
    const [line, column] = this.#lines.position(start)
    this.#references.push(field === undefined ? [line, column, variable, kind] : [line, column, variable, kind, field])
  }

  #declare(variable: Variable): void {
    this.#scopes[this.#scopes.length - 1].set(variable.name, this.#variables.push(variable) - 1)
  }

  #closeScope(end: number): void {
    for (const index of this.#scopes.pop()?.values() ?? []) this.#variables[index].end = end
  }

  #resolve(name: string): number | undefined {
    for (let depth = this.#scopes.length - 1; depth >= 0; depth--) {
      const index = this.#scopes[depth].get(name)
      if (index !== undefined) return index
    }
    return undefined
  }
}

function isAssignment(operator: unknown): boolean {
  return typeof operator === 'number' && operator >= TOKEN_FIRST_ASSIGNMENT && operator <= TOKEN_LAST_ASSIGNMENT
}

/** Nodes in a node's fields, in the order of the source. */
function childrenOf(node: AscNode): AscNode[] {
  const children: AscNode[] = []
  for (const value of Object.values(node)) {
    if (isNode(value)) children.push(value)
    else if (Array.isArray(value)) children.push(...value.filter(isNode))
  }
  return children.sort((a, b) => a.range.start - b.range.start)
}

function isNode(value: unknown): value is AscNode {
  if (typeof value !== 'object' || value === null) return false
  const { kind, range } = value as Partial<AscNode>
  return typeof kind === 'number' && typeof range === 'object' && range !== null && 'source' in range
}

/** Lines and columns of offsets in a text. */
class LineTable {
  readonly #starts: number[] = [0]

  constructor(text: string) {
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) this.#starts.push(at + 1)
  }

  position(offset: number): [line: number, column: number] {
    let [low, high] = [0, this.#starts.length]
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if (this.#starts[middle] <= offset) low = middle
      else high = middle
    }
    return [low + 1, offset - this.#starts[low] + 1]
  }

  span({ start, end }: { readonly start: number; readonly end: number }): SourceSpan {
    return [...this.position(start), ...this.position(end)]
  }
}
