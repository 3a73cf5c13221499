/** A farm as the toolchain works with it: every default filled in, every name resolved, every quantity in its base unit. */
import {
  PLACEMENT_LEAST_LOADED,
  PLACEMENT_LOCAL_FIRST,
  PLACEMENT_LOCAL_ONLY,
  PLACEMENT_ROUND_ROBIN,
} from '../../abi/boot.ts'
import type { BootSettings } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import type { LinkAddress, SocketAddress } from '../../emulator/link/address.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import type { FirstSpeaker } from '../../host/stack.ts'
import type { Ipv4Prefix } from './addresses.ts'

export type NetworkKind =
  /** A switch that servers, routers, gateways, TAP interfaces and streams are plugged into. */
  | 'lan'
  /** The same, outside: where clients are. Routers lead from it to the servers. */
  | 'wan'
  /** The synchronization hub: INIC to INIC, ipOS frames only. */
  | 'hub'

/** Frames to and from another process, as QEMU's `-netdev stream` or `-netdev dgram` has them. */
export type StreamConfig =
  | { readonly role: 'listen' | 'connect'; readonly address: LinkAddress }
  | { readonly role: 'dgram'; readonly local: SocketAddress; readonly remote: SocketAddress }

/** A Linux TAP interface on a network. */
export interface TapConfig {
  readonly interfaceName: string
  /** Address that the kernel's end is given, and brought up with: `192.0.2.1/24`. Without one the interface stays as it is. */
  readonly address: string | undefined
}

export interface NetworkConfig {
  readonly name: string
  readonly kind: NetworkKind
  /** Bytes of the largest IP packet. */
  readonly mtuBytes: number
  /** What the cable of each server to this network does to frames, and outside that of each router. */
  readonly wire: WireOptions
  readonly taps: readonly TapConfig[]
  /** Address of the board that published ports go through; undefined: the highest that is free. */
  readonly publishFrom: number | undefined
  readonly streams: readonly StreamConfig[]
}

export interface InterfaceConfig {
  /** MAC port of the INIC. */
  readonly port: number
  readonly network: string
  /** Absent on the hub, where servers know each other by their other addresses. */
  readonly address: Ipv4Prefix | undefined
  readonly gateway: number | undefined
  /** MAC port by which packets leave that carry this address as their source; undefined: this one. */
  readonly reply: number | undefined
  readonly mac: Uint8Array | undefined
}

export interface RouterInterfaceConfig {
  readonly network: string
  readonly address: Ipv4Prefix
  readonly mac: Uint8Array | undefined
}

export interface RouteConfig {
  readonly to: Ipv4Prefix
  /** Address of the next router, on a network that the router is on. */
  readonly via: number
}

export interface RouterConfig {
  readonly name: string
  /** The provider whose clients it brings; for people. */
  readonly isp: string | undefined
  readonly interfaces: readonly RouterInterfaceConfig[]
  readonly routes: readonly RouteConfig[]
  /** From a packet's arrival to its departure, nanoseconds. */
  readonly delayNs: number
}

export type ApplicationKind =
  /** An unmodified Node program, in a worker of its own, in real time. */
  | 'node'
  /** A module with `main(board)`, which uses the board's own network, clock and random source. */
  | 'board'

export interface ApplicationConfig {
  readonly name: string
  readonly kind: ApplicationKind
  /** Absolute path of the module. */
  readonly program: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** Heap that a Node program may use; undefined: the machine's default. */
  readonly heapBytes: number | undefined
  /** Who speaks first on which port, for listeners that do not say so themselves. */
  readonly firstSpeakers: readonly (readonly [port: number, speaker: FirstSpeaker])[]
}

/** What a main board says of itself in place of what it measures. */
export interface PinnedState {
  readonly cpuPermille?: number
  readonly memoryAvailableKib?: number
  readonly memoryTotalKib?: number
  readonly bandwidthAvailableKbit?: number
  readonly bandwidthTotalKbit?: number
  readonly connections?: number
}

export interface ServerConfig {
  readonly name: string
  /** Folder of a firmware project, or an image file; undefined: ipOS. */
  readonly firmware: string | undefined
  readonly memoryBytes: number
  readonly flashBytes: number
  /** Absolute path of the public key that images must be signed by; without one SHA-256 is enough. */
  readonly key?: string
  /** Undefined: Wasmtime where the addon is there, else V8. */
  readonly cpu: CpuKind | undefined
  readonly interfaces: readonly InterfaceConfig[]
  readonly applications: readonly ApplicationConfig[]
  /** Settings of the firmware; those of the interfaces come from `interfaces`, its peers from the farm. */
  readonly settings: Omit<BootSettings, 'interfaces' | 'peers' | 'serverIndex'>
  readonly pinnedState?: PinnedState
}

/** A port of this machine that leads to a port of a server. */
export interface PublishConfig {
  /** Address of this machine that is listened on. */
  readonly host: string
  /** 0 takes any free one. */
  readonly port: number
  /** A server's name, or one of its addresses. */
  readonly server: string
  readonly serverPort: number
}

export interface FarmConfig {
  readonly name: string
  /** The file it was read from, or undefined for the default farm. */
  readonly file: string | undefined
  /** Undefined: one that repeats in virtual time, and one that nobody can guess in real time. */
  readonly seed: string | undefined
  readonly clock: 'real' | 'virtual'
  readonly networks: readonly NetworkConfig[]
  readonly routers: readonly RouterConfig[]
  readonly servers: readonly ServerConfig[]
  readonly publish: readonly PublishConfig[]
}

export const DEFAULT_MTU_BYTES = 1500

/** Who serves a new connection: PLACEMENT_* (abi/boot.ts) by their names in farm files. */
export const PLACEMENT_POLICIES = {
  'least-loaded': PLACEMENT_LEAST_LOADED,
  'local-first': PLACEMENT_LOCAL_FIRST,
  'round-robin': PLACEMENT_ROUND_ROBIN,
  'local-only': PLACEMENT_LOCAL_ONLY,
} as const
