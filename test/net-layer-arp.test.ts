import test from 'ava'
import { OP_UDP_BIND, OP_UDP_SEND } from '../abi/messages.ts'
import { BareCard, type Captured, command } from './support/bare-card.ts'
import {
  ANNOUNCED_MS,
  CARD,
  CARD_B,
  GATEWAY,
  greet,
  PEER,
  PEER_B,
  type Station,
  settledCard,
  TO_CARD,
} from './support/lan.ts'
import {
  type ArpFields,
  arp,
  arpFrame,
  BROADCAST_MAC,
  bytes,
  ethernet,
  expectFrames,
  icmpFrame,
  ipNumber,
  ipText,
  type LinkFields,
  type PacketPattern,
  parse,
} from './support/packets.ts'

const ECHO = icmpFrame({ ...TO_CARD, type: 8, rest: 0x10001, payload: bytes('ping') })

function announcement(station: Station): PacketPattern {
  return {
    port: station.port,
    destinationMac: BROADCAST_MAC,
    sourceMac: station.mac,
    arp: {
      operation: 'request',
      senderMac: station.mac,
      sender: station.ip,
      targetMac: '00:00:00:00:00:00',
      target: station.ip,
    },
  }
}

function query(card: Station, target: string, targetMac?: string): PacketPattern {
  return {
    port: card.port,
    destinationMac: targetMac ?? BROADCAST_MAC,
    sourceMac: card.mac,
    arp: { operation: 'request', senderMac: card.mac, sender: card.ip, target },
  }
}

function answer(to: Station, card: Station): PacketPattern {
  return {
    port: card.port,
    destinationMac: to.mac,
    sourceMac: card.mac,
    arp: { operation: 'reply', senderMac: card.mac, sender: card.ip, targetMac: to.mac, target: to.ip },
  }
}

/** The card has announced itself and knows nobody. */
function newCard(): BareCard {
  const card = new BareCard()
  card.advance(ANNOUNCED_MS)
  return card
}

function receiveArp(card: BareCard, fields: ArpFields & Partial<LinkFields>, port = 0): Captured[] {
  card.receive(port, arpFrame(fields))
  return card.run()
}

/** Lets the card send a datagram to `ip`, from a socket bound on queue set 0. */
function sendTo(card: BareCard, handle: number, ip: string, payload = bytes('x')): Captured[] {
  card.command(1, command({ op: OP_UDP_SEND, socket: handle, a: ipNumber(ip), b: 9, payload }))
  return card.run()
}

function bind(card: BareCard): number {
  card.command(0, command({ op: OP_UDP_BIND, socket: 1, b: 5000 }))
  card.run()
  const record = card.records()[0]
  if (record?.kind !== 'event' || record.status !== 0) throw new Error('bind failed')
  return record.socket
}

// ── announcements ──

test('every interface with an address announces it twice, two seconds apart', (t) => {
  const card = new BareCard()
  const frames = card.advance(10000)
  expectFrames(t, frames, [announcement(CARD), announcement(CARD_B), announcement(CARD), announcement(CARD_B)])
  t.deepEqual(
    frames.map(({ timeNs }) => timeNs / 1e6),
    [0, 0, 2000, 2000],
  )
})

test('a port without a link announces itself when the link comes up, and again after a cut', (t) => {
  const card = new BareCard({
    interfaces: [
      { address: CARD.ip, mac: CARD.mac, link: false },
      { hub: true, mac: '02:00:00:00:00:02' },
    ],
  })
  expectFrames(t, card.advance(5000), [])
  card.setLink(0, true)
  expectFrames(t, card.advance(1000), [announcement(CARD)])
  card.setLink(0, false)
  expectFrames(t, card.advance(5000), [])
  card.setLink(0, true)
  expectFrames(t, card.advance(5000), [announcement(CARD), announcement(CARD)])
})

test('announcements come at their time whatever the clock says at power-on', (t) => {
  for (const startMs of [0x7fffff00, 0xfffffc18, 0xffffffff]) {
    const card = new BareCard({ startMs })
    const times = card.advance(5000).map(({ timeNs }) => timeNs / 1e6 - startMs)
    t.deepEqual(times, [0, 0, 2000, 2000], `${startMs}`)
  }
})

// ── requests from others ──

test('a request for our address is answered by unicast', (t) => {
  expectFrames(t, greet(newCard(), PEER, CARD), [answer(PEER, CARD)])
})

test('the answer on port 1 has the address of port 1', (t) => {
  expectFrames(t, greet(newCard(), PEER_B, CARD_B), [answer(PEER_B, CARD_B)])
})

test('a probe (sender 0.0.0.0) is answered and teaches nothing', (t) => {
  const card = newCard()
  const frames = receiveArp(card, { operation: 'request', senderMac: PEER.mac, sender: '0.0.0.0', target: CARD.ip })
  expectFrames(t, frames, [
    { destinationMac: PEER.mac, arp: { operation: 'reply', sender: CARD.ip, target: '0.0.0.0' } },
  ])
  t.is(card.state('arpUsed'), 0)
})

test('who asks for us is known without being asked back', (t) => {
  const card = newCard()
  greet(card, PEER, CARD)
  card.receive(0, ECHO)
  expectFrames(t, card.run(), [{ destinationMac: PEER.mac, icmp: { type: 0 } }])
})

const BROKEN: [string, Uint8Array][] = [
  ['27 bytes', arp({ operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: CARD.ip }).subarray(0, 27)],
  ['hardware type 6', withByte(1, 6)],
  ['protocol 0x86dd', withByte(2, 0x86)],
  ['hardware length 8', withByte(4, 8)],
  ['protocol length 16', withByte(5, 16)],
  ['operation 0', withByte(7, 0)],
  ['operation 3', withByte(7, 3)],
  ['a sender MAC that is a group', withByte(8, 1)],
  ['a sender of 127.0.0.1', withSender('127.0.0.1')],
  ['a sender of 224.0.0.1', withSender('224.0.0.1')],
  ['a sender that is the broadcast address', withSender('192.0.2.255')],
]

function withByte(at: number, value: number): Uint8Array {
  const packet = arp({ operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: CARD.ip })
  packet[at] = value
  return packet
}

function withSender(sender: string): Uint8Array {
  return arp({ operation: 'request', senderMac: PEER.mac, sender, target: CARD.ip })
}

for (const [title, payload] of BROKEN) {
  test(`dropped: an ARP request with ${title}`, (t) => {
    const card = newCard()
    const dropped = card.counter('framesDropped')
    card.receive(0, ethernet({ destinationMac: BROADCAST_MAC, sourceMac: PEER.mac, type: 0x0806, payload }))
    expectFrames(t, card.run(), [])
    t.is(card.counter('framesDropped'), dropped + 1)
    t.is(card.state('arpUsed'), 0)
  })
}

for (const [title, fields, port] of [
  [
    'a request for another host',
    { operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: '192.0.2.77' },
    0,
  ],
  [
    'a reply that nobody asked for',
    { operation: 'reply', senderMac: PEER.mac, sender: PEER.ip, targetMac: CARD.mac, target: CARD.ip },
    0,
  ],
  ['an announcement of a stranger', { operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: PEER.ip }, 0],
  [
    'a request for the address of the other port',
    { operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: CARD_B.ip },
    0,
  ],
  ['a request on the hub', { operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: CARD.ip }, 2],
] as [string, ArpFields, number][]) {
  test(`no answer and nothing learned: ${title}`, (t) => {
    const card = newCard()
    expectFrames(t, receiveArp(card, fields, port), [])
    t.is(card.state('arpUsed'), 0)
  })
}

test('a request from outside the subnet is answered, but the sender is not learned', (t) => {
  const card = newCard()
  const stranger = { operation: 'request', senderMac: PEER.mac, sender: '203.0.113.5', target: CARD.ip } as const
  expectFrames(t, receiveArp(card, stranger), [{ destinationMac: PEER.mac, arp: { operation: 'reply' } }])
  t.is(card.state('arpUsed'), 0)
})

// ── requests of our own ──

test('an unknown neighbour is asked for three times at once, twice a second later each, then given up', (t) => {
  const card = newCard()
  const handle = bind(card)
  const start = card.nowMs
  const frames = [...sendTo(card, handle, PEER.ip), ...card.advance(20000)]
  expectFrames(t, frames, Array(5).fill(query(CARD, PEER.ip)))
  t.deepEqual(
    frames.map(({ timeNs }) => Math.round(timeNs / 1e6 - start)),
    [0, 2, 4, 1004, 2004],
  )
  const [event] = card.records()
  t.like(event, {
    kind: 'event',
    type: 9,
    status: 113,
    socket: handle,
    remoteAddress: ipNumber(PEER.ip),
    remotePort: 9,
  })
})

test('a neighbour that was given up is asked for again, at most once a second', (t) => {
  const card = newCard()
  const handle = bind(card)
  sendTo(card, handle, PEER.ip)
  card.advance(3002)
  t.is(card.state('arpIncomplete'), 1)
  card.advance(3)
  t.is(card.state('arpIncomplete'), 0)
  expectFrames(t, sendTo(card, handle, PEER.ip), [query(CARD, PEER.ip)])
})

test('what waits goes out in its order when the answer comes', (t) => {
  const card = newCard()
  const handle = bind(card)
  const payloads = ['one', 'two', 'three'].map((text) => bytes(text))
  for (const payload of payloads) sendTo(card, handle, PEER.ip, payload)
  const frames = receiveArp(card, {
    operation: 'reply',
    senderMac: PEER.mac,
    sender: PEER.ip,
    targetMac: CARD.mac,
    target: CARD.ip,
  })
  expectFrames(
    t,
    frames,
    payloads.map((payload) => ({ destinationMac: PEER.mac, ipv4: { destination: PEER.ip }, udp: { payload } })),
  )
  expectFrames(t, card.advance(5000), [])
})

test('a request from the neighbour is as good as its answer', (t) => {
  const card = newCard()
  const handle = bind(card)
  sendTo(card, handle, PEER.ip)
  expectFrames(t, greet(card, PEER, CARD), [{ udp: { destinationPort: 9 } }, answer(PEER, CARD)])
})

test('few datagrams wait for one neighbour, and all chunks come back', (t) => {
  const card = newCard()
  const handle = bind(card)
  const free = card.state('chunkFreeCount')
  for (let i = 0; i < 30; i++) sendTo(card, handle, PEER.ip, Uint8Array.of(i))
  t.is(card.state('chunkFreeCount'), free - 8)
  const frames = receiveArp(card, {
    operation: 'reply',
    senderMac: PEER.mac,
    sender: PEER.ip,
    targetMac: CARD.mac,
    target: CARD.ip,
  })
  t.deepEqual(
    frames.map(({ frame }) => parse(frame).udp?.payload[0]),
    [0, 1, 2, 3, 4, 5, 6, 7],
  )
  t.is(card.state('chunkFreeCount'), free)
  t.is(card.state('arpQueued'), 0)
})

test('a destination behind the gateway asks for the gateway', (t) => {
  const card = newCard()
  const handle = bind(card)
  expectFrames(t, sendTo(card, handle, '203.0.113.9'), [query(CARD, GATEWAY.ip)])
})

// ── ageing ──

test('an old entry is still used while its owner is asked by unicast', (t) => {
  const card = newCard()
  greet(card, PEER, CARD)
  const echo = { destinationMac: PEER.mac, icmp: { type: 0 } }
  card.advance(59000)
  card.receive(0, ECHO)
  expectFrames(t, card.run(), [echo])
  card.advance(1500)
  card.receive(0, ECHO)
  expectFrames(t, card.run(), [query(CARD, PEER.ip, PEER.mac), echo])
  receiveArp(card, { operation: 'reply', senderMac: PEER.mac, sender: PEER.ip, targetMac: CARD.mac, target: CARD.ip })
  expectFrames(t, card.advance(10000), [])
  card.receive(0, ECHO)
  expectFrames(t, card.run(), [echo])
})

test('an old entry whose owner is silent is asked for by broadcast while it is in use', (t) => {
  const card = newCard()
  greet(card, PEER, CARD)
  card.advance(61000)
  const frames: Captured[] = []
  for (let i = 0; i < 4; i++) {
    card.receive(0, ECHO)
    frames.push(...card.advance(999))
  }
  const echo: PacketPattern = { destinationMac: PEER.mac, icmp: { type: 0 } }
  const probe = query(CARD, PEER.ip, PEER.mac)
  expectFrames(t, frames, [probe, echo, echo, probe, echo, probe, echo, ...Array(3).fill(query(CARD, PEER.ip))])
  const after = card.advance(10000)
  t.true(after.every(({ frame }) => parse(frame).destinationMac === BROADCAST_MAC))
})

test('an entry that nobody uses goes after ten minutes', (t) => {
  const card = newCard()
  greet(card, PEER, CARD)
  t.is(card.state('arpUsed'), 1)
  card.advance(1300000)
  t.is(card.state('arpUsed'), 0)
  t.is(card.wakeNs, Number.POSITIVE_INFINITY)
})

test('a known neighbour that announces a new MAC address is followed', (t) => {
  const card = newCard()
  greet(card, PEER, CARD)
  const senderMac = '02:00:00:00:cc:0a'
  expectFrames(t, receiveArp(card, { operation: 'request', senderMac, sender: PEER.ip, target: PEER.ip }), [])
  card.receive(0, ECHO)
  expectFrames(t, card.run(), [{ destinationMac: senderMac, icmp: { type: 0 } }])
})

// ── conflicts ──

for (const [title, fields] of [
  ['an announcement', { operation: 'request', target: CARD.ip }],
  ['a request for somebody else', { operation: 'request', target: '192.0.2.77' }],
  ['a reply', { operation: 'reply', targetMac: CARD.mac, target: CARD.ip }],
] as [string, Pick<ArpFields, 'operation' | 'target'>][]) {
  test(`our address from another MAC in ${title}: defended once in ten seconds`, (t) => {
    const card = newCard()
    const claim = { ...fields, senderMac: '02:00:00:00:ee:ee', sender: CARD.ip } as ArpFields
    expectFrames(t, receiveArp(card, claim), [announcement(CARD)])
    expectFrames(t, receiveArp(card, claim), [])
    card.advance(9990)
    expectFrames(t, receiveArp(card, claim), [])
    card.advance(20)
    expectFrames(t, receiveArp(card, claim), [announcement(CARD)])
    t.is(card.counter('arpConflicts'), 4)
    t.is(card.state('arpUsed'), 0)
  })
}

test('our own frames coming back are no conflict', (t) => {
  const card = newCard()
  expectFrames(t, receiveArp(card, { operation: 'request', senderMac: CARD.mac, sender: CARD.ip, target: CARD.ip }), [])
  t.is(card.counter('arpConflicts'), 0)
})

// ── bounds ──

test('a table full of strangers keeps the neighbour that is in use', (t) => {
  const card = new BareCard({ interfaces: [{ address: '10.0.0.1', prefix: 8, mac: CARD.mac }] })
  card.advance(ANNOUNCED_MS)
  const peer = { port: 0, mac: PEER.mac, ip: '10.0.0.2' }
  const ping = icmpFrame({
    destinationMac: CARD.mac,
    sourceMac: PEER.mac,
    source: peer.ip,
    destination: '10.0.0.1',
    type: 8,
  })
  greet(card, peer, { port: 0, mac: CARD.mac, ip: '10.0.0.1' })
  card.receive(0, ping)
  card.run()
  for (let i = 0; i < 2000; i++) {
    const sender = ipText(ipNumber('10.1.0.0') + i)
    receiveArp(card, { operation: 'request', senderMac: '02:00:00:00:dd:01', sender, target: '10.0.0.1' })
  }
  t.is(card.state('arpUsed'), 256)
  card.receive(0, ping)
  expectFrames(t, card.run(), [{ destinationMac: PEER.mac, icmp: { type: 0 } }])
})

test('a sweep of silent addresses is bounded and leaves the neighbour in use alone', (t) => {
  const card = new BareCard({ interfaces: [{ address: '10.0.0.1', prefix: 8, mac: CARD.mac }] })
  card.advance(ANNOUNCED_MS)
  const us = { port: 0, mac: CARD.mac, ip: '10.0.0.1' }
  const peer = { port: 0, mac: PEER.mac, ip: '10.0.0.2' }
  const link = { destinationMac: CARD.mac, sourceMac: PEER.mac, destination: us.ip }
  greet(card, peer, us)
  card.receive(0, icmpFrame({ ...link, source: peer.ip, type: 8 }))
  card.run()
  const free = card.state('chunkFreeCount')
  for (let i = 0; i < 2000; i++) {
    card.receive(0, icmpFrame({ ...link, source: ipText(ipNumber('10.1.0.0') + i), type: 8 }))
    if (i % 50 === 49) card.run()
  }
  t.is(card.state('arpUsed'), 256)
  t.true(free - card.state('chunkFreeCount') <= 256)
  card.receive(0, icmpFrame({ ...link, source: peer.ip, type: 8 }))
  t.true(card.run().some(({ frame }) => parse(frame).ipv4?.destination === peer.ip))
  card.advance(10000)
  t.is(card.state('chunkFreeCount'), free)
  t.is(card.state('arpIncomplete'), 0)
})

test('the cache serves many neighbours at once', (t) => {
  const card = settledCard()
  for (let i = 20; i < 220; i++)
    greet(card, { port: 0, mac: `02:00:00:00:00:${i.toString(16)}`, ip: `192.0.2.${i}` }, CARD)
  for (let i = 20; i < 220; i++) {
    card.receive(0, icmpFrame({ ...TO_CARD, source: `192.0.2.${i}`, type: 8 }))
    expectFrames(t, card.run(), [{ destinationMac: `02:00:00:00:00:${i.toString(16)}`, icmp: { type: 0 } }])
  }
})
