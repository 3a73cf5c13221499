import { existsSync } from 'node:fs'
import kernel from 'node:net'
import { cpus } from 'node:os'
import { availableCpu } from '../emulator/cpu/index.ts'
import type { BenchEngine, BenchFigure, BenchOptions, BenchReport } from '../toolchain/bench-engine.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { idleConnections } from './idle.ts'
import { makePair, type Pair, SERVER_IP } from './pair.ts'
import { type PeerFigure, runPeer } from './peer.ts'
import { bulk, connectionRate, roundTrip } from './programs.ts'
import { median } from './statistics.ts'

/** Address of the kernel's side of every comparison. */
const LOOPBACK = '127.0.0.1'
const CONCURRENT = 64
/** Bytes of an Ethernet frame with a full segment, as the link counts them. */
const FULL_FRAME_BYTES = 1514

const FIRMWARE = `${packageRoot}/build/release/firmware.wasm`
const LAYOUTS = `${packageRoot}/build/release/firmware.layouts.json`

interface Size {
  readonly runs: number
  readonly connections: number
  readonly rounds: number
  readonly bytes: number
  readonly idle: number
}

const FULL: Size = { runs: 5, connections: 30_000, rounds: 50_000, bytes: 1 << 30, idle: 10_000 }
const QUICK: Size = { runs: 2, connections: 5_000, rounds: 10_000, bytes: 1 << 28, idle: 2_000 }

type Measure = (pair: Pair, size: Size) => Promise<BenchFigure[]>

/** Ours and the kernel's by turns, so that what else the machine does hits both. */
async function alternate(
  runs: number,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<[number, number]> {
  const a: number[] = []
  const b: number[] = []
  // The first round warms the compiler up and does not count.
  for (let run = -1; run < runs; run++) {
    const mine = await ours()
    const other = await theirs()
    if (run < 0) continue
    a.push(mine)
    b.push(other)
  }
  return [median(a), median(b)]
}

const measureConnections: Measure = async ({ server, client }, size) => {
  const [ours, theirs] = await alternate(
    size.runs,
    () => connectionRate(server.net, client.net, SERVER_IP, size.connections, CONCURRENT),
    () => connectionRate(kernel, kernel, LOOPBACK, size.connections / 3, CONCURRENT),
  )
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

const measureRoundTrip: Measure = async ({ server, client }, size) => {
  const p99: number[] = []
  const [ours, theirs] = await alternate(
    size.runs,
    async () => {
      const result = await roundTrip(server.net, client.net, SERVER_IP, size.rounds)
      p99.push(result.p99)
      return result.mean
    },
    async () => (await roundTrip(kernel, kernel, LOOPBACK, size.rounds)).mean,
  )
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
    { case: 'round-trip', name: '64 bytes there and back, 99th percentile', value: median(p99), unit: 'µs' },
  ]
}

const measureBulk: Measure = async ({ farm, server, client }, size) => {
  const [ours, theirs] = await alternate(
    size.runs,
    () => bulk(server.net, client.net, SERVER_IP, size.bytes),
    () => bulk(kernel, kernel, LOOPBACK, size.bytes),
  )
  const framesBefore = sentFrames(client)
  farm.setProfiling(true)
  const started = process.hrtime.bigint()
  await bulk(server.net, client.net, SERVER_IP, size.bytes)
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  const profile = farm.profile
  farm.setProfiling(false)
  const frames = sentFrames(client) - framesBefore
  const figures: BenchFigure[] = [
    {
      case: 'bulk',
      name: 'one connection, MTU 1500',
      value: ours,
      unit: 'Gbit/s',
      reference: { name: 'kernel, MTU 65536', value: theirs },
    },
    { case: 'bulk', name: `frames of ${FULL_FRAME_BYTES} bytes, while profiled`, value: frames / seconds, unit: '1/s' },
  ]
  if (profile !== null) {
    for (const [part, ns] of [
      ['firmware', profile.firmwareNs],
      ['link', profile.linkNs],
      ['DMA', profile.dmaNs],
      ['host', profile.hostNs],
    ] as const)
      figures.push({ case: 'bulk', name: `${part}, both ends`, value: ns / frames, unit: 'ns/frame' })
  }
  return figures
}

function sentFrames({ board }: Pair['client']): number {
  return board.statistics().ports[0].txFrames
}

const measureIdle: Measure = async (pair, size) => {
  const { connections, hostBytes, cardBytes } = await idleConnections(pair, size.idle, LAYOUTS)
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

const MEASURES: Readonly<Record<string, { summary: string; measure: Measure }>> = {
  connections: { summary: 'connections a second: 100 bytes, 300 back, orderly close', measure: measureConnections },
  'round-trip': { summary: '64-byte ping-pong over one connection', measure: measureRoundTrip },
  bulk: { summary: 'one connection at full speed, and what a frame costs by part', measure: measureBulk },
  idle: { summary: 'memory of established connections that do nothing', measure: measureIdle },
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
  const cpu = availableCpu()
  const pair = makePair({ firmware: FIRMWARE, cpu })
  try {
    const figures: BenchFigure[] = []
    for (const name of options.cases) {
      options.onProgress(name)
      figures.push(...(await MEASURES[name].measure(pair, size)))
    }
    const peers: PeerFigure[] = []
    for (const command of options.peers) {
      options.onProgress(command)
      peers.push(...(await runPeer(command)))
    }
    const environment = {
      cpu,
      processor: cpus()[0].model,
      cores: cpus().length,
      node: process.version,
      runs: size.runs,
    }
    return { figures: withPeers(figures, peers), environment }
  } finally {
    await pair.close()
  }
}

export const engine: BenchEngine = {
  cases: Object.entries(MEASURES).map(([name, { summary }]) => ({ name, summary })),
  run,
}
