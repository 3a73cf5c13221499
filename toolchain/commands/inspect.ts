import { Argument, type Command, InvalidArgumentError } from 'commander'
import { type ControlClient, type FarmSelection, withFarm } from '../control/client.ts'
import { INSPECTIONS, type Inspection, MAXIMUM_READ_BYTES, type ServerTables } from '../control/protocol.ts'
import { usageError } from '../errors.ts'
import { hexDump } from '../inspect/memory.ts'
import { type Cell, DEFAULT_ROW_LIMIT, type Table, tableObjects } from '../inspect/table.ts'
import { formatTable, note, paint, print, printJson } from '../terminal.ts'

interface InspectCommandOptions extends FarmSelection {
  readonly server?: string
  readonly limit: number
  readonly at?: number
  readonly length: number
  readonly json?: boolean
}

const DEFAULT_DUMP_BYTES = 256

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .summary('look into the INICs and routers of a running farm')
    .description('Shows what the INICs of a running farm hold: read from their memory, without stopping them.')
    .addArgument(new Argument('<what>', 'what to look at').choices(['farm', ...INSPECTIONS]))
    .option('-s, --server <name>', 'one server only; with routers: one router')
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--limit <rows>', 'rows of each table at most', countArgument, DEFAULT_ROW_LIMIT)
    .option('--at <address>', 'with memory: dump bytes from this address, as in 0x20000', addressArgument)
    .option('--length <bytes>', 'with --at: how many', countArgument, DEFAULT_DUMP_BYTES)
    .option('--json', 'everything as JSON')
    .addHelpText(
      'after',
      `
  farm         servers, routers, networks, links and published ports
  tables       the tables of FIG. 12: Forward; Local, Forward-Connect, Temporary; Server State; Listening Sockets; ...
  connections  every connection with its windows and times
  queues       virtqueues of the processes, and MAC ports
  memory       what INIC memory is used for, and the firmware's counters
  routers      ports, routes, ARP cache and counters of every router

Examples:
  inic inspect tables
  inic inspect connections --server server1 --json | jq '.[0].tables[0].rows'
  inic inspect memory --server server1 --at 0x1000 --length 64`,
    )
    .action(async (what: 'farm' | Inspection, options: InspectCommandOptions) => {
      await withFarm(options, (client) => inspect(client, what, options))
    })
}

async function inspect(
  client: ControlClient,
  what: 'farm' | Inspection,
  options: InspectCommandOptions,
): Promise<void> {
  const server = options.server === undefined ? {} : { server: options.server }
  if (options.at !== undefined) {
    if (what !== 'memory')
      throw usageError(`--at goes with memory, not with ${what}`, 'inic inspect memory --at ADDRESS')
    await dump(client, options.at, options, server)
  } else if (what === 'farm') {
    await showFarm(client, options)
  } else {
    const result = await client.request('inspect', { what, ...server, limit: options.limit })
    if (options.json) printJson(result.map(describe))
    else for (const item of result) printServer(item)
  }
}

async function showFarm(client: ControlClient, options: InspectCommandOptions): Promise<void> {
  const status = await client.request('status', {})
  if (options.json) return printJson(status)
  print(`farm ${status.name}, process ${status.pid}, running for ${Math.round(status.uptimeSeconds)} s`)
  const rows = status.servers.map(({ name, state, firmware, addresses, applications }) => [
    ...[name, state, firmware ?? ''],
    ...[addresses.join(', '), applications.join(', ')],
  ])
  for (const line of formatTable(['server', 'state', 'firmware', 'addresses', 'applications'], rows)) print(line)
  for (const { name, isp, addresses } of status.routers)
    print(`router ${name}: ${addresses.join(', ')}${isp === undefined ? '' : ` (${isp})`}`)
  print(`networks: ${status.networks.join(', ')}`)
  print(`links: ${status.links.join(', ')}`)
  for (const { address, target } of status.published) print(`published: ${address} → ${target}`)
}

async function dump(
  client: ControlClient,
  address: number,
  options: InspectCommandOptions,
  server: { server?: string },
): Promise<void> {
  if (options.length > MAXIMUM_READ_BYTES)
    throw usageError(`--length ${options.length}: at most ${MAXIMUM_READ_BYTES} at once`)
  const result = await client.request('read', { ...server, address, length: options.length })
  if (options.json) return printJson({ server: result.server, address, bytes: result.bytes })
  for (const line of hexDump(Buffer.from(result.bytes, 'base64'), address)) print(line)
}

function printServer({ server, tables, remark }: ServerTables): void {
  if (remark) note(`${server}: ${remark}`)
  for (const table of tables) {
    print(`${paint(process.stdout, 'cyan', `${server}: ${table.title}`)} (${table.remark ?? table.total})`)
    printRows(table)
    print('')
  }
}

function printRows({ columns, rows, total }: Table): void {
  for (const line of formatTable(
    columns,
    rows.map((row) => row.map(formatCell)),
  ))
    print(`  ${line}`)
  if (rows.length < total) note(`  … ${total - rows.length} more; --limit shows them`)
}

function formatCell(cell: Cell): string {
  return cell === null ? '-' : String(cell)
}

function describe({ server, tables, remark }: ServerTables): object {
  return {
    server,
    ...(remark !== undefined && { remark }),
    tables: tables.map((table) => ({
      title: table.title,
      columns: table.columns,
      total: table.total,
      ...(table.remark !== undefined && { remark: table.remark }),
      rows: tableObjects(table),
    })),
  }
}

function countArgument(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Write a whole number.')
  return Number(text)
}

function addressArgument(text: string): number {
  if (!/^(0x[0-9a-f]{1,8}|\d+)$/i.test(text)) throw new InvalidArgumentError('Write an address, as in 0x20000.')
  return Number(text)
}
