import dgram from 'node:dgram'
import { once } from 'node:events'
import type { Network } from './support/network.ts'
import { closed, pattern, sleep } from './support/sockets.ts'
import { type Case, runTable } from './support/table.ts'

async function bound(network: Network): Promise<dgram.Socket> {
  const socket = network.serverDgram.createSocket('udp4')
  socket.bind(0, network.address)
  await once(socket, 'listening')
  return socket
}

/** What Node documents of `dgram`, as a table; see support/table.ts. */
const cases: Record<string, Case> = {
  'bind says listening, and knows its address': async (t, network) => {
    const socket = network.serverDgram.createSocket('udp4')
    t.throws(() => socket.address(), { message: 'getsockname EBADF', code: 'EBADF' })
    let called = 0
    t.is(
      socket.bind(0, network.address, () => called++),
      socket,
    )
    t.throws(() => socket.bind(1), { code: 'ERR_SOCKET_ALREADY_BOUND' })
    await once(socket, 'listening')
    t.is(called, 1)
    t.like(socket.address(), { address: network.address, family: 'IPv4' })
    t.true(socket.address().port > 0)
    t.true(socket instanceof dgram.Socket)
    socket.close()
    await once(socket, 'close')
    t.throws(() => socket.address(), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
    t.throws(() => socket.close(), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
    t.throws(() => socket.send('x', 1), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
  },
  'bind in every documented form': async (t, network) => {
    const binds: ((socket: dgram.Socket, done: () => void) => void)[] = [
      (s, done) => s.bind(done),
      (s, done) => s.bind(0, done),
      (s, done) => s.bind(0, network.address, done),
      (s, done) => s.bind({ port: 0, address: network.address }, done),
      (s, done) => s.bind({ port: 0, exclusive: true }, done),
      (s, done) => s.bind({}, done),
    ]
    for (const bind of binds) {
      const socket = network.serverDgram.createSocket({ type: 'udp4' })
      await new Promise<void>((resolve) => bind(socket, resolve))
      t.true(socket.address().port > 0)
      socket.close()
    }
  },
  'a port that is taken cannot be bound': async (t, network) => {
    const first = await bound(network)
    const second = network.serverDgram.createSocket('udp4')
    const { port } = first.address()
    second.bind(port, network.address)
    const [error] = await once(second, 'error')
    t.is(error.message, `bind EADDRINUSE ${network.address}:${port}`)
    t.like(error, { code: 'EADDRINUSE', errno: -98, syscall: 'bind', address: network.address, port })
    first.close()
    second.close()
  },
  'a message arrives, with who sent it': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    const client = network.clientDgram.createSocket('udp4')
    const sent = new Promise<[Error | null, number]>((resolve) =>
      client.send('question', port, network.address, (error, bytes) => resolve([error, bytes])),
    )
    const [message, info] = await once(server, 'message')
    t.is(String(message), 'question')
    t.deepEqual(await sent, [null, 8])
    t.like(info, { family: 'IPv4', port: client.address().port, size: 8 })
    server.send('answer', info.port, info.address)
    const [answer, from] = await once(client, 'message')
    t.is(String(answer), 'answer')
    t.like(from, { address: network.address, port })
    server.close()
    client.close()
  },
  'send in every documented form': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    const host = network.address
    const bytes = Buffer.from('0123456789')
    const sends: [(socket: dgram.Socket, done: () => void) => void, string][] = [
      [(s) => s.send('text', port, host), 'text'],
      [(s, done) => s.send('text', port, host, done), 'text'],
      [(s) => s.send(bytes, port, host), '0123456789'],
      [(s) => s.send(bytes, 2, 3, port, host), '234'],
      [(s, done) => s.send(bytes, 2, 3, port, host, done), '234'],
      [(s, done) => s.send(new Uint8Array(bytes), 0, 1, port, host, done), '0'],
      [(s, done) => s.send(new DataView(bytes.buffer, bytes.byteOffset + 4, 2), port, host, done), '45'],
      [(s) => s.send(['a', bytes.subarray(0, 2), new Uint8Array([98])], port, host), 'a01b'],
      [(s, done) => s.send([], port, host, done), ''],
      [(s, done) => s.send('', port, host, done), ''],
    ]
    for (const [send, expected] of sends) {
      const socket = network.clientDgram.createSocket('udp4')
      const came = once(server, 'message')
      send(socket, () => {})
      t.is(String((await came)[0]), expected)
      socket.close()
    }
    server.close()
  },
  'a connected socket sends without an address, and hears its peer alone': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    const client = network.clientDgram.createSocket('udp4')
    t.throws(() => client.remoteAddress(), { code: 'ERR_SOCKET_DGRAM_NOT_CONNECTED' })
    t.throws(() => client.disconnect(), { code: 'ERR_SOCKET_DGRAM_NOT_CONNECTED' })
    client.connect(port, network.address)
    await once(client, 'connect')
    t.throws(() => client.connect(port, network.address), { code: 'ERR_SOCKET_DGRAM_IS_CONNECTED' })
    t.throws(() => client.send('x', 0, 1, port, network.address), { code: 'ERR_SOCKET_DGRAM_IS_CONNECTED' })
    t.deepEqual(client.remoteAddress(), { address: network.address, family: 'IPv4', port })
    const bytes = Buffer.from('0123456789')
    const sends: [() => void, string][] = [
      [() => client.send('one'), 'one'],
      [() => client.send('two', () => {}), 'two'],
      [() => client.send(bytes, 3, 2), '34'],
      [() => client.send(bytes, 3, 2, () => {}), '34'],
    ]
    for (const [send, expected] of sends) {
      const came = once(server, 'message')
      send()
      t.is(String((await came)[0]), expected)
    }
    const got: string[] = []
    client.on('message', (message) => got.push(String(message)))
    const stranger = await bound(network)
    const { address, port: clientPort } = client.address()
    const to = address === '0.0.0.0' ? (network.address === '127.0.0.1' ? '127.0.0.1' : '10.0.0.2') : address
    stranger.send('stranger', clientPort, to)
    server.send('friend', clientPort, to)
    while (got.length === 0) await sleep(2)
    await sleep(10)
    t.deepEqual(got, ['friend'])
    client.disconnect()
    for (const socket of [client, server, stranger]) socket.close()
  },
  'datagrams of all sizes are intact': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    const client = network.clientDgram.createSocket('udp4')
    for (const size of [1, 2, 100, 1472, 1473, 9000, 65507]) {
      const bytes = pattern(size)
      const came = once(server, 'message')
      client.send(bytes, port, network.address)
      const [message] = await came
      t.true(message.equals(bytes), `${size} bytes`)
    }
    client.close()
    server.close()
  },
  'what cannot be sent says why': async (t, network) => {
    const socket = network.clientDgram.createSocket('udp4')
    const outcome = (...args: unknown[]) =>
      new Promise<NodeJS.ErrnoException>((resolve) => Reflect.apply(socket.send, socket, [...args, resolve]))
    const long = await outcome(Buffer.alloc(65508), 9, network.address)
    t.is(long.message, `send EMSGSIZE ${network.address}:9`)
    t.like(long, { code: 'EMSGSIZE', syscall: 'send', address: network.address, port: 9 })
    t.is((await outcome('x', 9, '255.255.255.255')).message, 'send EACCES 255.255.255.255:9')
    socket.close()
  },
  'wrong arguments throw Node’s errors': (t, network) => {
    const socket = network.clientDgram.createSocket('udp4')
    const wrong = (value: unknown) => value as never
    const bytes = Buffer.alloc(4)
    const throwing: [() => unknown, string, string][] = [
      [
        () => socket.send('x', 0, '127.0.0.1'),
        'ERR_SOCKET_BAD_PORT',
        'Port should be > 0 and < 65536. Received type number (0).',
      ],
      [
        () => socket.send('x', 70000),
        'ERR_SOCKET_BAD_PORT',
        'Port should be > 0 and < 65536. Received type number (70000).',
      ],
      [
        () => socket.send(wrong(5), 1),
        'ERR_INVALID_ARG_TYPE',
        'The "buffer" argument must be of type string or an instance of Buffer, TypedArray, or DataView. Received type number (5)',
      ],
      [
        () => socket.send([wrong(1)], 1),
        'ERR_INVALID_ARG_TYPE',
        'The "buffer list arguments" argument must be of type string or an instance of Buffer, TypedArray, or DataView. Received an instance of Array',
      ],
      [
        () => socket.send(bytes, 5, 1, 80, '127.0.0.1'),
        'ERR_BUFFER_OUT_OF_BOUNDS',
        '"offset" is outside of buffer bounds',
      ],
      [
        () => socket.send(bytes, 1, 5, 80, '127.0.0.1'),
        'ERR_BUFFER_OUT_OF_BOUNDS',
        '"length" is outside of buffer bounds',
      ],
      [
        () => socket.send('x', 80, wrong(5)),
        'ERR_INVALID_ARG_TYPE',
        'The "address" argument must be of type string. Received type number (5)',
      ],
      [() => socket.connect(0), 'ERR_SOCKET_BAD_PORT', 'Port should be > 0 and < 65536. Received type number (0).'],
      [() => socket.setBroadcast(true), 'EBADF', 'setBroadcast EBADF'],
      [
        () => socket.setTTL(wrong('x')),
        'ERR_INVALID_ARG_TYPE',
        'The "ttl" argument must be of type number. Received type string (\'x\')',
      ],
      [() => socket.setRecvBufferSize(-1), 'ERR_SOCKET_BAD_BUFFER_SIZE', 'Buffer size must be a positive integer'],
      [
        () => network.clientDgram.createSocket(wrong('tcp')),
        'ERR_SOCKET_BAD_TYPE',
        'Bad socket type specified. Valid types are: udp4, udp6',
      ],
    ]
    for (const [run, code, message] of throwing) t.throws(run, { code, message })
    socket.close()
  },
  'options of a bound socket': async (t, network) => {
    const socket = await bound(network)
    socket.setBroadcast(true)
    t.is(socket.setTTL(32), 32)
    t.throws(() => socket.setTTL(0), { message: 'setTTL EINVAL', code: 'EINVAL' })
    t.is(socket.ref(), socket)
    t.is(socket.unref(), socket)
    t.is(socket.getSendQueueCount(), 0)
    t.is(socket.getSendQueueSize(), 0)
    t.true(socket.getRecvBufferSize() > 0)
    socket.close()
  },
  'a connected socket hears that nobody is there': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    server.close()
    await once(server, 'close')
    const client = network.clientDgram.createSocket('udp4')
    client.connect(port, network.address)
    await once(client, 'connect')
    client.send('anybody?')
    const [error] = await once(client, 'error')
    t.is(error.message, 'recvmsg ECONNREFUSED')
    t.like(error, { code: 'ECONNREFUSED', syscall: 'recvmsg' })
    client.close()
  },
  'what was sent just before close still goes out': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    for (let i = 0; i < 20; i++) {
      const client = network.clientDgram.createSocket('udp4')
      const came = once(server, 'message')
      client.send(`last words ${i}`, port, network.address, () => client.close())
      t.is(String((await came)[0]), `last words ${i}`)
    }
    server.close()
  },
  'names are looked up': async (t, network) => {
    const server = await bound(network)
    const { port } = server.address()
    const lookup = ((
      _host: string,
      _options: unknown,
      callback: (error: Error | null, address: string, family: number) => void,
    ) => {
      setImmediate(callback, null, network.address, 4)
    }) as unknown as dgram.SocketOptions['lookup']
    const client = network.clientDgram.createSocket({ type: 'udp4', lookup } as dgram.SocketOptions)
    const came = once(server, 'message')
    client.send('by name', port, 'somewhere.test')
    t.is(String((await came)[0]), 'by name')
    client.close()
    server.close()
  },
  'an aborted signal closes the socket': async (t, network) => {
    const control = new AbortController()
    const socket = network.serverDgram.createSocket({ type: 'udp4', signal: control.signal })
    socket.bind(0)
    await once(socket, 'listening')
    const done = closed(socket)
    control.abort()
    await done
    t.throws(() => socket.address(), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' })
  },
}

runTable(cases)
