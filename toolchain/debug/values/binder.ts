/** Looks up the names of an expression, and makes functions of it. */
import { fitsRows } from '../../inspect/directory.ts'
import type { Variable } from '../symbols/index.ts'
import { FUNCTIONS } from './functions.ts'
import { fieldMeaning, IP, MAC, nameMeaning } from './meanings.ts'
import type { Evaluation, Node, RowsNode, ScalarNode, TableNode } from './nodes.ts'
import { binaryNode, conditionalNode, constantNode, converted, scalarOf, unaryNode } from './operators.ts'
import type { Syntax } from './parser.ts'
import { registerAddress, TABLES, tableNamed } from './tables.ts'
import { fieldType, type World } from './tree.ts'
import { BUILT_IN_TYPES, byteSize, F64, readerOf, type Type, typeNamed, U32 } from './type-model.ts'
import { ExpressionError, type PlacePattern, type Scalar } from './types.ts'

export interface Names {
  readonly world: World
  readonly variables: readonly Variable[]
  /** wasm value types of the function's locals, for `$3`; undefined where no function is known. */
  readonly locals: readonly string[] | undefined
}

/** @throws ExpressionError */
export function bind(syntax: Syntax, names: Names): Node {
  return new Binder(names).bind(syntax)
}

class Binder {
  readonly #names: Names
  readonly #world: World

  constructor(names: Names) {
    this.#names = names
    this.#world = names.world
  }

  bind(syntax: Syntax): Node {
    switch (syntax.kind) {
      case 'number':
        return this.#number(syntax)
      case 'name':
        return this.#name(syntax.name, syntax.column)
      case 'unary':
        return this.#unary(syntax)
      case 'binary':
        return binaryNode(syntax.operator, this.#scalar(syntax.left), this.#scalar(syntax.right), syntax.column)
      case 'conditional': {
        const { condition, yes, no, column } = syntax
        return conditionalNode(this.#scalar(condition), this.#scalar(yes), this.#scalar(no), column)
      }
      case 'member':
        return this.#member(this.bind(syntax.object), syntax.name, syntax.column)
      case 'index':
        return this.#index(syntax)
      case 'call':
        return this.#call(syntax)
      case 'cast':
        return this.#cast(syntax)
    }
  }

  #scalar(syntax: Syntax): ScalarNode {
    return scalarOf(this.bind(syntax))
  }

  #number({ value, as, column }: Syntax & { kind: 'number' }): ScalarNode {
    const constant = constantNode(value, column, as === 'ip' ? IP : as === 'mac' ? MAC : undefined)
    return as === 'float' ? { ...constant, type: F64 } : constant
  }

  #name(name: string, column: number): Node {
    if (name === 'true' || name === 'false') return constantNode(name === 'true', column)
    if (name === 'null') return constantNode(0, column)
    const wasm = /^\$(\d+)$/.exec(name)
    if (wasm) return this.#wasmLocal(Number(wasm[1]), name, column)
    const variable = this.#names.variables.find((one) => one.name === name)
    if (variable) return this.#local(variable, column)
    const register = registerAddress(name)
    if (register !== undefined) return memoryNode(U32, name, column, () => register)
    const table = tableNamed(name, this.#world.layouts)
    if (table) return this.#table(name, column)
    const constant = this.#world.constants.get(name)
    if (constant !== undefined) return constantNode(constant, column)
    throw new ExpressionError(this.#unknown(name), column)
  }

  #unknown(name: string): string {
    const like = this.#alike(name)
    const hint = like === undefined ? '' : `; is ${like} meant?`
    if (this.#names.locals === undefined)
      return `nothing is called ${name} (no function is stopped, so there are no locals)${hint}`
    return `nothing is called ${name} here: no local, register, table or constant${hint}`
  }

  /** A name that differs in case alone, or by what a register's block is called. */
  #alike(name: string): string | undefined {
    const lower = name.toLowerCase()
    const known = [
      ...this.#names.variables.map((variable) => variable.name),
      ...TABLES.flatMap((table) => [table.name, ...table.aliases]),
      ...this.#world.constants.keys(),
    ]
    return known.find((one) => one.toLowerCase() === lower)
  }

  #wasmLocal(index: number, name: string, column: number): ScalarNode {
    const type = this.#names.locals?.[index]
    if (type === undefined) {
      const { locals } = this.#names
      throw new ExpressionError(
        locals === undefined
          ? `${name} is a local, and no function is stopped`
          : `the function has ${locals.length} locals`,
        column,
      )
    }
    return this.#localNode(index, typeNamed(type, undefined) ?? U32, name, column)
  }

  #local({ name, type, local }: Variable, column: number): ScalarNode {
    const wasm = this.#names.locals?.[local]
    const plain = wasm === undefined ? undefined : typeNamed(wasm, undefined)
    const known = typeNamed(type, this.#world.layouts) ?? plain ?? U32
    return { ...this.#localNode(local, known, name, column), meaning: nameMeaning(name, type) }
  }

  #localNode(index: number, type: Type, name: string, column: number): ScalarNode {
    return {
      form: 'scalar',
      type,
      get: (run) => run.local(index, type, column),
      fixed: `${name} is a local, and locals are read-only: the engine cannot write them. Memory, registers and tables can be`,
      path: name,
      column,
    }
  }

  #table(name: string, column: number): Node {
    const table = tableNamed(name, this.#world.layouts)
    if (table === undefined) throw new ExpressionError(`${name} is no table`, column)
    const type = table.className === undefined ? undefined : typeNamed(table.className, this.#world.layouts)
    const layout = type?.kind === 'class' ? type.layout : undefined
    const find = table.finder()
    const node: TableNode = {
      form: 'table',
      what: `the table ${table.name}`,
      table,
      layout,
      extent: (run) => {
        const extent = find(run.memory)
        if (extent === undefined) {
          throw new ExpressionError(
            `there is no ${table.name} yet: ${table.keeper} ${table.keeper.endsWith('s') ? 'name' : 'names'} none`,
            column,
          )
        }
        return extent
      },
      column,
    }
    return table.single && layout !== undefined ? this.#row(node, () => 0, table.name, column) : node
  }

  /** A row of a table, as a reference to an object. */
  #row(table: TableNode, index: (run: Evaluation) => number, path: string, column: number): ScalarNode {
    const { layout } = table
    const { name } = table.table
    if (layout === undefined)
      throw new ExpressionError(`the rows of ${name} are bytes; name them u8[address, count]`, column)
    const address = (run: Evaluation): number => {
      const extent = table.extent(run)
      const row = index(run)
      if (row < 0 || row >= extent.count) {
        throw new ExpressionError(`${name} has rows 0 to ${extent.count - 1}, and no ${row}`, column)
      }
      if (!fitsRows(layout, extent)) {
        throw new ExpressionError(
          `rows of ${name} take ${extent.stride} bytes, less than the class ${layout.name}`,
          column,
        )
      }
      return extent.base + row * extent.stride
    }
    return {
      form: 'scalar',
      type: { kind: 'class', name: layout.name, layout },
      get: address,
      place: (run) => ({ address: address(run), bytes: layout.bytes, stride: layout.bytes, count: 1 }),
      fixed: `${path} is a whole row; name one of its fields`,
      path,
      column,
    }
  }

  #unary({ operator, operand, column }: Syntax & { kind: 'unary' }): Node {
    if (operator === '&') return this.#addressOf(this.bind(operand), column)
    if (operator === '*') {
      const pointer = this.#scalar(operand)
      if (pointer.type.kind !== 'pointer') throw new ExpressionError('"*" takes a pointer, as (u32*)address', column)
      return this.#element(pointer.type.element, (run) => Number(pointer.get(run)), `*${pointer.path ?? ''}`, column)
    }
    return unaryNode(operator, this.#scalar(operand), column)
  }

  #addressOf(node: Node, column: number): ScalarNode {
    if (node.form === 'table') return { form: 'scalar', type: U32, get: (run) => node.extent(run).base, column }
    if (node.form === 'scalar' && node.place === undefined) {
      throw new ExpressionError('this has no address: it is no place in INIC memory', column)
    }
    const place = node.place as (run: Evaluation) => { readonly address: number }
    return { form: 'scalar', type: U32, get: (run) => place(run).address, column }
  }

  #member(object: Node, name: string, column: number): Node {
    switch (object.form) {
      case 'frame':
        return { ...object, field: object.field === '' ? name : `${object.field}.${name}`, column }
      case 'rows':
        return this.#rowsMember(object, name, column)
      case 'table':
        throw new ExpressionError(
          `${object.table.name} is a table: name a row, ${object.table.name}[3].${name}`,
          column,
        )
      case 'array':
        throw new ExpressionError(`${object.what} has no fields`, column)
    }
    const { layout, get, path } = this.#object(object, name, column)
    const { type, meaning, offset } = this.#field(layout, name, column)
    const address = (run: Evaluation): number => {
      const base = Number(get(run))
      if (base === 0) throw new ExpressionError(`${path ?? 'the object'} is null`, column)
      return base + offset
    }
    return { ...memoryNode(type, path && `${path}.${name}`, column, address), meaning }
  }

  /** What a field is looked up in: an object, or the row that an index means. */
  #object(node: ScalarNode, name: string, column: number) {
    if (node.type.kind === 'class') return { layout: node.type.layout, get: node.get, path: node.path }
    if (node.type.kind === 'pointer' && node.type.element.kind === 'class') {
      return { layout: node.type.element.layout, get: node.get, path: node.path }
    }
    if (node.meaning?.kind === 'row') {
      const table = this.#table(node.meaning.table, column)
      if (table.form === 'table' && table.layout !== undefined) {
        const row = this.#row(table, (run) => Number(node.get(run)), node.path ?? table.table.name, column)
        return { layout: table.layout, get: row.get, path: node.path }
      }
    }
    throw new ExpressionError(`${node.path ?? 'this'} is a ${node.type.name} and has no field ${name}`, column)
  }

  #field(layout: { readonly name: string; readonly fields: readonly FieldOf[] }, name: string, column: number) {
    const field = layout.fields.find((one) => one.name === name)
    if (field === undefined) {
      const lower = name.toLowerCase()
      const like = layout.fields.find((one) => one.name.toLowerCase().includes(lower))
      const hint = like === undefined ? '' : `; is ${like.name} meant?`
      throw new ExpressionError(`${layout.name} has no field ${name}${hint}`, column)
    }
    return {
      type: fieldType(this.#world, field.type, field.bytes),
      meaning: fieldMeaning(layout.name, name, field.type),
      offset: field.offset,
    }
  }

  #rowsMember(rows: RowsNode, name: string, column: number): RowsNode {
    if (!rows.whole || rows.type.kind !== 'class') throw new ExpressionError('a field of a field of all rows', column)
    const { type, meaning, offset } = this.#field(rows.type.layout, name, column)
    return {
      ...rows,
      type,
      meaning,
      whole: false,
      place: (run) => {
        const place = rows.place(run)
        return { ...place, address: place.address + offset, bytes: byteSize(type) }
      },
      path: (index) => `${rows.path(index)}.${name}`,
      column,
    }
  }

  #index({ object, index, count, column }: Syntax & { kind: 'index' }): Node {
    // A local may hide a table's name; one that is indexed is the table.
    if (object.kind === 'name') {
      const type = typeNamed(object.name, this.#world.layouts)
      if (type !== undefined) return this.#view(type, index, count, column)
      if (tableNamed(object.name, this.#world.layouts) !== undefined && !this.#isPointer(object.name)) {
        return this.#rowOf(this.#table(object.name, object.column), object.name, index, count, column)
      }
    }
    const node = this.bind(object)
    if (node.form !== 'scalar' || node.type.kind !== 'pointer') {
      throw new ExpressionError('only tables, pointers and types take an index: tcb[3], u8[address]', column)
    }
    if (index === undefined || count !== undefined) throw new ExpressionError('a pointer takes one number', column)
    const at = this.#scalar(index)
    const { element } = node.type
    const stride = element.kind === 'class' ? element.layout.bytes : byteSize(element)
    return this.#element(element, (run) => Number(node.get(run)) + Number(at.get(run)) * stride, undefined, column)
  }

  #isPointer(name: string): boolean {
    return this.#names.variables.some((one) => one.name === name && one.type.endsWith('*'))
  }

  #rowOf(
    table: Node,
    name: string,
    index: Syntax | undefined,
    count: Syntax | undefined,
    column: number,
  ): ScalarNode | RowsNode {
    if (table.form !== 'table') throw new ExpressionError(`${name} is one object and no table: ${name}.field`, column)
    if (count !== undefined) throw new ExpressionError(`one row, ${name}[3], or all, ${name}[*]`, column)
    if (index === undefined) return this.#rows(table, name, column)
    const at = this.#scalar(index)
    const path = at.constant === undefined ? undefined : `${name}[${at.constant}]`
    return this.#row(table, (run) => Number(at.get(run)), path ?? `${name}[${at.path ?? '…'}]`, column)
  }

  #rows(table: TableNode, name: string, column: number): RowsNode {
    const { layout } = table
    if (layout === undefined) throw new ExpressionError(`the rows of ${name} are bytes and have no fields`, column)
    return {
      form: 'rows',
      what: `all rows of ${table.table.name}`,
      table: table.table,
      type: { kind: 'class', name: layout.name, layout },
      whole: true,
      place: (run) => {
        const { base, stride, count } = table.extent(run)
        return { address: base, bytes: layout.bytes, stride, count }
      },
      path: (row) => `${name}[${row}]`,
      column,
    }
  }

  /** `u8[address]`, `u8[address, count]`, `Tcb[address]`. */
  #view(type: Type, index: Syntax | undefined, count: Syntax | undefined, column: number): Node {
    if (index === undefined) throw new ExpressionError(`${type.name}[*] is nowhere: name an address`, column)
    const address = this.#scalar(index)
    const at = (run: Evaluation) => Number(converted(address, U32)(run))
    const path = address.constant === undefined ? undefined : `${type.name}[${address.constant}]`
    if (count === undefined) return this.#element(type, at, path, column)
    const length = this.#scalar(count)
    const stride = type.kind === 'class' ? type.layout.bytes : byteSize(type)
    return {
      form: 'array',
      what: `an array of ${type.name}`,
      type,
      stride,
      place: (run) => {
        const place = { address: at(run), count: Number(length.get(run)) }
        if (!(place.count >= 0) || place.address + place.count * stride > run.memory.size) {
          throw new ExpressionError(
            `${place.count} × ${type.name} at 0x${place.address.toString(16)} are not within INIC memory`,
            column,
          )
        }
        return place
      },
      column,
    }
  }

  #element(type: Type, address: (run: Evaluation) => number, path: string | undefined, column: number): ScalarNode {
    if (type.kind !== 'class') return memoryNode(type, path, column, address)
    const { layout } = type
    return {
      form: 'scalar',
      type,
      get: address,
      place: (run) => ({ address: address(run), bytes: layout.bytes, stride: layout.bytes, count: 1 }),
      fixed: 'a whole object; name one of its fields',
      path,
      column,
    }
  }

  #cast({ type: name, pointer, operand, column }: Syntax & { kind: 'cast' }): ScalarNode {
    const type = typeNamed(name, this.#world.layouts)
    if (type === undefined) {
      throw new ExpressionError(
        `${name} is no type: one of ${BUILT_IN_TYPES.join(', ')}, or a class of the firmware`,
        column,
      )
    }
    const value = this.#scalar(operand)
    if (pointer)
      return {
        form: 'scalar',
        type: { kind: 'pointer', name: `${name}*`, element: type },
        get: converted(value, U32),
        column,
      }
    const text = value.constant === undefined ? value.path : `0x${BigInt(value.constant).toString(16)}`
    const path = text === undefined ? undefined : `(<${name}>${text})`
    const get = converted(value, type)
    if (type.kind !== 'class') {
      return { form: 'scalar', type, get, column, constant: value.constant === undefined ? undefined : get(NOWHERE) }
    }
    return this.#element(type, (run) => Number(get(run)), path, column)
  }

  #call({ name, arguments: given, column }: Syntax & { kind: 'call' }): Node {
    const known = FUNCTIONS.get(name)
    if (known === undefined) {
      throw new ExpressionError(`no function is called ${name}; there are ${[...FUNCTIONS.keys()].join(', ')}`, column)
    }
    if (given.length !== known.parameters.length) {
      throw new ExpressionError(
        `${name}(${known.parameters.join(', ')}) takes ${known.parameters.length} values`,
        column,
      )
    }
    return known.bind(
      given.map((syntax) => this.bind(syntax)),
      column,
    )
  }
}

interface FieldOf {
  readonly name: string
  readonly type: string
  readonly offset: number
  readonly bytes: number
}

/** Constants ask nothing of it. */
const NOWHERE = undefined as unknown as Evaluation

/** A scalar that stands in INIC memory. */
function memoryNode(
  type: Type,
  path: string | undefined,
  column: number,
  address: (run: Evaluation) => number,
): ScalarNode {
  const read = readerOf(type)
  const bytes = byteSize(type)
  return {
    form: 'scalar',
    type,
    get: (run): Scalar => {
      const at = address(run)
      const value = read(run.memory, at)
      if (value === undefined) throw outside(at, bytes, run, column)
      return value
    },
    place: (run): PlacePattern => ({ address: address(run), bytes, stride: bytes, count: 1 }),
    path,
    column,
  }
}

function outside(address: number, bytes: number, run: Evaluation, column: number): ExpressionError {
  const end = run.memory.size.toString(16)
  return new ExpressionError(
    `${bytes} bytes at 0x${address.toString(16)} are not within INIC memory (0 to 0x${end})`,
    column,
  )
}
