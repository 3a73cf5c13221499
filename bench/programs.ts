import { once } from 'node:events'
import type net from 'node:net'

/** What the programs below need of `node:net`; ours and the kernel's both have it. */
export type NetLike = Pick<typeof net, 'createServer' | 'connect'>

const REQUEST = Buffer.alloc(100, 'r')
const REPLY = Buffer.alloc(300, 'p')
const PING = Buffer.alloc(64, 1)
const BLOCK = Buffer.alloc(65536, 0x5a)

async function listen(net: NetLike, host: string, onConnection: (socket: net.Socket) => void): Promise<net.Server> {
  const server = net.createServer({ noDelay: true }, onConnection)
  server.listen({ port: 0, host, backlog: 4096 })
  await once(server, 'listening')
  return server
}

function portOf(server: net.Server): number {
  return (server.address() as net.AddressInfo).port
}

async function close(server: net.Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  await closed
}

/**
 * Connections a second: each sends 100 bytes, takes 300, and closes in order.
 *
 * @param total connections
 * @param concurrent how many at a time
 */
export async function connectionRate(
  server: NetLike,
  client: NetLike,
  host: string,
  total: number,
  concurrent: number,
): Promise<number> {
  const listening = await listen(server, host, (socket) => {
    let received = 0
    socket.on('data', (data) => {
      received += data.length
      if (received < REQUEST.length) return
      received -= REQUEST.length
      socket.write(REPLY)
    })
  })
  const port = portOf(listening)
  const one = () =>
    new Promise<void>((resolve, reject) => {
      let received = 0
      const socket = client.connect({ host, port, noDelay: true }, () => socket.write(REQUEST))
      socket.on('data', (data) => {
        received += data.length
        if (received >= REPLY.length) socket.end()
      })
      socket.on('close', (hadError) =>
        hadError || received !== REPLY.length ? reject(new Error(`closed after ${received} bytes`)) : resolve(),
      )
      socket.on('error', reject)
    })
  let left = total
  const started = process.hrtime.bigint()
  await Promise.all(
    Array.from({ length: concurrent }, async () => {
      while (left-- > 0) await one()
    }),
  )
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  await close(listening)
  return total / seconds
}

/** Round trip of 64 bytes, microseconds: mean and 99th percentile of `rounds`, after a tenth as many to warm up. */
export async function roundTrip(
  server: NetLike,
  client: NetLike,
  host: string,
  rounds: number,
): Promise<{ mean: number; p99: number }> {
  const listening = await listen(server, host, (socket) => socket.on('data', (data) => socket.write(data)))
  const socket = client.connect({ host, port: portOf(listening), noDelay: true })
  await once(socket, 'connect')
  const samples = new Float64Array(rounds)
  await new Promise<void>((resolve, reject) => {
    let round = -Math.floor(rounds / 10)
    let received = 0
    let started = 0n
    const ping = () => {
      started = process.hrtime.bigint()
      socket.write(PING)
    }
    socket.on('error', reject)
    socket.on('data', (data) => {
      received += data.length
      if (received < PING.length) return
      received = 0
      if (round >= 0) samples[round] = Number(process.hrtime.bigint() - started) / 1e3
      if (++round < rounds) ping()
      else resolve()
    })
    ping()
  })
  socket.destroy()
  await close(listening)
  const mean = samples.reduce((a, b) => a + b) / rounds
  samples.sort()
  return { mean, p99: samples[Math.floor(rounds * 0.99)] }
}

/** One connection carries `bytes` from client to server; Gbit/s of payload. */
export async function bulk(server: NetLike, client: NetLike, host: string, bytes: number): Promise<number> {
  let received = 0
  let done = () => {}
  const finished = new Promise<void>((resolve) => {
    done = resolve
  })
  const listening = await listen(server, host, (socket) => {
    socket.on('data', (data) => {
      received += data.length
    })
    socket.on('end', done)
  })
  const socket = client.connect({ host, port: portOf(listening) })
  await once(socket, 'connect')
  const started = process.hrtime.bigint()
  let sent = 0
  const fill = () => {
    while (sent < bytes) {
      const size = Math.min(BLOCK.length, bytes - sent)
      sent += size
      if (!socket.write(size === BLOCK.length ? BLOCK : BLOCK.subarray(0, size))) return
    }
    socket.end()
  }
  socket.on('drain', fill)
  fill()
  await finished
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  await close(listening)
  if (received !== bytes) throw new Error(`${received} of ${bytes} bytes arrived`)
  return (bytes * 8) / seconds / 1e9
}
