/** TIME-WAIT: RFC 9293 §3.6.1, §3.10.7.4; RFC 1337; RFC 6191; reuse of ports. */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { ipNumber } from './support/packets.ts'
import { type Conn, type TcpNet, tcpTest } from './support/tcp-script.ts'
import { connected, established, type StateOptions, timeWait } from './support/tcp-states.ts'

const STAMPED: StateOptions = { timestamps: true }

function records(net: TcpNet): number {
  return net.card.state('timeWaitUsed')
}

/** A SYN for a new incarnation, `distance` above the old connection's last number. */
function newSyn(c: Conn, distance: number, ts?: [number, number] | null): void {
  const options =
    ts === null || (ts === undefined && !c.stamped) ? { mss: 1460 } : { mss: 1460, timestamps: ts ?? [c.tsNow, 0] }
  c.send({ flags: 'S', seq: c.sndNxt + distance, options, ts: null })
}

tcpTest('a repeated FIN is acknowledged and starts the 2 MSL again (RFC 9293 §3.10.7.4)', (net) => {
  const c = timeWait(net)
  net.wait(40_000)
  c.send({ flags: 'FA', seq: 1, ack: 2 })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
  net.wait(40_000)
  if (records(net) !== 1) net.fail('TIME-WAIT is over')
  net.wait(21_000)
  net.expectClean()
})

tcpTest(
  "2 MSL are the board's setting",
  (net) => {
    timeWait(net)
    net.wait(1900)
    if (records(net) !== 1) net.fail('TIME-WAIT is over')
    net.wait(200)
    net.expectClean()
  },
  { mslMs: 1000 },
)

tcpTest('RST does not end TIME-WAIT (RFC 1337 §3)', (net) => {
  const c = timeWait(net)
  for (const seq of [2, 1, 100]) c.send({ flags: 'R', seq })
  c.send({ flags: 'RA', seq: 2, ack: 2 })
  c.expectNothing(1000)
  if (records(net) !== 1) net.fail('TIME-WAIT is over')
})

tcpTest('an ACK in order needs no answer; old data is answered (RFC 1337 §2)', (net) => {
  const c = timeWait(net)
  c.send({ flags: 'A', seq: 2, ack: 2 })
  c.expectNothing(100)
  c.send({ flags: 'A', seq: 1, ack: 1, payload: 1 })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
})

tcpTest('with timestamps the answer carries them', (net) => {
  const c = timeWait(net, STAMPED)
  net.wait(100)
  c.send({ flags: 'FA', seq: 1, ack: 2 })
  c.expect({ flags: 'A', seq: 2, ack: 2, timestamps: true })
})

tcpTest('two ends that disagree do not answer each other for ever', (net) => {
  const c = timeWait(net)
  let answers = 0
  for (let i = 0; i < 1000; i++) {
    c.send({ flags: 'A', seq: 77, ack: 2 })
    answers += c.drain().length
  }
  if (answers > 101) net.fail(`${answers} answers at one instant`)
})

// ── a new connection on the same four, RFC 6191 §2, RFC 9293 §3.6.1 ──

tcpTest('a SYN with a higher number opens a new connection (RFC 9293 §3.6.1)', (net) => {
  const c = timeWait(net)
  c.handle = 0
  const old = c.irs + 2
  newSyn(c, 1)
  c.expect({ flags: 'SA', seq: 0 })
  // The new ISS lies above all that the old connection used (RFC 1122 §4.2.2.13).
  if (((c.irs - old) | 0) <= 0) net.fail('ISS went back')
  if (records(net) !== 0) net.fail('the record stays')
})

tcpTest('the new ISS lies above the old numbers, however fast the old connection was', (net) => {
  const c = established(net, { windowScale: 7, window: 0xffff })
  let written = 0
  for (let round = 0; round < 60; round++) {
    c.write(60_000, { from: written + 1 })
    written += 60_000
    while (c.rcvNxt < written + 1) {
      c.drain()
      c.send({ flags: 'A' })
    }
  }
  c.end()
  c.drain()
  c.send({ flags: 'FA' })
  c.drain()
  const last = (c.irs + written + 2) >>> 0
  c.handle = 0
  newSyn(c, 1)
  c.expect({ flags: 'SA' })
  if (((c.irs - last) | 0) <= 0) net.fail(`ISS ${(c.irs - last) | 0} from the end of the old connection`)
})

tcpTest('an old SYN is answered with an ACK, and TIME-WAIT goes on (RFC 9293 §3.10.7.4)', (net) => {
  const c = timeWait(net)
  for (const distance of [0, -1, -100_000]) {
    newSyn(c, distance)
    c.expect({ flags: 'A', seq: 2, ack: 2 })
  }
  if (records(net) !== 1) net.fail('TIME-WAIT is over')
})

tcpTest('a SYN with a newer timestamp opens, whatever its number (RFC 6191 §2)', (net) => {
  const c = timeWait(net, STAMPED)
  net.wait(10)
  c.handle = 0
  newSyn(c, -100_000)
  c.expect({ flags: 'SA', timestamps: true })
})

tcpTest('a SYN with an older timestamp does not open, whatever its number (RFC 6191 §2)', (net) => {
  const c = timeWait(net, STAMPED)
  newSyn(c, 100_000, [c.tsNow - 1000, 0])
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  if (records(net) !== 1) net.fail('TIME-WAIT is over')
})

tcpTest('with the same timestamp the number decides (RFC 6191 §2)', (net) => {
  const c = timeWait(net, STAMPED)
  newSyn(c, 0, [c.tsNow, 0])
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  c.handle = 0
  newSyn(c, 1, [c.tsNow, 0])
  c.expect({ flags: 'SA' })
})

tcpTest('timestamps that are new to the pair open (RFC 6191 §2)', (net) => {
  const c = timeWait(net)
  c.handle = 0
  newSyn(c, -100_000, [1, 0])
  c.expect({ flags: 'SA', timestamps: true })
})

tcpTest('without timestamps after a stamped connection the number decides (RFC 6191 §2)', (net) => {
  const c = timeWait(net, STAMPED)
  newSyn(c, -1, null)
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  c.handle = 0
  newSyn(c, 1, null)
  c.expect({ flags: 'SA', timestamps: null })
})

tcpTest('a SYN to a port where nobody listens any more leaves TIME-WAIT alone', (net) => {
  const cookie = net.listen({ port: 8080, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const c = timeWait(net, { cardPort: 8080 })
  net.control({ op: M.OP_UNLISTEN, socket: cookie })
  newSyn(c, 100)
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  if (records(net) !== 1) net.fail('TIME-WAIT is over')
})

tcpTest('the new connection works from end to end', (net) => {
  const c = timeWait(net)
  c.handle = 0
  c.iss = (c.iss + 5000) >>> 0
  c.sndNxt = 0
  c.sendSyn()
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.write('again')
  c.expect({ seq: 1, payload: 'again' })
  c.send({ flags: 'A' })
})

// ── ports ──

/** Calls from a port of the card's own; the status if it fails, 0 if a SYN goes out. */
function call(net: TcpNet, c: Conn, port: number): number {
  const cookie = net.cookie()
  net.control({
    op: M.OP_CONNECT,
    socket: cookie,
    a: ipNumber(c.peer.ip),
    b: c.peerPort | (port << 16),
    fields: [0, 0],
  })
  return net.event(M.EVENT_CONNECT_FAILED)?.status ?? 0
}

/** Active open, active close: the card's port is in TIME-WAIT. */
function closedCall(net: TcpNet, options: StateOptions): Conn {
  const c = connected(net, { cardPort: 5000, ...options })
  c.end()
  c.expect({ flags: 'FA' })
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A' })
  if (records(net) !== 1) net.fail('no TIME-WAIT')
  return c
}

tcpTest('connect from a port in TIME-WAIT is refused without timestamps (RFC 9293 §3.6.1)', (net) => {
  const c = closedCall(net, {})
  net.wait(1000)
  if (call(net, c, 5000) !== S.STATUS_EADDRINUSE) net.fail('not refused')
  net.wait(60_000)
  if (call(net, c, 5000) !== 0) net.fail('refused after 2 MSL')
  c.expect({ flags: 'S' })
  net.lenient = true
})

tcpTest(
  'connect from a port in TIME-WAIT opens with timestamps, its numbers and clock above the old (RFC 6191)',
  (net) => {
    const c = closedCall(net, STAMPED)
    const old = c.irs + 2
    const clock = c.tsRecent
    net.wait(1000)
    if (call(net, c, 5000) !== 0) net.fail('refused')
    const syn = c.expect({ flags: 'S', timestamps: true })
    if (((c.irs - old) | 0) <= 0) net.fail('ISS went back')
    if (((syn.timestamps![0] - clock) | 0) <= 0) net.fail('the clock went back')
    if (records(net) !== 0) net.fail('the record stays')
    net.lenient = true
  },
)

tcpTest('connect from a port in use is refused', (net) => {
  const c = connected(net, { cardPort: 5000 })
  if (call(net, c, 5000) !== S.STATUS_EADDRINUSE) net.fail('not refused')
  if (call(net, c, 5001) !== 0) net.fail('refused')
  net.lenient = true
})

tcpTest(
  'more connections in TIME-WAIT than records: the oldest goes',
  (net) => {
    const conns: Conn[] = []
    for (let i = 0; i < 40; i++) conns.push(timeWait(net, { peerPort: 20_000 + i }))
    if (records(net) !== 16) net.fail(`${records(net)} records`)
    // The youngest still answers, the oldest is gone.
    conns.at(-1)!.send({ flags: 'FA', seq: 1, ack: 2 })
    conns.at(-1)!.expect({ flags: 'A', seq: 2, ack: 2 })
    conns[0]!.send({ flags: 'FA', seq: 1, ack: 2 })
    conns[0]!.expect({ flags: 'R', seq: 2 })
    net.wait(61_000)
    net.expectClean()
  },
  { maximumConnections: 8 },
)

tcpTest('200 connections in TIME-WAIT end in their order and all come back', (net) => {
  for (let i = 0; i < 200; i++) {
    const c = timeWait(net, { peerPort: 10_000 + i })
    if (i % 10 === 0) c.send({ flags: 'FA', seq: 1, ack: 2 })
    c.drain()
    net.wait(100)
  }
  net.wait(30_000)
  const during = records(net)
  net.wait(61_000)
  net.expectClean()
  if (during !== 200) net.fail(`${during} records`)
})
