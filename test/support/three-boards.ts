import { once } from 'node:events'
import type net from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { Driver } from '../../host/driver/driver.ts'
import { createNet, type Net } from '../../host/net.ts'
import { NO_REFERENCES, type Stack } from '../../host/stack.ts'
import { wallClock } from '../../host/worker/clock.ts'
import type { FakeCard } from './fake-card.ts'
import { FakeNetwork, type FakeNetworkOptions } from './fake-network.ts'

/** A main board over a card without firmware. */
export interface FakeBoard {
  readonly address: string
  readonly card: FakeCard
  readonly stack: Stack
  readonly net: Net
}

const SERVERS = new Map([
  ['server1', '10.0.0.1'],
  ['server2', '10.0.0.3'],
])

/** Two servers of a farm, and a client, over cards without firmware. The client's card acts before the servers' in every slice. */
export class ThreeBoards {
  readonly network: FakeNetwork
  readonly client: FakeBoard
  readonly server1: FakeBoard
  readonly server2: FakeBoard
  // Sockets of the machine keep its process alive; a fake card's do not.
  readonly #anchor = setInterval(() => {}, 1000)

  constructor(options: FakeNetworkOptions = {}) {
    this.network = new FakeNetwork(options)
    this.client = this.#board(0x0a000002, '10.0.0.2')
    this.server1 = this.#board(0x0a000001, '10.0.0.1')
    this.server2 = this.#board(0x0a000003, '10.0.0.3')
  }

  #board(number: number, address: string): FakeBoard {
    const card = this.network.addCard(number)
    const stack: Stack = {
      driver: new Driver(card),
      clock: wallClock(),
      hosts: SERVERS,
      servers: SERVERS,
      references: NO_REFERENCES,
    }
    return { address, card, stack, net: createNet(stack) }
  }

  /** Both servers listen on port 80; `client` is connected to the first, which has read its greeting. Both ends are paused. */
  async pair(options: net.ServerOpts = {}): Promise<MovingPair> {
    const first = this.server1.net.createServer(options).listen(80)
    const second = this.server2.net.createServer(options).on('migrate', (socket) => socket.on('error', () => {}))
    second.on('connection', (socket) => socket.on('error', () => {}))
    second.listen(80)
    await Promise.all([once(first, 'listening'), once(second, 'listening')])
    const client = this.client.net.connect({ port: 80, host: '10.0.0.1', allowHalfOpen: true })
    client.write('!')
    const [peer] = (await once(first, 'connection')) as [net.Socket]
    while (peer.read(1) === null) await once(peer, 'readable')
    // A test that expects an error waits for it; the other end's is none of its business.
    for (const socket of [client, peer]) socket.on('error', () => {})
    return { first, second, client, peer }
  }

  /** Until nothing is left to do; for networks without slow parts. */
  async settle(): Promise<void> {
    for (let quiet = 0, slices = this.network.slices; quiet < 3; ) {
      await new Promise((resolve) => setImmediate(resolve))
      quiet = this.network.slices === slices ? quiet + 1 : 0
      slices = this.network.slices
    }
  }

  close(): void {
    clearInterval(this.#anchor)
    for (const { stack } of [this.client, this.server1, this.server2]) stack.driver.close()
  }
}

type Run = (t: ExecutionContext, boards: ThreeBoards) => Promise<void>

/** A test over three boards, which are closed after it. */
export function boardsTest(name: string, run: Run, options?: FakeNetworkOptions): void {
  test(name, closing(run, options))
}

/** The same, one after the other: for tests that look at what nobody catches. */
export function serialBoardsTest(name: string, run: Run, options?: FakeNetworkOptions): void {
  test.serial(name, closing(run, options))
}

function closing(run: Run, options?: FakeNetworkOptions) {
  return async (t: ExecutionContext): Promise<void> => {
    const boards = new ThreeBoards(options)
    try {
      await run(t, boards)
    } finally {
      boards.close()
    }
  }
}

export interface MovingPair {
  readonly first: net.Server
  readonly second: net.Server
  readonly client: net.Socket
  /** The end on the first server. */
  readonly peer: net.Socket
}

/** The connection that the next hand-over brings to `server`, and its state. */
export async function handedOver(server: net.Server): Promise<{ socket: net.Socket; state: unknown }> {
  const [socket, state] = (await once(server, 'migrate')) as [net.Socket, unknown]
  return { socket, state }
}

/** Reads `count` bytes, which must come; they may be more than a window. */
export async function readBytes(socket: net.Socket, count: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  for (let left = count; left > 0; ) {
    const chunk = socket.read(Math.min(left, socket.readableLength || 1)) as Buffer | null
    if (chunk === null) await once(socket, 'readable')
    else {
      chunks.push(chunk)
      left -= chunk.length
    }
  }
  return Buffer.concat(chunks)
}

/** Has `server` take no hand-overs any more. */
export async function refuse(boards: ThreeBoards, server: net.Server): Promise<void> {
  server.removeAllListeners('migrate')
  await boards.settle()
}
