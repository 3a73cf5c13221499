import { once } from 'node:events'
import http from 'node:http'
import type net from 'node:net'
import { STATUS_ECONNREFUSED } from '../abi/status.ts'
import { ProcessDrain } from '../host/drain.ts'
import { closed, record, sleep } from './support/sockets.ts'
import { boardsTest, handedOver, readBytes, type ThreeBoards } from './support/three-boards.ts'

/** `server.drain`, over cards without firmware. */

type Handler = (request: http.IncomingMessage, response: http.ServerResponse) => void

/** The same HTTP server on both boards; it says which one it is. */
async function webServers(
  boards: ThreeBoards,
  handler: Handler = (_request, response) => response.end('hello'),
): Promise<[http.Server, http.Server]> {
  const servers = [boards.server1, boards.server2].map((board, i) => {
    const server = http.createServer((request, response) => {
      response.setHeader('server', `server${i + 1}`)
      handler(request, response)
    })
    return board.net.attach(server, 80)
  })
  await Promise.all(servers.map((server) => once(server, 'listening')))
  return servers as [http.Server, http.Server]
}

/** One keep-alive connection of a client, and answers one after the other. */
function browser(boards: ThreeBoards): {
  socket: net.Socket
  get(path?: string): Promise<string>
  answer(): Promise<string>
} {
  const socket = boards.client.net.connect({ port: 80, host: '10.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  const answer = async (): Promise<string> => {
    let head = ''
    while (!head.endsWith('\r\n\r\n')) head += await readBytes(socket, 1)
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
    const body = await readBytes(socket, length)
    return `${/server: (\w+)/.exec(head)?.[1]} ${head.slice(9, 12)} ${body}`
  }
  return {
    socket,
    answer,
    get(path = '/') {
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
      return answer()
    },
  }
}

boardsTest(
  'idle keep-alive connections move at once, and the next request is the other server’s',
  async (t, boards) => {
    const [first] = await webServers(boards)
    const { socket, get } = browser(boards)
    t.is(await get(), 'server1 200 hello')
    await boards.settle()
    t.deepEqual(await first.drain(), { moved: 1, left: 0 })
    t.is(await get(), 'server2 200 hello')
    t.is(await get(), 'server2 200 hello')
    socket.end()
    await closed(socket)
  },
)

boardsTest('a busy connection moves right after its response', async (t, boards) => {
  const responses: http.ServerResponse[] = []
  const [first, second] = await webServers(boards, (_request, response) => responses.push(response))
  const { socket, get } = browser(boards)
  const served = get()
  while (responses.length === 0) await boards.settle()
  const asked: net.Socket[] = []
  first.on('drain', (socket) => asked.push(socket))
  const draining = first.drain({ to: 'server2' })
  await sleep(10)
  t.is(boards.server1.card.ends.size, 1, 'the request is being served')
  t.deepEqual(asked, [responses[0]!.socket as net.Socket], 'its application could hand it over')
  responses[0]!.end('one')
  t.is(await served, 'server1 200 one')
  t.deepEqual(await draining, { moved: 1, left: 0 })
  const next = get()
  await once(second, 'request')
  responses[1]!.end('two')
  t.is(await next, 'server2 200 two')
  socket.destroy()
})

boardsTest('of a response that begins while draining the application is asked too', async (t, boards) => {
  const responses: http.ServerResponse[] = []
  const [first] = await webServers(boards, (_request, response) => responses.push(response))
  const { get } = browser(boards)
  const served = get()
  while (responses.length === 0) await boards.settle()
  boards.network.holdsMoves = true
  const asked: net.Socket[] = []
  first.on('drain', (socket) => asked.push(socket))
  const draining = first.drain()
  responses[0]!.end('one')
  await served
  await boards.settle()
  // It could not move, and the next request is here.
  boards.network.moves[0]!.finish(STATUS_ECONNREFUSED)
  boards.network.holdsMoves = false
  const next = get()
  await once(first, 'request')
  await boards.settle()
  t.is(asked.length, 2)
  t.is(asked[0], asked[1])
  responses[1]!.end('two')
  t.is(await next, 'server1 200 two')
  t.deepEqual(await draining, { moved: 1, left: 0 })
})

boardsTest('a request that is half here is served here first', async (t, boards) => {
  const [first] = await webServers(boards)
  const { socket, get, answer } = browser(boards)
  await get()
  socket.write('GET / HT')
  await boards.settle()
  const draining = first.drain()
  await sleep(10)
  t.is(boards.server1.card.ends.size, 1)
  socket.write('TP/1.1\r\nHost: x\r\n\r\n')
  t.is(await answer(), 'server1 200 hello')
  t.deepEqual(await draining, { moved: 1, left: 0 })
  t.is(await get(), 'server2 200 hello')
})

boardsTest('pipelined requests are served here first', async (t, boards) => {
  const responses: http.ServerResponse[] = []
  const [first] = await webServers(boards, (_request, response) => responses.push(response))
  const { socket, answer } = browser(boards)
  socket.write('GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n')
  while (responses.length < 2) await boards.settle()
  const draining = first.drain()
  responses[0]!.end('1')
  t.is(await answer(), 'server1 200 1')
  await sleep(10)
  t.is(boards.server1.card.ends.size, 1)
  responses[1]!.end('2')
  t.is(await answer(), 'server1 200 2')
  t.deepEqual(await draining, { moved: 1, left: 0 })
})

boardsTest('a request in flight when the connection moves is the other server’s', async (t, boards) => {
  const [first] = await webServers(boards)
  const { socket, get, answer } = browser(boards)
  await get()
  await boards.settle()
  // Delivered in the slice in which the card hears of the move.
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const draining = first.drain()
  t.is(await answer(), 'server2 200 hello')
  t.deepEqual(await draining, { moved: 1, left: 0 })
})

boardsTest('sixty-four busy connections all move, and no request fails', async (t, boards) => {
  let turn = 0
  const handled: Record<string, number> = { server1: 0, server2: 0 }
  const [first] = await webServers(boards, (request, response) => {
    handled[response.getHeader('server') as string]!++
    const answer = () => response.end(request.url)
    // Some answers are there at once, others come later.
    if (++turn % 3 === 0) setTimeout(answer, turn % 7)
    else answer()
  })
  let stop = false
  const clients = Array.from({ length: 64 }, async (_, i) => {
    const { socket, get } = browser(boards)
    const events = record(socket, ['error', 'end', 'close'])
    for (let n = 0; !stop; n++) {
      const [, status, body] = (await get(`/${i}/${n}`)).split(' ')
      if (status !== '200' || body !== `/${i}/${n}`) t.fail(`${status} ${body} for /${i}/${n}`)
    }
    t.deepEqual(events, [])
    socket.destroy()
  })
  await sleep(100)
  const before = handled.server2
  t.deepEqual(await first.drain(), { moved: 64, left: 0 })
  const { server1 } = handled
  await sleep(100)
  stop = true
  await Promise.all(clients)
  t.true(handled.server2! > before!)
  t.is(handled.server1, server1!, 'nothing more is served where it was drained')
})

boardsTest('a drained connection can be drained again, before its next request', async (t, boards) => {
  const [first, second] = await webServers(boards)
  const { get } = browser(boards)
  await get()
  await first.drain()
  await boards.settle()
  t.deepEqual(await second.drain(), { moved: 1, left: 0 })
  t.is(await get(), 'server1 200 hello')
})

boardsTest(
  'a connection that an HTTP server was handed is its application’s, until that gives it to HTTP',
  async (t, boards) => {
    const responses: http.ServerResponse[] = []
    const [first, second] = await webServers(boards, (_request, response) => responses.push(response))
    const handler = handedOver(second)
    await boards.settle()
    const { socket: client, get } = browser(boards)
    const served = get()
    while (responses.length === 0) await boards.settle()
    responses[0]!.writeHead(200, { 'content-length': 8 }).write('half')
    await responses[0]!.socket!.migrate('server2', 4)
    const { socket } = await handler
    const asked = once(second, 'drain')
    const draining = second.drain()
    t.deepEqual(await asked, [socket, undefined])
    await boards.settle()
    t.false(socket.destroyed)
    socket.write('done')
    t.is(await served, 'server1 200 halfdone')
    second.emit('connection', socket)
    const next = get()
    await once(second, 'request')
    responses[1]!.end('here')
    t.is(await next, 'server2 200 here')
    t.deepEqual(await draining, { moved: 1, left: 0 })
    client.destroy()
    first.close()
  },
)

boardsTest('an idle connection that has moved is closed after the keep-alive timeout', async (t, boards) => {
  const [first, second] = await webServers(boards)
  second.keepAliveTimeout = 50
  const { socket, get } = browser(boards)
  await get()
  await first.drain()
  const ended = once(socket, 'end')
  socket.resume()
  await ended
  t.pass()
})

boardsTest('and not while a request is being served', async (t, boards) => {
  const [first, second] = await webServers(boards, (request, response) =>
    setTimeout(() => response.end('late'), request.url === '/late' ? 120 : 0),
  )
  second.keepAliveTimeout = 50
  const { get } = browser(boards)
  await get()
  await first.drain()
  t.is(await get('/late'), 'server2 200 late')
})

boardsTest('closing while draining moves what is idle, and closes nothing', async (t, boards) => {
  const [first] = await webServers(boards)
  const { get } = browser(boards)
  await get()
  await boards.settle()
  const draining = first.drain()
  first.close()
  t.deepEqual(await draining, { moved: 1, left: 0 })
  t.is(await get(), 'server2 200 hello')
})

boardsTest('a move that fails is tried again', async (t, boards) => {
  const [first] = await webServers(boards)
  const { get } = browser(boards)
  await get()
  boards.network.holdsMoves = true
  const draining = first.drain()
  await boards.settle()
  boards.network.moves[0]!.finish(STATUS_ECONNREFUSED)
  boards.network.holdsMoves = false
  t.is(await get(), 'server1 200 hello')
  t.deepEqual(await draining, { moved: 1, left: 0 })
})

boardsTest('a drain that takes too long says what is left, and ends', async (t, boards) => {
  const responses: http.ServerResponse[] = []
  const [first] = await webServers(boards, (_request, response) => responses.push(response))
  const { get } = browser(boards)
  const served = get()
  while (responses.length === 0) await boards.settle()
  t.deepEqual(await first.drain({ timeoutMs: 30 }), { moved: 0, left: 1 })
  responses[0]!.end('here')
  t.is(await served, 'server1 200 here')
  await sleep(20)
  t.is(boards.server1.card.ends.size, 1, 'it stays')
  t.false(Object.hasOwn(first, 'closeIdleConnections'))
  t.true(first.listening)
  const next = get()
  await once(first, 'request')
  responses[1]!.end('still here')
  t.is(await next, 'server1 200 still here')
})

boardsTest('connections that end by themselves are none that are left', async (t, boards) => {
  const [first] = await webServers(boards, (_request, response) => {
    response.setHeader('connection', 'close')
    setTimeout(() => response.end('bye'), 20)
  })
  const { socket, get } = browser(boards)
  const served = get()
  await sleep(10)
  const draining = first.drain()
  t.is(await served, 'server1 200 bye')
  socket.end()
  t.deepEqual(await draining, { moved: 0, left: 0 })
})

boardsTest('of other connections the application is asked, those that come meanwhile included', async (t, boards) => {
  const { first, second, client, peer } = await boards.pair()
  const asked: (string | undefined)[] = []
  first.on('drain', (socket, to) => {
    asked.push(to)
    void socket.migrate(to, { counter: 5 })
  })
  const arrived = handedOver(second)
  t.deepEqual(await first.drain({ to: 'server2' }), { moved: 1, left: 0 })
  const { socket, state } = await arrived
  t.deepEqual(state, { counter: 5 })
  t.true(peer.destroyed)
  // As long as another connection is left, it goes on.
  first.removeAllListeners('drain')
  const accepted = once(first, 'connection') as Promise<[net.Socket]>
  const silent = boards.client.net.connect(80, '10.0.0.1').on('error', () => {})
  silent.write('?')
  const [stays] = await accepted
  const draining = first.drain({ to: '10.0.0.3' })
  first.on('drain', (socket, to) => {
    asked.push(to)
    void socket.migrate(to)
  })
  const later = boards.client.net.connect(80, '10.0.0.1').on('error', () => {})
  later.write('!')
  await handedOver(second)
  stays.destroy()
  t.deepEqual(await draining, { moved: 1, left: 0 })
  t.deepEqual(asked, ['server2', '10.0.0.3'])
  for (const open of [client, socket, silent, later]) open.destroy()
})

boardsTest('two at once are one', async (t, boards) => {
  const { first, peer } = await boards.pair()
  let asked = 0
  first.on('drain', () => asked++)
  const both = [first.drain(), first.drain({ timeoutMs: 10_000 })]
  await boards.settle()
  t.is(asked, 1)
  await peer.migrate('server2')
  t.deepEqual(await Promise.all(both), [
    { moved: 1, left: 0 },
    { moved: 1, left: 0 },
  ])
})

boardsTest('what cannot be drained is refused', async (t, boards) => {
  await t.throwsAsync(boards.server1.net.createServer().drain(), { code: 'ERR_SERVER_NOT_RUNNING' })
  const { first } = await boards.pair()
  await t.throwsAsync(first.drain({ to: 'server9' }), { code: 'ENOTFOUND' })
})

boardsTest('a process is drained whole', async (t, boards) => {
  const [web] = await webServers(boards)
  const drain = new ProcessDrain(boards.server1.stack)
  const { get } = browser(boards)
  await get()
  const other = boards.server1.net.createServer().listen(81)
  other.on('drain', (socket) => socket.end())
  await once(other, 'listening')
  const connections = [81, 81].map((port) => boards.client.net.connect(port, '10.0.0.1').resume())
  for (const socket of connections) socket.write('x')
  while (drain.count().left < 3) await boards.settle()
  const outgoing = boards.server1.net.connect(80, '10.0.0.3')
  await once(outgoing, 'connect')
  t.deepEqual(drain.count(), { moved: 0, left: 3 })
  drain.begin('server2')
  for (const socket of connections) socket.end()
  while (drain.count().left > 0) await boards.settle()
  t.deepEqual(drain.count(), { moved: 1, left: 0 })
  t.is(await get(), 'server2 200 hello')
  // A server that it did not know has a connection.
  const late = boards.client.net.connect(80, '10.0.0.1').on('error', () => {})
  late.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  while (drain.count().moved < 2) await boards.settle()
  drain.end()
  t.false(Object.hasOwn(web, 'closeIdleConnections'))
  outgoing.destroy()
})
