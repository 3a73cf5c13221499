/**
 * What the compiler alone knows of a firmware's functions, for the debugger: where each was declared, its variables with their
 * scopes and types, and where the source names them. `inic build` writes it to build/<target>/firmware.symbols.json.
 *
 * Lines and columns count from 1; columns in UTF-16 units, as asc's source map has them.
 */

/** Line and column of the first character, line and column behind the last. */
export type SourceSpan = readonly [line: number, column: number, endLine: number, endColumn: number]

export interface SourceVariable {
  readonly name: string
  readonly parameter: boolean
  /** True if the source assigns it after its declaration. */
  readonly reassigned: boolean
  /** Where it can be named: from behind its declaration to the end of its block. */
  readonly scope: SourceSpan
  /** Where its declaration begins, if that declares nothing else: what code that sets it there is mapped to. */
  readonly declared: readonly [line: number, column: number] | undefined
}

/** How a place in the source names a variable. */
export type ReferenceKind =
  /** Read, and no larger expression begins at the same character. */
  | 'read'
  /** Read as the object of a field: `tcb.state`. */
  | 'field'
  /** Assigned. Code that is mapped there and sets a local sets this variable. */
  | 'write'

/** [line, column, index of the variable, kind, name of the field] */
export type SourceReference = readonly [number, number, number, ReferenceKind, string?]

/** [line, column, full path of the function that is called, or the name that the source gives] */
export type SourceCall = readonly [number, number, string]

export interface SourceDeclaration {
  /** `tcpInput`, `Class#method`. */
  readonly name: string
  /** `firmware/tcp/input/tcpInput`. */
  readonly path: string
  /** Index in `files`. */
  readonly file: number
  readonly span: SourceSpan
  /** Parameters first, then in the order of the source. */
  readonly variables: readonly SourceVariable[]
  readonly references: readonly SourceReference[]
  readonly calls: readonly SourceCall[]
}

/** A compiled function before optimization; several for one generic declaration. */
export interface SourceFunction {
  /** As the name section has it. */
  readonly path: string
  /** Index in `declarations`. */
  readonly declaration: number
  /** Name and type of each wasm local as the compiler made it; null for one of its own. */
  readonly locals: readonly (readonly [name: string, type: string] | null)[]
}

export interface SourceSymbols {
  readonly format: 1
  readonly files: readonly string[]
  readonly declarations: readonly SourceDeclaration[]
  readonly functions: readonly SourceFunction[]
}

export const SYMBOLS_FORMAT = 1

/** Parses the contents of a symbols file. @throws Error if it is of another form. */
export function parseSourceSymbols(text: string): SourceSymbols {
  const symbols = JSON.parse(text) as SourceSymbols
  if (symbols.format !== SYMBOLS_FORMAT || !Array.isArray(symbols.declarations) || !Array.isArray(symbols.functions)) {
    throw new Error(`source symbols of format ${String(symbols.format)}; this toolchain reads format ${SYMBOLS_FORMAT}`)
  }
  return symbols
}
