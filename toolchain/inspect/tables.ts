/** The tables of FIG. 12 as they stand in one INIC, in the drawing's order and with its columns first. */
import {
  CONSTANTS_BASE,
  DIRECTORY_APPLICATIONS,
  DIRECTORY_FORWARDS,
  DIRECTORY_LISTENERS,
  DIRECTORY_SERVERS,
  DIRECTORY_TCBS,
} from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { FieldValue } from '../firmware/layouts.ts'
import { readEndpointTables } from './endpoints.ts'
import { readForwards } from './forwards.ts'
import type { InicMemoryReader, NamedEntry } from './inic-memory.ts'
import { readServers } from './servers.ts'
import { type Cell, DEFAULT_ROW_LIMIT, type Table, TableBuilder } from './table.ts'

const NOT_KEPT = 'not yet kept by this firmware'

/**
 * All tables of the drawing, if the firmware is ipOS; one that it does not keep says so. Then the tables that the firmware names by their
 * class (firmware/mem/directory.ts). None if its rows cannot be read.
 */
export function readTables(memory: InicMemoryReader, limit = DEFAULT_ROW_LIMIT): Table[] {
  if (!memory.knowsRows) return []
  const own = memory.entries.filter(({ kind }) => kind >= CONSTANTS_BASE).map((entry) => ownTable(memory, entry, limit))
  return memory.entry(DIRECTORY_TCBS) === undefined ? own : [...drawnTables(memory, limit), ...own]
}

function drawnTables(memory: InicMemoryReader, limit: number): Table[] {
  return [
    kept(memory, DIRECTORY_FORWARDS, readForwards(memory, limit)),
    ...readEndpointTables(memory, limit),
    kept(memory, DIRECTORY_SERVERS, readServers(memory, limit)),
    kept(memory, DIRECTORY_LISTENERS, listeningSockets(memory, limit)),
    kept(memory, DIRECTORY_APPLICATIONS, applications(memory, limit)),
    { ...new TableBuilder('URL Map', ['URL', 'server IP']).build(), remark: NOT_KEPT },
    { ...new TableBuilder('Cookie Map', ['cookie ID', 'server IP']).build(), remark: NOT_KEPT },
  ]
}

function ownTable(memory: InicMemoryReader, { kind, name }: NamedEntry, limit: number): Table {
  const [first] = memory.rows(kind)
  const columns = (first?.entries() ?? []).map(([field]) => field).filter((field) => field !== 'inUse')
  const table = new TableBuilder(name, columns, limit)
  for (const row of memory.rows(kind)) {
    if (row.get('inUse') === undefined || row.number('inUse') !== 0) {
      table.add(() => columns.map((field) => cell(field, row.get(field)!)))
    }
  }
  return table.build()
}

/** 64 bits by the name of `mac` or `...Mac` are a MAC address. */
function cell(field: string, value: FieldValue): Cell {
  if (typeof value !== 'bigint') return Number(value)
  if (!/^mac$|Mac$/.test(field)) return Number(value)
  const digits = value.toString(16).padStart(12, '0')
  return digits.replace(/..(?=.)/g, '$&:')
}

function kept(memory: InicMemoryReader, kind: number, table: Table): Table {
  return memory.entry(kind) === undefined ? { ...table, remark: NOT_KEPT } : table
}

function listeningSockets(memory: InicMemoryReader, limit: number): Table {
  const table = new TableBuilder('Listening Sockets', ['server IP', 'TCP port', 'process', 'queue set'], limit)
  for (const row of memory.rows(DIRECTORY_LISTENERS, 1)) {
    if (!row.get('inUse')) continue
    table.add(() => [
      formatIpv4(row.number('address')),
      row.number('port'),
      row.number('process'),
      row.number('queueSet'),
    ])
  }
  return table.build()
}

function applications(memory: InicMemoryReader, limit: number): Table {
  const columns = ['process ID', 'process memory requirement (KiB)', 'process CPU utilization (%)', 'queue set']
  const table = new TableBuilder('Application Information', columns, limit)
  for (const row of memory.rows(DIRECTORY_APPLICATIONS)) {
    if (!row.get('inUse')) continue
    table.add(() => [row.number('process'), row.number('memory'), row.number('cpu') / 10, row.number('queueSet')])
  }
  return table.build()
}
