import { createHash } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import { closed, listen, pair, pattern, readAll, record, sleep } from './support/sockets.ts'
import { type Case, runTable } from './support/table.ts'

/**
 * What Node documents of `net`, as a table: opening connections, and data. Endings are in net-end.test.ts, servers and settings in
 * net-server.test.ts, what is built on it in net-apps.test.ts.
 */
const cases: Record<string, Case> = {
  // ── opening ──

  'connects, says connect and then ready, and runs the callback': async (t, network) => {
    const { server, port } = await listen(network)
    const events: string[] = []
    const socket = network.client.connect(port, network.address, () => events.push('callback'))
    record(socket, ['connect', 'ready'], events)
    t.true(socket.connecting)
    t.true(socket.pending)
    t.is(socket.readyState, 'opening')
    await once(socket, 'ready')
    t.deepEqual(events, ['callback', 'connect', 'ready'])
    t.false(socket.connecting)
    t.false(socket.pending)
    t.is(socket.readyState, 'open')
    socket.destroy()
    server.close()
    await once(server, 'close')
    t.is(socket.readyState, 'closed')
  },
  'both ends know the addresses and ports': async (t, network) => {
    const { client, peer, port } = await pair(network)
    t.is(client.remoteAddress, network.address)
    t.is(client.remotePort, port)
    t.is(client.remoteFamily, 'IPv4')
    t.is(peer.localAddress, network.address)
    t.is(peer.localPort, port)
    t.is(peer.remotePort, client.localPort)
    t.is(peer.remoteAddress, client.localAddress)
    t.deepEqual(client.address(), { address: client.localAddress, family: 'IPv4', port: client.localPort })
    client.destroy()
  },
  'before a connection there are no addresses': (t, network) => {
    const socket = new network.client.Socket()
    t.deepEqual(socket.address(), {})
    t.is(socket.remoteAddress, undefined)
    t.is(socket.localPort, undefined)
    t.is(socket.bytesRead, 0)
    t.is(socket.bytesWritten, 0)
    t.true(socket.pending)
    t.false(socket.connecting)
  },
  'a port where nobody listens refuses': async (t, network) => {
    const { server, port } = await listen(network)
    server.close()
    await once(server, 'close')
    const socket = network.client.connect(port, network.address)
    const events = record(socket, ['error', 'close', 'connect', 'end'])
    const [error] = await once(socket, 'error')
    t.is(error.message, `connect ECONNREFUSED ${network.address}:${port}`)
    t.like(error, { code: 'ECONNREFUSED', errno: -111, syscall: 'connect', address: network.address, port })
    await sleep(5)
    t.deepEqual(events, ['error', 'close with error'])
    t.true(socket.destroyed)
  },
  'a local address that is not the board’s cannot be bound': async (t, network) => {
    const socket = network.client.connect({ port: 1, host: network.address, localAddress: '203.0.113.77' })
    const [error] = await once(socket, 'error')
    t.is(error.message, 'bind EADDRNOTAVAIL 203.0.113.77')
    t.like(error, { code: 'EADDRNOTAVAIL', syscall: 'bind', address: '203.0.113.77' })
  },
  'connect and listen take their arguments in every documented form': async (t, network) => {
    const { server, port } = await listen(network)
    const host = network.address
    const connects: (() => net.Socket)[] = [
      () => network.client.connect(port, host),
      () => network.client.connect({ port, host }),
      () => network.client.connect({ port: String(port) as unknown as number, host }),
      () => network.client.createConnection(port, host),
      () => network.client.createConnection({ port, host }, () => {}),
      () => new network.client.Socket().connect(port, host),
      () => new network.client.Socket().connect({ port, host }),
      () => new network.client.Socket({ allowHalfOpen: true }).connect(port, host, () => {}),
    ]
    for (const connect of connects) {
      const socket = connect()
      t.true(socket instanceof net.Socket)
      await once(socket, 'connect')
      socket.destroy()
    }
    server.close()
    const listens: ((server: net.Server, done: () => void) => void)[] = [
      (s, done) => s.listen(done),
      (s, done) => s.listen(0, done),
      (s, done) => s.listen('0', done),
      (s, done) => s.listen(0, host, done),
      (s, done) => s.listen(0, 16, done),
      (s, done) => s.listen(0, host, 16, done),
      (s, done) => s.listen({ port: 0, host, backlog: 16 }, done),
      (s, done) => s.listen({ port: 0 }, done),
      (s, done) => s.listen({ port: undefined }, done),
      (s, done) => s.listen(undefined, undefined, undefined, done),
    ]
    for (const start of listens) {
      const listener = network.server.createServer()
      await new Promise<void>((resolve) => start(listener, resolve))
      t.true((listener.address() as net.AddressInfo).port > 0)
      listener.close()
    }
  },
  'a server knows whether it listens, and where': async (t, network) => {
    const server = network.server.createServer()
    t.false(server.listening)
    t.is(server.address(), null)
    t.is(server.listen(0, network.address), server)
    await once(server, 'listening')
    t.true(server.listening)
    t.like(server.address(), { address: network.address, family: 'IPv4' })
    t.throws(() => server.listen(0), { code: 'ERR_SERVER_ALREADY_LISTEN' })
    server.close()
    t.false(server.listening)
    t.is(server.address(), null)
    await once(server, 'close')
    server.listen(0, network.address)
    await once(server, 'listening')
    server.close()
  },
  'a port that is taken cannot be listened on': async (t, network) => {
    const { server, port } = await listen(network)
    const second = network.server.createServer()
    second.listen(port, network.address)
    const [error] = await once(second, 'error')
    t.is(error.message, `listen EADDRINUSE: address already in use ${network.address}:${port}`)
    t.like(error, { code: 'EADDRINUSE', errno: -98, syscall: 'listen', address: network.address, port })
    t.false(second.listening)
    server.close()
    await once(server, 'close')
    second.listen(port, network.address)
    await once(second, 'listening')
    second.close()
  },
  'wrong arguments throw Node’s errors': (t, network) => {
    const { connect, createServer, Socket } = network.client
    const wrong = (value: unknown) => value as never
    const throwing: [() => unknown, string, string][] = [
      [() => connect(70000), 'ERR_SOCKET_BAD_PORT', 'Port should be >= 0 and < 65536. Received type number (70000).'],
      [
        () => connect({ port: wrong('abc') }),
        'ERR_SOCKET_BAD_PORT',
        "Port should be >= 0 and < 65536. Received type string ('abc').",
      ],
      [
        () => connect({ port: wrong(true) }),
        'ERR_INVALID_ARG_TYPE',
        'The "options.port" property must be one of type number or string. Received type boolean (true)',
      ],
      [() => connect({ port: 80, localAddress: 'x' }), 'ERR_INVALID_IP_ADDRESS', 'Invalid IP address: x'],
      [
        () => connect({ port: 80, localPort: wrong('x') }),
        'ERR_INVALID_ARG_TYPE',
        'The "options.localPort" property must be of type number. Received type string (\'x\')',
      ],
      [
        () => connect({ port: 80, host: 'localhost', lookup: wrong(3) }),
        'ERR_INVALID_ARG_TYPE',
        'The "options.lookup" property must be of type function. Received type number (3)',
      ],
      [
        () => new Socket().connect(wrong({})),
        'ERR_MISSING_ARGS',
        'The "options" or "port" or "path" argument must be specified',
      ],
      [
        () => new Socket().setTimeout(-1),
        'ERR_OUT_OF_RANGE',
        'The value of "msecs" is out of range. It must be a non-negative finite number. Received -1',
      ],
      [
        () => new Socket().setTimeout(wrong('x')),
        'ERR_INVALID_ARG_TYPE',
        'The "msecs" argument must be of type number. Received type string (\'x\')',
      ],
      [
        () => new Socket().setTimeout(1, wrong(5)),
        'ERR_INVALID_ARG_TYPE',
        'The "callback" argument must be of type function. Received type number (5)',
      ],
      [
        () => createServer().listen(99999),
        'ERR_SOCKET_BAD_PORT',
        'options.port should be >= 0 and < 65536. Received type number (99999).',
      ],
      [
        () => createServer().listen(wrong({})),
        'ERR_INVALID_ARG_VALUE',
        'The argument \'options\' must have the property "port" or "path". Received {}',
      ],
      [
        () => createServer(wrong('x')),
        'ERR_INVALID_ARG_TYPE',
        'The "options" argument must be of type object. Received type string (\'x\')',
      ],
      [
        () => createServer({ keepAliveInitialDelay: wrong('x') }),
        'ERR_INVALID_ARG_TYPE',
        'The "options.keepAliveInitialDelay" property must be of type number. Received type string (\'x\')',
      ],
    ]
    for (const [run, code, message] of throwing) t.throws(run, { code, message })
  },
  'a host name is looked up, and says so': async (t, network) => {
    const { server, port } = await listen(network)
    const asked: unknown[] = []
    const lookup = ((host: string, options: { all?: boolean }, callback: (...args: unknown[]) => void) => {
      asked.push(host)
      if (options.all) setImmediate(callback, null, [{ address: network.address, family: 4 }])
      else setImmediate(callback, null, network.address, 4)
    }) as net.LookupFunction
    const socket = network.client.connect({ port, host: 'somewhere.test', lookup })
    const [error, address, family, host] = await once(socket, 'lookup')
    t.is(error, null)
    t.deepEqual([address, family, host], [network.address, 4, 'somewhere.test'])
    await once(socket, 'connect')
    t.deepEqual(asked, ['somewhere.test'])
    socket.destroy()
    server.close()
  },
  'a host name that is not found fails the socket': async (t, network) => {
    const lookup = ((_host: string, _options: object, callback: (error: Error) => void) => {
      setImmediate(callback, Object.assign(new Error('getaddrinfo ENOTFOUND nowhere.test'), { code: 'ENOTFOUND' }))
    }) as unknown as net.LookupFunction
    const socket = network.client.connect({ port: 80, host: 'nowhere.test', lookup })
    const events = record(socket, ['lookup', 'error', 'close'])
    const [error] = await once(socket, 'error')
    t.is(error.code, 'ENOTFOUND')
    await sleep(5)
    t.deepEqual(events, ['lookup', 'error', 'close with error'])
  },
  'localhost is the board itself': async (t, network) => {
    const server = network.server.createServer((socket) => socket.end('home'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = network.server.connect({ port: (server.address() as net.AddressInfo).port, host: 'localhost' })
    const addresses: unknown[] = []
    socket.on('connect', () => addresses.push(socket.remoteAddress, socket.localAddress))
    t.is(String(await readAll(socket)), 'home')
    t.deepEqual(addresses, ['127.0.0.1', '127.0.0.1'])
    server.close()
  },
  'an aborted signal destroys the socket, or closes the server': async (t, network) => {
    const control = new AbortController()
    const { server, port } = await listen(network)
    const socket = new network.client.Socket({ signal: control.signal } as net.SocketConstructorOpts)
    socket.connect(port, network.address)
    await once(socket, 'connect')
    control.abort()
    const [error] = await once(socket, 'error')
    t.is(error.name, 'AbortError')
    server.close()
    const second = network.server.createServer()
    const stop = new AbortController()
    second.listen({ port: 0, host: network.address, signal: stop.signal })
    await once(second, 'listening')
    stop.abort()
    await once(second, 'close')
    t.false(second.listening)
    const early = new network.client.Socket({ signal: control.signal } as net.SocketConstructorOpts)
    await t.throwsAsync(once(early, 'connect'), { name: 'AbortError' })
  },

  // ── data ──

  'what is written arrives, whatever it is written as': async (t, network) => {
    const { client, peer } = await pair(network)
    client.write('caffè ')
    client.write('636166e8', 'hex')
    client.write('café', 'latin1')
    client.write(new Uint8Array([1, 2, 3]))
    client.write(Buffer.alloc(0))
    client.write('')
    client.write('YWJj', 'base64')
    client.end('ŵ', 'utf16le')
    const bytes = await readAll(peer)
    const expected = [
      Buffer.from('caffè '),
      Buffer.from('636166e8', 'hex'),
      Buffer.from('café', 'latin1'),
      Buffer.from([1, 2, 3]),
      Buffer.from('abc'),
      Buffer.from('ŵ', 'utf16le'),
    ]
    t.deepEqual(bytes, Buffer.concat(expected))
    t.is(client.bytesWritten, bytes.length + 1)
    t.is(peer.bytesRead, bytes.length + 1)
  },
  'writes before the connection wait for it, in order': async (t, network) => {
    const { server, port } = await listen(network)
    const accepted = once(server, 'connection') as Promise<[net.Socket]>
    const socket = network.client.connect(port, network.address)
    const done: string[] = []
    socket.write('one ', () => done.push('one'))
    socket.write('two ', () => done.push('two'))
    t.is(socket.bytesWritten, 8)
    socket.end('three', () => done.push('end'))
    const over = closed(socket)
    const [peer] = await accepted
    t.is(String(await readAll(peer)), 'one two three')
    await over
    t.deepEqual(done, ['one', 'two', 'end'])
    t.is(socket.bytesWritten, 13)
    server.close()
  },
  'corked writes arrive together': async (t, network) => {
    const { client, peer } = await pair(network)
    const chunks: Buffer[] = []
    peer.on('data', (chunk) => chunks.push(chunk))
    client.cork()
    client.write('head: ')
    client.write(Buffer.from([0x62, 0x6f, 0x64, 0x79]))
    client.write('ÿ', 'latin1')
    t.is(client.writableLength, 11)
    client.uncork()
    while (Buffer.concat(chunks).length < 11) await once(peer, 'data')
    t.is(Buffer.concat(chunks).toString('latin1'), 'head: bodyÿ')
    t.is(chunks.length, 1)
    client.destroy()
  },
  'a large transfer is intact in both directions at once': async (t, network) => {
    const { client, peer } = await pair(network)
    const bytes = pattern(8_000_000)
    const hash = createHash('sha256').update(bytes).digest('hex')
    const receive = async (socket: net.Socket) =>
      createHash('sha256')
        .update(await readAll(socket))
        .digest('hex')
    client.end(bytes)
    for (let at = 0; at < bytes.length; at += 100_001) peer.write(bytes.subarray(at, at + 100_001))
    peer.end()
    t.deepEqual(await Promise.all([receive(client), receive(peer)]), [hash, hash])
  },
  'many writev chunks of all sizes are intact': async (t, network) => {
    const { client, peer } = await pair(network)
    const bytes = pattern(1_000_000)
    client.cork()
    for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7 + 3) % 90_001) {
      size = Math.max(1, size)
      const part = bytes.subarray(at, at + size)
      if (size % 3 === 0) client.write(part.toString('latin1'), 'latin1')
      else client.write(part)
    }
    client.end()
    t.true((await readAll(peer)).equals(bytes))
  },
  'a slow reader stops the writer, and lets it go on': async (t, network) => {
    const { client, peer } = await pair(network)
    const total = 48 << 20
    const block = pattern(1 << 20)
    let written = 0
    let full = false
    const pump = () => {
      while (written < total) {
        written += block.length
        if (!client.write(block)) {
          full = true
          client.once('drain', pump)
          return
        }
      }
      client.end()
    }
    pump()
    t.true(full, 'write returns false')
    await sleep(60)
    const stuck = written
    t.true(stuck < total, `${stuck} bytes went out although nobody reads`)
    t.true(client.writableLength > 0)
    await sleep(30)
    t.is(written, stuck)
    let received = 0
    for await (const chunk of peer) received += chunk.length
    t.is(received, total)
  },
  'a paused socket keeps quiet until it is resumed': async (t, network) => {
    const { client, peer } = await pair(network)
    const got: string[] = []
    peer.on('data', (chunk) => got.push(String(chunk)))
    peer.pause()
    t.true(peer.isPaused())
    client.write('late')
    await sleep(20)
    t.deepEqual(got, [])
    peer.resume()
    await once(peer, 'data')
    t.deepEqual(got, ['late'])
    client.destroy()
  },
  'readable and read work, however the data is cut': async (t, network) => {
    const { client, peer } = await pair(network)
    const bytes = pattern(300_000)
    client.end(bytes)
    const parts: Buffer[] = []
    peer.on('readable', () => {
      for (let chunk = peer.read(777); chunk !== null; chunk = peer.read(777)) parts.push(chunk)
      if (peer.readableLength > 0 && peer.readableEnded === false) {
        const rest = peer.read()
        if (rest !== null) parts.push(rest)
      }
    })
    await once(peer, 'end')
    t.true(Buffer.concat(parts).equals(bytes))
  },
  'setEncoding gives strings, whole characters': async (t, network) => {
    const { client, peer } = await pair(network)
    peer.setEncoding('utf8')
    const text = '€uro – ünïcode 🎉 '.repeat(20_000)
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length; at += 9_973) client.write(bytes.subarray(at, at + 9_973))
    client.end()
    let got = ''
    for await (const chunk of peer) got += chunk
    t.is(got.length, text.length)
    t.true(got === text)
  },
  'onread puts the data into the application’s own buffer': async (t, network) => {
    const bytes = pattern(200_000)
    const { server, port } = await listen(network, {}, (peer) => peer.end(bytes))
    for (const generated of [false, true]) {
      const parts: Buffer[] = []
      const own = Buffer.alloc(10_000)
      let pauses = 0
      const socket: net.Socket = network.client.connect({
        port,
        host: network.address,
        onread: {
          buffer: generated ? () => Buffer.alloc(3_333) : own,
          callback(count: number, buffer: Uint8Array) {
            t.is(buffer.length, generated ? 3_333 : 10_000)
            parts.push(Buffer.from(buffer.subarray(0, count)))
            if (parts.length % 10 !== 0) return true
            pauses++
            setTimeout(() => socket.resume(), 1)
            return false
          },
        },
      } as net.NetConnectOpts)
      socket.on('data', () => t.fail('no data event'))
      await once(socket, 'end')
      t.true(Buffer.concat(parts).equals(bytes))
      t.true(pauses > 0)
    }
    server.close()
  },
  'pipe and unshift work': async (t, network) => {
    const { client, peer } = await pair(network)
    pipeline(peer, peer).catch(() => {})
    const bytes = pattern(700_000)
    client.end(bytes)
    client.once('data', (chunk: Buffer) => {
      client.pause()
      client.unshift(chunk)
      setImmediate(() => client.resume())
    })
    const chunks: Buffer[] = []
    client.on('data', (chunk) => chunks.push(chunk))
    await once(client, 'end')
    // The first chunk was seen twice by this listener: once before it was put back.
    t.true(Buffer.concat(chunks.slice(1)).equals(bytes))
  },
}

runTable(cases)
