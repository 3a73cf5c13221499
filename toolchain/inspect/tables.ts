/** The tables of FIG. 12 as they stand in one INIC, in the drawing's order and with its columns first. */
import { DIRECTORY_APPLICATIONS, DIRECTORY_FORWARDS, DIRECTORY_LISTENERS, DIRECTORY_SERVERS } from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import { readEndpointTables } from './endpoints.ts'
import { readForwards } from './forwards.ts'
import type { InicMemoryReader } from './inic-memory.ts'
import { readServers } from './servers.ts'
import { DEFAULT_ROW_LIMIT, type Table, TableBuilder } from './table.ts'

const NOT_KEPT = 'not yet kept by this firmware'

/** All tables of the drawing; one that this firmware does not keep says so. None if its rows cannot be read. */
export function readTables(memory: InicMemoryReader, limit = DEFAULT_ROW_LIMIT): Table[] {
  if (!memory.knowsRows) return []
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
