import type { Board, BootSettings } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { Farm } from '../../emulator/farm.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import { type Inspector, Interposer } from '../../emulator/link/interposer.ts'
import type { Switch } from '../../emulator/link/switch.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import { createDgram, type Dgram } from '../../host/dgram.ts'
import { Driver } from '../../host/driver/driver.ts'
import { createNet, type Net } from '../../host/net.ts'
import { type FirstSpeaker, NO_REFERENCES, type Stack } from '../../host/stack.ts'
import type { Layouts } from '../firmware/layouts.ts'
import { InicMemoryReader, type Row } from '../inspect/inic-memory.ts'

const LAN_PORT = 0
const HUB_PORT = 2
const LAN = 0xc0000200
const LAN_PREFIX = 24
const FIRST_CLIENT = 100
const HUB_MTU_BYTES = 2000
const DEFAULT_RAM_BYTES = 16 << 20

/** What the boards boot, and how to read its tables. */
export interface FarmFirmware {
  readonly wasm: Uint8Array
  readonly layouts: Layouts
}

export interface VirtualFarmOptions {
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
  /** RAM of a process on its main board. */
  readonly ramBytes?: number
  /** Who speaks first on which port of the servers; 'auto' if it is not here. */
  readonly firstSpeakers?: ReadonlyMap<number, FirstSpeaker>
  /** Sees every frame between a board and its switch. */
  readonly inspector?: Inspector
}

/** A board with one process on it. */
export class VirtualNode {
  readonly name: string
  readonly address: string
  readonly board: Board
  /** To the LAN, and of a server to the hub. */
  readonly cables: readonly Cable[]
  /** MAC addresses as they stand in frames, in the order of `cables`. */
  readonly macs: readonly string[]
  stack!: Stack
  net!: Net
  dgram!: Dgram
  readonly #layouts: Layouts
  #set = -1

  constructor(name: string, address: string, board: Board, cables: Cable[], macs: string[], layouts: Layouts) {
    this.name = name
    this.address = address
    this.board = board
    this.cables = cables
    this.macs = macs
    this.#layouts = layouts
  }

  /** Rows of a table in INIC memory, by class. */
  rows(kind: number): Row[] {
    return [...this.memory().rows(kind)]
  }

  memory(): InicMemoryReader {
    const { bytes } = this.board.memory!
    return new InicMemoryReader(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), this.#layouts)
  }

  /** Gives the board a process of its own, in place of the one that it had. */
  startProcess(
    ramBytes: number,
    names: ReadonlyMap<string, string>,
    firstSpeakers: ReadonlyMap<number, FirstSpeaker>,
  ): void {
    if (this.#set >= 0) this.board.detachProcess(this.#set)
    const { bus, set } = this.board.attachProcess({ ramBytes })
    this.#set = set
    this.stack = {
      driver: new Driver(bus),
      clock: this.board.hostClock,
      hosts: names,
      servers: names,
      firstSpeakers,
      references: NO_REFERENCES,
    }
    this.net = createNet(this.stack)
    this.dgram = createDgram(this.stack)
  }
}

/**
 * A farm in virtual time: servers on a LAN and a synchronization hub, and clients on the LAN. Server n has 192.0.2.n, client n has
 * 192.0.2.(100 + n). Host programs are written against `net` and `dgram` of each board.
 */
export class VirtualFarm {
  readonly farm: Farm
  readonly servers: VirtualNode[] = []
  readonly clients: VirtualNode[] = []
  readonly #firmware: FarmFirmware
  readonly #options: VirtualFarmOptions

  constructor(firmware: FarmFirmware, options: VirtualFarmOptions = {}) {
    this.#firmware = firmware
    this.#options = options
    const { servers = 3, clients = 1, seed = 'farm', countFuel = false, hostLatencyNs = 0, lan, hub } = options
    this.farm = new Farm({ clock: 'virtual', seed, countFuel, hostLatencyNs })
    const lanSwitch = this.farm.addSwitch('lan')
    const hubSwitch = this.farm.addSwitch('hub')
    for (let n = 1; n <= servers; n++) {
      const node = this.#node(`server${n}`, n, [
        { network: lanSwitch, port: LAN_PORT, wire: lan },
        { network: hubSwitch, port: HUB_PORT, wire: hub },
      ])
      this.servers.push(node)
    }
    for (let n = 1; n <= clients; n++) {
      const node = this.#node(`client${n}`, FIRST_CLIENT + n, [{ network: lanSwitch, port: LAN_PORT, wire: undefined }])
      this.clients.push(node)
    }
    for (const server of this.servers) this.powerOnServer(server)
    for (const client of this.clients) this.#powerOnClient(client)
  }

  #node(
    name: string,
    last: number,
    links: readonly { network: Switch; port: number; wire: WireOptions | undefined }[],
  ): VirtualNode {
    const { cpu = 'auto', memoryBytes, inspector } = this.#options
    const macAddresses = [LAN_PORT, 1, HUB_PORT].map((port) => macAddress(last, port))
    const board = this.farm.addBoard(name, { cpu, macAddresses, ...(memoryBytes !== undefined && { memoryBytes }) })
    const cables = links.map(({ network, port, wire }) => {
      const cableName = `${name}.${network.name}`
      const there = network.addPort()
      const end = inspector ? new Interposer(there, this.farm, inspector, cableName) : there
      return this.farm.connect(board.ports[port]!, end, { name: cableName, ...(wire && { wire }) })
    })
    const macs = links.map(({ port }) => Buffer.from(macAddress(last, port)).toString('hex'))
    return new VirtualNode(name, dotted(LAN + last), board, cables, macs, this.#firmware.layouts)
  }

  /** Switches a server on, with a process; also again, after `powerOff`. */
  powerOnServer(server: VirtualNode): void {
    const n = this.servers.indexOf(server)
    const peers = this.servers
      .map((_, index) => ({ mac: macAddress(index + 1, HUB_PORT), index, addresses: [LAN + 1 + index] }))
      .filter((_, index) => index !== n)
    const boot: BootSettings = {
      mslMs: 100,
      serverIndex: n,
      peers,
      ...this.#options.boot,
      interfaces: [
        { address: LAN + 1 + n, prefix: LAN_PREFIX },
        { enabled: false },
        { hub: true, mtuBytes: HUB_MTU_BYTES },
      ],
    }
    this.#powerOn(server, boot)
  }

  #powerOnClient(client: VirtualNode): void {
    const n = this.clients.indexOf(client)
    this.#powerOn(client, {
      mslMs: 100,
      ...this.#options.clientBoot,
      interfaces: [{ address: LAN + FIRST_CLIENT + 1 + n, prefix: LAN_PREFIX }],
    })
  }

  #powerOn(node: VirtualNode, boot: BootSettings): void {
    const { wasm } = this.#firmware
    const { ramBytes = DEFAULT_RAM_BYTES, firstSpeakers = new Map() } = this.#options
    node.board.powerOn({ wasm, boot })
    const names = new Map(this.servers.map(({ name, address }) => [name, address]))
    node.startProcess(ramBytes, names, firstSpeakers)
  }

  server(n: number): VirtualNode {
    return this.servers[n - 1]!
  }

  client(n = 1): VirtualNode {
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

function macAddress(last: number, port: number): Uint8Array {
  return Uint8Array.of(0x02, 0, 0, 0, last, port)
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')
}
