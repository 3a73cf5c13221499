/** The receiving half of an established connection (RFC 9293 §3.4, §3.8, §3.10.7.4; RFC 5681 §4.2; RFC 2018). */
import * as M from '../abi/messages.ts'
import { between } from './support/lan.ts'
import { bytes, concat, ipv4Frame, PROTOCOL_TCP, tcp } from './support/packets.ts'
import { type Conn, pattern, tcpTest } from './support/tcp-script.ts'
import { established } from './support/tcp-states.ts'

const SACK = { sack: true }

// ── acknowledgements ──

tcpTest('a single segment is acknowledged after 40 ms (RFC 9293 §3.8.6.3: less than 500)', (net) => {
  const c = established(net)
  c.send({ flags: 'A', payload: 100 })
  c.expect({ flags: 'A', seq: 1, ack: 101, length: 0, after: 40 })
  c.expectNothing(1000)
})

tcpTest('every second segment is acknowledged at once (RFC 5681 §4.2)', (net) => {
  const c = established(net)
  for (let at = 1; at < 14600; at += 2920) {
    c.send({ flags: 'A', payload: 1460 })
    c.expectNothing()
    c.send({ flags: 'A', payload: 1460 })
    c.expect({ flags: 'A', ack: at + 2920, length: 0 })
  }
  c.expectNothing(1000)
})

tcpTest('a delayed ACK rides on data', (net) => {
  const c = established(net)
  c.send({ flags: 'PA', payload: 'question' })
  net.wait(10)
  c.write('answer')
  c.expect({ flags: 'A', seq: 1, ack: 9, payload: 'answer' })
  c.send({ flags: 'A' })
  c.expectNothing(1000)
})

tcpTest('segments that one poll takes are one record of the host and one ACK', (net) => {
  const c = established(net)
  c.sendAll({ flags: 'A', payload: 1000 }, { flags: 'A', payload: 1000 }, { flags: 'A', payload: 1000 })
  c.expect({ flags: 'A', ack: 3001 })
  c.expectRead(pattern(1, 3000))
})

tcpTest('PSH and URG mean nothing to the stream; urgent bytes stay in it (RFC 9293 §3.8.5)', (net) => {
  const c = established(net)
  c.send({ flags: 'UPA', payload: 'abc', urgent: 2 })
  c.send({ flags: 'UA', payload: 'def', urgent: 0xffff })
  c.expect({ flags: 'A', ack: 7 })
  c.expectRead('abcdef')
})

// ── order ──

tcpTest('a segment out of order is answered with a duplicate ACK at once, and the stream comes in order', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 101, payload: 100 })
  c.expect({ flags: 'A', ack: 1, length: 0, sack: null })
  c.expectRead('')
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expect({ flags: 'A', ack: 201, length: 0 })
  c.expectRead(pattern(1, 200))
})

tcpTest('an ACK goes at once when a hole is filled in part (RFC 5681 §4.2)', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 201, payload: 100 })
  c.expect({ flags: 'A', ack: 1 })
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expect({ flags: 'A', ack: 101 })
  c.send({ flags: 'A', seq: 101, payload: 100 })
  c.expect({ flags: 'A', ack: 301 })
  c.expectRead(pattern(1, 300))
})

tcpTest('SACK: the block with the newest segment comes first, up to four (RFC 2018 §4)', (net) => {
  const c = established(net, SACK)
  const out = (seq: number, sack: [number, number][]) => {
    c.send({ flags: 'A', seq, payload: 100 })
    c.expect({ flags: 'A', ack: 1, length: 0, sack })
  }
  out(201, [[201, 301]])
  out(401, [
    [401, 501],
    [201, 301],
  ])
  out(601, [
    [601, 701],
    [201, 301],
    [401, 501],
  ])
  out(801, [
    [801, 901],
    [201, 301],
    [401, 501],
    [601, 701],
  ])
  out(1001, [
    [1001, 1101],
    [201, 301],
    [401, 501],
    [601, 701],
  ])
  out(301, [
    [201, 501],
    [601, 701],
    [801, 901],
    [1001, 1101],
  ])
  out(701, [
    [601, 901],
    [201, 501],
    [1001, 1101],
  ])
  c.send({ flags: 'A', seq: 1, payload: 200 })
  c.expect({
    flags: 'A',
    ack: 501,
    sack: [
      [601, 901],
      [1001, 1101],
    ],
  })
})

tcpTest('SACK: three blocks at most beside timestamps (RFC 2018 §3)', (net) => {
  const c = established(net, { sack: true, timestamps: true })
  for (const seq of [201, 401, 601, 801]) c.send({ flags: 'A', seq, payload: 100 })
  const blocks = c.drain().map(({ sack }) => sack?.length)
  if (blocks.join() !== '1,2,3,3') net.fail(`blocks ${blocks}`)
})

tcpTest('SACK blocks go also while we have data to send (RFC 2018 §4)', (net) => {
  const c = established(net, SACK)
  c.send({ flags: 'A', seq: 101, payload: 100 })
  c.expect({ flags: 'A', sack: [[101, 201]] })
  c.write(100)
  c.drain()
  c.sendAll({ flags: 'A', seq: 301, payload: 100 })
  c.expect({
    flags: 'A',
    length: 0,
    sack: [
      [301, 401],
      [101, 201],
    ],
  })
  // Data and a segment out of order in one poll: the duplicate ACK is a bare one.
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest('segments in any order, overlapping each other, make one stream', (net) => {
  const c = established(net)
  const pieces = [
    [301, 400],
    [901, 100],
    [101, 300],
    [51, 20],
    [700, 250],
    [1, 120],
    [2, 1],
    [990, 400],
    [1, 999],
  ] as const
  for (const [seq, payload] of pieces) c.send({ flags: 'A', seq, payload })
  c.expectRead(pattern(1, 1389))
  if (c.drain().at(-1)!.ack !== 1390) net.fail('not all acknowledged')
})

tcpTest('every order of five overlapping segments makes the same stream', (net) => {
  const pieces = [
    [1, 60],
    [41, 60],
    [90, 30],
    [101, 60],
    [150, 51],
  ] as const
  const orders = (rest: readonly number[]): number[][] =>
    rest.length === 0 ? [[]] : rest.flatMap((i) => orders(rest.filter((j) => j !== i)).map((order) => [i, ...order]))
  const c = established(net)
  let base = 0
  for (const order of orders([0, 1, 2, 3, 4])) {
    for (const i of order) c.send({ flags: 'A', seq: base + pieces[i]![0], payload: pieces[i]![1] })
    c.expectRead(pattern(base + 1, 200))
    base += 200
  }
  c.drain()
})

tcpTest('the bytes that came first stay: a retransmission with other bytes changes nothing that was taken', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 1, payload: 'aaaa' })
  c.send({ flags: 'A', seq: 3, payload: 'bbbb' })
  c.expectRead('aaaabb')
  c.drain()
})

// ── duplicates and the window ──

tcpTest('a duplicate is dropped and acknowledged at once (RFC 9293 §3.10.7.4)', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expect({ flags: 'A', ack: 101, after: 40 })
  for (let i = 0; i < 3; i++) {
    c.send({ flags: 'A', seq: 1, payload: 100 })
    c.expect({ flags: 'A', ack: 101, length: 0 })
  }
  c.expectRead(pattern(1, 100))
})

tcpTest('of a segment that is old in part the new part is taken (RFC 9293 §3.10.7.4)', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.send({ flags: 'A', seq: 51, payload: 100 })
  c.expect({ flags: 'A', ack: 151 })
  c.expectRead(pattern(1, 150))
})

tcpTest(
  'bytes beyond the window are cut off, and a segment wholly beyond it is answered (RFC 9293 §3.10.7.4)',
  (net) => {
    const c = established(net)
    c.send({ flags: 'A', seq: 1, payload: 1400 })
    c.expect({ flags: 'A', ack: 1001, window: 0, after: 40 })
    c.expectRead(pattern(1, 1000))
    c.send({ flags: 'A', seq: 1401, payload: 100 })
    c.expect({ flags: 'A', ack: 1001, window: 0 })
  },
  { receiveCredit: 1000 },
)

tcpTest('a segment far outside the window is answered with an ACK and dropped', (net) => {
  const c = established(net)
  for (const seq of [1_000_000, -1_000_000, 0x7fffffff]) {
    c.send({ flags: 'A', seq, payload: 10 })
    c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  }
  c.expectRead('')
})

tcpTest('bare ACKs that are not acceptable are answered ten times a second at most: no ACK storm', (net) => {
  const c = established(net)
  for (let i = 0; i < 1000; i++) {
    c.send({ flags: 'A', seq: -5 })
    net.wait(1)
  }
  const answers = c.drain().length
  if (answers < 5 || answers > 11) net.fail(`${answers} answers in a second`)
})

tcpTest('a segment without ACK is dropped (RFC 9293 §3.10.7.4, fifth)', (net) => {
  const c = established(net)
  c.send({ flags: 'P', payload: 'x', seq: 1 })
  c.send({ flags: '', payload: 'x', seq: 1 })
  c.expectNothing(100)
  c.expectRead('')
})

tcpTest('a wrong checksum is dropped without a word (RFC 9293 §3.1, MUST-3)', (net) => {
  const c = established(net)
  for (const tcpChecksum of [0, 0x1234, 0xffff]) c.send({ flags: 'PA', seq: 1, payload: 'hello', tcpChecksum })
  c.expectNothing(1000)
  c.expectRead('')
})

// ── flow control ──

/** Sends `count` bytes in segments and returns the last window and acknowledgement. */
function fill(c: Conn, count: number): { window: number; ack: number } {
  for (let left = count; left > 0; left -= 1000) c.send({ flags: 'A', payload: Math.min(left, 1000) })
  c.net.wait(50)
  return c.drain().at(-1)!
}

tcpTest(
  'an application that does not read closes the window, and no byte is lost (RFC 9293 §3.8.6)',
  (net) => {
    const c = established(net)
    const { window, ack } = fill(c, 8000)
    if (window !== 0 || ack !== 8001) net.fail(`window ${window}, ack ${ack}`)
    // A probe of one byte is refused and answered.
    c.send({ flags: 'A', seq: 8001, payload: 1 })
    c.expect({ flags: 'A', ack: 8001, window: 0 })
    c.expectRead(pattern(1, 8000))
    c.credit(8000)
    c.expect({ flags: 'A', ack: 8001, window: 8000 })
    c.send({ flags: 'A', payload: 1000 })
    c.send({ flags: 'A', payload: 1000 })
    c.expect({ flags: 'A', ack: 10001, window: 6000 })
  },
  { receiveCredit: 8000 },
)

tcpTest(
  "the window's right edge never moves left (RFC 9293 §3.8.6, SHLD-14)",
  (net) => {
    const c = established(net, { windowScale: 0 })
    let edge = 0
    let sent = 0
    const step = (size: number) => {
      c.send({ flags: 'A', payload: size })
      sent += size
      net.wait(45)
      for (const { ack, window } of c.drain()) {
        // The scale rounds down by less than 128.
        if (ack + window * 128 < edge - 127) net.fail(`right edge ${ack + window * 128} after ${edge}`)
        edge = Math.max(edge, ack + window * 128)
      }
    }
    for (let i = 0; i < 60; i++) {
      step(1 + ((i * 379) % 1400))
      if (i % 7 === 3) {
        c.credit(Math.floor(sent / 2))
        sent -= Math.floor(sent / 2)
      }
    }
  },
  { receiveCredit: 30_000 },
)

tcpTest(
  'silly window: credit in drops does not open the window in drops (RFC 9293 §3.8.6.2.2, MUST-39)',
  (net) => {
    const c = established(net)
    fill(c, 8000)
    for (let i = 0; i < 14; i++) {
      c.credit(100)
      c.expectNothing()
      // What is asked for in between still sees the window closed.
      c.send({ flags: 'A', seq: 8001, payload: 1 })
      c.expect({ flags: 'A', ack: 8001, window: 0 })
    }
    c.credit(100)
    c.send({ flags: 'A', seq: 8001, payload: 1 })
    const { window } = c.expect({ flags: 'A' })
    if (window !== 0 && window < 1460) net.fail(`window ${window}`)
  },
  { receiveCredit: 8000 },
)

tcpTest(
  'a window that is smaller than a segment opens again when half of it is read (RFC 9293 §3.8.6.2.2)',
  (net) => {
    const c = established(net)
    fill(c, 1000)
    c.credit(400)
    c.expectNothing()
    c.credit(100)
    c.expect({ flags: 'A', ack: 1001, window: 500 })
  },
  { receiveCredit: 1000 },
)

tcpTest('returning credit with a large window open sends nothing', (net) => {
  const c = established(net)
  fill(c, 10_000)
  c.credit(10_000)
  c.expectNothing(1000)
})

tcpTest(
  'credit that was never delivered is a counted mistake and opens nothing',
  (net) => {
    const c = established(net)
    c.credit(1)
    c.credit(0x7fffffff)
    c.credit(0xffffffff)
    if (net.card.counter('commandsBad') !== 3) net.fail(`${net.card.counter('commandsBad')} bad commands`)
    c.send({ flags: 'A', payload: 1000 })
    if (c.expect({ flags: 'A', after: 40 }).window !== 7000) net.fail('window moved')
  },
  { receiveCredit: 8000 },
)

tcpTest(
  'a closed window still takes acknowledgements and window updates (RFC 9293 §3.10.7.4)',
  (net) => {
    const c = established(net)
    fill(c, 8000)
    c.write(2920)
    if (c.data().length !== 2) net.fail('not sent')
    // A segment with data at the closed window: its ACK counts, its data does not.
    c.send({ flags: 'A', seq: 8001, payload: 100, ack: 2921 })
    c.expect({ flags: 'A', seq: 2921, ack: 8001, window: 0 })
    c.expectNothing(5000)
    c.expectRead(pattern(1, 8000))
  },
  { receiveCredit: 8000 },
)

tcpTest(
  'a closed window does not believe an ACK of what was not sent',
  (net) => {
    const c = established(net)
    fill(c, 8000)
    c.send({ flags: 'A', seq: 8001, payload: 1, ack: 5000 })
    c.expect({ flags: 'A', seq: 1, ack: 8001 })
    c.write('abc')
    c.expect({ flags: 'A', seq: 1, payload: 'abc' })
    c.send({ flags: 'A' })
  },
  { receiveCredit: 8000 },
)

tcpTest(
  'RST at a closed window resets (RFC 9293 §3.10.7.4)',
  (net) => {
    const c = established(net)
    fill(c, 8000)
    c.send({ flags: 'RA' })
    c.expectEvent(M.EVENT_RESET)
    net.expectClean()
  },
  { receiveCredit: 8000 },
)

tcpTest(
  'a FIN just beyond a full window is taken, and the window is not wrong after it',
  (net) => {
    const c = established(net)
    c.send({ flags: 'FA', payload: 1000 })
    c.expect({ flags: 'A', ack: 1002, window: 0, after: 40 })
    c.expectEnd()
    // Were the window taken for huge now, this would be accepted.
    c.send({ flags: 'R', seq: 100_000 })
    c.expectNothing(100)
    c.write('x')
    c.expect({ payload: 'x' })
    c.send({ flags: 'A' })
  },
  { receiveCredit: 1000 },
)

// ── memory ──

tcpTest('single bytes out of order do not take a chunk each', (net) => {
  const c = established(net)
  const before = net.card.state('chunkFreeCount')
  for (let i = 0; i < 4000; i++) c.send({ flags: 'A', seq: 3 + 2 * i, payload: 1 })
  for (let i = 4000; i < 8000; i++) c.send({ flags: 'A', seq: 40_000 - 2 * i, payload: 1 })
  const held = before - net.card.state('chunkFreeCount')
  if (held > 300) net.fail(`${held} chunks held`)
  c.drain()
})

tcpTest('small segments in a row out of order share chunks', (net) => {
  const c = established(net)
  const before = net.card.state('chunkFreeCount')
  for (let i = 0; i < 2000; i++) c.send({ flags: 'A', seq: 3 + 10 * i, payload: 10 })
  const held = before - net.card.state('chunkFreeCount')
  if (held > 11) net.fail(`${held} chunks for 20000 bytes`)
  c.send({ flags: 'A', seq: 1, payload: 2 })
  c.expectRead(pattern(1, 20_002))
  c.drain()
})

tcpTest('a segment that came in IP fragments, longer than any buffer, is taken whole', (net) => {
  const c = established(net)
  for (const [seq, count] of [
    [1, 9000],
    [29_001, 20_000],
    [9001, 20_000],
  ] as const) {
    const segment = tcp({
      ...between(c.peer, c.card),
      sourcePort: c.peerPort,
      destinationPort: c.cardPort,
      sequence: (c.iss + seq) >>> 0,
      acknowledgment: (c.irs + 1) >>> 0,
      flags: 'A',
      payload: pattern(seq, count),
    })
    for (let offset = 0; offset < segment.length; offset += 1480) {
      net.inject(
        0,
        ipv4Frame({
          ...between(c.peer, c.card),
          protocol: PROTOCOL_TCP,
          identification: seq & 0xffff,
          offset,
          moreFragments: offset + 1480 < segment.length,
          payload: segment.subarray(offset, offset + 1480),
        }),
      )
    }
  }
  c.expectRead(pattern(1, 49_000))
  if (c.drain().at(-1)!.ack !== 49_001) net.fail('not acknowledged')
})

tcpTest('a stream across the wrap of sequence numbers, with losses and overlaps', (net) => {
  const c = established(net, { iss: 0xffffffff - 5000 })
  for (let at = 1; at < 20_001; at += 1000) {
    c.send({ flags: 'A', seq: at + 500, payload: 500 })
    c.send({ flags: 'A', seq: at, payload: 700 })
  }
  c.expectRead(pattern(1, 20_000))
  c.drain()
})

tcpTest('text is what the host reads, byte for byte', (net) => {
  const c = established(net)
  const text = concat(
    bytes('grüße '),
    new Uint8Array(256).map((_, i) => i),
  )
  c.send({ flags: 'PA', payload: text })
  c.expectRead(text)
  c.expect({ flags: 'A', after: 40 })
})
