import { once } from 'node:events'
import { closed, listen, pair, pattern, readAll, record, sleep } from './support/sockets.ts'
import { type Case, runTable } from './support/table.ts'

/** How connections end, as Node documents it; see net.test.ts. */
const cases: Record<string, Case> = {
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
    // More than the stream takes out of the socket by itself.
    client.write(Buffer.alloc(1 << 20))
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
}

runTable(cases)
