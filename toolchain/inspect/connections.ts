/** Connections of one INIC with what moves in them: as `ss -ti` shows them for the kernel. */
import { DIRECTORY_STATE, DIRECTORY_TCBS, DIRECTORY_TIME_WAITS, DIRECTORY_UDP_ENDPOINTS } from '../../abi/memory.ts'
import { TCP_CLOSED, TCP_TIME_WAIT } from '../../abi/tcp.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { tcpStateName } from './names.ts'
import { DEFAULT_ROW_LIMIT, type Table, TableBuilder } from './table.ts'

const COLUMNS = [
  ...['protocol', 'local', 'remote', 'state', 'set', 'in flight', 'to send', 'send window', 'cwnd', 'receive window'],
  ...['rtt ms', 'rto ms', 'mss'],
]

/** TCP connections, those in TIME-WAIT, and UDP endpoints, in one table. */
export function readConnections(memory: InicMemoryReader, limit = DEFAULT_ROW_LIMIT): Table {
  const table = new TableBuilder('Connections', COLUMNS, limit)
  const attached = memory.constant('F_ATTACHED') ?? 0
  for (const row of memory.rows(DIRECTORY_TCBS, 1)) {
    if (row.number('state') === TCP_CLOSED) continue
    table.add(() => tcpCells(row, attached))
  }
  for (const row of timeWaits(memory)) {
    table.add(() => ['tcp', ...endpoints(row), tcpStateName(TCP_TIME_WAIT), ...Array(COLUMNS.length - 4).fill(null)])
  }
  const used = memory.constant('FLAG_USED') ?? 0
  for (const row of memory.rows(DIRECTORY_UDP_ENDPOINTS, 1)) {
    if (!(row.number('flags') & used)) continue
    const local = endpoint(row.number('localAddress'), row.number('localPort'))
    table.add(() => ['udp', local, '*', null, row.number('set'), ...Array(COLUMNS.length - 5).fill(null)])
  }
  return table.build()
}

function tcpCells(row: Row, attached: number): (string | number | null)[] {
  const sequence = (name: string) => row.number(name)
  return [
    'tcp',
    ...endpoints(row),
    tcpStateName(row.number('state')),
    row.number('flags') & attached ? row.number('queueSet') : null,
    (sequence('sndNxt') - sequence('sndUna')) >>> 0,
    Math.max(0, (sequence('sndEnd') - sequence('sndNxt')) | 0),
    row.number('sndWnd'),
    row.number('cwnd'),
    (sequence('rcvAdvertised') - sequence('rcvNxt')) >>> 0,
    round(row.number('srttUs') / 1000),
    row.number('rtoMs'),
    row.number('mss'),
  ]
}

/** Records in use, oldest first: they are linked from the one that expires next. */
function* timeWaits(memory: InicMemoryReader): Generator<Row> {
  const state = memory.row(DIRECTORY_STATE, 0)
  let index = state?.number('timeWaitOldest') ?? 0
  for (let left = state?.number('timeWaitUsed') ?? 0; left > 0 && index !== 0; left--) {
    const row = memory.row(DIRECTORY_TIME_WAITS, index)
    if (row === undefined) return
    yield row
    index = row.number('newer')
  }
}

function endpoints(row: Row): [string, string] {
  return [
    endpoint(row.number('localAddress'), row.number('localPort')),
    endpoint(row.number('remoteAddress'), row.number('remotePort')),
  ]
}

function endpoint(address: number, port: number): string {
  return `${address === 0 ? '*' : formatIpv4(address)}:${port}`
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}
