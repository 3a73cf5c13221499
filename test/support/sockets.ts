import { once } from 'node:events'
import type net from 'node:net'
import type { Network } from './network.ts'

/** A listening server and its port. */
export async function listen(
  network: Network,
  options: net.ServerOpts = {},
  onConnection?: (socket: net.Socket) => void,
): Promise<{ server: net.Server; port: number }> {
  const server = network.server.createServer(options, onConnection)
  server.on('connection', (socket) => socket.on('error', () => {}))
  server.listen(0, network.address)
  await once(server, 'listening')
  return { server, port: (server.address() as net.AddressInfo).port }
}

export interface Pair {
  readonly server: net.Server
  readonly port: number
  /** The end that connected. */
  readonly client: net.Socket
  /** The end that was accepted. */
  readonly peer: net.Socket
}

/**
 * A connection, both ends of it. The client says `hello` (one byte, consumed here), because a card may keep a silent connection to itself;
 * both ends are left paused, with nothing in them.
 */
export async function pair(
  network: Network,
  options: { server?: net.ServerOpts; client?: Partial<net.NetConnectOpts> & net.SocketConstructorOpts } = {},
): Promise<Pair> {
  const { server, port } = await listen(network, options.server)
  const client = network.client.connect({ port, host: network.address, ...options.client } as net.NetConnectOpts)
  const accepted = once(server, 'connection') as Promise<[net.Socket]>
  await once(client, 'connect')
  client.write('!')
  const [peer] = await accepted
  while (peer.read(1) === null) await once(peer, 'readable')
  server.close()
  // A test that expects an error waits for it; the other end's is none of its business.
  client.on('error', () => {})
  peer.on('error', () => {})
  return { server, port, client, peer }
}

/** Notes the names of events as they come. */
export function record(
  emitter: NodeJS.EventEmitter,
  names: readonly string[],
  into: string[] = [],
  prefix = '',
): string[] {
  for (const name of names)
    emitter.on(name, (...args) =>
      into.push(prefix + name + (name === 'close' && args[0] === true ? ' with error' : '')),
    )
  return into
}

/** Everything until the end; leaves the socket as it is then. Rejects if it closes before. */
export function readAll(socket: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  return new Promise((resolve, reject) => {
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.once('end', () => resolve(Buffer.concat(chunks)))
    socket.once('error', reject)
    socket.once('close', () => reject(new Error('closed before the end')))
  })
}

/** `count` bytes that differ everywhere: byte i depends on i. */
export function pattern(count: number): Buffer {
  const bytes = Buffer.allocUnsafe(count)
  for (let i = 0, x = 1; i < count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    bytes[i] = x >>> 24
  }
  return bytes
}

/** Resolves when `emitter` has closed, whatever error came before. */
export function closed(emitter: NodeJS.EventEmitter): Promise<void> {
  emitter.on('error', () => {})
  return new Promise((resolve) => emitter.once('close', () => resolve()))
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A callback that notes how a write ended. */
export function noting(into: string[], name: string): (error?: Error | null) => void {
  return (error) => into.push(error ? `${name} ${(error as NodeJS.ErrnoException).code}` : name)
}

/** Events of a socket that tell how it fared. */
export const SOCKET_EVENTS = ['end', 'error', 'close', 'timeout', 'finish'] as const
