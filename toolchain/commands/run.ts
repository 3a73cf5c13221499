import { resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type Board, type CrashReport, formatCrash } from '../../emulator/board.ts'
import { availableCpu, type CpuKind } from '../../emulator/cpu/index.ts'
import { describeExit } from '../../host/process.ts'
import {
  PUBLISH_EXAMPLE,
  parsePublish,
  parseStream,
  parseTap,
  STREAM_EXAMPLE,
  TAP_EXAMPLE,
} from '../config/endpoints.ts'
import { checkFarm } from '../config/farm-checks.ts'
import type { FarmConfig, PublishConfig, StreamConfig, TapConfig } from '../config/farm-config.ts'
import { suggest } from '../config/issues.ts'
import { defaultFarm, loadFarm } from '../config/load-farm.ts'
import { parseDuration } from '../config/units.ts'
import { CommandError, EXIT_BOARD, EXIT_FAILED, EXIT_INTERRUPTED, usageError } from '../errors.ts'
import { endedWell } from '../farm/applications.ts'
import { DEFAULT_IMAGE_PATH, loadImage, loadImages } from '../farm/firmware.ts'
import { requestOnce } from '../farm/once.ts'
import { type CaptureRequest, FarmSession } from '../farm/session.ts'
import { FarmState } from '../state.ts'
import { note, paint, print, printJson } from '../terminal.ts'

interface RunCommandOptions {
  record?: string
  readonly publish?: readonly PublishConfig[]
  readonly tap?: readonly Attachment<TapConfig>[]
  readonly link?: readonly Attachment<StreamConfig>[]
  readonly pcap?: readonly CaptureRequest[]
  readonly image?: string
  readonly cpu: CpuKind | 'auto'
  readonly virtual?: boolean
  readonly for?: number
  readonly seed?: string
  readonly state?: string
  readonly once?: boolean
  readonly json?: boolean
}

/** Something plugged into a network from the command line. */
interface Attachment<T> {
  readonly network: string
  readonly to: T
}

export function addRunCommand(program: Command): void {
  program
    .command('run')
    .summary('run a farm')
    .description('Boots the servers of a farm, starts their applications, and opens the published ports until Ctrl-C.')
    .argument(
      '[farm]',
      "farm file; left out: the project's farm.json, or else one server with the addresses of FIG. 3 and the example shop",
    )
    .option(
      '-p, --publish <[addr:]port:server:port>',
      'open a port of this machine that leads to a server; may be repeated',
      collect(publishArgument),
    )
    .option(
      '--tap <network=ifname[,address]>',
      'plug a Linux TAP interface into a network (needs root); may be repeated',
      collect(tapArgument),
    )
    .option(
      '--link <network=how>',
      'join a network to another process: listen:ADDRESS or connect:ADDRESS; may be repeated',
      collect(linkArgument),
    )
    .option(
      '--pcap <file[:link]>',
      'record frames from the start: of a network or link, or of every network; may be repeated',
      collect(pcapArgument),
    )
    .option('--record <file>', "record what the servers' cards are given, for inic debug --replay")
    .option(
      '--image <file>',
      'boot this image, in place of what is in flash, on the servers whose firmware the farm names, or on all',
    )
    .addOption(new Option('--cpu <kind>', 'what runs the firmware').choices(['auto', 'wasmtime', 'v8']).default('auto'))
    .option('--virtual', 'virtual time: as fast as it goes, and the same at every run; board programs only')
    .option('--for <time>', "stop after so much of the farm's time, as in 10s", durationArgument)
    .option('--seed <text>', 'what everything random follows from')
    .option('--state <dir>', 'where to keep flash files and control socket (default: .inic beside the farm file)')
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
  inic run --pcap farm.pcapng --pcap s1.pcapng:server1.0
  inic run --record farm.rec                        then: inic debug --replay farm.rec
  inic run --once                                   a test of everything, in one line

The state folder holds the flash of each server: what inic flash wrote there is what boots. Exit code 4: no board runs any more.`,
    )
    .action(async (farmPath: string | undefined, options: RunCommandOptions) => {
      if (options.json && !options.once)
        throw usageError('--json goes with --once', 'for a running farm: inic inspect farm --json')
      const config = applyOptions(farmPath === undefined ? await defaultFarm() : await loadFarm(farmPath), options)
      const session = new FarmSession({
        config,
        state: FarmState.of(config, options.state),
        images: await loadImages(config, options.image && resolve(options.image)),
        gatewayImage: config.publish.length > 0 ? await loadImage(DEFAULT_IMAGE_PATH) : undefined,
        forceImage: options.image !== undefined,
        cpu: options.cpu === 'auto' ? undefined : options.cpu,
        captures: options.pcap ?? [],
        ...(options.record !== undefined && { recordTo: resolve(options.record) }),
      })
      showEvents(session, options)
      await runSession(session, config, options)
    })
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
  const end = { slot: -1, dueNs: 0, sequence: 0, precise: false, fire() {} }
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

/** The configuration with what the options change in it. */
function applyOptions(config: FarmConfig, options: RunCommandOptions): FarmConfig {
  if (options.cpu === 'wasmtime' && availableCpu() !== 'wasmtime') {
    throw usageError(
      '--cpu wasmtime: the addon has not been built',
      'install Rust (https://rustup.rs), then: npm run build; or use --cpu v8',
    )
  }
  const networks = config.networks.map((network) => ({
    ...network,
    taps: [...network.taps, ...attached(options.tap, network.name)],
    streams: [...network.streams, ...attached(options.link, network.name)],
  }))
  const clock = options.virtual ? 'virtual' : config.clock
  const changed: FarmConfig = {
    ...config,
    clock,
    ...(options.seed !== undefined && { seed: options.seed }),
    networks,
    // Options take the place of what the file publishes; in virtual time nothing comes from outside.
    publish: clock === 'virtual' ? [] : (options.publish ?? config.publish),
  }
  checkAttachments(config, options)
  checkFarm(changed, (_path, message, hint) => {
    throw usageError(message, hint)
  })
  checkClock(changed, options)
  return changed
}

function attached<T>(attachments: readonly Attachment<T>[] | undefined, network: string): T[] {
  return (attachments ?? []).filter((item) => item.network === network).map((item) => item.to)
}

function checkAttachments(config: FarmConfig, options: RunCommandOptions): void {
  const names = config.networks.map((network) => network.name)
  for (const { network } of [...(options.tap ?? []), ...(options.link ?? [])]) {
    if (!names.includes(network))
      throw usageError(`the farm has no network '${network}'`, suggest(network, names) ?? `it has: ${names.join(', ')}`)
  }
}

function checkClock(config: FarmConfig, options: RunCommandOptions): void {
  if (config.clock !== 'virtual') {
    if (options.once && config.publish.length === 0)
      throw usageError('--once needs a published port', `give one: --publish ${PUBLISH_EXAMPLE}`)
    return
  }
  if (options.once) throw usageError('--once makes a real request, and in virtual time nothing comes from outside')
  if (options.for === undefined && config.servers.every(({ applications }) => applications.length === 0)) {
    throw usageError('a farm without applications runs for ever in virtual time', 'say for how long: --for 10s')
  }
  if (config.networks.some((network) => network.taps.length + network.streams.length > 0)) {
    throw usageError('TAP interfaces and streams live in real time', 'leave out --virtual')
  }
  for (const server of config.servers) {
    const application = server.applications.find((item) => item.kind === 'node')
    if (application) {
      throw usageError(
        `'${application.name}' on ${server.name} is a Node program, and runs in real time only`,
        'use a farm of board programs: inic run examples/echo.json --virtual',
      )
    }
  }
}

function durationArgument(text: string): number {
  const ns = parseDuration(text)
  if (ns === undefined) throw new InvalidArgumentError('Write a time with its unit, as in 10s or 500ms.')
  return ns
}

function collect<T>(parse: (text: string) => T): (text: string, previous?: readonly T[]) => T[] {
  return (text, previous = []) => [...previous, parse(text)]
}

function publishArgument(text: string): PublishConfig {
  const config = parsePublish(text)
  if (config === undefined) throw new InvalidArgumentError(`Write it as in ${PUBLISH_EXAMPLE}.`)
  return config
}

const tapArgument = attachmentArgument(parseTap, `lan-a=${TAP_EXAMPLE}`)
const linkArgument = attachmentArgument(parseStream, `lan-a=${STREAM_EXAMPLE}`)

/** Reads `NETWORK=...`, with `parse` for what stands after the sign. */
function attachmentArgument<T>(
  parse: (text: string) => T | undefined,
  example: string,
): (text: string) => Attachment<T> {
  return (text) => {
    const at = text.indexOf('=')
    const to = parse(text.slice(at + 1))
    if (at < 1 || to === undefined) throw new InvalidArgumentError(`Write it as in ${example}.`)
    return { network: text.slice(0, at), to }
  }
}

/** `FILE` or `FILE:LINK`; a colon that a file name ends with is the name's own. */
function pcapArgument(text: string): CaptureRequest {
  const match = /^(.+):([a-z][a-z0-9.-]*)$/.exec(text)
  return match ? { path: match[1], target: match[2] } : { path: text, target: undefined }
}
