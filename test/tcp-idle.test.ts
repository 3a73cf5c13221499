/** Idle connections: how many, and what one costs (SEED: 10,000 on one card; DESIGN: at most 512 bytes each). */
import test from 'ava'
import {
  DIRECTORY_BASE,
  DIRECTORY_COUNT,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_ENTRY_STRIDE,
  DIRECTORY_TCBS,
} from '../abi/memory.ts'
import * as M from '../abi/messages.ts'
import type { BareCard } from './support/bare-card.ts'
import { between, CARD, greet, PEER, settledCard } from './support/lan.ts'
import { parse, tcpFrame, viewOf } from './support/packets.ts'
import { command, type EventRecord } from './support/records.ts'

const CONNECTIONS = 10_000

/** Bytes between two rows of a table. */
function stride(card: BareCard, kind: number): number {
  const count = card.view.getUint32(DIRECTORY_BASE + DIRECTORY_COUNT, true)
  for (let i = 0; i < count; i++) {
    const entry = DIRECTORY_BASE + DIRECTORY_ENTRIES + i * DIRECTORY_ENTRY_BYTES
    if (card.view.getUint32(entry, true) === kind) return card.view.getUint32(entry + DIRECTORY_ENTRY_STRIDE, true)
  }
  throw new Error(`no table ${kind}`)
}

test('10,000 idle established connections with the default memory, at most 512 bytes each, and all of them work', (t) => {
  const card = settledCard()
  card.command(0, command({ op: M.OP_LISTEN, socket: 1, b: 80, fields: [M.FIRST_SPEAKER_SERVER, 0, 1, 0] }))
  card.run()
  const chunks = card.state('chunkFreeCount')
  card.records()
  const link = { ...between(PEER, CARD), destinationPort: 80 }
  const next = new Map<number, number>()
  const send = (port: number, flags: string, sequence: number, payload = '') =>
    card.receive(
      PEER.port,
      tcpFrame({
        ...link,
        sourcePort: port,
        flags,
        sequence,
        ...(flags.includes('A') ? { acknowledgment: next.get(port)! } : {}),
        payload: Buffer.from(payload),
      }),
    )
  const ports = Array.from({ length: CONNECTIONS }, (_, i) => 1024 + i)
  const handles = new Map<number, number>()
  const take = () => {
    for (const { frame } of card.run()) {
      const view = viewOf(frame)
      if (frame[47] === 0x12) next.set(view.getUint16(36), (view.getUint32(38) + 1) >>> 0)
    }
    for (const record of card.records()) {
      if (record.kind === 'event' && record.type === M.EVENT_ACCEPTED)
        handles.set((record as EventRecord).remotePort, record.socket)
    }
  }
  const started = process.hrtime.bigint()
  for (let from = 0; from < CONNECTIONS; from += 50) {
    for (const port of ports.slice(from, from + 50)) send(port, 'S', port * 1000)
    take()
    for (const port of ports.slice(from, from + 50)) send(port, 'A', port * 1000 + 1)
    take()
  }
  const ms = Number(process.hrtime.bigint() - started) / 1e6
  t.is(handles.size, CONNECTIONS)
  t.is(card.state('tcbUsed'), CONNECTIONS)
  t.is(card.state('chunkFreeCount'), chunks, 'an idle connection holds no chunk')
  // The TCB, and its share of the buckets of the connection table.
  const buckets = ((card.state('connectionMask') + 1) * 4) / card.state('tcbCount')
  const bytes = stride(card, DIRECTORY_TCBS) + buckets
  t.log(`${bytes} bytes a connection; ${CONNECTIONS} handshakes in ${ms.toFixed(0)} ms`)
  t.true(bytes <= 512, `${bytes} bytes`)

  // An hour of nothing costs nothing.
  const polls = card.polls
  card.advance(3_600_000)
  card.records()
  t.true(card.polls - polls < 200, `${card.polls - polls} polls in an idle hour`)
  t.is(card.state('tcbUsed'), CONNECTIONS)

  greet(card, PEER, CARD)
  for (const port of [1024, 5000, 1024 + CONNECTIONS - 1]) {
    send(port, 'PA', port * 1000 + 1, 'hello')
    card.run()
    const record = card.records().find((candidate) => candidate.kind === 'receive')
    t.is(record?.socket, handles.get(port))
    card.command(1, command({ op: M.OP_DATA, socket: handles.get(port)!, payload: Buffer.from('world') }))
    const answers = card.run().map(({ frame }) => parse(frame))
    t.true(answers.some(({ tcp }) => tcp?.destinationPort === port && Buffer.from(tcp.payload).toString() === 'world'))
  }
  card.disableSet(0)
  card.run()
  t.is(card.state('tcbUsed'), 0)
  t.is(card.state('chunkFreeCount'), chunks)
})
