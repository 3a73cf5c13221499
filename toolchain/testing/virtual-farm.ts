import type { BootSettings } from '../../emulator/board.ts'
import { type Inspector, Interposer } from '../../emulator/link/interposer.ts'
import type { Switch } from '../../emulator/link/switch.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import type { FirstSpeaker } from '../../host/stack.ts'
import { formatIpv4 } from '../config/addresses.ts'
import type { FarmFirmware } from './firmware.ts'
import { type LabOptions, VirtualLab } from './virtual-lab.ts'
import { VirtualNode } from './virtual-node.ts'

const LAN_PORT = 0
const HUB_PORT = 2
const LAN = 0xc0000200
const LAN_PREFIX = 24
const FIRST_CLIENT = 100
const HUB_MTU_BYTES = 2000

export interface VirtualFarmOptions extends LabOptions {
  /** Default 3. */
  readonly servers?: number
  /** Default 1. */
  readonly clients?: number
  /** What clients boot; what the servers boot if left out. */
  readonly clientFirmware?: FarmFirmware
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

/**
 * A farm in virtual time: servers on a LAN and a synchronization hub, and clients on the LAN. Server n has 192.0.2.n, client n has
 * 192.0.2.(100 + n). Host programs are written against `net` and `dgram` of each board.
 */
export class VirtualFarm extends VirtualLab {
  readonly servers: VirtualNode[] = []
  readonly clients: VirtualNode[] = []
  /** The network of servers and clients; `station` puts a port of the test on it. */
  readonly lan: Switch
  readonly hub: Switch
  readonly #firmware: FarmFirmware
  readonly #options: VirtualFarmOptions

  constructor(firmware: FarmFirmware, options: VirtualFarmOptions = {}) {
    super(options)
    this.#firmware = firmware
    this.#options = options
    const { servers = 3, clients = 1, lan, hub, clientFirmware = firmware } = options
    this.lan = this.addSwitch('lan')
    this.hub = this.addSwitch('hub')
    for (let n = 1; n <= servers; n++) {
      const node = this.#node(`server${n}`, n, firmware, [
        { network: this.lan, port: LAN_PORT, wire: lan },
        { network: this.hub, port: HUB_PORT, wire: hub },
      ])
      this.servers.push(node)
    }
    for (let n = 1; n <= clients; n++) {
      const node = this.#node(`client${n}`, FIRST_CLIENT + n, clientFirmware, [
        { network: this.lan, port: LAN_PORT, wire: undefined },
      ])
      this.clients.push(node)
    }
    for (const server of this.servers) this.powerOnServer(server)
    for (const client of this.clients) this.#powerOnClient(client)
  }

  #node(
    name: string,
    last: number,
    firmware: FarmFirmware,
    links: readonly { network: Switch; port: number; wire: WireOptions | undefined }[],
  ): VirtualNode {
    const { cpu = 'auto', memoryBytes, inspector } = this.#options
    const { resolveSource, layouts } = firmware
    const macAddresses = [LAN_PORT, 1, HUB_PORT].map((port) => macAddress(last, port))
    const board = this.farm.addBoard(name, {
      ...{ cpu, macAddresses },
      ...(memoryBytes !== undefined && { memoryBytes }),
      ...(resolveSource !== undefined && { resolveSource }),
    })
    const cables = links.map(({ network, port, wire }) => {
      const cableName = `${name}.${network.name}`
      const there = network.addPort()
      const end = inspector ? new Interposer(there, this.farm, inspector, cableName) : there
      return this.farm.connect(board.ports[port]!, end, { name: cableName, ...(wire && { wire }) })
    })
    const macs = links.map(({ port }) => Buffer.from(macAddress(last, port)).toString('hex'))
    const node = new VirtualNode(name, formatIpv4(LAN + last), board, layouts, this, cables, macs)
    return this.register(node, cables)
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
    this.#powerOn(server, this.#firmware, boot)
  }

  #powerOnClient(client: VirtualNode): void {
    const n = this.clients.indexOf(client)
    this.#powerOn(client, this.#options.clientFirmware ?? this.#firmware, {
      mslMs: 100,
      ...this.#options.clientBoot,
      interfaces: [{ address: LAN + FIRST_CLIENT + 1 + n, prefix: LAN_PREFIX }],
    })
  }

  #powerOn(node: VirtualNode, { wasm, stateLayout }: FarmFirmware, boot: BootSettings): void {
    const { ramBytes, firstSpeakers } = this.#options
    node.board.powerOn({ wasm, boot, ...(stateLayout !== undefined && { stateLayout }) })
    const names = new Map(this.servers.map(({ name, address }) => [name, address]))
    node.startProcess(ramBytes, names, firstSpeakers)
  }

  server(n: number): VirtualNode {
    return this.servers[n - 1]!
  }

  client(n = 1): VirtualNode {
    return this.clients[n - 1]!
  }

  /** All servers have heard of each other and of their ports. */
  async settle(): Promise<void> {
    await this.run(50)
  }
}

function macAddress(last: number, port: number): Uint8Array {
  return Uint8Array.of(0x02, 0, 0, 0, last, port)
}
