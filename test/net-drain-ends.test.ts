/** `server.drain` where a connection cannot move: HTTP over TLS, and HTTP/2; over cards without firmware. */
import { once } from 'node:events'
import type http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import type net from 'node:net'
import tls from 'node:tls'
import { boardsTest, type ThreeBoards } from './support/three-boards.ts'

const PORT = 443
/** A shared key instead of a certificate. */
const key = Buffer.from('0123456789abcdef')
const PSK: tls.TlsOptions = { pskCallback: () => key, ciphers: 'PSK', maxVersion: 'TLSv1.2' }

async function listen<S extends net.Server>(boards: ThreeBoards, server: S): Promise<S> {
  boards.server1.net.attach(server, PORT)
  await once(server, 'listening')
  return server
}

const connect = (boards: ThreeBoards) => boards.client.net.connect({ port: PORT, host: '10.0.0.1' })

/** A client of HTTP over TLS: what it has got, and whether it was ended. */
async function secureClient(boards: ThreeBoards) {
  const socket = tls.connect({
    pskCallback: () => ({ psk: key, identity: 'me' }),
    checkServerIdentity: () => undefined,
    ciphers: 'PSK',
    maxVersion: 'TLSv1.2',
    socket: connect(boards),
  })
  await once(socket, 'secureConnect')
  const seen = { text: '', errors: [] as string[] }
  socket.on('data', (data) => {
    seen.text += data
  })
  socket.on('error', (error: NodeJS.ErrnoException) => seen.errors.push(error.code ?? error.message))
  const ended = once(socket, 'end')
  const get = async (path = '/') => {
    const before = seen.text.length
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    while (!seen.text.slice(before).includes('body')) await once(socket, 'data')
    return seen.text.slice(before)
  }
  return { socket, seen, ended, get }
}

boardsTest('HTTPS: an idle connection is ended', async (t, boards) => {
  const server = await listen(
    boards,
    https.createServer(PSK, (_request, response) => response.end('body')),
  )
  const { seen, ended, get } = await secureClient(boards)
  t.regex(await get(), /keep-alive/i)
  t.deepEqual(await server.drain(), { moved: 0, left: 0 })
  await ended
  t.deepEqual(seen.errors, [])
  t.true(server.listening)
})

boardsTest(
  'HTTPS: a request that is being served gets its whole response, and is told that it was the last',
  async (t, boards) => {
    const responses: http.ServerResponse[] = []
    const server = await listen(
      boards,
      https.createServer(PSK, (_request, response) => responses.push(response)),
    )
    const [before, begun] = [await secureClient(boards), await secureClient(boards)]
    const answers = [before.get(), begun.get()]
    while (responses.length < 2) await boards.settle()
    // The head of one has gone.
    responses[1]!.flushHeaders()
    const draining = server.drain()
    const late = await secureClient(boards)
    const third = late.get()
    while (responses.length < 3) await boards.settle()
    for (const response of responses) response.end('body')
    const [first, , last] = await Promise.all([...answers, third])
    t.regex(last!, /connection: close/i)
    t.regex(first!, /body$/)
    await Promise.all([before.ended, begun.ended, late.ended])
    t.deepEqual(await draining, { moved: 0, left: 0 })
    for (const { seen } of [before, begun, late]) t.deepEqual(seen.errors, [])
  },
)

boardsTest('HTTPS: once the drain is over connections stay again', async (t, boards) => {
  const server = await listen(
    boards,
    https.createServer(PSK, (_request, response) => response.end('body')),
  )
  await server.drain()
  const { socket, get } = await secureClient(boards)
  t.regex(await get(), /keep-alive/i)
  t.regex(await get(), /keep-alive/i)
  socket.destroy()
})

/** A session and the text of one response of it. */
function session(boards: ThreeBoards) {
  const client = http2.connect('http://10.0.0.1', { createConnection: () => connect(boards) })
  client.on('error', () => {})
  const get = async (path: string) => {
    const stream = client.request({ ':path': path })
    let text = ''
    stream.on('data', (data) => {
      text += data
    })
    await once(stream, 'close')
    return text
  }
  return { client, get }
}

boardsTest('HTTP/2: streams that are open come to their end, GOAWAY says that there are no more', async (t, boards) => {
  const server = http2.createServer()
  let waiting: http2.ServerHttp2Stream | undefined
  server.on('stream', (stream, headers) => {
    stream.respond({ ':status': 200 })
    if (headers[':path'] === '/slow') waiting = stream
    else stream.end('at once')
  })
  await listen(boards, server)
  const { client, get } = session(boards)
  t.is(await get('/'), 'at once')
  const slow = get('/slow')
  while (waiting === undefined) await boards.settle()
  const goaway = once(client, 'goaway')
  const draining = server.drain()
  t.is((await goaway)[0], http2.constants.NGHTTP2_NO_ERROR)
  waiting.end('in the end')
  t.is(await slow, 'in the end')
  t.deepEqual(await draining, { moved: 0, left: 0 })
  t.true(client.closed)
})

boardsTest(
  'HTTP/2: an idle session ends at once, one that comes meanwhile after its first response',
  async (t, boards) => {
    const server = http2.createServer()
    server.on('stream', (stream, headers) => {
      stream.respond({ ':status': 200 })
      stream.end(String(headers[':path']))
    })
    await listen(boards, server)
    const idle = session(boards)
    t.is(await idle.get('/a'), '/a')
    const closed = once(idle.client, 'close')
    const holder = connect(boards).on('error', () => {})
    await once(holder, 'connect')
    holder.write('P')
    await boards.settle()
    const draining = server.drain()
    await closed
    const late = session(boards)
    const over = once(late.client, 'close')
    t.is(await late.get('/b'), '/b')
    await over
    holder.destroy()
    t.deepEqual(await draining, { moved: 0, left: 0 })
  },
)
