/** Server State table (FIG. 12): what this INIC knows of its own server and of the others. */
import { STATE_FLAG_DRAINING } from '../../abi/ipos.ts'
import { DIRECTORY_SERVERS, DIRECTORY_STATE } from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { type Cell, type Table, TableBuilder } from './table.ts'

const RESOURCE_COLUMNS = [
  ...['established TCP connections', 'main-board CPU utilization (%)'],
  ...['available memory (KiB)', 'available bandwidth (kbit/s)'],
  ...['connections at most', 'memory (KiB)', 'bandwidth (kbit/s)', 'load (%)', 'ports'],
]
const COLUMNS = ['server IP', ...RESOURCE_COLUMNS, 'state', 'heard (ms ago)']

/** The row of the INIC's own server. */
const SELF = 0

export function readServers(memory: InicMemoryReader, limit: number): Table {
  const table = new TableBuilder('Server State', COLUMNS, limit)
  const state = memory.row(DIRECTORY_STATE, 0)
  for (const row of memory.rows(DIRECTORY_SERVERS)) {
    const isSelf = row.index === SELF
    const isKnown = isSelf || row.number('incarnation') !== 0
    const age = ((state?.number('nowMs') ?? 0) - row.number('heardMs')) >>> 0
    table.add(() => [
      formatIpv4(row.number('address')),
      ...(isKnown ? resourceCells(row, isSelf ? state : undefined) : Array<null>(RESOURCE_COLUMNS.length).fill(null)),
      isSelf ? describeSelf(row) : isKnown ? describePeer(memory, row) : 'never heard of',
      isSelf || !isKnown ? null : age,
    ])
  }
  return table.build()
}

/** Address of a row of the table, which is how the ipOS layer refers to servers. */
export function serverAddress(memory: InicMemoryReader, index: number): string {
  return formatIpv4(memory.row(DIRECTORY_SERVERS, index)?.number('address') ?? 0)
}

/** @param own state of the firmware, for the row of its own server: what it counts itself stands there, and in the row only now and then */
function resourceCells(row: Row, own: Row | undefined): Cell[] {
  const ifKnown = (name: string, total: string) => (row.number(total) === 0 ? null : row.number(name))
  return [
    own ? ownConnections(own) : row.number('connections'),
    row.number('cpu') / 10,
    ifKnown('memoryAvailable', 'memoryTotal'),
    ifKnown('bandwidthAvailable', 'bandwidthTotal'),
    own ? own.number('tcbCount') : row.number('connectionsMaximum'),
    ifKnown('memoryTotal', 'memoryTotal'),
    ifKnown('bandwidthTotal', 'bandwidthTotal'),
    row.number('load') / 10,
    row.number('services'),
  ]
}

/** Those counted, unless the main board wants another number reported (BOARD_STATE_CONNECTIONS). */
function ownConnections(state: Row): number {
  const pinned = state.number('connectionsPinned')
  return pinned > 0 ? pinned - 1 : state.number('established')
}

function describeSelf(row: Row): string {
  return `this server${draining(row)}`
}

function describePeer(memory: InicMemoryReader, row: Row): string {
  const has = (name: string) => (row.number('status') & (memory.constant(name) ?? 0)) !== 0
  if (!has('SERVER_UP')) return 'silent'
  return `${has('SERVER_LEASED') ? 'up' : 'up, does not hear us'}${draining(row)}`
}

function draining(row: Row): string {
  return row.number('flags') & STATE_FLAG_DRAINING ? ', draining' : ''
}
