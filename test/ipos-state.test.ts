import test, { type ExecutionContext } from 'ava'
import { MAXIMUM_PEERS } from '../abi/boot.ts'
import {
  IPOS_TCP,
  IPOS_UDP,
  SERVICE_FLAG_TAKES_OVER,
  STATE_FLAG_DRAINING,
  STATE_MAXIMUM_SERVICES,
} from '../abi/ipos.ts'
import * as M from '../abi/messages.ts'
import { QUEUES_PER_SET } from '../abi/rings.ts'
import { type BareCard, command, DEFAULT_INTERFACES } from './support/bare-card.ts'
import {
  CARD_ADDRESS,
  FarmCard,
  type FarmSettings,
  HUB_MAC,
  HUB_PORT,
  heardOf,
  INTERVAL_MS,
  KNOWN,
  LEASE_MS,
  LEASED,
  type Peer,
  type StateMessage,
  stateMessages,
  UP,
} from './support/farm-card.ts'
import { ANNOUNCED_MS, between, CARD, greet, PEER } from './support/lan.ts'
import { BROADCAST_MAC, type IposFields, parse, resealIpos, tcpFrame } from './support/packets.ts'

/** Broken messages in CI; INIC_FUZZ_STATES asks for more. */
const FUZZ_MESSAGES = Number(process.env.INIC_FUZZ_STATES ?? 5000)
const CONTROL = 0
/** Least distance of two messages. */
const SOON_MS = 10

function control(card: BareCard, fields: Parameters<typeof command>[0], set = 0): void {
  card.command(set * QUEUES_PER_SET + CONTROL, command(fields))
}

interface Listen {
  cookie: number
  port: number
  address?: number
  speaker?: number
  options?: number
  set?: number
}

function listen(card: BareCard, { cookie, port, address = 0, speaker = 0, options = 0, set = 0 }: Listen): void {
  control(card, { op: M.OP_LISTEN, socket: cookie, a: address, b: port, fields: [speaker, 0, 0, options] }, set)
}

function unlisten(card: BareCard, cookie: number): void {
  control(card, { op: M.OP_UNLISTEN, socket: cookie })
}

/** What leaves within the distance that news keeps, and once more after it, as one message may be lost. */
function news(t: ExecutionContext, card: FarmCard): StateMessage {
  const messages = stateMessages(card.advance(2 * SOON_MS))
  t.is(messages.length, 2)
  t.deepEqual(messages[1]!.message.services, messages[0]!.message.services)
  return messages[0]!.message
}

/** Ports of one protocol that a message tells. */
function ports({ services }: StateMessage, protocol: number): number[] {
  return services.filter((service) => service.protocol === protocol).map(({ port }) => port)
}

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

// ── who is not believed ──

const HTTP = { port: 80, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_CLIENT }

const STRANGERS: Record<string, (peer: Peer) => { port: number; frame: Uint8Array }> = {
  'from a MAC address that is no peer': (peer) => ({
    port: HUB_PORT,
    frame: peer.frame({ sourceMac: '02:00:00:00:01:77' } as object),
  }),
  'from its own MAC address': (peer) => ({ port: HUB_PORT, frame: peer.frame({ sourceMac: HUB_MAC } as object) }),
  'on a LAN': (peer) => ({ port: 0, frame: peer.frame() }),
  'to another station': (peer) => ({
    port: HUB_PORT,
    frame: peer.frame({ destinationMac: '02:00:00:00:01:02' } as object),
  }),
  'with a wrong checksum': (peer) => ({ port: HUB_PORT, frame: peer.frame({ checksum: 0x1234 }) }),
  'with another EtherType': (peer) => ({ port: HUB_PORT, frame: peer.frame({ etherType: 0x88b5 } as object) }),
}
for (const [name, make] of Object.entries(STRANGERS)) {
  test(`not believed: ${name}`, async (t) => {
    const card = await FarmCard.settled()
    const peer = card.peer(1)
    const { port, frame } = make(Object.assign(peer, { sequence: 99 }))
    card.receive(port, frame)
    card.advance(INTERVAL_MS)
    t.is(card.last?.heard[0]?.sequence, 2)
  })
}

const SERVICES = [HTTP, { port: 443, protocol: IPOS_TCP, flags: 0 }]
const MALFORMED: Record<string, { fields?: IposFields<'state'>; cut?: number }> = {
  'more heard than there is': { fields: { heardCount: 2 } },
  'more services than there are': { fields: { serviceCount: 4 } },
  'as many heard as the field holds': { fields: { heardCount: 0xffff } },
  'as many services as the field holds': { fields: { serviceCount: 0xffff } },
  'more heard than a farm has': { fields: { heard: Array.from({ length: 32 }, () => ({ ...HEARD_NOBODY() })) } },
  'more services than a server may tell': {
    fields: { services: Array.from({ length: STATE_MAXIMUM_SERVICES + 1 }, (_, port) => ({ ...HTTP, port })) },
  },
  'no incarnation': { fields: { incarnation: 0 } },
  'cut in a service': { cut: 1 },
  'cut in what was heard': { cut: 9 },
  'cut in the fixed part': { cut: 21 },
  'a header alone': { cut: 60 },
}

function HEARD_NOBODY() {
  return { address: '0.0.0.0', incarnation: 0, sequence: 0 }
}

for (const [name, { fields = {}, cut = 0 }] of Object.entries(MALFORMED)) {
  test(`malformed: ${name}`, async (t) => {
    const card = await FarmCard.settled()
    const peer = card.peer(1)
    const refused = card.counter('iposRefused')
    const whole = peer.frame({ sequence: 50, services: SERVICES, ...fields })
    const frame = whole.slice(0, whole.length - cut)
    resealIpos(frame)
    card.receive(HUB_PORT, frame)
    card.advance(INTERVAL_MS)
    t.is(card.last?.heard[0]?.sequence, 2)
    t.is(card.call('service', 1, 80, IPOS_TCP), 0)
    t.is(card.counter('iposRefused'), refused + 1)
  })
}

test('a peer with another lease is as one that is not there, and the console says so once', async (t) => {
  const card = await FarmCard.settled({}, { services: [HTTP] })
  const console = () => card.console()
  const before = console()
  const peer = card.peer(1)
  peer.incarnation = 0x5555
  for (let n = 0; n < 3; n++) peer.say({ services: [HTTP], lease: LEASE_MS + 1 })
  t.is(card.status(1), 0)
  t.is(card.call('service', 1, 80, IPOS_TCP), 0)
  card.advance(INTERVAL_MS)
  t.deepEqual(
    card.last?.heard.map(({ address }) => address),
    ['192.0.2.103'],
    'it is not said to be heard',
  )
  const line = 'ipOS: 192.0.2.102 has a lease of 2001 ms, this server one of 2000 ms: they do not work together\n'
  t.is(console().slice(before.length), line)
  peer.incarnation++
  peer.say({ services: [HTTP] })
  t.is(card.status(1), KNOWN | UP | LEASED, 'on again with the same one, it is')
})

test('bytes behind a message do not matter', async (t) => {
  const card = await FarmCard.settled()
  const frame = Buffer.concat([card.peer(1).frame({ sequence: 50, services: SERVICES }), new Uint8Array(100)])
  card.receive(HUB_PORT, frame)
  card.advance(INTERVAL_MS)
  t.is(card.last?.heard[0]?.sequence, 50)
  t.is(card.call('service', 1, 443, IPOS_TCP), 1)
})

test('broken messages with right checksums break nothing', async (t) => {
  const card = await FarmCard.settled()
  let seed = 0x2545f491
  const random = (below: number) => {
    seed ^= seed << 13
    seed ^= seed >>> 17
    seed ^= seed << 5
    return (seed >>> 0) % below
  }
  for (let n = 0; n < FUZZ_MESSAGES; n++) {
    const peer = card.hub[n % 2]!
    const services = Array.from({ length: random(STATE_MAXIMUM_SERVICES) }, () => ({
      port: random(0x10000),
      protocol: random(4),
      flags: random(256),
    }))
    const frame = peer.frame({ sequence: random(3) ? ++peer.sequence : random(0xffffffff), services })
    // Counts and the end of the frame are where it hurts.
    if (random(2)) frame[14 + 52 + random(4)] = random(256)
    for (let i = random(4); i > 0; i--) frame[30 + random(frame.length - 30)] = random(256)
    const piece = random(2) ? frame : frame.slice(0, 30 + random(frame.length - 30))
    resealIpos(piece)
    card.receive(HUB_PORT, piece)
    if (n % 16 === 0) card.advance(random(3) ? 1 : random(3 * LEASE_MS))
  }
  card.advance(2 * LEASE_MS + INTERVAL_MS)
  t.deepEqual(card.last?.heard, [])
  for (const peer of card.hub) {
    peer.incarnation += 100
    peer.say({ sequence: 1, services: SERVICES })
    t.is(card.status(peer.row), KNOWN | UP | LEASED)
    t.is(card.call('service', peer.row, 443, IPOS_TCP), 1)
    t.is(card.call('missing', peer.row), 0)
  }
  card.advance(2 * LEASE_MS)
  // No row of the table is lost: as many ports as it has find room again.
  const many = (from: number) => Array.from({ length: STATE_MAXIMUM_SERVICES }, (_, n) => ({ ...HTTP, port: from + n }))
  for (const [n, peer] of card.hub.entries()) {
    peer.say({ services: many(1000 + n * STATE_MAXIMUM_SERVICES) })
    t.is(card.call('missing', peer.row), 0)
  }
})

// ── services ──

test('ports are told when they come and when they go', async (t) => {
  const card = await FarmCard.settled()
  card.advance(100)
  listen(card, { cookie: 1, port: 80 })
  const [told] = stateMessages(card.run())
  t.deepEqual(told?.message.services, [{ port: 80, protocol: IPOS_TCP, flags: 0 }], 'at once')
  listen(card, { cookie: 2, port: 443, speaker: M.FIRST_SPEAKER_CLIENT })
  listen(card, { cookie: 3, port: 25, speaker: M.FIRST_SPEAKER_SERVER })
  t.deepEqual(stateMessages(card.run()), [], 'news keeps its distance')
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 443, 25])
  unlisten(card, 2)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 25])
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 1, a: M.SOCKET_OPTION_TAKES_OVER })
  t.deepEqual(news(t, card).services, [
    { port: 80, protocol: IPOS_TCP, flags: SERVICE_FLAG_TAKES_OVER },
    { port: 25, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_SERVER },
  ])
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 1, a: 0 })
  t.is(news(t, card).services[0]?.flags, 0)
  t.is(card.counter('commandsBad'), 0)
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 2, a: M.SOCKET_OPTION_TAKES_OVER })
  card.run()
  t.is(card.counter('commandsBad'), 1, 'nobody listens by that name')
})

test('UDP ports that a process has chosen are told, those of clients not', async (t) => {
  const card = await FarmCard.settled()
  for (const [socket, port] of [53, 0, 5353].entries()) control(card, { op: M.OP_UDP_BIND, socket, b: port })
  const told = news(t, card)
  t.deepEqual(ports(told, IPOS_UDP), [53, 5353])
  const bound = card.records().find(({ kind, type }) => kind === 'event' && type === M.EVENT_UDP_BOUND)
  card.command(1, command({ op: M.OP_UDP_CLOSE, socket: bound!.socket }))
  t.deepEqual(ports(news(t, card), IPOS_UDP), [5353])
})

test('one port on several addresses is one service; on 127.0.0.1 alone it is none', async (t) => {
  const card = await FarmCard.settled()
  listen(card, { cookie: 1, port: 80, address: 0xc0000201 })
  listen(card, { cookie: 2, port: 80, address: 0xc6336401, options: M.SOCKET_OPTION_TAKES_OVER })
  listen(card, { cookie: 3, port: 80, address: 0x7f000001 })
  listen(card, { cookie: 4, port: 6379, address: 0x7f000001 })
  const shared = { op: M.OP_UDP_BIND, b: 5000 | (M.UDP_FLAG_REUSE << 16) }
  control(card, { ...shared, socket: 5 })
  control(card, { ...shared, socket: 6 })
  control(card, { op: M.OP_UDP_BIND, socket: 7, a: 0x7f000001, b: 53 })
  const { services } = news(t, card)
  t.deepEqual(services, [
    { port: 80, protocol: IPOS_TCP, flags: SERVICE_FLAG_TAKES_OVER },
    { port: 5000, protocol: IPOS_UDP, flags: 0 },
  ])
  unlisten(card, 2)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80])
  unlisten(card, 1)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [])
})

test('the ports of a process that ends go with it', async (t) => {
  const card = await FarmCard.settled({ sets: [0, 1] })
  listen(card, { cookie: 1, port: 80 })
  listen(card, { cookie: 1, port: 81, set: 1 })
  control(card, { op: M.OP_UDP_BIND, socket: 1, b: 53 }, 1)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 81])
  card.disableSet(1)
  const { services } = news(t, card)
  t.deepEqual(services, [{ port: 80, protocol: IPOS_TCP, flags: 0 }])
})

test('a server tells of as many ports as a message holds', async (t) => {
  const card = await FarmCard.settled()
  for (let n = 0; n < STATE_MAXIMUM_SERVICES + 10; n++) listen(card, { cookie: n + 1, port: 1000 + n })
  const told = stateMessages(card.advance(INTERVAL_MS)).at(-1)!.message
  t.is(told.services.length, STATE_MAXIMUM_SERVICES)
  t.is(card.call('missing', 0), 10)
  for (let n = 0; n < 10; n++) unlisten(card, n + 1)
  const after = stateMessages(card.advance(INTERVAL_MS)).at(-1)!.message
  t.is(after.services.length, STATE_MAXIMUM_SERVICES)
  t.is(card.call('missing', 0), 0)
})

test('what peers serve is known by its flags, and changes with their messages', async (t) => {
  const card = await FarmCard.settled()
  const [one, two] = card.hub as [Peer, Peer]
  one.say({ services: [{ ...HTTP, flags: SERVICE_FLAG_TAKES_OVER | M.FIRST_SPEAKER_SERVER }] })
  two.say({ services: [HTTP, { port: 53, protocol: IPOS_UDP, flags: 0 }] })
  const service = (row: number, port: number, protocol: number) => card.call('service', row, port, protocol)
  t.is(service(1, 80, IPOS_TCP), 3)
  t.is(service(2, 80, IPOS_TCP), 1)
  t.is(service(2, 53, IPOS_UDP), 1)
  t.is(service(2, 53, IPOS_TCP), 0)
  t.is(service(1, 53, IPOS_UDP), 0)
  t.is(card.call('elsewhere', 80, IPOS_TCP), SERVICE_FLAG_TAKES_OVER | M.FIRST_SPEAKER_SERVER)
  t.is(card.call('elsewhere', 53, IPOS_UDP), 0)
  t.is(card.call('elsewhere', 53, IPOS_TCP), -1)
  one.say({ services: [{ port: 22, protocol: IPOS_TCP, flags: 3 }] })
  t.is(service(1, 80, IPOS_TCP), 0)
  t.is(card.call('elsewhere', 80, IPOS_TCP), M.FIRST_SPEAKER_CLIENT, "the other one's")
  t.is(card.call('elsewhere', 22, IPOS_TCP), M.FIRST_SPEAKER_AUTO, 'a first speaker that there is not')
  two.say({ flags: STATE_FLAG_DRAINING, services: [HTTP] })
  t.is(card.call('elsewhere', 80, IPOS_TCP), -1, 'draining')
  t.is(service(2, 80, IPOS_TCP), 1)
  two.say({ services: [HTTP, HTTP, HTTP] })
  two.say({ services: [] })
  t.is(service(2, 80, IPOS_TCP), 0, 'told three times, taken back once')
})

test('a full table leaves ports out, and takes them up when there is room', async (t) => {
  const card = await FarmCard.settled({ count: 5 })
  const list = (from: number) => Array.from({ length: STATE_MAXIMUM_SERVICES }, (_, n) => ({ ...HTTP, port: from + n }))
  for (const peer of card.hub) peer.say({ services: list(peer.row * 1000) })
  t.deepEqual(
    card.hub.map(({ row }) => card.call('missing', row)),
    [0, 0, 0, 0, STATE_MAXIMUM_SERVICES],
  )
  t.is(card.call('elsewhere', 5000, IPOS_TCP), -1)
  card.peer(1).say({ services: [] })
  card.peer(5).say({ services: list(5000) })
  t.is(card.call('missing', 5), 0)
  t.is(card.call('service', 5, 5255, IPOS_TCP), 1)
})

// ── the main board ──

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
