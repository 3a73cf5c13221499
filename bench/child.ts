/** One side of one comparison, in a process of its own, so that neither side works in the heap that the other has left. */
import kernel from 'node:net'
import { makePair, type Pair, SERVER_IP } from './pair.ts'
import { bulk, connectionRate, type NetLike, roundTrip } from './programs.ts'

/** What the parent asks for: argv[2], as JSON. */
export interface ChildTask {
  readonly case: 'connections' | 'round-trip' | 'bulk'
  readonly side: 'inic' | 'kernel'
  readonly firmware: string
  readonly runs: number
  /** Connections, rounds or bytes of a run. */
  readonly amount: number
  readonly concurrent: number
}

/** What it prints, as JSON. */
export interface ChildResult {
  /** One value a run: connections a second, µs, Gbit/s. */
  readonly values: number[]
  /** 99th percentiles, where there are any. */
  readonly p99: number[]
  /** Bulk through the INICs: what a frame costs by part, nanoseconds, and frames a second; measured in one further run. */
  readonly parts: Record<string, number>
}

const LOOPBACK = '127.0.0.1'
/** They warm the compiler up, and do not count. */
const WARM_UP_RUNS = 2

async function measure(task: ChildTask, server: NetLike, client: NetLike, host: string): Promise<ChildResult> {
  const values: number[] = []
  const p99: number[] = []
  for (let run = -WARM_UP_RUNS; run < task.runs; run++) {
    let value: number
    if (task.case === 'connections') value = await connectionRate(server, client, host, task.amount, task.concurrent)
    else if (task.case === 'bulk') value = await bulk(server, client, host, task.amount)
    else {
      const times = await roundTrip(server, client, host, task.amount)
      value = times.mean
      if (run >= 0) p99.push(times.p99)
    }
    if (run >= 0) values.push(value)
  }
  return { values, p99, parts: {} }
}

async function bulkByParts({ farm, server, client }: Pair, bytes: number): Promise<Record<string, number>> {
  const frames = () => client.board.statistics().ports[0].txFrames
  const before = frames()
  farm.setProfiling(true)
  const started = process.hrtime.bigint()
  await bulk(server.net, client.net, SERVER_IP, bytes)
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  const profile = farm.profile
  farm.setProfiling(false)
  const sent = frames() - before
  if (profile === null) return {}
  const { firmwareNs, linkNs, dmaNs, hostNs } = profile
  return {
    framesPerSecond: sent / seconds,
    firmware: firmwareNs / sent,
    link: linkNs / sent,
    DMA: dmaNs / sent,
    host: hostNs / sent,
  }
}

async function run(task: ChildTask): Promise<ChildResult> {
  if (task.side === 'kernel') return measure(task, kernel, kernel, LOOPBACK)
  const pair = makePair({ firmware: task.firmware, cpu: 'auto' })
  const result = await measure(task, pair.server.net, pair.client.net, SERVER_IP)
  const parts = task.case === 'bulk' ? await bulkByParts(pair, task.amount) : {}
  await pair.close()
  return { ...result, parts }
}

process.stdout.write(JSON.stringify(await run(JSON.parse(process.argv[2]))))
