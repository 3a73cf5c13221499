/** What must hold between the settings of a farm file: names that are referred to exist, addresses fit their networks and each other. */
import { existsSync, statSync } from 'node:fs'
import { DEFAULT_LEASE_MS } from '../../abi/boot.ts'
import { DEFAULT_MEMORY_BYTES, MINIMUM_MEMORY_BYTES } from '../../abi/memory.ts'
import { flashMap } from '../image/flash-map.ts'
import { isProject } from '../project.ts'
import { formatIpv4, isHostAddress, sameNetwork } from './addresses.ts'
import type { ApplicationConfig, FarmConfig, InterfaceConfig, ServerConfig } from './farm-config.ts'
import { suggest } from './issues.ts'
import type { Path } from './reader.ts'
import { Claims, checkNames, describeRange, findNetwork, formatPrefix, type Report } from './report.ts'
import { publishedServer } from './routing.ts'
import { checkTopology, checkWays } from './topology-checks.ts'
import { formatSize } from './units.ts'

/** wasm memory is addressed with 32 bits; the last page stays out of reach of wrap-around. */
const MAXIMUM_MEMORY_BYTES = 0xffff0000
const WASM_PAGE_BYTES = 0x10000

/**
 * Reports everything that does not fit together in `farm`, at the place in the file where it is written.
 *
 * @param namesFound false if some names were reported already, and what they stand for is missing in `farm`
 */
export function checkFarm(farm: FarmConfig, reportIssue: Report, namesFound = true): void {
  let issues = namesFound ? 0 : 1
  const report: Report = (...issue) => {
    issues++
    reportIssue(...issue)
  }
  const claims = new Claims(report)
  checkNames(farm.networks, ['networks'], report)
  checkNames(farm.servers, ['servers'], report)
  if (farm.servers.length === 0) report(['servers'], 'the farm has no server', 'describe at least one')
  checkPublishFrom(farm, report)
  farm.servers.forEach((server, index) => {
    const at = ['servers', index]
    checkSizes(server, at, report)
    checkFirmware(server, [...at, 'firmware'], report)
    checkNames(server.applications, [...at, 'applications'], report)
    server.applications.forEach((application, position) => {
      checkApplication(application, [...at, 'applications', position], report)
    })
    checkInterfaces(farm, server, at, claims, report)
    checkState(server, [...at, 'state'], report)
    checkLease(server, [...at, 'settings'], report)
  })
  checkSameLease(farm, report)
  checkTopology(farm, claims, report)
  checkPublished(farm, report)
  // What is wrong with a network makes every way through it wrong.
  if (issues === 0) checkWays(farm, report)
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

function checkFirmware({ firmware }: ServerConfig, at: Path, report: Report): void {
  if (firmware === undefined || isProject(firmware)) return
  const found = statSync(firmware, { throwIfNoEntry: false })
  if (found === undefined) report(at, `there is no file or folder ${firmware}`, 'make a project with: inic new NAME')
  else if (found.isDirectory())
    report(at, `${firmware} is no firmware project: there is no asconfig.json in it`, 'make one with: inic new NAME')
}

function checkPublishFrom(farm: FarmConfig, report: Report): void {
  farm.networks.forEach(({ name, publishFrom }, index) => {
    if (publishFrom === undefined) return
    const path = ['networks', index, 'publishFrom']
    const prefixes = [...farm.servers, ...farm.routers].flatMap(({ interfaces }) =>
      interfaces.flatMap(({ network, address }) => (network === name && address ? [address] : [])),
    )
    const shown = formatIpv4(publishFrom)
    if (prefixes.some(({ address }) => address === publishFrom)) {
      report(path, `${shown} is the address of a server or router`, 'choose one that nobody has')
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

function checkInterfaces(farm: FarmConfig, server: ServerConfig, at: Path, claims: Claims, report: Report): void {
  if (server.interfaces.length === 0)
    report([...at, 'interfaces'], `'${server.name}' is on no network`, 'list at least one interface')
  const ports = new Set<number>()
  let hub: string | undefined
  server.interfaces.forEach((item, index) => {
    const path = [...at, 'interfaces', index]
    if (ports.has(item.port))
      report(path, `MAC port ${item.port} is taken by another interface`, 'give each a port of its own, 0 to 2')
    ports.add(item.port)
    const network = findNetwork(farm, item.network, [...path, 'network'], report)
    if (network?.kind === 'hub' && hub !== undefined)
      report([...path, 'network'], `'${server.name}' is on the hub '${hub}' too`, 'a server has one interface on a hub')
    if (network?.kind === 'hub') hub ??= item.network
    else if (network !== undefined && item.address === undefined && server.firmware === undefined) {
      report(
        path,
        "'address' is missing",
        'an interface on a LAN has one, as in "192.0.2.1/24"; only the hub and firmware of your own need none',
      )
    }
    checkAddress(item, path, report)
    claims.address(item.network, item.address?.address, server.name, [...path, 'address'])
    claims.mac(item.network, item.mac, server.name, [...path, 'mac'])
  })
}

/** What is free is a part of what is there. */
function checkState({ pinnedState }: ServerConfig, at: Path, report: Report): void {
  for (const [what, available, total] of [
    ['memory', pinnedState?.memoryAvailableKib, pinnedState?.memoryTotalKib],
    ['bandwidth', pinnedState?.bandwidthAvailableKbit, pinnedState?.bandwidthTotalKbit],
  ] as const) {
    if (available === undefined || total === undefined || available <= total) continue
    report([...at, `${what}Available`], `more ${what} is free than there is`, `write at most what "${what}Total" says`)
  }
}

function checkLease({ settings }: ServerConfig, at: Path, report: Report): void {
  const { leaseMs, stateIntervalMs } = settings
  if (leaseMs === undefined || stateIntervalMs === undefined || leaseMs > stateIntervalMs) return
  report([...at, 'lease'], 'the lease ends before the next state message comes', 'make it several "stateInterval" long')
}

/** Servers of one hub whose leases differ do not work together: two of them could speak to one client (docs/protocol.md). */
function checkSameLease({ networks, servers }: FarmConfig, report: Report): void {
  const hubs = new Set(networks.flatMap(({ name, kind }) => (kind === 'hub' ? [name] : [])))
  const firsts = new Map<string, ServerConfig>()
  const leaseOf = ({ settings }: ServerConfig) => settings.leaseMs ?? DEFAULT_LEASE_MS
  servers.forEach((server, index) => {
    const hub = server.interfaces.find(({ network }) => hubs.has(network))?.network
    if (hub === undefined) return
    const first = firsts.get(hub) ?? server
    firsts.set(hub, first)
    const [own, other] = [leaseOf(server), leaseOf(first)]
    if (own === other) return
    const at = server.settings.leaseMs === undefined ? ['servers', index] : ['servers', index, 'settings', 'lease']
    report(
      at,
      `a lease of ${own} ms, and ${other} ms at '${first.name}'`,
      `write "lease": "${other}ms" at every server`,
    )
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

function checkPublished(farm: FarmConfig, report: Report): void {
  const taken = new Set<string>()
  farm.publish.forEach((item, index) => {
    const path = ['publish', index]
    const server = publishedServer(farm, item)
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
