/** Server State table (FIG. 12): what this INIC knows of its own server and of the others. */
import { STATE_FLAG_DRAINING } from '../../abi/ipos.ts'
import { DIRECTORY_SERVERS, DIRECTORY_STATE } from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { type Cell, type Table, TableBuilder } from './table.ts'

const COLUMNS = [
  ...['server IP', 'established TCP connections', 'main-board CPU utilization (%)'],
  ...['available memory (KiB)', 'available bandwidth (kbit/s)'],
  ...['connections at most', 'memory (KiB)', 'bandwidth (kbit/s)', 'load (%)', 'ports', 'state', 'heard (ms ago)'],
]

/** The row of the INIC's own server. */
const SELF = 0

export function readServers(memory: InicMemoryReader, limit: number): Table {
  const table = new TableBuilder('Server State', COLUMNS, limit)
  const state = memory.row(DIRECTORY_STATE, 0)
  const [up, leased] = ['SERVER_UP', 'SERVER_LEASED'].map((name) => memory.constant(name) ?? 0)
  for (const row of memory.rows(DIRECTORY_SERVERS)) {
    const status = row.number('status')
    const isHeard = row.index === SELF || row.number('incarnation') !== 0
    table.add(() => [
      formatIpv4(row.number('address')),
      ...(isHeard ? resourceCells(row, row.index === SELF ? state : undefined) : Array<null>(9).fill(null)),
      describe(row, { isUp: (status & up) !== 0, isLeased: (status & leased) !== 0, isHeard }),
      row.index === SELF || !isHeard || !state ? null : (state.number('nowMs') - row.number('heardMs')) >>> 0,
    ])
  }
  return table.build()
}

/** @param own of the row of the own server, whose connections are counted elsewhere and told with each message */
function resourceCells(row: Row, own: Row | undefined): Cell[] {
  const of = (name: string, total: string) => (row.number(total) === 0 ? null : row.number(name))
  return [
    own ? own.number('connectionsPinned') - 1 >= 0 ? own.number('connectionsPinned') - 1 : own.number('established') : row.number('connections'),
    row.number('cpu') / 10,
    of('memoryAvailable', 'memoryTotal'),
    of('bandwidthAvailable', 'bandwidthTotal'),
    own ? own.number('tcbCount') : row.number('connectionsMaximum'),
    of('memoryTotal', 'memoryTotal'),
    of('bandwidthTotal', 'bandwidthTotal'),
    row.number('load') / 10,
    row.number('services'),
  ]
}
