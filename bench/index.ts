import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { availableCpu } from '../emulator/cpu/index.ts'
import type { BenchEngine, BenchFigure, BenchOptions, BenchReport } from '../toolchain/bench-engine.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import type { FarmFirmware } from '../toolchain/testing/firmware.ts'
import { type BlackoutFigures, measureBlackout } from './blackout.ts'
import type { ChildResult, ChildTask } from './child.ts'
import { measureDebugger } from './debug.ts'
import { BURST, measureForwards } from './forwards.ts'
import { idleConnections } from './idle.ts'
import { makePair } from './pair.ts'
import { type PeerFigure, runPeer } from './peer.ts'
import { mean, median, percentile } from './statistics.ts'

const CONCURRENT = 64

const FIRMWARE = `${packageRoot}/build/release/firmware.wasm`
const LAYOUTS = `${packageRoot}/build/release/firmware.layouts.json`

interface Size {
  /** Processes of ours, and of the kernel's, by turns: what else the machine does hits both, and where one lies in memory makes a tenth. */
  readonly children: number
  /** In each of them. */
  readonly runs: number
  readonly connections: number
  readonly rounds: number
  readonly bytes: number
  readonly idle: number
  readonly migrations: number
  readonly forwards: number
  readonly debugRounds: number
  readonly slices: number
}

const FULL: Size = {
  children: 5,
  runs: 3,
  connections: 30_000,
  rounds: 50_000,
  bytes: 1 << 30,
  idle: 10_000,
  migrations: 10_000,
  forwards: 100_000,
  debugRounds: 20_000,
  slices: 1_000_000,
}
const QUICK: Size = {
  children: 2,
  runs: 1,
  connections: 5_000,
  rounds: 10_000,
  bytes: 1 << 28,
  idle: 2_000,
  migrations: 1_000,
  forwards: 10_000,
  debugRounds: 4000,
  slices: 100_000,
}

type Measure = (size: Size) => Promise<BenchFigure[]>

/** Longest run of one child, milliseconds. */
const CHILD_TIMEOUT_MS = 300_000

async function inChild(task: ChildTask): Promise<ChildResult> {
  const script = fileURLToPath(new URL('./child.js', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(task)], {
    timeout: CHILD_TIMEOUT_MS,
  })
  return JSON.parse(stdout) as ChildResult
}

interface Comparison {
  readonly ours: number
  readonly theirs: number
  readonly p99: number
  readonly parts: Readonly<Record<string, number>>
}

async function compare(
  name: ChildTask['case'],
  { children, runs }: Size,
  amount: number,
  kernelAmount = amount,
): Promise<Comparison> {
  const ours: number[] = []
  const theirs: number[] = []
  const p99: number[] = []
  let parts = {}
  const task = { case: name, firmware: FIRMWARE, runs, concurrent: CONCURRENT }
  for (let child = 0; child < children; child++) {
    const mine = await inChild({ ...task, side: 'inic', amount })
    const other = await inChild({ ...task, side: 'kernel', amount: kernelAmount })
    ours.push(...mine.values)
    theirs.push(...other.values)
    p99.push(...mine.p99)
    parts = mine.parts
  }
  return { ours: median(ours), theirs: median(theirs), p99: median(p99), parts }
}

const measureConnections: Measure = async (size) => {
  const { ours, theirs } = await compare('connections', size, size.connections, Math.ceil(size.connections / 3))
  return [
    {
      case: 'connections',
      name: `connections, ${CONCURRENT} at a time`,
      value: ours,
      unit: '1/s',
      reference: { name: 'kernel', value: theirs },
      bar: "at least 5 times the kernel's",
      reached: ours >= 5 * theirs,
    },
  ]
}

const measureRoundTrip: Measure = async (size) => {
  const { ours, theirs, p99 } = await compare('round-trip', size, size.rounds)
  return [
    {
      case: 'round-trip',
      name: '64 bytes there and back, mean',
      value: ours,
      unit: 'µs',
      reference: { name: 'kernel', value: theirs },
      bar: "at most half the kernel's",
      reached: ours <= theirs / 2,
    },
    { case: 'round-trip', name: '64 bytes there and back, 99th percentile', value: p99, unit: 'µs' },
  ]
}

const measureBulk: Measure = async (size) => {
  const { ours, theirs, parts } = await compare('bulk', size, size.bytes)
  const { framesPerSecond, ...nsByPart } = parts
  return [
    {
      case: 'bulk',
      name: 'one connection, MTU 1500',
      value: ours,
      unit: 'Gbit/s',
      reference: { name: 'kernel, MTU 65536', value: theirs },
    },
    { case: 'bulk', name: 'data frames, while profiled', value: framesPerSecond, unit: '1/s' },
    ...Object.entries(nsByPart).map(([part, value]) => ({
      case: 'bulk',
      name: `${part}, both ends`,
      value,
      unit: 'ns/frame',
    })),
  ]
}

const measureIdle: Measure = async (size) => {
  const pair = makePair({ firmware: FIRMWARE, cpu: 'auto' })
  const { connections, hostBytes, cardBytes } = await idleConnections(pair, size.idle, LAYOUTS)
  await pair.close()
  return [
    {
      case: 'idle',
      name: `INIC memory of one of ${connections} connections`,
      value: cardBytes,
      unit: 'bytes',
      bar: 'at most 512',
      reached: cardBytes <= 512,
    },
    { case: 'idle', name: 'heap of both its sockets', value: hostBytes, unit: 'bytes' },
  ]
}

function farmFirmware(): FarmFirmware {
  return { wasm: readFileSync(FIRMWARE), layouts: JSON.parse(readFileSync(LAYOUTS, 'utf8')) }
}

/** What host code is charged: the time from an interrupt to its driver. */
const HOST_LATENCY_NS = 1000
const MAXIMUM_BLACKOUT_US = 20
const MAXIMUM_BLOCK_US = 5
/** Migrations of the main figure for one of the others. */
const FEWER = 10
const FORWARD_SAMPLES = 9

const measureMigration: Measure = async (size) => {
  const options = { firmware: farmFirmware(), hostLatencyNs: HOST_LATENCY_NS }
  const fewer = Math.ceil(size.migrations / FEWER)
  const pair = await measureBlackout({ ...options, migrations: size.migrations })
  const round = await measureBlackout({ ...options, migrations: fewer, servers: 3 })
  const idle = await measureBlackout({ ...options, migrations: fewer, writes: false })
  const figure = (name: string, ns: number): BenchFigure => ({
    case: 'blackout',
    name,
    value: ns / 1e3,
    unit: 'µs, virtual',
  })
  const bounded = (name: string, ns: number, most: number): BenchFigure => {
    const it = figure(name, ns)
    return { ...it, bar: `at most ${most} µs`, reached: it.value <= most }
  }
  const beyond = ({ blackoutNs, spacingNs }: BlackoutFigures) => blackoutNs.map((ns) => ns - spacingNs)
  const ours = beyond(pair)
  return [
    figure('charged to host code for an interrupt', HOST_LATENCY_NS),
    figure('between two segments of one server, median', pair.spacingNs),
    figure(`from the last of the old to the first of the new, mean of ${ours.length}`, mean(pair.blackoutNs)),
    bounded('beyond the normal spacing, mean', mean(ours), MAXIMUM_BLACKOUT_US),
    bounded('beyond the normal spacing, 99th percentile', percentile(ours, 99), MAXIMUM_BLACKOUT_US),
    figure('beyond the normal spacing, longest', percentile(ours, 100)),
    bounded('the same round three servers, mean', mean(beyond(round)), MAXIMUM_BLACKOUT_US),
    bounded('the same round three servers, 99th percentile', percentile(beyond(round), 99), MAXIMUM_BLACKOUT_US),
    bounded(
      'control block of a silent connection, giving INIC, longest',
      percentile(idle.giveNs, 100),
      MAXIMUM_BLOCK_US,
    ),
    bounded(
      'control block of a silent connection, taking INIC, longest',
      percentile(idle.takeNs, 100),
      MAXIMUM_BLOCK_US,
    ),
    figure('the same slice with six writes in it, giving INIC, mean', mean(pair.giveNs)),
    figure('the same slice of a busy INIC, taking INIC, mean', mean(pair.takeNs)),
  ]
}

const measureForwarding: Measure = async (size) => {
  const options = { firmware: farmFirmware(), connections: size.forwards, samples: FORWARD_SAMPLES }
  const { byPlace, packets } = await measureForwards(options)
  const [first, last] = [byPlace[0], byPlace[byPlace.length - 1]]
  const figure = (name: string, value: number, unit = 'fuel'): BenchFigure => ({ case: 'forwards', name, value, unit })
  return [
    ...byPlace.map(({ place, fuel }) => figure(`a packet of connection ${place.toLocaleString('en')}`, fuel)),
    {
      ...figure(
        `connection ${last.place.toLocaleString('en')} beside connection ${first.place}`,
        last.fuel / first.fuel,
        'times',
      ),
      bar: 'below 2',
      reached: last.fuel < 2 * first.fuel,
    },
    ...packets.flatMap(({ bytes, entry, entryBurst, serving, servingBurst }) => [
      figure(`${bytes} bytes, entry INIC, alone`, entry),
      figure(`${bytes} bytes, entry INIC, ${BURST} in a row`, entryBurst),
      figure(`${bytes} bytes, serving INIC, alone`, serving),
      figure(`${bytes} bytes, serving INIC, ${BURST} in a row`, servingBurst),
    ]),
  ]
}

/** Bars of a debug session. */
const LEAST_RATE = 1 / 3
const LONGEST_CONDITION_US = 5
const LONGEST_STEP_BACK_SECONDS = 1

const measureDebugging: Measure = async (size) => {
  const { runs, debugRounds: rounds, slices } = size
  const figures = await measureDebugger({ firmware: farmFirmware(), rounds, runs, slices })
  const figure = (name: string, value: number, unit: string): BenchFigure => ({ case: 'debug', name, value, unit })
  return [
    {
      ...figure('rate with a session and no breakpoint, of that without', figures.attachedRate, 'times'),
      ...{ bar: 'at least a third', reached: figures.attachedRate >= LEAST_RATE },
    },
    figure('rate with a breakpoint that is not met, of that without', figures.armedRate, 'times'),
    {
      ...figure('a condition on a hot line', figures.conditionUs, 'µs'),
      ...{ bar: `at most ${LONGEST_CONDITION_US} µs`, reached: figures.conditionUs <= LONGEST_CONDITION_US },
    },
    {
      ...figure(`a step back from slice ${figures.slices.toLocaleString('en')}`, figures.stepBackSeconds, 's'),
      ...{
        bar: `at most ${LONGEST_STEP_BACK_SECONDS} s`,
        reached: figures.stepBackSeconds <= LONGEST_STEP_BACK_SECONDS,
      },
    },
  ]
}

const MEASURES: Readonly<Record<string, { summary: string; measure: Measure }>> = {
  connections: { summary: 'connections a second: 100 bytes, 300 back, orderly close', measure: measureConnections },
  'round-trip': { summary: '64-byte ping-pong over one connection', measure: measureRoundTrip },
  bulk: { summary: 'one connection at full speed, and what a frame costs by part', measure: measureBulk },
  idle: { summary: 'memory of established connections that do nothing', measure: measureIdle },
  blackout: {
    summary: 'live migration: how long the client hears nothing, in virtual time',
    measure: measureMigration,
  },
  debug: { summary: 'what a debug session costs: rate, conditions, going back', measure: measureDebugging },
  forwards: { summary: 'forwarding: fuel by connection and by packet', measure: measureForwarding },
}

/** Puts a peer's figures beside ours of the same kind. */
function withPeers(figures: BenchFigure[], peers: readonly PeerFigure[]): BenchFigure[] {
  const kinds: Record<string, string> = { bulk: 'Gbit/s', conn_64: '1/s', rtt_mean: 'µs' }
  const cases: Record<string, string> = { bulk: 'bulk', conn_64: 'connections', rtt_mean: 'round-trip' }
  const added = peers.flatMap((peer): BenchFigure[] => {
    const ours = figures.find((figure) => figure.case === cases[peer.bench] && figure.unit === kinds[peer.bench])
    if (ours === undefined) return []
    const beside = { case: ours.case, name: ours.name, value: ours.value, unit: ours.unit }
    const reference = { name: peer.peer, value: peer.median }
    if (peer.bench !== 'bulk') return [{ ...beside, reference }]
    return [{ ...beside, reference, bar: 'ahead of the peer', reached: ours.value > peer.median }]
  })
  return [...figures, ...added]
}

async function run(options: BenchOptions): Promise<BenchReport> {
  const missing = [FIRMWARE, LAYOUTS].find((file) => !existsSync(file))
  if (missing !== undefined) throw new Error(`there is no ${missing}: inic build --release makes it`)
  const size = options.quick ? QUICK : FULL
  const figures: BenchFigure[] = []
  for (const name of options.cases) {
    options.onProgress(name)
    figures.push(...(await MEASURES[name].measure(size)))
  }
  const peers: PeerFigure[] = []
  for (const command of options.peers) {
    options.onProgress(command)
    peers.push(...(await runPeer(command)))
  }
  const environment = {
    cpu: availableCpu(),
    processor: cpus()[0].model,
    cores: cpus().length,
    node: process.version,
    runs: size.runs * size.children,
  }
  return { figures: withPeers(figures, peers), environment }
}

export const engine: BenchEngine = {
  cases: Object.entries(MEASURES).map(([name, { summary }]) => ({ name, summary })),
  run,
}
