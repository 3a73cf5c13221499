import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { ipNumber, tcpOptions } from './support/packets.ts'
import { Conn, type Expect, type PeerOptions, type TcpNet, tcpTest } from './support/tcp-script.ts'
import { connected, established, synReceived, synSent, unattached } from './support/tcp-states.ts'

// ── passive open, RFC 9293 §3.5, §3.10.7.2 ──

tcpTest('SYN to a listening port is answered with SYN-ACK, and the ACK establishes (RFC 9293 §3.5)', (net) => {
  const c = established(net)
  c.send({ flags: 'PA', payload: 'hello' })
  c.expect({ flags: 'A', seq: 1, ack: 6, length: 0, after: 40 })
  c.expectRead('hello')
})

tcpTest('SYN-ACK offers our MSS alone to a peer that offers nothing', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net, { mss: null })
  c.sendSyn()
  c.expect({ flags: 'SA', mss: 1460, windowScale: null, sackPermitted: null, timestamps: null })
})

tcpTest('sequence numbers wrap within the handshake and after it (RFC 9293 §3.4)', (net) => {
  const c = established(net, { iss: 0xffffffff })
  c.send({ flags: 'PA', payload: 'abc' })
  c.expect({ flags: 'A', ack: 4, after: 40 })
  c.expectRead('abc')
})

tcpTest('SYN to a closed port is refused with RST of its number (RFC 9293 §3.10.7.1)', (net) => {
  const c = new Conn(net, { cardPort: 81 })
  c.sendSyn()
  c.expect({ flags: 'RA', seq: 0, ack: 1, length: 0 })
  c.expectNothing(5000)
})

tcpTest('ACK to a closed port is answered with RST at its acknowledgement number (RFC 9293 §3.10.7.1)', (net) => {
  const c = new Conn(net, { cardPort: 81 })
  c.send({ flags: 'A', seq: 5, ack: 777 })
  c.expect({ flags: 'R', seq: 777, length: 0 })
})

tcpTest('data and FIN to a closed port count in the RST (RFC 9293 §3.10.7.1)', (net) => {
  const c = new Conn(net, { cardPort: 81 })
  c.send({ flags: 'F', seq: 5, payload: 'abc' })
  c.expect({ flags: 'RA', seq: 0, ack: 9 })
})

tcpTest('RST to a closed or a listening port is never answered (RFC 9293 §3.10.7.1, §3.10.7.2)', (net) => {
  net.listen({ port: 80 })
  for (const cardPort of [80, 81]) {
    const c = new Conn(net, { cardPort })
    for (const flags of ['R', 'RA', 'SR', 'SRA', 'FR']) c.send({ flags, seq: 1, ack: 1 })
    c.expectNothing(3000)
  }
})

tcpTest('ACK to a listening port without a connection is reset (RFC 9293 §3.10.7.2)', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net)
  c.send({ flags: 'A', seq: 5, ack: 777 })
  c.expect({ flags: 'R', seq: 777 })
  c.send({ flags: 'SA', seq: 5, ack: 888 })
  c.expect({ flags: 'R', seq: 888 })
})

tcpTest('segments without SYN, ACK or RST to a listening port are dropped (RFC 9293 §3.10.7.2)', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net)
  for (const flags of ['', 'F', 'P', 'U', 'FPU']) c.send({ flags, seq: 1, payload: 'x' })
  c.expectNothing(3000)
})

tcpTest('data on the SYN is not acknowledged and comes again (RFC 9293 §3.10.7.2)', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net)
  c.sendSyn('S', { seq: 0, payload: 'early' })
  c.sndNxt = 1
  c.expect({ flags: 'SA', ack: 1 })
  c.send({ flags: 'PA', payload: 'early' })
  c.expect({ flags: 'A', ack: 6, after: 40 })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('early')
})

tcpTest('FIN on the SYN does not count, the one after the handshake does', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net)
  c.sendSyn('SF', { seq: 0 })
  c.sndNxt = 1
  c.expect({ flags: 'SA', ack: 1 })
  c.send({ flags: 'FA' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectEnd()
  c.expect({ flags: 'A', ack: 2, after: 40 })
})

tcpTest('the ACK of the handshake may carry data and FIN (RFC 9293 §3.10.7.4)', (net) => {
  const c = synReceived(net)
  c.send({ flags: 'FPA', payload: 'all' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('all')
  c.expectEnd()
  c.expect({ flags: 'A', ack: 5, after: 40 })
})

tcpTest('a repeated SYN is answered with the same SYN-ACK (RFC 9293 §3.10.7.4)', (net) => {
  const c = synReceived(net)
  const irs = c.irs
  c.sendSyn('S', { seq: 0 })
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  if (c.irs !== irs) net.fail('another initial sequence number')
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest('SYN-ACK is repeated after 1, 2, 4, 8, 16 s and given up in silence (RFC 9293 §3.8.3, RFC 6298 §5)', (net) => {
  const c = synReceived(net)
  for (const after of [1000, 2000, 4000, 8000, 16000]) c.expect({ flags: 'SA', seq: 0, ack: 1, after })
  c.expectNothing(120_000)
  net.expectClean()
  c.expectQuietHost()
})

tcpTest('in SYN-RECEIVED an ACK of something else is reset and the endpoint stays (RFC 9293 §3.10.7.4)', (net) => {
  const c = synReceived(net)
  for (const ack of [0, 2, 1000, -5]) {
    c.send({ flags: 'A', ack, seq: 1 })
    c.expect({ flags: 'R', seq: ack, length: 0 })
  }
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest(
  'in SYN-RECEIVED a RST at RCV.NXT ends the endpoint, and the host hears nothing (RFC 9293 §3.10.7.4)',
  (net) => {
    const c = synReceived(net)
    c.send({ flags: 'R', seq: 1 })
    c.expectNothing(10_000)
    c.expectQuietHost()
    net.expectClean()
  },
)

tcpTest('in SYN-RECEIVED a RST elsewhere in the window is challenged, outside it ignored (RFC 5961 §3.2)', (net) => {
  const c = synReceived(net)
  c.send({ flags: 'R', seq: 500 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  c.send({ flags: 'R', seq: 100_000 })
  c.send({ flags: 'R', seq: 0 })
  c.expectNothing(500)
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest('in SYN-RECEIVED a segment outside the window is answered with an ACK (RFC 9293 §3.10.7.4)', (net) => {
  const c = synReceived(net)
  c.send({ flags: 'A', seq: 70_000, payload: 'x' })
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  c.expect({ flags: 'SA', after: 1000 })
})

tcpTest('a SYN with a new number in SYN-RECEIVED gets an ACK, so that the peer can reset (RFC 9293 §3.5.1)', (net) => {
  const c = synReceived(net)
  c.send({ flags: 'S', seq: -70_000 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  // The peer in SYN-SENT sees an ACK that is none of its own and resets.
  c.send({ flags: 'R', seq: 1 })
  net.expectClean()
  c.iss = (c.iss - 70_000) >>> 0
  c.sndNxt = 0
  c.sendSyn()
  c.expect({ flags: 'SA', ack: 1 })
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest(
  'a SYN from a host that cannot be reached is dropped',
  (net) => {
    net.listen({ port: 80 })
    const c = new Conn(net, { peer: { port: 0, mac: '02:00:00:00:aa:77', ip: '10.9.8.7' } })
    c.sendSyn()
    c.expectNothing(1000)
    net.expectClean()
  },
  { interfaces: [{ address: '192.0.2.1', prefix: 24, mac: '02:00:00:00:00:01' }] },
)

tcpTest('a SYN from a neighbour that never answers ARP does not stay for ever', (net) => {
  net.listen({ port: 80 })
  const c = new Conn(net, { peer: { port: 0, mac: '02:00:00:00:aa:77', ip: '192.0.2.77' } })
  c.sendSyn()
  c.expectNothing(120_000)
  net.expectClean()
})

tcpTest('a SYN-ACK that waits for ARP goes out once the neighbour answers', (net) => {
  net.listen({ port: 80 })
  const peer = { port: 0, mac: '02:00:00:00:aa:77', ip: '192.0.2.77' }
  net.neighbors.push(peer)
  const c = new Conn(net, { peer })
  c.sendSyn()
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  c.send({ flags: 'PA', payload: 'x' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expect({ flags: 'A', ack: 2, after: 40 })
})

// ── active open, RFC 9293 §3.10.1, §3.10.7.3 ──

tcpTest('connect sends SYN with all our options and the ACK of SYN-ACK establishes', (net) => {
  const c = new Conn(net, { cardPort: 0, peerPort: 9000 })
  c.cookie = net.cookie()
  net.control({ op: M.OP_CONNECT, socket: c.cookie, a: ipNumber(c.peer.ip), b: 9000, fields: [0, 0] })
  c.expect({ flags: 'S', seq: 0, mss: 1460, windowScale: 7, sackPermitted: true, timestamps: true })
  c.sendSyn('SA')
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0, timestamps: null })
  const event = c.expectEvent(M.EVENT_CONNECTED, S.STATUS_OK)
  if (event.localPort !== c.cardPort || event.remotePort !== 9000) net.fail('ports of the event')
  if (event.localAddress !== ipNumber('192.0.2.1')) net.fail('address of the event')
  c.write('hi')
  c.expect({ flags: 'PA', seq: 1, payload: 'hi' })
})

tcpTest("connect from a port of the host's choice", (net) => {
  const c = synSent(net, { cardPort: 5555 })
  if (c.cardPort !== 5555) net.fail(`port ${c.cardPort}`)
})

tcpTest(
  'SYN is repeated for 3 minutes at least, then connect fails with ETIMEDOUT (RFC 9293 §3.8.3, MUST-23)',
  (net) => {
    const c = synSent(net)
    for (const seconds of [1, 2, 4, 8, 16, 32, 60, 60]) c.expect({ flags: 'S', seq: 0, after: seconds * 1000 })
    c.expectQuietHost(59_000)
    net.wait(2000)
    c.expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_ETIMEDOUT)
    c.expectNothing(60_000)
    net.expectClean()
  },
)

tcpTest('RST that acknowledges our SYN refuses the connection (RFC 9293 §3.10.7.3)', (net) => {
  const c = synSent(net)
  c.send({ flags: 'RA', seq: 0, ack: 1 })
  c.expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_ECONNREFUSED)
  c.expectNothing(5000)
  net.expectClean()
})

for (const [name, segment] of Object.entries({
  'without ACK': { flags: 'R', seq: 0 },
  'that acknowledges nothing of ours': { flags: 'RA', seq: 0, ack: 2 },
  'that acknowledges our ISS': { flags: 'RA', seq: 0, ack: 0 },
})) {
  tcpTest(`in SYN-SENT a RST ${name} is ignored (RFC 9293 §3.10.7.3)`, (net) => {
    const c = synSent(net)
    c.send(segment)
    c.expectNothing(500)
    c.expectQuietHost()
    c.expect({ flags: 'S', seq: 0, after: 500 })
  })
}

tcpTest('in SYN-SENT an ACK of what was not sent is reset, and the SYN goes on (RFC 9293 §3.10.7.3)', (net) => {
  const c = synSent(net)
  for (const ack of [0, 2, 12345]) {
    c.send({ flags: 'A', seq: 0, ack })
    c.expect({ flags: 'R', seq: ack, length: 0 })
    c.send({ flags: 'SA', seq: 0, ack })
    c.expect({ flags: 'R', seq: ack, length: 0 })
  }
  c.sendSyn('SA')
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  c.expectEvent(M.EVENT_CONNECTED)
})

tcpTest('in SYN-SENT an ACK without SYN changes nothing (RFC 9293 §3.10.7.3)', (net) => {
  const c = synSent(net)
  c.send({ flags: 'A', seq: 0, ack: 1 })
  c.send({ flags: 'FA', seq: 0, ack: 1 })
  c.expectNothing(500)
  c.expect({ flags: 'S', seq: 0, after: 500 })
})

tcpTest('data and FIN on the SYN-ACK are taken (RFC 9293 §3.10.7.3)', (net) => {
  const c = synSent(net)
  c.sendSyn('SAF', { payload: 'greeting' })
  c.expect({ flags: 'A', seq: 1, ack: 10, length: 0 })
  c.expectEvent(M.EVENT_CONNECTED)
  c.expectRead('greeting')
  c.expectEnd()
})

tcpTest(
  "more data on the SYN-ACK than the SYN's window is cut at the window",
  (net) => {
    const c = synSent(net)
    c.sendSyn('SA', { seq: 0, payload: 1000 })
    c.expect({ flags: 'A', seq: 1, ack: 501 })
    c.send({ flags: 'A', seq: 501, payload: 100 })
    c.expect({ flags: 'A', ack: 501, window: 0 })
  },
  { receiveCredit: 500 },
)

tcpTest('a repeated SYN-ACK is answered with an ACK (RFC 9293 §3.10.7.4, RFC 5961 §4.2)', (net) => {
  const c = connected(net)
  c.sendSyn('SA', { seq: 0 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
})

tcpTest('simultaneous open: SYN meets SYN, both answer SYN-ACK (RFC 9293 §3.5, figure 7)', (net) => {
  const c = synSent(net)
  c.sendSyn('S')
  c.expect({ flags: 'SA', seq: 0, ack: 1, length: 0 })
  c.expectQuietHost()
  c.sendSyn('SA', { seq: 0, ack: 1 })
  c.expectEvent(M.EVENT_CONNECTED)
  // Whether it acknowledges once more is its own affair.
  c.drain()
  c.write('x')
  c.expect({ flags: 'A', seq: 1, ack: 1, payload: 'x' })
})

tcpTest('simultaneous open: an ACK alone establishes too', (net) => {
  const c = synSent(net)
  c.sendSyn('S')
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  c.send({ flags: 'PA', payload: 'x' })
  c.expectEvent(M.EVENT_CONNECTED)
  c.expectRead('x')
  c.expect({ flags: 'A', seq: 1, ack: 2, after: 40 })
})

tcpTest('simultaneous open without an end: SYN-ACK is repeated, then connect fails with ETIMEDOUT', (net) => {
  const c = synSent(net)
  c.sendSyn('S')
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  net.wait(200_000)
  const repeats = c.drain()
  if (repeats.length < 3 || repeats.some(({ flags }) => flags !== 'SA')) net.fail('SYN-ACK was not repeated')
  c.expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_ETIMEDOUT)
  net.expectClean()
})

tcpTest('simultaneous open: RST at RCV.NXT refuses (RFC 9293 §3.10.7.4)', (net) => {
  const c = synSent(net)
  c.sendSyn('S')
  c.expect({ flags: 'SA' })
  c.send({ flags: 'R', seq: 1 })
  c.expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_ECONNREFUSED)
  net.expectClean()
})

tcpTest('a cancelled connect sends no more, and its answer is reset', (net) => {
  const c = synSent(net)
  net.control({ op: M.OP_CANCEL, socket: c.cookie })
  c.expectNothing(5000)
  net.expectClean()
  c.sendSyn('SA')
  c.expect({ flags: 'R', seq: 1 })
  c.expectQuietHost()
})

tcpTest(
  'a connect that cannot be routed or has no neighbour fails (RFC 1122 §4.2.3.9)',
  (net) => {
    const call = (ip: string) => {
      const c = new Conn(net, { peer: { port: 0, mac: '02:00:00:00:aa:77', ip }, cardPort: 0 })
      c.cookie = net.cookie()
      net.control({ op: M.OP_CONNECT, socket: c.cookie, a: ipNumber(ip), b: 9, fields: [0, 0] })
      return c
    }
    call('10.1.2.3').expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_ENETUNREACH)
    call('224.0.0.1').expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_EINVAL)
    const c = call('192.0.2.99')
    net.wait(10_000)
    c.expectEvent(M.EVENT_CONNECT_FAILED, S.STATUS_EHOSTUNREACH)
    net.expectClean()
  },
  { interfaces: [{ address: '192.0.2.1', prefix: 24, mac: '02:00:00:00:00:01' }] },
)

tcpTest('connect to a closed port of our own is refused; to an open one it connects', (net) => {
  net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const call = (port: number) => {
    const cookie = net.cookie()
    net.control({ op: M.OP_CONNECT, socket: cookie, a: ipNumber('192.0.2.1'), b: port, fields: [0, 0] })
    net.wait(100)
    return cookie
  }
  const refused = call(81)
  const failed = net.event(M.EVENT_CONNECT_FAILED)
  if (failed?.cookie !== refused || failed.status !== S.STATUS_ECONNREFUSED) net.fail('not refused')
  const cookie = call(80)
  const opened = net.event(M.EVENT_CONNECTED)
  if (opened?.cookie !== cookie || !net.event(M.EVENT_ACCEPTED)) net.fail('not connected')
})

// ── options, RFC 9293 §3.2, RFC 7323 ──

/** SYN with raw option bytes; what the SYN-ACK must be. */
const OPTION_CASES: Record<string, { options: Uint8Array; want: Expect }> = {
  'no options': { options: Uint8Array.of(), want: { windowScale: null, sackPermitted: null, timestamps: null } },
  'only padding': { options: Uint8Array.of(1, 1, 1, 0), want: { windowScale: null, timestamps: null } },
  'an unknown option before MSS and scale': {
    options: Uint8Array.of(200, 6, 1, 2, 3, 4, 2, 4, 5, 0xb4, 3, 3, 2, 1),
    want: { windowScale: 7 },
  },
  'an option of length 0': {
    options: Uint8Array.of(3, 3, 2, 8, 0, 4, 2, 1),
    want: { windowScale: 7, sackPermitted: null },
  },
  'an option of length 1': {
    options: Uint8Array.of(3, 3, 2, 8, 1, 4, 2, 1),
    want: { windowScale: 7, sackPermitted: null },
  },
  'an option that runs past the header': {
    options: Uint8Array.of(4, 2, 3, 40),
    want: { sackPermitted: true, windowScale: null },
  },
  'a kind without a length as the last byte': { options: Uint8Array.of(1, 1, 1, 8), want: { timestamps: null } },
  'options after the end of options': { options: Uint8Array.of(0, 4, 2, 1), want: { sackPermitted: null } },
  'scale of length 4': { options: Uint8Array.of(3, 4, 2, 2), want: { windowScale: null } },
  'MSS of length 3': { options: Uint8Array.of(2, 3, 5, 1), want: { mss: 1460 } },
  'timestamps of length 9': { options: Uint8Array.of(8, 9, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1), want: { timestamps: null } },
  'SACK blocks on a SYN': {
    options: Uint8Array.of(5, 10, 0, 0, 0, 1, 0, 0, 0, 9, 1, 1),
    want: { sackPermitted: null },
  },
  'every option twice': {
    options: Uint8Array.of(2, 4, 2, 0, 2, 4, 5, 0xb4, 3, 3, 2, 3, 3, 5, 4, 2, 4, 2, 1, 1),
    want: { windowScale: 7, sackPermitted: true },
  },
}

for (const [name, { options, want }] of Object.entries(OPTION_CASES)) {
  tcpTest(`SYN with ${name} (RFC 9293 §3.1, MUST-7, MUST-64)`, (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const c = new Conn(net)
    c.sendSyn('S', { options })
    c.expect({ flags: 'SA', ack: 1, ...want })
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
  })
}

/** Lets the application write much and returns the longest segment. */
function longestSegment(c: Conn): number {
  c.write(4000)
  return Math.max(...c.data().map(([, length]) => length))
}

const MSS_CASES: [name: string, peer: PeerOptions, expected: number][] = [
  ['none is 536 (RFC 9293 §3.7.1, MUST-15)', { mss: null }, 536],
  ['1000 is kept to', { mss: 1000 }, 1000],
  ['9000 is cut to our own MTU', { mss: 9000 }, 1460],
  ['65535 is cut to our own MTU', { mss: 65535 }, 1460],
  ['0 is raised to 88', { mss: 0 }, 88],
  ['1 is raised to 88', { mss: 1 }, 88],
  ['1460 leaves 1448 with timestamps (RFC 6691 §2)', { mss: 1460, timestamps: true }, 1448],
  ['88 leaves 76 with timestamps', { mss: 88, timestamps: true }, 76],
]

for (const [name, peer, expected] of MSS_CASES) {
  for (const [open, state] of Object.entries({ passive: established, active: connected })) {
    tcpTest(`MSS of ${name}, ${open} open`, (net) => {
      const c = state(net, peer)
      const longest = longestSegment(c)
      if (longest !== expected) net.fail(`segments of ${longest} bytes, not ${expected}`)
    })
  }
}

tcpTest(
  'our MSS option follows the MTU of the interface',
  (net) => {
    net.listen({ port: 80 })
    const c = new Conn(net)
    c.sendSyn()
    c.expect({ flags: 'SA', mss: 536 })
  },
  { interfaces: [{ address: '192.0.2.1', prefix: 24, mtu: 576, mac: '02:00:00:00:00:01' }] },
)

tcpTest('the window of SYN and SYN-ACK is never scaled (RFC 7323 §2.2)', (net) => {
  const c = established(net, { windowScale: 7, window: 100 })
  // The peer's next window of 100 means 12800.
  c.write(20_000)
  const sent = c.data().reduce((sum, [, length]) => sum + length, 0)
  if (sent < 12_800 - 1460 || sent > 12_800) net.fail(`${sent} bytes sent into a window of 12800`)
})

tcpTest('a window scale of more than 14 counts as 14 (RFC 7323 §2.3)', (net) => {
  // 1 << 14 = 16384 bytes; taken as 15 or more it would be 32768.
  const c = established(net, { windowScale: 255, window: 1 })
  c.write(40_000)
  const sent = c.data().reduce((sum, [, length]) => sum + length, 0)
  if (sent > 16_384 || sent < 13_000) net.fail(`${sent} bytes sent into a window of 16384`)
})

tcpTest('a peer without window scaling never sees a scaled window (RFC 7323 §2.2)', (net) => {
  const c = unattached(net)
  c.send({ flags: 'PA', payload: 1000 })
  c.expectEvent(M.EVENT_ACCEPTED)
  const seen = c.expect({ flags: 'A', ack: 1001, after: 40 })
  if (seen.window !== 65535) net.fail(`window ${seen.window}`)
})

tcpTest('with scaling our window can exceed 64 KiB', (net) => {
  const c = unattached(net, { windowScale: 2 })
  c.send({ flags: 'PA', payload: 1000 })
  const seen = c.expect({ flags: 'A', ack: 1001, after: 40 })
  const bytes = seen.window * 128
  if (bytes < 0x40000 - 1000 - 128 || bytes > 0x40000) net.fail(`window of ${bytes} bytes`)
})

tcpTest('scale, SACK and timestamps on a segment without SYN mean nothing', (net) => {
  const c = established(net)
  const options = tcpOptions({ mss: 100, windowScale: 9, sackPermitted: true, timestamps: [1, 2] })
  c.send({ flags: 'A', options, window: 2000 })
  c.write(4000)
  const sent = c.data()
  if (sent[0]?.[1] !== 1460 || sent.length !== 1) net.fail(`sent ${JSON.stringify(sent)} into a window of 2000`)
})

/** The settings of a board can take options away. */
const SWITCHES: [name: string, flag: number, want: Expect][] = [
  ['timestamps', 1, { timestamps: null, windowScale: 7, sackPermitted: true }],
  ['SACK', 2, { sackPermitted: null, windowScale: 7, timestamps: true }],
  ['window scale', 4, { windowScale: null, sackPermitted: true, timestamps: true }],
]
for (const [name, flags, want] of SWITCHES) {
  tcpTest(
    `a board without ${name} neither offers nor accepts it`,
    (net: TcpNet) => {
      const all = { windowScale: 3, sack: true, timestamps: true }
      net.listen({ port: 80 })
      const passive = new Conn(net, all)
      passive.sendSyn()
      passive.expect({ flags: 'SA', ...want })
      const active = new Conn(net, { cardPort: 0, peerPort: 9000 })
      active.cookie = net.cookie()
      net.control({ op: M.OP_CONNECT, socket: active.cookie, a: ipNumber(active.peer.ip), b: 9000, fields: [0, 0] })
      active.expect({ flags: 'S', ...want })
    },
    { flags },
  )
}
