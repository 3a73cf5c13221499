import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { availableCpu } from '../emulator/cpu/index.ts'
import type { BenchEngine, BenchFigure, BenchOptions, BenchReport } from '../toolchain/bench-engine.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import type { FarmFirmware } from '../toolchain/soak/virtual-farm.ts'
import { measureBlackout } from './blackout.ts'
import type { ChildResult, ChildTask } from './child.ts'
import { measureForwards } from './forwards.ts'
import { idleConnections } from './idle.ts'
import { makePair } from './pair.ts'
import { type PeerFigure, runPeer } from './peer.ts'
import { median } from './statistics.ts'

const CONCURRENT = 64

const FIRMWARE = `${packageRoot}/build/release/firmware.wasm`
const LAYOUTS = `${packageRoot}/build/release/firmware.layouts.json`

interface Size {
  readonly runs: number
  readonly connections: number
  readonly rounds: number
  readonly bytes: number
  readonly idle: number
  readonly migrations: number
  readonly forwards: number
}

const FULL: Size = {
  runs: 3,
  connections: 30_000,
  rounds: 50_000,
  bytes: 1 << 30,
  idle: 10_000,
  migrations: 10_000,
  forwards: 100_000,
}
const QUICK: Size = {
  runs: 1,
  connections: 5_000,
  rounds: 10_000,
  bytes: 1 << 28,
  idle: 2_000,
  migrations: 1_000,
  forwards: 10_000,
}

type Measure = (size: Size) => Promise<BenchFigure[]>

/** Rounds of ours and the kernel's by turns, so that what else the machine does hits both. */
const ROUNDS = 2
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
  runs: number,
  amount: number,
  kernelAmount = amount,
): Promise<Comparison> {
  const ours: number[] = []
  const theirs: number[] = []
  const p99: number[] = []
  let parts = {}
  const task = { case: name, firmware: FIRMWARE, runs, concurrent: CONCURRENT }
  for (let round = 0; round < ROUNDS; round++) {
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
  const { ours, theirs } = await compare('connections', size.runs, size.connections, Math.ceil(size.connections / 3))
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
  const { ours, theirs, p99 } = await compare('round-trip', size.runs, size.rounds)
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
  const { ours, theirs, parts } = await compare('bulk', size.runs, size.bytes)
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
const MAXIMUM_BLACKOUT_NS = 20_000
const MAXIMUM_BLOCK_NS = 5000
const FORWARD_SAMPLES = 9

const measureMigration: Measure = async (size) => {
  const options = { firmware: farmFirmware(), migrations: size.migrations, hostLatencyNs: HOST_LATENCY_NS }
  const { spacingNs, blackoutNs, giveNs, takeNs } = await measureBlackout(options)
  const mean = (values: readonly number[]) => Math.round(values.reduce((sum, value) => sum + value, 0) / values.length)
  const p99 = (values: readonly number[]) => values[Math.floor(values.length * 0.99)]
  const figure = (name: string, value: number): BenchFigure => ({ case: 'blackout', name, value, unit: 'ns, virtual' })
  const bounded = (name: string, value: number, most: number, bar: string): BenchFigure => ({
    ...figure(name, value),
    bar,
    reached: value <= most,
  })
  const at20 = 'at most 20 µs'
  return [
    figure(`spacing of segments, an interrupt ${HOST_LATENCY_NS} ns`, spacingNs),
    bounded(`blackout beyond it, mean of ${blackoutNs.length} migrations`, mean(blackoutNs), MAXIMUM_BLACKOUT_NS, at20),
    bounded('blackout beyond it, 99th percentile', p99(blackoutNs), MAXIMUM_BLACKOUT_NS, at20),
    figure('the whole slice that sends the control block, mean', mean(giveNs)),
    bounded('the whole slice that builds the endpoint, mean', mean(takeNs), MAXIMUM_BLOCK_NS, 'at most 5 µs'),
  ]
}

const measureForwarding: Measure = async (size) => {
  const options = { firmware: farmFirmware(), connections: size.forwards, samples: FORWARD_SAMPLES }
  const { byPlace, packets } = await measureForwards(options)
  const [first, last] = [byPlace[0].fuel, byPlace[byPlace.length - 1].fuel]
  const figure = (name: string, value: number, unit = 'fuel'): BenchFigure => ({ case: 'forwards', name, value, unit })
  return [
    ...byPlace.map(({ place, fuel }) => figure(`a packet of connection ${place}`, fuel)),
    { ...figure('last beside first', last / first, 'times'), bar: 'below 2', reached: last < 2 * first },
    ...packets.flatMap(({ bytes, entryBurst, servingBurst }) => [
      figure(`${bytes} bytes, of many in a row, entry INIC`, entryBurst),
      figure(`${bytes} bytes, of many in a row, serving INIC`, servingBurst),
    ]),
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
    runs: size.runs * ROUNDS,
  }
  return { figures: withPeers(figures, peers), environment }
}

export const engine: BenchEngine = {
  cases: Object.entries(MEASURES).map(([name, { summary }]) => ({ name, summary })),
  run,
}
