/**
 * Builds the emulated farm that a configuration describes: a switch for each network, a router for each router, a board for each
 * server, and the cables between them.
 *
 *     server1 ── cable server1.0 ──┐             ┌── cable router-a.lan-a ── router-a ── cable router-a.internet ──┐
 *     server2 ── cable server2.0 ──┤ switch lan-a├                                                                 │ switch internet
 *                                  └─────────────┘          gateway board ── cable gateway-internet.0 ──────────────┤
 *                                                           TAP interface ── cable tap-inic0 ───────────────────────┘
 */
import { createHash } from 'node:crypto'
import { MAC_PORTS } from '../../abi/registers.ts'
import type { Board, BootLoader, BootSettings, InterfaceSettings, PeerSettings } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import type { Flash } from '../../emulator/devices/flash.ts'
import { Farm } from '../../emulator/farm.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { Port } from '../../emulator/link/link.ts'
import type { Switch } from '../../emulator/link/switch.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import type { Router } from '../../emulator/router/router.ts'
import {
  broadcastAddress,
  formatIpv4,
  type Ipv4Prefix,
  isHostAddress,
  networkAddress,
  parseIpv4Prefix,
} from '../config/addresses.ts'
import type { FarmConfig, InterfaceConfig, NetworkConfig, RouterConfig, ServerConfig } from '../config/farm-config.ts'
import { entryRouter, prefixOf } from '../config/routing.ts'
import { CommandError } from '../errors.ts'

/** Prefix of the boards that published ports go through. */
const GATEWAY_PREFIX = 'gateway-'
/** Bits of a MAC address that tell the ports of one board apart. */
const MAC_PORT_MASK = 3

export interface NetworkAssembly {
  readonly config: NetworkConfig
  readonly switch: Switch
  /** One for each thing on the network; the first port of each is the thing's, the second the switch's. */
  readonly cables: Cable[]
}

export interface ServerAssembly {
  readonly config: ServerConfig
  readonly board: Board
}

/** A board on a network that carries connections of this machine into it. */
export interface GatewayAssembly {
  readonly board: Board
  readonly address: number
}

export class FarmAssembly {
  readonly config: FarmConfig
  readonly farm: Farm
  readonly #cpu: CpuKind | undefined
  readonly networks = new Map<string, NetworkAssembly>()
  readonly servers = new Map<string, ServerAssembly>()
  readonly gateways = new Map<string, GatewayAssembly>()

  /** @param cpu what runs the firmware of every board; undefined: as the configuration says */
  constructor(config: FarmConfig, cpu?: CpuKind) {
    this.config = config
    this.#cpu = cpu
    this.farm = new Farm({ clock: config.clock, ...(config.seed !== undefined && { seed: config.seed }) })
    for (const network of config.networks) {
      this.networks.set(network.name, { config: network, switch: this.farm.addSwitch(network.name), cables: [] })
    }
    for (const router of config.routers) this.#addRouter(router)
  }

  /** Adds a server's board, switched off, and plugs it into its networks. */
  addServer(config: ServerConfig, flash: Flash, bootLoader: BootLoader): ServerAssembly {
    const board = this.farm.addBoard(config.name, {
      cpu: this.#cpu ?? config.cpu ?? 'auto',
      memoryBytes: config.memoryBytes,
      flash,
      bootLoader,
      boot: this.#bootSettings(config),
      macAddresses: this.#serverMacs(config),
    })
    for (const { network, port } of config.interfaces) {
      this.plug(network, board.ports[port], { name: `${config.name}.${port}`, wire: this.network(network).config.wire })
    }
    const server = { config, board }
    this.servers.set(config.name, server)
    return server
  }

  /** The board through which `network` is reached from this machine; made, switched off, when first asked for. */
  gateway(network: string): GatewayAssembly {
    const known = this.gateways.get(network)
    if (known !== undefined) return known
    const prefix = this.#prefixOf(network)
    const { config } = this.network(network)
    const { mtuBytes, publishFrom } = config
    const address = publishFrom ?? this.#freeAddress(network, prefix)
    const router = config.kind === 'wan' ? entryRouter(this.config, config) : undefined
    const gateway = router?.interfaces.find((item) => item.network === network)?.address.address
    const board = this.farm.addBoard(`${GATEWAY_PREFIX}${network}`, {
      cpu: this.#cpu ?? 'auto',
      macAddresses: this.#macAddresses(`${GATEWAY_PREFIX}${network}/${formatIpv4(address)}`),
      boot: {
        interfaces: [
          { address, prefix: prefix.prefix, mtuBytes, ...(gateway !== undefined && { gateway }) },
          { enabled: false },
          { enabled: false },
        ],
      },
    })
    this.plug(network, board.ports[0], { name: `${board.name}.0` })
    const added = { board, address }
    this.gateways.set(network, added)
    return added
  }

  /** Plugs `port` into a network. */
  plug(network: string, port: Port, options: { name: string; wire?: WireOptions }): Cable {
    const { switch: hub, cables } = this.network(network)
    const cable = this.farm.connect(port, hub.addPort(), options)
    cables.push(cable)
    return cable
  }

  network(name: string): NetworkAssembly {
    const network = this.networks.get(name)
    if (network === undefined) throw new Error(`no network ${name}`) // the configuration was checked
    return network
  }

  #addRouter({ name, interfaces, routes, delayNs }: RouterConfig): Router {
    const router = this.farm.addRouter(name, {
      interfaces: interfaces.map(({ network, address, mac }) => ({
        ...address,
        name: network,
        mac: mac ?? this.#routerMac(name, network, address),
        mtuBytes: this.network(network).config.mtuBytes,
      })),
      routes: routes.map(({ to, via }) => ({ network: to.address, prefix: to.prefix, via })),
      delayNs,
    })
    interfaces.forEach(({ network }, index) => {
      const port = router.ports[index]
      const { kind, wire } = this.network(network).config
      // Outside, routers are what clients' frames go to: there as on a LAN each impairment counts once.
      this.plug(network, port, { name: port.name, ...(kind === 'wan' && { wire }) })
    })
    return router
  }

  /** As a board's, but of one port: routers may have more of them than boards. */
  #routerMac(name: string, network: string, { address }: Ipv4Prefix): Uint8Array {
    return this.#macAddresses(`router ${name}/${network}/${formatIpv4(address)}`)[0]
  }

  #serverMacs({ name, interfaces }: ServerConfig): Uint8Array[] {
    const addresses = interfaces.map(({ address }) => formatIpv4(address?.address ?? 0))
    const derived = this.#macAddresses(`${name}/${addresses.join('/')}`)
    return derived.map((mac, port) => interfaces.find((item) => item.port === port)?.mac ?? mac)
  }

  /**
   * MAC addresses that follow from the farm's name and what `board` says of the board, its addresses included: farms joined by a
   * stream or a bridge meet on one LAN, and must not have the same. The first byte says that they are locally administered (IEEE 802 §8.4).
   */
  #macAddresses(board: string): Uint8Array[] {
    const digest = createHash('sha256').update(`${this.config.name}/${board}`).digest()
    return Array.from({ length: MAC_PORTS }, (_, port) =>
      Uint8Array.of(0x02, 0x49, digest[0], digest[1], digest[2], (digest[3] & ~MAC_PORT_MASK) | port),
    )
  }

  #bootSettings(server: ServerConfig): BootSettings {
    const ports: InterfaceSettings[] = []
    for (const item of server.interfaces) ports[item.port] = this.#interfaceSettings(item)
    const interfaces = Array.from(ports, (port) => port ?? { enabled: false })
    return { ...server.settings, ...this.#hubSettings(server), interfaces }
  }

  /** Who else is on the server's hub. */
  #hubSettings(server: ServerConfig): Pick<BootSettings, 'serverIndex' | 'peers'> {
    const hub = server.interfaces.find(({ network }) => this.network(network).config.kind === 'hub')
    if (hub === undefined) return {}
    const members = this.config.servers.filter(({ interfaces }) =>
      interfaces.some(({ network }) => network === hub.network),
    )
    const peers = members.flatMap((member, index): PeerSettings[] => {
      if (member === server) return []
      const { port } = member.interfaces.find(({ network }) => network === hub.network)!
      return [{ mac: this.#serverMacs(member)[port], index, addresses: addressesByPort(server, member) }]
    })
    return { serverIndex: members.indexOf(server), peers }
  }

  #interfaceSettings({ network, address, gateway, reply }: InterfaceConfig): InterfaceSettings {
    const { kind, mtuBytes } = this.network(network).config
    return {
      enabled: true,
      hub: kind === 'hub',
      mtuBytes,
      ...(address && { address: address.address, prefix: address.prefix }),
      ...(gateway !== undefined && { gateway }),
      ...(reply !== undefined && { reply }),
    }
  }

  #interfacesOn(network: string): InterfaceConfig[] {
    return this.config.servers.flatMap((server) => server.interfaces.filter((item) => item.network === network))
  }

  #prefixOf(network: string): Ipv4Prefix {
    const prefix = prefixOf(this.config, network)
    if (prefix === undefined) throw new Error(`no address on network ${network}`) // what is published has an address
    return prefix
  }

  /** The highest address of the network that nobody has; low ones are what people give to their servers. */
  #freeAddress(network: string, { address, prefix }: Ipv4Prefix): number {
    const taken = new Set([
      ...this.#interfacesOn(network).flatMap((item) => [item.address?.address, item.gateway]),
      ...this.config.routers.flatMap(({ interfaces }) => interfaces.map((item) => item.address.address)),
      ...this.network(network).config.taps.map((tap) => parseIpv4Prefix(tap.address ?? '')?.address),
    ])
    const last = broadcastAddress({ address, prefix })
    for (let candidate = last; candidate >= networkAddress({ address, prefix }); candidate--) {
      if (!taken.has(candidate) && isHostAddress({ address: candidate, prefix })) return candidate
    }
    throw new CommandError(`network '${network}' has no address left for the gateway of published ports`, {
      hint: 'give its servers a shorter prefix, or name one in the farm file: "publishFrom"',
    })
  }
}

/** By port of `server`: the address of `peer` on the network there, 0 = none. */
export function addressesByPort(server: ServerConfig, peer: ServerConfig): number[] {
  return Array.from({ length: MAC_PORTS }, (_, port) => {
    const network = server.interfaces.find((item) => item.port === port)?.network
    return peer.interfaces.find((item) => item.network === network)?.address?.address ?? 0
  })
}
