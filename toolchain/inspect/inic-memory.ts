/**
 * Reads INIC memory from outside: the firmware directory says where tables and pools stand, the class layouts of the build
 * say what a row holds. Nothing here knows an offset, so it follows the firmware.
 */
import {
  CARVE_BASE,
  CONSTANTS_BASE,
  DIRECTORY_APPLICATIONS,
  DIRECTORY_ARP,
  DIRECTORY_BASE,
  DIRECTORY_CHUNKS,
  DIRECTORY_COUNT,
  DIRECTORY_COUNTERS,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BASE,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_ENTRY_COUNT,
  DIRECTORY_ENTRY_KIND,
  DIRECTORY_ENTRY_STRIDE,
  DIRECTORY_FORWARDS,
  DIRECTORY_INTERFACES,
  DIRECTORY_LISTENERS,
  DIRECTORY_MAGIC,
  DIRECTORY_MAXIMUM_ENTRIES,
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

/** What a directory entry of each kind holds. */
const KINDS: ReadonlyMap<number, { readonly name: string; readonly className: string | undefined }> = new Map([
  [DIRECTORY_STATE, { name: 'state', className: 'State' }],
  [DIRECTORY_TCBS, { name: 'transmission control blocks', className: 'Tcb' }],
  [DIRECTORY_TIME_WAITS, { name: 'TIME-WAIT records', className: 'TimeWait' }],
  [DIRECTORY_LISTENERS, { name: 'listening sockets', className: 'Listener' }],
  [DIRECTORY_UDP_ENDPOINTS, { name: 'UDP endpoints', className: 'UdpEndpoint' }],
  [DIRECTORY_ARP, { name: 'ARP cache', className: 'ArpEntry' }],
  [DIRECTORY_INTERFACES, { name: 'interfaces', className: 'Interface' }],
  [DIRECTORY_CHUNKS, { name: 'buffers', className: undefined }],
  [DIRECTORY_COUNTERS, { name: 'counters', className: 'Counters' }],
  [DIRECTORY_FORWARDS, { name: 'forwarded connections', className: 'Forward' }],
  [DIRECTORY_MIGRATIONS, { name: 'endpoints that move or are guests', className: 'Migration' }],
  [DIRECTORY_SERVERS, { name: 'servers', className: 'Server' }],
  [DIRECTORY_APPLICATIONS, { name: 'applications', className: 'Application' }],
  [DIRECTORY_SERVICES, { name: 'ports served in the farm', className: 'Service' }],
])

export interface DirectoryEntry {
  readonly kind: number
  readonly name: string
  readonly className: string | undefined
  readonly base: number
  readonly stride: number
  readonly count: number
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
  readonly entries: readonly DirectoryEntry[]
  readonly #memory: DataView
  readonly #layouts: Layouts | undefined
  readonly #fields = new Map<string, ReadonlyMap<string, FieldLayout>>()

  /** @param layouts undefined if the firmware was not built here: then there are pools and no rows. */
  constructor(memory: DataView, layouts: Layouts | undefined) {
    this.#memory = memory
    this.#layouts = layouts
    this.entries = readDirectory(memory)
  }

  /** True if rows can be read: the firmware has a directory, and its layouts are known. */
  get knowsRows(): boolean {
    return this.#layouts !== undefined && this.entries.length > 0
  }

  entry(kind: number): DirectoryEntry | undefined {
    return this.entries.find((entry) => entry.kind === kind)
  }

  /** The table whose rows are of this class. */
  entryOf(className: string): DirectoryEntry | undefined {
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

  #fieldsOf({ className, stride }: DirectoryEntry): ReadonlyMap<string, FieldLayout> | undefined {
    if (className === undefined) return undefined
    let fields = this.#fields.get(className)
    if (fields === undefined) {
      const layout: ClassLayout | undefined = this.#layouts && findClass(this.#layouts, className)
      // A class larger than its rows is another class of that name.
      if (layout === undefined || layout.bytes > stride) return undefined
      fields = new Map(layout.fields.map((field) => [field.name, field]))
      this.#fields.set(className, fields)
    }
    return fields
  }
}

/** Longest class name of a table, bytes. */
const MAXIMUM_NAME_BYTES = 256

/** What an entry holds that is none of KINDS: rows of the class whose name its kind is the address of. */
function ownTable(memory: DataView, kind: number): { name: string; className: string | undefined } {
  const unknown = { name: `kind ${kind}`, className: undefined }
  if (kind < CONSTANTS_BASE + 4 || kind > CARVE_BASE || kind % 2 !== 0) return unknown
  const bytes = memory.getUint32(kind - 4, true)
  if (bytes === 0 || bytes > MAXIMUM_NAME_BYTES || kind + bytes > CARVE_BASE) return unknown
  const text = new Uint8Array(memory.buffer, memory.byteOffset + kind, bytes)
  const className = new TextDecoder('utf-16le').decode(text)
  return { name: className, className }
}

/** Entries of the directory whose range lies inside memory; none if the firmware keeps no directory. */
function readDirectory(memory: DataView): DirectoryEntry[] {
  const word = (address: number) => memory.getUint32(address, true)
  if (word(DIRECTORY_BASE) !== DIRECTORY_MAGIC) return []
  const count = Math.min(word(DIRECTORY_BASE + DIRECTORY_COUNT), DIRECTORY_MAXIMUM_ENTRIES)
  const entries = Array.from({ length: count }, (_, index) => {
    const at = DIRECTORY_BASE + DIRECTORY_ENTRIES + index * DIRECTORY_ENTRY_BYTES
    const kind = word(at + DIRECTORY_ENTRY_KIND)
    const { name, className } = KINDS.get(kind) ?? ownTable(memory, kind)
    return {
      kind,
      name,
      className,
      base: word(at + DIRECTORY_ENTRY_BASE),
      stride: word(at + DIRECTORY_ENTRY_STRIDE),
      count: word(at + DIRECTORY_ENTRY_COUNT),
    }
  })
  return entries.filter(({ base, stride, count }) => base + stride * count <= memory.byteLength)
}
