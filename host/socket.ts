import diagnostics from 'node:diagnostics_channel'
import net from 'node:net'
import { addAbortSignal, Duplex, type DuplexOptions } from 'node:stream'
import { formatIPv4, parseIPv4 } from './addresses.ts'
import { type MoveTarget, type ServerAccount, StreamEndpoint, type WriteCallback, writableBuffer } from './endpoint.ts'
import { addressError, argumentTypeError, destroyedError, nodeError, validateAddress, validatePort } from './errors.ts'
import { isOnRead } from './on-read.ts'
import { lookupHost, resolveServer, type Stack } from './stack.ts'
import { encodeState } from './state.ts'
import { STATUS_EAFNOSUPPORT } from './status.ts'

export const kEndpoint: unique symbol = Symbol('inic.endpoint')

export type SocketOptions = net.SocketConstructorOpts &
  DuplexOptions & { noDelay?: boolean; keepAlive?: boolean; keepAliveInitialDelay?: number; onread?: unknown }
export type ConnectOptions = net.NetConnectOpts & { path?: string; timeout?: number }

/** net.Socket's own settings of its Duplex; they make writes arrive as strings, and leave 'close' to the socket. */
export const DUPLEX_DEFAULTS: DuplexOptions = {
  allowHalfOpen: false,
  emitClose: false,
  autoDestroy: true,
  decodeStrings: false,
}
const DUPLEX_HALF_OPEN: DuplexOptions = { ...DUPLEX_DEFAULTS, allowHalfOpen: true }

/** What Duplex knows of the options that an application may give a socket; all others are ours, or nobody's. */
const DUPLEX_OPTIONS = [
  'readable',
  'writable',
  'highWaterMark',
  'readableHighWaterMark',
  'writableHighWaterMark',
  'encoding',
  'defaultEncoding',
  'read',
  'write',
  'writev',
  'final',
  'destroy',
  'construct',
] as const

/** One of two shared objects, nearly always: a copy of the options costs more than the socket. */
function duplexOptions(options: SocketOptions): DuplexOptions {
  let duplex = options.allowHalfOpen ? DUPLEX_HALF_OPEN : DUPLEX_DEFAULTS
  const shared = duplex
  const given = options as Record<string, unknown>
  for (const name of DUPLEX_OPTIONS) {
    if (given[name] === undefined) continue
    if (duplex === shared) duplex = { ...shared }
    Object.assign(duplex, { [name]: given[name] })
  }
  return duplex
}

/**
 * A constructor with net.Socket's prototype and Duplex's body: net.Socket's own prepares for a handle of libuv, which a socket of the card
 * never has, and takes longer than all the rest of a connection's set-up in this file.
 */
function BareSocket(this: Duplex, options: DuplexOptions): void {
  Reflect.apply(Duplex as unknown as (options: DuplexOptions) => void, this, [options])
}
Object.setPrototypeOf(BareSocket.prototype, net.Socket.prototype)
Object.setPrototypeOf(BareSocket, net.Socket)
const Base = BareSocket as unknown as new (options: DuplexOptions) => net.Socket

/**
 * A `net.Socket` whose network is the card's. All of Node's documentation of `net.Socket` holds, but for: IPv4 alone, no file descriptors, no
 * Unix sockets. `_handle` is null, so whoever wants to read past the stream (TLS, HTTP) takes the stream instead.
 */
export class Socket extends Base {
  // Declared, not initialised: the constructor stores each once. Nothing here is #private, because in an unmodified program sockets that Node
  // has made become ours later (worker/patch.ts).
  declare readonly [kEndpoint]: StreamEndpoint
  declare connecting: boolean
  declare timeout?: number
  /** Members that Node's own modules read and write on any socket. */
  declare _hadError: boolean
  declare _parent: net.Socket | null
  declare _host: string | null
  declare server: net.Server | null
  declare _server: ServerAccount | null

  /** `duplexOptions` are taken as they are; use `createSocket` for what an application gave. */
  constructor(stack: Stack, duplexOptions: DuplexOptions = DUPLEX_DEFAULTS) {
    super(duplexOptions)
    this[kEndpoint] = new StreamEndpoint(this, stack)
    this.connecting = false
    this._hadError = false
    this._parent = null
    this._host = null
    this.server = null
    this._server = null
  }

  override connect(...args: unknown[]): this {
    const [options, callback] = normalizeConnect(args)
    if (callback !== null) this.once('connect', callback)
    const { port } = options as Partial<net.TcpNetConnectOpts>
    if (port === undefined && options.path == null) {
      throw nodeError(TypeError, 'ERR_MISSING_ARGS', 'The "options" or "port" or "path" argument must be specified')
    }
    const endpoint = this[kEndpoint]
    if (this.connecting || (endpoint.active && !this.destroyed)) return this
    if (options.path) {
      process.nextTick(() => this.destroy(addressError(STATUS_EAFNOSUPPORT, 'connect', options.path!, undefined)))
      this.connecting = true
      return this
    }
    const target = validateTarget(options)
    if (this.destroyed) (this as unknown as { _undestroy(): void })._undestroy()
    this.connecting = true
    endpoint.touch()
    const address = parseIPv4(target.host)
    if (address >= 0) connectTo(this, address, target)
    else if (net.isIPv6(target.host)) {
      const error = addressError(STATUS_EAFNOSUPPORT, 'connect', target.host, target.port)
      process.nextTick(() => {
        if (this.connecting) this.destroy(error)
      })
    } else lookupAndConnect(this, target, options)
    return this
  }

  override pause(): this {
    this[kEndpoint].pauseOnRead()
    return super.pause()
  }

  override resume(): this {
    this[kEndpoint].resumeOnRead()
    return super.resume()
  }

  override read(size?: number): Buffer | string | null {
    const endpoint = this[kEndpoint]
    if (endpoint.moving) return null
    const chunk = super.read(size)
    if (endpoint.unsettled) endpoint.settle()
    return chunk
  }

  override _read(): void {
    // The card delivers by credit, not by request: `read` above returns it.
  }

  override write(
    chunk: Uint8Array | string,
    encoding?: BufferEncoding | WriteCallback,
    callback?: WriteCallback,
  ): boolean {
    if (this.writableEnded && this.readableEnded && !this.allowHalfOpen) return writeAfterFin(this, encoding, callback)
    // Nobody waits to hear of it and nothing is in front of it: bytes that the card takes whole need not pass through the Writable's
    // bookkeeping, nor leave a tick behind.
    if (
      callback === undefined &&
      chunk instanceof Uint8Array &&
      typeof encoding !== 'function' &&
      isIdle((this as unknown as { _writableState: WritableState })._writableState)
    ) {
      if (this[kEndpoint].writeWhole(chunk)) return true
    }
    return super.write(chunk, encoding as BufferEncoding, callback)
  }

  override _write(chunk: Uint8Array | string, encoding: BufferEncoding, callback: WriteCallback): void {
    this[kEndpoint].write(chunk, encoding, callback)
  }

  override _writev(chunks: { chunk: Uint8Array | string; encoding: BufferEncoding }[], callback: WriteCallback): void {
    this[kEndpoint].writev(chunks, callback)
  }

  override _final(callback: WriteCallback): void {
    this[kEndpoint].finish(callback)
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this[kEndpoint].destroy(error, callback)
  }

  override destroy(error?: Error): this {
    if (collection !== null && error === undefined) {
      collection.push(this)
      return this
    }
    return super.destroy(error)
  }

  override resetAndDestroy(): this {
    const endpoint = this[kEndpoint]
    if (!this.connecting && !endpoint.active)
      return this.destroy(nodeError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'))
    const reset = () => {
      endpoint.resetting = true
      this.destroy()
    }
    if (this.connecting) this.once('connect', reset)
    else reset()
    return this
  }

  override migrate(server?: string, state?: unknown, options: net.MigrateOptions = {}): Promise<void> {
    // Not an async function: what is written before this call goes along, and what is written after it does not.
    try {
      return this[kEndpoint].migrate(moveTarget(this, server, state, options))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  override setTimeout(timeout: number, callback?: () => void): this {
    if (this.destroyed) return this
    if (typeof timeout !== 'number') throw argumentTypeError('msecs', 'of type number', timeout)
    if (!(timeout >= 0 && Number.isFinite(timeout))) {
      throw nodeError(
        RangeError,
        'ERR_OUT_OF_RANGE',
        `The value of "msecs" is out of range. It must be a non-negative finite number. Received ${timeout}`,
      )
    }
    if (callback !== undefined && typeof callback !== 'function')
      throw argumentTypeError('callback', 'of type function', callback)
    this.timeout = timeout
    this[kEndpoint].setTimeout(timeout)
    if (callback !== undefined) {
      if (timeout === 0) this.removeListener('timeout', callback)
      else this.once('timeout', callback)
    }
    return this
  }

  /** Node's HTTP modules call it for every request: something happened, the idle timer starts over. */
  _unrefTimer(): void {
    this[kEndpoint].touch()
  }

  override setNoDelay(noDelay?: boolean): this {
    this[kEndpoint].setNoDelay(noDelay === undefined ? true : Boolean(noDelay))
    return this
  }

  override setKeepAlive(enable?: boolean, initialDelay = 0): this {
    this[kEndpoint].setKeepAlive(Boolean(enable), ~~(initialDelay / 1000))
    return this
  }

  override address(): net.AddressInfo | Record<string, never> {
    const connection = this[kEndpoint].connection
    if (connection === null || connection.connecting) return {}
    return { address: formatIPv4(connection.localAddress), family: 'IPv4', port: connection.localPort }
  }

  override ref(): this {
    this[kEndpoint].setReferenced(true)
    return this
  }

  override unref(): this {
    this[kEndpoint].setReferenced(false)
    return this
  }
}

/** While set, takes the sockets that would be destroyed. */
let collection: Socket[] | null = null

/** Runs `destroyer` and returns the sockets that it destroys without an error; none of them is. */
export function collectDestroyed(destroyer: () => void): Socket[] {
  const collected: Socket[] = []
  collection = collected
  try {
    destroyer()
  } finally {
    collection = null
  }
  return collected
}

/** What Node's Writable keeps of its state, as far as it matters here. */
interface WritableState {
  readonly length: number
  readonly corked: number
  readonly writing: boolean
  readonly ending: boolean
  readonly destroyed: boolean
  readonly errored: Error | null
}

/** The Writable is open, and holds nothing back. */
function isIdle(state: WritableState): boolean {
  return (
    state.length === 0 && state.corked === 0 && !state.writing && !state.ending && !state.destroyed && !state.errored
  )
}

// Accessors, which net.Socket's types call properties and a class cannot override as such.
const accessors: Record<string, (this: Socket) => unknown> = {
  pending() {
    return !this[kEndpoint].active || this.connecting
  },
  bufferSize() {
    return this[kEndpoint].active ? this.writableLength : undefined
  },
  bytesRead() {
    return this[kEndpoint].bytesRead
  },
  bytesWritten() {
    const endpoint = this[kEndpoint]
    let bytes = endpoint.bytesWritten + endpoint.pendingBytes
    for (const { chunk, encoding } of writableBuffer(this)) {
      bytes += typeof chunk === 'string' ? Buffer.byteLength(chunk, encoding) : chunk.length
    }
    return bytes
  },
  _bytesDispatched() {
    return this[kEndpoint].bytesWritten
  },
  remoteAddress() {
    const peer = this[kEndpoint].peer
    return peer === null ? undefined : formatIPv4(peer.remoteAddress)
  },
  remotePort() {
    return this[kEndpoint].peer?.remotePort
  },
  remoteFamily() {
    return this[kEndpoint].peer === null ? undefined : 'IPv4'
  },
  localAddress() {
    return this.address().address
  },
  localPort() {
    return this.address().port
  },
  localFamily() {
    return this.address().family
  },
}
for (const [name, get] of Object.entries(accessors)) {
  Object.defineProperty(Socket.prototype, name, { get, configurable: true, enumerable: true })
}

/** A socket with the options of `new net.Socket(options)`. Throws as Node does for options that cannot be. */
export function createSocket(stack: Stack, options: SocketOptions = {}): Socket {
  if (typeof options === 'number' || options.fd !== undefined || 'handle' in options) {
    throw nodeError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      "The property 'options.fd' is not supported: this socket belongs to the INIC.",
    )
  }
  for (const name of ['objectMode', 'readableObjectMode', 'writableObjectMode'] as const) {
    if (options[name])
      throw nodeError(
        TypeError,
        'ERR_INVALID_ARG_VALUE',
        `The property 'options.${name}' is not supported. Received ${options[name]}`,
      )
  }
  const socket = new Socket(stack, duplexOptions(options))
  // Not by Duplex's constructor: a signal that has fired would destroy a socket that is half made.
  if (options.signal !== undefined) addAbortSignal(options.signal, socket)
  const endpoint = socket[kEndpoint]
  endpoint.noDelay = Boolean(options.noDelay)
  endpoint.keepAlive = Boolean(options.keepAlive)
  endpoint.keepAliveSeconds = keepAliveSeconds(options.keepAliveInitialDelay)
  if (isOnRead(options.onread)) endpoint.setOnRead(options.onread)
  return socket
}

const clientChannel = diagnostics.channel('net.client.socket')

/** `net.connect` in all its forms. */
export function connectSocket(stack: Stack, args: readonly unknown[]): Socket {
  const normalized = normalizeConnect(args)
  const options = normalized[0]
  const socket = createSocket(stack, options as SocketOptions)
  if (clientChannel.hasSubscribers) clientChannel.publish({ socket })
  if (options.timeout) socket.setTimeout(options.timeout)
  return socket.connect(normalized)
}

/** The arguments of `migrate`. Throws as Node does for those that cannot be, and ENOTFOUND for a server that is not there. */
function moveTarget(socket: Socket, server: unknown, state: unknown, options: net.MigrateOptions): MoveTarget {
  if (server !== undefined && typeof server !== 'string') throw argumentTypeError('server', 'of type string', server)
  if (socket.destroyed) throw destroyedError('migrate')
  if (options.asNew && state !== undefined) {
    throw nodeError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      "The property 'options.asNew' is for connections without state: whoever accepts it as a new one would not see it.",
    )
  }
  const address = server === undefined ? 0 : resolveServer(socket[kEndpoint].stack, server)
  return { address, state: options.asNew ? null : encodeState(state) }
}

/** Whole seconds of an `keepAliveInitialDelay` in milliseconds, as Node rounds them. */
export function keepAliveSeconds(initialDelayMs: unknown): number {
  if (initialDelayMs === undefined) return 0
  if (typeof initialDelayMs !== 'number')
    throw argumentTypeError('options.keepAliveInitialDelay', 'of type number', initialDelayMs)
  return Math.max(0, Math.trunc(initialDelayMs / 1000))
}

/** 'write after end' would blame the application for what the peer did. */
function writeAfterFin(socket: Socket, encoding: unknown, callback?: WriteCallback): false {
  const error = nodeError(Error, 'EPIPE', 'This socket has been ended by the other party')
  const done = typeof encoding === 'function' ? (encoding as WriteCallback) : callback
  if (typeof done === 'function') process.nextTick(done, error)
  socket.destroy(error)
  return false
}

function lookupAndConnect(socket: Socket, target: Target, options: ConnectOptions): void {
  const host = target.host
  socket._host = host
  const found = (
    error: Error | null,
    result: string | { address: string; family: number }[],
    family?: number,
  ): void => {
    const first = Array.isArray(result) ? (result.find((entry) => entry.family === 4) ?? result[0]) : undefined
    const address = typeof result === 'string' ? result : (first?.address ?? '')
    const kind = first?.family ?? family
    socket.emit('lookup', error, error ? undefined : address, error ? undefined : kind, host)
    if (!socket.connecting) return
    const number = parseIPv4(address)
    if (error) process.nextTick(() => socket.destroy(error))
    else if (number >= 0) connectTo(socket, number, target)
    else {
      const failure = net.isIPv6(address)
        ? addressError(STATUS_EAFNOSUPPORT, 'connect', address, target.port)
        : nodeError(TypeError, 'ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${address}`)
      process.nextTick(() => socket.destroy(failure))
    }
  }
  const lookup = 'lookup' in options ? options.lookup : undefined
  if (lookup === undefined || lookup === null) lookupHost(socket[kEndpoint].stack, host, found)
  else if (typeof lookup !== 'function') throw argumentTypeError('options.lookup', 'of type function', lookup)
  else
    lookup(
      host,
      { family: 4, hints: ('hints' in options && options.hints) || 0 },
      found as Parameters<typeof lookup>[2],
    )
}

function connectTo(socket: Socket, address: number, target: Target): void {
  const { localAddress, localPort } = target
  const local = localAddress === undefined ? 0 : parseIPv4(localAddress)
  if (local < 0) socket.destroy(addressError(STATUS_EAFNOSUPPORT, 'bind', localAddress!, localPort))
  else socket[kEndpoint].connect(address, target.port, local, target)
}

/** (options[, cb]), (path[, cb]) or (port[, host][, cb]), or what an earlier call made of that. */
export function normalizeConnect(args: readonly unknown[]): [ConnectOptions, (() => void) | null] {
  if (Array.isArray(args[0])) return args[0] as unknown as [ConnectOptions, (() => void) | null]
  const last = args[args.length - 1]
  const callback = typeof last === 'function' ? (last as () => void) : null
  const first = args[0]
  if (typeof first === 'object' && first !== null) return [first as ConnectOptions, callback]
  if (typeof first === 'string' && !(Number(first) >= 0)) return [{ path: first }, callback]
  if (args.length === 0) return [{} as ConnectOptions, null]
  const host = typeof args[1] === 'string' ? args[1] : undefined
  return [(host === undefined ? { port: first } : { port: first, host }) as ConnectOptions, callback]
}

interface Target {
  readonly host: string
  readonly port: number
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
}

function validateTarget(options: ConnectOptions): Target {
  const { host, port, localAddress, localPort } = options as net.TcpNetConnectOpts
  if (localAddress) validateAddress(localAddress)
  if (localPort && typeof localPort !== 'number')
    throw argumentTypeError('options.localPort', 'of type number', localPort)
  if (typeof port !== 'number' && typeof port !== 'string')
    throw argumentTypeError('options.port', 'one of type number or string', port)
  return {
    host: host || 'localhost',
    port: validatePort(port, 'Port'),
    localAddress: localAddress || undefined,
    localPort: localPort || undefined,
  }
}
