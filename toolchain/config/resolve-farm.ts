/** Makes a farm of a farm file: fills in defaults, resolves names, counts in base units. */
import { basename, dirname, resolve } from 'node:path'
import {
  BOOT_FLAG_ALWAYS_COOKIES,
  BOOT_FLAG_NO_SACK,
  BOOT_FLAG_NO_TIMESTAMPS,
  BOOT_FLAG_NO_WINDOW_SCALE,
  CONGESTION_CUBIC,
  CONGESTION_NEWRENO,
} from '../../abi/boot.ts'
import { IPOS_HEADER_BYTES } from '../../abi/ipos.ts'
import { DEFAULT_MEMORY_BYTES } from '../../abi/memory.ts'
import { MAC_PORTS } from '../../abi/registers.ts'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import { DEFAULT_FLASH_BYTES } from '../image/flash-map.ts'
import { sameNetwork } from './addresses.ts'
import {
  type ApplicationConfig,
  DEFAULT_MTU_BYTES,
  type FarmConfig,
  type NetworkConfig,
  type PinnedState,
  PLACEMENT_POLICIES,
  type RouterConfig,
  type ServerConfig,
} from './farm-config.ts'
import type { FarmFile } from './farm-file.ts'
import { suggest } from './issues.ts'
import type { Path } from './reader.ts'
import type { Report } from './report.ts'

/** Said of a gateway on an interface that has no address of its own. */
export const NO_ADDRESS = {
  message: 'a gateway without an address',
  hint: 'give the interface an address on its network',
}

type NetworkFile = FarmFile['networks'][number]
type ServerFile = FarmFile['servers'][number]
type InterfaceFile = ServerFile['interfaces'][number]
type ApplicationFile = NonNullable<ServerFile['applications']>[number]
type RouterFile = NonNullable<FarmFile['routers']>[number]
type PlacementFile = NonNullable<FarmFile['placement']>

/** @param report takes the names that nothing has */
export function resolveFarm(raw: FarmFile, path: string, report: Report): FarmConfig {
  const file = resolve(path)
  const networks = raw.networks.map((network) => resolveNetwork(network, raw))
  const routerFiles = raw.routers ?? []
  const routers = routerFiles.map((router, index) => resolveRouter(router, routerFiles, ['routers', index], report))
  const servers = raw.servers.map((server, index) => {
    const placement = mergePlacement(raw.placement, server.placement)
    return resolveServer(server, networks, routers, placement, dirname(file), ['servers', index], report)
  })
  return {
    name: raw.name ?? nameFromFile(file),
    file,
    seed: raw.seed,
    clock: raw.clock ?? 'real',
    networks,
    routers,
    servers,
    publish: raw.publish ?? [],
  }
}

function resolveNetwork(raw: NetworkFile, farm: FarmFile): NetworkConfig {
  const link = raw.link ?? {}
  const wire = {
    delayNs: link.delay,
    jitterNs: link.jitter,
    rateBps: link.rate,
    loss: link.loss,
    duplication: link.duplication,
    reordering: link.reordering,
    reorderNs: link.reorderBy,
    corruption: link.corruption,
    queueFrames: link.queue,
  } satisfies { [K in keyof WireOptions]-?: WireOptions[K] | undefined }
  return {
    name: raw.name,
    kind: raw.kind ?? 'lan',
    mtuBytes: raw.mtu ?? (raw.kind === 'hub' ? hubMtu(raw.name, farm) : DEFAULT_MTU_BYTES),
    wire: present(wire),
    taps: raw.taps ?? [],
    publishFrom: raw.publishFrom,
    streams: raw.streams ?? [],
  }
}

/** A hub carries whole IP packets of its servers' LANs behind an ipOS header. */
function hubMtu(hub: string, { networks, servers }: FarmFile): number {
  const lans = servers
    .filter(({ interfaces }) => interfaces.some(({ network }) => network === hub))
    .flatMap(({ interfaces }) => interfaces.map(({ network }) => networks.find(({ name }) => name === network)))
    .filter((network) => network !== undefined && network.kind !== 'hub')
  const largest = Math.max(DEFAULT_MTU_BYTES, ...lans.map((network) => network?.mtu ?? DEFAULT_MTU_BYTES))
  return Math.min(largest + IPOS_HEADER_BYTES, MAC_MAXIMUM_FRAME - MAC_MINIMUM_FRAME)
}

function resolveRouter(raw: RouterFile, routers: readonly RouterFile[], at: Path, report: Report): RouterConfig {
  const routes = (raw.routes ?? []).flatMap(({ to, via }, index) => {
    if (typeof via === 'number') return [{ to, via }]
    const address = neighborNamed(raw, via, routers, [...at, 'routes', index, 'via'], report)
    return address === undefined ? [] : [{ to, via: address }]
  })
  return {
    name: raw.name,
    isp: raw.isp,
    interfaces: raw.interfaces.map(({ network, address, mac }) => ({ network, address, mac })),
    routes,
    delayNs: raw.delay ?? 0,
  }
}

/** The address of the router called `name` on a network that `of` is on too. */
function neighborNamed(
  of: RouterFile,
  name: string,
  routers: readonly RouterFile[],
  at: Path,
  report: Report,
): number | undefined {
  const other = routers.find((candidate) => candidate.name === name)
  if (other === undefined || other === of) {
    const known = routers.filter((router) => router !== of).map((router) => router.name)
    report(at, `there is no other router '${name}'`, suggest(name, known) ?? listKnown(known))
    return undefined
  }
  const shared = other.interfaces.find(({ network, address }) =>
    of.interfaces.some((own) => own.network === network && sameNetwork(own.address, address.address)),
  )
  if (shared === undefined)
    report(at, `'${of.name}' and '${name}' share no network`, 'name a router that is on a network of this one')
  return shared?.address.address
}

function resolveServer(
  raw: ServerFile,
  networks: readonly NetworkConfig[],
  routers: readonly RouterConfig[],
  placement: PlacementFile,
  directory: string,
  at: Path,
  report: Report,
): ServerConfig {
  const cpu = raw.cpu ?? 'auto'
  const ports = portsOf(raw.interfaces, networks)
  return {
    name: raw.name,
    firmware: raw.firmware === undefined ? undefined : resolve(directory, raw.firmware),
    memoryBytes: raw.memory ?? DEFAULT_MEMORY_BYTES,
    flashBytes: raw.flash ?? DEFAULT_FLASH_BYTES,
    ...(raw.key !== undefined && { key: resolve(directory, raw.key) }),
    cpu: cpu === 'auto' ? undefined : cpu,
    interfaces: raw.interfaces.map((item, index) => {
      const path = [...at, 'interfaces', index]
      return {
        port: ports[index],
        network: item.network,
        address: item.address,
        gateway: resolveGateway(item, routers, path, report),
        reply: resolveReply(raw, item, ports, [...path, 'reply'], report),
        mac: item.mac,
      }
    }),
    applications: (raw.applications ?? []).map((item) => resolveApplication(item, directory)),
    settings: { ...resolveSettings(raw.settings ?? {}), ...resolvePlacement(placement) },
    ...(raw.state && { pinnedState: resolveState(raw.state) }),
  }
}

/** The last port is the hub's on every board, so that a second LAN may be added without moving it; the others follow the list. */
function portsOf(interfaces: readonly InterfaceFile[], networks: readonly NetworkConfig[]): number[] {
  let lans = 0
  return interfaces.map(({ network: name, port }) => {
    if (networks.find((network) => network.name === name)?.kind === 'hub') return port ?? MAC_PORTS - 1
    const place = lans++
    return port ?? place
  })
}

/** A router's address on the interface's network: of the one that is named, or of the only one there. */
function resolveGateway(
  { network, address, gateway }: InterfaceFile,
  routers: readonly RouterConfig[],
  at: Path,
  report: Report,
): number | undefined {
  if (typeof gateway === 'number') return gateway
  if (address === undefined) {
    if (gateway !== undefined) report([...at, 'gateway'], NO_ADDRESS.message, NO_ADDRESS.hint)
    return undefined
  }
  const here = routers.flatMap(({ name, interfaces }) =>
    interfaces.filter((item) => item.network === network).map((item) => ({ name, address: item.address.address })),
  )
  const names = here.map(({ name }) => name)
  if (gateway !== undefined) {
    const named = here.find(({ name }) => name === gateway)
    if (named === undefined) {
      const hint = names.length > 0 ? listKnown(names) : `give it an interface on '${network}', or name its address`
      report([...at, 'gateway'], `there is no router '${gateway}' on '${network}'`, hint)
    }
    return named?.address
  }
  const reachable = here.filter((router) => sameNetwork(address, router.address) && router.address !== address.address)
  if (reachable.length > 1) {
    const [first, ...others] = reachable.map(({ name }) => `"${name}"`)
    report(at, `'${network}' has several routers`, `choose one: "gateway": ${first}, or ${others.join(', ')}`)
  }
  return reachable[0]?.address
}

/** The MAC port of the interface by which replies leave. */
function resolveReply(
  { name, interfaces }: ServerFile,
  { network, reply }: InterfaceFile,
  ports: readonly number[],
  at: Path,
  report: Report,
): number | undefined {
  if (reply === undefined || reply === network) return undefined
  const index = interfaces.findIndex((item) => item.network === reply)
  if (index >= 0) return ports[index]
  const known = interfaces.map((item) => item.network)
  report(at, `'${name}' has no interface on '${reply}'`, suggest(reply, known) ?? listKnown(known))
  return undefined
}

function listKnown(names: readonly string[]): string {
  return names.length > 0 ? `there are: ${names.join(', ')}` : 'describe it first'
}

function resolveApplication(raw: ApplicationFile, directory: string): ApplicationConfig {
  return {
    name: raw.name,
    kind: raw.kind ?? 'node',
    program: resolve(directory, raw.program),
    args: raw.args ?? [],
    env: raw.env ?? {},
    heapBytes: raw.heap,
    firstSpeakers: Object.entries(raw.firstSpeaker ?? {}).map(([port, speaker]) => [Number(port), speaker]),
  }
}

function resolveSettings(raw: NonNullable<ServerFile['settings']>): ServerConfig['settings'] {
  const congestion = { newreno: CONGESTION_NEWRENO, cubic: CONGESTION_CUBIC }
  const flags =
    (raw.timestamps === false ? BOOT_FLAG_NO_TIMESTAMPS : 0) |
    (raw.selectiveAcknowledgement === false ? BOOT_FLAG_NO_SACK : 0) |
    (raw.windowScale === false ? BOOT_FLAG_NO_WINDOW_SCALE : 0) |
    (raw.alwaysCookies === true ? BOOT_FLAG_ALWAYS_COOKIES : 0)
  return present({
    maximumConnections: raw.maximumConnections,
    synBacklog: raw.synBacklog,
    placeAfterMs: raw.placeAfter,
    mslMs: raw.maximumSegmentLifetime,
    rtoMinimumMs: raw.minimumRetransmission,
    receiveCreditBytes: raw.receiveCredit,
    sendCreditBytes: raw.sendCredit,
    congestionControl: raw.congestionControl && congestion[raw.congestionControl],
    iposEthertype: raw.iposEthertype,
    flags: flags === 0 ? undefined : flags,
    userTimeoutMs: raw.userTimeout,
    unattachedTimeoutMs: raw.unattachedTimeout,
    stateIntervalMs: raw.stateInterval,
    leaseMs: raw.lease,
    forwardEntries: raw.forwardEntries,
  })
}

/** What a server says of its placement, over what the farm says. */
function mergePlacement(farm: PlacementFile = {}, server: PlacementFile = {}): PlacementFile {
  return { ...farm, ...server, weights: { ...farm.weights, ...server.weights } }
}

function resolvePlacement({ policy, weights = {}, localLimit, loadLimit }: PlacementFile): ServerConfig['settings'] {
  return present({
    placement: policy && PLACEMENT_POLICIES[policy],
    weights: Object.keys(weights).length > 0 ? weights : undefined,
    localLimit,
    loadLimit,
  })
}

function resolveState(raw: NonNullable<ServerFile['state']>): PinnedState {
  const scaled = (value: number | undefined, unit: number) =>
    value === undefined ? undefined : Math.floor(value / unit)
  return present({
    cpuPermille: raw.cpu,
    memoryAvailableKib: scaled(raw.memoryAvailable, 1024),
    memoryTotalKib: scaled(raw.memoryTotal, 1024),
    bandwidthAvailableKbit: scaled(raw.bandwidthAvailable, 1000),
    bandwidthTotalKbit: scaled(raw.bandwidthTotal, 1000),
    connections: raw.connections,
  })
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** The entries that have a value: an absent option and one that is undefined are not the same to those who read them. */
function present<T extends object>(values: T): Present<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Present<T>
}

/** `My Farm.json` as `my-farm`: a name that may be part of a path. */
function nameFromFile(file: string): string {
  const name = basename(file)
    .replace(/\.jsonc?$/i, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+|-+$/g, '')
  return name.slice(0, 31) || 'farm'
}
