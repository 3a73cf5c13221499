/** What a card tells the farm of its main board: connections, load, and that it is being drained. */
import test from 'ava'
import { STATE_FLAG_DRAINING } from '../abi/ipos.ts'
import * as M from '../abi/messages.ts'
import { FarmCard, HUB_MAC, HUB_PORT, INTERVAL_MS, stateMessages } from './support/farm-card.ts'
import { between, CARD, greet, PEER } from './support/lan.ts'
import { BROADCAST_MAC, parse, tcpFrame } from './support/packets.ts'
import { control, listen, SOON_MS } from './support/state-messages.ts'

test('connections are those established, in whatever way they end', async (t) => {
  const card = await FarmCard.settled()
  greet(card, PEER, CARD)
  listen(card, { cookie: 1, port: 80 })
  card.run()
  const open = (sourcePort: number) => {
    const fields = { ...between(PEER, CARD), sourcePort, destinationPort: 80, sequence: 100 }
    card.receive(0, tcpFrame({ ...fields, flags: 'S' }))
    const answer = card
      .run()
      .map(({ frame }) => parse(frame).tcp)
      .find((segment) => segment?.flags === 'SA')
    const acknowledgment = answer!.sequence + 1
    const next = { ...fields, sequence: 101, acknowledgment }
    return (flags: string) => {
      card.receive(0, tcpFrame({ ...next, flags }))
      card.run()
    }
  }
  const told = () => {
    card.advance(INTERVAL_MS)
    return card.last?.connections
  }
  const [a, b, c] = [open(1), open(2), open(3)]
  t.is(told(), 0, 'half open')
  a('A')
  b('A')
  c('A')
  t.is(told(), 3)
  a('RA')
  t.is(told(), 2)
  b('FA')
  t.is(told(), 2, 'CLOSE-WAIT counts')
  card.disableSet(0)
  t.is(told(), 0)
})

test('pinned connections are told instead, and let go again', async (t) => {
  const card = await FarmCard.settled()
  const state = (cpu: number, connections: number) =>
    control(card, { op: M.OP_BOARD_STATE, fields: [cpu, 0, 0, 0, 0, connections] })
  state(5000, 78)
  card.advance(INTERVAL_MS)
  t.like(card.last, { cpu: 1000, connections: 77 })
  state(0, 0)
  card.advance(INTERVAL_MS)
  t.like(card.last, { cpu: 0, connections: 0 })
})

test('draining is told at once, and taken back', async (t) => {
  const card = await FarmCard.settled()
  card.advance(SOON_MS)
  const drain = (a: number) => {
    control(card, { op: M.OP_DRAIN, a })
    return stateMessages(card.advance(2 * SOON_MS)).map(({ message }) => message.flags)
  }
  t.deepEqual(drain(1), [STATE_FLAG_DRAINING, STATE_FLAG_DRAINING])
  t.deepEqual(drain(1), [], 'no news')
  t.deepEqual(drain(0), [0, 0])
  t.deepEqual(drain(2), [])
  t.is(card.counter('commandsBad'), 1)
})

const SHORT_COMMANDS: Record<string, { op: number; words: number }> = {
  OP_BOARD_STATE: { op: M.OP_BOARD_STATE, words: 6 },
  OP_PROCESS_STATE: { op: M.OP_PROCESS_STATE, words: 2 },
}
for (const [name, { op, words }] of Object.entries(SHORT_COMMANDS)) {
  test(`${name}: one that lacks a field is bad`, async (t) => {
    const card = await FarmCard.settled()
    control(card, { op, fields: Array(words).fill(1) })
    card.run()
    t.is(card.counter('commandsBad'), 0)
    control(card, { op, fields: Array(words - 1).fill(1) })
    card.run()
    t.is(card.counter('commandsBad'), 1)
  })
}

test('the Application Information table is bounded, and its rows go with their process', async (t) => {
  const card = await FarmCard.settled({ sets: [0, 1] })
  const tell = (set: number, process: number) =>
    control(card, { op: M.OP_PROCESS_STATE, a: process, fields: [1000, 10] }, set)
  for (let process = 0; process < 64; process++) tell(process & 1, process)
  tell(0, 62)
  card.run()
  t.is(card.counter('applicationsDropped'), 0)
  tell(0, 63) // another one's process of the same number
  card.run()
  t.is(card.counter('applicationsDropped'), 1)
  card.disableSet(1)
  card.run()
  tell(0, 63)
  card.run()
  t.is(card.counter('applicationsDropped'), 1)
})

test('messages go to everybody on the hub', async (t) => {
  const card = await FarmCard.boot()
  const [frame] = card.run().filter(({ port }) => port === HUB_PORT)
  t.like(parse(frame!.frame), { destinationMac: BROADCAST_MAC, sourceMac: HUB_MAC })
})
