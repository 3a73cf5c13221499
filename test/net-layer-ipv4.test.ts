import test from 'ava'
import fc from 'fast-check'
import { OP_UDP_BIND, OP_UDP_SEND } from '../abi/messages.ts'
import { BareCard, command } from './support/bare-card.ts'
import {
  ANNOUNCED_MS,
  between,
  CARD,
  CARD_B,
  GATEWAY,
  GATEWAY_B,
  PEER,
  PEER_B,
  settledCard,
  TO_CARD,
} from './support/lan.ts'
import {
  BROADCAST_MAC,
  bytes,
  concat,
  ethernet,
  expectFrames,
  type Ipv4Fields,
  icmp,
  icmpFrame,
  ipNumber,
  ipv4,
  ipv4Frame,
  type LinkFields,
  type PacketPattern,
  parse,
  quotedPacket,
  udp,
  udpFrame,
} from './support/packets.ts'

const ECHO = { type: 8, rest: 0x12340001, payload: bytes(56) }
const REPLY: PacketPattern = {
  port: 0,
  destinationMac: PEER.mac,
  sourceMac: CARD.mac,
  ipv4: { source: CARD.ip, destination: PEER.ip, ttl: 64, dontFragment: false, options: new Uint8Array(0) },
  icmp: { type: 0, code: 0, rest: ECHO.rest, payload: ECHO.payload },
}

// ── what is taken ──

for (const [title, fields] of [
  ['a plain echo request', {}],
  ['padding behind the packet', { payload: bytes(1) }],
  ['no data', { payload: bytes(0) }],
  ['all zeros', { rest: 0, payload: new Uint8Array(32) }],
  ['as much as a frame holds', { payload: bytes(1472) }],
  ['options: router alert', { options: Uint8Array.of(0x94, 4, 0, 0) }],
  ['options: 40 bytes of record route', { options: concat(Uint8Array.of(7, 39, 4), new Uint8Array(37)) }],
  ['options that make no sense', { options: Uint8Array.of(7, 0, 255, 255) }],
  ['TTL 1', { ttl: 1 }],
  ['TTL 0', { ttl: 0 }],
  ["don't fragment", { dontFragment: true }],
  ['a TOS byte', { tos: 0xb8 }],
] as [string, object][]) {
  test(`echo is answered: ${title}`, (t) => {
    const card = settledCard()
    const request = { ...ECHO, ...fields }
    card.receive(0, icmpFrame({ ...TO_CARD, ...request }))
    const { rest, payload } = request
    expectFrames(t, card.run(), [{ ...REPLY, icmp: { type: 0, code: 0, rest, payload } }])
  })
}

test('echo of every length comes back as it was', (t) => {
  const card = settledCard()
  for (let length = 0; length <= 1472; length += length < 80 ? 1 : 29) {
    const payload = bytes(length)
    card.receive(0, icmpFrame({ ...TO_CARD, ...ECHO, payload }))
    expectFrames(t, card.run(), [{ ...REPLY, icmp: { type: 0, rest: ECHO.rest, payload } }])
  }
})

test('property: an echo reply has the bytes of the request', (t) => {
  const card = settledCard()
  const property = fc.property(fc.nat(0xffffffff), fc.uint8Array({ maxLength: 1472 }), (rest, payload) => {
    card.receive(0, icmpFrame({ ...TO_CARD, type: 8, rest, payload }))
    const packet = parse(card.run()[0]!.frame)
    return (
      packet.problems.length === 0 &&
      packet.icmp?.type === 0 &&
      packet.icmp.rest === rest >>> 0 &&
      Buffer.compare(packet.icmp.payload, payload) === 0
    )
  })
  t.notThrows(() => fc.assert(property, { numRuns: 300 }))
})

test('echo on port 1 is answered on port 1', (t) => {
  const card = settledCard()
  card.receive(1, icmpFrame({ ...between(PEER_B, CARD_B), ...ECHO }))
  expectFrames(t, card.run(), [{ port: 1, destinationMac: PEER_B.mac, ipv4: { source: CARD_B.ip }, icmp: { type: 0 } }])
})

test('echo from afar is answered through the gateway of the port', (t) => {
  const card = settledCard()
  card.receive(0, icmpFrame({ ...between(GATEWAY, CARD), source: '203.0.113.7', ...ECHO }))
  card.receive(1, icmpFrame({ ...between(GATEWAY_B, CARD_B), source: '203.0.113.7', ...ECHO }))
  expectFrames(t, card.run(), [
    { port: 0, destinationMac: GATEWAY.mac, ipv4: { source: CARD.ip, destination: '203.0.113.7' } },
    { port: 1, destinationMac: GATEWAY_B.mac, ipv4: { source: CARD_B.ip, destination: '203.0.113.7' } },
  ])
})

test('identifications do not repeat for a destination and tell nothing across destinations', (t) => {
  const card = settledCard()
  const ids = (source: string, mac: string) => {
    const seen: number[] = []
    for (let i = 0; i < 200; i++) {
      card.receive(0, icmpFrame({ ...TO_CARD, sourceMac: mac, source, ...ECHO }))
      seen.push(...card.run().map(({ frame }) => parse(frame).ipv4!.identification))
    }
    return seen
  }
  const here = ids(PEER.ip, PEER.mac)
  const there = ids(GATEWAY.ip, GATEWAY.mac)
  t.is(new Set(here).size, 200)
  t.is(new Set(there).size, 200)
  t.not(here[0], there[0])
  t.not((here[199]! + 1) & 0xffff, there[0])
})

// ── what is dropped without a word ──

const UDP_TO_NOBODY = { sourcePort: 7, destinationPort: 9 }

function packetTo(fields: Partial<Ipv4Fields & LinkFields>): Uint8Array {
  const addresses = { ...TO_CARD, ...fields }
  return ipv4Frame({ protocol: 17, payload: udp({ ...UDP_TO_NOBODY, ...addresses }), ...addresses })
}

for (const [title, frame] of [
  ['version 6', packetTo({ version: 6 })],
  ['IHL 4', packetTo({ headerWords: 4 })],
  ['IHL beyond the packet', packetTo({ headerWords: 15 })],
  ['total length beyond the frame', packetTo({ totalLength: 1000 })],
  ['total length of 10', packetTo({ totalLength: 10 })],
  ['a bad checksum', packetTo({ checksum: 0xdead })],
  ['a frame that ends in the header', packetTo({}).subarray(0, 33)],
  ['a bare Ethernet header', packetTo({}).subarray(0, 14)],
  ['13 bytes', packetTo({}).subarray(0, 13)],
  ['another host', packetTo({ destination: '192.0.2.99' })],
  ["the other port's address", packetTo({ destination: CARD_B.ip })],
  ['127.0.0.1 from outside', packetTo({ destination: '127.0.0.1' })],
  ['a multicast group', packetTo({ destination: '224.0.0.251', destinationMac: '01:00:5e:00:00:fb' })],
  ['class E', packetTo({ destination: '250.0.0.1' })],
  ['0.0.0.0', packetTo({ destination: '0.0.0.0' })],
  [
    'the subnet broadcast address, nobody listening',
    packetTo({ destination: '192.0.2.255', destinationMac: BROADCAST_MAC }),
  ],
  ['255.255.255.255, nobody listening', packetTo({ destination: '255.255.255.255', destinationMac: BROADCAST_MAC })],
  ['our address in a broadcast frame', packetTo({ destinationMac: BROADCAST_MAC })],
  ['our address in a multicast frame', packetTo({ destinationMac: '01:00:5e:00:00:01' })],
  ['a frame for another MAC address', packetTo({ destinationMac: '02:00:00:00:00:99' })],
  ['source 0.0.0.0', packetTo({ source: '0.0.0.0' })],
  ['source 127.0.0.1', packetTo({ source: '127.0.0.1' })],
  ['a multicast source', packetTo({ source: '239.1.1.1' })],
  ['source 255.255.255.255', packetTo({ source: '255.255.255.255' })],
  ['the subnet broadcast address as source', packetTo({ source: '192.0.2.255' })],
  ['our own address as source', packetTo({ source: CARD.ip })],
  ["our other port's address as source", packetTo({ source: CARD_B.ip })],
  ['EtherType 0x86dd', ethernet({ ...TO_CARD, type: 0x86dd, payload: bytes(60) })],
  ['an 802.3 length', ethernet({ ...TO_CARD, type: 60, payload: bytes(60) })],
  ['the ipOS EtherType on a LAN', ethernet({ ...TO_CARD, type: 7, payload: bytes(60) })],
] as [string, Uint8Array][]) {
  test(`dropped in silence: ${title}`, (t) => {
    const card = settledCard()
    const before = card.counter('framesDropped')
    card.receive(0, frame)
    expectFrames(t, card.run(), [])
    t.is(card.counter('framesDropped'), before + 1)
  })
}

test('IPv4 on the hub is dropped', (t) => {
  const card = settledCard()
  card.receive(2, packetTo({ destinationMac: '02:00:00:00:00:03' }))
  expectFrames(t, card.run(), [])
})

test('a port without an address takes no packets', (t) => {
  const card = new BareCard({ interfaces: [{ mac: CARD.mac }] })
  for (const destination of ['255.255.255.255', '0.0.0.0', CARD.ip]) card.receive(0, packetTo({ destination }))
  expectFrames(t, card.advance(5000), [])
})

for (const [title, message] of [
  ['7 bytes', icmp(ECHO).subarray(0, 7)],
  ['a bad checksum', icmp({ ...ECHO, icmpChecksum: 1 })],
  ['an echo reply', icmp({ type: 0 })],
  ['a redirect', icmp({ type: 5, payload: bytes(40) })],
  ['source quench', icmp({ type: 4, payload: bytes(40) })],
  ['a timestamp request', icmp({ type: 13, payload: bytes(12) })],
  ['an unknown type', icmp({ type: 200 })],
  ['an unreachable without a quote', icmp({ type: 3, code: 3 })],
  [
    'an unreachable with a short quote',
    icmp({ type: 3, code: 3, payload: ipv4({ ...TO_CARD, protocol: 17, payload: bytes(7) }) }),
  ],
  [
    'an unreachable that quotes IPv6',
    icmp({ type: 3, code: 3, payload: ipv4({ ...TO_CARD, version: 6, protocol: 17, payload: bytes(8) }) }),
  ],
  [
    'an unreachable that quotes a strange IHL',
    icmp({ type: 3, code: 3, payload: ipv4({ ...TO_CARD, headerWords: 15, protocol: 17, payload: bytes(8) }) }),
  ],
] as [string, Uint8Array][]) {
  test(`no answer to ICMP: ${title}`, (t) => {
    const card = settledCard()
    card.receive(0, ipv4Frame({ ...TO_CARD, protocol: 1, payload: message }))
    expectFrames(t, card.run(), [])
  })
}

test('echo to a broadcast address is not answered', (t) => {
  const card = settledCard()
  for (const destination of ['192.0.2.255', '255.255.255.255']) {
    card.receive(0, icmpFrame({ ...TO_CARD, destinationMac: BROADCAST_MAC, destination, ...ECHO }))
  }
  expectFrames(t, card.run(), [])
})

// ── errors that the card sends ──

test('an unknown protocol: protocol unreachable, with the packet quoted', (t) => {
  const card = settledCard()
  const packet = ipv4({ ...TO_CARD, protocol: 132, payload: bytes(40) })
  card.receive(0, ethernet({ ...TO_CARD, type: 0x0800, payload: packet }))
  expectFrames(t, card.run(), [
    {
      destinationMac: PEER.mac,
      ipv4: { source: CARD.ip, destination: PEER.ip },
      icmp: { type: 3, code: 2, rest: 0, payload: packet },
    },
  ])
})

test('a closed UDP port: port unreachable', (t) => {
  const card = settledCard()
  card.receive(0, udpFrame({ ...TO_CARD, ...UDP_TO_NOBODY, payload: bytes(100) }))
  const [packet] = expectFrames(t, card.run(), [{ ipv4: { destination: PEER.ip }, icmp: { type: 3, code: 3 } }])
  t.deepEqual(quotedPacket(packet!).ports, [7, 9])
  t.is(quotedPacket(packet!).ipv4?.destination, CARD.ip)
})

test('an error quotes what fits in 576 bytes', (t) => {
  const card = settledCard()
  card.receive(0, udpFrame({ ...TO_CARD, ...UDP_TO_NOBODY, payload: bytes(1400) }))
  const [packet] = expectFrames(t, card.run(), [{ icmp: { type: 3, code: 3 } }])
  t.is(packet?.ipv4?.totalLength, 576)
})

test('no error about an ICMP error, but about an echo in an unknown protocol number', (t) => {
  const card = settledCard()
  const bad = udpFrame({ ...TO_CARD, ...UDP_TO_NOBODY })
  card.receive(0, icmpFrame({ ...TO_CARD, type: 3, code: 3, payload: bad.subarray(14) }))
  expectFrames(t, card.run(), [])
})

test('errors are limited to 100 a second', (t) => {
  const card = settledCard()
  const flood = () => {
    for (let i = 0; i < 200; i++) card.receive(0, udpFrame({ ...TO_CARD, ...UDP_TO_NOBODY }))
    return card.run().length
  }
  t.is(flood(), 100)
  t.is(flood(), 0)
  card.advance(1001)
  t.is(flood(), 100)
  t.is(card.counter('icmpSuppressed'), 400)
})

test('echo replies are not held back by the limit on errors', (t) => {
  const card = settledCard()
  for (let i = 0; i < 200; i++) card.receive(0, udpFrame({ ...TO_CARD, ...UDP_TO_NOBODY }))
  card.run()
  card.receive(0, icmpFrame({ ...TO_CARD, ...ECHO }))
  expectFrames(t, card.run(), [REPLY])
})

// ── routes, as a socket sees them ──

function bind(card: BareCard, address = '0.0.0.0', port = 5000): number {
  card.command(0, command({ op: OP_UDP_BIND, socket: port, a: ipNumber(address), b: port }))
  card.run()
  const event = card.records().at(-1)
  if (event?.kind !== 'event' || event.status !== 0) throw new Error(`bind: ${JSON.stringify(event)}`)
  return event.socket
}

for (const [title, bound, destination, port, source, nextHop] of [
  ['a neighbour on port 0', '0.0.0.0', PEER.ip, 0, CARD.ip, PEER.mac],
  ['a neighbour on port 1', '0.0.0.0', PEER_B.ip, 1, CARD_B.ip, PEER_B.mac],
  ['afar, through the first gateway', '0.0.0.0', '203.0.113.1', 0, CARD.ip, GATEWAY.mac],
  ['afar from the address of port 1', CARD_B.ip, '203.0.113.1', 1, CARD_B.ip, GATEWAY_B.mac],
  ["port 0's subnet from the address of port 1", CARD_B.ip, PEER.ip, 1, CARD_B.ip, GATEWAY_B.mac],
] as [string, string, string, number, string, string][]) {
  test(`route: ${title}`, (t) => {
    const card = settledCard()
    const socket = bind(card, bound)
    card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber(destination), b: 9, payload: bytes('x') }))
    expectFrames(t, card.run(), [
      { port, destinationMac: nextHop, ipv4: { source, destination }, udp: { destinationPort: 9 } },
    ])
  })
}

for (const [title, interfaces, bound, destination] of [
  ['no gateway', [{ address: CARD.ip, mac: CARD.mac }], '0.0.0.0', '203.0.113.1'],
  ['127.0.0.1 to outside', undefined, '127.0.0.1', PEER.ip],
  ['a multicast group', undefined, '0.0.0.0', '224.0.0.1'],
  ['class E', undefined, '0.0.0.0', '240.0.0.1'],
  ['0.1.2.3', undefined, '0.0.0.0', '0.1.2.3'],
] as [string, undefined, string, string][]) {
  test(`no route (ENETUNREACH): ${title}`, (t) => {
    const card = new BareCard({ ...(interfaces ? { interfaces } : {}) })
    card.advance(ANNOUNCED_MS)
    const socket = bind(card, bound)
    card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber(destination), b: 9, payload: bytes('x') }))
    expectFrames(t, card.run(), [])
    t.like(card.records()[0], { kind: 'event', type: 9, status: 101, socket })
  })
}

test('a full transmit ring takes whole datagrams or none of them', (t) => {
  const card = settledCard()
  const socket = bind(card)
  for (let i = 0; i < 8; i++) {
    card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber(PEER.ip), b: 9, payload: bytes(65507) }))
  }
  const sent = card.poll().map(({ frame }) => parse(frame).ipv4!)
  t.is(sent.length % 45, 0)
  t.true(sent.length > 0 && sent.length <= 256)
  for (const [i, packet] of sent.entries()) t.is(packet.offset, (i % 45) * 1480)
})

test('the longest prefix wins, and a dead link loses', (t) => {
  const card = new BareCard({
    interfaces: [
      { address: '10.0.0.1', prefix: 8, mac: CARD.mac },
      { address: '10.1.0.1', prefix: 16, mac: CARD_B.mac },
    ],
  })
  card.advance(ANNOUNCED_MS)
  const socket = bind(card)
  const port = () => {
    card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber('10.1.2.3'), b: 9, payload: bytes('x') }))
    const sent = card.run().filter(({ frame }) => parse(frame).arp?.target === '10.1.2.3')
    card.advance(4000)
    return sent.map((frame) => frame.port)
  }
  t.deepEqual(port(), [1])
  card.setLink(1, false)
  t.deepEqual(port(), [0])
})

test('prefix 31 has no broadcast address: both addresses are hosts', (t) => {
  const card = new BareCard({ interfaces: [{ address: '192.0.2.0', prefix: 31, mac: CARD.mac }] })
  card.advance(ANNOUNCED_MS)
  const socket = bind(card)
  card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber('192.0.2.1'), b: 9, payload: bytes('x') }))
  expectFrames(t, card.run(), [{ arp: { operation: 'request', target: '192.0.2.1' } }])
})

for (const [title, settings] of [
  ['a multicast address', { address: '224.0.0.1' }],
  ['0.0.0.0', { address: '0.0.0.0' }],
  ['127.0.0.1', { address: '127.0.0.1' }],
  ['a prefix of 33', { address: '192.0.2.1', prefix: 33 }],
]) {
  test(`a setting that cannot be meant leaves the port silent: ${title}`, (t) => {
    const card = new BareCard({ interfaces: [{ mac: CARD.mac, ...(settings as object) }] })
    expectFrames(t, card.advance(5000), [])
  })
}

test('a card with the least memory and no links boots', (t) => {
  const card = new BareCard({ interfaces: [], memoryBytes: 0x1000000 })
  expectFrames(t, card.advance(5000), [])
})

test('an MTU that is set is kept to', (t) => {
  for (const [mtu, largest] of [
    [68, 68],
    [10, 68],
    [576, 572],
    [1280, 1276],
    [9000, 2012],
  ] as const) {
    const card = settledCard({ interfaces: [{ address: CARD.ip, mac: CARD.mac, mtu }] })
    const socket = bind(card)
    card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber(PEER.ip), b: 9, payload: bytes(2500) }))
    const sizes = card.run().map(({ frame }) => parse(frame).ipv4!.totalLength)
    t.is(Math.max(...sizes), largest, `MTU ${mtu}`)
    t.is(
      sizes.reduce((sum, size) => sum + size - 20, 0),
      2508,
    )
  }
})
