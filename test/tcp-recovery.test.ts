/** Fast retransmit and recovery: RFC 5681 §3.2, RFC 6582 (NewReno), RFC 6675 (SACK), RFC 3042 (limited transmit). */
import { BOOT_FLAG_NO_SACK, BOOT_FLAG_NO_TAIL_PROBES, CONGESTION_NEWRENO } from '../abi/boot.ts'
import { CARD, PEER } from './support/lan.ts'
import { arpFrame } from './support/packets.ts'
import { type Conn, tcpTest } from './support/tcp-script.ts'
import { established, type StateOptions } from './support/tcp-states.ts'

const MSS = 1460
const NEWRENO = { congestionControl: CONGESTION_NEWRENO }
/** Number of the first byte of segment i, counted from 0. */
const at = (i: number) => 1 + i * MSS
type Net = Parameters<typeof established>[0]

/** `count` segments are on their way; the initial window allows 10. */
function flying(net: Net, count: number, options: StateOptions = {}): Conn {
  const c = established(net, options)
  c.write(count * MSS)
  if (c.data().length !== Math.min(count, 10)) net.fail('initial window')
  return c
}

/** Segments with data that were sent, by their number. */
function sent(c: Conn): string {
  return c
    .data()
    .map(([seq]) => (seq - 1) / MSS)
    .join()
}

function expectSent(c: Conn, segments: string): void {
  const found = sent(c)
  if (found !== segments) c.net.fail(`segments ${found || 'none'}, not ${segments || 'none'}`)
}

tcpTest('the third duplicate ACK retransmits at once (RFC 5681 §3.2)', (net) => {
  const c = flying(net, 10)
  c.send({ flags: 'A', ack: 1 })
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '')
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '0')
  c.send({ flags: 'A', ack: at(10) })
  c.expectNothing(1000)
})

/** What looks like a duplicate ACK and is none (RFC 5681 §2). */
for (const [name, segment] of Object.entries({
  'with data': { flags: 'A', ack: 1, payload: 1 },
  'with another window': { flags: 'A', ack: 1, window: 60_000 },
  'with an older number': { flags: 'A', ack: 0 },
})) {
  tcpTest(`an ACK ${name} is no duplicate (RFC 5681 §2)`, (net) => {
    const c = flying(net, 10)
    for (let i = 0; i < 6; i++) c.send(name === 'with another window' ? { ...segment, window: 60_000 + i } : segment)
    expectSent(c, '')
    c.send({ flags: 'A', ack: at(10) })
  })
}

tcpTest('with nothing on its way there are no duplicate ACKs', (net) => {
  const c = established(net)
  for (let i = 0; i < 10; i++) c.send({ flags: 'A' })
  c.expectNothing(100)
})

tcpTest('limited transmit: each of the first two duplicates lets one new segment go (RFC 3042)', (net) => {
  const c = flying(net, 14)
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '10')
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '11')
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '0')
  c.send({ flags: 'A', ack: at(12) })
  c.drain()
  c.send({ flags: 'A' })
})

tcpTest("limited transmit keeps to the peer's window (RFC 3042 §2)", (net) => {
  const c = established(net, { window: 10 * MSS })
  c.write(14 * MSS)
  c.data()
  c.send({ flags: 'A', ack: 1 })
  c.send({ flags: 'A', ack: 1 })
  expectSent(c, '')
  c.send({ flags: 'A', ack: at(10) })
  c.drain()
  c.send({ flags: 'A' })
})

// ── NewReno, RFC 6582 ──

tcpTest(
  'NewReno: each duplicate beyond the third lets a new segment go once pipe allows (RFC 5681 §3.2 (4))',
  (net) => {
    const c = flying(net, 20)
    for (let i = 0; i < 3; i++) c.send({ flags: 'A', ack: 1 })
    expectSent(c, '10,11,0')
    // ssthresh is half of 10, as limited transmit does not count, and cwnd 8; 12 are out: from the fifth more on there is room.
    const found: string[] = []
    for (let i = 0; i < 6; i++) {
      c.send({ flags: 'A', ack: 1 })
      found.push(sent(c))
    }
    if (found.join(' ').trim() !== '12 13') net.fail(`sent ${found}`)
    c.send({ flags: 'A', ack: at(12) })
    c.drain()
  },
  NEWRENO,
)

tcpTest(
  'NewReno: a partial acknowledgement retransmits the next hole at once (RFC 6582 §3.2 (3))',
  (net) => {
    // Segments 0, 3 and 6 of ten are lost.
    const c = flying(net, 10)
    for (let i = 0; i < 7; i++) c.send({ flags: 'A', ack: 1 })
    expectSent(c, '0')
    c.send({ flags: 'A', ack: at(3) })
    expectSent(c, '3')
    c.send({ flags: 'A', ack: at(6) })
    expectSent(c, '6')
    c.send({ flags: 'A', ack: at(10) })
    c.expectNothing(2000)
    if (net.card.counter('tcpTimeouts') !== 0) net.fail('a timeout')
  },
  NEWRENO,
)

tcpTest(
  'NewReno: duplicates after a timeout do not start a fast retransmit (RFC 6582 §3.2 (1), recover)',
  (net) => {
    const c = flying(net, 10)
    net.wait(250)
    expectSent(c, '0')
    c.send({ flags: 'A', ack: at(1) })
    expectSent(c, '1,2')
    // The peer had the rest: what we repeat it answers with duplicates.
    c.send({ flags: 'A', ack: at(3) })
    c.drain()
    for (let i = 0; i < 5; i++) c.send({ flags: 'A', ack: at(3) })
    if (net.card.counter('tcpFastRetransmits') !== 0) net.fail('fast retransmit')
    c.drain()
    c.send({ flags: 'A', ack: at(10) })
    c.expectNothing(2000)
  },
  NEWRENO,
)

tcpTest(
  'NewReno: duplicate ACKs without end do not inflate the window without end (RFC 5681 §3.2, end)',
  (net) => {
    const c = established(net, { windowScale: 7, window: 0xffff })
    c.write(65_536)
    c.data()
    let count = 0
    for (let i = 0; i < 1000; i++) {
      c.send({ flags: 'A', ack: 1 })
      count += c.data().length
    }
    if (count > 20) net.fail(`${count} segments sent into the void`)
  },
  NEWRENO,
)

tcpTest(
  'after recovery the window is half of the flight, without what limited transmit added (RFC 5681 §3.2 (2), (6))',
  (net) => {
    const c = flying(net, 40)
    for (let i = 0; i < 3; i++) c.send({ flags: 'A', ack: 1 })
    c.drain()
    c.send({ flags: 'A', ack: at(12) })
    if (sent(c).split(',').length !== 5) net.fail('not half of 10')
    c.drain()
  },
  NEWRENO,
)

// ── SACK, RFC 6675 ──

const SACK = { sack: true }

tcpTest('SACK: three duplicates with blocks retransmit the hole alone (RFC 6675 §5)', (net) => {
  const c = flying(net, 10, SACK)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(2)]] })
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(3)]] })
  expectSent(c, '')
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(4)]] })
  expectSent(c, '0')
  c.send({ flags: 'A', ack: at(10) })
  c.expectNothing(2000)
})

tcpTest('SACK: one ACK whose blocks show three segments beyond the hole is enough (RFC 6675 §4, IsLost)', (net) => {
  const c = flying(net, 10, SACK)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(4)]] })
  expectSent(c, '0')
  c.send({ flags: 'A', ack: at(10) })
})

tcpTest('SACK: duplicates without news count for nothing (RFC 6675 §2, DupAcks)', (net) => {
  const c = flying(net, 10, SACK)
  for (let i = 0; i < 10; i++) c.send({ flags: 'A', ack: 1 })
  for (let i = 0; i < 10; i++) c.send({ flags: 'A', ack: 1, sack: [[at(1), at(2)]] })
  expectSent(c, '')
  c.send({ flags: 'A', ack: at(10) })
})

tcpTest('SACK: several holes are filled in one round trip, each once (RFC 6675 §5)', (net) => {
  // Of ten, 0, 2, 4 and 6 are lost; the ACKs of 1, 3, 5, 7, 8, 9 arrive.
  const c = flying(net, 10, SACK)
  const blocks: [number, number][] = []
  const all: string[] = []
  for (const i of [1, 3, 5]) {
    blocks.unshift([at(i), at(i + 1)])
    c.send({ flags: 'A', ack: 1, sack: blocks.slice(0, 4) })
    all.push(sent(c))
  }
  c.send({ flags: 'A', ack: 1, sack: [[at(7), at(8)], ...blocks] })
  all.push(sent(c))
  c.send({ flags: 'A', ack: 1, sack: [[at(7), at(9)], ...blocks] })
  all.push(sent(c))
  c.send({ flags: 'A', ack: 1, sack: [[at(7), at(10)], ...blocks] })
  all.push(sent(c))
  const list = all.join(',').split(',').filter(Boolean)
  if (list.join() !== '0,2,4,6') net.fail(`sent ${list}`)
  c.send({ flags: 'A', ack: at(10) })
  c.expectNothing(3000)
  if (net.card.counter('tcpTimeouts') !== 0) net.fail('a timeout')
})

tcpTest(
  'SACK: after a partial acknowledgement recovery goes on until all of it is acknowledged (RFC 6675 §5)',
  (net) => {
    const c = flying(net, 10, SACK)
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(5)]] })
    expectSent(c, '0')
    c.send({
      flags: 'A',
      ack: 1,
      sack: [
        [at(6), at(10)],
        [at(1), at(5)],
      ],
    })
    expectSent(c, '5')
    c.send({ flags: 'A', ack: at(5), sack: [[at(6), at(10)]] })
    expectSent(c, '')
    c.send({ flags: 'A', ack: at(10) })
    c.expectNothing(2000)
  },
)

tcpTest('SACK: a loss at the end of the flight shows when what was repeated later arrives (RFC 8985 §3.3)', (net) => {
  // 0 and 9 of ten are lost; nothing new is there to be sent.
  const c = flying(net, 10, SACK)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(9)]] })
  expectSent(c, '0')
  net.wait(1)
  c.send({ flags: 'A', ack: at(9) })
  expectSent(c, '9')
  c.send({ flags: 'A', ack: at(10) })
  c.expectNothing(2000)
})

tcpTest('SACK: new data goes in recovery as far as cwnd allows (RFC 6675 §5 (C))', (net) => {
  const c = flying(net, 30, SACK)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(4)]] })
  expectSent(c, '0')
  // 0.7 of the flight of ten for CUBIC: 7 segments may be out. Retransmission and 4..9 make 7; each SACKed one makes room.
  for (let i = 5; i < 9; i++) {
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(i)]] })
    expectSent(c, `${i + 5}`)
  }
  c.send({ flags: 'A', ack: at(14) })
  c.drain()
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest('SACK: a FIN that was lost is retransmitted as a hole is', (net) => {
  const c = established(net, SACK)
  c.write(3 * MSS, { fin: true })
  c.drain()
  c.send({ flags: 'A', ack: at(3) })
  c.expect({ flags: 'FA', seq: at(3), length: 0, after: 200 })
  c.send({ flags: 'A', ack: at(3) + 1 })
})

const HOSTILE: Record<string, [number, number][]> = {
  'beyond what was sent': [[at(10), at(12)]],
  'that ends beyond what was sent': [[at(2), at(11)]],
  'that is empty': [[at(2), at(2)]],
  'that ends before it begins': [[at(5), at(2)]],
  'below the acknowledgement (D-SACK, RFC 2883)': [[-1000, 1]],
  'that covers the acknowledgement': [[-1000, at(9)]],
  'that begins at the acknowledgement': [[1, at(9)]],
  'of nearly all sequence numbers': [[at(2), -0x7fffffff]],
  'that each comparison alone takes': [[0x50000000, -0x60000000]],
  'of zeros': [[-0x12345678, -0x12345678]],
}
for (const [name, sack] of Object.entries(HOSTILE)) {
  tcpTest(`SACK: a block ${name} is ignored (RFC 2018 §4)`, (net) => {
    const c = flying(net, 10, SACK)
    for (let i = 0; i < 5; i++) c.send({ flags: 'A', ack: 1, sack })
    expectSent(c, '')
    c.send({ flags: 'A', ack: at(10) })
    c.expectNothing(3000)
  })
}

tcpTest('SACK: D-SACK in the first block does not hide the second (RFC 2883 §4)', (net) => {
  const c = flying(net, 10, SACK)
  c.send({ flags: 'A', ack: at(1) })
  c.drain()
  c.send({
    flags: 'A',
    ack: at(1),
    sack: [
      [1, at(1)],
      [at(2), at(5)],
    ],
  })
  expectSent(c, '1')
  c.send({ flags: 'A', ack: at(10) })
})

tcpTest('SACK: more ranges than there is room for cost retransmissions, not the connection', (net) => {
  const c = established(net, { sack: true, windowScale: 7, window: 0xffff, mss: 88 })
  let written = 0
  const fill = () => {
    const count = Math.min(c.sendCredit, 0x10000)
    c.sendCredit -= count
    if (count > 0) c.write(count, { from: written + 1 })
    written += count
  }
  // Without loss until more is on its way than the scoreboard has places for.
  fill()
  for (let flight = c.data(); flight.length < 620; flight = c.data()) {
    for (let i = 1; i < flight.length; i += 2) c.send({ flags: 'A', ack: flight[i]![0] + 88 })
    fill()
  }
  const first = c.rcvNxt - 620 * 88
  const held = new Set<number>()
  const blocks: [number, number][] = []
  for (let seq = first + 88; seq < c.rcvNxt; seq += 176) {
    held.add(seq)
    blocks.unshift([seq, seq + 88])
    c.send({ flags: 'A', ack: first, sack: blocks.slice(0, 4) })
  }
  let una = first
  for (let round = 0; round < 3000 && una <= written; round++) {
    const news = c.data()
    for (const [seq] of news) held.add(seq)
    if (news.length === 0) net.wait(50)
    const before = una
    while (held.has(una)) una = Math.min(una + 88, written + 1)
    if (una > before) c.send({ flags: 'A', ack: una })
  }
  if (una !== written + 1) net.fail(`stopped at ${una} of ${written}`)
  c.drain()
})

// ── RACK, RFC 8985 ──

/** A connection whose round trips take `ms`. */
function distant(net: Net, ms: number, count: number): Conn {
  const c = established(net, { ...SACK, rttMs: ms })
  c.write(count * MSS)
  c.data()
  return c
}

tcpTest('RACK: one segment beyond a gap is enough once the reordering window has passed (RFC 8985 §6.2)', (net) => {
  const c = distant(net, 40, 3)
  net.wait(40)
  c.send({ flags: 'A', ack: 1, sack: [[at(2), at(3)]] })
  expectSent(c, '')
  // A quarter of the round trip, and the clock's millisecond.
  net.wait(12)
  expectSent(c, '0,1')
  c.send({ flags: 'A', ack: at(3) })
  c.expectNothing(2000)
  if (net.card.counter('tcpTimeouts') !== 0) net.fail('a timeout')
})

tcpTest('RACK: a segment that comes within the window is not repeated (RFC 8985 §6.2)', (net) => {
  const c = distant(net, 40, 3)
  net.wait(40)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(2)]] })
  net.wait(8)
  c.send({ flags: 'A', ack: at(3) })
  c.expectNothing(2000)
  if (net.card.counter('tcpRetransmits') !== 0) net.fail('retransmitted')
})

tcpTest(
  'RACK: where segments came late, three beyond a gap do not mean a loss at once (RFC 8985 §6.2, step 3)',
  (net) => {
    const c = distant(net, 40, 20)
    net.wait(40)
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(2)]] })
    c.send({ flags: 'A', ack: at(2) })
    c.drain()
    c.send({ flags: 'A', ack: at(2), sack: [[at(3), at(8)]] })
    const news = c.data().map(([seq]) => (seq - 1) / MSS)
    if (news.includes(2)) net.fail(`sent ${news}`)
    net.wait(12)
    expectSent(c, '2')
    c.send({ flags: 'A', ack: at(10) })
    c.drain()
    c.send({ flags: 'A' })
    c.drain()
  },
)

tcpTest(
  'RACK: what was repeated and is lost again is repeated when something sent later arrives (RFC 8985 §6.2)',
  (net) => {
    const c = distant(net, 40, 14)
    net.wait(40)
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(6)]] })
    const sent = c.data().map(([seq]) => (seq - 1) / MSS)
    if (sent[0] !== 0 || !sent.includes(10)) net.fail(`sent ${sent}`)
    net.wait(40)
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(11)]] })
    if (c.data()[0]?.[0] !== 1) net.fail('not repeated again')
    c.send({ flags: 'A', ack: at(11) })
    c.drain()
    c.send({ flags: 'A' })
    c.drain()
    if (net.card.counter('tcpTimeouts') !== 0) net.fail('a timeout')
  },
)

tcpTest('RACK: a segment that the peer had twice widens the window (RFC 8985 §6.2, step 4; RFC 2883)', (net) => {
  const c = distant(net, 40, 3)
  net.wait(40)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(3)]] })
  net.wait(12)
  expectSent(c, '0')
  // The first one was late, as it turns out, and the second comes too.
  c.send({ flags: 'A', ack: at(3) })
  c.send({ flags: 'A', ack: at(3), sack: [[1, at(1)]] })
  c.write(2 * MSS, { from: at(3) })
  c.drain()
  net.wait(40)
  c.send({ flags: 'A', ack: at(3), sack: [[at(4), at(5)]] })
  // Half of the round trip now.
  net.wait(18)
  expectSent(c, '')
  net.wait(5)
  expectSent(c, '3')
  c.send({ flags: 'A' })
})

tcpTest(
  'a repetition that could not leave is not waited for once the peer holds it all',
  (net) => {
    const c = established(net, SACK)
    // The neighbour's address grows old, and nobody answers for it any more.
    net.wait(61_000)
    const stations = net.neighbors.splice(0)
    let written = 0
    const exchange = (count: number) => {
      c.write(count * MSS, { from: written + 1 })
      written += count * MSS
      c.drain()
    }
    for (let ms = 0; ms < 2900; ms += 100) {
      exchange(1)
      net.wait(100)
      c.send({ flags: 'A', ack: written + 1 })
    }
    const una = written + 1
    exchange(10)
    net.wait(150)
    c.send({ flags: 'A', ack: una, sack: [[una + MSS, una + 10 * MSS]] })
    expectSent(c, '')
    c.send({ flags: 'A', ack: una + MSS, sack: [[una + 2 * MSS, una + 10 * MSS]] })
    net.neighbors.push(...stations)
    net.inject(
      0,
      arpFrame({
        destinationMac: CARD.mac,
        sourceMac: PEER.mac,
        operation: 'reply',
        senderMac: PEER.mac,
        sender: PEER.ip,
        targetMac: CARD.mac,
        target: CARD.ip,
      }),
    )
    c.write(MSS, { from: written + 1 })
    c.expect({ seq: written + 1, length: MSS, after: 0 })
    c.send({ flags: 'A' })
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'without SACK on the board blocks mean nothing',
  (net) => {
    const c = flying(net, 10, SACK)
    c.send({ flags: 'A', ack: 1, sack: [[at(1), at(9)]] })
    expectSent(c, '')
    c.send({ flags: 'A', ack: at(10) })
  },
  { flags: BOOT_FLAG_NO_SACK },
)

tcpTest('reordering by two places costs no retransmission (RFC 5681 §3.2)', (net) => {
  const c = flying(net, 10, SACK)
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(2)]] })
  c.send({ flags: 'A', ack: 1, sack: [[at(1), at(3)]] })
  c.send({ flags: 'A', ack: at(3) })
  c.send({ flags: 'A', ack: at(10) })
  expectSent(c, '')
  if (net.card.counter('tcpRetransmits') !== 0) net.fail('retransmitted')
})
