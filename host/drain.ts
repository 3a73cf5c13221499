import diagnostics from 'node:diagnostics_channel'
import type http from 'node:http'
import type net from 'node:net'
import tls from 'node:tls'
import { type DrainObserver, kDrain, type ServerAccount, type StreamEndpoint } from './endpoint.ts'
import { nodeError } from './errors.ts'
import { followSessions, type GracefulEnd, gracefulEndOf } from './graceful-end.ts'
import { collectDestroyed, kEndpoint, type Socket } from './socket.ts'
import { resolveServer, type Stack } from './stack.ts'

/** A connection that could not move is tried again after this. */
const RETRY_NS = 200e6
/** How often a process that is being drained looks for servers with connections. */
const LOOK_NS = 100e6

// What Node's HTTP publishes (node:diagnostics_channel).
const requestStarted = 'http.server.request.start'
const responseFinished = 'http.server.response.finish'

interface HttpMessage {
  readonly server: net.Server
  readonly socket: net.Socket
  readonly response: http.ServerResponse
}

/** The stack that a server listens on, or has listened on. */
const stacks = new WeakMap<net.Server, Stack>()

/** `server` listens on `stack`. */
export function enroll(server: net.Server, stack: Stack): void {
  stacks.set(server, stack)
  followSessions(server)
}

/**
 * `net.Server.prototype.drain`: moves the connections of `server` away, until none is left or `timeoutMs` is over. Rejects for a server that never
 * listened on the card, and with ENOTFOUND for a target that is not there.
 */
export async function drainServer(server: net.Server, options: net.DrainOptions = {}): Promise<net.DrainResult> {
  const stack = stacks.get(server)
  if (stack === undefined) throw nodeError(Error, 'ERR_SERVER_NOT_RUNNING', 'Server is not running.')
  if (options.to !== undefined) resolveServer(stack, options.to)
  const drain = ServerDrain.hold(server, stack, options.to)
  const before = drain.moved
  await new Promise<void>((resolve) => {
    const timer =
      options.timeoutMs === undefined ? null : stack.clock.schedule(options.timeoutMs * 1e6, () => resolve())
    drain.whenEmpty(() => {
      if (timer !== null) stack.clock.clear(timer)
      resolve()
    })
  })
  drain.release()
  return { moved: drain.moved - before, left: drain.connections }
}

/** What has become of a drain. */
export interface DrainCount {
  readonly moved: number
  readonly left: number
}

/** Moves the connections of all servers of a process away, as `server.drain` does for one. */
export class ProcessDrain {
  readonly #stack: Stack
  readonly #drains = new Map<net.Server, ServerDrain>()
  #to: string | undefined
  #timer: number | null = null

  constructor(stack: Stack) {
    this.#stack = stack
  }

  /** Begins, and goes on until `end`. `to`: name or address of a server; undefined: the card chooses. */
  begin(to?: string): void {
    if (this.#timer !== null && this.#to === to) return
    this.end()
    this.#to = to
    this.#look()
  }

  end(): void {
    if (this.#timer !== null) this.#stack.clock.clear(this.#timer)
    this.#timer = null
    for (const drain of this.#drains.values()) drain.release()
    this.#drains.clear()
  }

  count(): DrainCount {
    let moved = 0
    for (const drain of this.#drains.values()) moved += drain.moved
    return { moved, left: socketsOf(this.#stack).filter((socket) => socket.server !== null).length }
  }

  #look(): void {
    this.#timer = this.#stack.clock.schedule(LOOK_NS, () => this.#look())
    for (const { server } of socketsOf(this.#stack)) {
      if (server !== null && !this.#drains.has(server))
        this.#drains.set(server, ServerDrain.hold(server, this.#stack, this.#to))
    }
  }
}

/** One server that is being drained, on behalf of one or several. */
class ServerDrain implements DrainObserver {
  moved = 0
  readonly #server: net.Server
  readonly #account: ServerAccount
  readonly #stack: Stack
  readonly #http: http.Server | null
  readonly #end: GracefulEnd | null
  /** What the application was asked about: connections, and responses of HTTP. */
  readonly #asked = new WeakSet<object>()
  readonly #onStart = (message: unknown) => {
    const { server, socket, response } = message as HttpMessage
    if (server !== this.#server || server.listenerCount('drain') === 0) return
    // Once its handler has run.
    process.nextTick(() => {
      if (this.#account[kDrain] === this && httpOf(socket)._httpMessage === response) this.#ask(socket as Socket)
    })
  }
  readonly #onFinish = (message: unknown) => {
    if ((message as HttpMessage).server === this.#server) this.#sweepSoon()
  }
  #to: string | undefined
  #holders = 0
  #whenEmpty: (() => void)[] = []
  #sweepDue = false
  #timer: number | null = null

  private constructor(server: net.Server, stack: Stack) {
    this.#server = server
    this.#account = server as unknown as ServerAccount
    this.#stack = stack
    this.#http = asHttpServer(server)
    this.#end = gracefulEndOf(server)
  }

  /** The drain of `server`, begun if there is none; `release` it. */
  static hold(server: net.Server, stack: Stack, to: string | undefined): ServerDrain {
    const account = server as unknown as ServerAccount
    const drain = (account[kDrain] as ServerDrain | undefined) ?? new ServerDrain(server, stack)
    drain.#to = to
    if (drain.#holders++ === 0) drain.#begin()
    return drain
  }

  release(): void {
    if (--this.#holders > 0) return
    this.#account[kDrain] = undefined
    if (this.#timer !== null) this.#stack.clock.clear(this.#timer)
    this.#end?.stop()
    if (this.#http === null) return
    diagnostics.unsubscribe(requestStarted, this.#onStart)
    diagnostics.unsubscribe(responseFinished, this.#onFinish)
    Reflect.deleteProperty(this.#http, 'closeIdleConnections')
  }

  get connections(): number {
    return this.#account._connections
  }

  /** Calls back once no connection is left. */
  whenEmpty(callback: () => void): void {
    if (this.connections === 0) callback()
    else this.#whenEmpty.push(callback)
  }

  joined(socket: Socket): void {
    if (this.#http === null) this.#ask(socket)
    else this.#sweepSoon()
  }

  left(moved: boolean): void {
    if (moved) this.moved++
    if (this.connections > 0) return
    const callbacks = this.#whenEmpty
    this.#whenEmpty = []
    for (const callback of callbacks) callback()
  }

  #begin(): void {
    this.#account[kDrain] = this
    if (this.#http !== null) {
      diagnostics.subscribe(requestStarted, this.#onStart)
      diagnostics.subscribe(responseFinished, this.#onFinish)
      // Node itself calls it too, from `close`: what would be closed for being idle can move as well.
      Object.defineProperty(this.#http, 'closeIdleConnections', { value: () => this.#sweep(), configurable: true })
      this.#sweep()
    }
    for (const socket of this.#sockets()) this.#ask(socket)
    this.#end?.begin()
  }

  /** Asks the application to hand `socket` over: once, or once for each response that is being sent. */
  #ask(socket: Socket): void {
    const about = httpOf(socket)._httpMessage ?? socket
    if (socket.destroyed || socket[kEndpoint].moving || this.#asked.has(about)) return
    this.#asked.add(about)
    this.#server.emit('drain', socket, this.#to)
  }

  /** A response has been sent: once Node has put it away, and before anything else comes, its connection may be idle. */
  #sweepSoon(): void {
    if (this.#sweepDue) return
    this.#sweepDue = true
    process.nextTick(() => {
      this.#sweepDue = false
      if (this.#account[kDrain] === this) this.#sweep()
    })
  }

  /** Moves every connection of an HTTP server that is between two requests. Which those are, Node's own `closeIdleConnections` knows. */
  #sweep(): void {
    const server = this.#http!
    const close = (Object.getPrototypeOf(server) as http.Server).closeIdleConnections
    const idle = new Set(collectDestroyed(() => close.call(server)))
    // It takes those on which no request has come yet for busy. Without a parser they are not HTTP's, but the application's own.
    for (const socket of this.#sockets()) if (socket.bytesRead === 0 && httpOf(socket).parser) idle.add(socket)
    for (const socket of idle) this.#move(socket)
  }

  #move(socket: Socket): void {
    if (socket.destroyed || socket.writableEnded || socket[kEndpoint].moving || httpOf(socket)._httpMessage) return
    socket.migrate(this.#to, undefined, { asNew: true }).catch(() => this.#sweepLater())
  }

  #sweepLater(): void {
    if (this.#timer !== null || this.#account[kDrain] !== this) return
    this.#timer = this.#stack.clock.schedule(RETRY_NS, () => {
      this.#timer = null
      this.#sweep()
    })
  }

  #sockets(): Socket[] {
    return socketsOf(this.#stack).filter((socket) => socket.server === this.#server)
  }
}

/** A connection has come to `server` between two requests, as if it had been here all the time: the keep-alive timeout runs. */
export function expectRequest(server: net.Server, socket: net.Socket): void {
  const httpServer = asHttpServer(server)
  if (httpServer === null || !httpServer.keepAliveTimeout || socket.destroyed) return
  socket.setTimeout(httpServer.keepAliveTimeout)
  socket.prependOnceListener('data', () => socket.setTimeout(httpServer.timeout))
}

/** Sockets of `stack` that are connected. */
function socketsOf(stack: Stack): Socket[] {
  return stack.driver.connections().flatMap(({ owner }) => (owner.endpoint as StreamEndpoint | undefined)?.socket ?? [])
}

/** What Node's HTTP keeps at a socket that it is in charge of: its parser, and the response that is being sent. */
function httpOf(socket: net.Socket): { readonly parser?: object | null; readonly _httpMessage?: object | null } {
  return socket as object
}

/** A server of plain HTTP/1: the bytes of its sockets are those that its parser sees, and it knows which are idle. */
function asHttpServer(server: net.Server): http.Server | null {
  return 'closeIdleConnections' in server && !(server instanceof tls.Server) ? (server as http.Server) : null
}
