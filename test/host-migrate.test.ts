import { once } from 'node:events'
import type net from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import type { HostClock } from '../abi/bus.ts'
import * as M from '../abi/messages.ts'
import { BoardAgent } from '../host/board-agent.ts'
import { type BoardApi, startBoardProgram } from '../host/board-program.ts'
import type { BoardState } from '../host/driver/board-commands.ts'
import { createNet } from '../host/net.ts'
import { startNodeProgram } from '../host/node-program.ts'
import type { HostedProcess } from '../host/process.ts'
import { wallClock } from '../host/worker/clock.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { FakeNetwork } from './support/fake-network.ts'
import { stackOn } from './support/network.ts'
import { sleep } from './support/sockets.ts'

/** Hand-overs and drains of whole processes, and what a main board says of itself, over cards without firmware. */

const SERVERS = { server1: '10.0.0.1', server2: '10.0.0.3' }
const SIZE = 8_000_000

// ── unmodified Node programs ──

test('a download of an unmodified Node program moves to another worker, byte for byte', async (t) => {
  const network = new FakeNetwork()
  const lines: string[] = []
  const start = async (name: string, address: number): Promise<HostedProcess> => {
    const process = startNodeProgram(network.addCard(address, 32 << 20, true), {
      name,
      program: join(packageRoot, 'examples/download/server.mjs'),
      env: { INIC_SERVER: name, SIZE: String(SIZE) },
      servers: SERVERS,
      processId: address & 255,
      output: (line) => lines.push(line),
    })
    while (!lines.includes(`${name}: listening`)) await sleep(5)
    return process
  }
  const client = createNet(stackOn(network.addCard(0x0a000002)))
  const server1 = await start('server1', 0x0a000001)
  const server2 = await start('server2', 0x0a000003)
  t.like(await server1.report(), { moved: 0, left: 0 })

  const socket = client.connect({ port: 80, host: '10.0.0.1', allowHalfOpen: true })
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  let received = 0
  let head = ''
  const read = async (until: () => boolean | Promise<boolean>): Promise<void> => {
    while (!(await until())) {
      const chunk = socket.read() as Buffer | null
      if (chunk === null) {
        await once(socket, 'readable')
        continue
      }
      const start = head === '' ? chunk.indexOf('\r\n\r\n') + 4 : 0
      if (head === '') head = chunk.subarray(0, start).toString()
      for (const byte of chunk.subarray(start)) if (byte !== (received++ * 7) % 251) throw new Error(`byte ${received}`)
    }
  }
  await read(() => received > 1_000_000)
  t.regex(head, /first-server: server1/)
  t.like(await server1.report(), { moved: 0, left: 1 })
  server1.drain('server2')
  await read(async () => (await server1.report())?.moved === 1)
  t.true(received < SIZE)
  server1.endDrain()
  // And back, to whichever is best.
  server2.drain()
  await read(async () => (await server2.report())?.moved === 1)
  await read(() => received === SIZE)
  // The connection is HTTP's again.
  received = 0
  head = ''
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  await read(() => received > 100_000)
  t.regex(head, /first-server: server1/)
  const said = (text: string) => lines.filter((line) => line.startsWith(text)).length
  for (const name of ['server1', 'server2']) {
    t.is(said(`${name}: the download goes on elsewhere`), 1)
    t.is(said(`${name}: a download goes on here`), 1)
  }
  socket.destroy()
  const usage = await server1.report()
  t.true(usage!.memoryKib > 1000 && usage!.cpuPermille <= 1000)
  const told = network.cards[1]!.processStates.get(1)
  t.true(told!.memoryKib > 1000, 'the card knows it too')
  await Promise.all([server1.stop(), server2.stop()])
  t.is(await server1.report(), undefined)
})

test('a program that is at work does not answer, and is not waited for', async (t) => {
  const network = new FakeNetwork()
  const process = startNodeProgram(network.addCard(0x0a000001, 32 << 20, true), {
    name: 'busy',
    program: join(packageRoot, 'test/programs/busy.mjs'),
  })
  // It answers until its program begins.
  while ((await process.report()) !== undefined) await sleep(10)
  await process.stop(10)
  t.pass()
})

// ── board programs ──

test('a board program is told of the servers, and is drained', async (t) => {
  const network = new FakeNetwork()
  const boards: BoardApi[] = []
  const start = (name: string, address: number) =>
    startBoardProgram(network.addCard(address), wallClock(), {
      name,
      program: { main: (board) => boards.push(board) },
      random: Math.random,
      servers: SERVERS,
      processId: address & 255,
    })
  const [process1, process2] = [start('one', 0x0a000001), start('two', 0x0a000003)]
  const client = createNet(stackOn(network.addCard(0x0a000002)))
  t.deepEqual(boards[0]!.servers, SERVERS)
  const moved = new Promise<[net.Socket, unknown]>((resolve) => {
    for (const board of boards) {
      const server = board.net.createServer((socket) => socket.resume())
      server.on('migrate', (socket, state) => resolve([socket, state]))
      server.on('drain', (socket, to) => void socket.migrate(to, { from: board.name }))
      server.listen(80)
    }
  })
  await sleep(10)
  const socket = client.connect(80, '10.0.0.1')
  socket.write('x')
  while ((await process1.report())?.left !== 1) await sleep(5)
  process1.drain()
  const [arrived, state] = await moved
  t.deepEqual(state, { from: 'one' })
  t.like(await process1.report(), { memoryKib: 0, moved: 1, left: 0 })
  t.like(await process2.report(), { left: 1 })
  process1.endDrain()
  socket.destroy()
  arrived.destroy()
  await process1.stop()
  await process2.stop()
  t.is(await process1.report(), undefined)
})

// ── the board itself ──

/** A clock that goes on when it is told to. */
function steppedClock(): HostClock & { advance(ns: number): void; readonly timers: number } {
  let nowNs = 0
  let last = 0
  const timers = new Map<number, { dueNs: number; callback: () => void }>()
  return {
    now: () => nowNs,
    schedule(delayNs, callback) {
      timers.set(++last, { dueNs: nowNs + delayNs, callback })
      return last
    },
    clear: (handle) => void timers.delete(handle),
    advance(ns) {
      nowNs += ns
      for (const [handle, { dueNs, callback }] of [...timers]) {
        if (dueNs > nowNs) continue
        timers.delete(handle)
        callback()
      }
    },
    get timers() {
      return timers.size
    },
  }
}

const IDLE: BoardState = {
  cpuPermille: 10,
  memoryAvailableKib: 900_000,
  memoryTotalKib: 1_000_000,
  bandwidthAvailableKbit: 10_000_000,
  bandwidthTotalKbit: 10_000_000,
}

test('a main board tells its card how it is, and again when that has changed', async (t) => {
  const network = new FakeNetwork()
  const card = network.addCard(0x0a000001, 2 << 20)
  const clock = steppedClock()
  let state = IDLE
  const agent = new BoardAgent(card, { clock, periodNs: 500e6, measure: () => state })
  const settle = async () => {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
  }
  await settle()
  const told = [[10, 900_000, 1_000_000, 10_000_000, 10_000_000, 0]]
  t.deepEqual(card.boardStates, told)
  // Small changes are not worth a word.
  state = { ...IDLE, cpuPermille: 25, memoryAvailableKib: 890_000 }
  clock.advance(500e6)
  await settle()
  t.deepEqual(card.boardStates, told)
  state = { ...IDLE, cpuPermille: 100 }
  clock.advance(500e6)
  state = { ...IDLE, cpuPermille: 100, connections: 0 }
  clock.advance(500e6)
  state = { ...IDLE, cpuPermille: 100, connections: 7 }
  clock.advance(500e6)
  await settle()
  told.push([100, 900_000, 1_000_000, 10_000_000, 10_000_000, 0])
  told.push([100, 900_000, 1_000_000, 10_000_000, 10_000_000, 8])
  t.deepEqual(card.boardStates, told)
  agent.drain(true)
  await settle()
  t.true(card.draining)
  // A card that was started anew knows nothing.
  card.stop()
  await settle()
  t.false(card.draining)
  card.start()
  await settle()
  t.true(card.draining)
  t.is(card.boardStates.length, 4)
  t.deepEqual(card.boardStates[3], told[2])
  t.is(clock.timers, 1)
  agent.drain(false)
  await settle()
  t.false(card.draining)
  agent.close()
  t.is(clock.timers, 0)
})

test('in virtual time it says so once, and what is measured later is not waited for', async (t) => {
  const network = new FakeNetwork()
  const clock = steppedClock()
  const once = network.addCard(0x0a000001, 2 << 20)
  new BoardAgent(once, { clock, measure: () => ({ ...IDLE, connections: 0 }) })
  t.is(clock.timers, 0)
  const later = network.addCard(0x0a000002, 2 << 20)
  const agent = new BoardAgent(later, { clock, periodNs: 1, measure: async () => IDLE })
  await sleep(5)
  t.is(once.boardStates.length, 1)
  t.is(once.boardStates[0]![(M.BOARD_STATE_CONNECTIONS - M.BOARD_STATE_CPU) / 4], 1, 'none is not the same as not told')
  t.is(later.boardStates.length, 1)
  agent.close()
})
