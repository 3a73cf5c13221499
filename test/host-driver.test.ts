import { once } from 'node:events'
import type net from 'node:net'
import test, { type ExecutionContext } from 'ava'
import * as M from '../abi/messages.ts'
import { QUEUE_EVENT, QUEUE_RX, QUEUE_TX } from '../abi/rings.ts'
import { CARD_OFF, QUEUE_ERROR_ADDRESS } from '../abi/virtio.ts'
import { createDgram } from '../host/dgram.ts'
import { Driver } from '../host/driver/driver.ts'
import type { QueueFault } from '../host/driver/virtqueue.ts'
import { createNet, type Net } from '../host/net.ts'
import { NO_REFERENCES, type Stack } from '../host/stack.ts'
import { wallClock } from '../host/worker/clock.ts'
import type { FakeCard } from './support/fake-card.ts'
import { FakeNetwork, type FakeNetworkOptions } from './support/fake-network.ts'
import { closed, pattern, readAll } from './support/sockets.ts'

interface Host {
  readonly card: FakeCard
  readonly driver: Driver
  readonly net: Net
  readonly stack: Stack
  readonly faults: QueueFault[]
}

function host(network: FakeNetwork, address: number, ramBytes?: number, prepare?: (card: FakeCard) => void): Host {
  const card = network.addCard(address, ramBytes)
  prepare?.(card)
  const faults: QueueFault[] = []
  const driver = new Driver(card, { processId: 42, onFault: (error) => faults.push(error) })
  const stack: Stack = { driver, clock: wallClock(), hosts: new Map(), references: NO_REFERENCES }
  return { card, driver, stack, faults, net: createNet(stack) }
}

/** Slices run when the test says so. */
class Stepped {
  readonly network: FakeNetwork
  readonly server: Host
  readonly client: Host
  #slices: (() => void)[] = []

  constructor(options: FakeNetworkOptions & { ramBytes?: number } = {}) {
    this.network = new FakeNetwork({ placeAfterMs: 1, ...options, defer: (slice) => this.#slices.push(slice) })
    this.server = host(this.network, 0x0a000001, options.ramBytes)
    this.client = host(this.network, 0x0a000002, options.ramBytes)
  }

  /** Runs slices, and the ticks after each, until nothing is left to do. */
  async settle(): Promise<void> {
    do {
      this.#slices.shift()?.()
      await new Promise((resolve) => setImmediate(resolve))
    } while (this.#slices.length > 0)
  }

  async pair(): Promise<{ listener: net.Server; client: net.Socket; peer: net.Socket }> {
    const listener = this.server.net.createServer()
    let peer: net.Socket | undefined
    listener.on('connection', (socket) => {
      peer = socket
    })
    listener.listen(80)
    await this.settle()
    const client = this.client.net.connect(80, '10.0.0.1')
    client.write('!')
    await this.settle()
    peer!.read(1)
    await this.settle()
    for (const socket of [client, peer!]) socket.on('error', () => {})
    return { listener, client, peer: peer! }
  }
}

test('what is written in one tick costs one doorbell', async (t) => {
  const world = new Stepped()
  const { client, peer } = await world.pair()
  await world.settle()
  const before = world.client.card.doorbells
  for (let i = 0; i < 100; i++) client.write('x')
  t.is(world.client.card.doorbells, before + 1)
  await world.settle()
  t.is(peer.readableLength, 100)
  // From within the service of an interrupt, too.
  client.on('data', () => {
    for (let i = 0; i < 50; i++) client.write('y')
  })
  await world.settle()
  const then = world.client.card.doorbells
  peer.write('go')
  await world.settle()
  t.is(peer.readableLength, 150)
  t.true(
    world.client.card.doorbells - then <= 3,
    `${world.client.card.doorbells - then} doorbells: TX, and buffers given back`,
  )
  t.is(world.client.driver.state, 'running')
})

test('a buffer goes back to the card only when its record has been worked off', async (t) => {
  const world = new Stepped()
  const { client } = await world.pair()
  const { card } = world.client
  const rx = card.queues[QUEUE_RX]!
  const [end] = card.ends.values()
  const offered = rx.available
  const records = 40
  const seen: number[] = []
  client.on('data', () => seen.push(rx.available))
  await world.settle()
  for (let i = 0; i < records; i++) card.rawRx(M.RX_DATA, end!.handle, 1, Buffer.from('x'))
  await world.settle()
  t.is(seen.length, records)
  seen.forEach((available, i) => {
    t.true(available - (offered - records) <= i, `while record ${i} is being read, ${available} buffers are the card's`)
  })
  t.is(rx.available, offered)
})

test('a full TX queue is waited for, in order', async (t) => {
  const world = new Stepped({ ramBytes: 2 << 20, creditBytes: 8 << 20 })
  const { client, peer } = await world.pair()
  const bytes = pattern(5_000_000)
  let at = 0
  for (let size = 1; at < bytes.length; at += size, size = ((size * 3) % 997) + 1)
    client.write(bytes.subarray(at, at + size))
  client.end()
  const got = readAll(peer)
  await world.settle()
  t.true(world.client.driver.tx.stalls > 0, 'the queue was full')
  t.true((await got).equals(bytes))
})

test('more connects than control slots all go through', async (t) => {
  const world = new Stepped({ ramBytes: 2 << 20 })
  const served = new Set<number | undefined>()
  const listener = world.server.net.createServer((socket) => {
    served.add(socket.remotePort)
    socket.end()
  })
  listener.listen(80)
  await world.settle()
  const sockets = Array.from({ length: 1500 }, () => world.client.net.connect(80, '10.0.0.1'))
  const done = Promise.all(sockets.map((socket) => closed(socket.end('x').resume())))
  await world.settle()
  await done
  t.is(served.size, 1500)
  t.is(world.client.driver.sockets, 0)
  t.is(world.server.driver.sockets, 1)
  t.is(world.client.card.ends.size + world.server.card.ends.size, 0, 'the cards, too, have nothing left')
})

test('credit comes back as the application reads, a quarter of the window at a time', async (t) => {
  const world = new Stepped({ creditBytes: 64_000 })
  const { client, peer } = await world.pair()
  client.write(Buffer.alloc(200_000))
  await world.settle()
  t.true(peer.readableLength < 64_000, 'no more than the window')
  t.true(peer.readableLength > 60_000, 'all of the window')
  const end = world.server.card.ends.values()[0]!
  const before = end.receiveCredit
  peer.read(10_000)
  await world.settle()
  t.is(end.receiveCredit, before, 'small change is kept')
  peer.read(10_000)
  await world.settle()
  t.true(end.peer.sendCredit <= 64_000)
  t.true(end.unconsumed <= 64_000)
  let total = 20_000
  while (total < 200_000) {
    total += (peer.read() as Buffer | null)?.length ?? 0
    await world.settle()
  }
  t.is(total, 200_000)
})

test('an exception in a handler reaches the caller, and the rest is served a tick later', async (t) => {
  const world = new Stepped()
  const got: string[] = []
  world.server.net
    .createServer((socket) => {
      socket.on('data', (data) => {
        got.push(String(data))
        if (String(data) === 'bad') throw new Error('in a handler')
        socket.write(data)
      })
    })
    .listen(80)
  await world.settle()
  const sockets = ['one', 'bad', 'two'].map((text) => {
    const socket = world.client.net.connect(80, '10.0.0.1')
    socket.write(text)
    return socket
  })
  const answers: string[] = []
  for (const socket of sockets) socket.on('data', (data) => answers.push(String(data)))
  let thrown: unknown
  for (let i = 0; i < 20; i++) {
    try {
      await world.settle()
    } catch (error) {
      thrown = error
    }
  }
  t.is((thrown as Error).message, 'in a handler')
  t.deepEqual(got, ['one', 'bad', 'two'])
  t.deepEqual(answers, ['one', 'two'])
})

test('a connect that is cancelled while its answer is on the way is aborted', async (t) => {
  const world = new Stepped()
  world.server.net.createServer((socket) => socket.on('error', () => {})).listen({ port: 80, firstSpeaker: 'server' })
  await world.settle()
  const { card, driver } = world.client
  const socket = world.client.net.connect(80, '10.0.0.1')
  // A slice without its interrupts: the answer lies in the ring, and nobody has looked.
  for (const each of world.network.cards) each.work()
  for (const each of world.network.cards) each.publish()
  t.is(card.ends.size, 1)
  socket.destroy()
  card.interrupt()
  await world.settle()
  t.is(driver.sockets, 0)
  t.is(world.client.card.ends.size, 0)
  t.is(world.server.card.ends.size, 0)
})

test('a listener gives the card its options', async (t) => {
  const world = new Stepped()
  world.server.net
    .createServer({ noDelay: true, keepAlive: true })
    .listen({ port: 80, firstSpeaker: 'client', placeAfterMs: 77 })
  t.throws(() => world.server.net.createServer().listen({ port: 81, firstSpeaker: 'nobody' as never }), {
    code: 'ERR_INVALID_ARG_VALUE',
  })
  await world.settle()
  const [listener] = world.server.card.listeners.values()
  t.like(listener, { port: 80, firstSpeaker: M.FIRST_SPEAKER_CLIENT, placeAfterMs: 77 })
})

test('options reach the card as they are set', async (t) => {
  const world = new Stepped()
  const { client } = await world.pair()
  client.setNoDelay(true)
  client.setNoDelay(true)
  client.setKeepAlive(true, 30_000)
  await world.settle()
  const [end] = world.client.card.ends.values()
  t.deepEqual(
    [...end!.options!],
    [
      [M.OPTION_NO_DELAY, 1],
      [M.OPTION_KEEP_ALIVE, 30],
    ],
  )
  client.setKeepAlive(true)
  await world.settle()
  t.is(end!.options!.get(M.OPTION_KEEP_ALIVE), 7200)
  client.setKeepAlive(false)
  await world.settle()
  t.is(end!.options!.get(M.OPTION_KEEP_ALIVE), 0)
})

test('names of the hosts table, addresses of IPv6, and Unix sockets', async (t) => {
  const world = new Stepped()
  const failure = async (socket: net.Socket) => {
    const error = once(socket, 'error')
    await world.settle()
    return (await error)[0] as NodeJS.ErrnoException
  }
  const { net: sockets } = world.client
  t.like(await failure(sockets.connect(80, 'nowhere.test')), {
    message: 'getaddrinfo ENOTFOUND nowhere.test',
    code: 'ENOTFOUND',
    syscall: 'getaddrinfo',
    hostname: 'nowhere.test',
  })
  t.like(await failure(sockets.connect(80, '::1')), {
    message: 'connect EAFNOSUPPORT ::1:80',
    code: 'EAFNOSUPPORT',
    address: '::1',
    port: 80,
  })
  t.like(await failure(sockets.connect('/tmp/x')), { message: 'connect EAFNOSUPPORT /tmp/x', code: 'EAFNOSUPPORT' })
  t.like(await failure(sockets.connect(80, '10.0.0.99')), {
    message: 'connect EHOSTUNREACH 10.0.0.99:80',
    code: 'EHOSTUNREACH',
  })
  const server = sockets.createServer()
  server.listen(80, '2001:db8::1')
  const error = once(server, 'error')
  await world.settle()
  t.is((await error)[0].message, 'listen EAFNOSUPPORT: address family not supported 2001:db8::1:80')
  server.listen(80, '::')
  await world.settle()
  t.like(server.address(), { address: '0.0.0.0', port: 80 })
})

// ── the life of the card ──

test('before the card runs, listeners and connects wait', async (t) => {
  const world = new Stepped()
  const early = host(world.network, 0x0a000003, 2 << 20, (card) => {
    card.state = CARD_OFF
  })
  t.is(early.driver.state, 'waiting')
  const listener = early.net.createServer((socket) => socket.end('at last'))
  listener.listen(80)
  await world.settle()
  t.is(early.card.listeners.size, 0)
  early.card.start()
  await world.settle()
  t.is(early.driver.state, 'running')
  const answer = readAll(world.client.net.connect(80, '10.0.0.3'))
  await world.settle()
  await new Promise((resolve) => setTimeout(resolve, 10))
  await world.settle()
  t.is(String(await answer), 'at last')
})

test('when the card stops, everything fails, and works again once it is back', async (t) => {
  const world = new Stepped()
  const { listener, client, peer } = await world.pair()
  const udp = createDgram(world.client.stack).createSocket('udp4')
  udp.bind(9)
  await world.settle()
  world.network.blackHoles.add(0x0a000063)
  const connecting = world.client.net.connect(80, '10.0.0.99')
  await world.settle()
  const errors: string[] = []
  for (const [name, emitter] of Object.entries({ client, peer, listener, udp, connecting })) {
    emitter.on('error', (error: Error) => errors.push(`${name}: ${error.message}`))
  }
  const ends = [client, listener, udp, connecting].map(closed)
  world.client.card.stop()
  world.server.card.stop()
  await world.settle()
  await Promise.all(ends)
  t.deepEqual(errors.toSorted(), [
    'client: read ENETDOWN',
    'connecting: connect ENETDOWN 10.0.0.99:80',
    'listener: listen ENETDOWN: network is down 0.0.0.0:80',
    'peer: read ENETDOWN',
    'udp: recvmsg ENETDOWN',
  ])
  t.is(world.client.driver.state, 'stopped')
  t.is(world.client.driver.sockets, 0)
  const refused = once(world.client.net.connect(80, '10.0.0.1'), 'error')
  await world.settle()
  t.is((await refused)[0].code, 'ENETDOWN')
  const dead = world.server.net.createServer().listen(81)
  t.is((await once(dead, 'error'))[0].code, 'ENETDOWN')
  world.client.card.start()
  world.server.card.start()
  await world.settle()
  t.is(world.server.driver.state, 'running')
  const again = await world.pair()
  again.client.end('and again')
  const text = readAll(again.peer)
  await world.settle()
  t.is(String(await text), 'and again')
})

test('a card that was restarted too quickly to be seen stopped is noticed', async (t) => {
  const world = new Stepped()
  const { client } = await world.pair()
  const failed = once(client, 'error')
  world.client.card.stop()
  world.client.card.start()
  await world.settle()
  t.is((await failed)[0].code, 'ENETDOWN')
  t.is(world.client.driver.state, 'running')
})

test('a queue that the card refuses is reported, and fails everything', async (t) => {
  const world = new Stepped()
  const { client } = await world.pair()
  const failed = once(client, 'error')
  world.client.card.breakQueue(QUEUE_TX, QUEUE_ERROR_ADDRESS)
  await world.settle()
  t.is((await failed)[0].message, 'read EIO')
  t.is(world.client.driver.state, 'broken')
  t.is(world.client.faults.length, 1)
  t.regex(world.client.faults[0]!.message, /^The card refused the TX queue: a buffer lies outside RAM\./)
  t.is(world.client.faults[0]!.code, 'ERR_INIC_QUEUE')
  const refused = once(world.client.net.connect(80, '10.0.0.1'), 'error')
  await world.settle()
  t.is((await refused)[0].code, 'EIO')
})

// ── a card that breaks the rules ──

type Misdeed = (card: FakeCard, handle: number) => void
const event = (type: number, fields: Record<number, number> = {}): Misdeed => {
  return (card) => card.rawEvent({ [M.EVENT_TYPE]: type, ...fields })
}
const misdeeds: Record<string, [Misdeed, RegExp]> = {
  'gives back a buffer that it does not have': [(card) => card.rawUsed(QUEUE_TX, 5, 0), /TX queue/],
  'gives back a buffer that is none': [
    (card) => card.rawUsed(QUEUE_RX, 60_000, 64),
    /descriptor 60000 of the RX queue/,
  ],
  'claims to have written more than a buffer holds': [
    (card) => card.rawUsed(QUEUE_RX, 1, 70_000),
    /an RX record of 70000 bytes/,
  ],
  'claims an event of no length': [(card) => card.rawUsed(QUEUE_EVENT, 7, 0), /an event of 0 bytes/],
  'delivers more than its record holds': [
    (card, handle) => card.rawRx(M.RX_DATA, handle, 100, Buffer.alloc(10)),
    /delivered 100 bytes in a record of 26/,
  ],
  'delivers an unheard-of length': [
    (card, handle) => card.rawRx(M.RX_DATA, handle, 0xffffffff, Buffer.alloc(10)),
    /delivered 4294967295 bytes/,
  ],
  'delivers a record of an unknown type': [
    (card, handle) => card.rawRx(77, handle, 0, Buffer.alloc(0)),
    /RX record of type 77/,
  ],
  'delivers a datagram without its header': [
    (card, handle) => card.rawRx(M.RX_DATAGRAM, handle, 1, Buffer.alloc(1)),
    /a datagram of 1 bytes in a record of 17/,
  ],
  'delivers more than it has credit for': [
    (card, handle) => {
      for (let i = 0; i < 3; i++) card.rawRx(M.RX_DATA, handle, 60_000, Buffer.alloc(60_000))
    },
    /delivered 60000 bytes that socket \d+ had no credit for/,
  ],
  'delivers data after the end': [
    (card, handle) => {
      card.rawRx(M.RX_DATA | (M.RX_FLAG_END << 16), handle, 0, Buffer.alloc(0))
      card.rawRx(M.RX_DATA, handle, 1, Buffer.alloc(1))
    },
    /delivered 1 bytes that socket \d+ had no credit for/,
  ],
  'repeats a number': [
    (card, handle) => card.rawRx(M.RX_DATA, handle, 1, Buffer.alloc(1), 0),
    /delivered record 0 where \d+ was due/,
  ],
  'skips a number': [
    (card, handle) => {
      card.rawRx(M.RX_DATA, handle, 1, Buffer.alloc(1), 1000)
      card.rawEvent({ [M.EVENT_TYPE]: M.EVENT_UNLISTENED }, 1)
    },
    /skipped record \d+/,
  ],
  'sends an event of an unknown type': [event(99), /an event of type 99/],
  'names no socket': [event(M.EVENT_ACCEPTED, { [M.EVENT_SOCKET]: 0 }), /named socket 0, which is none/],
  'names a socket that is taken': [
    (card, handle) => card.rawEvent({ [M.EVENT_TYPE]: M.EVENT_ACCEPTED, [M.EVENT_SOCKET]: handle }),
    /which is taken/,
  ],
}

for (const [name, [misdeed, message]] of Object.entries(misdeeds)) {
  test(`a card that ${name} is found out`, async (t: ExecutionContext) => {
    const world = new Stepped({ creditBytes: 100_000 })
    const { client } = await world.pair()
    client.pause()
    const failed = closed(client)
    const [end] = world.client.card.ends.values()
    misdeed(world.client.card, end!.handle)
    await world.settle()
    await failed
    t.is(world.client.driver.state, 'broken')
    t.regex(world.client.faults[0]!.message, message)
    t.is(world.server.driver.state, 'running')
  })
}

const harmless: Record<string, Misdeed> = {
  'data for a socket that is gone': (card) => card.rawRx(M.RX_DATA, 0xdead, 5, Buffer.alloc(5)),
  'a datagram for a socket that is gone': (card) => card.rawRx(M.RX_DATAGRAM, 0xdead, 0, Buffer.alloc(16)),
  'credit for a socket that is gone': event(M.EVENT_CREDIT, { [M.EVENT_SOCKET]: 0xdead, [M.EVENT_VALUE]: 5 }),
  'a reset of a socket that is gone': event(M.EVENT_RESET, { [M.EVENT_SOCKET]: 0xdead }),
  'an answer to a listener that is gone': event(M.EVENT_LISTENING, { [M.EVENT_COOKIE]: 0xdead }),
  'a refusal of a connect that is gone': event(M.EVENT_CONNECT_FAILED, { [M.EVENT_COOKIE]: 0xdead }),
  'a connection for a listener that is gone': event(M.EVENT_ACCEPTED, {
    [M.EVENT_COOKIE]: 0xdead,
    [M.EVENT_SOCKET]: 0xbeef,
  }),
  'an answer to a bind that is gone': event(M.EVENT_UDP_BOUND, { [M.EVENT_COOKIE]: 0xdead, [M.EVENT_SOCKET]: 0xbeef }),
  'an error for a datagram socket that is gone': event(M.EVENT_UDP_ERROR, { [M.EVENT_SOCKET]: 0xdead }),
  'an unlistening that nobody waits for': event(M.EVENT_UNLISTENED),
}

for (const [name, act] of Object.entries(harmless)) {
  test(`${name} does no harm`, async (t) => {
    const world = new Stepped()
    const { client, peer } = await world.pair()
    act(world.client.card, 0)
    await world.settle()
    client.write('still here')
    await world.settle()
    t.is(String(peer.read()), 'still here')
    t.is(world.client.driver.state, 'running')
  })
}

test('a driver that is closed disables its queues and is quiet', async (t) => {
  const world = new Stepped()
  const { client } = await world.pair()
  const events: string[] = []
  client.on('error', () => events.push('error')).on('close', () => events.push('close'))
  world.client.driver.close()
  t.true(world.client.card.queues.every((queue) => !queue.enabled))
  await world.settle()
  t.deepEqual(events, [])
  t.is(world.client.driver.state, 'closed')
})
