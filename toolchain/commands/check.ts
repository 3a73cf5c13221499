import type { Command } from 'commander'
import { formatIpv4 } from '../config/addresses.ts'
import { formatHost } from '../config/endpoints.ts'
import { type FarmConfig, PLACEMENT_POLICIES, type ServerConfig } from '../config/farm-config.ts'
import { type Problem, problemsError, problemsOf } from '../config/issues.ts'
import { defaultFarmPath, readFarm } from '../config/load-farm.ts'
import { formatPrefix } from '../config/report.ts'
import { findPublishTarget, formatNetwork } from '../config/routing.ts'
import { CommandError, EXIT_USAGE } from '../errors.ts'
import { formatTable, paint, print, printJson } from '../terminal.ts'

interface CheckCommandOptions {
  readonly json?: boolean
}

export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .summary('check a farm file')
    .description('Reads a farm file, and shows what is wrong with it, or what is in it. Nothing is started.')
    .argument('[farm]', 'farm file; left out: the farm that inic run runs without one')
    .option('--json', 'the farm, or its faults, as JSON')
    .addHelpText(
      'after',
      `
Every fault is shown with file, line and column, and what to write instead. Settings are read first; whether they fit together is checked
once each can be meant by itself.

Examples:
  inic check examples/farm.json
  inic check my-farm.json --json | jq '.problems[].message'

Exit codes: 0 it is a farm · 2 it is none`,
    )
    .action(async (path: string | undefined, { json = false }: CheckCommandOptions) => {
      const { farm, issues, text, path: shownPath } = await readFarm(path ?? defaultFarmPath())
      if (farm === undefined) {
        const problems = problemsOf(shownPath, text, issues)
        if (!json) throw problemsError(problems)
        printJson({ ok: false, file: shownPath, problems: problems.map(describeProblem) })
        throw new CommandError(`${shownPath}: ${count(problems.length, 'fault')}`, { exitCode: EXIT_USAGE })
      }
      if (json) printJson({ ok: true, file: shownPath, farm: describeFarm(farm) })
      else showFarm(shownPath, describeFarm(farm))
    })
}

function describeProblem({ file, line, column, message, hint }: Problem): object {
  return { file, line, column, message, ...(hint !== undefined && { hint }) }
}

/** A farm as its file means it, with every default and every name filled in. */
function describeFarm(farm: FarmConfig) {
  const routerNamed = (network: string, address: number | undefined) =>
    farm.routers.find(({ interfaces }) =>
      interfaces.some((item) => item.network === network && item.address.address === address),
    )?.name
  const onHub = (name: string) => farm.networks.find((network) => network.name === name)?.kind === 'hub'
  return {
    name: farm.name,
    clock: farm.clock,
    networks: farm.networks.map(({ name, kind, mtuBytes, taps, streams }) => ({
      name,
      kind,
      mtu: mtuBytes,
      routers: membersOf(farm.routers, name),
      servers: membersOf(farm.servers, name),
      outside: [
        ...taps.map(({ interfaceName }) => `tap ${interfaceName}`),
        ...streams.map(({ role }) => `stream ${role}`),
      ],
    })),
    routers: farm.routers.map(({ name, isp, interfaces, routes }) => ({
      name,
      isp,
      interfaces: interfaces.map(({ network, address }) => ({ network, address: formatPrefix(address) })),
      routes: routes.map(({ to, via }) => ({ to: formatNetwork(to), via: formatIpv4(via) })),
    })),
    servers: farm.servers.map((server) => {
      const hub = server.interfaces.find(({ network }) => onHub(network))?.network
      return {
        name: server.name,
        interfaces: server.interfaces.map(({ port, network, address, gateway, reply }) => ({
          port,
          network,
          address: address && formatPrefix(address),
          gateway: gateway === undefined ? undefined : formatIpv4(gateway),
          router: routerNamed(network, gateway),
          reply: server.interfaces.find((item) => item.port === reply)?.network,
        })),
        peers: hub === undefined ? [] : membersOf(farm.servers, hub).filter((name) => name !== server.name),
        placement: hub === undefined ? undefined : policyOf(server),
        applications: server.applications.map(({ name }) => name),
      }
    }),
    published: farm.publish.map((item) => {
      const target = findPublishTarget(farm, item)
      if ('message' in target) throw new Error(target.message) // the farm was checked
      return {
        at: `${formatHost(item.host)}:${item.port}`,
        server: target.server.name,
        address: formatIpv4(target.address),
        port: item.serverPort,
        from: target.network,
        router: target.router?.name,
      }
    }),
  }
}

/** The name of a server's placement policy; the firmware's default is the first. */
function policyOf({ settings }: ServerConfig): string {
  const [[standard], ...others] = Object.entries(PLACEMENT_POLICIES)
  return others.find(([, policy]) => policy === settings.placement)?.[0] ?? standard
}

type Description = ReturnType<typeof describeFarm>

function showFarm(path: string, { name, clock, networks, routers, servers, published }: Description): void {
  const parts = [count(servers.length, 'server'), count(routers.length, 'router'), count(networks.length, 'network')]
  print(`${paint(process.stdout, 'green', 'ok')} ${path}: farm ${name}, ${parts.join(', ')}, ${clock} time`)
  showTable(
    ['network', 'kind', 'MTU', 'routers', 'servers', 'outside'],
    networks.map((item) => [
      ...[item.name, item.kind, String(item.mtu), item.routers.join(', ')],
      ...[item.servers.join(', '), item.outside.join(', ')],
    ]),
  )
  showTable(
    ['router', 'ISP', 'network', 'address', 'routes'],
    routers.flatMap((router) =>
      router.interfaces.map(({ network, address }, index) => [
        ...(index === 0 ? [router.name, router.isp ?? ''] : ['', '']),
        ...[network, address],
        index === 0 ? router.routes.map(({ to, via }) => `${to} via ${via}`).join(', ') : '',
      ]),
    ),
  )
  showTable(
    ['server', 'port', 'network', 'address', 'gateway', 'replies by', 'peers', 'placement', 'applications'],
    servers.flatMap((server) =>
      server.interfaces.map(({ port, network, address, gateway, router, reply }, index) => [
        ...[index === 0 ? server.name : '', String(port), network, address ?? ''],
        ...[router ?? gateway ?? '', reply ?? ''],
        ...(index === 0
          ? [server.peers.join(', '), server.placement ?? '', server.applications.join(', ')]
          : ['', '', '']),
      ]),
    ),
  )
  showTable(
    ['published', 'server', 'address', 'from', 'first router'],
    published.map((item) => [item.at, item.server, `${item.address}:${item.port}`, item.from, item.router ?? '']),
  )
}

/** A table with its empty columns left out; nothing if it has no rows. */
function showTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) return
  const used = header.map((_, column) => rows.some((row) => row[column] !== ''))
  const keep = (cells: readonly string[]) => cells.filter((_, column) => used[column])
  print('')
  for (const line of formatTable(keep(header), rows.map(keep))) print(line)
}

function membersOf(
  items: readonly { readonly name: string; readonly interfaces: readonly { readonly network: string }[] }[],
  network: string,
): string[] {
  return items.filter(({ interfaces }) => interfaces.some((item) => item.network === network)).map(({ name }) => name)
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}
