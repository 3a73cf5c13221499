/** The sending half of an established connection: Nagle, silly windows, zero windows, credit (RFC 9293 §3.7.4, §3.8.6). */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { type Conn, pattern, tcpTest } from './support/tcp-script.ts'
import { connected, established } from './support/tcp-states.ts'

tcpTest('what is written goes out in segments of MSS, the last with PSH (RFC 9293 §3.9.1)', (net) => {
  const c = established(net, { socketOptions: M.SOCKET_OPTION_NO_DELAY })
  c.write(4000)
  const seen = c.drain()
  const sizes = seen.map(({ length }) => length)
  if (sizes.join() !== '1460,1460,1080') net.fail(`segments of ${sizes}`)
  if (seen.map(({ flags }) => flags).join() !== 'A,A,PA') net.fail('PSH')
  c.send({ flags: 'A' })
})

tcpTest('the bytes on the wire are the bytes written, whatever the pieces', (net) => {
  const c = established(net)
  let from = 1
  for (const size of [1, 2, 3, 700, 5, 1460, 17, 2048, 2049, 511, 512, 513, 1, 1, 4096]) {
    c.write(size, { from })
    from += size
    const seen = c.drain()
    for (const { seq, payload } of seen) {
      if (Buffer.compare(payload, pattern(seq, payload.length)) !== 0) net.fail(`bytes at ${seq} differ`)
    }
    c.send({ flags: 'A' })
  }
  while (c.rcvNxt < from) {
    if (c.drain().length === 0) net.fail(`stopped at ${c.rcvNxt} of ${from}`)
    c.send({ flags: 'A' })
  }
  c.drain()
})

// ── Nagle, RFC 9293 §3.7.4 ──

tcpTest('Nagle: while something small is unacknowledged, what is small waits (RFC 9293 §3.7.4)', (net) => {
  const c = established(net)
  c.write('a')
  c.expect({ seq: 1, payload: 'a' })
  c.write('b')
  c.write('c')
  c.expectNothing(100)
  c.send({ flags: 'A' })
  c.expect({ seq: 2, payload: 'bc' })
  c.send({ flags: 'A' })
})

tcpTest('Nagle: a full segment never waits', (net) => {
  const c = established(net)
  c.write(1, { from: 1 })
  c.expect({ seq: 1, length: 1 })
  c.write(2000, { from: 2 })
  c.expect({ seq: 2, length: 1460 })
  c.expectNothing(100)
  c.send({ flags: 'A' })
  c.expect({ seq: 1462, length: 540 })
  c.send({ flags: 'A' })
})

tcpTest('Nagle: FIN takes the rest along', (net) => {
  const c = established(net)
  c.write('a')
  c.expect({ payload: 'a' })
  c.write('b')
  c.expectNothing(10)
  c.end()
  c.expect({ flags: 'FA', seq: 2, payload: 'b' })
  c.send({ flags: 'A' })
})

for (const [name, options] of Object.entries({ 'from the start': M.SOCKET_OPTION_NO_DELAY, later: 0 })) {
  for (const [open, state] of Object.entries({ passive: established, active: connected })) {
    tcpTest(`no delay, set ${name}: every write goes at once, ${open} open`, (net) => {
      const c = state(net, { socketOptions: options })
      if (options === 0) c.setOption(M.OPTION_NO_DELAY, 1)
      for (let i = 0; i < 5; i++) {
        c.write(1, { from: i + 1 })
        c.expect({ seq: i + 1, length: 1 })
      }
      c.send({ flags: 'A' })
    })
  }
}

tcpTest('no delay sends at once what waited for Nagle', (net) => {
  const c = established(net)
  c.write('a')
  c.expect({ payload: 'a' })
  c.write('b')
  c.expectNothing()
  c.setOption(M.OPTION_NO_DELAY, 1)
  c.expect({ seq: 2, payload: 'b' })
  c.send({ flags: 'A' })
})

// ── the peer's window ──

tcpTest("the peer's window is kept, and used whole by full segments", (net) => {
  const c = established(net, { window: 3000 })
  c.write(10_000)
  if (JSON.stringify(c.data()) !== '[[1,1460],[1461,1460]]') net.fail('window of 3000')
  // 80 bytes of window are left: not worth a segment while others are on their way.
  c.expectNothing(100)
  c.send({ flags: 'A', ack: 1461, window: 3000 })
  c.expect({ seq: 2921, length: 1460 })
  c.send({ flags: 'A' })
  c.data()
})

tcpTest('a window update sends what waits (RFC 9293 §3.10.7.4, fifth)', (net) => {
  const c = established(net, { window: 1460 })
  c.write(4380)
  c.expect({ seq: 1, length: 1460 })
  c.send({ flags: 'A', ack: 1461, window: 0 })
  c.expectNothing(100)
  c.send({ flags: 'A', ack: 1461, window: 2920 })
  if (JSON.stringify(c.data()) !== '[[1461,1460],[2921,1460]]') net.fail('not sent')
  c.send({ flags: 'A' })
})

tcpTest('an old segment does not bring an old window back (RFC 9293 §3.10.7.4, SND.WL1 and WL2)', (net) => {
  const c = established(net, { window: 1460 })
  c.send({ flags: 'A', seq: 1, payload: 10 })
  c.send({ flags: 'A', seq: 11, payload: 10, window: 1460 })
  c.expect({ flags: 'A', ack: 21 })
  // Out of order and older than the last one: its window of 60000 is stale.
  c.send({ flags: 'A', seq: 1, payload: 20, window: 60_000 })
  c.drain()
  c.write(5000)
  c.expect({ seq: 1, length: 1460 })
  c.expectNothing(50)
  c.send({ flags: 'A', seq: 21 })
  c.drain()
})

tcpTest('a window that shrinks below what is on its way is lived with (RFC 9293 §3.8.6, SHLD-15)', (net) => {
  const c = established(net)
  c.write(5840)
  if (c.data().length !== 4) net.fail('not sent')
  c.send({ flags: 'A', ack: 1461, window: 1460 })
  c.expectNothing(100)
  c.send({ flags: 'A', ack: 5841, window: 1460 })
  c.write(3000, { from: 5841 })
  c.expect({ seq: 5841, length: 1460 })
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest(
  'silly window: less than half of the largest window is not used while it may grow (RFC 9293 §3.8.6.2.1)',
  (net) => {
    const c = established(net, { window: 10_000 })
    c.write(8760)
    c.data()
    c.send({ flags: 'A', ack: 8761, window: 500 })
    c.write(5000, { from: 8761 })
    c.expectNothing(150)
    c.send({ flags: 'A', window: 5000 })
    const sent = c.data()
    if (sent.length !== 3 || sent[0]![1] !== 1460) net.fail(`sent ${JSON.stringify(sent)}`)
    c.send({ flags: 'A' })
    c.drain()
  },
)

tcpTest('silly window: the override timeout sends what fits (RFC 9293 §3.8.6.2.1 (4))', (net) => {
  const c = established(net, { window: 10_000 })
  c.write(8760)
  c.data()
  c.send({ flags: 'A', ack: 8761, window: 500 })
  c.write(5000, { from: 8761 })
  c.expectNothing()
  net.wait(1100)
  const sent = c.data()
  if (sent.length === 0 || sent[0]![1] !== 500) net.fail(`sent ${JSON.stringify(sent)}`)
  c.send({ flags: 'A', ack: 9261, window: 60_000 })
  if (c.data().reduce((sum, [, length]) => sum + length, 0) < 4000) net.fail('the rest did not follow')
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest('a peer whose window is always tiny gets segments of that size at once', (net) => {
  const c = established(net, { window: 100 })
  c.write(300)
  for (let at = 1; at < 301; at += 100) {
    c.expect({ seq: at, length: 100 })
    c.expectNothing()
    c.send({ flags: 'A' })
  }
})

// ── zero window and persist, RFC 9293 §3.8.6.1 ──

/** A connection whose peer has closed its window after 100 bytes; 1000 more are queued. */
function closed(c: Conn): Conn {
  c.write(100)
  c.expect({ seq: 1, length: 100 })
  c.send({ flags: 'A', ack: 101, window: 0 })
  c.write(1000, { from: 101 })
  return c
}

tcpTest(
  'a closed window is probed with one byte, first after an RTO, then at growing intervals (RFC 9293 §3.8.6.1)',
  (net) => {
    const c = closed(established(net))
    const first = c.expect({ flags: 'A', seq: 101, length: 1, after: 200 })
    let last = first.timeNs
    const gaps: number[] = []
    for (let i = 0; i < 12; i++) {
      c.send({ flags: 'A', ack: 101, window: 0 })
      if (!net.waitUntil(70_000, () => c.inbox.length > 0)) net.fail('no more probes')
      const probe = c.expect({ seq: 101, length: 1 })
      gaps.push((probe.timeNs - last) / 1e6)
      last = probe.timeNs
    }
    for (let i = 1; i < gaps.length; i++) if (gaps[i]! < gaps[i - 1]!) net.fail(`gaps ${gaps}`)
    if (Math.abs(gaps[0]! - 400) > 2 || gaps.at(-1) !== 60_000) net.fail(`gaps ${gaps}`)
    c.send({ flags: 'A', ack: 101, window: 5000 })
    c.expect({ seq: 101, length: 1000 })
    c.send({ flags: 'A' })
  },
)

tcpTest('a closed window that is answered for is waited for, for hours (RFC 9293 §3.8.6.1, MUST-37)', (net) => {
  const c = closed(established(net))
  for (let minutes = 0; minutes < 240; minutes++) {
    net.wait(60_000)
    for (const { length, seq } of c.drain()) {
      if (length !== 1 || seq !== 101) net.fail('not a probe')
      c.send({ flags: 'A', ack: 101, window: 0 })
    }
  }
  c.expectQuietHost()
  c.send({ flags: 'A', ack: 101, window: 5000 })
  c.expect({ seq: 101, length: 1000 })
  c.send({ flags: 'A' })
})

tcpTest(
  'a closed window that is no longer answered for ends in ETIMEDOUT (RFC 9293 §3.8.3)',
  (net) => {
    const c = closed(established(net))
    net.wait(120_000)
    c.expectEvent(M.EVENT_RESET, S.STATUS_ETIMEDOUT)
    c.drain()
    c.expectNothing(60_000)
    net.expectClean()
  },
  { userTimeoutMs: 30_000 },
)

tcpTest("a peer that takes the probe's byte and stays closed gets the next one", (net) => {
  const c = closed(established(net))
  for (let seq = 101; seq < 110; seq++) {
    net.waitUntil(70_000, () => c.inbox.length > 0)
    c.expect({ seq, length: 1, payload: pattern(seq, 1) })
    c.send({ flags: 'A', ack: seq + 1, window: 0 })
  }
  c.send({ flags: 'A', ack: 110, window: 5000 })
  c.expect({ seq: 110, payload: pattern(110, 991) })
  c.send({ flags: 'A' })
})

tcpTest('answers to probes are no duplicate ACKs: nothing is retransmitted (RFC 5681 §2)', (net) => {
  const c = closed(established(net))
  c.expect({ seq: 101, length: 1, after: 200 })
  for (let i = 0; i < 10; i++) c.send({ flags: 'A', ack: 101, window: 0 })
  c.expectNothing(300)
  if (net.card.counter('tcpFastRetransmits') !== 0) net.fail('fast retransmit')
})

tcpTest('a window that closes over data on its way: probes, and all arrives after it opens', (net) => {
  const c = established(net)
  c.write(5840)
  c.data()
  c.send({ flags: 'A', ack: 1461, window: 0 })
  net.wait(3000)
  for (const { seq, length } of c.drain()) if (seq !== 1461 || length !== 1) net.fail(`sent ${length} at ${seq}`)
  c.send({ flags: 'A', ack: 1461, window: 60_000 })
  const sent = c.data()
  if (JSON.stringify(sent) !== '[[1461,1460],[2921,1460],[4381,1460]]') net.fail(`sent ${JSON.stringify(sent)}`)
  c.send({ flags: 'A' })
})

tcpTest('a FIN behind a closed window arrives although it is lost at first', (net) => {
  const c = established(net)
  c.send({ flags: 'A', window: 0 })
  c.end()
  c.expect({ flags: 'FA', seq: 1, length: 0 })
  net.waitUntil(5000, () => c.inbox.length > 0)
  c.expect({ flags: 'FA', seq: 1, length: 0 })
  c.send({ flags: 'A', ack: 2, window: 0 })
  c.expectNothing(5000)
})

tcpTest('data and FIN behind a closed window: probes, then all of it', (net) => {
  const c = closed(established(net))
  c.end()
  c.expect({ seq: 101, length: 1, after: 200 })
  c.send({ flags: 'A', ack: 101, window: 0 })
  c.close()
  net.waitUntil(1000, () => c.inbox.length > 0)
  c.expect({ seq: 101, length: 1 })
  c.send({ flags: 'A', ack: 101, window: 5000 })
  c.expect({ flags: 'FA', seq: 101, length: 1000 })
  c.send({ flags: 'A' })
})

tcpTest(
  'after close a closed window is waited for only as long as the user timeout (RFC 6429 §3)',
  (net) => {
    const c = closed(established(net))
    c.close()
    for (let seconds = 0; seconds < 120; seconds++) {
      net.wait(1000)
      for (const _ of c.drain()) c.send({ flags: 'A', ack: 101, window: 0 })
    }
    c.drain()
    net.expectClean()
  },
  { userTimeoutMs: 30_000 },
)

// ── credit of the host ──

tcpTest('credit comes back as the peer acknowledges, all of it in the end', (net) => {
  const c = established(net)
  const granted = c.sendCredit
  let written = 0
  for (let round = 0; round < 20; round++) {
    c.write(20_000, { from: written + 1 })
    c.sendCredit -= 20_000
    written += 20_000
    for (let guard = 0; guard < 100 && c.rcvNxt < written + 1; guard++) {
      c.drain()
      c.send({ flags: 'A' })
    }
    if (c.rcvNxt !== written + 1) net.fail(`stopped at ${c.rcvNxt}`)
    if (c.sendCredit < 20_000) net.fail(`credit of ${c.sendCredit} left`)
  }
  c.drain()
  // What is not worth a message yet is less than a quarter.
  if (c.sendCredit < (granted * 3) / 4) net.fail(`credit of ${c.sendCredit} of ${granted}`)
})

tcpTest('all of the credit may be used from the first byte on', (net) => {
  for (const state of [established, connected]) {
    const c = state(net)
    c.write(c.sendCredit)
    c.expectQuietHost()
    c.drain()
  }
})

tcpTest('a writer beyond its credit loses the connection, and its peer is told (abi/messages.ts)', (net) => {
  const c = established(net)
  c.write(c.sendCredit)
  c.data()
  c.write(1)
  c.expect({ flags: 'RA' })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ENOBUFS)
  net.expectClean()
})

tcpTest('data after FIN is a counted mistake and is not sent', (net) => {
  const c = established(net)
  c.end()
  c.expect({ flags: 'FA' })
  c.write('late')
  c.expectNothing(100)
  if (net.card.counter('commandsBad') !== 1) net.fail('not counted')
  c.send({ flags: 'A' })
})

tcpTest('an empty write sends nothing', (net) => {
  const c = established(net)
  c.write('')
  c.expectNothing(1000)
})

tcpTest('a write of 64 KiB in one record arrives whole', (net) => {
  const c = established(net)
  c.write(65536)
  let got = 1
  for (let guard = 0; guard < 100 && got < 65537; guard++) {
    for (const { seq, payload } of c.drain()) {
      if (Buffer.compare(payload, pattern(seq, payload.length)) !== 0) net.fail(`bytes at ${seq} differ`)
      got = Math.max(got, seq + payload.length)
    }
    c.send({ flags: 'A', ack: got })
  }
  if (got !== 65537) net.fail(`${got}`)
})
