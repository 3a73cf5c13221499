import test from 'ava'
import fc from 'fast-check'
import {
  EVENT_UDP_BOUND,
  EVENT_UDP_ERROR,
  OP_CREDIT,
  OP_SET_OPTION,
  OP_UDP_BIND,
  OP_UDP_CLOSE,
  OP_UDP_SEND,
  OPTION_TTL,
  OPTION_UDP_BROADCAST,
  RX_DATAGRAM,
  UDP_FLAG_REUSE,
} from '../abi/messages.ts'
import {
  STATUS_EACCES,
  STATUS_EADDRINUSE,
  STATUS_EADDRNOTAVAIL,
  STATUS_ECONNREFUSED,
  STATUS_EHOSTUNREACH,
  STATUS_EINVAL,
  STATUS_EMSGSIZE,
  STATUS_ENETUNREACH,
  STATUS_ENOBUFS,
  STATUS_OK,
} from '../abi/status.ts'
import { type BareCard, type Captured, command, type EventRecord, type ReceiveRecord } from './support/bare-card.ts'
import { CARD, CARD_B, PEER, settledCard, TO_CARD } from './support/lan.ts'
import {
  BROADCAST_MAC,
  bytes,
  concat,
  expectFrames,
  icmpFrame,
  ipNumber,
  ipText,
  ipv4,
  ipv4Frame,
  parse,
  udp,
  udpFrame,
} from './support/packets.ts'

const CONTROL = 0
const TX = 1
const REMOTE_PORT = 4000

interface BindOptions {
  address?: string
  port?: number
  flags?: number
  set?: number
  cookie?: number
}

/** Binds and returns the answer. */
function tryBind(card: BareCard, options: BindOptions = {}): EventRecord {
  const { address = '0.0.0.0', port = 5000, flags = 0, set = 0, cookie = 0xc00c1e } = options
  card.records()
  card.command(
    set * 4 + CONTROL,
    command({ op: OP_UDP_BIND, socket: cookie, a: ipNumber(address), b: port | (flags << 16) }),
  )
  card.run()
  const record = card.records().at(-1)
  if (record?.kind !== 'event' || record.type !== EVENT_UDP_BOUND)
    throw new Error(`no answer: ${JSON.stringify(record)}`)
  return record
}

/** Binds and returns the handle. */
function bind(card: BareCard, options: BindOptions = {}): number {
  const { status, socket } = tryBind(card, options)
  if (status !== STATUS_OK) throw new Error(`bind: status ${status}`)
  return socket
}

interface SendOptions {
  to?: string
  port?: number
  set?: number
}

function send(card: BareCard, socket: number, payload: Uint8Array, options: SendOptions = {}): Captured[] {
  const { to = PEER.ip, port = REMOTE_PORT, set = 0 } = options
  card.command(set * 4 + TX, command({ op: OP_UDP_SEND, socket, a: ipNumber(to), b: port, payload }))
  return card.run()
}

/** A datagram from the neighbour. */
function datagram(payload: Uint8Array, fields: object = {}): Uint8Array {
  return udpFrame({ ...TO_CARD, sourcePort: REMOTE_PORT, destinationPort: 5000, payload, ...fields })
}

function receive(card: BareCard, ...frames: Uint8Array[]): Captured[] {
  for (const frame of frames) card.receive(0, frame)
  return card.run()
}

function received(card: BareCard): ReceiveRecord[] {
  return card.records().filter((record): record is ReceiveRecord => record.kind === 'receive')
}

function events(card: BareCard): EventRecord[] {
  return card.records().filter((record): record is EventRecord => record.kind === 'event')
}

// ── bind ──

test('bind answers with the cookie, a handle, the port and the receive credit', (t) => {
  const card = settledCard()
  const bound = tryBind(card, { address: CARD.ip, port: 53, cookie: 7 })
  t.like(bound, { queue: 3, status: STATUS_OK, cookie: 7, localAddress: ipNumber(CARD.ip), localPort: 53 })
  t.not(bound.socket, 0)
  t.true(bound.value2 >= 65536)
})

test('bind to port 0 chooses ports from 32768 to 60999, each once', (t) => {
  const card = settledCard()
  const ports = Array.from({ length: 200 }, () => tryBind(card, { port: 0 }).localPort)
  t.is(new Set(ports).size, 200)
  t.true(ports.every((port) => port >= 32768 && port <= 60999))
  t.notDeepEqual(ports, [...ports].sort(), 'not in order')
})

test('ports are chosen by the seed', (t) => {
  const first = (seed: number) => tryBind(settledCard({ seed }), { port: 0 }).localPort
  t.is(first(1), first(1))
  t.not(first(1), first(2))
})

const ANY = '0.0.0.0'
for (const [title, a, b, status] of [
  ['the same port on any address', { address: ANY }, { address: ANY }, STATUS_EADDRINUSE],
  ['one address after any', { address: ANY }, { address: CARD.ip }, STATUS_EADDRINUSE],
  ['any after one address', { address: CARD.ip }, { address: ANY }, STATUS_EADDRINUSE],
  ['the same address', { address: CARD.ip }, { address: CARD.ip }, STATUS_EADDRINUSE],
  ['two addresses', { address: CARD.ip }, { address: CARD_B.ip }, STATUS_OK],
  ['two ports', { port: 5000 }, { port: 6024 }, STATUS_OK],
  ['both share', { flags: UDP_FLAG_REUSE }, { flags: UDP_FLAG_REUSE }, STATUS_OK],
  ['the first one shares', { flags: UDP_FLAG_REUSE }, {}, STATUS_EADDRINUSE],
  ['the second one shares', {}, { flags: UDP_FLAG_REUSE }, STATUS_EADDRINUSE],
  ['another process', { set: 0 }, { set: 1 }, STATUS_EADDRINUSE],
  ['a strange address', {}, { address: '192.0.2.77', port: 1 }, STATUS_EADDRNOTAVAIL],
  ['a broadcast address', {}, { address: '192.0.2.255', port: 1 }, STATUS_EADDRNOTAVAIL],
  ['127.0.0.1', { address: CARD.ip }, { address: '127.0.0.1' }, STATUS_OK],
] as [string, BindOptions, BindOptions, number][]) {
  test(`bind: ${title}`, (t) => {
    const card = settledCard({ sets: [0, 1] })
    bind(card, a)
    const second = tryBind(card, b)
    t.is(second.status, status)
    t.is(second.socket !== 0, status === STATUS_OK)
  })
}

test('a closed port can be bound again, under another handle', (t) => {
  const card = settledCard()
  const first = bind(card)
  card.command(CONTROL, command({ op: OP_UDP_CLOSE, socket: first }))
  const second = bind(card)
  t.not(first, second)
  expectFrames(t, send(card, first, bytes('x')), [])
  expectFrames(t, send(card, second, bytes('x')), [{ udp: { sourcePort: 5000 } }])
})

test('1024 endpoints, then ENOBUFS, until one is closed', (t) => {
  const card = settledCard()
  const handles = Array.from({ length: 1024 }, () => bind(card, { port: 0 }))
  t.is(tryBind(card, { port: 9 }).status, STATUS_ENOBUFS)
  card.command(CONTROL, command({ op: OP_UDP_CLOSE, socket: handles[500]! }))
  t.is(tryBind(card, { port: 9 }).status, STATUS_OK)
})

test('without an event buffer for the answer the endpoint is not kept', (t) => {
  const card = settledCard({ sets: [] })
  card.enableSet(1, { eventBuffers: 0 })
  card.setReplenish(7, false)
  card.command(4, command({ op: OP_UDP_BIND, socket: 1, b: 5000 }))
  card.run()
  card.enableSet(0)
  t.is(tryBind(card).status, STATUS_OK)
})

// ── receive ──

test('a datagram reaches its socket with addresses, port and bytes', (t) => {
  const card = settledCard()
  const socket = bind(card)
  const payload = bytes('datagram')
  expectFrames(t, receive(card, datagram(payload)), [])
  const [record, ...rest] = received(card)
  t.deepEqual(rest, [])
  t.like(record, {
    queue: 2,
    type: RX_DATAGRAM,
    socket,
    remoteAddress: ipNumber(PEER.ip),
    localAddress: ipNumber(CARD.ip),
    remotePort: REMOTE_PORT,
    payload,
  })
})

for (const [title, frame, payload] of [
  ['no payload', datagram(bytes(0)), bytes(0)],
  ['no checksum', datagram(bytes(99), { udpChecksum: 0 }), bytes(99)],
  ['an odd length', datagram(bytes(101)), bytes(101)],
  ['as much as a frame holds', datagram(bytes(1472)), bytes(1472)],
  ['source port 0', datagram(bytes(3), { sourcePort: 0 }), bytes(3)],
  [
    'bytes behind the UDP length',
    ipv4Frame({
      ...TO_CARD,
      protocol: 17,
      payload: concat(udp({ ...TO_CARD, sourcePort: 1, destinationPort: 5000, payload: bytes(10) }), bytes(20)),
    }),
    bytes(10),
  ],
] as const) {
  test(`a datagram is delivered: ${title}`, (t) => {
    const card = settledCard()
    bind(card)
    expectFrames(t, receive(card, frame), [])
    t.deepEqual(
      received(card).map((record) => record.payload),
      [payload],
    )
  })
}

test('a checksum that computes to 0 travels as ones', (t) => {
  const card = settledCard()
  const socket = bind(card)
  // Search a payload whose checksum is 0: the last two bytes are the complement of what is there without them.
  const probe = parse(send(card, socket, new Uint8Array(2))[0]!.frame)
  const payload = Uint8Array.of(probe.udp!.checksum >> 8, probe.udp!.checksum & 255)
  expectFrames(t, send(card, socket, payload), [{ udp: { checksum: 0xffff, payload } }])
  receive(card, datagram(payload))
  t.is(received(card).length, 1)
})

for (const [title, frame] of [
  ['a bad checksum', datagram(bytes(10), { udpChecksum: 0x1234 })],
  ['length 7', datagram(bytes(10), { udpLength: 7 })],
  ['length beyond the packet', datagram(bytes(10), { udpLength: 19 })],
  ['7 bytes', ipv4Frame({ ...TO_CARD, protocol: 17, payload: bytes(7) })],
] as [string, Uint8Array][]) {
  test(`a datagram is dropped in silence: ${title}`, (t) => {
    const card = settledCard()
    bind(card)
    expectFrames(t, receive(card, frame), [])
    t.deepEqual(received(card), [])
  })
}

test('the endpoint bound to the address comes before the one bound to any', (t) => {
  const card = settledCard()
  const any = bind(card, { flags: UDP_FLAG_REUSE })
  const one = bind(card, { flags: UDP_FLAG_REUSE, address: CARD.ip })
  bind(card, { flags: UDP_FLAG_REUSE, address: CARD_B.ip })
  receive(card, datagram(bytes(1)))
  t.deepEqual(
    received(card).map(({ socket }) => socket),
    [one],
  )
  card.command(CONTROL, command({ op: OP_UDP_CLOSE, socket: one }))
  receive(card, datagram(bytes(1)))
  t.deepEqual(
    received(card).map(({ socket }) => socket),
    [any],
  )
})

test('of two that share an address the newest gets the datagram', (t) => {
  const card = settledCard()
  const flags = UDP_FLAG_REUSE
  bind(card, { flags, address: CARD.ip })
  const newest = bind(card, { flags, address: CARD.ip })
  receive(card, datagram(bytes(1)))
  t.deepEqual(
    received(card).map(({ socket }) => socket),
    [newest],
  )
})

test('a broadcast reaches all that are bound to any address', (t) => {
  const card = settledCard({ sets: [0, 1] })
  const flags = UDP_FLAG_REUSE
  const sockets = [bind(card, { flags }), bind(card, { flags, set: 1 })]
  bind(card, { flags, address: CARD.ip })
  for (const destination of ['192.0.2.255', '255.255.255.255']) {
    expectFrames(t, receive(card, datagram(bytes(5), { destination, destinationMac: BROADCAST_MAC })), [])
    const records = received(card)
    t.deepEqual(
      records.map(({ socket }) => socket),
      [...sockets].reverse(),
    )
    t.true(records.every(({ localAddress }) => ipText(localAddress) === destination))
  }
})

test('only as many bytes as there is credit are delivered, and returned credit delivers more', (t) => {
  const card = settledCard()
  const { socket, value2: credit } = tryBind(card)
  const count = Math.floor(credit / 1000)
  for (let i = 0; i < count + 5; i++) receive(card, datagram(bytes(1000)))
  t.is(received(card).length, count)
  t.is(card.counter('udpDropped'), 5)
  card.command(TX, command({ op: OP_CREDIT, socket, a: 1000 }))
  for (let i = 0; i < 3; i++) receive(card, datagram(bytes(1000)))
  t.is(received(card).length, 1)
})

test('credit that was never given does not count', (t) => {
  const card = settledCard()
  const { socket, value2: credit } = tryBind(card)
  for (const a of [100000, 0xffffffff, 1]) card.command(TX, command({ op: OP_CREDIT, socket, a }))
  const count = Math.floor(credit / 1000)
  for (let i = 0; i < count + 5; i++) receive(card, datagram(bytes(1000)))
  t.is(received(card).length, count)
})

test('without a host buffer a datagram is lost, and counted', (t) => {
  const card = settledCard({ sets: [] })
  card.enableSet(0, { receiveBuffers: 2 })
  card.setReplenish(2, false)
  bind(card)
  for (let i = 0; i < 5; i++) receive(card, datagram(Uint8Array.of(i)))
  t.deepEqual(
    received(card).map(({ payload }) => payload[0]),
    [0, 1],
  )
  t.is(card.counter('udpDropped'), 3)
  card.replenish(2, 1)
  receive(card, datagram(Uint8Array.of(9)))
  t.deepEqual(
    received(card).map(({ payload }) => payload[0]),
    [9],
  )
})

// ── send ──

test('a datagram leaves with addresses, ports, TTL and checksum', (t) => {
  const card = settledCard()
  const socket = bind(card)
  const payload = bytes('hello')
  expectFrames(t, send(card, socket, payload), [
    {
      port: 0,
      destinationMac: PEER.mac,
      ipv4: { source: CARD.ip, destination: PEER.ip, ttl: 64 },
      udp: { sourcePort: 5000, destinationPort: REMOTE_PORT, payload },
    },
  ])
})

test('property: every length leaves and comes back as it was', (t) => {
  const card = settledCard()
  const socket = bind(card)
  const property = fc.property(fc.oneof(fc.nat(3000), fc.nat(65507)), (length) => {
    const payload = bytes(length)
    const sent = send(card, socket, payload).map(({ frame }) => parse(frame))
    if (sent.some(({ problems }) => problems.length > 0)) return false
    const whole = concat(...sent.map((packet) => packet.ipv4!.payload))
    const expected = udp({
      source: CARD.ip,
      destination: PEER.ip,
      sourcePort: 5000,
      destinationPort: REMOTE_PORT,
      payload,
    })
    return Buffer.compare(whole, expected) === 0 && sent.every(({ ipv4 }) => ipv4!.totalLength <= 1500)
  })
  t.notThrows(() => fc.assert(property, { numRuns: 100 }))
})

test('the checksum is right wherever the DMA engine cuts the record', (t) => {
  const card = settledCard()
  const socket = bind(card)
  for (const limit of [17, 100, 333, 1001]) {
    card.fetchLimit = limit
    for (const length of [0, 1, 2, 400, 1471]) {
      const payload = bytes(length)
      expectFrames(t, send(card, socket, payload), [{ udp: { payload } }])
    }
  }
})

for (const [title, length, status] of [
  ['the longest', 65507, STATUS_OK],
  ['too long', 65508, STATUS_EMSGSIZE],
  ['far too long', 65536, STATUS_EMSGSIZE],
] as const) {
  test(`send ${title} datagram`, (t) => {
    const card = settledCard()
    const socket = bind(card)
    const frames = send(card, socket, bytes(length))
    t.is(frames.length, status === STATUS_OK ? 45 : 0)
    if (status !== STATUS_OK)
      t.like(events(card)[0], { type: EVENT_UDP_ERROR, status, socket, remotePort: REMOTE_PORT })
  })
}

for (const [title, options, status] of [
  ['port 0', { port: 0 }, STATUS_EINVAL],
  ['port 65536', { port: 65536 }, STATUS_EINVAL],
  ['a broadcast address without leave', { to: '192.0.2.255' }, STATUS_EACCES],
  ['255.255.255.255 without leave', { to: '255.255.255.255' }, STATUS_EACCES],
  ['a multicast group', { to: '224.0.0.1' }, STATUS_ENETUNREACH],
] as [string, SendOptions, number][]) {
  test(`send to ${title} fails`, (t) => {
    const card = settledCard()
    const socket = bind(card)
    expectFrames(t, send(card, socket, bytes('x'), options), [])
    t.like(events(card)[0], { type: EVENT_UDP_ERROR, status, socket })
  })
}

test('options: TTL and broadcast', (t) => {
  const card = settledCard()
  const socket = bind(card)
  card.command(CONTROL, command({ op: OP_SET_OPTION, socket, a: OPTION_TTL, b: 3 }))
  card.command(CONTROL, command({ op: OP_SET_OPTION, socket, a: OPTION_UDP_BROADCAST, b: 1 }))
  card.run()
  for (const to of ['192.0.2.255', '255.255.255.255']) {
    expectFrames(t, send(card, socket, bytes('x'), { to }), [
      { destinationMac: BROADCAST_MAC, ipv4: { source: CARD.ip, destination: to, ttl: 3 } },
    ])
  }
  for (const b of [0, 256]) card.command(CONTROL, command({ op: OP_SET_OPTION, socket, a: OPTION_TTL, b }))
  card.command(CONTROL, command({ op: OP_SET_OPTION, socket, a: OPTION_UDP_BROADCAST, b: 0 }))
  expectFrames(t, send(card, socket, bytes('x')), [{ ipv4: { ttl: 3 } }])
  expectFrames(t, send(card, socket, bytes('x'), { to: '192.0.2.255' }), [])
})

// ── loopback ──

test('sockets on one card talk through 127.0.0.1 and through its addresses, nothing leaves', (t) => {
  const card = settledCard()
  const a = bind(card, { port: 1 })
  const b = bind(card, { port: 2 })
  for (const [to, from] of [
    ['127.0.0.1', '127.0.0.1'],
    ['127.9.9.9', '127.9.9.9'],
    [CARD.ip, CARD.ip],
    [CARD_B.ip, CARD_B.ip],
  ] as const) {
    for (const length of [0, 1, 1972, 1973, 20000, 65507]) {
      const payload = bytes(length)
      expectFrames(t, send(card, a, payload, { to, port: 2 }), [])
      const records = received(card)
      t.is(records.length, 1, `${length} bytes to ${to}`)
      t.is(Buffer.compare(records[0]!.payload, payload), 0)
      t.like(records[0], { socket: b, remotePort: 1, remoteAddress: ipNumber(from), localAddress: ipNumber(to) })
      card.command(TX, command({ op: OP_CREDIT, socket: b, a: length }))
    }
  }
})

test('a closed port on the loopback answers with ECONNREFUSED', (t) => {
  const card = settledCard()
  const socket = bind(card, { port: 1 })
  expectFrames(t, send(card, socket, bytes('x'), { to: '127.0.0.1', port: 2 }), [])
  t.like(events(card)[0], { type: EVENT_UDP_ERROR, status: STATUS_ECONNREFUSED, socket, remotePort: 2 })
})

// ── errors that come back ──

for (const [title, type, code, status] of [
  ['net unreachable', 3, 0, STATUS_ENETUNREACH],
  ['host unreachable', 3, 1, STATUS_EHOSTUNREACH],
  ['protocol unreachable', 3, 2, STATUS_ECONNREFUSED],
  ['port unreachable', 3, 3, STATUS_ECONNREFUSED],
  ['fragmentation needed', 3, 4, STATUS_EMSGSIZE],
  ['prohibited', 3, 13, STATUS_EHOSTUNREACH],
  ['time exceeded', 11, 0, STATUS_EHOSTUNREACH],
  ['parameter problem', 12, 0, STATUS_EHOSTUNREACH],
] as const) {
  test(`an ICMP error reaches the socket: ${title}`, (t) => {
    const card = settledCard()
    const socket = bind(card)
    const [sent] = send(card, socket, bytes(100))
    receive(card, icmpFrame({ ...TO_CARD, type, code, payload: sent!.frame.subarray(14, 14 + 28) }))
    const expected = {
      type: EVENT_UDP_ERROR,
      status,
      socket,
      remoteAddress: ipNumber(PEER.ip),
      remotePort: REMOTE_PORT,
    }
    t.like(events(card)[0], { ...expected, localAddress: ipNumber(CARD.ip), localPort: 5000 })
  })
}

const QUOTED = { source: CARD.ip, destination: PEER.ip, sourcePort: 5000, destinationPort: REMOTE_PORT }
for (const [title, quoted] of [
  ['a packet from somebody else', ipv4({ ...QUOTED, source: PEER.ip, protocol: 17, payload: udp(QUOTED) })],
  ['a later fragment', ipv4({ ...QUOTED, protocol: 17, offset: 1480, payload: udp(QUOTED) })],
  ['another protocol', ipv4({ ...QUOTED, protocol: 132, payload: udp(QUOTED) })],
  [
    'four bytes behind options',
    ipv4({ ...QUOTED, protocol: 17, options: new Uint8Array(4).fill(1), payload: udp(QUOTED).subarray(0, 4) }),
  ],
  ['a port that is not ours', ipv4({ ...QUOTED, protocol: 17, payload: udp({ ...QUOTED, sourcePort: 5001 }) })],
] as [string, Uint8Array][]) {
  test(`an ICMP error is ignored that quotes ${title}`, (t) => {
    const card = settledCard()
    bind(card)
    receive(card, icmpFrame({ ...TO_CARD, type: 3, code: 3, payload: quoted }))
    t.deepEqual(events(card), [])
  })
}

// ── processes ──

test('a process has no say over the endpoints of another', (t) => {
  const card = settledCard({ sets: [0, 1] })
  const socket = bind(card)
  expectFrames(t, send(card, socket, bytes('x'), { set: 1 }), [])
  card.command(4 + CONTROL, command({ op: OP_UDP_CLOSE, socket }))
  card.run()
  expectFrames(t, send(card, socket, bytes('x')), [{ udp: { sourcePort: 5000 } }])
})

test('handles that never were do nothing', (t) => {
  const card = settledCard()
  for (const socket of [0x80000000, 0x80000001, 0x800007ff, 0xffffffff]) {
    card.command(CONTROL, command({ op: OP_UDP_CLOSE, socket }))
    expectFrames(t, send(card, socket, bytes('x')), [])
  }
  t.deepEqual(card.records(), [])
})

test('chunks of commands come back', (t) => {
  const card = settledCard()
  const free = card.state('chunkFreeCount')
  const socket = bind(card)
  for (const length of [0, 10, 5000, 65507, 65508]) send(card, socket, bytes(length))
  card.command(CONTROL, command({ op: OP_UDP_CLOSE, socket }))
  card.run()
  t.is(card.state('chunkFreeCount'), free)
})

test('the end of a process frees its ports', (t) => {
  const card = settledCard({ sets: [0, 1] })
  bind(card, { set: 1 })
  card.disableSet(1)
  card.run()
  t.is(tryBind(card).status, STATUS_OK)
  expectFrames(t, receive(card, datagram(bytes(1))), [])
  t.is(received(card).length, 1)
})
