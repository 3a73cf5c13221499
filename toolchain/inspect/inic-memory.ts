/**
 * Reads INIC memory from outside: the firmware directory says where tables and pools stand, the class layouts of the build
 * say what a row holds. Nothing here knows an offset, so it follows the firmware.
 */
import {
  DIRECTORY_APPLICATIONS,
  DIRECTORY_ARP,
  DIRECTORY_CHUNKS,
  DIRECTORY_COUNTERS,
  DIRECTORY_FORWARDS,
  DIRECTORY_INTERFACES,
  DIRECTORY_LISTENERS,
  DIRECTORY_MIGRATIONS,
  DIRECTORY_SERVERS,
  DIRECTORY_SERVICES,
  DIRECTORY_STATE,
  DIRECTORY_TCBS,
  DIRECTORY_TIME_WAITS,
  DIRECTORY_UDP_ENDPOINTS,
} from '../../abi/memory.ts'
import {
  type ClassLayout,
  type FieldLayout,
  type FieldValue,
  findClass,
  type Layouts,
  readField,
} from '../firmware/layouts.ts'
import { type DirectoryEntry, fitsRows, readDirectory } from './directory.ts'
import { memoryOf } from './memory-access.ts'

/** What people call what an entry of each kind holds. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [DIRECTORY_STATE, 'state'],
  [DIRECTORY_TCBS, 'transmission control blocks'],
  [DIRECTORY_TIME_WAITS, 'TIME-WAIT records'],
  [DIRECTORY_LISTENERS, 'listening sockets'],
  [DIRECTORY_UDP_ENDPOINTS, 'UDP endpoints'],
  [DIRECTORY_ARP, 'ARP cache'],
  [DIRECTORY_INTERFACES, 'interfaces'],
  [DIRECTORY_CHUNKS, 'buffers'],
  [DIRECTORY_COUNTERS, 'counters'],
  [DIRECTORY_FORWARDS, 'forwarded connections'],
  [DIRECTORY_MIGRATIONS, 'endpoints that move or are guests'],
  [DIRECTORY_SERVERS, 'servers'],
  [DIRECTORY_APPLICATIONS, 'applications'],
  [DIRECTORY_SERVICES, 'ports served in the farm'],
])

export interface NamedEntry extends DirectoryEntry {
  readonly name: string
}

/** One row of a table: fields by name. */
export class Row {
  readonly index: number
  readonly #memory: DataView
  readonly #address: number
  readonly #fields: ReadonlyMap<string, FieldLayout>

  constructor(memory: DataView, address: number, index: number, fields: ReadonlyMap<string, FieldLayout>) {
    this.index = index
    this.#memory = memory
    this.#address = address
    this.#fields = fields
  }

  /** The field's value; undefined if this firmware's class has no such field. */
  get(name: string): FieldValue | undefined {
    const field = this.#fields.get(name)
    return field && readField(this.#memory, this.#address, field)
  }

  /** The field as a number; 0 if there is none. For fields of up to 32 bits, and for tests of bits. */
  number(name: string): number {
    return Number(this.get(name) ?? 0)
  }

  /** Every field, in the order of the class. */
  entries(): [string, FieldValue][] {
    return [...this.#fields.values()].map((field) => [field.name, readField(this.#memory, this.#address, field)])
  }
}

export class InicMemoryReader {
  readonly entries: readonly NamedEntry[]
  readonly #memory: DataView
  readonly #layouts: Layouts | undefined
  readonly #fields = new Map<string, ReadonlyMap<string, FieldLayout>>()

  /** @param layouts undefined if the firmware was not built here: then there are pools and no rows. */
  constructor(memory: DataView, layouts: Layouts | undefined) {
    this.#memory = memory
    this.#layouts = layouts
    const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength)
    this.entries = readDirectory(memoryOf(bytes)).map((entry) => ({
      ...entry,
      name: NAMES.get(entry.kind) ?? entry.className ?? `kind ${entry.kind}`,
    }))
  }

  /** True if rows can be read: the firmware has a directory, and its layouts are known. */
  get knowsRows(): boolean {
    return this.#layouts !== undefined && this.entries.length > 0
  }

  entry(kind: number): NamedEntry | undefined {
    return this.entries.find((entry) => entry.kind === kind)
  }

  /** The table whose rows are of this class. */
  entryOf(className: string): NamedEntry | undefined {
    return this.entries.find((entry) => entry.className === className)
  }

  /** Rows of a table from `first`; none if the firmware has no such table or its class is not known. */
  *rows(kind: number, first = 0): Generator<Row> {
    const entry = this.entry(kind)
    const fields = entry && this.#fieldsOf(entry)
    if (!entry || !fields) return
    for (let index = first; index < entry.count; index++) {
      yield new Row(this.#memory, entry.base + index * entry.stride, index, fields)
    }
  }

  /** One row, or undefined if there is no such row. */
  row(kind: number, index: number): Row | undefined {
    const entry = this.entry(kind)
    if (!entry || index >= entry.count) return undefined
    const [row] = this.rows(kind, index)
    return row
  }

  /** A constant of the firmware's source; undefined if it has none of this name. */
  constant(name: string): number | undefined {
    return this.#layouts?.constants[name]
  }

  #fieldsOf(entry: DirectoryEntry): ReadonlyMap<string, FieldLayout> | undefined {
    const { className } = entry
    if (className === undefined) return undefined
    let fields = this.#fields.get(className)
    if (fields === undefined) {
      const layout: ClassLayout | undefined = this.#layouts && findClass(this.#layouts, className)
      if (layout === undefined || !fitsRows(layout, entry)) return undefined
      fields = new Map(layout.fields.map((field) => [field.name, field]))
      this.#fields.set(className, fields)
    }
    return fields
  }
}
