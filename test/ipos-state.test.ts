/** State messages: when a card sends them, and what it makes of those that it hears. */
import test from 'ava'
import { MAXIMUM_PEERS } from '../abi/boot.ts'
import {
  IPOS_TCP,
  IPOS_UDP,
  SERVICE_FLAG_TAKES_OVER,
  STATE_FLAG_DRAINING,
  STATE_MAXIMUM_SERVICES,
} from '../abi/ipos.ts'
import * as M from '../abi/messages.ts'
import { DEFAULT_INTERFACES } from './support/bare-card.ts'
import {
  CARD_ADDRESS,
  FarmCard,
  type FarmSettings,
  HUB_PORT,
  heardOf,
  INTERVAL_MS,
  KNOWN,
  LEASE_MS,
  LEASED,
  type StateMessage,
  stateMessages,
  UP,
} from './support/farm-card.ts'
import { ANNOUNCED_MS } from './support/lan.ts'
import { parse } from './support/packets.ts'
import { control, HTTP, listen, news, SOON_MS } from './support/state-messages.ts'

// ── sending ──

test('the first message leaves at once, bit for bit', async (t) => {
  const card = await FarmCard.boot({ maximumConnections: 1000 })
  const frames = card.run().filter(({ port }) => port === HUB_PORT)
  t.is(frames.length, 1)
  const frame = Buffer.from(frames[0]!.frame)
  const incarnation = frame.subarray(30, 34)
  t.not(incarnation.readUInt32BE(), 0)
  const checksum = frame.subarray(28, 30).toString('hex')
  const expected = [
    ...['ffffffffffff', '020000000003', '0007'], // to all, from the port on the hub
    ...['c0000201', '0000', 'ffffffff', '0000', '80', '00', checksum],
    ...[incarnation.toString('hex'), '00000001', '0000', '0000'], // sequence number, flags, CPU
    ...['00000000', '000003e8', '00000000', '00000000', '00000000', '00000000'], // connections, memory, bandwidth
    ...['0000', '0000', '000007d0'], // nobody heard of, no services; the lease
  ]
  t.is(frame.toString('hex'), expected.join(''))
  t.deepEqual(parse(frame).problems, [])
})

test('boards of different seeds are different incarnations', async (t) => {
  const numbers = await Promise.all(
    [1, 2, 3].map(async (seed) => {
      const card = await FarmCard.boot({ seed })
      card.run()
      return card.last?.incarnation
    }),
  )
  t.is(new Set(numbers).size, 3)
})

test('a full message: board state, who was heard, services', async (t) => {
  const card = await FarmCard.settled()
  card.peer(1).say({ sequence: 77 })
  // 250 per mille of CPU, 3000 of 4000 KiB, 10 of 100 kbit/s, 123 connections.
  const fields = [250, 3000, 4000, 10, 100, 123 + 1]
  control(card, { op: M.OP_BOARD_STATE, fields })
  control(card, { op: M.OP_DRAIN, a: 1 })
  listen(card, { cookie: 1, port: 80, speaker: M.FIRST_SPEAKER_SERVER, options: M.SOCKET_OPTION_TAKES_OVER })
  control(card, { op: M.OP_UDP_BIND, socket: 2, b: 53 })
  const { sequence = 0 } = card.last ?? {}
  t.like(news(t, card), {
    source: CARD_ADDRESS,
    sequence: sequence + 1,
    flags: STATE_FLAG_DRAINING,
    cpu: 250,
    connections: 123,
    memoryAvailable: 3000,
    memoryTotal: 4000,
    bandwidthAvailable: 10,
    bandwidthTotal: 100,
    heard: [
      { address: '192.0.2.102', incarnation: 0x1001, sequence: 77 },
      { address: '192.0.2.103', incarnation: 0x1002, sequence: 2 },
    ],
    services: [
      { port: 80, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_SERVER | SERVICE_FLAG_TAKES_OVER },
      { port: 53, protocol: IPOS_UDP, flags: 0 },
    ],
  })
})

const RHYTHMS: Record<string, { settings: FarmSettings; everyMs: number }> = {
  'every quarter of a second': { settings: {}, everyMs: INTERVAL_MS },
  'as the board sets it': { settings: { stateIntervalMs: 40 }, everyMs: 40 },
  'four times a lease at least': { settings: { stateIntervalMs: 500, leaseMs: 600 }, everyMs: 150 },
  'across the wrap of the millisecond clock': { settings: { startMs: 2 ** 32 - 600 }, everyMs: INTERVAL_MS },
}
for (const [name, { settings, everyMs }] of Object.entries(RHYTHMS)) {
  test(`rhythm: ${name}`, async (t) => {
    const card = await FarmCard.boot(settings)
    const sent = stateMessages(card.advance(1000))
    const start = settings.startMs ?? 0
    const count = Math.floor(1000 / everyMs) + 1
    t.deepEqual(
      sent.map(({ ms }) => ms - start),
      Array.from({ length: count }, (_, n) => n * everyMs),
    )
    t.deepEqual(
      sent.map(({ message }) => message.sequence),
      Array.from({ length: count }, (_, n) => n + 1),
    )
  })
}

const LONERS: Record<string, FarmSettings> = {
  'without peers': { count: 0 },
  'without a hub': { interfaces: DEFAULT_INTERFACES.slice(0, 2) },
}
for (const [name, settings] of Object.entries(LONERS)) {
  test(`a card ${name} says nothing and never wakes for it`, async (t) => {
    const card = await FarmCard.boot(settings)
    listen(card, { cookie: 1, port: 80 })
    t.deepEqual(stateMessages(card.advance(ANNOUNCED_MS)), [])
    t.is(card.wakeNs, Number.POSITIVE_INFINITY)
    t.is(card.call('choose', 80, IPOS_TCP, 1, 0, 0), 0)
    t.is(card.call('elsewhere', 80, IPOS_TCP), -1)
  })
}

test('the longest message fits a frame of 1500 bytes', async (t) => {
  const card = await FarmCard.settled({ count: MAXIMUM_PEERS })
  for (let n = 0; n < STATE_MAXIMUM_SERVICES; n++) listen(card, { cookie: n + 1, port: 1000 + n })
  const frame = card.advance(INTERVAL_MS).findLast(({ port }) => port === HUB_PORT)!.frame
  t.like(card.last, { heardCount: MAXIMUM_PEERS, serviceCount: STATE_MAXIMUM_SERVICES })
  t.true(frame.length <= 14 + 1500, `${frame.length} bytes`)
})

// ── hearing ──

test('who is heard for the first time is answered soon, and named', async (t) => {
  const card = await FarmCard.boot()
  card.advance(5)
  card.peer(2).say({ sequence: 41 })
  const [first, ...rest] = stateMessages(card.advance(100))
  t.is(first?.ms, SOON_MS)
  t.deepEqual(first?.message.heard, [{ address: '192.0.2.103', incarnation: 0x1002, sequence: 41 }])
  t.deepEqual(rest, [])
  card.peer(2).say()
  t.deepEqual(stateMessages(card.advance(100)), [], 'no news the second time')
})

test('a message that is not newer says nothing', async (t) => {
  const card = await FarmCard.settled()
  const peer = card.peer(1)
  peer.say({ sequence: 0x7fffffff })
  peer.say({ sequence: 0xfffffffe, cpu: 1 })
  for (const sequence of [0xfffffffd, 0xfffffffe, 0x7fffffff, 0x80000000]) peer.say({ sequence, services: [HTTP] })
  card.advance(INTERVAL_MS)
  t.is(card.last?.heard[0]?.sequence, 0xfffffffe)
  t.is(card.call('service', 1, 80, IPOS_TCP), 0)
  peer.say({ sequence: 1, services: [HTTP] })
  card.advance(INTERVAL_MS)
  t.is(card.last?.heard[0]?.sequence, 1)
  t.is(card.call('service', 1, 80, IPOS_TCP), 1)
})

test('a peer that falls silent is given up in two steps', async (t) => {
  // The millisecond clock goes round on the way.
  const card = await FarmCard.settled({ count: 1, startMs: 2 ** 32 - 1.5 * LEASE_MS }, { services: [HTTP] })
  const peer = card.peer(1)
  card.advance(7)
  peer.say({ services: [HTTP] })
  t.is(card.status(1), KNOWN | UP | LEASED)
  t.is(card.call('elsewhere', 80, IPOS_TCP), M.FIRST_SPEAKER_CLIENT)
  card.advance(LEASE_MS - 1)
  t.is(card.status(1) & (KNOWN | UP), KNOWN | UP)
  card.advance(1)
  t.is(card.status(1) & (KNOWN | UP), KNOWN)
  t.is(card.call('elsewhere', 80, IPOS_TCP), -1, 'not chosen any more')
  card.advance(LEASE_MS - 1)
  t.is(card.status(1), KNOWN)
  t.deepEqual(card.last?.heard.length, 1)
  card.advance(1)
  t.is(card.status(1), 0)
  t.is(card.call('service', 1, 80, IPOS_TCP), 0, 'what it served is forgotten')
  card.advance(INTERVAL_MS)
  t.deepEqual(card.last?.heard, [])
  peer.say({ services: [HTTP] })
  t.is(card.status(1), KNOWN | UP | LEASED, 'it is back')
  t.is(card.call('service', 1, 80, IPOS_TCP), 1)
})

test('a lease runs from when we sent what the peer has heard', async (t) => {
  const card = await FarmCard.boot()
  card.advance(2 * INTERVAL_MS) // numbers 1, 2 and 3 have left at 0, 250 and 500 ms
  const heard = heardOf(card.last!)
  const peer = card.peer(1)
  peer.say({ heard: [] })
  t.is(card.status(1), KNOWN | UP, 'it hears us not')
  card.advance(SOON_MS)
  peer.say({ heard: [{ ...heard, sequence: 2 }] })
  t.is(card.status(1), KNOWN | UP | LEASED)
  // An older word takes nothing back.
  peer.say({ heard: [{ ...heard, sequence: 1 }] })
  const leaseEnd = INTERVAL_MS + LEASE_MS
  card.advance(leaseEnd - card.nowMs - 1)
  t.is(card.status(1) & LEASED, LEASED)
  card.advance(1)
  t.is(card.status(1) & LEASED, 0)
})

const NO_LEASES: Record<string, (heard: StateMessage['heard'][number]) => StateMessage['heard'][number]> = {
  'a number that was not sent': (heard) => ({ ...heard, sequence: heard.sequence + 1 }),
  'number 0': (heard) => ({ ...heard, sequence: 0 }),
  'a number of long ago': (heard) => ({ ...heard, sequence: heard.sequence - 64 }),
  'a number sent a lease ago': (heard) => ({ ...heard, sequence: heard.sequence - LEASE_MS / INTERVAL_MS }),
  'a number before the first': (heard) => ({ ...heard, sequence: 0xffffffff }),
  'another incarnation': (heard) => ({ ...heard, incarnation: heard.incarnation ^ 1 }),
  'another server': (heard) => ({ ...heard, address: '192.0.2.103' }),
  'no address': (heard) => ({ ...heard, address: '0.0.0.0' }),
}
for (const [name, change] of Object.entries(NO_LEASES)) {
  test(`no lease from having heard ${name}`, async (t) => {
    for (const messages of [4, 80]) {
      const card = await FarmCard.boot()
      card.advance(messages * INTERVAL_MS)
      const heard = heardOf(card.last!)
      const peer = card.peer(1)
      peer.say({ heard: [change(heard)] })
      t.is(card.status(1), KNOWN | UP)
      peer.say({ heard: [change(heard), heard] })
      t.is(card.status(1), KNOWN | UP | LEASED)
    }
  })
}

test('an address of ours on any network names us', async (t) => {
  const card = await FarmCard.boot()
  card.run()
  card.peer(1).say({ heard: [{ ...heardOf(card.last!), address: '198.51.100.1' }] })
  t.is(card.status(1), KNOWN | UP | LEASED)
})

test('a peer that was switched off and on: nothing of before holds', async (t) => {
  const card = await FarmCard.settled({}, { services: [HTTP] })
  const peer = card.peer(1)
  const before = { incarnation: peer.incarnation, sequence: peer.sequence }
  card.advance(INTERVAL_MS)
  peer.incarnation = 0x77777777
  const messages = stateMessages(peer.say({ sequence: 1, heard: [] }))
  t.is(messages.length, 1, 'asked whether it is one of now')
  peer.say({ sequence: 2 })
  t.is(card.status(1), KNOWN | UP | LEASED)
  t.is(card.call('service', 1, 80, IPOS_TCP), 0)
  card.advance(INTERVAL_MS)
  t.deepEqual(card.last?.heard[0], { address: peer.address, incarnation: 0x77777777, sequence: 2 })
  // What it said before comes late: it is not yet another one.
  peer.say({ ...before, sequence: before.sequence + 1, services: [HTTP], heard: [heardOf(messages[0]!.message)] })
  t.is(card.call('service', 1, 80, IPOS_TCP), 0)
  card.advance(INTERVAL_MS)
  t.deepEqual(card.last?.heard[0], { address: peer.address, incarnation: 0x77777777, sequence: 2 })
})

test('a message of a life that we never met comes late: the one that lives is heard on', async (t) => {
  const card = await FarmCard.settled({}, { services: [HTTP] })
  const peer = card.peer(1)
  for (const heard of [
    [],
    [{ ...heardOf(card.last!), incarnation: 0x1234 }],
    [{ ...heardOf(card.last!), sequence: 1 }],
  ]) {
    card.receive(HUB_PORT, peer.frame({ incarnation: 0x55555555, sequence: 500, services: [], heard }))
    card.run()
    t.is(card.status(1), KNOWN | UP | LEASED)
    t.is(card.call('service', 1, 80, IPOS_TCP), 1)
  }
  peer.say({ sequence: 77 })
  card.advance(INTERVAL_MS)
  t.deepEqual(card.last?.heard[0], { address: peer.address, incarnation: peer.incarnation, sequence: 77 })
})

test('who was given up may come back as another one without more ado, and the one before after it', async (t) => {
  const card = await FarmCard.settled({ count: 1 })
  const peer = card.peer(1)
  const { incarnation, sequence } = peer
  card.advance(2 * LEASE_MS)
  t.is(card.status(1), 0)
  // A late one, as it turns out.
  peer.say({ incarnation: 0x55555555, sequence: 500, heard: [] })
  t.is(card.status(1), KNOWN | UP)
  card.advance(INTERVAL_MS)
  peer.say({ sequence: sequence + 1 })
  t.is(card.status(1), KNOWN | UP | LEASED)
  card.advance(INTERVAL_MS)
  t.deepEqual(card.last?.heard[0], { address: peer.address, incarnation, sequence: sequence + 1 })
})
