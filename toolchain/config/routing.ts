/** Ways through a farm, as its routers will find them: by what leads from the outside to a server, and back. */
import { broadcastAddress, formatIpv4, type Ipv4Prefix, networkAddress, parseIpv4, sameNetwork } from './addresses.ts'
import type {
  FarmConfig,
  InterfaceConfig,
  NetworkConfig,
  PublishConfig,
  RouterConfig,
  ServerConfig,
} from './farm-config.ts'

/** How a published port leads to its server. */
export interface PublishTarget {
  readonly server: ServerConfig
  /** The address of the server that is called, and the network it is on. */
  readonly address: number
  readonly serverNetwork: string
  /** The network that the call comes from. */
  readonly network: string
  /** The router that it goes by first; undefined where it comes from the server's own network. */
  readonly router: RouterConfig | undefined
}

/** Why a published port leads nowhere, and what to do. */
export interface Unreachable {
  readonly message: string
  readonly hint: string
}

/** The server that a published port names, by its name or by one of its addresses. */
export function publishedServer(farm: FarmConfig, { server: named }: PublishConfig): ServerConfig | undefined {
  const address = parseIpv4(named)
  if (address === undefined) return farm.servers.find(({ name }) => name === named)
  return farm.servers.find(({ interfaces }) => interfaces.some((item) => item.address?.address === address))
}

/**
 * The way from where published ports come in to the server: from outside, by a router, in a farm that has an outside network; from
 * the server's own network in one that has none.
 */
export function findPublishTarget(farm: FarmConfig, item: PublishConfig): PublishTarget | Unreachable {
  const server = publishedServer(farm, item)
  const named = parseIpv4(item.server)
  const candidates = (server?.interfaces ?? []).filter(
    ({ address }) => address !== undefined && (named === undefined || address.address === named),
  )
  const first = candidates[0]?.address
  if (server === undefined || first === undefined)
    return {
      message: `'${item.server}' has no address that a client could reach`,
      hint: 'give it an interface on a LAN',
    }
  const outside = farm.networks.filter(({ kind }) => kind === 'wan')
  const here = candidates.find(({ network }) => outside.length === 0 || outside.some(({ name }) => name === network))
  if (here?.address !== undefined)
    return {
      server,
      address: here.address.address,
      serverNetwork: here.network,
      network: here.network,
      router: undefined,
    }
  let problem: Unreachable = {
    message: `no router leads from ${outside.map(({ name }) => `'${name}'`).join(' or ')} to '${server.name}'`,
    hint: `describe one under "routers", with an interface there and one on '${candidates[0].network}'`,
  }
  for (const network of outside) {
    const router = entryRouter(farm, network)
    if (router === undefined) continue
    const ways = candidates
      .map(({ network: serverNetwork, address }) => ({
        serverNetwork,
        address: address!.address,
        way: trace(farm, router, address!.address),
      }))
      .filter(({ serverNetwork, way }) => way?.network === serverNetwork)
      .sort((a, b) => a.way!.hops - b.way!.hops)
    if (ways.length > 0) {
      const { address, serverNetwork } = ways[0]
      return { server, address, serverNetwork, network: network.name, router }
    }
    problem = noRoute(farm, router, candidates[0])
  }
  return problem
}

/** The router that the gateway board of an outside network sends to: the first on it that leads anywhere. */
export function entryRouter(farm: FarmConfig, network: NetworkConfig): RouterConfig | undefined {
  return farm.routers.find(
    ({ interfaces }) =>
      interfaces.some((item) => item.network === network.name) &&
      interfaces.some((item) => item.network !== network.name),
  )
}

/** Why what the server answers to a published port does not get back; undefined if it does. */
export function findReturnProblem(farm: FarmConfig, target: PublishTarget): Unreachable | undefined {
  const { server, address, network } = target
  if (target.router === undefined) return undefined
  const own = server.interfaces.find((item) => item.address?.address === address)!
  const leaving = server.interfaces.find(({ port }) => port === (own.reply ?? own.port))!
  const router = farm.routers.find(({ interfaces }) =>
    interfaces.some((item) => item.network === leaving.network && item.address.address === leaving.gateway),
  )
  const prefix = prefixOf(farm, network)!
  const someone = broadcastAddress(prefix) - 1
  if (router === undefined)
    return {
      message: `what '${server.name}' answers does not get back to '${network}': its interface on '${leaving.network}' has no router`,
      hint: `give that interface a "gateway" that leads to '${network}'`,
    }
  if (trace(farm, router, someone)?.network === network) return undefined
  return {
    message: `what '${server.name}' answers does not get back to '${network}': '${router.name}' has no way there`,
    hint: `give '${router.name}' a route: { "to": "${formatNetwork(prefix)}", "via": a router's name }`,
  }
}

/** The prefix that is used on a network, from the routers and servers on it. */
export function prefixOf(farm: FarmConfig, network: string): Ipv4Prefix | undefined {
  return [...farm.routers, ...farm.servers]
    .flatMap(({ interfaces }) => interfaces.filter((item) => item.network === network))
    .find(({ address }) => address !== undefined)?.address
}

/** Where a packet for `destination` ends that begins at `router`: the network, and how many routers it takes; undefined if it gets lost. */
export function trace(
  farm: FarmConfig,
  router: RouterConfig,
  destination: number,
): { readonly network: string; readonly hops: number } | undefined {
  let at: RouterConfig | undefined = router
  for (let hops = 1; at !== undefined && hops <= farm.routers.length; hops++) {
    const next = nextOf(at, destination)
    if (next === undefined) return undefined
    if (next.via === undefined) return { network: next.network, hops }
    at = farm.routers.find(({ interfaces }) =>
      interfaces.some(({ network, address }) => network === next.network && address.address === next.via),
    )
  }
  return undefined
}

/** A router's best way to `destination`: longest prefix, connected networks before static routes. */
function nextOf(
  { interfaces, routes }: RouterConfig,
  destination: number,
): { network: string; via: number | undefined } | undefined {
  let best: { network: string; via: number | undefined } | undefined
  let longest = -1
  for (const { network, address } of interfaces) {
    if (!sameNetwork(address, destination) || address.prefix <= longest) continue
    longest = address.prefix
    best = { network, via: undefined }
  }
  for (const { to, via } of routes) {
    const by = interfaces.find(({ address }) => sameNetwork(address, via))
    if (by === undefined || !sameNetwork(to, destination) || to.prefix <= longest) continue
    longest = to.prefix
    best = { network: by.network, via }
  }
  return best
}

function noRoute(farm: FarmConfig, router: RouterConfig, { network, address }: InterfaceConfig): Unreachable {
  const prefix = formatNetwork(address!)
  const behind = farm.routers.find(({ interfaces }) => interfaces.some((item) => item.network === network))
  return {
    message: `'${router.name}' has no way to '${network}'`,
    hint:
      behind === undefined
        ? `give a router an interface on '${network}'`
        : `give '${router.name}' a route: { "to": "${prefix}", "via": "${behind.name}" }`,
  }
}

/** `123.123.123.0/24`. */
export function formatNetwork(prefix: Ipv4Prefix): string {
  return `${formatIpv4(networkAddress(prefix))}/${prefix.prefix}`
}
