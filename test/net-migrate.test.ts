/** `socket.migrate` and what it brings to the other server, over cards without firmware: the card's side is in ipos-*.test.ts. */
import { once } from 'node:events'
import type net from 'node:net'
import test from 'ava'
import fc from 'fast-check'
import * as M from '../abi/messages.ts'
import { noting, pattern, record, SOCKET_EVENTS } from './support/sockets.ts'
import { handedOver, readBytes, refuse, serialBoardsTest, ThreeBoards } from './support/three-boards.ts'

serialBoardsTest('a connection moves in mid-conversation, and the client sees one', async (t, boards) => {
  const { second, client, peer } = await boards.pair()
  const clientEvents = record(client, ['end', 'error', 'close'])
  const events = record(peer, SOCKET_EVENTS)
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
  // It ends like every other connection.
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
  const events = record(peer, SOCKET_EVENTS)
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
