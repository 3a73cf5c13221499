/** Unattached endpoints in the Temporary table, and what attaches them (SEED.md steps 1 and 2, PROTOCOL.md firstSpeaker). */
import * as M from '../abi/messages.ts'
import { Conn, pattern, type TcpNet, tcpTest } from './support/tcp-script.ts'
import { unattached } from './support/tcp-states.ts'

function opened(net: TcpNet, listen: Parameters<TcpNet['listen']>[0]): Conn {
  net.listen(listen)
  const c = new Conn(net, { cardPort: listen?.port ?? 80 })
  c.sendSyn()
  c.expect({ flags: 'SA' })
  c.send({ flags: 'A' })
  return c
}

function endpoints(net: TcpNet): number {
  return net.card.state('tcbUsed')
}

tcpTest('the main board hears nothing of a handshake, and of the request at once', (net) => {
  const c = unattached(net)
  c.expectQuietHost(1000)
  c.send({ flags: 'PA', payload: 'GET / HTTP/1.1\r\n\r\n' })
  const event = c.expectEvent(M.EVENT_ACCEPTED, 0)
  if (event.remotePort !== c.peerPort || event.localPort !== c.cardPort) net.fail('ports of the event')
  if (c.sendCredit === 0 || c.receiveCredit === 0) net.fail('no credit')
  c.expectRead('GET / HTTP/1.1\r\n\r\n')
  c.expect({ flags: 'A', ack: 19, after: 40 })
})

tcpTest('client: silence never places, and after the timeout the endpoint is reset', (net) => {
  const c = unattached(net)
  c.expectQuietHost(119_000)
  c.expectNothing()
  c.expect({ flags: 'RA', seq: 1, ack: 1, after: 1000 })
  c.expectQuietHost(1000)
  net.expectClean()
})

tcpTest(
  "client: the timeout is the board's setting",
  (net) => {
    const c = unattached(net)
    c.expect({ flags: 'RA', after: 3000 })
    net.expectClean()
  },
  { unattachedTimeoutMs: 3000 },
)

tcpTest('server: the handshake places, and the server speaks first', (net) => {
  const c = opened(net, { firstSpeaker: M.FIRST_SPEAKER_SERVER, port: 25 })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.write('220 ready\r\n')
  c.expect({ flags: 'A', seq: 1, payload: '220 ready\r\n' })
  c.send({ flags: 'A' })
})

tcpTest("auto: silence places after the board's 200 ms", (net) => {
  const c = opened(net, { firstSpeaker: M.FIRST_SPEAKER_AUTO })
  c.expectQuietHost(199)
  net.wait(2)
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectNothing()
})

tcpTest("auto: placeAfterMs is the listener's own", (net) => {
  const c = opened(net, { firstSpeaker: M.FIRST_SPEAKER_AUTO, placeAfterMs: 50 })
  c.expectQuietHost(49)
  net.wait(2)
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest(
  'auto: a board can say how long',
  (net) => {
    const c = opened(net, { firstSpeaker: M.FIRST_SPEAKER_AUTO })
    c.expectQuietHost(999)
    net.wait(2)
    c.expectEvent(M.EVENT_ACCEPTED)
  },
  { placeAfterMs: 1000 },
)

tcpTest('auto: a request places at once', (net) => {
  const c = opened(net, { firstSpeaker: M.FIRST_SPEAKER_AUTO })
  net.wait(10)
  c.send({ flags: 'PA', payload: 'hi' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('hi')
  c.expect({ flags: 'A', ack: 3, after: 40 })
  // The wait that was armed is over and says nothing more.
  net.wait(1000)
  c.expectQuietHost()
})

tcpTest('a request in several segments is one stream from its first byte', (net) => {
  const c = unattached(net)
  c.send({ flags: 'A', payload: 'GE' })
  c.send({ flags: 'PA', payload: 'T /' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('GET /')
  c.expect({ flags: 'A', ack: 6 })
})

tcpTest('a request whose first segment is late is held back, and comes whole', (net) => {
  const c = unattached(net)
  c.send({ flags: 'A', seq: 1001, payload: 1000 })
  c.expect({ flags: 'A', ack: 1 })
  c.expectQuietHost(10)
  c.send({ flags: 'A', seq: 1, payload: 1000 })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead(pattern(1, 2000))
  c.expect({ flags: 'A', ack: 2001 })
})

tcpTest('FIN without data places, and the application sees the end (RFC 9293 §3.10.7.4, eighth)', (net) => {
  const c = unattached(net)
  c.send({ flags: 'FA' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectEnd()
  c.expectRead('')
  c.expect({ flags: 'A', ack: 2, after: 40 })
  c.write('bye', { fin: true })
  c.expect({ flags: 'FA', seq: 1, payload: 'bye' })
  c.send({ flags: 'A' })
  net.expectClean()
})

tcpTest('data and FIN in one segment place', (net) => {
  const c = unattached(net)
  c.send({ flags: 'FA', payload: 'all' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('all')
  c.expectEnd()
  c.expect({ flags: 'A', ack: 5, after: 40 })
})

tcpTest('RST while unattached ends the endpoint, and the host never hears of it', (net) => {
  const c = unattached(net)
  c.send({ flags: 'R' })
  c.expectNothing(1000)
  c.expectQuietHost()
  net.expectClean()
})

tcpTest('bare ACKs, window updates and keep-alive probes do not place', (net) => {
  const c = unattached(net)
  c.send({ flags: 'A', window: 1000 })
  c.send({ flags: 'A', window: 65535 })
  c.send({ flags: 'A', seq: 0 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  c.expectQuietHost(1000)
})

tcpTest('unlisten resets what is unattached and lets what is attached go on', (net) => {
  const cookie = net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
  const open = () => {
    const c = new Conn(net)
    c.sendSyn()
    c.expect({ flags: 'SA' })
    return c
  }
  const half = open()
  const waiting = open()
  waiting.send({ flags: 'A' })
  const served = open()
  served.send({ flags: 'PA', payload: 'x' })
  served.expectEvent(M.EVENT_ACCEPTED)
  served.expect({ flags: 'A', after: 40 })
  net.control({ op: M.OP_UNLISTEN, socket: cookie })
  half.expect({ flags: 'RA', seq: 1, ack: 1 })
  waiting.expect({ flags: 'RA', seq: 1, ack: 1 })
  served.expectNothing()
  if (net.event(M.EVENT_UNLISTENED)?.status !== 0) net.fail('no answer to unlisten')
  if (endpoints(net) !== 1) net.fail(`${endpoints(net)} endpoints`)
  served.write('still here')
  served.expect({ flags: 'A', payload: 'still here' })
  served.send({ flags: 'A' })
  const late = new Conn(net)
  late.sendSyn()
  late.expect({ flags: 'RA', ack: 1 })
})

tcpTest('unlisten of what does not listen is refused', (net) => {
  net.control({ op: M.OP_UNLISTEN, socket: 4711 })
  const answer = net.event(M.EVENT_UNLISTENED)
  if (!answer || answer.status === 0 || answer.cookie !== 4711) net.fail('not refused')
})

tcpTest("the listening process's death resets its unattached endpoints", (net) => {
  const c = unattached(net)
  const half = new Conn(net, { cardPort: c.cardPort })
  half.sendSyn()
  half.expect({ flags: 'SA' })
  net.killProcess()
  c.expect({ flags: 'RA', seq: 1, ack: 1 })
  half.expect({ flags: 'RA', seq: 1, ack: 1 })
  net.expectClean()
})

tcpTest(
  'an endpoint that finds no event buffer waits unattached, bounded, and then comes whole and in order',
  (net) => {
    net.listen({ port: 80 })
    net.killProcess()
    net.card.enableSet(0, { eventBuffers: 1 })
    net.card.setReplenish(3, false)
    net.run()
    net.listen({ port: 80 }) // takes the one event buffer
    const c = new Conn(net)
    c.sendSyn()
    const { window } = c.expect({ flags: 'SA' })
    c.send({ flags: 'A' })
    let sent = 0
    for (; sent < 60_000; sent += 1000) c.send({ flags: 'A', payload: 1000, seq: 1 + sent })
    c.expectQuietHost(1000)
    const last = c.drain().at(-1)!
    if (window > 16384 || last.ack > 1 + 16384) net.fail(`${last.ack} bytes taken for nobody`)
    net.card.replenish(3, 8)
    net.run()
    c.expectEvent(M.EVENT_ACCEPTED)
    if (c.expect({ flags: 'A', ack: last.ack }).window < 30_000) net.fail('no window update')
    for (let at = last.ack; at < 60_000; at += 1000) c.send({ flags: 'A', payload: 1000, seq: at })
    c.expectRead(pattern(1, Math.max(...c.drain().map(({ ack }) => ack)) - 1))
  },
)

tcpTest('what an unattached endpoint may receive is bounded: it holds no more than 16 KiB of chunks', (net) => {
  const before = net.card.state('chunkFreeCount')
  const c = unattached(net)
  // A hole at the first byte, then single bytes with holes between them, and whole segments.
  for (let i = 0; i < 500; i++) c.send({ flags: 'A', seq: 5 + 2 * i, payload: 1 })
  for (let i = 0; i < 100; i++) c.send({ flags: 'A', seq: 2000 + 1000 * i, payload: 1000 })
  const held = before - net.card.state('chunkFreeCount')
  if (held > 8) net.fail(`${held} chunks held`)
  c.drain()
})

tcpTest("once attached, the window opens to the socket's credit", (net) => {
  const c = unattached(net, { windowScale: 0 })
  c.send({ flags: 'PA', payload: 1000 })
  const { window } = c.expect({ flags: 'A', after: 40 })
  if (window * 128 < 0x40000 - 1000 - 128) net.fail(`window ${window * 128}`)
})

tcpTest("two listeners: one address's own goes before the one for all", (net) => {
  net.listen({ port: 80, address: '192.0.2.1' })
  const c = new Conn(net)
  c.sendSyn()
  c.expect({ flags: 'SA' })
  net.control({ op: M.OP_LISTEN, socket: 99, b: 80, fields: [0, 0, 1, 0] })
  const answer = net.event(M.EVENT_LISTENING)
  if (answer?.status !== 98) net.fail(`status ${answer?.status}, not EADDRINUSE`)
})
