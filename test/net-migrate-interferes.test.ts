/** What happens to a connection while it moves, and a card that breaks the rules; over cards without firmware. */
import { once } from 'node:events'
import * as M from '../abi/messages.ts'
import { noting, record } from './support/sockets.ts'
import { handedOver, readBytes, refuse, serialBoardsTest, ThreeBoards } from './support/three-boards.ts'

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
