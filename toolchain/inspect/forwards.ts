/** Forward table (FIG. 12): whose packets go to another server, and where. */
import { IPOS_UDP } from '../../abi/ipos.ts'
import { DIRECTORY_FORWARDS } from '../../abi/memory.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { InicMemoryReader } from './inic-memory.ts'
import { serverAddress } from './servers.ts'
import { type Table, TableBuilder } from './table.ts'

/** The drawing's key is the client alone; ours has the address too that the client uses. */
const COLUMNS = [
  ...['source IP', 'source TCP port', 'destination IP', 'destination TCP port'],
  ...['protocol', 'server IP', 'server port', 'what', 'moves'],
]

/** Kinds of rows that packets find, with what they mean. The destination port is the thread port. */
const KINDS = [
  ['FORWARDING', 'forwarded'],
  ['FORWARD_MOVED', 'moved on'],
  ['FORWARD_ASKING', 'asking'],
  ['FORWARD_GUEST', 'served for'],
] as const

export function readForwards(memory: InicMemoryReader, limit: number): Table {
  const table = new TableBuilder('Forward', COLUMNS, limit)
  const kinds = new Map(
    KINDS.flatMap(([name, text]) => {
      const kind = memory.constant(name)
      return kind === undefined ? [] : [[kind, text] as const]
    }),
  )
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
