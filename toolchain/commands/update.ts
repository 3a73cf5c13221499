import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { parseDuration } from '../config/units.ts'
import { type ControlClient, type FarmSelection, withFarm } from '../control/client.ts'
import type { ServiceUpdateStatus } from '../control/protocol.ts'
import { CommandError, EXIT_BOARD, EXIT_FAILED, EXIT_FARM_STATE } from '../errors.ts'
import { print, printJson, startProgress } from '../terminal.ts'

interface UpdateCommandOptions extends FarmSelection {
  readonly server?: string
  readonly drain?: boolean
  readonly check?: boolean
  /** Nanoseconds. */
  readonly timeout?: number
  readonly json?: boolean
}

/** How often the farm is asked how far it is. */
const POLL_MS = 50

export function addUpdateCommand(program: Command): void {
  program
    .command('update')
    .summary('put new firmware into servers that are in service')
    .description(
      'Has a new firmware take over in servers of a running farm, one after the other, while connections go on: in place where it understands the ' +
        'memory of the firmware that runs, else by draining the server and restarting it.',
    )
    .argument('<image>', 'image file, as inic build makes them')
    .option('-s, --server <name>', 'this server alone')
    .option('--drain', 'drain and restart, even where it could be done in place')
    .option('--check', 'say which way it would go and why, and do nothing')
    .option('--timeout <time>', 'with a drain: how long connections may take to leave (default: 60s)', durationArgument)
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--json', 'what became of it, as JSON')
    .addHelpText(
      'after',
      `
Either way the image is in flash afterwards, and what the next power-on boots. A server that cannot be updated ends the command; those after it are
left as they are. What decides the way: docs/updating.md.

Examples:
  inic build --release && inic update build/release/firmware.img
  inic update nic.img --check                     which way it would go, server by server
  inic update nic.img --server server2 --drain

Exit codes: 0 done, or with --check: can be done · 1 cannot be done · 4 a board stopped`,
    )
    .action((image: string, options: UpdateCommandOptions) =>
      withFarm(options, (client) => updateServers(client, resolve(image), options)),
    )
}

async function updateServers(client: ControlClient, image: string, options: UpdateCommandOptions): Promise<void> {
  const names = options.server === undefined ? await serverNames(client) : [options.server]
  const results: ServiceUpdateStatus[] = []
  let failed: ServiceUpdateStatus | undefined
  for (const server of names) {
    const status = await update(client, server, image, options)
    results.push(status)
    if (!options.json) show(status, options)
    if (options.check ? status.way === 'none' : status.error !== undefined) failed ??= status
    if (failed !== undefined && !options.check) break
  }
  if (options.json) printJson(options.server === undefined ? results : results[0])
  if (failed === undefined) return
  const left = names.slice(results.length)
  const rest = left.length > 0 ? `; left as they are: ${left.join(', ')}` : ''
  const { message, ...more } = failed.error ?? {
    message: `${failed.server} cannot be updated in service: ${failed.why}`,
    exitCode: EXIT_FAILED,
    ...(failed.hint !== undefined && { hint: failed.hint }),
  }
  throw new CommandError(`${message}${rest}`, more)
}

async function serverNames(client: ControlClient): Promise<string[]> {
  const { servers } = await client.request('status', {})
  return servers.map(({ name }) => name)
}

async function update(
  client: ControlClient,
  server: string,
  image: string,
  { drain = false, check = false, timeout }: UpdateCommandOptions,
): Promise<ServiceUpdateStatus> {
  const params = { server, image, drain, check, ...(timeout !== undefined && { timeoutMs: timeout / 1e6 }) }
  if (check) return client.request('serviceUpdate', params)
  const progress = startProgress(`updating ${server}`)
  let version: string | undefined
  try {
    let status = await client.request('serviceUpdate', params)
    version = status.version
    while (status.stage !== 'done' && status.stage !== 'failed') {
      const { stage, share, left } = status
      const count = stage === 'draining' && left !== undefined ? `, ${left} left` : ''
      progress.update(`${server}: ${stage}${count}`, stage === 'writing' ? share : undefined)
      await sleep(POLL_MS)
      status = await client.request('serviceUpdateStatus', { server })
    }
    return status
  } catch (error) {
    if (version === undefined || !(error instanceof CommandError) || error.exitCode !== EXIT_FARM_STATE) throw error
    throw new CommandError(
      `no server runs any more, after version ${version} took over on ${server}: the farm has ended`,
      {
        exitCode: EXIT_BOARD,
        hint: 'start it anew: it tries the image once, and goes back to the one before',
      },
    )
  } finally {
    progress.end()
  }
}

const WAYS = { 'in-place': 'in place', drain: 'by draining it', none: 'not in service' } as const

function show({ server, version, way, why, error }: ServiceUpdateStatus, { check }: UpdateCommandOptions): void {
  if (check) print(`${server}: ${WAYS[way]}: ${why}`)
  else if (error === undefined) print(`${server}: version ${version} has taken over, ${WAYS[way]}: ${why}`)
}

function durationArgument(text: string): number {
  const ns = parseDuration(text)
  if (ns === undefined) throw new InvalidArgumentError('Write a time with its unit, as in 30s or 500ms.')
  return ns
}
