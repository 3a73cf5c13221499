import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { Gateway, type GatewayOptions } from '../host/gateway.ts'

/** A gateway before `server`, with the kernel in the card's place. */
async function gatewayTo(t: ExecutionContext, serve: (socket: Socket) => void, options: Partial<GatewayOptions> = {}) {
  const server = await listen(t, serve)
  const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port }
  const gateway = await Gateway.open({ host: '127.0.0.1', port: 0, target, connect, ...options })
  t.teardown(() => gateway.close())
  const open = () => {
    const socket = connect({ port: gateway.address.port, host: '127.0.0.1', allowHalfOpen: true })
    socket.on('error', () => {}) // teardown may reset what a test leaves open
    t.teardown(() => socket.destroy())
    return socket
  }
  return { gateway, server, open }
}

async function listen(t: ExecutionContext, serve: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return server
}

/** Everything until the other side's end; the socket stays open (`for await` would destroy it). */
async function collect(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk))
  await once(socket, 'end')
  return Buffer.concat(chunks)
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

test('bytes go both ways, whole and in order', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.pipe(socket))
  const sent = randomBytes(5_000_000)
  const socket = open()
  socket.end(sent)
  t.is(sha256(await collect(socket)), sha256(sent))
  await until(() => gateway.statistics.active === 0)
  t.like(gateway.statistics, {
    accepted: 1,
    reset: 0,
    unreachable: 0,
    bytesToFarm: sent.length,
    bytesFromFarm: sent.length,
  })
})

test('an end in one direction leaves the other open', async (t) => {
  const { open } = await gatewayTo(t, async (socket) => {
    const asked = await collect(socket)
    socket.end(`after the end: ${asked}`)
  })
  const socket = open()
  socket.end('question')
  t.is((await collect(socket)).toString(), 'after the end: question')
})

test('the server may end first and still hear', async (t) => {
  let heard: Promise<Buffer> | undefined
  const { open } = await gatewayTo(t, (socket) => {
    socket.end('hello')
    heard = collect(socket)
  })
  const socket = open()
  t.is((await collect(socket)).toString(), 'hello')
  socket.end('late')
  t.is((await heard)?.toString(), 'late')
})

test('a reset of the server reaches the client as a reset', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))
  const socket = open()
  socket.write('x')
  const [error] = await once(socket, 'error')
  t.is(error.code, 'ECONNRESET')
  await until(() => gateway.statistics.active === 0)
  t.is(gateway.statistics.reset, 1)
  t.is(gateway.statistics.errors.ECONNRESET, 1)
})

test('a reset of the client reaches the server as a reset', async (t) => {
  const { server: listener, open } = await gatewayTo(t, () => {})
  const socket = open()
  socket.write('x')
  const [server] = (await once(listener, 'connection')) as [Socket]
  // Read, as Node.js takes a reset that it finds together with data for an end.
  await once(server, 'data')
  const failed = once(server, 'error')
  socket.resetAndDestroy()
  t.is((await failed)[0].code, 'ECONNRESET')
})

test('a reset of the client right behind its last bytes is no end of them', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.resume(), {
    // The bytes and the reset are both there before anybody reads.
    connect(options) {
      const card = new Socket({ allowHalfOpen: true })
      setTimeout(() => card.connect(options), 200)
      return card
    },
  })
  const socket = open()
  await once(socket, 'connect')
  await new Promise((resolve) => socket.write('x', resolve))
  socket.resetAndDestroy()
  await until(() => gateway.statistics.accepted === 1 && gateway.statistics.active === 0)
  t.like(gateway.statistics, { reset: 1, bytesToFarm: 1 })
  t.deepEqual(gateway.statistics.errors, { ECONNRESET: 1 })
})

test('a server that cannot be reached resets the client', async (t) => {
  const { gateway, open } = await gatewayTo(t, () => {}, { target: { host: '127.0.0.1', port: 1 } })
  const socket = open()
  const [error] = await once(socket, 'error')
  t.is(error.code, 'ECONNRESET')
  await until(() => gateway.statistics.active === 0)
  t.like(gateway.statistics, { unreachable: 1, reset: 0 })
  t.deepEqual(gateway.statistics.errors, { ECONNREFUSED: 1 })
})

test('a slow reader holds the writer back', async (t) => {
  const { open } = await gatewayTo(t, (socket) => {
    socket.on('error', () => {})
    const more = () => {
      while (socket.write(Buffer.alloc(65536)));
    }
    socket.on('drain', more)
    more()
  })
  const { gateway } = await gatewayTo(t, () => {})
  t.is(gateway.statistics.accepted, 0)
  const before = process.memoryUsage().arrayBuffers
  const socket = open()
  await once(socket, 'connect')
  socket.pause()
  await new Promise((resolve) => setTimeout(resolve, 500))
  t.true(process.memoryUsage().arrayBuffers - before < 40_000_000)
  socket.resetAndDestroy()
})

test('more connections than allowed are dropped and counted', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.resume(), { maximumConnections: 2 })
  for (let opened = 0; opened < 2; opened++) await once(open(), 'connect')
  const third = open()
  third.on('error', () => {})
  third.resume()
  await once(third, 'end')
  t.is(gateway.statistics.dropped, 1)
})

test('closing resets what is open', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.on('error', () => {}).resume())
  const socket = open()
  await once(socket, 'connect')
  await until(() => gateway.statistics.active === 1)
  const failed = once(socket, 'error')
  await gateway.close()
  t.is((await failed)[0].code, 'ECONNRESET')
})

test('closing ends a connection that is on the way to its own end', async (t) => {
  const { gateway, open } = await gatewayTo(t, (socket) => socket.end('all of it'), {
    // As `inic run --once` does, which has its page before the connection has ended.
    connect: (options) => connect(options).once('end', () => process.nextTick(() => void gateway.close())),
  })
  await collect(open())
  await until(() => gateway.statistics.active === 0)
  t.like(gateway.statistics, { accepted: 1, errors: {} })
})

test('a port that is taken is an error', async (t) => {
  const { gateway } = await gatewayTo(t, () => {})
  const { address, port } = gateway.address
  const target = { host: '127.0.0.1', port: 1 }
  await t.throwsAsync(Gateway.open({ host: address, port, target, connect }), { code: 'EADDRINUSE' })
})
