/** Local, Forward-Connect and Temporary table (FIG. 12): in INIC memory one pool of control blocks, and rows for UDP. */
import { DIRECTORY_MIGRATIONS, DIRECTORY_TCBS } from '../../abi/memory.ts'
import { TCP_CLOSED } from '../../abi/tcp.ts'
import { formatIpv4 } from '../config/addresses.ts'
import { udpConversations } from './forwards.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { tcpStateName } from './names.ts'
import { serverAddress } from './servers.ts'
import { type Cell, type Table, TableBuilder } from './table.ts'

const COLUMNS = [
  ...['source IP', 'source port', 'destination IP', 'destination port', 'endpoint reference'],
  ...['state', 'attached', 'move'],
]

/**
 * An endpoint is in Forward-Connect if it serves for another INIC or is just being built for one, in Local if it is attached to a
 * socket, and in Temporary until its request comes. One that this board opened itself is in none of them before it is attached.
 */
export function readEndpointTables(memory: InicMemoryReader, limit: number): Table[] {
  const local = new TableBuilder('Local', COLUMNS, limit)
  const forwardConnect = new TableBuilder('Forward-Connect', [...COLUMNS, 'entry INIC', 'thread port'], limit)
  const temporary = new TableBuilder('Temporary', COLUMNS, limit)
  const bit = (name: string) => memory.constant(name) ?? 0
  const [attached, active, guest] = [bit('F_ATTACHED'), bit('F_ACTIVE'), bit('F_GUEST')]
  const moves = new Moves(memory)
  for (const row of memory.rows(DIRECTORY_TCBS, 1)) {
    if (row.number('state') === TCP_CLOSED) continue
    const flags = row.number('flags')
    const move = moves.of(row)
    const cells = () => [...endpointCells(row), flags & attached ? 'yes' : 'no', moves.describe(move)]
    if (flags & guest || moves.comes(move)) forwardConnect.add(() => [...cells(), ...moves.entryCells(move)])
    else if (flags & attached) local.add(cells)
    else if (!(flags & active)) temporary.add(cells)
  }
  for (const row of udpConversations(memory, 'FORWARD_LOCAL')) local.add(() => udpCells(row))
  for (const row of udpConversations(memory, 'FORWARD_GUEST')) {
    const entry = () => serverAddress(memory, row.number('peer'))
    forwardConnect.add(() => [...udpCells(row), entry(), row.number('thread')])
  }
  return [local.build(), forwardConnect.build(), temporary.build()]
}

function addressCells(row: Row): Cell[] {
  return [
    formatIpv4(row.number('remoteAddress')),
    row.number('remotePort'),
    formatIpv4(row.number('localAddress')),
    row.number('localPort'),
  ]
}

function endpointCells(row: Row): Cell[] {
  return [...addressCells(row), `0x${row.number('handle').toString(16)}`, tcpStateName(row.number('state'))]
}

/** UDP conversations are known by their addresses; the sockets are in `inspect connections`. */
function udpCells(row: Row): Cell[] {
  return [...addressCells(row), null, 'UDP', null, null]
}

/** What the ipOS layer knows of endpoints that move or have come from elsewhere. */
class Moves {
  readonly #memory: InicMemoryReader
  readonly #resting: number
  /** Words for the phases, and on which side of a move they are. */
  readonly #phases: ReadonlyMap<number, { readonly text: string; readonly comes: boolean }>

  constructor(memory: InicMemoryReader) {
    this.#memory = memory
    this.#resting = memory.constant('PHASE_RESTING') ?? 0
    const phases = [
      ['PHASE_OFFERED', 'offered to', false],
      ['PHASE_COMMITTED', 'given to', false],
      ['PHASE_PREPARED', 'prepared for', true],
      ['PHASE_ARRIVING', 'arriving from', true],
      ['PHASE_ARRIVED', 'arriving from', true],
    ] as const
    this.#phases = new Map(
      phases.flatMap(([name, text, comes]) => {
        const phase = memory.constant(name)
        return phase === undefined ? [] : [[phase, { text, comes }]]
      }),
    )
  }

  /** The row that belongs to a control block; most have none. */
  of(tcb: Row): Row | undefined {
    const index = tcb.number('migration')
    return index === 0 ? undefined : this.#memory.row(DIRECTORY_MIGRATIONS, index)
  }

  /** True while the endpoint is being built from what another server sends. */
  comes(move: Row | undefined): boolean {
    return this.#phases.get(move?.number('phase') ?? this.#resting)?.comes ?? false
  }

  /** `offered to 192.0.2.2`; null if nothing moves. */
  describe(move: Row | undefined): string | null {
    const phase = move?.number('phase') ?? this.#resting
    if (move === undefined || phase === this.#resting) return null
    return `${this.#phases.get(phase)?.text ?? `phase ${phase},`} ${serverAddress(this.#memory, move.number('peer'))}`
  }

  entryCells(move: Row | undefined): Cell[] {
    if (move === undefined) return [null, null]
    return [serverAddress(this.#memory, move.number('entry')), move.number('thread')]
  }
}
