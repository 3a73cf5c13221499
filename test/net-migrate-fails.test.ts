/** `socket.migrate` where the move fails: nothing is lost, and the connection goes on; over cards without firmware. */
import { once } from 'node:events'
import type net from 'node:net'
import * as M from '../abi/messages.ts'
import { STATUS_EHOSTUNREACH } from '../abi/status.ts'
import { noting, pattern, record, SOCKET_EVENTS, sleep } from './support/sockets.ts'
import { handedOver, readBytes, refuse, serialBoardsTest } from './support/three-boards.ts'

serialBoardsTest('where nobody takes it the promise says so, and everything goes on', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  await refuse(boards, second)
  const calls: string[] = []
  client.write('unread ')
  await boards.settle()
  const events = record(peer, SOCKET_EVENTS)
  peer.write('before ', noting(calls, 'before'))
  const moving = peer.migrate('server2', { some: 'state' })
  peer.write('after', noting(calls, 'after'))
  t.is(peer.read(), null, 'nothing can be read meanwhile')
  const error = await t.throwsAsync(moving)
  t.is(error?.message, 'migrate ECONNREFUSED 10.0.0.3')
  t.like(error, { code: 'ECONNREFUSED', errno: -111, syscall: 'migrate', address: '10.0.0.3' })
  t.false(peer.destroyed)
  client.write('and more')
  t.is(String(await readBytes(peer, 15)), 'unread and more')
  t.is(String(await readBytes(client, 12)), 'before after')
  t.deepEqual(calls, ['before', 'after'])
  t.deepEqual(events, [])
  t.is(peer.bytesRead, 16)
  // And the next try.
  const arrived = handedOver(second)
  await boards.settle()
  await peer.migrate(undefined, 'again')
  t.is((await arrived).state, 'again')
})

serialBoardsTest('without a target the error names none', async (t, boards) => {
  const { second, peer } = await boards.pair()
  second.close()
  await boards.settle()
  const error = await t.throwsAsync(peer.migrate())
  t.is(error?.message, 'migrate ECONNREFUSED')
})

/** How the application reads, what of it must be there again after a failure, and that it goes on. */
const READERS: Record<string, (socket: net.Socket, into: Buffer[]) => void> = {
  flowing: (socket, into) => socket.on('data', (chunk) => into.push(chunk)),
  'with readable': (socket, into) =>
    socket.on('readable', () => {
      for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) into.push(chunk)
    }),
  'as an iterator': (socket, into) => {
    void (async () => {
      for await (const chunk of socket) into.push(chunk)
    })()
  },
  'paused, with data handlers, resumed while it moves': (socket, into) => {
    socket.on('data', (chunk) => into.push(chunk))
    socket.pause()
    setImmediate(() => socket.resume())
  },
  'paused, and resumed after': (socket, into) => {
    socket.on('data', (chunk) => into.push(chunk))
    socket.pause()
    setTimeout(() => socket.resume(), 20)
  },
  'as text': (socket, into) => socket.setEncoding('utf8').on('data', (text) => into.push(Buffer.from(text))),
}
for (const [name, read] of Object.entries(READERS)) {
  serialBoardsTest(`after a failure reading goes on: ${name}`, async (t, boards) => {
    const { second, client, peer } = await boards.pair()
    await refuse(boards, second)
    const text = 'ä€😀'.repeat(300)
    client.write(text)
    await boards.settle()
    const got: Buffer[] = []
    // Bytes come before, during and after the move.
    client.write(text)
    read(peer, got)
    const moving = peer.migrate('server2', 'x')
    client.write(text)
    await t.throwsAsync(moving, { message: /ECONNREFUSED/ })
    client.end(text)
    await once(peer, 'end')
    t.is(Buffer.concat(got).toString(), text.repeat(4))
  })
}

serialBoardsTest('bytes held for an onread callback go along, or stay', async (t, boards) => {
  const second = boards.client.net.createServer().listen(50000)
  const got: string[] = []
  const server = boards.server2.net.createServer((socket) => void socket.write('hello')).listen(80)
  await Promise.all([once(server, 'listening'), once(second, 'listening')])
  let taking = false
  const socket = boards.server1.net.connect({
    port: 80,
    host: '10.0.0.3',
    localPort: 50000,
    onread: {
      buffer: Buffer.alloc(3),
      callback: (bytes: number, buffer: Uint8Array) => {
        got.push(Buffer.from(buffer.subarray(0, bytes)).toString())
        return taking
      },
    },
  } as net.NetConnectOpts)
  socket.write('?')
  await boards.settle()
  await sleep(10)
  t.deepEqual(got, ['hel'])
  await t.throwsAsync(socket.migrate('10.0.0.2', 'x'), { message: /ECONNREFUSED/ })
  taking = true
  socket.pause()
  socket.resume()
  t.deepEqual(got, ['hel', 'lo'])
})

serialBoardsTest('unread text goes along if its bytes can be told', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  peer.setEncoding('utf8')
  // The last character is not whole yet.
  client.write(Buffer.from('read, unread €').subarray(0, -1))
  await boards.settle()
  t.is(peer.read(6) as unknown, 'read, ')
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  client.write(Buffer.from('€').subarray(-1))
  const { socket } = await arrived
  t.is(String(await readBytes(socket, 10)), 'unread €')
})

serialBoardsTest('unread text that may have been other bytes does not go', async (t, boards) => {
  const { client, peer } = await boards.pair()
  peer.setEncoding('utf8')
  client.write(Buffer.from([0x41, 0xff]))
  await boards.settle()
  await t.throwsAsync(peer.migrate('server2', 'x'), { code: 'ERR_INVALID_STATE', message: /cannot be turned back/ })
  t.is(peer.read() as unknown, 'A\ufffd')
  t.false(peer.destroyed)
})

serialBoardsTest('what was put back with unshift goes along', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  client.write('head and tail')
  await boards.settle()
  const head = peer.read(13) as Buffer
  peer.unshift(head.subarray(4))
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  t.is(String(await readBytes((await arrived).socket, 9)), ' and tail')
})

serialBoardsTest('more than ever came does not go', async (t, boards) => {
  const { peer } = await boards.pair()
  peer.unshift(Buffer.alloc(100))
  await t.throwsAsync(peer.migrate('server2', 'x'), { code: 'ERR_INVALID_STATE' })
  t.is(peer.readableLength, 100)
})

serialBoardsTest('more than can be queued rejects at once, and goes on', async (t, boards) => {
  const { client, peer } = await boards.pair()
  const bytes = pattern(3_000_000)
  peer.write(bytes)
  const error = await t.throwsAsync(peer.migrate('server2', 'x'))
  t.like(error, { code: 'ENOBUFS', syscall: 'migrate' })
  t.true((await readBytes(client, bytes.length)).equals(bytes))
})

serialBoardsTest(
  'after a failure the credit that was overdrawn is paid back before anything else is sent',
  async (t, boards) => {
    const { second, client, peer } = await boards.pair()
    await refuse(boards, second)
    const bytes = pattern(1_500_000)
    peer.write(bytes.subarray(0, 1_000_000))
    const moving = peer.migrate('server2', 'x')
    peer.write(bytes.subarray(1_000_000))
    await t.throwsAsync(moving)
    t.true((await readBytes(client, bytes.length)).equals(bytes))
    await boards.settle()
    t.is(boards.server1.stack.driver.state, 'running')
  },
)

serialBoardsTest('an end that was asked for meanwhile is sent if the move fails', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  await refuse(boards, second)
  const moving = peer.migrate('server2', 'x')
  peer.end('last words')
  await t.throwsAsync(moving)
  t.is(String(await readBytes(client, 10)), 'last words')
  const ended = once(client, 'end')
  client.resume()
  await ended
  client.end()
  await once(peer, 'close')
})

serialBoardsTest('an end that came meanwhile is there if the move fails', async (t, boards) => {
  const { second, client, peer } = await boards.pair({ allowHalfOpen: true })
  await refuse(boards, second)
  client.write('un')
  await boards.settle()
  client.end('read')
  await t.throwsAsync(peer.migrate('server2', 'x'))
  t.is(String(await readBytes(peer, 6)), 'unread')
  const ended = once(peer, 'end')
  peer.resume()
  await ended
  peer.end('answer')
  t.is(String(await readBytes(client, 6)), 'answer')
  await boards.settle()
  t.is(boards.server1.card.ends.size, 0)
})

serialBoardsTest('settings made meanwhile count, and timeouts wait', async (t, boards) => {
  const { peer } = await boards.pair()
  boards.network.holdsMoves = true
  const events = record(peer, SOCKET_EVENTS)
  peer.setTimeout(20)
  const moving = peer.migrate('server2', 'x')
  peer.setNoDelay(true)
  peer.setKeepAlive(true, 30_000)
  await sleep(50)
  const [end] = boards.server1.card.ends.values()
  t.is(end!.options, null, 'nothing is said of a connection that moves')
  t.deepEqual(events, [])
  boards.network.moves[0]!.finish(STATUS_EHOSTUNREACH)
  const error = await t.throwsAsync(moving)
  t.is((error as NodeJS.ErrnoException).code, 'EHOSTUNREACH')
  await once(peer, 'timeout')
  t.deepEqual(
    [...end!.options!],
    [
      [M.OPTION_NO_DELAY, 1],
      [M.OPTION_KEEP_ALIVE, 30],
    ],
  )
})
