/**
 * A door from this machine into the farm: a port of the machine whose connections are carried on by a card.
 *
 *     client ══ kernel's TCP ══▶ [ gateway ] ══ the card's TCP ══▶ server of the farm
 *
 * Bytes go both ways under backpressure, and an end, a reset or an error on one side becomes the same on the other. The
 * card's side is any `connect` with the shape of node:net's.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { STATUS_ECONNRESET } from '../abi/status.ts'
import { systemError } from './errors.ts'

/** Where the card's connections go. */
export interface GatewayTarget {
  readonly host: string
  readonly port: number
}

export interface GatewayOptions {
  /** Address of this machine that is listened on. */
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  readonly target: GatewayTarget
  /** Opens a connection on the card. Half-open connections are kept, as `allowHalfOpen` asks. */
  readonly connect: (options: GatewayTarget & { allowHalfOpen: true }) => Socket
  /** Connections at once; further ones are closed. */
  readonly maximumConnections?: number
}

/** Free-running counters, but for `active`. */
export interface GatewayStatistics {
  /** Connections that are being carried. */
  active: number
  accepted: number
  /** Closed at once because `maximumConnections` were open. */
  dropped: number
  /** Accepted here and not reached in the farm; the client was reset. */
  unreachable: number
  /** Carried, and then ended by an error or a reset on either side. */
  reset: number
  bytesToFarm: number
  bytesFromFarm: number
  /** How often each error code was met, on either side. */
  errors: Record<string, number>
}

const DEFAULT_MAXIMUM_CONNECTIONS = 16384

export class Gateway {
  readonly statistics: GatewayStatistics = {
    active: 0,
    accepted: 0,
    dropped: 0,
    unreachable: 0,
    reset: 0,
    bytesToFarm: 0,
    bytesFromFarm: 0,
    errors: {},
  }

  readonly #options: GatewayOptions
  readonly #server: Server
  readonly #open = new Set<Socket>()

  private constructor(options: GatewayOptions) {
    this.#options = options
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
    this.#server.maxConnections = options.maximumConnections ?? DEFAULT_MAXIMUM_CONNECTIONS
    this.#server.on('drop', () => this.statistics.dropped++)
    this.#server.on('connection', (client) => this.#carry(client))
  }

  /** Listens; rejects with the error of node:net if it cannot (EADDRINUSE, EACCES, ...). */
  static open(options: GatewayOptions): Promise<Gateway> {
    const gateway = new Gateway(options)
    return new Promise((resolve, reject) => {
      gateway.#server.once('error', reject)
      gateway.#server.listen({ host: options.host, port: options.port }, () => {
        gateway.#server.off('error', reject)
        // Later errors are of single connections (EMFILE): they are counted, and the door stays open.
        gateway.#server.on('error', (error) => gateway.#count(error))
        resolve(gateway)
      })
    })
  }

  /** The address and port that is listened on. */
  get address(): AddressInfo {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('the gateway is closed')
    return address
  }

  /** Takes no more connections and resets those that are open. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve())
      for (const socket of this.#open) reset(socket)
    })
  }

  #carry(client: Socket): void {
    const { statistics } = this
    statistics.accepted++
    statistics.active++
    const card = this.#options.connect({ ...this.#options.target, allowHalfOpen: true })
    let connected = false
    let failed = false

    const fail = (error?: Error) => {
      if (error) this.#count(error)
      if (failed) return
      failed = true
      if (connected) statistics.reset++
      else statistics.unreachable++
      // Only a reset says to the other side what happened here; an orderly end would pass a cut stream off as a whole one.
      reset(client)
      reset(card)
    }
    let closed = 0
    const close = (socket: Socket) => {
      this.#open.delete(socket)
      // Closed before its stream ended: its peer went away without a word that would have become an error.
      if (!socket.readableEnded || !socket.writableFinished) fail()
      if (++closed < 2) return
      statistics.active--
      statistics.bytesToFarm += client.bytesRead
      statistics.bytesFromFarm += client.bytesWritten
    }
    for (const socket of [client, card]) {
      this.#open.add(socket)
      socket.on('error', fail)
      socket.once('close', () => close(socket))
    }
    card.once('connect', () => {
      connected = true
      card.setNoDelay(true)
      client.once('end', () => {
        if (wasReset(client)) fail(systemError(STATUS_ECONNRESET, 'read'))
      })
      // pipe() stops reading where the other side does not take, and passes an end on; neither buffers more than its mark.
      client.pipe(card)
      card.pipe(client)
    })
  }

  #count(error: Error & { code?: string }): void {
    const code = error.code ?? error.name
    this.statistics.errors[code] = (this.statistics.errors[code] ?? 0) + 1
  }
}

/**
 * Whether the end of `client` was a reset. libuv takes the two for the same where data and a reset are found at once (uv__stream_io, on
 * POLLHUP); the kernel knows no peer any more of a connection that was reset. Nor of one that we have ended first, which is over in order.
 */
function wasReset(client: Socket): boolean {
  return !client.writableEnded && client.remotePort === undefined
}

/**
 * Resets a connection. While its end is on the way to the kernel, which takes one turn of the event loop, libuv refuses to
 * (uv_tcp_close_reset: EINVAL), and Node.js then loses the socket without closing it: the process would never end.
 */
function reset(socket: Socket): void {
  const ending = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  if (ending) socket.once('finish', () => socket.resetAndDestroy())
  else socket.resetAndDestroy()
}
