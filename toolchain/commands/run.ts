import { type Command, InvalidArgumentError } from 'commander'
import { type Board, type CrashReport, formatCrash } from '../../emulator/board.ts'
import { describeExit } from '../../host/process.ts'
import { PUBLISH_EXAMPLE } from '../config/endpoints.ts'
import type { FarmConfig } from '../config/farm-config.ts'
import { parseDuration } from '../config/units.ts'
import { CommandError, EXIT_BOARD, EXIT_FAILED, EXIT_INTERRUPTED, usageError } from '../errors.ts'
import { endedWell } from '../farm/applications.ts'
import { type LaunchOptions, openFarm } from '../farm/launch.ts'
import { requestOnce } from '../farm/once.ts'
import type { FarmSession } from '../farm/session.ts'
import { note, paint, print, printJson } from '../terminal.ts'
import { addLaunchOptions } from './launch-options.ts'

interface RunCommandOptions extends LaunchOptions {
  readonly for?: number
  readonly once?: boolean
  readonly json?: boolean
}

export function addRunCommand(program: Command): void {
  const command = program
    .command('run')
    .summary('run a farm')
    .description('Boots the servers of a farm, starts their applications, and opens the published ports until Ctrl-C.')
    .argument(
      '[farm]',
      "farm file; left out: the project's farm.json, or else one server with the addresses of FIG. 3 and the example shop",
    )
  addLaunchOptions(command)
    .option('--for <time>', "stop after so much of the farm's time, as in 10s", durationArgument)
    .option('--once', 'make one HTTP request through the first published port, say what happened, and exit')
    .option('--json', 'with --once: say it as JSON')
    .addHelpText(
      'after',
      `
Examples:
  inic run                                          the example shop, at http://127.0.0.1:8080
  inic run examples/farm.json                       FIG. 3: two routers, two LANs, three servers
  inic run examples/echo.json --virtual             a farm of board programs, in virtual time
  inic run --publish 0.0.0.0:80:server1:80          for everybody on your network
  sudo inic run --tap lan-a=inic0,123.123.123.9/24  the kernel as a peer on lan-a
  inic run --link lan-a=listen:127.0.0.1:9001       QEMU (-netdev stream) or another farm on lan-a
  inic run --link lan-a=dgram:127.0.0.1:9001,127.0.0.1:9002  the same by datagrams (-netdev dgram)
  inic run --pcap farm.pcapng --pcap s1.pcapng:server1.0
  inic run --play clients.pcapng:lan-a              a capture, sent into lan-a
  inic run --record farm.rec                        then: inic debug --replay farm.rec
  inic run --once                                   a test of everything, in one line

The state folder holds the flash of each server: what inic flash wrote there is what boots. Exit code 4: no board runs any more.`,
    )
    .action(async (farmPath: string | undefined, options: RunCommandOptions) => {
      if (options.json && !options.once)
        throw usageError('--json goes with --once', 'for a running farm: inic inspect farm --json')
      const { session, config } = await openFarm(farmPath, options)
      if (options.once) checkOnce(config)
      if (options.for === undefined) checkEnds(config)
      showEvents(session, options)
      await runSession(session, config, options)
    })
}

function checkOnce(config: FarmConfig): void {
  if (config.clock === 'virtual')
    throw usageError('--once makes a real request, and in virtual time nothing comes from outside')
  if (config.publish.length === 0)
    throw usageError('--once needs a published port', `give one: --publish ${PUBLISH_EXAMPLE}`)
}

/** Without a program that ends, nothing ends a run in virtual time. */
function checkEnds(config: FarmConfig): void {
  if (config.clock === 'virtual' && config.servers.every(({ applications }) => applications.length === 0))
    throw usageError('a farm without applications runs for ever in virtual time', 'say for how long: --for 10s')
}

async function runSession(session: FarmSession, config: FarmConfig, options: RunCommandOptions): Promise<void> {
  const interrupted = new AbortController()
  const { signal } = interrupted
  const onSignal = () => {
    if (signal.aborted) process.exit(EXIT_INTERRUPTED) // asked a second time: stopping takes too long
    interrupted.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  try {
    await session.start(signal)
    if (options.once) await runOnce(session, options)
    else if (config.clock === 'virtual') await runVirtual(session, signal, options.for)
    else await runReal(session, signal, options.for)
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error
  } finally {
    await session.stop()
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}

/** Runs until Ctrl-C, for `forNs`, or until no board runs any more. */
async function runReal(session: FarmSession, signal: AbortSignal, forNs: number | undefined): Promise<void> {
  showFarm(session)
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener('abort', () => resolve())
    if (forNs !== undefined) timer = setTimeout(resolve, forNs / 1e6)
    const check = () => {
      if (session.allStopped) reject(new CommandError('every server has stopped', { exitCode: EXIT_BOARD }))
    }
    session.on('crash', check)
    check()
    if (signal.aborted) resolve()
  }).finally(() => clearTimeout(timer))
  note('stopping')
}

/** Runs until nothing is left to happen, or for `forNs`. */
async function runVirtual(session: FarmSession, signal: AbortSignal, forNs: number | undefined): Promise<void> {
  const { farm, config } = session.assembly
  const hasApplications = config.servers.some(({ applications }) => applications.length > 0)
  const over = () => signal.aborted || session.allStopped || (hasApplications && session.applicationCount === 0)
  // A condition is looked at after events: without one at the end, time would run on to whatever comes next.
  const end = { slot: -1, dueNs: Number.POSITIVE_INFINITY, sequence: 0, precise: false, fire() {} }
  if (forNs !== undefined) farm.setAlarm(end, farm.now() + forNs)
  const endNs = forNs === undefined ? Number.POSITIVE_INFINITY : farm.now() + forNs
  await farm.run(() => over() || farm.now() >= endNs)
  print(`virtual time: ${(farm.now() / 1e9).toFixed(6)} s`)
  if (session.allStopped) throw new CommandError('every server has stopped', { exitCode: EXIT_BOARD })
  if (session.failedApplications > 0)
    throw new CommandError(`${session.failedApplications} programs ended with an error`)
}

async function runOnce(session: FarmSession, options: RunCommandOptions): Promise<void> {
  const result = await requestOnce(session)
  if (options.json) printJson(result)
  else for (const line of result.lines) print(line)
  if (!result.ok)
    throw new CommandError(`${result.url} was not served`, { exitCode: session.allStopped ? EXIT_BOARD : EXIT_FAILED })
}

function showFarm(session: FarmSession): void {
  const { servers, published } = session.status()
  for (const { name, state, firmware, addresses } of servers) {
    note(`${paint(process.stderr, 'bold', name)}  ${addresses.join(', ')}  firmware ${firmware ?? '?'}, ${state}`)
  }
  note('')
  for (const { address, target } of published) {
    print(`${paint(process.stdout, 'green', `http://${address}`)} → ${target}`)
  }
  note(`${published.length > 0 ? '' : 'no published ports; '}Ctrl-C stops the farm`)
}

function showEvents(session: FarmSession, options: RunCommandOptions): void {
  const prefix = (source: string) => paint(process.stderr, 'dim', `${source} |`)
  session.on('remark', (line) => note(line))
  session.on('crash', (_board: Board, report: CrashReport) => {
    for (const line of formatCrash(report)) note(paint(process.stderr, 'red', line))
  })
  session.on('exit', (name, exit) => {
    note(endedWell(exit) ? `${name} has ended` : paint(process.stderr, 'red', describeExit(name, exit)))
  })
  if (!options.json) session.on('console', (source, line) => note(`${prefix(source)} ${line}`))
}

function durationArgument(text: string): number {
  const ns = parseDuration(text)
  if (ns === undefined) throw new InvalidArgumentError('Write a time with its unit, as in 10s or 500ms.')
  return ns
}
