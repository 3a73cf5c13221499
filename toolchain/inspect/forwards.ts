/** Rows of the ipOS layer: the Forward table (FIG. 12), and UDP conversations. */
import { IPOS_UDP } from '../../abi/ipos.ts'
import { DIRECTORY_FORWARDS } from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { serverAddress } from './servers.ts'
import { type Table, TableBuilder } from './table.ts'

/** The drawing's key is the client alone; ours has the address too that the client uses. The destination port is the thread port. */
const COLUMNS = [
  ...['source IP', 'source TCP port', 'destination IP', 'destination TCP port'],
  ...['protocol', 'server IP', 'server port', 'what', 'moves'],
]

/** Kinds of rows by which packets are sent on; others only wait until something has been heard. */
const KINDS = [
  ['FORWARDING', 'forwarded'],
  ['FORWARD_MOVED', 'moved on'],
  ['FORWARD_ASKING', 'asking'],
] as const

export function readForwards(memory: InicMemoryReader, limit: number): Table {
  const table = new TableBuilder('Forward', COLUMNS, limit)
  const kinds = new Map(KINDS.map(([name, text]) => [memory.constant(name), text]))
  for (const row of memory.rows(DIRECTORY_FORWARDS, 1)) {
    const what = kinds.get(row.number('kind'))
    if (what === undefined) continue
    table.add(() => [
      formatIpv4(row.number('remoteAddress')),
      row.number('remotePort'),
      serverAddress(memory, row.number('peer')),
      row.number('thread'),
      row.number('protocol') === IPOS_UDP ? 'udp' : 'tcp',
      formatIpv4(row.number('localAddress')),
      row.number('localPort'),
      what,
      row.number('moves'),
    ])
  }
  return table.build()
}

/** UDP conversations that are served here: those of clients of our own (`FORWARD_LOCAL`), or that come through another INIC (`FORWARD_GUEST`). */
export function* udpConversations(memory: InicMemoryReader, kind: 'FORWARD_LOCAL' | 'FORWARD_GUEST'): Generator<Row> {
  const wanted = memory.constant(kind)
  if (wanted === undefined) return
  for (const row of memory.rows(DIRECTORY_FORWARDS, 1)) if (row.number('kind') === wanted) yield row
}
