/** What must hold between the settings of a farm file: names that are referred to exist, addresses fit their networks and each other. */
import { existsSync } from 'node:fs'
import { DEFAULT_MEMORY_BYTES, MINIMUM_MEMORY_BYTES } from '../../abi/memory.ts'
import { flashMap } from '../image/flash-map.ts'
import { broadcastAddress, formatIpv4, formatMac, type Ipv4Prefix, isHostAddress, sameNetwork } from './addresses.ts'
import type { ApplicationConfig, FarmConfig, InterfaceConfig, ServerConfig } from './farm-config.ts'
import { suggest } from './issues.ts'
import type { Path } from './reader.ts'
import { formatSize } from './units.ts'

/** Takes one fault: the setting it lies in, what is wrong, what to write instead. */
export type Report = (path: Path, message: string, hint?: string) => void

/** wasm memory is addressed with 32 bits; the last page stays out of reach of wrap-around. */
const MAXIMUM_MEMORY_BYTES = 0xffff0000
const WASM_PAGE_BYTES = 0x10000

/** Reports everything that does not fit together in `farm`, at the place in the file where it is written. */
export function checkFarm(farm: FarmConfig, report: Report): void {
  checkNames(farm.networks, 'networks', report)
  checkNames(farm.servers, 'servers', report)
  if (farm.servers.length === 0) report(['servers'], 'the farm has no server', 'describe at least one')
  checkPublishFrom(farm, report)
  const owners = new Map<string, string>()
  farm.servers.forEach((server, index) => {
    const at = ['servers', index]
    checkSizes(server, at, report)
    checkNames(server.applications, [...at, 'applications'], report)
    server.applications.forEach((application, position) => {
      checkApplication(application, [...at, 'applications', position], report)
    })
    checkInterfaces(farm, server, at, owners, report)
  })
  checkPublished(farm, report)
}

function checkNames(items: readonly { readonly name: string }[], within: string | Path, report: Report): void {
  const seen = new Set<string>()
  items.forEach(({ name }, index) => {
    const path = typeof within === 'string' ? [within] : within
    if (seen.has(name)) report([...path, index, 'name'], `a second '${name}'`, 'give each a name of its own')
    seen.add(name)
  })
}

function checkSizes(server: ServerConfig, at: Path, report: Report): void {
  const { memoryBytes, flashBytes } = server
  if (memoryBytes < MINIMUM_MEMORY_BYTES || memoryBytes > MAXIMUM_MEMORY_BYTES || memoryBytes % WASM_PAGE_BYTES !== 0) {
    const range = `${formatSize(MINIMUM_MEMORY_BYTES)} to under 4 GiB`
    report(
      [...at, 'memory'],
      `${formatSize(memoryBytes)} of INIC memory`,
      `choose ${range} in steps of 64 KiB, as in "${formatSize(DEFAULT_MEMORY_BYTES)}"`,
    )
  }
  try {
    flashMap(flashBytes)
  } catch {
    report(
      [...at, 'flash'],
      `${formatSize(flashBytes)} of flash`,
      'choose 256 KiB to 64 MiB in steps of 64 KiB, as in "4MiB"',
    )
  }
}

function checkPublishFrom(farm: FarmConfig, report: Report): void {
  farm.networks.forEach(({ name, publishFrom }, index) => {
    if (publishFrom === undefined) return
    const path = ['networks', index, 'publishFrom']
    const prefixes = farm.servers.flatMap((server) =>
      server.interfaces.flatMap(({ network, address }) => (network === name && address ? [address] : [])),
    )
    const shown = formatIpv4(publishFrom)
    if (prefixes.some(({ address }) => address === publishFrom)) {
      report(path, `${shown} is a server's address`, 'choose one that nobody has')
    } else if (
      !prefixes.some((prefix) => sameNetwork(prefix, publishFrom) && isHostAddress({ ...prefix, address: publishFrom }))
    ) {
      report(path, `${shown} is no host's address on '${name}'`, prefixes[0] && describeRange(prefixes[0]))
    }
  })
}

function checkApplication({ program, firstSpeakers }: ApplicationConfig, at: Path, report: Report): void {
  if (!existsSync(program)) report([...at, 'program'], `there is no file ${program}`)
  for (const [port] of firstSpeakers) {
    if (Number.isInteger(port) && port >= 1 && port <= 65535) continue
    report([...at, 'firstSpeaker'], 'a key is no port', 'write ports from 1 to 65535, as in { "25": "server" }')
  }
}

/** `owners` says who has an address or MAC address already, over all servers; keys carry the network. */
function checkInterfaces(
  farm: FarmConfig,
  server: ServerConfig,
  at: Path,
  owners: Map<string, string>,
  report: Report,
): void {
  if (server.interfaces.length === 0)
    report([...at, 'interfaces'], `'${server.name}' is on no network`, 'list at least one interface')
  const ports = new Set<number>()
  server.interfaces.forEach((item, index) => {
    const path = [...at, 'interfaces', index]
    if (ports.has(item.port))
      report(path, `MAC port ${item.port} is taken by another interface`, 'give each a port of its own, 0 to 2')
    ports.add(item.port)
    const network = farm.networks.find((candidate) => candidate.name === item.network)
    if (network === undefined) {
      const known = farm.networks.map((candidate) => candidate.name)
      const hint =
        suggest(item.network, known) ??
        (known.length > 0 ? `there are: ${known.join(', ')}` : 'describe it under "networks"')
      report([...path, 'network'], `there is no network '${item.network}'`, hint)
    } else if (network.kind === 'lan' && item.address === undefined) {
      report(
        path,
        "'address' is missing",
        'an interface on a LAN has one, as in "192.0.2.1/24"; only the hub needs none',
      )
    }
    checkAddress(item, path, report)
    claim(
      owners,
      item.address && `${item.network} ${formatIpv4(item.address.address)}`,
      server.name,
      [...path, 'address'],
      report,
    )
    claim(owners, item.mac && `${item.network} ${formatMac(item.mac)}`, server.name, [...path, 'mac'], report)
    if (item.mac && item.mac[0] & 1) {
      report(
        [...path, 'mac'],
        `${formatMac(item.mac)} is a group address`,
        'the first byte of a host is even, as in "02:00:00:00:00:01"',
      )
    }
  })
}

function checkAddress({ address, gateway }: InterfaceConfig, path: Path, report: Report): void {
  if (address === undefined) {
    if (gateway !== undefined)
      report([...path, 'gateway'], 'a gateway without an address', 'give the interface an address on its network')
    return
  }
  if (!isHostAddress(address)) {
    report(
      [...path, 'address'],
      `${formatPrefix(address)} is no address that a host may have`,
      `${describeRange(address)}`,
    )
  }
  if (gateway !== undefined && !sameNetwork(address, gateway)) {
    report(
      [...path, 'gateway'],
      `${formatIpv4(gateway)} is not on the network of ${formatPrefix(address)}`,
      describeRange(address),
    )
  }
  if (gateway === address.address)
    report([...path, 'gateway'], "the gateway has the interface's own address", "write the router's")
}

function claim(owners: Map<string, string>, key: string | undefined, owner: string, path: Path, report: Report): void {
  if (key === undefined) return
  const other = owners.get(key)
  if (other !== undefined)
    report(path, `'${other}' on the same network has this address too`, 'give each interface its own')
  else owners.set(key, owner)
}

function checkPublished(farm: FarmConfig, report: Report): void {
  const taken = new Set<string>()
  farm.publish.forEach((item, index) => {
    const path = ['publish', index]
    const server = farm.servers.find((candidate) => candidate.name === item.server)
    if (server === undefined) {
      const known = farm.servers.map((candidate) => candidate.name)
      report(
        path,
        `there is no server '${item.server}'`,
        suggest(item.server, known) ?? `there are: ${known.join(', ')}`,
      )
    } else if (!server.interfaces.some((candidate) => candidate.address !== undefined)) {
      report(path, `'${item.server}' has no address that a client could reach`, 'give it an interface on a LAN')
    }
    const local = `${item.host}:${item.port}`
    if (item.port !== 0 && taken.has(local)) report(path, `port ${local} is published twice`, 'choose another port')
    taken.add(local)
  })
}

function formatPrefix(prefix: Ipv4Prefix): string {
  return `${formatIpv4(prefix.address)}/${prefix.prefix}`
}

function describeRange(prefix: Ipv4Prefix): string {
  const last = broadcastAddress(prefix)
  const first = (last & (prefix.prefix === 0 ? 0 : 0xffffffff << (32 - prefix.prefix))) >>> 0
  return prefix.prefix >= 31 ? 'choose another' : `hosts of it are ${formatIpv4(first + 1)} to ${formatIpv4(last - 1)}`
}
