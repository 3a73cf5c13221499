/** Retransmission by timer: RFC 6298, RFC 5681 §3.1, RFC 9293 §3.8.1, §3.8.3. */
import { BOOT_FLAG_NO_TAIL_PROBES } from '../abi/boot.ts'
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { type Conn, pattern, type Seen, type TcpNet, tcpTest } from './support/tcp-script.ts'
import { connected, established, lastAck, synReceived, synSent } from './support/tcp-states.ts'

/** Milliseconds between the segments that come, `count` of them. */
function gaps(c: Conn, count: number, from: Seen): number[] {
  const times = [from.timeNs / 1e6]
  for (let i = 0; i < count; i++) {
    if (!c.net.waitUntil(130_000, () => c.inbox.length > 0)) c.net.fail('no retransmission')
    times.push(c.expect({}).timeNs / 1e6)
  }
  return times.slice(1).map((time, i) => Math.round(time - times[i]!))
}

/** Writes `count` bytes and acknowledges them after `ms`: one sample of the round-trip time. */
function sample(c: Conn, ms: number, count = 10): void {
  c.write(count, { from: c.rcvNxt })
  c.expect({ length: count })
  c.net.wait(ms)
  c.send({ flags: 'A' })
  c.expectNothing()
}

tcpTest('data that is not acknowledged goes again after RTO, 2 RTO, 4 RTO, ... 60 s (RFC 6298 §5.5, §2.5)', (net) => {
  const c = established(net)
  c.write(100)
  const first = c.expect({ seq: 1, length: 100 })
  const found = gaps(c, 11, first)
  const expected = [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]
  if (found.some((gap, i) => Math.abs(gap - expected[i]!) > 2)) net.fail(`gaps ${found}`)
  c.send({ flags: 'A', ack: 101 })
  c.expectNothing(200_000)
})

tcpTest('the retransmission is what was sent', (net) => {
  const c = established(net)
  c.write(1460)
  c.expect({ seq: 1, length: 1460 })
  c.write(1460, { from: 1461 })
  c.expect({ seq: 1461, length: 1460 })
  c.expect({ seq: 1, payload: pattern(1, 1460), after: 200 })
  c.send({ flags: 'A', ack: 2921 })
  c.expectNothing(2000)
})

tcpTest('before any measurement the RTO is one second (RFC 6298 (2.1))', (net) => {
  const c = synReceived(net)
  c.expect({ flags: 'SA', after: 1000 })
})

tcpTest('the first measurement R makes RTO = R + 4 * R/2 (RFC 6298 (2.2))', (net) => {
  const c = synReceived(net)
  net.wait(500)
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.write(10)
  c.expect({ seq: 1, length: 10 })
  c.expect({ seq: 1, length: 10, after: 1500 })
  c.send({ flags: 'A' })
})

tcpTest('further measurements follow SRTT and RTTVAR (RFC 6298 (2.3))', (net) => {
  const c = synReceived(net)
  net.wait(400)
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
  let srtt = 400
  let rttvar = 200
  for (const ms of [100, 100, 300, 100, 100, 500, 20, 20]) {
    sample(c, ms)
    rttvar = 0.75 * rttvar + 0.25 * Math.abs(srtt - ms)
    srtt = 0.875 * srtt + 0.125 * ms
  }
  c.write(10, { from: c.rcvNxt })
  const found = gaps(c, 1, c.expect({ length: 10 }))[0]!
  const expected = Math.max(200, srtt + 4 * rttvar)
  if (Math.abs(found - expected) > 3) net.fail(`RTO ${found}, not ${expected}`)
  c.send({ flags: 'A' })
})

tcpTest(
  "the RTO has a lower bound, which is the board's setting (RFC 6298 (2.4))",
  (net) => {
    const c = established(net)
    for (let i = 0; i < 5; i++) sample(c, 1)
    c.write(10, { from: c.rcvNxt })
    c.expect({ length: 10 })
    c.expect({ length: 10, after: 500 })
    c.send({ flags: 'A' })
  },
  { rtoMinimumMs: 500 },
)

tcpTest('one segment a round trip is measured, and not the delay of its successors', (net) => {
  const c = established(net, { socketOptions: M.SOCKET_OPTION_NO_DELAY })
  for (let i = 0; i < 30; i++) {
    c.write(10, { from: c.rcvNxt })
    c.expect({ length: 10 })
    net.wait(50)
    c.write(10, { from: c.rcvNxt })
    c.expect({ length: 10 })
    net.wait(50)
    c.send({ flags: 'A' })
  }
  c.write(10, { from: c.rcvNxt })
  // Every sample is 100 ms, and the variance has faded.
  const found = gaps(c, 1, c.expect({ length: 10 }))[0]!
  if (found > 210) net.fail(`RTO ${found}`)
  c.send({ flags: 'A' })
})

tcpTest('Karn: an acknowledgement of what was retransmitted is no measurement (RFC 6298 §3)', (net) => {
  const c = established(net)
  for (let i = 0; i < 10; i++) sample(c, 100)
  c.write(10, { from: c.rcvNxt })
  const first = c.expect({ length: 10 })
  const rto = gaps(c, 1, first)[0]!
  // Acknowledged 5 ms after the second copy: taken for a sample, RTO would fall towards its minimum.
  net.wait(5)
  c.send({ flags: 'A' })
  c.write(10, { from: c.rcvNxt })
  const second = gaps(c, 1, c.expect({ length: 10 }))[0]!
  if (Math.abs(second - 2 * rto) > 3) net.fail(`RTO ${second} after ${rto}: not kept backed off`)
  c.send({ flags: 'A' })
})

tcpTest('the backed-off RTO falls back with the next measurement (RFC 6298 §5, end)', (net) => {
  const c = established(net)
  for (let i = 0; i < 10; i++) sample(c, 100)
  c.write(10, { from: c.rcvNxt })
  gaps(c, 3, c.expect({ length: 10 }))
  c.send({ flags: 'A' })
  sample(c, 100)
  c.write(10, { from: c.rcvNxt })
  const found = gaps(c, 1, c.expect({ length: 10 }))[0]!
  if (found > 250) net.fail(`RTO ${found}`)
  c.send({ flags: 'A' })
})

tcpTest('an acknowledgement of new data starts the timer again (RFC 6298 (5.3))', (net) => {
  const c = established(net)
  c.write(2920)
  c.data()
  net.wait(150)
  c.send({ flags: 'A', ack: 1461 })
  c.expectNothing(190)
  c.expect({ seq: 1461, length: 1460, after: 10 })
  c.send({ flags: 'A', ack: 2921 })
})

tcpTest('when all is acknowledged the timer is off (RFC 6298 (5.2))', (net) => {
  const c = established(net)
  c.write(2920)
  c.data()
  c.send({ flags: 'A', ack: 2921 })
  c.expectNothing(120_000)
})

tcpTest('sending more does not put the timer off (RFC 6298 (5.1))', (net) => {
  const c = established(net, { socketOptions: M.SOCKET_OPTION_NO_DELAY })
  c.write(10)
  c.expect({ seq: 1, length: 10 })
  net.wait(150)
  c.write(10, { from: 11 })
  c.expect({ seq: 11, length: 10 })
  c.expect({ seq: 1, after: 50 })
  c.send({ flags: 'A', ack: 21 })
})

tcpTest('after an RTO one segment goes, and slow start repeats the rest (RFC 5681 §3.1)', (net) => {
  const c = established(net)
  c.write(14_600)
  if (c.data().length !== 10) net.fail('initial window')
  c.expect({ seq: 1, length: 1460, after: 200 })
  c.expectNothing(100)
  c.send({ flags: 'A', ack: 1461 })
  if (JSON.stringify(c.data()) !== '[[1461,1460],[2921,1460]]') net.fail('not two after the first ACK')
  c.send({ flags: 'A', ack: 14_601 })
  c.expectNothing(5000)
})

tcpTest(
  'after an RTO what the peer has kept is not sent again if SACK says so (RFC 6675 §5.1)',
  (net) => {
    const c = established(net, { sack: true })
    c.write(14_600)
    c.data()
    c.send({ flags: 'A', ack: 1, sack: [[2921, 4381]] })
    c.data()
    // The reordering window passes, and the ACKs stop.
    c.expect({ seq: 1, length: 1460, after: 1 })
    c.drain()
    c.expect({ seq: 1, length: 1460, after: 200 })
    c.send({ flags: 'A', ack: 1461, sack: [[2921, 4381]] })
    const sent = c.data()
    if (JSON.stringify(sent) !== '[[1461,1460],[4381,1460]]') net.fail(`sent ${JSON.stringify(sent)}`)
    c.send({ flags: 'A', ack: 14_601 })
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest('a flight whose ACK is lost is probed after two round trips, not after RTO (RFC 8985 §7)', (net) => {
  const c = established(net, { sack: true })
  sample(c, 10)
  c.write(4380)
  c.data()
  // Twice the SRTT of 1.25 ms, on a clock of milliseconds.
  c.expect({ seq: 2931, length: 1460, after: 4 })
  c.send({ flags: 'A', ack: 4391 })
  c.expectNothing(1000)
})

tcpTest('a probe that shows a hole starts the recovery at once (RFC 8985 §7.4)', (net) => {
  const c = established(net, { sack: true })
  sample(c, 10)
  c.write(4380)
  c.data()
  c.expect({ seq: 2931, length: 1460, after: 4 })
  c.send({ flags: 'A', ack: 11, sack: [[2931, 4391]] })
  c.expect({ seq: 11, length: 1460, after: 0 })
  c.drain()
  c.send({ flags: 'A', ack: 4391 })
  c.expectNothing(1000)
})

tcpTest('two probes are sent; then the timer waits for RTO (RFC 8985 §7.3)', (net) => {
  const c = established(net, { sack: true })
  sample(c, 10)
  c.write(4380)
  c.data()
  c.expect({ seq: 2931, length: 1460, after: 4 })
  c.expect({ seq: 2931, length: 1460, after: 4 })
  c.expect({ seq: 11, length: 1460, after: 200 })
  c.send({ flags: 'A', ack: 4391 })
})

tcpTest('a lone segment is not probed before its ACK may have been delayed (RFC 8985 §7.2)', (net) => {
  const c = established(net, { sack: true })
  c.write(10)
  c.drain()
  c.expectNothing(190)
  c.send({ flags: 'A', ack: 11 })
})

tcpTest('the sooner a peer answers lone segments, the sooner one is probed', (net) => {
  const c = established(net, { sack: true })
  const probed: number[] = []
  for (let i = 0; i < 8; i++) {
    sample(c, 1)
    c.write(10, { from: c.rcvNxt })
    c.drain()
    const before = net.nowMs
    if (!net.waitUntil(210, () => c.inbox.length > 0)) net.fail('no probe')
    probed.push(net.nowMs - before)
    c.drain()
    c.send({ flags: 'A' })
  }
  // Half of 200 ms after one quick answer, and so on; twice the SRTT, on a clock of milliseconds.
  if (probed.join() !== '102,52,27,14,8,6,4,4') net.fail(`after ${probed} ms`)
})

tcpTest('after a loss a lone segment is probed soon: the peer is quick to answer then', (net) => {
  const c = established(net, { sack: true })
  c.write(10 * 1460)
  c.drain()
  c.send({ flags: 'A', ack: 1, sack: [[1461, 14_601]] })
  c.expect({ seq: 1, length: 1460 })
  net.wait(1)
  c.send({ flags: 'A', ack: 14_601 })
  c.write(10, { from: 14_601 })
  c.drain()
  c.expect({ seq: 14_601, length: 10, after: 4 })
  c.send({ flags: 'A', ack: 14_611 })
})

tcpTest('a peer that answers late after all is given the time again (RFC 8985 §7.4)', (net) => {
  const c = established(net, { sack: true })
  for (let i = 0; i < 8; i++) sample(c, 1)
  const start = c.rcvNxt
  c.write(10, { from: start })
  c.expect({ seq: start, length: 10 })
  c.expect({ seq: start, length: 10, after: 4 })
  // Both arrive: the ACK that was delayed, and one that says so.
  c.send({ flags: 'A' })
  c.send({ flags: 'A', sack: [[start, start + 10]] })
  c.write(10, { from: c.rcvNxt })
  c.drain()
  c.expectNothing(190)
  c.send({ flags: 'A' })
})

tcpTest('a peer that discards what it has SACKed gets it again (RFC 2018 §8)', (net) => {
  const c = established(net, { sack: true })
  c.write(5840)
  c.data()
  c.send({ flags: 'A', ack: 1, sack: [[1461, 5841]] })
  c.drain()
  net.wait(300)
  c.drain()
  // The first hole is filled, but of the rest it knows nothing any more.
  c.send({ flags: 'A', ack: 1461 })
  for (let ack = 1461; ack < 5841; ack += 1460) {
    if (!net.waitUntil(10_000, () => c.inbox.some(({ seq }) => seq === ack))) net.fail(`${ack} was not sent again`)
    c.drain()
    c.send({ flags: 'A', ack: ack + 1460 })
  }
  c.drain()
})

tcpTest(
  'the user timeout ends a connection whose peer is silent (RFC 9293 §3.8.3, R2)',
  (net) => {
    const c = established(net)
    c.write(100)
    c.expect({ length: 100 })
    net.wait(19_000)
    c.expectQuietHost()
    net.wait(20_000)
    c.expectEvent(M.EVENT_RESET, S.STATUS_ETIMEDOUT)
    c.drain()
    c.expectNothing(60_000)
    net.expectClean()
  },
  { userTimeoutMs: 20_000 },
)

tcpTest('the user timeout is 5 minutes if the board does not say (RFC 9293 §3.9.1: at least 100 s)', (net) => {
  const c = established(net)
  c.write(100)
  net.wait(295_000)
  c.expectQuietHost()
  net.wait(70_000)
  c.expectEvent(M.EVENT_RESET, S.STATUS_ETIMEDOUT)
  c.drain()
})

tcpTest(
  'progress puts the user timeout off',
  (net) => {
    const c = established(net)
    for (let i = 0; i < 20; i++) {
      c.write(100, { from: c.rcvNxt })
      net.wait(15_000)
      c.drain()
      c.send({ flags: 'A' })
    }
    c.expectQuietHost()
  },
  { userTimeoutMs: 20_000 },
)

tcpTest(
  'FIN in LAST-ACK goes again and is given up in the end',
  (net) => {
    const c = lastAck(net)
    c.expect({ flags: 'FA', seq: 1, after: 200 })
    c.expect({ flags: 'FA', seq: 1, after: 400 })
    net.wait(120_000)
    c.drain()
    net.expectClean()
  },
  { userTimeoutMs: 20_000 },
)

tcpTest('data and FIN go again together', (net) => {
  const c = established(net)
  c.write('bye', { fin: true })
  c.expect({ flags: 'FA', seq: 1, payload: 'bye' })
  c.expect({ flags: 'FA', seq: 1, payload: 'bye', after: 200 })
  c.send({ flags: 'A', ack: 4 })
  c.expect({ flags: 'FA', seq: 4, length: 0, after: 400 })
  c.send({ flags: 'A', ack: 5 })
  c.expectNothing(2000)
})

/** Opens with `losses` of our SYNs or SYN-ACKs lost. */
function lossyOpen(net: TcpNet, active: boolean, losses: number): Conn {
  const c = active ? synSent(net) : synReceived(net)
  for (let i = 0; i < losses; i++) c.expect({ flags: active ? 'S' : 'SA', after: 1000 << i })
  if (active) {
    c.sendSyn('SA')
    c.expect({ flags: 'A' })
    c.expectEvent(M.EVENT_CONNECTED)
  } else {
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
  }
  return c
}

for (const active of [false, true]) {
  const name = active ? 'SYN' : 'SYN-ACK'
  tcpTest(`after a lost ${name} the RTO starts at 3 s (RFC 6298 (5.7))`, (net) => {
    const c = lossyOpen(net, active, 1)
    c.write(10)
    c.expect({ seq: 1 })
    c.expect({ seq: 1, after: 3000 })
    c.send({ flags: 'A' })
  })

  tcpTest(`one lost ${name} leaves the initial window, two make it one segment (RFC 6928 §2, RFC 5681 §3.1)`, (net) => {
    for (const [losses, segments] of [
      [1, 10],
      [2, 1],
    ] as const) {
      const c = lossyOpen(net, active, losses)
      c.write(20_000)
      const sent = c.data().length
      if (sent !== segments) net.fail(`${sent} segments after ${losses} losses`)
      c.abort()
      c.expect({ flags: 'RA' })
    }
  })
}

tcpTest(
  'while a retransmission is under way, bare ACKs carry SND.NXT: an older number would be dropped (RFC 9293 §3.10.7.4)',
  (net) => {
    const c = established(net)
    c.write(14_600)
    c.data()
    c.expect({ seq: 1, length: 1460, after: 200 })
    // Both sides retransmit; the peer has all of our data, and only our ACKs can tell it that we have its own.
    c.send({ flags: 'A', payload: 100, ack: 1 })
    c.send({ flags: 'A', payload: 100, ack: 1 })
    c.expect({ flags: 'A', seq: 14_601, ack: 201, length: 0 })
    c.send({ flags: 'A', ack: 14_601 })
  },
)

tcpTest('behind a closed window, bare ACKs carry a number that the peer can accept', (net) => {
  const c = established(net)
  c.write(100)
  c.expect({ length: 100 })
  c.send({ flags: 'A', ack: 101, window: 0 })
  c.write(100, { from: 101 })
  c.expect({ seq: 101, length: 1, after: 200 })
  // The probe's byte is on its way, but the peer's window ends before it.
  c.send({ flags: 'A', payload: 10, ack: 101, window: 0 })
  c.send({ flags: 'A', payload: 10, ack: 101, window: 0 })
  c.expect({ flags: 'A', seq: 101, ack: 21, length: 0 })
  c.abort()
  c.expect({ flags: 'RA', seq: 101 })
})

tcpTest('a full transmit ring delays segments and loses none', (net) => {
  const conns = Array.from({ length: 60 }, (_, i) => established(net, { peerPort: 30_000 + i }))
  for (const c of conns) c.write(14_600)
  for (const c of conns) if (c.data().length !== 10) net.fail('segments missing')
  for (const c of conns) c.send({ flags: 'A' })
})

tcpTest(
  'the millisecond clock wraps after 49 days, and no timer notices',
  (net) => {
    const c = connected(net, { timestamps: true })
    for (let i = 0; i < 3; i++) {
      c.write(10, { from: c.rcvNxt })
      const seen = c.expect({ length: 10 })
      const again = gaps(c, 2, seen)
      if (again[0]! < 199 || again[0]! > 1000 || Math.abs(again[1]! - 2 * again[0]!) > 3) net.fail(`gaps ${again}`)
      c.send({ flags: 'A' })
      sample(c, 20)
      net.wait(1000)
    }
    c.end()
    c.expect({ flags: 'FA' })
    c.send({ flags: 'FA' })
    c.expect({ flags: 'A' })
    net.wait(61_000)
    net.expectClean()
  },
  { startMs: 0x100000000 - 4000 },
)
