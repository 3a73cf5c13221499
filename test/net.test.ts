import { createHash } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import test, { type ExecutionContext } from 'ava'
import { boardNetwork, cardNetwork, type Network, nodeNetwork } from './support/network.ts'
import { closed, listen, pair, pattern, readAll, record, sleep } from './support/sockets.ts'

/**
 * What Node documents of `net`, as a table. Every case runs twice: on node:net over the machine's loopback, which proves that the expectation
 * is Node's, and on our sockets over two cards.
 */
const networks: Record<string, () => Network> = { node: nodeNetwork, card: cardNetwork, board: boardNetwork }

type Case = (t: ExecutionContext, network: Network) => Promise<void> | void

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

  // ── ending ──

  'end, then close, on both sides': async (t, network) => {
    const { client, peer } = await pair(network)
    const events: string[] = []
    record(client, ['end', 'finish', 'close', 'error'], events, 'client ')
    record(peer, ['end', 'finish', 'close', 'error'], events, 'server ')
    peer.resume()
    client.resume()
    client.end('bye')
    await Promise.all([once(client, 'close'), once(peer, 'close')])
    t.deepEqual(
      events.filter((event) => event.startsWith('client')),
      ['client finish', 'client end', 'client close'],
    )
    t.deepEqual(
      events.filter((event) => event.startsWith('server')),
      ['server end', 'server finish', 'server close'],
    )
  },
  'with allowHalfOpen the server goes on after the client’s end': async (t, network) => {
    const { client, peer } = await pair(network, { server: { allowHalfOpen: true } })
    client.end('question')
    t.is(String(await readAll(peer)), 'question')
    await sleep(10)
    t.false(peer.destroyed)
    t.is(peer.readyState, 'writeOnly')
    t.is(client.readyState, 'readOnly')
    peer.write('answer')
    peer.end(' and more')
    t.is(String(await readAll(client)), 'answer and more')
  },
  'without allowHalfOpen a socket ends by itself, and unread data keeps it open': async (t, network) => {
    const { client, peer } = await pair(network)
    client.end('unread')
    await sleep(20)
    t.false(peer.destroyed)
    t.false(peer.readableEnded)
    peer.resume()
    await once(peer, 'close')
    t.true(client.readableEnded || (await once(client.resume(), 'end')).length === 0)
  },
  'a socket that nobody reads still sees the end when there is no data': async (t, network) => {
    const { client, peer } = await pair(network)
    client.end()
    await Promise.all([once(peer, 'close'), once(client, 'close')])
    t.true(peer.readableEnded)
  },
  'a write after end fails': async (t, network) => {
    const { client } = await pair(network)
    client.end()
    const errors: (string | undefined)[] = []
    client.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code))
    client.write('late', (error) => errors.push(`callback ${(error as NodeJS.ErrnoException).code}`))
    await closed(client)
    t.deepEqual(errors, ['callback ERR_STREAM_WRITE_AFTER_END', 'ERR_STREAM_WRITE_AFTER_END'])
  },
  'a write after the other party has ended says so': async (t, network) => {
    const { client, peer } = await pair(network)
    const failed = once(peer.resume(), 'error')
    client.end()
    peer.once('end', () => {
      // The socket ends by itself one tick after 'end'.
      process.nextTick(() => process.nextTick(() => t.false(peer.write('late'))))
    })
    const [error] = await failed
    t.is(error.message, 'This socket has been ended by the other party')
    t.is(error.code, 'EPIPE')
  },
  'destroy closes at once, without an error': async (t, network) => {
    const { client, peer } = await pair(network)
    const events = record(client, ['end', 'finish', 'error', 'close'])
    peer.resume()
    t.is(client.destroy(), client)
    t.true(client.destroyed)
    await Promise.all([once(client, 'close'), once(peer, 'close')])
    t.deepEqual(events, ['close'])
    t.true(peer.readableEnded)
    t.is(client.localAddress, undefined)
  },
  'destroy with an error says so': async (t, network) => {
    const { client } = await pair(network)
    const events = record(client, ['error', 'close'])
    const failed = once(client, 'error')
    client.destroy(new Error('enough'))
    t.is((await failed)[0].message, 'enough')
    await sleep(5)
    t.deepEqual(events, ['error', 'close with error'])
  },
  'destroy before the connection leaves no trace': async (t, network) => {
    const { server, port } = await listen(network)
    const socket = network.client.connect(port, network.address)
    const events = record(socket, ['connect', 'error', 'close'])
    const failed = new Promise<NodeJS.ErrnoException>((resolve) =>
      socket.write('x', (error) => resolve(error as NodeJS.ErrnoException)),
    )
    socket.destroy()
    t.is((await failed).code, 'ERR_SOCKET_CLOSED_BEFORE_CONNECTION')
    await sleep(20)
    t.deepEqual(events, ['close'])
    server.close()
    await once(server, 'close')
  },
  'resetAndDestroy resets the other side': async (t, network) => {
    const { client, peer } = await pair(network)
    const events = record(client, ['error', 'close'])
    const failed = once(peer.resume(), 'error')
    t.is(client.resetAndDestroy(), client)
    const [error] = await failed
    t.is(error.message, 'read ECONNRESET')
    t.like(error, { code: 'ECONNRESET', errno: -104, syscall: 'read' })
    await sleep(5)
    t.deepEqual(events, ['close'])
  },
  'resetAndDestroy without a connection is an error': async (t, network) => {
    const socket = new network.client.Socket().resetAndDestroy()
    await t.throwsAsync(once(socket, 'close'), { code: 'ERR_SOCKET_CLOSED', message: 'Socket is closed' })
  },
  'resetAndDestroy before the connection waits for it': async (t, network) => {
    const { server, port } = await listen(network)
    const socket = network.client.connect(port, network.address)
    socket.resetAndDestroy()
    await closed(socket)
    t.true(socket.destroyed)
    server.close()
  },
  'destroy with unread data resets the other side': async (t, network) => {
    const { client, peer } = await pair(network)
    client.write('never read')
    await sleep(20)
    const failed = once(client.resume(), 'error')
    peer.destroy()
    const [error] = await failed
    t.is(error.code, 'ECONNRESET')
  },
  'destroySoon sends everything first': async (t, network) => {
    const { client, peer } = await pair(network)
    const bytes = pattern(2_000_000)
    client.write(bytes)
    client.destroySoon()
    t.true((await readAll(peer)).equals(bytes))
    t.true(client.destroyed)
  },
  'a pending write ends with its socket': async (t, network) => {
    const { client } = await pair(network)
    const events = record(client, ['error', 'close'])
    client.write(Buffer.alloc(32 << 20), (error) => events.push(`first ${error?.message}`))
    client.write('x', (error) => events.push(`second ${(error as NodeJS.ErrnoException | null | undefined)?.code}`))
    await sleep(20)
    client.destroy()
    await sleep(20)
    t.deepEqual(events.toSorted(), ['close', 'first undefined', 'second ERR_STREAM_DESTROYED'])
  },
  'write and end on a socket that never connected': async (t, network) => {
    const socket = new network.client.Socket()
    const failed = once(socket, 'error')
    socket.write('x')
    t.is((await failed)[0].code, 'ERR_SOCKET_CLOSED')
  },
  'a socket can connect again after it was closed': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.end('again'))
    const socket = new network.client.Socket()
    for (let turn = 0; turn < 3; turn++) {
      socket.connect(port, network.address)
      const got: string[] = []
      const onData = (chunk: Buffer) => got.push(String(chunk))
      socket.on('data', onData)
      await once(socket, 'close')
      socket.off('data', onData)
      t.deepEqual(got, ['again'])
      t.is(socket.bytesRead, 5)
    }
    server.close()
  },

  // ── servers ──

  'close waits for connections': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    const accepted = once(server, 'connection')
    const socket = network.client.connect(port, network.address)
    socket.write('x')
    await accepted
    const events = record(server, ['close'])
    let called: unknown = 'no'
    server.close((error) => {
      called = error
    })
    await sleep(20)
    t.deepEqual(events, [])
    const late = network.client.connect(port, network.address)
    t.is((await once(late, 'error'))[0].code, 'ECONNREFUSED')
    socket.end()
    await once(server, 'close')
    t.is(called, undefined)
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => server.close(resolve))
    t.is(error?.code, 'ERR_SERVER_NOT_RUNNING')
  },
  'getConnections counts': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    const count = () =>
      new Promise<number>((resolve, reject) =>
        server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
      )
    t.is(await count(), 0)
    const sockets = [0, 1, 2].map(() => network.client.connect(port, network.address))
    for (const socket of sockets) {
      socket.write('x')
      if (!socket.connecting) continue
      await once(socket, 'connect')
    }
    while ((await count()) < 3) await sleep(1)
    for (const socket of sockets) socket.end()
    server.close()
    await once(server, 'close')
    t.is(await count(), 0)
  },
  'maxConnections drops, and says whom': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    server.maxConnections = 1
    const accepted = once(server, 'connection')
    const first = network.client.connect(port, network.address)
    first.write('x')
    await accepted
    const dropped = once(server, 'drop')
    const second = network.client.connect(port, network.address)
    const over = closed(second.resume())
    second.write('x')
    const [who] = await dropped
    t.like(who, { localAddress: network.address, localPort: port, localFamily: 'IPv4', remoteFamily: 'IPv4' })
    t.true(who.remotePort > 0)
    await over
    first.destroy()
    server.close()
  },
  'pauseOnConnect hands over paused sockets': async (t, network) => {
    const { server, port } = await listen(network, { pauseOnConnect: true })
    const accepted = once(server, 'connection') as Promise<[net.Socket]>
    const socket = network.client.connect(port, network.address)
    socket.write('waiting')
    const [peer] = await accepted
    t.true(peer.isPaused())
    const got: string[] = []
    peer.on('data', (chunk) => got.push(String(chunk)))
    await sleep(20)
    t.deepEqual(got, [])
    peer.resume()
    await once(peer, 'data')
    t.deepEqual(got, ['waiting'])
    socket.destroy()
    server.close()
  },
  'a socket knows its server': async (t, network) => {
    const { server, peer, client } = await pair(network)
    t.is((peer as net.Socket & { server: net.Server }).server, server)
    client.destroy()
  },
  'many connections at once': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => pipeline(peer, peer).catch(() => {}))
    const talk = async (i: number) => {
      const socket = network.client.connect(port, network.address)
      socket.end(`client ${i}`)
      return String(await readAll(socket))
    }
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => talk(i)))
    t.deepEqual(
      answers,
      Array.from({ length: 300 }, (_, i) => `client ${i}`),
    )
    server.close()
    await once(server, 'close')
  },
  'a server that speaks first is heard': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.end('220 ready'))
    t.is(String(await readAll(network.client.connect(port, network.address))), '220 ready')
    server.close()
  },

  // ── settings ──

  'a silent socket times out, an active one does not': async (t, network) => {
    const { client, peer } = await pair(network)
    const events: string[] = []
    client.setTimeout(60, () => events.push('callback'))
    client.on('timeout', () => events.push('timeout'))
    t.is(client.timeout, 60)
    peer.resume()
    for (let i = 0; i < 6; i++) {
      await sleep(20)
      client.write('x')
    }
    for (let i = 0; i < 6; i++) {
      await sleep(20)
      peer.write('y')
      client.resume()
    }
    t.deepEqual(events, [])
    await once(client, 'timeout')
    t.deepEqual(events, ['callback', 'timeout'])
    t.false(client.destroyed)
    await sleep(80)
    t.is(events.length, 2, 'once a silence')
    client.write('x')
    await once(client, 'timeout')
    client.setTimeout(0)
    client.write('x')
    await sleep(80)
    t.is(events.length, 3)
    client.destroy()
  },
  'a timeout given to connect runs from the start': async (t, network) => {
    const { server, port } = await listen(network)
    const socket = network.client.connect({ port, host: network.address, timeout: 30 })
    await once(socket, 'timeout')
    t.is(socket.timeout, 30)
    socket.destroy()
    server.close()
  },
  'settings return the socket': async (t, network) => {
    const { client, server } = await pair(network)
    t.is(client.setNoDelay(), client)
    t.is(client.setNoDelay(false), client)
    t.is(client.setKeepAlive(true, 5000), client)
    t.is(client.setKeepAlive(false), client)
    t.is(client.setTimeout(1000), client)
    t.is(client.ref(), client)
    t.is(client.unref(), client)
    t.is(server.ref(), server)
    t.is(server.unref(), server)
    const early = new network.client.Socket()
    t.is(early.setNoDelay(), early)
    t.is(early.setKeepAlive(true), early)
    t.is(early.unref(), early)
    client.destroy()
  },
  'sockets can be subclassed': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.end('sub'))
    class Special extends network.client.Socket {
      special = 'yes'
      shout(): string {
        return this.special.toUpperCase()
      }
    }
    const socket = new Special()
    t.true(socket instanceof Special)
    t.true(socket instanceof net.Socket)
    t.true(socket instanceof network.client.Socket)
    t.is(socket.shout(), 'YES')
    socket.connect(port, network.address)
    t.is(String(await readAll(socket)), 'sub')
    server.close()
  },
}

for (const [kind, make] of Object.entries(networks)) {
  for (const [name, run] of Object.entries(cases)) {
    // Two emulated boards in real time want the processor for themselves.
    const define = kind === 'board' ? test.serial : test
    define(`${kind}: ${name}`, async (t) => {
      const network = make()
      try {
        await run(t, network)
      } finally {
        await network.close()
      }
    })
  }
}
