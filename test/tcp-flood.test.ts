/** SYN floods and SYN cookies: RFC 4987; resources that strangers must not take. */
import { BOOT_FLAG_ALWAYS_COOKIES, BOOT_FLAG_NO_TIMESTAMPS } from '../abi/boot.ts'
import * as M from '../abi/messages.ts'
import { between, CARD, type Station } from './support/lan.ts'
import { ipText, tcpFrame } from './support/packets.ts'
import { Conn, type PeerOptions, pattern, TcpNet, tcpTest } from './support/tcp-script.ts'

const COOKIES = { flags: BOOT_FLAG_ALWAYS_COOKIES }
const GATEWAY_MAC = '02:00:00:00:aa:fe'

function client(net: TcpNet, options: PeerOptions = {}): Conn {
  const c = new Conn(net, options)
  c.sendSyn()
  const answer = c.expect({ flags: 'SA', seq: 0, ack: 1 })
  c.stamped = answer.timestamps !== null
  c.scale = answer.windowScale === null ? 0 : (options.windowScale ?? 0)
  return c
}

/** Sends the request and expects it at the host. */
function request(c: Conn): void {
  c.send({ flags: 'A' })
  c.send({ flags: 'PA', payload: 'GET /' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectRead('GET /')
  c.drain()
  c.write('200 OK')
  c.expect({ flags: 'A', payload: '200 OK' })
  c.send({ flags: 'A' })
}

/** SYNs from `count` forged addresses. */
function flood(net: TcpNet, count: number, from = 0x0a000000): void {
  const fields = { ...between({ port: 0, mac: GATEWAY_MAC, ip: '' } as Station, CARD), destinationPort: 80, flags: 'S' }
  for (let i = 0; i < count; i++) {
    net.card.receive(
      0,
      tcpFrame({
        ...fields,
        source: ipText(from + i),
        sourcePort: 1024 + (i % 60_000),
        sequence: (i * 7919) >>> 0,
        options: { mss: 1460 },
      }),
    )
    if (i % 64 === 63) net.card.poll()
  }
  net.card.run()
}

tcpTest(
  'a SYN flood of 100,000 forged SYNs takes bounded memory, and a client is served during and after it',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const before = net.card.state('chunkFreeCount')
    flood(net, 50_000)
    const c = client(net)
    request(c)
    flood(net, 50_000, 0x0b000000)
    request(client(net))
    const endpoints = net.card.state('tcbUsed')
    if (endpoints > 1024 + 2) net.fail(`${endpoints} endpoints`)
    if (before - net.card.state('chunkFreeCount') > 8) net.fail('chunks are gone')
    const cookies = net.card.counter('tcpCookiesSent')
    if (cookies < 98_900) net.fail(`${cookies} cookies`)
    if (net.card.counter('tcpCookiesAccepted') !== 2) net.fail('the clients did not come by cookies')
    // The half-open ones give up, and ordinary handshakes come back.
    net.wait(70_000)
    net.strays = []
    if (net.card.state('synReceived') !== 0) net.fail('half-open endpoints are left')
    request(client(net))
    if (net.card.counter('tcpCookiesAccepted') !== 2) net.fail('cookies after the flood')
    net.lenient = true
  },
  { memoryBytes: 0x4000000, maximumConnections: 4096 },
)

tcpTest('a flood from neighbours that do not exist takes no more', (net) => {
  net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
  flood(net, 5000, 0xc0000264)
  net.wait(130_000)
  net.strays = []
  if (net.card.state('tcbUsed') !== 0) net.fail(`${net.card.state('tcbUsed')} endpoints are left`)
  request(client(net))
})

tcpTest('a peer that repeats its SYN for ever does not keep its endpoint for ever', (net) => {
  net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
  const c = new Conn(net)
  let most = 0
  for (let i = 0; i < 1000; i++) {
    c.sendSyn('S', { seq: 0 })
    net.wait(100)
    c.drain()
    if (net.card.state('tcbUsed') === 0) most++
  }
  if (most === 0) net.fail('never gave up')
})

tcpTest(
  "the backlog is the board's setting",
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    for (let i = 0; i < 6; i++) client(net)
    if (net.card.state('synReceived') !== 4) net.fail(`${net.card.state('synReceived')} half-open`)
    if (net.card.counter('tcpCookiesSent') !== 2) net.fail('cookies')
    net.lenient = true
  },
  { synBacklog: 4 },
)

// ── what a cookie carries ──

tcpTest(
  'nothing is kept for a cookie, and its ACK brings the endpoint (RFC 4987 §3.6)',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    if (net.card.state('tcbUsed') !== 0) net.fail('an endpoint')
    c.expectNothing(10_000)
    c.send({ flags: 'A' })
    if (net.card.state('tcbUsed') !== 1) net.fail('no endpoint')
    c.expectQuietHost()
    c.send({ flags: 'PA', payload: 'x' })
    c.expectEvent(M.EVENT_ACCEPTED)
    c.expect({ flags: 'A', seq: 1, ack: 2, after: 40 })
  },
  COOKIES,
)

tcpTest(
  'the ACK of a cookie may bring the request with it, or be lost before it',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    c.send({ flags: 'PA', payload: 'GET /' })
    c.expectEvent(M.EVENT_ACCEPTED)
    c.expectRead('GET /')
    c.expect({ flags: 'A', ack: 6, after: 40 })
  },
  COOKIES,
)

tcpTest(
  'data that overtakes the ACK of a cookie is dropped, not reset, and comes again',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    c.send({ flags: 'A', seq: 1461, payload: 1460 })
    c.expectNothing(100)
    c.send({ flags: 'A', seq: 1, payload: 1460 })
    c.expectEvent(M.EVENT_ACCEPTED)
    c.send({ flags: 'A', seq: 1461, payload: 1460 })
    c.expectRead(pattern(1, 2920))
    c.expect({ flags: 'A', ack: 2921 })
  },
  COOKIES,
)

tcpTest(
  'a cookie works for a server that speaks first',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const c = client(net)
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
    c.write('220 ready')
    c.expect({ seq: 1, payload: '220 ready' })
    c.send({ flags: 'A' })
  },
  COOKIES,
)

for (const mss of [100, 536, 1000, 1220, 1380, 1440, 1460, 9000]) {
  tcpTest(
    `a cookie keeps an MSS of ${mss}, or a little less`,
    (net) => {
      net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
      const c = client(net, { mss })
      c.send({ flags: 'A' })
      c.expectEvent(M.EVENT_ACCEPTED)
      c.write(4000)
      const longest = Math.max(...c.data().map(([, length]) => length))
      const most = Math.min(mss, 1460)
      if (longest > most || longest < Math.min(most * 0.6, 88)) net.fail(`segments of ${longest}`)
      c.send({ flags: 'A' })
      c.drain()
    },
    COOKIES,
  )
}

for (const windowScale of [undefined, 0, 7, 14]) {
  for (const sack of [false, true]) {
    tcpTest(
      `a cookie with timestamps keeps scale ${windowScale ?? 'none'} and SACK ${sack ? 'on' : 'off'}`,
      (net) => {
        net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
        const scale = windowScale === undefined ? {} : { windowScale }
        const c = new Conn(net, { ...scale, sack, timestamps: true, window: 2000 })
        c.sendSyn()
        c.expect({
          flags: 'SA',
          windowScale: windowScale === undefined ? null : 7,
          sackPermitted: sack || null,
          timestamps: true,
        })
        c.stamped = true
        c.send({ flags: 'A' })
        c.expectEvent(M.EVENT_ACCEPTED)
        // The peer's window is 2000 << scale.
        c.write(20_000)
        const bytes = c.data().reduce((sum, [, length]) => sum + length, 0)
        const window = 2000 << (windowScale ?? 0)
        if (windowScale === undefined || windowScale === 0 ? bytes > 2000 : bytes < 10_000) {
          net.fail(`${bytes} bytes into a window of ${window}`)
        }
        // Ours is told scaled.
        c.send({ flags: 'A', seq: 101, payload: 10 })
        const duplicate = c.expect({ flags: 'A', ack: 1, sack: sack ? [[101, 111]] : null, timestamps: true })
        if (windowScale === undefined ? duplicate.window !== 65535 : duplicate.window * 128 < 200_000) {
          net.fail(`window ${duplicate.window}`)
        }
        c.drain()
      },
      COOKIES,
    )
  }
}

tcpTest(
  'a cookie without timestamps keeps neither scale nor SACK',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const c = new Conn(net, { windowScale: 7, sack: true })
    c.sendSyn()
    c.expect({ flags: 'SA', windowScale: null, sackPermitted: null, timestamps: null })
  },
  COOKIES,
)

tcpTest(
  'a board without timestamps makes cookies without them',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const c = new Conn(net, { windowScale: 7, sack: true, timestamps: true })
    c.sendSyn()
    c.expect({ flags: 'SA', windowScale: null, sackPermitted: null, timestamps: null })
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
  },
  { flags: BOOT_FLAG_ALWAYS_COOKIES | BOOT_FLAG_NO_TIMESTAMPS },
)

tcpTest(
  'after a cookie the clock of timestamps goes on (RFC 7323 §5.4)',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const c = client(net, { timestamps: true, windowScale: 14, sack: true })
    const first = c.tsRecent
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
    c.write('x')
    const { timestamps } = c.expect({ payload: 'x' })
    const step = (timestamps![0] - first) | 0
    if (step < 0 || step > 64) net.fail(`the clock moved by ${step}`)
    c.send({ flags: 'A' })
  },
  COOKIES,
)

// ── forged and old cookies ──

tcpTest(
  'a forged cookie is reset, and nothing is kept (RFC 9293 §3.10.7.2)',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    for (let bit = 0; bit < 24; bit++) {
      const ack = (1 ^ (1 << bit)) | 0
      const forged = ((c.irs ^ (1 << bit)) + 1 - c.irs) | 0
      c.send({ flags: 'A', seq: 1, ack: forged })
      c.expect({ flags: 'R', seq: forged })
      if (ack === 0) continue
    }
    if (net.card.state('tcbUsed') !== 0) net.fail('an endpoint')
    if (net.card.counter('tcpCookiesRefused') !== 24) net.fail('not counted')
  },
  COOKIES,
)

tcpTest(
  'a cookie is good for its own addresses, ports and sequence number alone',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    net.listen({ port: 81, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    const steal = (options: PeerOptions, seq = 1) => {
      const thief = new Conn(net, { iss: c.iss, ...options })
      thief.irs = c.irs
      thief.send({ flags: 'A', seq, ack: 1 })
      thief.expect({ flags: 'R', seq: 1 })
    }
    steal({ peerPort: c.peerPort + 100 })
    steal({ peerPort: c.peerPort, cardPort: 81 })
    steal({ peerPort: c.peerPort, peer: { port: 0, mac: GATEWAY_MAC, ip: '192.0.2.254' } })
    c.send({ flags: 'A', seq: 2, ack: 1 })
    c.expect({ flags: 'R', seq: 1 })
    if (net.card.state('tcbUsed') !== 0) net.fail('an endpoint')
  },
  COOKIES,
)

tcpTest(
  'a cookie is good for a minute and refused after a few (RFC 4987 §3.6)',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const good = client(net)
    const late = client(net)
    net.wait(60_000)
    good.send({ flags: 'A' })
    good.expectNothing()
    net.wait(80_000)
    late.send({ flags: 'A' })
    late.expect({ flags: 'R', seq: 1 })
  },
  COOKIES,
)

tcpTest('no cookie is believed where none was sent lately', (net) => {
  net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
  // A cookie of a board with the same secrets: the hash is right, but this board is not under attack.
  const twin = new TcpNet(COOKIES)
  twin.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
  const made = client(twin, { peerPort: 40_000 })
  const c = new Conn(net, { peerPort: 40_000 })
  c.irs = made.irs
  c.send({ flags: 'A', seq: 1, ack: 1 })
  c.expect({ flags: 'R', seq: 1 })
  // Where it was made it is good.
  made.send({ flags: 'A' })
  made.expectNothing()
  if (twin.card.state('tcbUsed') !== 1) net.fail('the twin refuses it too')
})

tcpTest(
  'SYN-ACK with a good cookie number, or RST, or SYN: no endpoint',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    const c = client(net)
    c.send({ flags: 'SA', seq: 1, ack: 1 })
    c.expect({ flags: 'R', seq: 1 })
    c.send({ flags: 'RA', seq: 1, ack: 1 })
    c.expectNothing(1000)
    if (net.card.state('tcbUsed') !== 0) net.fail('an endpoint')
    // The peer is still served.
    request(c)
  },
  COOKIES,
)

tcpTest(
  'cookies over the wrap of their clock',
  (net) => {
    net.listen({ port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT })
    // 32 units of 65.536 s make the clock of five bits wrap.
    for (let i = 0; i < 40; i++) {
      const c = client(net)
      net.wait(60_000)
      c.send({ flags: 'A' })
      c.expectNothing()
      c.send({ flags: 'R', seq: 1 })
      net.wait(5536)
    }
  },
  COOKIES,
)
