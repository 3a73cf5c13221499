/** Keep-alive (RFC 9293 §3.8.4) and ICMP errors (RFC 1122 §4.2.3.9, RFC 5461, RFC 5927, RFC 1191). */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { between } from './support/lan.ts'
import { icmpFrame, ipv4, PROTOCOL_TCP, tcp } from './support/packets.ts'
import { type Conn, pattern, tcpTest } from './support/tcp-script.ts'
import { closeWait, connected, established, synReceived, synSent, unattached } from './support/tcp-states.ts'

// ── keep-alive ──

tcpTest('keep-alive is off if nobody asks for it (RFC 9293 §3.8.4, MUST-25)', (net) => {
  for (const state of [established, connected, unattached]) {
    const c = state(net)
    c.expectNothing(state === unattached ? 100_000 : 86_400_000)
  }
  net.lenient = true
})

tcpTest(
  'an idle connection is probed with one old number, and an answer starts the idle time again (RFC 9293 §3.8.4)',
  (net) => {
    const c = established(net)
    c.setOption(M.OPTION_KEEP_ALIVE, 60)
    for (let i = 0; i < 3; i++) {
      c.expect({ flags: 'A', seq: 0, ack: 1, length: 0, after: 60_000 })
      c.send({ flags: 'A' })
    }
    c.expectQuietHost()
  },
)

tcpTest('a dead peer is probed nine times, 75 s apart, then ETIMEDOUT', (net) => {
  const c = established(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 60)
  c.expect({ seq: 0, length: 0, after: 60_000 })
  for (let i = 0; i < 8; i++) c.expect({ seq: 0, length: 0, after: 75_000 })
  c.expectQuietHost(74_000)
  net.wait(2000)
  c.expectEvent(M.EVENT_RESET, S.STATUS_ETIMEDOUT)
  c.drain()
  net.expectClean()
})

tcpTest('a peer that has rebooted answers the probe with RST', (net) => {
  const c = established(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 60)
  c.expect({ seq: 0, after: 60_000 })
  c.send({ flags: 'R', seq: 1 })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
})

tcpTest('traffic puts the probe off', (net) => {
  const c = established(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 60)
  for (let i = 0; i < 5; i++) {
    net.wait(50_000)
    c.send({ flags: 'PA', payload: 1 })
    c.expect({ flags: 'A', after: 40 })
  }
  c.expect({ seq: 0, after: 59_960 })
  c.send({ flags: 'A' })
})

tcpTest('two hours are the idle time of the socket option (RFC 9293 §3.8.4, MUST-27)', (net) => {
  for (const state of [established, connected]) {
    const c = state(net, { socketOptions: M.SOCKET_OPTION_KEEP_ALIVE })
    c.expectNothing(7_199_000)
    c.expect({ seq: 0, after: 1000 })
    c.send({ flags: 'A' })
    c.abort()
    c.drain()
  }
})

tcpTest('keep-alive can be taken back', (net) => {
  const c = established(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 10)
  c.expect({ seq: 0, after: 10_000 })
  c.send({ flags: 'A' })
  c.setOption(M.OPTION_KEEP_ALIVE, 0)
  c.expectNothing(1_000_000)
})

tcpTest('data on its way is its own probe: keep-alive does not end what retransmission tries', (net) => {
  const c = established(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 1)
  c.write(100)
  net.wait(250_000)
  c.expectQuietHost()
  if (c.drain().some(({ seq }) => seq === 0)) net.fail('a probe')
})

tcpTest("the peer's keep-alive probes are answered, with and without a byte (RFC 1122 §4.2.3.6)", (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 0 })
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  c.send({ flags: 'A', seq: 0, payload: new Uint8Array(1) })
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  c.expectRead('')
})

tcpTest('a half-closed connection is kept alive too', (net) => {
  const c = closeWait(net)
  c.setOption(M.OPTION_KEEP_ALIVE, 60)
  c.expect({ seq: 0, ack: 2, after: 60_000 })
  c.send({ flags: 'A' })
})

tcpTest('an option that does not exist is a counted mistake', (net) => {
  const c = established(net)
  c.setOption(77, 1)
  if (net.card.counter('commandsBad') !== 1) net.fail('not counted')
})

// ── ICMP ──

interface Quote {
  code: number
  type?: number
  mtu?: number
  /** Relative; default SND.UNA as the script sees it. */
  seq?: number
  bytes?: number
}

/** A router sends an ICMP error about a segment of the card's. */
function icmpError(c: Conn, quote: Quote): void {
  const segment = tcp({
    ...between(c.card, c.peer),
    sourcePort: c.cardPort,
    destinationPort: c.peerPort,
    sequence: (c.irs + (quote.seq ?? c.rcvNxt)) >>> 0,
    flags: 'A',
  })
  const packet = ipv4({
    source: c.card.ip,
    destination: c.peer.ip,
    protocol: PROTOCOL_TCP,
    payload: segment.subarray(0, quote.bytes ?? 8),
    totalLength: 1500,
    dontFragment: true,
  })
  c.net.inject(
    0,
    icmpFrame({
      ...between(c.peer, c.card),
      source: '192.0.2.254',
      type: quote.type ?? 3,
      code: quote.code,
      rest: quote.mtu ?? 0,
      payload: packet,
    }),
  )
}

const HARD: [name: string, code: number, status: number][] = [
  ['net unreachable', 0, S.STATUS_ENETUNREACH],
  ['host unreachable', 1, S.STATUS_EHOSTUNREACH],
  ['protocol unreachable', 2, S.STATUS_ECONNREFUSED],
  ['port unreachable', 3, S.STATUS_ECONNREFUSED],
  ['prohibited', 13, S.STATUS_EHOSTUNREACH],
]
for (const [name, code, status] of HARD) {
  tcpTest(`ICMP ${name} ends an opening connection (RFC 5461 §2.1)`, (net) => {
    const c = synSent(net)
    icmpError(c, { code, seq: 0 })
    c.expectEvent(M.EVENT_CONNECT_FAILED, status)
    c.expectNothing(5000)
    net.expectClean()
  })

  tcpTest(`ICMP ${name} does not end an established connection (RFC 5927 §5.2)`, (net) => {
    const c = established(net)
    c.write(100)
    c.expect({ length: 100 })
    icmpError(c, { code, seq: 1 })
    c.expectQuietHost(100)
    c.expect({ seq: 1, length: 100, after: 100 })
    c.send({ flags: 'A' })
  })
}

tcpTest('ICMP time exceeded and source quench are soft everywhere (RFC 1122 §4.2.3.9, RFC 6633)', (net) => {
  const c = synSent(net)
  icmpError(c, { type: 11, code: 0, seq: 0 })
  icmpError(c, { type: 4, code: 0, seq: 0 })
  c.expectQuietHost(900)
  c.expect({ flags: 'S', after: 100 })
})

tcpTest('ICMP about a number that is not on its way is ignored (RFC 5927 §4.1)', (net) => {
  const c = synSent(net)
  for (const seq of [-1, 1, 1000, -100_000]) icmpError(c, { code: 3, seq })
  c.expectQuietHost(900)
  c.expect({ flags: 'S', after: 100 })
})

tcpTest('ICMP in SYN-RECEIVED of a passive open changes nothing', (net) => {
  const c = synReceived(net)
  icmpError(c, { code: 1, seq: 0 })
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest('fragmentation needed: smaller segments, and what was lost goes again at once (RFC 1191 §6.4)', (net) => {
  const c = established(net)
  c.write(5840)
  if (c.data().length !== 4) net.fail('not sent')
  icmpError(c, { code: 4, mtu: 1000, seq: 1 })
  const sent = c.data()
  if (sent[0]?.[0] !== 1 || sent.some(([, length]) => length > 960)) net.fail(`sent ${JSON.stringify(sent)}`)
  // The router complains about each of the others too; that says nothing new.
  for (const seq of [1461, 2921, 4381]) icmpError(c, { code: 4, mtu: 1000, seq })
  c.expectNothing()
  while (c.rcvNxt < 5841 || c.inbox.length > 0) {
    c.drain()
    c.send({ flags: 'A', ack: 5841 })
  }
  c.write(3000, { from: 5841 })
  for (const { length, seq, payload } of c.drain()) {
    if (length > 960) net.fail('a long segment again')
    if (Buffer.compare(payload, pattern(seq, length)) !== 0) net.fail('bytes differ')
  }
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest('fragmentation needed below 576 is taken for 576, above the MSS for nothing (RFC 5927 §7)', (net) => {
  const c = established(net)
  c.write(5840)
  c.data()
  icmpError(c, { code: 4, mtu: 9000, seq: 1 })
  c.expectNothing()
  icmpError(c, { code: 4, mtu: 68, seq: 1 })
  const sent = c.data()
  if (sent.length === 0 || sent.some(([, length]) => length > 536)) net.fail(`sent ${JSON.stringify(sent)}`)
  if (!sent.some(([, length]) => length === 536)) net.fail(`sent ${JSON.stringify(sent)}`)
  c.send({ flags: 'A', ack: 5841 })
})

tcpTest('fragmentation needed about an old number is ignored (RFC 5927 §7.2)', (net) => {
  const c = established(net)
  c.write(1460)
  c.data()
  c.send({ flags: 'A' })
  icmpError(c, { code: 4, mtu: 600, seq: 1 })
  c.write(1460, { from: 1461 })
  c.expect({ length: 1460 })
  c.send({ flags: 'A' })
})

tcpTest('fragmentation needed while recovering from a loss', (net) => {
  const c = established(net, { sack: true })
  c.write(14_600)
  c.data()
  c.send({ flags: 'A', ack: 1, sack: [[1461, 7301]] })
  c.drain()
  icmpError(c, { code: 4, mtu: 1000, seq: 1 })
  let got = 1
  const bytes = new Map<number, number>()
  for (let i = 0; i < 50 && got < 14_601; i++) {
    for (const [seq, length] of c.data()) bytes.set(seq, Math.max(length, bytes.get(seq) ?? 0))
    for (const [seq, length] of [...bytes, [1461, 5840] as const].sort(([a], [b]) => a - b)) {
      if (seq <= got) got = Math.max(got, seq + length)
    }
    c.send({ flags: 'A', ack: got })
    if (c.inbox.length === 0) net.wait(250)
  }
  if (got !== 14_601) net.fail(`stopped at ${got}`)
  c.drain()
})

tcpTest("ICMP that quotes too little, or a stranger's segment, is ignored", (net) => {
  const c = synSent(net)
  icmpError(c, { code: 3, seq: 0, bytes: 4 })
  const real = c.peerPort
  c.peerPort = 1
  icmpError(c, { code: 3, seq: 0 })
  c.peerPort = real
  c.expectQuietHost(900)
  c.expect({ flags: 'S', after: 100 })
})
