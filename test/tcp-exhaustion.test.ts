/** What happens when something runs out: endpoints, chunks, host buffers, processes, patience. */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { command } from './support/bare-card.ts'
import { ipNumber } from './support/packets.ts'
import { Conn, pattern, type TcpNet, tcpTest } from './support/tcp-script.ts'
import { connected, established, synSent, unattached } from './support/tcp-states.ts'

const RX = 2
const EVENT = 3

/** A process with few buffers, which do not come back by themselves. */
function poorHost(net: TcpNet, receiveBuffers: number, eventBuffers: number): void {
  net.killProcess()
  net.card.enableSet(0, { receiveBuffers, eventBuffers })
  net.card.setReplenish(RX, false)
  net.card.setReplenish(EVENT, false)
  net.run()
}

// ── endpoints ──

tcpTest(
  'no endpoint left: SYNs are not answered, and counted; who is served goes on, and who leaves makes room',
  (net) => {
    const conns = Array.from({ length: 8 }, () => established(net))
    const late = new Conn(net, { cardPort: conns[0]!.cardPort })
    late.sendSyn()
    late.expectNothing(100)
    if (net.card.counter('tcpNoMemory') !== 1) net.fail('not counted')
    conns[3]!.write('still here')
    conns[3]!.expect({ payload: 'still here' })
    conns[3]!.send({ flags: 'A' })
    conns[0]!.abort()
    conns[0]!.expect({ flags: 'RA' })
    late.sendSyn('S', { seq: 0 })
    late.expect({ flags: 'SA', ack: 1 })
  },
  { maximumConnections: 8 },
)

tcpTest(
  'no endpoint left: connect fails with ENOBUFS',
  (net) => {
    for (let i = 0; i < 4; i++) established(net)
    const cookie = net.cookie()
    net.control({ op: M.OP_CONNECT, socket: cookie, a: ipNumber('192.0.2.10'), b: 9, fields: [0, 0] })
    if (net.event(M.EVENT_CONNECT_FAILED)?.status !== S.STATUS_ENOBUFS) net.fail('not ENOBUFS')
  },
  { maximumConnections: 4 },
)

tcpTest(
  'no endpoint left: a good cookie is not reset, and works once there is room',
  (net) => {
    const conns = Array.from({ length: 3 }, () => unattached(net))
    const late = new Conn(net, { cardPort: conns[0]!.cardPort })
    late.sendSyn()
    late.expect({ flags: 'SA' })
    conns.push(unattached(net))
    late.send({ flags: 'A' })
    late.expectNothing(100)
    conns[0]!.send({ flags: 'R', seq: 1 })
    late.send({ flags: 'PA', payload: 'x' })
    late.expectEvent(M.EVENT_ACCEPTED)
    late.expect({ flags: 'A', ack: 2, after: 40 })
  },
  { maximumConnections: 4, flags: 8 },
)

// ── chunks ──

/** Stops the peers of many connections with full send queues; returns the connections. */
function stall(net: TcpNet, count: number): Conn[] {
  return Array.from({ length: count }, (_, i) => {
    const c = established(net, { peerPort: 10_000 + i, window: 1460 })
    c.write(c.sendCredit)
    c.drain()
    c.send({ flags: 'A', ack: 1461, window: 0 })
    return c
  })
}

tcpTest(
  'many peers that take nothing: a command still gets through, and others are served (RFC 6429 §3)',
  (net) => {
    const server = established(net)
    const chunks = net.card.state('chunkCount')
    const stalled = stall(net, Math.ceil(chunks / 32) + 20)
    // All of them answer their probes, so none of them would end by itself.
    for (let second = 0; second < 20; second++) {
      net.wait(1000)
      for (const c of stalled) {
        if (c.drain().some(({ flags }) => !flags.includes('R'))) c.send({ flags: 'A', ack: 1461, window: 0 })
      }
    }
    server.write('served')
    net.wait(100)
    server.expect({ payload: 'served' })
    server.send({ flags: 'A' })
    const ended = stalled.filter((c) => c.events.some(({ type }) => type === M.EVENT_RESET))
    if (ended.length === 0 || ended.length > stalled.length / 2)
      net.fail(`${ended.length} of ${stalled.length} were ended`)
    net.lenient = true
  },
  { maximumConnections: 2000 },
)

tcpTest('receivers whose host reads nothing leave chunks for sending and for others', (net) => {
  poorHost(net, 0, 500)
  const port = 7001
  net.listen({ port, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const open = () => {
    const c = new Conn(net, { cardPort: port })
    c.sendSyn()
    c.expect({ flags: 'SA' })
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
    return c
  }
  const conns = Array.from({ length: 100 }, open)
  const taken = conns.map((c) => {
    for (let i = 0; i < 60; i++) c.send({ flags: 'A', payload: 1000 })
    return Math.max(...c.drain().map(({ ack }) => ack)) - 1
  })
  const free = net.card.state('chunkFreeCount')
  const count = net.card.state('chunkCount')
  if (free < count / 10) net.fail(`${free} of ${count} chunks are left`)
  conns[0]!.write('send')
  conns[0]!.expect({ payload: 'send' })
  conns[0]!.send({ flags: 'A' })
  // The host wakes up: all that was acknowledged is there.
  net.card.replenish(RX, 10_000)
  net.run()
  for (const [i, c] of conns.entries()) c.expectRead(pattern(1, taken[i]!))
})

tcpTest('out-of-order data of many peers leaves chunks for those in order', (net) => {
  const attackers = Array.from({ length: 60 }, () => established(net, { windowScale: 0 }))
  for (const c of attackers) {
    for (let i = 0; i < 200; i++) c.send({ flags: 'A', seq: 10 + 300 * i, payload: 100 })
    c.drain()
  }
  const free = net.card.state('chunkFreeCount')
  if (free < net.card.state('chunkCount') / 10) net.fail(`${free} chunks left`)
  const c = established(net)
  c.send({ flags: 'PA', payload: 'hello' })
  c.expectRead('hello')
  c.expect({ flags: 'A', after: 40 })
})

// ── host buffers ──

tcpTest('no RX buffers for a while: nothing is lost, the order is kept', (net) => {
  const c = established(net)
  net.card.setReplenish(RX, false)
  let sent = 0
  for (; sent < 60_000; sent += 1000) c.send({ flags: 'A', payload: 1000 })
  const buffers = 256
  net.card.replenish(RX, -buffers + 60)
  c.drain()
  for (let i = 0; i < 10; i++) {
    net.card.replenish(RX, 1)
    net.run()
  }
  c.send({ flags: 'FA' })
  net.card.replenish(RX, 100)
  net.run()
  c.expectRead(pattern(1, sent))
  c.expectEnd()
  net.wait(50)
  c.drain()
})

tcpTest('single RX buffers, one at a time, make the stream whole', (net) => {
  poorHost(net, 0, 64)
  net.listen({ port: 7001, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const conns = Array.from({ length: 5 }, () => new Conn(net, { cardPort: 7001 }))
  for (const c of conns) {
    c.sendSyn()
    c.expect({ flags: 'SA' })
    c.send({ flags: 'A' })
    for (let i = 0; i < 10; i++) c.send({ flags: 'A', payload: 900 })
    c.send({ flags: 'FA' })
    c.drain()
  }
  for (let i = 0; i < 500 && conns.some((c) => !c.ended); i++) {
    net.card.replenish(RX, 1)
    net.run()
  }
  for (const c of conns) {
    c.expectRead(pattern(1, 9000))
    c.expectEnd()
    net.wait(50)
    c.drain()
  }
})

tcpTest('no event buffers for a while: every answer and every connection is told, in order', (net) => {
  poorHost(net, 100, 0)
  const cookies: number[] = []
  for (let port = 100; port < 200; port++) {
    const socket = net.cookie()
    cookies.push(socket)
    net.control({ op: M.OP_LISTEN, socket, b: port | (16 << 16), fields: [M.FIRST_SPEAKER_SERVER, 0, 1, 0] })
  }
  const failing = net.cookie()
  net.control({ op: M.OP_CONNECT, socket: failing, a: ipNumber('224.0.0.1'), b: 9, fields: [0, 0] })
  const clients = [100, 150, 199].map((cardPort) => {
    const c = new Conn(net, { cardPort })
    c.sendSyn()
    c.expect({ flags: 'SA' })
    c.send({ flags: 'PA', payload: 'early' })
    c.drain()
    return c
  })
  const caller = synSent(net)
  caller.sendSyn('SA', { payload: 'hi' })
  caller.drain()
  net.wait(1000)
  if (net.events.length > 0) net.fail('events without buffers')
  for (let i = 0; i < 150; i++) {
    net.card.replenish(EVENT, 1)
    net.run()
  }
  const answers = net.events.filter(({ type }) => type === M.EVENT_LISTENING)
  if (answers.map(({ cookie }) => cookie).join() !== cookies.join()) net.fail('LISTENING events')
  if (net.event(M.EVENT_CONNECT_FAILED)?.cookie !== failing) net.fail('CONNECT_FAILED event')
  for (const c of clients) {
    c.expectEvent(M.EVENT_ACCEPTED)
    c.expectRead('early')
  }
  caller.expectEvent(M.EVENT_CONNECTED, 0)
  caller.expectRead('hi')
  if (net.card.counter('recordsDropped') !== 0) net.fail('records dropped')
  net.lenient = true
})

tcpTest('a reset that finds no event buffer is told later', (net) => {
  poorHost(net, 100, 3)
  net.listen({ port: 7001, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const conns = [0, 1].map(() => {
    const c = new Conn(net, { cardPort: 7001 })
    c.sendSyn()
    c.expect({ flags: 'SA' })
    c.send({ flags: 'A' })
    c.expectEvent(M.EVENT_ACCEPTED)
    return c
  })
  for (const c of conns) c.send({ flags: 'R', seq: 1 })
  net.wait(10_000)
  for (const c of conns) c.expectQuietHost()
  net.card.replenish(EVENT, 2)
  net.run()
  for (const c of conns) c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
  net.expectClean()
})

tcpTest('credit that finds no event buffer comes later, in one', (net) => {
  poorHost(net, 100, 2)
  net.listen({ port: 7001, firstSpeaker: M.FIRST_SPEAKER_SERVER })
  const c = new Conn(net, { cardPort: 7001 })
  c.sendSyn()
  c.expect({ flags: 'SA' })
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
  const granted = c.sendCredit
  c.write(granted)
  c.sendCredit = 0
  for (let guard = 0; guard < 100 && c.rcvNxt < granted + 1; guard++) {
    c.drain()
    c.send({ flags: 'A' })
  }
  c.drain()
  if (c.sendCredit !== 0) net.fail('credit without a buffer')
  net.card.replenish(EVENT, 1)
  net.run()
  if (c.sendCredit < granted) net.fail(`credit of ${c.sendCredit}`)
})

tcpTest(
  'a process that takes nothing does not hold up another',
  (net) => {
    net.card.setReplenish(RX, false)
    net.card.setReplenish(EVENT, false)
    net.listen({ port: 100, set: 0, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    net.listen({ port: 200, set: 1, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const open = (cardPort: number) => {
      const c = new Conn(net, { cardPort })
      c.sendSyn()
      c.expect({ flags: 'SA' })
      c.send({ flags: 'A' })
      c.drain()
      return c
    }
    // Set 0 has room for 255 events: the rest of its connections wait.
    const stuck = Array.from({ length: 900 }, () => open(100))
    const c = open(200)
    c.expectEvent(M.EVENT_ACCEPTED)
    const granted = c.sendCredit
    let written = 0
    for (let round = 0; round < 10; round++) {
      c.write(granted, { from: written + 1 })
      written += granted
      c.sendCredit -= granted
      for (let guard = 0; guard < 100 && c.rcvNxt < written + 1; guard++) {
        c.drain()
        c.send({ flags: 'A' })
      }
      c.drain()
      if (c.sendCredit < granted) net.fail(`round ${round}: credit of ${c.sendCredit}`)
    }
    if (stuck.filter((s) => s.handle !== 0).length > 256) net.fail('more events than buffers')
    net.card.replenish(EVENT, 1000)
    net.run()
    if (stuck.some((s) => s.handle === 0)) net.fail('not all were told')
    net.lenient = true
  },
  { sets: [0, 1], maximumConnections: 2000 },
)

tcpTest(
  'more records in one poll than the deliver ring takes: nothing is lost',
  (net) => {
    const conns = Array.from({ length: 40 }, () => established(net, { windowScale: 0 }))
    // 4000 segments wait while the host has no buffer, then all go at once.
    net.card.setReplenish(RX, false)
    net.card.replenish(RX, -256)
    for (const c of conns) for (let i = 0; i < 100; i++) c.send({ flags: 'A', payload: 1400 })
    for (const c of conns) c.drain()
    net.card.replenish(RX, 10_000)
    net.run()
    for (const c of conns) c.expectRead(pattern(1, 140_000))
  },
  { memoryBytes: 0x4000000 },
)

// ── processes and handles ──

tcpTest('a stale handle names nothing, not even the endpoint that took its place', (net) => {
  const c = established(net)
  const stale = c.handle
  c.abort()
  c.expect({ flags: 'RA' })
  const next = established(net)
  for (const op of [M.OP_DATA, M.OP_CLOSE, M.OP_ABORT, M.OP_CREDIT]) {
    net.stream({ op, socket: stale, a: 1, ...(op === M.OP_DATA ? { payload: new Uint8Array(10) } : {}) })
  }
  net.control({ op: M.OP_SET_OPTION, socket: stale, a: 1, b: 1 })
  next.expectNothing(100)
  next.write('mine')
  next.expect({ payload: 'mine' })
  next.send({ flags: 'A' })
})

tcpTest(
  "another process's handle is refused",
  (net) => {
    const c = established(net)
    for (const op of [M.OP_DATA, M.OP_CLOSE, M.OP_ABORT, M.OP_CREDIT]) {
      net.stream({ op, socket: c.handle, a: 1, ...(op === M.OP_DATA ? { payload: new Uint8Array(10) } : {}) }, 1)
    }
    net.control({ op: M.OP_SET_OPTION, socket: c.handle, a: M.OPTION_KEEP_ALIVE, b: 1 }, 1)
    c.expectNothing(5000)
    c.write('mine')
    c.expect({ seq: 1, payload: 'mine' })
    c.send({ flags: 'A' })
  },
  { sets: [0, 1] },
)

tcpTest('handles do not come again soon', (net) => {
  const seen = new Set<number>()
  for (let i = 0; i < 500; i++) {
    const c = established(net, { peerPort: 10_000 + i })
    if (seen.has(c.handle) || c.handle === 0) net.fail(`handle ${c.handle} again`)
    seen.add(c.handle)
    c.send({ flags: 'R', seq: 1 })
    c.expectEvent(M.EVENT_RESET)
  }
})

tcpTest(
  'an endpoint that was used 10,000 times still takes commands (UDP handles have the highest bit, TCP handles never)',
  (net) => {
    const c = established(net)
    for (let i = 0; i < 10_000; i++) {
      if (c.handle >>> 31 !== 0) net.fail(`handle 0x${c.handle.toString(16)} after ${i} connections`)
      c.send({ flags: 'R' })
      c.events.length = 0
      c.handle = 0
      c.sndNxt = 0
      c.iss = (c.iss + 1000) >>> 0
      c.sendSyn()
      c.expect({ flags: 'SA' })
      c.send({ flags: 'A' })
    }
    c.send({ flags: 'PA', payload: 'hello' })
    c.expectRead('hello')
    c.credit(5)
    c.drain()
    c.close()
    c.expect({ flags: 'FA' })
  },
  { maximumConnections: 1 },
)

tcpTest('a process that dies in the middle of a record leaves nothing of it to the next', (net) => {
  const c = established(net)
  const payload = new Uint8Array(65_536)
  // More than the fetch ring takes at once: the last record is fetched in part.
  for (let i = 0; i < 20; i++) net.card.command(1, command({ op: M.OP_DATA, socket: c.handle, payload }))
  net.killProcess()
  c.expect({ flags: 'RA' })
  net.card.enableSet(0)
  net.run()
  const server = established(net, {
    cardPort: net.listen({ port: 4000, firstSpeaker: M.FIRST_SPEAKER_SERVER }) && 4000,
  })
  server.write('hello')
  server.expect({ payload: 'hello' })
  server.send({ flags: 'A' })
})

tcpTest('what a process said just before it died is not done any more', (net) => {
  const listen = { op: M.OP_LISTEN, socket: 9, b: 4000, fields: [M.FIRST_SPEAKER_SERVER, 0, 1, 0] }
  net.card.command(0, command(listen))
  net.card.command(0, command({ op: M.OP_CONNECT, socket: 10, a: ipNumber('192.0.2.10'), b: 9, fields: [0, 0] }))
  net.killProcess()
  if (net.card.state('tcbUsed') !== 0) net.fail('a connection for nobody')
  net.card.enableSet(0)
  net.run()
  net.listen({ port: 4000 })
})

tcpTest(
  'the death of a process frees all that was its own, whatever waits, and spares the others',
  (net) => {
    const mine = established(net)
    mine.write(50_000)
    mine.send({ flags: 'A', seq: 5001, payload: 1000 })
    const calling = synSent(net)
    const caller = connected(net, { peerPort: 9001 })
    const waiting = unattached(net)
    net.listen({ port: 200, set: 1, firstSpeaker: M.FIRST_SPEAKER_SERVER })
    const other = new Conn(net, { cardPort: 200 })
    other.sendSyn()
    other.expect({ flags: 'SA' })
    other.send({ flags: 'A' })
    other.expectEvent(M.EVENT_ACCEPTED)
    mine.drain()
    net.killProcess(0)
    mine.expect({ flags: 'RA' })
    caller.expect({ flags: 'RA', seq: 1, ack: 1 })
    waiting.expect({ flags: 'RA', seq: 1, ack: 1 })
    calling.expectNothing(3000)
    if (net.card.state('tcbUsed') !== 1) net.fail(`${net.card.state('tcbUsed')} endpoints`)
    other.write('alive')
    other.expect({ payload: 'alive' })
    other.send({ flags: 'A' })
    // Its ports are free for the next one.
    net.card.enableSet(0)
    net.run()
    net.listen({ port: waiting.cardPort })
  },
  { sets: [0, 1] },
)

tcpTest('a process that comes again starts with record number 0', (net) => {
  established(net)
  net.killProcess()
  net.card.enableSet(0)
  net.run()
  net.listen({ port: 99 }) // TcpNet checks the numbers
  net.lenient = true
})

// ── bad commands ──

tcpTest('commands that make no sense are counted and change nothing', (net) => {
  const c = established(net)
  const bad = () => net.card.counter('commandsBad')
  let expected = 0
  for (const op of [0, 8, 15, 99, 0xffff]) {
    net.control({ op, socket: c.handle })
    net.stream({ op, socket: c.handle })
    expected += 2
  }
  net.control({ op: M.OP_DATA, socket: c.handle, payload: new Uint8Array(5) })
  net.stream({ op: M.OP_LISTEN, socket: 5, b: 99, fields: [0, 0, 0, 0] })
  net.control({ op: M.OP_LISTEN, socket: 5, b: 99 }) // too short
  net.control({ op: M.OP_CONNECT, socket: 5, b: 99 }) // too short
  expected += 4
  if (bad() !== expected) net.fail(`${bad()} bad commands, not ${expected}`)
  for (const bytes of [1, 4, 15]) {
    net.card.command(0, new Uint8Array(bytes))
    net.card.command(1, new Uint8Array(bytes))
    net.run()
    expected += 2
  }
  if (bad() !== expected) net.fail(`${bad()} bad commands, not ${expected}`)
  c.expectNothing(100)
  c.write('fine')
  c.expect({ payload: 'fine' })
  c.send({ flags: 'A' })
})

const LISTEN_ERRORS: [name: string, a: number, port: number, fields: number[], status: number][] = [
  ['an address that is not ours', 0x01020304, 80, [0, 0, 1, 0], S.STATUS_EADDRNOTAVAIL],
  ['a first speaker that does not exist', 0, 80, [3, 0, 1, 0], S.STATUS_EINVAL],
]
for (const [name, a, port, fields, status] of LISTEN_ERRORS) {
  tcpTest(`listen on ${name} fails`, (net) => {
    net.control({ op: M.OP_LISTEN, socket: 5, a, b: port, fields })
    const answer = net.event(M.EVENT_LISTENING)
    if (answer?.status !== status || answer.cookie !== 5) net.fail(`status ${answer?.status}`)
  })
}

tcpTest('listen on port 0 chooses a port, and it works', (net) => {
  net.control({ op: M.OP_LISTEN, socket: 5, b: 0, fields: [M.FIRST_SPEAKER_SERVER, 0, 1, 0] })
  const answer = net.event(M.EVENT_LISTENING)
  if (answer?.status !== 0 || answer.localPort < 49152) return net.fail('no port')
  const c = new Conn(net, { cardPort: answer.localPort })
  c.sendSyn()
  c.expect({ flags: 'SA' })
})

tcpTest('more listeners than there is room for: ENOBUFS, and the others listen on', (net) => {
  let last = 0
  for (let i = 0; i < 1100 && last === 0; i++) {
    net.control({ op: M.OP_LISTEN, socket: 10_000 + i, b: 1000 + i, fields: [M.FIRST_SPEAKER_SERVER, 0, 1, 0] })
    last = net.event(M.EVENT_LISTENING)!.status
  }
  if (last !== S.STATUS_ENOBUFS) net.fail(`status ${last}`)
  const c = new Conn(net, { cardPort: 1500 })
  c.sendSyn()
  c.expect({ flags: 'SA' })
})
