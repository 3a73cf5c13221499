import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { parseDuration } from '../config/units.ts'
import { type ControlClient, type FarmSelection, withFarm } from '../control/client.ts'
import type { DrainStatus } from '../control/protocol.ts'
import { CommandError, usageError } from '../errors.ts'
import { note, print, printJson, startProgress } from '../terminal.ts'

interface DrainCommandOptions extends FarmSelection {
  readonly to?: string
  readonly undo?: boolean
  /** Nanoseconds. */
  readonly timeout?: number
  readonly json?: boolean
}

const POLL_MS = 100

export function addDrainCommand(program: Command): void {
  program
    .command('drain')
    .summary('empty a server of its connections')
    .description(
      'Has a server of a running farm take nothing new, and moves its connections to other servers, while clients go on. Ends when none is left.',
    )
    .argument('<server>', 'the server')
    .option('--to <server>', 'where its connections go (default: each where the INICs find best)')
    .option('--undo', 'have it take connections again')
    .option('--timeout <time>', 'give up waiting after so long, as in 30s; the server stays drained', durationArgument)
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--json', 'what became of it, as JSON')
    .addHelpText(
      'after',
      `
HTTP connections move by themselves, each between two requests: a response that is being sent is finished first. Other connections move
when their application hands them over (server.on('drain'), docs/applications.md), and are waited for until then.

Examples:
  inic drain server1                     before you stop its programs
  inic drain server1 --to server2 --timeout 30s
  inic drain server1 --undo

Exit codes: 0 no connection is left · 1 some were when the time was over`,
    )
    .action(async (server: string, options: DrainCommandOptions) => {
      if (options.undo && (options.to !== undefined || options.timeout !== undefined))
        throw usageError('--undo goes without --to and --timeout')
      await withFarm(options, (client) =>
        options.undo ? undo(client, server, options) : drain(client, server, options),
      )
    })
}

async function undo(client: ControlClient, server: string, { json }: DrainCommandOptions): Promise<void> {
  const status = await client.request('undrain', { server })
  if (json) printJson(status)
  else print(`${server} takes connections again`)
}

async function drain(client: ControlClient, server: string, options: DrainCommandOptions): Promise<void> {
  const { to, timeout, json } = options
  const deadlineMs = timeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout / 1e6
  const progress = startProgress(`draining ${server}`)
  let status: DrainStatus
  try {
    status = await client.request('drain', { server, ...(to !== undefined && { to }) })
    while (!isEmpty(status) && performance.now() < deadlineMs) {
      await sleep(Math.min(POLL_MS, deadlineMs - performance.now()))
      status = await client.request('drainStatus', { server })
      progress.update(`draining ${server}: ${count(status.left)} left,`, share(status))
    }
  } finally {
    progress.end()
  }
  if (json) printJson(status)
  else show(status)
  if (!isEmpty(status)) {
    throw new CommandError(`${server}: ${count(status.left)} left when the time was over`, {
      hint: `it goes on; inic drain ${server} waits again, inic drain ${server} --undo ends it`,
    })
  }
}

function isEmpty({ left, processes }: DrainStatus): boolean {
  return left === 0 && processes.every(({ silent }) => !silent)
}

function show({ server, moved, left, processes }: DrainStatus): void {
  print(`${server}: ${count(moved)} moved, ${left} left`)
  for (const { name, silent, left } of processes) {
    if (silent) note(`${name} does not answer`)
    else if (left) note(`${name} has ${count(left)}`)
  }
  if (left === 0) note(`it takes nothing new until: inic drain ${server} --undo`)
}

function share({ moved, left }: DrainStatus): number | undefined {
  return moved + left === 0 ? undefined : moved / (moved + left)
}

function count(connections: number): string {
  return `${connections} connection${connections === 1 ? '' : 's'}`
}

function durationArgument(text: string): number {
  const ns = parseDuration(text)
  if (ns === undefined) throw new InvalidArgumentError('Write a time with its unit, as in 30s or 500ms.')
  return ns
}
