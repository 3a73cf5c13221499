import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import type net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import { WebSocket, WebSocketServer } from 'ws'
import type { Network } from './support/network.ts'
import { closed, pattern, readAll, sleep } from './support/sockets.ts'
import { type Case, runTable } from './support/table.ts'

/** Has `server` listen on the server's board; any port. */
async function attach<S extends net.Server>(network: Network, server: S): Promise<number> {
  network.server.attach(server, 0, network.address)
  await once(server, 'listening')
  return (server.address() as net.AddressInfo).port
}

function agentOf(network: Network, options: http.AgentOptions = {}): http.Agent {
  return Object.assign(new http.Agent(options), { createConnection: network.client.createConnection })
}

async function request(
  options: http.RequestOptions,
  body?: Buffer,
): Promise<{ status: number | undefined; body: Buffer; reused: boolean }> {
  const asked = http.request(options)
  asked.end(body)
  const [response] = (await once(asked, 'response')) as [http.IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return { status: response.statusCode, body: Buffer.concat(chunks), reused: asked.reusedSocket }
}

/** A shared key instead of a certificate. */
const key = Buffer.from('0123456789abcdef')
const PSK_SERVER: tls.TlsOptions = { pskCallback: () => key, ciphers: 'PSK', maxVersion: 'TLSv1.2' }
const PSK_CLIENT: tls.ConnectionOptions = {
  pskCallback: () => ({ psk: key, identity: 'me' }),
  checkServerIdentity: () => undefined,
  ciphers: 'PSK',
  maxVersion: 'TLSv1.2',
}

/** What others build on `net`: Node's own HTTP and TLS, and ws; see support/table.ts. */
const cases: Record<string, Case> = {
  'HTTP: requests one after another keep one connection': async (t, network) => {
    const remotes = new Set<number | undefined>()
    const server = http.createServer((incoming, response) => {
      remotes.add(incoming.socket.remotePort)
      response.end(`${incoming.method} ${incoming.url}`)
    })
    const port = await attach(network, server)
    const agent = agentOf(network, { keepAlive: true, maxSockets: 1 })
    for (let i = 0; i < 20; i++) {
      const answer = await request({ agent, host: network.address, port, path: `/${i}` })
      t.is(String(answer.body), `GET /${i}`)
      t.is(answer.reused, i > 0)
    }
    t.is(remotes.size, 1)
    agent.destroy()
    server.close()
    await once(server, 'close')
  },
  'HTTP: large bodies both ways, by length and in chunks': async (t, network) => {
    const bytes = pattern(3_000_000)
    const server = http.createServer((incoming, response) => {
      if (incoming.url === '/length') response.setHeader('content-length', bytes.length)
      incoming.pipe(response)
    })
    const port = await attach(network, server)
    const agent = agentOf(network)
    for (const path of ['/chunks', '/length']) {
      const headers = path === '/length' ? { 'content-length': bytes.length } : {}
      const answer = await request({ agent, host: network.address, port, path, method: 'POST', headers }, bytes)
      t.true(answer.body.equals(bytes), path)
    }
    server.close()
  },
  'HTTP: sixty-four requests at a time': async (t, network) => {
    const server = http.createServer((incoming, response) => response.end(incoming.url))
    const port = await attach(network, server)
    const agent = agentOf(network, { keepAlive: true, maxSockets: 64 })
    const answers = await Promise.all(
      Array.from({ length: 640 }, (_, i) => request({ agent, host: network.address, port, path: `/${i}` })),
    )
    t.true(answers.every(({ body }, i) => String(body) === `/${i}`))
    agent.destroy()
    server.close()
  },
  'HTTP: pipelined requests are answered in order': async (t, network) => {
    const server = http.createServer((incoming, response) => {
      setTimeout(() => response.end(incoming.url), incoming.url === '/a' ? 20 : 0)
    })
    const port = await attach(network, server)
    const socket = network.client.connect(port, network.address)
    socket.write(
      ['a', 'b', 'c']
        .map((i) => `GET /${i} HTTP/1.1\r\nhost: x\r\n${i === 'c' ? 'connection: close\r\n' : ''}\r\n`)
        .join(''),
    )
    const text = String(await readAll(socket))
    t.deepEqual(text.match(/\/[abc]/g), ['/a', '/b', '/c'])
    server.close()
  },
  'HTTP: closeIdleConnections and closeAllConnections': async (t, network) => {
    const server = http.createServer((incoming, response) => {
      if (incoming.url === '/') response.end('x')
    })
    const port = await attach(network, server)
    const agent = agentOf(network, { keepAlive: true })
    await request({ agent, host: network.address, port })
    const busy = http.get({ agent: agentOf(network), host: network.address, port, path: '/never' })
    const failed = once(busy, 'error')
    await once(server, 'request')
    server.closeIdleConnections()
    while ((await new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count)))) > 1)
      await sleep(1)
    server.closeAllConnections()
    t.is((await failed)[0].code, 'ECONNRESET')
    agent.destroy()
    server.close()
    await once(server, 'close')
  },
  'HTTP: an idle connection is closed after keepAliveTimeout': async (t, network) => {
    const server = http.createServer((_incoming, response) => response.end('x'))
    server.keepAliveTimeout = 30
    const port = await attach(network, server)
    const socket = network.client.connect(port, network.address)
    const over = once(socket.resume(), 'close')
    socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
    await over
    t.true(socket.readableEnded)
    server.close()
  },
  'HTTP: an upgrade hands over the socket': async (t, network) => {
    const server = http.createServer()
    server.on('upgrade', (_incoming, socket: Duplex, head: Buffer) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
      socket.write(head)
      socket.pipe(socket)
    })
    const port = await attach(network, server)
    const asked = http.request({
      agent: agentOf(network),
      host: network.address,
      port,
      headers: { connection: 'upgrade', upgrade: 'echo' },
    })
    asked.end()
    const [, socket] = (await once(asked, 'upgrade')) as [unknown, net.Socket]
    socket.end('as it comes')
    t.is(String(await readAll(socket)), 'as it comes')
    server.close()
  },
  'HTTP/2 without TLS': async (t, network) => {
    const server = http2.createServer()
    server.on('stream', (stream, headers) => {
      stream.respond({ ':status': 200 })
      stream.end(`you asked for ${headers[':path']}`)
    })
    const port = await attach(network, server as unknown as net.Server)
    const session = http2.connect(`http://${network.address}:${port}`, {
      createConnection: () => network.client.connect(port, network.address),
    })
    const answers = await Promise.all(
      ['/a', '/b', '/c'].map(async (path) => {
        let text = ''
        for await (const chunk of session.request({ ':path': path }).setEncoding('utf8')) text += chunk
        return text
      }),
    )
    t.deepEqual(answers, ['you asked for /a', 'you asked for /b', 'you asked for /c'])
    session.close()
    server.close()
  },
  'TLS: a server and a client': async (t, network) => {
    const bytes = pattern(500_000)
    const server = tls.createServer(PSK_SERVER, (socket) => socket.pipe(socket))
    const port = await attach(network, server)
    const socket = tls.connect({ ...PSK_CLIENT, socket: network.client.connect(port, network.address) })
    await once(socket, 'secureConnect')
    const got = readAll(socket)
    socket.end(bytes)
    t.true((await got).equals(bytes))
    server.close()
  },
  'TLS: on a connection that has long been open': async (t, network) => {
    const listener = network.server.createServer((plain) => {
      plain.once('data', () => {
        plain.write('go ahead')
        const secure = new tls.TLSSocket(plain, { ...PSK_SERVER, isServer: true } as tls.TLSSocketOptions)
        secure.on('data', (data) => secure.end(`secret ${data}`))
      })
    })
    const port = await attach(network, listener)
    const plain = network.client.connect(port, network.address)
    plain.write('STARTTLS')
    await once(plain, 'data')
    plain.removeAllListeners('data')
    const secure = tls.connect({ ...PSK_CLIENT, socket: plain })
    secure.write('word')
    t.is(String((await once(secure, 'data'))[0]), 'secret word')
    const over = closed(secure)
    secure.end()
    await over
    listener.close()
  },
  'ws: messages of all sizes come back, and the close is clean': async (t, network) => {
    const server = http.createServer()
    const sockets = new WebSocketServer({ server })
    sockets.on('connection', (socket) =>
      socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
    )
    const port = await attach(network, server)
    const socket = new WebSocket(`ws://${network.address}:${port}/`, {
      createConnection: network.client.createConnection as unknown as NonNullable<
        http.ClientRequestArgs['createConnection']
      >,
    } as ConstructorParameters<typeof WebSocket>[2])
    await once(socket, 'open')
    for (const size of [0, 1, 125, 126, 65535, 65536, 1_000_000]) {
      const bytes = pattern(size)
      socket.send(bytes)
      const [data] = (await once(socket, 'message')) as [Buffer]
      t.true(data.equals(bytes), `${size} bytes`)
    }
    const over = once(socket, 'close')
    socket.close(1000, 'done')
    t.is((await over)[0], 1000)
    server.close()
    await once(server, 'close')
  },
}

runTable(cases)
