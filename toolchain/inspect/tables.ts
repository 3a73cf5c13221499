/** The tables of FIG. 12 as they stand in one INIC, with the drawing's columns first. */
import { DIRECTORY_LISTENERS, DIRECTORY_TCBS } from '../../abi/memory.ts'
import { TCP_CLOSED } from '../../abi/tcp.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { tcpStateName } from './names.ts'
import { DEFAULT_ROW_LIMIT, type Table, TableBuilder } from './table.ts'

const ENDPOINT_COLUMNS = ['source IP', 'source port', 'destination IP', 'destination port', 'endpoint', 'state']

/** Every table that this firmware keeps. */
export function readTables(memory: InicMemoryReader, limit = DEFAULT_ROW_LIMIT): Table[] {
  return [...endpointTables(memory, limit), listeningSockets(memory, limit)].filter((table) => table !== undefined)
}

/**
 * Local and Temporary table: an endpoint is in the one if it is attached to a socket, and in the other until its request
 * comes. In INIC memory both are one pool of control blocks; a flag tells them apart.
 */
function endpointTables(memory: InicMemoryReader, limit: number): Table[] {
  const attached = memory.constant('F_ATTACHED')
  if (memory.entry(DIRECTORY_TCBS) === undefined || attached === undefined) return []
  const active = memory.constant('F_ACTIVE') ?? 0
  const local = new TableBuilder('Local', ENDPOINT_COLUMNS, limit)
  const temporary = new TableBuilder('Temporary', ENDPOINT_COLUMNS, limit)
  for (const row of memory.rows(DIRECTORY_TCBS, 1)) {
    if (row.number('state') === TCP_CLOSED) continue
    const flags = row.number('flags')
    if (flags & attached) local.add(() => endpointCells(row))
    else if (!(flags & active)) temporary.add(() => endpointCells(row))
  }
  return [temporary.build(), local.build()]
}

function endpointCells(row: Row): (string | number)[] {
  return [
    formatIpv4(row.number('remoteAddress')),
    row.number('remotePort'),
    formatIpv4(row.number('localAddress')),
    row.number('localPort'),
    `0x${row.number('handle').toString(16)}`,
    tcpStateName(row.number('state')),
  ]
}

function listeningSockets(memory: InicMemoryReader, limit: number): Table | undefined {
  if (memory.entry(DIRECTORY_LISTENERS) === undefined) return undefined
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
