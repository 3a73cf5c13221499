import test from 'ava'
import fc from 'fast-check'
import type { BareCard, Captured } from './support/bare-card.ts'
import { between, CARD, GATEWAY, greet, PEER, settledCard, TO_CARD } from './support/lan.ts'
import {
  bytes,
  concat,
  expectFrames,
  type Ipv4Fields,
  icmp,
  icmpFrame,
  ipv4Frame,
  type Packet,
  parse,
  parseIcmp,
  quotedPacket,
} from './support/packets.ts'

const TIMEOUT_MS = 30000

/** The part of `payload` from `from` to `to`, as a fragment. */
function fragment(payload: Uint8Array, from: number, to: number, extra: Partial<Ipv4Fields> = {}): Uint8Array {
  const piece = payload.subarray(from, to)
  const moreFragments = to < payload.length
  return ipv4Frame({
    ...TO_CARD,
    protocol: 1,
    identification: 77,
    offset: from,
    moreFragments,
    payload: piece,
    ...extra,
  })
}

/** Fragments of `payload` cut at the given places, in order. */
function fragments(payload: Uint8Array, cuts: number[], extra: Partial<Ipv4Fields> = {}): Uint8Array[] {
  const edges = [0, ...cuts, payload.length]
  return edges.slice(1).map((to, i) => fragment(payload, edges[i]!, to, extra))
}

function receiveAll(card: BareCard, frames: Uint8Array[]): Captured[] {
  const sent: Captured[] = []
  for (const [i, frame] of frames.entries()) {
    card.receive(0, frame)
    if (i % 200 === 199) sent.push(...card.run())
  }
  return [...sent, ...card.run()]
}

/** The first echo reply in the frames, put together again by the test; null if there is none or a part is missing. */
function joined(frames: Captured[]): Packet | null {
  const packets = frames.map(({ frame }) => parse(frame)).filter((packet) => packet.ipv4?.protocol === 1)
  if (packets.length === 0) return null
  if (packets.some((packet) => packet.problems.length > 0)) throw new Error(packets.flatMap((p) => p.problems).join())
  const { identification } = packets[0]!.ipv4!
  const sorted = packets
    .filter((packet) => packet.ipv4!.identification === identification)
    .sort((a, b) => a.ipv4!.offset - b.ipv4!.offset)
  let end = 0
  for (const { ipv4 } of sorted) {
    if (ipv4!.offset !== end) return null
    end += ipv4!.payload.length
  }
  if (sorted.at(-1)!.ipv4!.moreFragments) return null
  const whole: Packet = { destinationMac: '', sourceMac: '', type: 0, problems: [] }
  parseIcmp(concat(...sorted.map((packet) => packet.ipv4!.payload)), whole)
  return whole
}

const REQUEST = icmp({ type: 8, rest: 0x70001, payload: bytes(3992) })
const EXPECTED = { type: 0, code: 0, rest: 0x70001, payload: REQUEST.subarray(8) }

// ── in any order ──

for (const [title, order] of [
  ['in order', [0, 1, 2, 3]],
  ['backwards', [3, 2, 1, 0]],
  ['last first', [3, 0, 1, 2]],
  ['first last', [1, 2, 3, 0]],
  ['each twice', [0, 0, 1, 1, 2, 2, 3]],
  ['the last one twice before the rest', [3, 3, 1, 0, 1, 2]],
] as const) {
  test(`a datagram in four fragments, ${title}`, (t) => {
    const card = settledCard()
    const pieces = fragments(REQUEST, [1000, 2000, 3000])
    const reply = joined(
      receiveAll(
        card,
        order.map((i) => pieces[i]!),
      ),
    )
    t.like(reply, { problems: [] })
    t.deepEqual(reply?.icmp, EXPECTED)
    t.is(card.counter('ipv4Reassembled'), 1)
    t.is(card.state('reassemblyUsed'), 0)
  })
}

test('property: any fragmentation in any order, with repetitions, gives the original back', (t) => {
  const card = settledCard()
  const plan = fc.record({
    length: fc.integer({ min: 2, max: 8000 }),
    blocks: fc.uniqueArray(fc.integer({ min: 1, max: 999 }), { minLength: 1, maxLength: 30 }),
    keys: fc.array(fc.nat(), { minLength: 62, maxLength: 62 }),
    repeats: fc.array(fc.nat(30), { maxLength: 10 }),
    options: fc.constantFrom(0, 4, 40),
    identification: fc.nat(0xffff),
  })
  const property = fc.property(plan, ({ length, blocks, keys, repeats, options, identification }) => {
    greet(card, PEER, CARD)
    const payload = icmp({ type: 8, rest: identification, payload: bytes(length) })
    const cuts = blocks
      .map((block) => block * 8)
      .filter((cut) => cut < payload.length)
      .sort((a, b) => a - b)
    // No fragment may be longer than a frame holds.
    for (let at = 1400; at < payload.length; at += 1400) if (!cuts.includes(at)) cuts.push(at)
    cuts.sort((a, b) => a - b)
    const pieces = fragments(payload, cuts, { identification, options: new Uint8Array(options).fill(1) })
    const order = [...pieces.keys(), ...repeats.filter((i) => i < pieces.length)]
      .map((piece, i) => ({ piece, key: keys[i % keys.length]! }))
      .sort((a, b) => a.key - b.key)
      .map(({ piece }) => piece)
    // What comes again after the end is the start of another datagram, which ends with the card's patience.
    const reply = joined(
      receiveAll(
        card,
        order.map((i) => pieces[i]!),
      ),
    )
    card.advance(TIMEOUT_MS + 1)
    return (
      reply !== null &&
      Buffer.compare(reply.icmp!.payload, payload.subarray(8)) === 0 &&
      card.state('reassemblyUsed') === 0
    )
  })
  t.notThrows(() => fc.assert(property, { numRuns: 200 }))
})

test('the largest datagram is put together, and the reply leaves in fragments', (t) => {
  const card = settledCard()
  const payload = icmp({ type: 8, rest: 5, payload: bytes(65507) })
  const cuts = Array.from({ length: 44 }, (_, i) => (i + 1) * 1480)
  const frames = receiveAll(card, fragments(payload, cuts))
  t.is(frames.length, 45)
  t.is(Buffer.compare(joined(frames)!.icmp!.payload, payload.subarray(8)), 0)
})

test('fragments of 8 bytes are put together', (t) => {
  const card = settledCard()
  const payload = icmp({ type: 8, rest: 5, payload: bytes(1000) })
  const cuts = Array.from({ length: 125 }, (_, i) => (i + 1) * 8)
  t.is(Buffer.compare(joined(receiveAll(card, fragments(payload, cuts)))!.icmp!.payload, payload.subarray(8)), 0)
})

test('datagrams that differ in source, identification or protocol are kept apart', (t) => {
  const card = settledCard()
  const first = icmp({ type: 8, rest: 1, payload: bytes(2000) })
  const second = icmp({ type: 8, rest: 2, payload: bytes(2001) })
  const third = icmp({ type: 8, rest: 3, payload: bytes(2002) })
  const other = between(GATEWAY, CARD)
  const [a1, a2] = fragments(first, [1000])
  const [b1, b2] = fragments(second, [1000], { identification: 78 })
  const c = { destination: CARD.ip, source: GATEWAY.ip }
  const [c1, c2] = [
    fragment(third, 0, 1000, { ...other, ...c }),
    fragment(third, 1000, third.length, { ...other, ...c }),
  ]
  const udpPiece = fragment(third, 1000, third.length, { protocol: 17 })
  const broadcastPiece = fragment(third, 1000, third.length, { destination: '192.0.2.255' })
  const sent = receiveAll(card, [a1!, b1!, c1, udpPiece, broadcastPiece, c2, b2!, a2!]).map(({ frame }) => parse(frame))
  const lengths = sent.filter((p) => p.ipv4!.offset === 0).map((p) => p.ipv4!.destination)
  t.deepEqual(lengths, [GATEWAY.ip, PEER.ip, PEER.ip])
  t.is(card.state('reassemblyUsed'), 2)
})

// ── what breaks the rules ──

const DATA = icmp({ type: 8, rest: 9, payload: bytes(2392) })

for (const [title, frames] of [
  [
    'an overlap with other bytes',
    [
      fragment(DATA, 0, 1200),
      fragment(
        Uint8Array.from(DATA, (b) => b ^ 1),
        1192,
        2000,
      ),
      fragment(DATA, 2000, 2400),
    ],
  ],
  [
    'an overlap with the same bytes but another place',
    [fragment(DATA, 0, 1200), fragment(DATA, 1192, 2000), fragment(DATA, 2000, 2400)],
  ],
  [
    'a fragment that covers all others',
    [fragment(DATA, 800, 1200), fragment(DATA, 0, 1400), fragment(DATA, 1400, 2400)],
  ],
  [
    'a repetition with one byte changed',
    [
      fragment(DATA, 0, 800),
      fragment(changed(DATA, 100), 0, 800),
      fragment(DATA, 800, 2400 - 1000),
      fragment(DATA, 1400, 2400),
    ],
  ],
  ['two ends', [fragment(DATA, 1200, 2400), fragment(bytes(2408), 2400, 2408), fragment(DATA, 0, 1200)]],
  [
    'a fragment beyond the end',
    [fragment(DATA, 1200, 2400), fragment(bytes(4000), 2400, 3200), fragment(DATA, 0, 1200)],
  ],
  [
    'an end before what has come',
    [fragment(DATA, 1200, 2000), fragment(DATA.subarray(0, 1200), 600 - (600 % 8), 1200), fragment(DATA, 0, 600)],
  ],
  [
    'a piece in the middle of 9 bytes',
    [fragment(DATA, 0, 1200), fragment(DATA, 1200, 1209), fragment(DATA, 1209 + 7, 2400)],
  ],
  ['an empty fragment', [fragment(DATA, 0, 1200), fragment(DATA, 1200, 1200, { moreFragments: true })]],
  [
    'an empty end',
    [
      fragment(DATA, 0, 2400, { moreFragments: true, payload: DATA.subarray(0, 1200) }),
      fragment(DATA, 1200, 1200, { moreFragments: false }),
    ],
  ],
  [
    'a datagram longer than 65535',
    [fragment(DATA, 0, 1200), fragment(DATA, 0, 1200, { offset: 65528, moreFragments: false })],
  ],
] as [string, Uint8Array[]][]) {
  test(`no datagram comes of it: ${title}`, (t) => {
    const card = settledCard()
    expectFrames(t, receiveAll(card, frames), [])
    t.is(card.counter('ipv4Reassembled'), 0)
    t.true(card.state('reassemblyUsed') <= 1)
  })
}

function changed(data: Uint8Array, at: number): Uint8Array {
  const copy = data.slice()
  copy[at]! ^= 1
  return copy
}

test('after an overlap the rest of the datagram is swallowed, and the next datagram is not', (t) => {
  const card = settledCard()
  receiveAll(card, [fragment(DATA, 0, 1200), fragment(DATA, 1192, 2000)])
  expectFrames(t, receiveAll(card, fragments(DATA, [1200])), [])
  t.truthy(joined(receiveAll(card, fragments(DATA, [1200], { identification: 78 }))))
  expectFrames(t, card.advance(TIMEOUT_MS + 1), [])
  t.truthy(joined(receiveAll(card, fragments(DATA, [1200]))))
})

test('an overlap is seen even if its bytes are those that the buffer held before', (t) => {
  const card = settledCard()
  t.truthy(joined(receiveAll(card, fragments(DATA, [1200]))))
  const overlapping = [fragment(DATA, 0, 1200), fragment(DATA, 1192, 2000), fragment(DATA, 1200, 2400)]
  expectFrames(t, receiveAll(card, overlapping), [])
})

test('a fragment beyond 65535 bytes leaves the datagrams of others alone', (t) => {
  const card = settledCard()
  const beyond = (id: number) =>
    fragment(DATA, 0, 1200, { identification: id, offset: 65528, moreFragments: id % 2 === 0 })
  const halves = [100, 101, 102, 103].map((identification) => fragments(DATA, [1200], { identification }))
  const first = halves.flatMap(([half], i) => [half!, beyond(200 + i)])
  receiveAll(card, first)
  for (const [, half] of halves) t.truthy(joined(receiveAll(card, [half!])))
  t.is(card.state('reassemblyUsed'), 0)
})

test('a header with options that makes the datagram too long ends it', (t) => {
  const card = settledCard()
  const payload = bytes(65508)
  const options = new Uint8Array(40).fill(1)
  const cuts = Array.from({ length: 44 }, (_, i) => (i + 1) * 1480)
  const [, ...rest] = fragments(payload, cuts)
  const first = fragment(payload, 0, 1480, { options })
  expectFrames(t, receiveAll(card, [...rest, first]), [])
  t.is(card.counter('ipv4ReassemblyFailed'), 1)
})

// ── timeout and bounds ──

test('an unfinished datagram ends after 30 s: time exceeded, quoting the first fragment', (t) => {
  const card = settledCard()
  const first = fragment(DATA, 0, 1200)
  expectFrames(t, receiveAll(card, [first]), [])
  expectFrames(t, card.advance(TIMEOUT_MS - 1), [])
  const frames = card.advance(2)
  const [packet] = expectFrames(t, frames, [
    { ipv4: { destination: PEER.ip, totalLength: 576 }, icmp: { type: 11, code: 1 } },
  ])
  t.is(quotedPacket(packet!).ipv4?.identification, 77)
  t.deepEqual(packet!.icmp!.payload, first.slice(14, 14 + 548))
  t.is(card.state('reassemblyUsed'), 0)
})

for (const [title, frame] of [
  ['without its first fragment', fragment(DATA, 1200, 2400)],
  ['to a broadcast address', fragment(DATA, 0, 1200, { destination: '192.0.2.255' })],
  ['that is an ICMP error itself', fragment(icmp({ type: 3, payload: bytes(2000) }), 0, 1200)],
] as [string, Uint8Array][]) {
  test(`no word about an unfinished datagram ${title}`, (t) => {
    const card = settledCard()
    receiveAll(card, [frame])
    t.is(card.state('reassemblyUsed'), 1)
    expectFrames(t, card.advance(TIMEOUT_MS + 1), [])
    t.is(card.state('reassemblyUsed'), 0)
  })
}

test('one source holds at most 8 buffers, its oldest goes', (t) => {
  const card = settledCard()
  const [, last] = fragments(DATA, [1200])
  const half = (identification: number) => fragment(DATA, 0, 1200, { identification })
  for (let id = 1; id <= 9; id++) {
    receiveAll(card, [half(id)])
    card.advance(1)
  }
  t.is(card.state('reassemblyUsed'), 8)
  expectFrames(t, receiveAll(card, [fragment(DATA, 1200, 2400, { identification: 1 })]), [])
  t.truthy(joined(receiveAll(card, [fragment(DATA, 1200, 2400, { identification: 9 })])))
  t.truthy(last)
})

test('all 16 buffers taken: the oldest goes, whosever it is', (t) => {
  const card = settledCard()
  for (let i = 0; i < 20; i++) {
    receiveAll(card, [fragment(DATA, 0, 1200, { source: `192.0.2.${100 + i}` })])
    card.advance(1)
  }
  t.is(card.state('reassemblyUsed'), 16)
  t.is(card.counter('ipv4ReassemblyFailed'), 4)
})

test('a flood of fragments takes no chunks and stops no echo', (t) => {
  const card = settledCard()
  const free = card.state('chunkFreeCount')
  for (let i = 0; i < 3000; i++) {
    const source = `192.0.2.${20 + (i % 200)}`
    card.receive(0, fragment(DATA, (i % 3) * 800, (i % 3) * 800 + 800, { source, identification: i & 0xffff }))
    if (i % 100 === 99) card.run()
  }
  t.is(card.state('chunkFreeCount'), free)
  card.receive(0, icmpFrame({ ...TO_CARD, type: 8 }))
  expectFrames(t, card.run(), [{ icmp: { type: 0 } }])
})
