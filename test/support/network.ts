import dgram from 'node:dgram'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import type { Bus, HostClock } from '../../abi/bus.ts'
import type { Board } from '../../emulator/board.ts'
import { Farm } from '../../emulator/farm.ts'
import { createDgram, type Dgram } from '../../host/dgram.ts'
import { Driver } from '../../host/driver/driver.ts'
import { createNet, type Net } from '../../host/net.ts'
import { NO_REFERENCES, type Stack } from '../../host/stack.ts'
import { wallClock } from '../../host/worker/clock.ts'
import { FakeNetwork, type FakeNetworkOptions } from './fake-network.ts'

/** Two main boards that can talk to each other, whatever lies between them. */
export interface Network {
  readonly server: Net
  readonly client: Net
  readonly serverDgram: Dgram
  readonly clientDgram: Dgram
  /** The server's address. */
  readonly address: string
  close(): void | Promise<void>
}

/** The stack of one process on `bus`. */
export function stackOn(bus: Bus, hosts: Record<string, string> = {}, clock: HostClock = wallClock()): Stack {
  return { driver: new Driver(bus), clock, hosts: new Map(Object.entries(hosts)), references: NO_REFERENCES }
}

/** node:net itself: what Node does is what Node documents, so every expectation is tried on it too. */
export function nodeNetwork(): Network {
  const attach: Net['attach'] = (server, ...args) => {
    Reflect.apply(server.listen, server, args)
    return server
  }
  const node = { ...net, attach } as unknown as Net
  return { server: node, client: node, serverDgram: dgram, clientDgram: dgram, address: '127.0.0.1', close() {} }
}

/** Two emulated boards, with the firmware on their cards and a wire between them, in real time: 10.0.0.1 and 10.0.0.2. */
export interface Boards {
  readonly server: Board
  readonly client: Board
  close(): Promise<void>
}

export function boards(): Boards {
  const farm = new Farm({ clock: 'real', seed: 'sockets' })
  const wasm = readFileSync(new URL('../../../build/release/firmware.wasm', import.meta.url))
  const make = (name: string, address: number) => {
    const board = farm.addBoard(name, { cpu: 'v8' })
    // Short times, so that what waits for them does not hold the tests up.
    board.powerOn({ wasm, boot: { placeAfterMs: 2, mslMs: 50, interfaces: [{ address, prefix: 24 }] } })
    return board
  }
  const server = make('server', 0x0a000001)
  const client = make('client', 0x0a000002)
  farm.connect(server.ports[0]!, client.ports[0]!)
  farm.start()
  return {
    server,
    client,
    async close() {
      await farm.stop()
      server.powerOff()
      client.powerOff()
    },
  }
}

/** The stack of a new process on `board`. */
export function processOn(board: Board): Stack {
  return stackOn(board.attachProcess({ ramBytes: 32 << 20 }).bus, {}, board.hostClock)
}

/** Our sockets over two boards. */
export function boardNetwork(): Network {
  const { server, client, close } = boards()
  const serverStack = processOn(server)
  const clientStack = processOn(client)
  return {
    server: createNet(serverStack),
    client: createNet(clientStack),
    serverDgram: createDgram(serverStack),
    clientDgram: createDgram(clientStack),
    address: '10.0.0.1',
    close,
  }
}

export interface CardNetwork extends Network {
  readonly fake: FakeNetwork
  readonly serverStack: Stack
  readonly clientStack: Stack
}

/** Our sockets over cards without firmware. */
export function cardNetwork(options: FakeNetworkOptions = {}): CardNetwork {
  const fake = new FakeNetwork(options)
  // Sockets of the machine keep its process alive; a fake card's do not.
  const anchor = setInterval(() => {}, 1000)
  const serverStack = stackOn(fake.addCard(0x0a000001))
  const clientStack = stackOn(fake.addCard(0x0a000002), { server: '10.0.0.1' })
  return {
    fake,
    serverStack,
    clientStack,
    server: createNet(serverStack),
    client: createNet(clientStack),
    serverDgram: createDgram(serverStack),
    clientDgram: createDgram(clientStack),
    address: '10.0.0.1',
    close() {
      clearInterval(anchor)
      serverStack.driver.close()
      clientStack.driver.close()
    },
  }
}
