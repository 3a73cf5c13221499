import { once } from 'node:events'
import type net from 'node:net'
import test from 'ava'
import fc from 'fast-check'
import * as M from '../abi/messages.ts'
import { STATUS_EHOSTUNREACH } from '../abi/status.ts'
import { pattern, record, sleep } from './support/sockets.ts'
import { handedOver, readBytes, serialBoardsTest, ThreeBoards } from './support/three-boards.ts'

/** `socket.migrate` and what it brings to the other server, over cards without firmware: the card's side is in ipos-*.test.ts. */

const EVENTS = ['end', 'error', 'close', 'timeout', 'finish'] as const

/** A callback that notes how a write ended. */
function noting(into: string[], name: string): (error?: Error | null) => void {
  return (error) => into.push(error ? `${name} ${(error as NodeJS.ErrnoException).code}` : name)
}

/** Has `server` take no hand-overs any more. */
async function refuse(boards: ThreeBoards, server: net.Server): Promise<void> {
  server.removeAllListeners('migrate')
  await boards.settle()
}

// ── a move that succeeds ──

serialBoardsTest('a connection moves in mid-conversation, and the client sees one', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  const clientEvents = record(client, ['end', 'error', 'close'])
  const events = record(peer, EVENTS)
  client.write('unread')
  peer.write('from the first, ')
  await boards.settle()
  const arrived = handedOver(second)
  const moving = peer.migrate('server2', { offset: 7 })
  const { socket, state } = await arrived
  await moving
  t.deepEqual(state, { offset: 7 })
  t.true(peer.destroyed)
  await boards.settle()
  t.deepEqual(events, ['close'])
  t.is(socket.remoteAddress, client.localAddress)
  t.is(socket.remotePort, client.localPort)
  t.is(socket.localAddress, '10.0.0.1', 'as before: the client must not notice')
  t.is(socket.localPort, 80)
  t.false(socket.connecting)
  t.is(String(await readBytes(socket, 6)), 'unread')
  socket.write('from the second')
  client.write('more')
  t.is(String(await readBytes(socket, 4)), 'more')
  t.is(String(await readBytes(client, 31)), 'from the first, from the second')
  t.deepEqual(clientEvents, [])
  // It ends as any other.
  socket.end()
  client.end()
  client.resume()
  socket.resume()
  await Promise.all([once(client, 'close'), once(socket, 'close')])
  await boards.settle()
  t.is(boards.server1.card.ends.size + boards.server2.card.ends.size + boards.client.card.ends.size, 0)
})

const TARGETS: Record<string, string | undefined> = {
  'a name': 'server2',
  'a name in capitals': 'Server2',
  'an address': '10.0.0.3',
  'nobody: the card chooses': undefined,
}
for (const [name, target] of Object.entries(TARGETS)) {
  serialBoardsTest(`the target is ${name}`, async (t, boards) => {
    const { second, peer } = await boards.pair()
    const arrived = handedOver(second)
    await peer.migrate(target)
    t.is((await arrived).state, undefined)
  })
}

const STATES: Record<string, unknown> = {
  nothing: undefined,
  null: null,
  'a string': 'größer',
  'an empty string': '',
  'a number': 42,
  'an object': { list: [1, { two: null }], text: 'x' },
  bytes: pattern(1000),
  'no bytes': Buffer.alloc(0),
  'bytes that are no Buffer': new Uint8Array([1, 2, 3]),
  'as many bytes as there may be': pattern(M.MAXIMUM_STATE_BYTES - 1),
}
for (const [name, given] of Object.entries(STATES)) {
  serialBoardsTest(`state: ${name}`, async (t, boards) => {
    const { second, peer } = await boards.pair()
    const arrived = handedOver(second)
    await peer.migrate('server2', given)
    const { state } = await arrived
    if (given instanceof Uint8Array) t.deepEqual(state, Buffer.from(given))
    else t.deepEqual(state, given)
  })
}

serialBoardsTest('what is unread goes along, however much, and before what comes later', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  const bytes = pattern(600_000)
  client.write(bytes)
  await boards.settle()
  t.true(peer.readableLength > 200_000, 'a window full')
  t.deepEqual(peer.read(1000), bytes.subarray(0, 1000))
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  const { socket } = await arrived
  t.deepEqual(await readBytes(socket, 16384), bytes.subarray(1000, 17384))
  let at = 17384
  socket.on('data', (chunk) => {
    if (!chunk.equals(bytes.subarray(at, at + chunk.length))) t.fail(`wrong bytes at ${at}`)
    at += chunk.length
  })
  while (at < bytes.length) await once(socket, 'data')
  t.is(at, bytes.length)
})

serialBoardsTest('writes before the call go along, beyond all credit; writes after it do not', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  const bytes = pattern(1_200_000)
  const calls: string[] = []
  // What the card takes, the write that waits for credit, and what the Writable holds: in part corked, as HTTP does.
  peer.write(bytes.subarray(0, 500_000), noting(calls, 'first'))
  peer.write(bytes.subarray(500_000, 700_000), noting(calls, 'second'))
  peer.cork()
  peer.write(bytes.subarray(700_000, 900_000), noting(calls, 'third'))
  peer.write(bytes.subarray(900_000), noting(calls, 'fourth'))
  t.is(peer.bytesWritten, 1_200_000)
  const arrived = handedOver(second)
  const moving = peer.migrate('server2', 'x')
  t.is(peer.bytesWritten, 1_200_000)
  peer.write('too late', noting(calls, 'fifth'))
  peer.uncork()
  peer.write('much too late', noting(calls, 'sixth'))
  await moving
  await boards.settle()
  t.deepEqual(calls, ['first', 'second', 'third', 'fourth', 'fifth ERR_STREAM_DESTROYED', 'sixth ERR_STREAM_DESTROYED'])
  const { socket } = await arrived
  socket.write('and on')
  t.true((await readBytes(client, 1_200_000)).equals(bytes))
  t.is(String(await readBytes(client, 6)), 'and on')
})

serialBoardsTest('all of it is one burst, with one doorbell', async (t, boards) => {
  const { client, peer } = await boards.pair()
  client.write(pattern(100_000))
  await boards.settle()
  peer.read(10_000)
  peer.write(pattern(100_000))
  peer.write('y')
  await boards.settle()
  const before = boards.server1.card.doorbells
  const moving = peer.migrate('server2', pattern(50_000))
  t.is(boards.server1.card.doorbells, before + 1)
  await moving
})

serialBoardsTest('the end that was asked for before goes along', async (t, boards) => {
  const { second, client, peer } = await boards.pair({ allowHalfOpen: true })
  peer.write(pattern(300_000))
  peer.end('.')
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  const { socket } = await arrived
  t.true((await readBytes(client, 300_001)).subarray(0, 300_000).equals(pattern(300_000)))
  const ended = once(client, 'end')
  client.resume()
  await ended
  client.write('still')
  t.is(String(await readBytes(socket, 5)), 'still')
})

serialBoardsTest('the end that the client has sent goes along behind what is unread', async (t, boards) => {
  const { second, client, peer } = await boards.pair({ allowHalfOpen: true })
  client.end('last')
  await boards.settle()
  const events = record(peer, ['end', 'error'])
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  const { socket } = await arrived
  t.is(String(await readBytes(socket, 4)), 'last')
  const ended = once(socket, 'end')
  socket.read(0)
  await ended
  t.deepEqual(events, [])
  socket.end('answer')
  t.is(String(await readBytes(client, 6)), 'answer')
})

serialBoardsTest('a connection moves on, and back', async (t, boards) => {
  const { first, second, client, peer } = await boards.pair()
  first.on('migrate', () => {})
  let socket = peer
  for (let i = 0; i < 6; i++) {
    client.write(`${i}`)
    socket.write(`${i}`)
    const server = i % 2 === 0 ? second : first
    const arrived = handedOver(server)
    await socket.migrate(i % 2 === 0 ? 'server2' : 'server1', i)
    const here = await arrived
    t.is(here.state, i)
    socket = here.socket
  }
  t.is(String(await readBytes(socket, 6)), '012345')
  t.is(String(await readBytes(client, 6)), '012345')
  t.is(boards.server1.card.ends.size, 1)
  t.is(boards.server2.card.ends.size, 0)
})

serialBoardsTest('a connection that connected itself moves too', async (t, boards) => {
  const echo = boards.client.net.createServer((socket) => socket.pipe(socket)).listen(7)
  const second = boards.server2.net.createServer().listen(50000)
  const arrived = handedOver(second)
  await Promise.all([once(echo, 'listening'), once(second, 'listening')])
  const socket = boards.server1.net.connect({ port: 7, host: '10.0.0.2', localPort: 50000 })
  await once(socket, 'connect')
  socket.write('ping')
  await socket.migrate('server2', 'mine')
  t.is(String(await readBytes((await arrived).socket, 4)), 'ping')
})

serialBoardsTest('as a new one it reaches a server that takes no hand-overs, as a connection', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  await refuse(boards, second)
  client.write('GET')
  await boards.settle()
  const accepted = once(second, 'connection') as Promise<[net.Socket]>
  await peer.migrate('server2', undefined, { asNew: true })
  const [socket] = await accepted
  t.is(String(await readBytes(socket, 3)), 'GET')
})

serialBoardsTest('servers say whether they take hand-overs, and when that changes', async (t, boards) => {
  const { second } = await boards.pair()
  const [listener] = [...boards.server2.card.listeners.values()]
  const takesOver = async () => {
    await boards.settle()
    return (listener!.options & M.SOCKET_OPTION_TAKES_OVER) !== 0
  }
  t.true(await takesOver())
  await refuse(boards, second)
  t.false(await takesOver())
  const handler = () => {}
  second.on('migrate', handler)
  second.once('migrate', handler)
  t.true(await takesOver())
  second.off('migrate', handler)
  t.true(await takesOver(), 'one is left')
  second.off('migrate', handler)
  t.false(await takesOver())
  t.false(([...boards.server1.card.listeners.values()][0]!.options & M.SOCKET_OPTION_TAKES_OVER) !== 0)
  second.close()
  second.on('migrate', handler)
  await boards.settle()
  t.is(boards.server2.card.listeners.size, 0)
})

serialBoardsTest('the new server’s settings are added to those that came along', async (t, boards) => {
  const { second, peer } = await boards.pair({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 })
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  await arrived
  await boards.settle()
  const [end] = boards.server2.card.ends.values()
  t.deepEqual(
    [...(end!.options ?? [])],
    [
      [M.OPTION_KEEP_ALIVE, 30],
      [M.OPTION_NO_DELAY, 1],
    ],
  )
})

serialBoardsTest('connections are counted where they are', async (t, boards) => {
  const { first, second, client, peer } = await boards.pair()
  const count = (server: net.Server) =>
    new Promise<number>((resolve, reject) =>
      server.getConnections((error, connections) => (error ? reject(error) : resolve(connections))),
    )
  first.close()
  const closed = once(first, 'close')
  second.maxConnections = 1
  const arrived = handedOver(second)
  await peer.migrate('server2', 'x')
  const { socket } = await arrived
  t.is(await count(second), 1)
  await closed
  second.close()
  client.end()
  socket.resume()
  socket.end()
  await once(second, 'close')
})

serialBoardsTest('a move that the card tries twice takes along what came in between', async (t, boards) => {
  const { second, client, peer } = await boards.pair({ allowHalfOpen: true })
  client.write('one ')
  await boards.settle()
  const arrived = handedOver(second)
  // In this slice the client's bytes are delivered just before the card hears of the move.
  client.write('two ')
  const moving = peer.migrate('server2', 'once')
  t.is(peer.read(), null)
  await moving
  const { socket, state } = await arrived
  t.is(state, 'once')
  client.end('three')
  t.is(String(await readBytes(socket, 13)), 'one two three')
})

serialBoardsTest('an end that comes while it moves is the other server’s', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  const events = record(peer, EVENTS)
  peer.resume()
  await boards.settle()
  const arrived = handedOver(second)
  client.end('bye')
  await peer.migrate('server2', 'x')
  const { socket } = await arrived
  await boards.settle()
  t.deepEqual(events, ['close'])
  t.is(String(await readBytes(socket, 3)), 'bye')
})

// ── a move that fails ──

serialBoardsTest('where nobody takes it the promise says so, and everything goes on', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  await refuse(boards, second)
  const calls: string[] = []
  client.write('unread ')
  await boards.settle()
  const events = record(peer, EVENTS)
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
  const events = record(peer, EVENTS)
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

// ── what interferes ──

serialBoardsTest('a socket that is destroyed while it moves is reset', async (t, boards) => {
  const { client, peer } = await boards.pair()
  boards.network.holdsMoves = true
  const calls: string[] = []
  const moving = peer.migrate('server2', 'x')
  peer.write('never', noting(calls, 'write'))
  await boards.settle()
  const reset = once(client, 'error')
  peer.destroy()
  await t.throwsAsync(moving, { code: 'ERR_STREAM_DESTROYED' })
  t.is((await reset)[0].code, 'ECONNRESET')
  boards.network.moves[0]!.finish()
  await boards.settle()
  t.is(boards.server1.stack.driver.staleRecords, 0)
  t.is(boards.server1.stack.driver.sockets, 1, 'the listener')
})

serialBoardsTest('a connection that is reset while it moves rejects with that', async (t, boards) => {
  const { client, peer } = await boards.pair()
  boards.network.holdsMoves = true
  const events = record(peer, ['error', 'close'])
  const moving = peer.migrate('server2', 'x')
  await boards.settle()
  client.resetAndDestroy()
  await t.throwsAsync(moving, { code: 'ECONNRESET' })
  await boards.settle()
  t.deepEqual(events, ['error', 'close with error'])
})

serialBoardsTest('a card that stops while connections move fails them', async (t, boards) => {
  const { first, client, peer } = await boards.pair()
  boards.network.holdsMoves = true
  for (const socket of [first, client, peer]) socket.on('error', () => {})
  const moving = peer.migrate('server2', 'x')
  boards.server1.card.stop()
  await t.throwsAsync(moving, { code: 'ENETDOWN' })
})

serialBoardsTest('one move at a time', async (t, boards) => {
  const { peer } = await boards.pair()
  boards.network.holdsMoves = true
  const moving = peer.migrate('server2', 'x')
  await t.throwsAsync(peer.migrate('server2', 'x'), { message: 'migrate EALREADY 10.0.0.3' })
  await boards.settle()
  boards.network.moves[0]!.finish()
  await moving
  await t.throwsAsync(peer.migrate('server2', 'x'), { code: 'ERR_STREAM_DESTROYED' })
})

serialBoardsTest('what cannot be moved, or not there, is refused with a reason', async (t, boards) => {
  const { peer, client } = await boards.pair()
  const fresh = new boards.server1.net.Socket()
  await t.throwsAsync(fresh.migrate(), { message: 'migrate ENOTCONN' })
  const opening = boards.server1.net.connect(80, '10.0.0.3')
  await t.throwsAsync(opening.migrate('server2'), { code: 'ENOTCONN' })
  opening.destroy()
  await t.throwsAsync(peer.migrate('server9'), { code: 'ENOTFOUND', message: 'migrate ENOTFOUND server9' })
  await t.throwsAsync(peer.migrate('10.0.0.77'), { code: 'EHOSTUNREACH' })
  await t.throwsAsync(peer.migrate(7 as unknown as string), { code: 'ERR_INVALID_ARG_TYPE' })
  await t.throwsAsync(
    peer.migrate('server2', () => {}),
    { code: 'ERR_INVALID_ARG_TYPE' },
  )
  await t.throwsAsync(peer.migrate('server2', 10n), { instanceOf: TypeError })
  await t.throwsAsync(peer.migrate('server2', Buffer.alloc(M.MAXIMUM_STATE_BYTES)), {
    instanceOf: RangeError,
    message: 'The state of a connection may take 65535 bytes. Received 65536',
  })
  await t.throwsAsync(peer.migrate('server2', 'x'.repeat(M.MAXIMUM_STATE_BYTES - 2)), { instanceOf: RangeError })
  await t.throwsAsync(peer.migrate('server2', 1, { asNew: true }), { code: 'ERR_INVALID_ARG_VALUE' })
  peer.write('fine')
  t.is(String(await readBytes(client, 4)), 'fine')
})

serialBoardsTest('a connection that has ended both ways is not moved', async (t, boards) => {
  const { client, peer } = await boards.pair({ allowHalfOpen: true })
  client.end()
  await boards.settle()
  peer.write(Buffer.alloc(300_000))
  peer.end()
  await t.throwsAsync(peer.migrate('server2', 'x'), { code: 'ENOTCONN' })
})

serialBoardsTest('the peer’s end that crosses the move of a connection that we have ended', async (t, boards) => {
  const { client, peer } = await boards.pair({ allowHalfOpen: true })
  peer.end()
  await boards.settle()
  // The client's end is delivered in the slice in which the card would hear of the move: by then the handle is dead.
  client.end('last')
  await t.throwsAsync(peer.migrate('server2', 'x'), { code: 'ENOTCONN' })
  t.is(String(await readBytes(peer, 4)), 'last')
  const closed = once(peer, 'close')
  peer.resume()
  await closed
})

serialBoardsTest('a write callback that throws is nobody’s but the process’s', async (t, boards) => {
  const { second, peer } = await boards.pair()
  peer.write(Buffer.alloc(400_000), () => {
    throw new Error('mine')
  })
  const thrown = new Promise<Error>((resolve) => {
    const mine = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    process.once('uncaughtException', (error) => {
      for (const listener of mine) process.on('uncaughtException', listener)
      resolve(error)
    })
  })
  const arrived = handedOver(second)
  const moving = peer.migrate('server2', 'x')
  t.is((await thrown).message, 'mine')
  await moving
  await arrived
})

serialBoardsTest(
  'a hand-over for a server that takes none any more is reset, one without state is a connection',
  async (t, boards) => {
    const { second, client, peer } = await boards.pair()
    const [listener] = [...boards.server2.card.listeners.values()]
    await refuse(boards, second)
    await boards.settle()
    // The card has not heard of it.
    listener!.options |= M.SOCKET_OPTION_TAKES_OVER
    const reset = once(client, 'error')
    await peer.migrate('server2', 'x')
    t.is((await reset)[0].code, 'ECONNRESET')
  },
)

// ── the driver, and a card that breaks the rules ──

serialBoardsTest('a state that is not what was announced is a fault', async (t, boards) => {
  await boards.pair()
  const cases: [name: string, rx: (handle: number) => void][] = [
    ['longer', (handle) => boards.server2.card.rawRx(M.RX_STATE, handle, 30, Buffer.alloc(30))],
    [
      'an end too early',
      (handle) => boards.server2.card.rawRx(M.RX_STATE | (M.RX_FLAG_END << 16), handle, 3, Buffer.alloc(3)),
    ],
    ['data first', (handle) => boards.server2.card.rawRx(M.RX_DATA, handle, 3, Buffer.alloc(3))],
  ]
  for (const [name, rx] of cases) {
    const other = new ThreeBoards()
    try {
      await other.pair()
      const [cookie] = other.server2.card.listeners.keys()
      const faults: Error[] = []
      const listeners = process.listeners('uncaughtException')
      process.removeAllListeners('uncaughtException')
      process.once('uncaughtException', (error) => faults.push(error))
      other.server2.card.rawEvent({
        [M.EVENT_TYPE]: M.EVENT_ARRIVED,
        [M.EVENT_SOCKET]: 99,
        [M.EVENT_COOKIE]: cookie!,
        [M.EVENT_VALUE2]: 1000,
        [M.EVENT_VALUE3]: 20,
      })
      const card = boards.server2.card
      Object.assign(boards.server2, { card: other.server2.card })
      rx(99)
      Object.assign(boards.server2, { card })
      await other.settle()
      process.removeAllListeners('uncaughtException')
      for (const listener of listeners) process.on('uncaughtException', listener)
      t.is(other.server2.stack.driver.state, 'broken', name)
      t.is(faults[0]?.name, 'QueueFault', name)
    } finally {
      other.close()
    }
  }
})

// ── anything at any time ──

const BYTES = pattern(20_000_000)

const step = fc.oneof(
  fc.record({ kind: fc.constant('send' as const), bytes: fc.integer({ min: 1, max: 400_000 }) }),
  fc.record({ kind: fc.constant('answer' as const), bytes: fc.integer({ min: 1, max: 400_000 }) }),
  fc.record({ kind: fc.constant('read' as const), bytes: fc.integer({ min: 1, max: 300_000 }) }),
  fc.record({ kind: fc.constant('drink' as const), bytes: fc.integer({ min: 1, max: 300_000 }) }),
  fc.record({ kind: fc.constant('move' as const), bytes: fc.integer({ min: 0, max: 2 }) }),
  fc.record({ kind: fc.constant('wait' as const), bytes: fc.constant(0) }),
)

test('whatever is written, read and moved when, both streams are whole', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const boards = new ThreeBoards({ creditBytes: 100_000 })
      try {
        const { first, second, client, peer } = await boards.pair()
        let here = peer
        for (const server of [first, second]) {
          server.on('migrate', (socket) => {
            here = socket
          })
        }
        const up = BYTES
        const down = up.subarray(5)
        const at = { sent: 0, received: 0, answered: 0, drunk: 0 }
        const read = (socket: net.Socket, most: number, stream: Buffer, from: number): number => {
          const bytes = Math.min(most, socket.readableLength)
          const chunk = bytes === 0 ? null : (socket.read(bytes) as Buffer | null)
          if (chunk === null) return 0
          if (!chunk.equals(stream.subarray(from, from + chunk.length))) throw new Error(`wrong bytes at ${from}`)
          return chunk.length
        }
        let moving = false
        let outcome: Promise<void> = Promise.resolve()
        for (const { kind, bytes } of steps) {
          if (kind === 'send') {
            client.write(up.subarray(at.sent, at.sent + bytes))
            at.sent += bytes
          } else if (kind === 'answer') {
            // While it moves writing is in vain if it succeeds, so the application waits.
            if (!moving && here.writableLength < 500_000) {
              here.write(down.subarray(at.answered, at.answered + bytes))
              at.answered += bytes
            }
          } else if (kind === 'read') at.received += read(here, bytes, up, at.received)
          else if (kind === 'drink') at.drunk += read(client, bytes, down, at.drunk)
          else if (kind === 'move') {
            if (moving) continue
            moving = true
            const other = boards.server1.card.ends.size > 0 ? 'server2' : 'server1'
            // One in three fails.
            outcome = here
              .migrate(bytes === 0 ? '10.0.0.99' : other, { at: at.received })
              .catch((error) => t.is(error.code, 'EHOSTUNREACH'))
              .then(() => {
                moving = false
              })
          } else await boards.settle()
        }
        await outcome
        for (let i = 0; i < 3000 && (at.received < at.sent || at.drunk < at.answered); i++) {
          at.received += read(here, 1 << 20, up, at.received)
          at.drunk += read(client, 1 << 20, down, at.drunk)
          here.read(0)
          client.read(0)
          await boards.settle()
        }
        t.is(at.received, at.sent)
        t.is(at.drunk, at.answered)
        t.is(boards.server1.card.ends.size + boards.server2.card.ends.size, 1)
      } finally {
        boards.close()
      }
    }),
    { numRuns: 60 },
  )
})
