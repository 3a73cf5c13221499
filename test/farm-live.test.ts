/** Live migration (FIG. 13): conversations whose server changes a hundred times, and whose clients must not notice. */

import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { type RawData, WebSocket, WebSocketServer } from 'ws'
import { DIRECTORY_COUNTERS, DIRECTORY_STATE } from '../abi/memory.ts'
import { FarmKit, type FarmKitOptions, type Node } from './support/farm-kit.ts'

const GIGABIT_10 = 1e10
const WIRE = { delayNs: 1000, rateBps: GIGABIT_10 }
const MOVES = 100
const MAXIMUM_GAP_NS = 5e6

/** Bytes that no shift of theirs equals, so that a lost, repeated or reordered one shows. */
const PATTERN = Buffer.alloc(65_521)
for (let n = 0; n < PATTERN.length; n++) PATTERN[n] = (n * 2_654_435_761) >>> 13

/** Index of the first byte of `chunk`, which stands at `offset` of the stream, that is wrong; -1 if none is. */
function firstWrong(chunk: Buffer, offset: number): number {
  for (let at = 0; at < chunk.length; ) {
    const start = (offset + at) % PATTERN.length
    const piece = Math.min(PATTERN.length - start, chunk.length - at)
    if (chunk.compare(PATTERN, start, start + piece, at, at + piece) !== 0) return offset + at
    at += piece
  }
  return -1
}

function pieceAt(offset: number, limit: number): Buffer {
  const start = offset % PATTERN.length
  return PATTERN.subarray(start, Math.min(PATTERN.length, start + 16_384, start + limit))
}

function kit(options: FarmKitOptions = {}): FarmKit {
  // The application alone moves connections.
  return new FarmKit({ servers: 3, countFuel: true, lan: WIRE, hub: WIRE, ...options, boot: { placement: 4 } })
}

/** The server where a connection on `server` moves next: round the farm. */
function nextOf(farm: FarmKit, server: Node): Node {
  return farm.servers[(farm.servers.indexOf(server) + 1) % farm.servers.length]!
}

function counter(server: Node, name: string): number {
  return server.rows(DIRECTORY_COUNTERS)[0]!.number(name)
}

/** Everything that a server holds for connections, once all of them are over. */
function leftOver(server: Node): Record<string, number> {
  const state = server.rows(DIRECTORY_STATE)[0]!
  const names = ['tcbUsed', 'forwardUsed', 'migrationUsed', 'timeWaitUsed']
  return Object.fromEntries(names.map((name) => [name, state.number(name)]).filter(([, value]) => value !== 0))
}

async function finish(t: ExecutionContext, farm: FarmKit, moves: number): Promise<void> {
  const total = (name: string) => farm.servers.reduce((sum, server) => sum + counter(server, name), 0)
  t.is(total('migrationsTaken'), moves, 'every move arrived')
  t.is(total('migrationsLost'), 0)
  await farm.run(130_000)
  for (const server of farm.servers) t.deepEqual(leftOver(server), {}, server.name)
  await farm.close()
}

/** A download of `bytes` whose connection moves `moves` times. */
function serveDownload(farm: FarmKit, bytes: number, moves: number): { moved: number; failed: unknown[] } {
  const outcome = { moved: 0, failed: [] as unknown[] }
  const serve = (server: Node, socket: Socket, from: number) => {
    let offset = from
    const until = from + Math.ceil(bytes / (moves + 1))
    const pump = () => {
      while (offset < bytes) {
        if (offset >= until && outcome.moved < moves) {
          outcome.moved++
          socket.migrate(nextOf(farm, server).name, { offset }).catch((error: unknown) => outcome.failed.push(error))
          return
        }
        const piece = pieceAt(offset, bytes - offset)
        offset += piece.length
        if (!socket.write(piece)) {
          socket.once('drain', pump)
          return
        }
      }
      socket.end()
    }
    socket.on('error', (error: Error) => outcome.failed.push(error))
    pump()
  }
  for (const server of farm.servers) {
    const listener = server.net.createServer((socket) => socket.once('data', () => serve(server, socket, 0)))
    listener.on('migrate', (socket, state) => serve(server, socket, (state as { offset: number }).offset))
    listener.listen(80)
  }
  return outcome
}

interface Download {
  bytes: number
  wrong: number
  error: string | null
  longestGapNs: number
  ended: boolean
}

async function download(farm: FarmKit, limitMs: number): Promise<Download> {
  const result: Download = { bytes: 0, wrong: -1, error: null, longestGapNs: 0, ended: false }
  let lastNs = 0
  let closed = false
  const socket = farm.client().net.connect(80, '192.0.2.1', () => socket.write('GET'))
  socket.on('data', (chunk: Buffer) => {
    const nowNs = farm.farm.now()
    if (lastNs !== 0) result.longestGapNs = Math.max(result.longestGapNs, nowNs - lastNs)
    lastNs = nowNs
    if (result.wrong < 0) result.wrong = firstWrong(chunk, result.bytes)
    result.bytes += chunk.length
  })
  socket.on('end', () => {
    result.ended = true
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    result.error = error.code ?? error.message
  })
  socket.on('close', () => {
    closed = true
  })
  await farm.until(() => closed, limitMs)
  return result
}

test('a download of 1 GB whose server changes 100 times arrives whole, without a gap of 5 ms', async (t) => {
  const farm = kit()
  const outcome = serveDownload(farm, 1e9, MOVES)
  await farm.settle()
  const { longestGapNs, ...result } = await download(farm, 60_000)
  t.deepEqual(result, { bytes: 1e9, wrong: -1, error: null, ended: true })
  t.deepEqual(outcome, { moved: MOVES, failed: [] })
  t.true(longestGapNs < MAXIMUM_GAP_NS, `longest gap ${longestGapNs} ns`)
  t.log(`longest gap ${(longestGapNs / 1e6).toFixed(3)} ms of virtual time`)
  await finish(t, farm, MOVES)
})

test('a download moves 100 times while 1 % of all frames are lost on LAN and hub, without a gap of 5 ms', async (t) => {
  const farm = kit({ lan: { ...WIRE, loss: 0.01 }, hub: { ...WIRE, loss: 0.01 } })
  const outcome = serveDownload(farm, 100e6, MOVES)
  await farm.settle()
  const { longestGapNs, ...result } = await download(farm, 600_000)
  t.deepEqual(result, { bytes: 100e6, wrong: -1, error: null, ended: true })
  t.deepEqual(outcome, { moved: MOVES, failed: [] })
  t.true(longestGapNs < MAXIMUM_GAP_NS, `longest gap ${longestGapNs} ns`)
  t.log(`longest gap ${(longestGapNs / 1e6).toFixed(3)} ms of virtual time`)
  await finish(t, farm, MOVES)
})

/** An upload of `bytes`: the server that has the connection checks what comes, and answers how much was right. */
async function upload(t: ExecutionContext, farm: FarmKit, bytes: number, moves: number): Promise<void> {
  const failed: unknown[] = []
  let moved = 0
  let longestGapNs = 0
  let lastNs = 0
  const serve = (server: Node, socket: Socket, from: number) => {
    let offset = from
    let moving = false
    const until = from + Math.ceil(bytes / (moves + 1))
    socket.on('error', (error: Error) => failed.push(error))
    socket.on('data', (chunk: Buffer) => {
      const nowNs = farm.farm.now()
      if (lastNs !== 0) longestGapNs = Math.max(longestGapNs, nowNs - lastNs)
      lastNs = nowNs
      const wrong = firstWrong(chunk, offset)
      if (wrong >= 0) failed.push(`byte ${wrong} is wrong`)
      offset += chunk.length
      if (moving || offset < until || moved >= moves) return
      moving = true
      moved++
      socket.migrate(nextOf(farm, server).name, { offset }).catch((error: unknown) => failed.push(error))
    })
    socket.on('end', () => socket.end(`${offset}`))
  }
  for (const server of farm.servers) {
    const listener = server.net.createServer({ allowHalfOpen: true }, (socket) => serve(server, socket, 0))
    listener.on('migrate', (socket, state) => serve(server, socket, (state as { offset: number }).offset))
    listener.listen(80)
  }
  await farm.settle()
  let answer = ''
  let closed = false
  let sent = 0
  const socket = farm.client().net.connect(80, '192.0.2.1')
  const pump = () => {
    while (sent < bytes) {
      const piece = pieceAt(sent, bytes - sent)
      sent += piece.length
      if (!socket.write(piece)) {
        socket.once('drain', pump)
        return
      }
    }
    socket.end()
  }
  socket.on('connect', pump)
  socket.on('error', (error: Error) => failed.push(error))
  socket.on('data', (chunk: Buffer) => {
    answer += chunk
  })
  socket.on('close', () => {
    closed = true
  })
  await farm.until(() => closed, 600_000)
  t.deepEqual(failed, [])
  t.is(answer, `${bytes}`)
  t.is(moved, moves)
  t.true(longestGapNs < MAXIMUM_GAP_NS, `longest gap ${longestGapNs} ns`)
  t.log(`longest gap ${(longestGapNs / 1e6).toFixed(3)} ms of virtual time`)
  await finish(t, farm, moves)
}

test('an upload whose server changes 100 times arrives whole, without a gap of 5 ms', (t) =>
  upload(t, kit(), 300e6, MOVES))

test('an upload moves 100 times while 1 % of all frames are lost on LAN and hub, without a gap of 5 ms', (t) =>
  upload(t, kit({ lan: { ...WIRE, loss: 0.01 }, hub: { ...WIRE, loss: 0.01 } }), 50e6, MOVES))

test('a WebSocket session whose server changes 100 times loses no message', async (t) => {
  const messages = 1000
  const farm = kit()
  const failed: unknown[] = []
  const seen = new Set<string>()
  let moved = 0
  /** Echoes messages; after every tenth the session goes to the next server, between two messages. */
  const serve = (server: Node, session: WebSocket, socket: Socket) => {
    session.on('error', (error: Error) => failed.push(error))
    session.on('message', (data: RawData) => {
      seen.add(server.name)
      const text = String(data)
      session.send(`${text} from the farm`, () => {
        if (Number(text.split(' ')[1]) % (messages / MOVES) !== 0) return
        moved++
        socket.migrate(nextOf(farm, server).name, { protocol: 'ws' }).catch((error: unknown) => failed.push(error))
      })
    })
  }
  for (const server of farm.servers) {
    const http = createServer()
    const sockets = new WebSocketServer({ server: http })
    sockets.on('connection', (session, request) => serve(server, session, request.socket))
    http.on('migrate', (socket: Socket) => {
      // A session in mid-conversation: ws makes one of a socket whose handshake is over.
      const options = { autoPong: true, closeTimeout: 30_000, maxPayload: 1 << 20 }
      const session: WebSocket = Reflect.construct(WebSocket, [null, undefined, options])
      Reflect.get(session, 'setSocket').call(session, socket, Buffer.alloc(0), options)
      serve(server, session, socket)
    })
    server.net.attach(http, 80)
  }
  await farm.settle()
  let received = 0
  let closed = 0
  const client = new WebSocket('ws://192.0.2.1:80/', {
    createConnection: () => farm.client().net.connect(80, '192.0.2.1'),
    perMessageDeflate: false,
  })
  client.on('open', () => client.send('message 1'))
  client.on('message', (data: RawData) => {
    received++
    if (String(data) !== `message ${received} from the farm`) failed.push(`message ${received}: ${String(data)}`)
    if (received < messages) client.send(`message ${received + 1}`)
    else client.close(1000)
  })
  client.on('error', (error: Error) => failed.push(error))
  client.on('close', (code) => {
    closed = code
  })
  await farm.until(() => closed !== 0, 60_000)
  t.deepEqual(failed, [])
  t.is(received, messages)
  t.is(closed, 1000, 'closed in order')
  t.is(seen.size, 3, 'all servers took part')
  await finish(t, farm, moved)
})
