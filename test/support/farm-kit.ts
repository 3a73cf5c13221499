/**
 * A farm in virtual time: servers on a LAN and a synchronization hub, and clients on the LAN. Server n has 192.0.2.n, client n has
 * 192.0.2.(100 + n). Host programs are written against `net` and `dgram` of each board.
 */
import { readFileSync } from 'node:fs'
import type { Board, BootSettings } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { Farm } from '../../emulator/farm.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import { createDgram, type Dgram } from '../../host/dgram.ts'
import { Driver } from '../../host/driver/driver.ts'
import { createNet, type Net } from '../../host/net.ts'
import { NO_REFERENCES, type Stack } from '../../host/stack.ts'
import type { Layouts } from '../../toolchain/firmware/layouts.ts'
import { InicMemoryReader, type Row } from '../../toolchain/inspect/inic-memory.ts'

const wasm = readFileSync(new URL('../../../build/release/firmware.wasm', import.meta.url))
const layouts = JSON.parse(
  readFileSync(new URL('../../../build/release/firmware.layouts.json', import.meta.url), 'utf8'),
) as Layouts

const LAN_PORT = 0
const HUB_PORT = 2
const MASK_24 = 24

function macAddress(board: number, port: number): Uint8Array {
  return Uint8Array.of(0x02, 0, 0, 0, board, port)
}

export interface FarmKitOptions {
  readonly servers?: number
  readonly clients?: number
  readonly seed?: string
  readonly cpu?: CpuKind
  /** A slice lasts as long as its fuel, at 1 GHz. Default false: 1 µs. */
  readonly countFuel?: boolean
  /** Default 0. */
  readonly hostLatencyNs?: number
  readonly lan?: WireOptions
  readonly hub?: WireOptions
  /** For every server. */
  readonly boot?: BootSettings
  /** For every client. */
  readonly clientBoot?: BootSettings
  readonly memoryBytes?: number
}

/** A board with one process on it. */
export class Node {
  readonly name: string
  readonly address: string
  readonly board: Board
  readonly cables: Cable[]
  stack!: Stack
  net!: Net
  dgram!: Dgram

  constructor(name: string, address: string, board: Board, cables: Cable[]) {
    this.name = name
    this.address = address
    this.board = board
    this.cables = cables
  }

  /** Rows of a table in INIC memory, by class. */
  rows(kind: number): Row[] {
    return [...this.memory().rows(kind)]
  }

  memory(): InicMemoryReader {
    const { bytes } = this.board.memory!
    return new InicMemoryReader(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), layouts)
  }
}

export class FarmKit {
  readonly farm: Farm
  readonly servers: Node[] = []
  readonly clients: Node[] = []
  readonly #options: FarmKitOptions

  constructor(options: FarmKitOptions = {}) {
    this.#options = options
    const {
      servers = 3,
      clients = 1,
      seed = 'farm',
      countFuel = false,
      hostLatencyNs = 0,
      lan = {},
      hub = {},
    } = options
    this.farm = new Farm({ clock: 'virtual', seed, countFuel, hostLatencyNs })
    const lanSwitch = this.farm.addSwitch('lan')
    const hubSwitch = this.farm.addSwitch('hub')
    for (let n = 1; n <= servers; n++) {
      const board = this.#board(`server${n}`, n - 1)
      const cables = [
        this.farm.connect(board.ports[LAN_PORT]!, lanSwitch.addPort(), { name: `server${n}.lan`, wire: lan }),
        this.farm.connect(board.ports[HUB_PORT]!, hubSwitch.addPort(), { name: `server${n}.hub`, wire: hub }),
      ]
      this.servers.push(new Node(`server${n}`, `192.0.2.${n}`, board, cables))
    }
    for (let n = 1; n <= clients; n++) {
      const board = this.#board(`client${n}`, 100 + n)
      const cable = this.farm.connect(board.ports[LAN_PORT]!, lanSwitch.addPort(), { name: `client${n}.lan` })
      this.clients.push(new Node(`client${n}`, `192.0.2.${100 + n}`, board, [cable]))
    }
    for (const server of this.servers) this.powerOnServer(server)
    for (const client of this.clients) this.#powerOnClient(client)
  }

  #board(name: string, index: number): Board {
    const { cpu = 'auto', memoryBytes } = this.#options
    const macAddresses = [LAN_PORT, 1, HUB_PORT].map((port) => macAddress(index, port))
    return this.farm.addBoard(name, { cpu, macAddresses, ...(memoryBytes !== undefined && { memoryBytes }) })
  }

  /** Switches a server on, with a process; also again, after `powerOff`. */
  powerOnServer(server: Node): void {
    const n = this.servers.indexOf(server)
    const peers = this.servers
      .map((_, index) => ({ mac: macAddress(index, HUB_PORT), index, addresses: [0xc0000201 + index] }))
      .filter((_, index) => index !== n)
    const boot: BootSettings = {
      mslMs: 100,
      serverIndex: n,
      peers,
      ...this.#options.boot,
      interfaces: [{ address: 0xc0000201 + n, prefix: MASK_24 }, { enabled: false }, { hub: true, mtuBytes: 2000 }],
    }
    server.board.powerOn({ wasm, boot })
    this.#process(server)
  }

  #powerOnClient(client: Node): void {
    const n = this.clients.indexOf(client)
    const boot: BootSettings = {
      mslMs: 100,
      ...this.#options.clientBoot,
      interfaces: [{ address: 0xc0000200 + 101 + n, prefix: MASK_24 }],
    }
    client.board.powerOn({ wasm, boot })
    this.#process(client)
  }

  #process(node: Node): void {
    const { bus } = node.board.attachProcess({ ramBytes: 16 << 20 })
    const names = new Map(this.servers.map(({ name, address }) => [name, address]))
    node.stack = {
      driver: new Driver(bus),
      clock: node.board.hostClock,
      hosts: names,
      servers: names,
      references: NO_REFERENCES,
    }
    node.net = createNet(node.stack)
    node.dgram = createDgram(node.stack)
  }

  server(n: number): Node {
    return this.servers[n - 1]!
  }

  client(n = 1): Node {
    return this.clients[n - 1]!
  }

  /** Lets so much virtual time pass. */
  run(ms: number): Promise<unknown> {
    return this.farm.run(this.farm.now() + ms * 1e6)
  }

  /** Runs until the condition holds; false if it does not within `ms` of virtual time. */
  async until(condition: () => boolean, ms = 10_000): Promise<boolean> {
    const end = this.farm.now() + ms * 1e6
    while (!condition() && this.farm.now() < end) {
      await this.farm.run(() => condition() || this.farm.now() >= end)
    }
    return condition()
  }

  /** All servers have heard of each other and of their ports. */
  async settle(): Promise<void> {
    await this.run(50)
  }

  async close(): Promise<void> {
    await this.farm.stop()
    for (const { board } of [...this.servers, ...this.clients]) board.powerOff()
  }
}
