/**
 * What the main board's side costs: the driver and the sockets over cards that do nothing (test/support/fake-card.ts), server and client in one
 * process. usage: node dist/bench/host.js [conn|rtt|bulk|all]
 */
import { Driver } from '../host/driver/driver.ts'
import { createNet, type Net } from '../host/net.ts'
import { NO_REFERENCES, type Stack } from '../host/stack.ts'
import { wallClock } from '../host/worker/clock.ts'
import { FakeNetwork } from '../test/support/fake-network.ts'

// As the farm's loop does it: slices follow each other as ticks, and the event loop gets its turn now and then.
let slices = 0
const network = new FakeNetwork({
  defer: (slice) => ((++slices & 1023) === 0 ? setImmediate(slice) : process.nextTick(slice)),
})

function host(address: number): Net {
  const stack: Stack = {
    driver: new Driver(network.addCard(address)),
    clock: wallClock(),
    hosts: new Map(),
    references: NO_REFERENCES,
  }
  return createNet(stack)
}

const server = host(0x0a000001)
const client = host(0x0a000002)
const address = '10.0.0.1'

/** Connections a second: 100-byte request, 300-byte reply, orderly close, `concurrent` at a time (peers/kernel/conn.mjs). */
async function connections(total: number, concurrent: number): Promise<number> {
  const request = Buffer.alloc(100, 'r')
  const reply = Buffer.alloc(300, 'p')
  const listener = server.createServer({ noDelay: true }, (socket) => {
    let got = 0
    socket.on('data', (data) => {
      got += data.length
      if (got >= 100) {
        got -= 100
        socket.write(reply)
      }
    })
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => listener.listen(7010, resolve))
  const one = () =>
    new Promise<void>((resolve, reject) => {
      let got = 0
      const socket = client.connect({ host: address, port: 7010, noDelay: true }, () => socket.write(request))
      socket.on('data', (data) => {
        got += data.length
        if (got >= 300) socket.end()
      })
      socket.on('close', (failed) => (failed || got !== 300 ? reject(new Error('bad close')) : resolve()))
      socket.on('error', reject)
    })
  let left = total
  const start = process.hrtime.bigint()
  const lane = async () => {
    while (left-- > 0) await one()
  }
  await Promise.all(Array.from({ length: concurrent }, lane))
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  await new Promise((resolve) => listener.close(resolve))
  return total / seconds
}

/** Mean microseconds of a 64-byte ping-pong (peers/kernel/rtt.mjs). */
async function roundTrip(count: number): Promise<number> {
  const listener = server.createServer({ noDelay: true }, (socket) => {
    socket.on('data', (data) => socket.write(data))
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => listener.listen(7011, resolve))
  const message = Buffer.alloc(64, 1)
  const socket = client.connect({ host: address, port: 7011, noDelay: true })
  const mean = await new Promise<number>((resolve) => {
    let got = 0
    let turns = -count / 10
    let start = 0n
    socket.on('connect', () => socket.write(message))
    socket.on('data', (data) => {
      got += data.length
      if (got < 64) return
      got = 0
      if (turns === 0) start = process.hrtime.bigint()
      if (++turns < count) socket.write(message)
      else resolve(Number(process.hrtime.bigint() - start) / count / 1e3)
    })
  })
  socket.destroy()
  await new Promise((resolve) => listener.close(resolve))
  return mean
}

/** Gbit/s of one connection, 64 KiB writes. */
async function bulk(bytes: number): Promise<number> {
  const block = Buffer.alloc(65536, 'b')
  let received = 0
  const listener = server.createServer((socket) => {
    socket.on('data', (data) => {
      received += data.length
    })
  })
  await new Promise<void>((resolve) => listener.listen(7012, resolve))
  const socket = client.connect({ host: address, port: 7012 })
  const start = process.hrtime.bigint()
  let sent = 0
  const pump = () => {
    while (sent < bytes) {
      sent += block.length
      if (!socket.write(block)) return void socket.once('drain', pump)
    }
    socket.end()
  }
  pump()
  await new Promise((resolve) => socket.on('close', resolve))
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  await new Promise((resolve) => listener.close(resolve))
  return (received * 8) / seconds / 1e9
}

/** Runs `work` and returns its result and the processor time that it took, microseconds: the wall tells of the machine's other work too. */
async function timed(work: Promise<number>): Promise<[result: number, cpuUs: number]> {
  const before = process.cpuUsage()
  const result = await work
  const { user, system } = process.cpuUsage(before)
  return [result, user + system]
}

const what = process.argv[2] ?? 'all'
const CONNECTIONS = 40_000
const TURNS = 200_000
for (let run = 0; run < 3; run++) {
  if (what === 'conn' || what === 'all') {
    const [rate, cpuUs] = await timed(connections(CONNECTIONS, 64))
    console.log(
      `connections: ${rate.toFixed(0)}/s; ${(cpuUs / CONNECTIONS).toFixed(2)} us of processor each, both sides`,
    )
  }
  if (what === 'rtt' || what === 'all') {
    const [mean, cpuUs] = await timed(roundTrip(TURNS))
    console.log(`64-byte round trip: ${mean.toFixed(2)} us; ${(cpuUs / (TURNS * 1.1)).toFixed(2)} us of processor`)
  }
  if (what === 'bulk' || what === 'all') console.log(`bulk: ${(await bulk(2 ** 30)).toFixed(1)} Gbit/s`)
}
