/** What must hold between networks, routers and the synchronization hub, so that packets find their way. */
import { MAXIMUM_PEERS } from '../../abi/boot.ts'
import { IPOS_HEADER_BYTES } from '../../abi/ipos.ts'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { formatIpv4, isHostAddress, networkAddress, sameNetwork } from './addresses.ts'
import type { FarmConfig, InterfaceConfig, NetworkConfig, RouterConfig, ServerConfig } from './farm-config.ts'
import type { Path } from './reader.ts'
import { type Claims, checkNames, describeRange, findNetwork, formatPrefix, type Report } from './report.ts'
import { findPublishTarget, findReturnProblem, formatNetwork } from './routing.ts'

const MAXIMUM_MTU = MAC_MAXIMUM_FRAME - MAC_MINIMUM_FRAME
/** Servers that know each other on one hub. */
const MAXIMUM_SERVERS = MAXIMUM_PEERS + 1

/** Reports routers and hubs that cannot be meant. */
export function checkTopology(farm: FarmConfig, claims: Claims, report: Report): void {
  checkNames(farm.routers, ['routers'], report)
  farm.routers.forEach((router, index) => {
    const path = ['routers', index]
    if (farm.servers.some(({ name }) => name === router.name))
      report([...path, 'name'], `a server is called '${router.name}' too`, 'give the router a name of its own')
    checkPorts(farm, router, path, claims, report)
    checkRoutes(router, path, report)
  })
  farm.servers.forEach((server, index) => {
    server.interfaces.forEach((item, position) => {
      const path = ['servers', index, 'interfaces', position]
      checkPrefix(farm, item, path, report)
      checkReply(farm, server, item, path, report)
    })
  })
  farm.networks.forEach((network, index) => {
    if (network.kind === 'hub') checkHub(farm, network, ['networks', index], report)
  })
}

/** Reports published ports that lead nowhere, or whose answers do not come back. For a farm with nothing else wrong. */
export function checkWays(farm: FarmConfig, report: Report): void {
  farm.publish.forEach((item, index) => {
    const target = findPublishTarget(farm, item)
    const problem = 'message' in target ? target : findReturnProblem(farm, target)
    if (problem !== undefined) report(['publish', index], problem.message, problem.hint)
  })
}

function checkPorts(farm: FarmConfig, router: RouterConfig, at: Path, claims: Claims, report: Report): void {
  if (router.interfaces.length === 0)
    report([...at, 'interfaces'], `'${router.name}' is on no network`, 'list at least two interfaces')
  router.interfaces.forEach(({ network: name, address, mac }, index) => {
    const path = [...at, 'interfaces', index]
    const network = findNetwork(farm, name, [...path, 'network'], report)
    if (network?.kind === 'hub')
      report(
        [...path, 'network'],
        `'${name}' is a synchronization hub`,
        'it joins INIC to INIC and nothing else: choose a LAN',
      )
    if (!isHostAddress(address)) {
      const message = `${formatPrefix(address)} is no address that a router may have`
      report([...path, 'address'], message, describeRange(address))
    }
    const same = router.interfaces
      .slice(0, index)
      .find((other) => sameNetwork(other.address, address.address) || sameNetwork(address, other.address.address))
    if (same !== undefined)
      report(
        [...path, 'address'],
        `${formatNetwork(address)} is also behind the port on '${same.network}'`,
        'each port of a router has a network of its own',
      )
    const here = farm.routers
      .flatMap(({ name: other, interfaces }) => interfaces.map((item) => ({ other, item })))
      .find(({ other, item }) => other !== router.name && item.network === name && !sharesNetwork(item, address))
    if (here !== undefined && farm.routers.findIndex(({ name: first }) => first === here.other) < Number(at[1]))
      report(
        [...path, 'address'],
        `${formatPrefix(address)} is not on the network that '${here.other}' has on '${name}', ${formatNetwork(here.item.address)}`,
        describeRange(here.item.address),
      )
    claims.address(name, address.address, router.name, [...path, 'address'])
    claims.mac(name, mac, router.name, [...path, 'mac'])
  })
}

function sharesNetwork(
  { address }: { readonly address: InterfaceConfig['address'] },
  other: { address: number; prefix: number },
): boolean {
  return address !== undefined && address.prefix === other.prefix && networkAddress(address) === networkAddress(other)
}

function checkRoutes({ interfaces, routes }: RouterConfig, at: Path, report: Report): void {
  const seen = new Set<string>()
  routes.forEach(({ to, via }, index) => {
    const path = [...at, 'routes', index]
    if (to.address !== networkAddress(to))
      report([...path, 'to'], `${formatPrefix(to)} names a host, not a network`, `write "${formatNetwork(to)}"`)
    if (seen.has(formatNetwork(to))) report([...path, 'to'], 'a second route to this network', 'keep one of them')
    seen.add(formatNetwork(to))
    const port = interfaces.find(({ address }) => sameNetwork(address, via))
    if (port === undefined) {
      const known = interfaces.map(({ address }) => formatNetwork(address)).join(', ')
      report([...path, 'via'], `${formatIpv4(via)} is on no network of this router`, `its networks are ${known}`)
    } else if (port.address.address === via) {
      report([...path, 'via'], `${formatIpv4(via)} is this router itself`, 'name the next one')
    } else if (!isHostAddress({ address: via, prefix: port.address.prefix })) {
      report([...path, 'via'], `${formatIpv4(via)} is no host's address`, describeRange(port.address))
    }
  })
}

/** An address on a network with routers is on their network: otherwise no router would know it. */
function checkPrefix(farm: FarmConfig, { network, address }: InterfaceConfig, at: Path, report: Report): void {
  if (address === undefined || !isHostAddress(address)) return
  const router = farm.routers.find(({ interfaces }) => interfaces.some((item) => item.network === network))
  const there = router?.interfaces.find((item) => item.network === network)
  if (router === undefined || there === undefined || sharesNetwork(there, address)) return
  report(
    [...at, 'address'],
    `${formatPrefix(address)} is not on the network that '${router.name}' has on '${network}', ${formatNetwork(there.address)}`,
    describeRange(there.address),
  )
}

function checkReply(
  farm: FarmConfig,
  { interfaces }: ServerConfig,
  { reply, address }: InterfaceConfig,
  at: Path,
  report: Report,
): void {
  if (reply === undefined) return
  const path = [...at, 'reply']
  const way = interfaces.find(({ port }) => port === reply)
  if (way === undefined) return
  const kind = farm.networks.find(({ name }) => name === way.network)?.kind
  if (address === undefined) report(path, 'replies of an interface without an address', 'give the interface an address')
  else if (kind === 'hub')
    report(path, `'${way.network}' is a synchronization hub`, 'replies to clients leave by a LAN')
  else if (way.gateway === undefined)
    report(
      path,
      `the interface on '${way.network}' has no gateway, so replies would not get beyond it`,
      `put a router on '${way.network}', or give that interface a "gateway"`,
    )
}

function checkHub(farm: FarmConfig, hub: NetworkConfig, at: Path, report: Report): void {
  const members = farm.servers
    .map((server, index) => ({ server, index }))
    .filter(({ server }) => server.interfaces.some(({ network }) => network === hub.name))
  if (members.length > MAXIMUM_SERVERS)
    report(
      [...at, 'name'],
      `${members.length} servers are on '${hub.name}', and ${MAXIMUM_SERVERS} can know each other`,
      'use several hubs',
    )
  const lans = farm.networks.filter(
    ({ kind, name }) =>
      kind !== 'hub' && members.some(({ server }) => server.interfaces.some(({ network }) => network === name)),
  )
  const largest = lans.reduce((best, lan) => (best && best.mtuBytes >= lan.mtuBytes ? best : lan), lans[0])
  const wanted = (largest?.mtuBytes ?? 0) + IPOS_HEADER_BYTES
  if (largest !== undefined && hub.mtuBytes < wanted)
    report(
      [...at, 'mtu'],
      `${hub.mtuBytes} bytes do not hold a packet of '${largest.name}' (${largest.mtuBytes}) behind an ipOS header (${IPOS_HEADER_BYTES})`,
      wanted <= MAXIMUM_MTU
        ? `write at least ${wanted}, or leave it out`
        : `give '${largest.name}' an "mtu" of ${MAXIMUM_MTU - IPOS_HEADER_BYTES} at most`,
    )
  members.forEach(({ server, index }, position) => {
    const stranger = members.slice(0, position).find(({ server: other }) => !shareLan(farm, server, other))
    if (stranger !== undefined)
      report(
        ['servers', index, 'interfaces'],
        `'${server.name}' and '${stranger.server.name}' are on '${hub.name}' and share no LAN`,
        'servers know each other by their addresses on a LAN: put both on one',
      )
  })
}

function shareLan(farm: FarmConfig, a: ServerConfig, b: ServerConfig): boolean {
  const lans = ({ interfaces }: ServerConfig) =>
    interfaces.filter(({ address }) => address !== undefined).map(({ network }) => network)
  return lans(a).some(
    (network) => lans(b).includes(network) && farm.networks.find(({ name }) => name === network)?.kind !== 'hub',
  )
}
