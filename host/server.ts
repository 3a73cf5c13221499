import diagnostics from 'node:diagnostics_channel'
import net from 'node:net'
import type { DuplexOptions } from 'node:stream'
import {
  FIRST_SPEAKER_AUTO,
  FIRST_SPEAKER_CLIENT,
  FIRST_SPEAKER_SERVER,
  SOCKET_OPTION_KEEP_ALIVE,
  SOCKET_OPTION_NO_DELAY,
  SOCKET_OPTION_TAKES_OVER,
} from '../abi/messages.ts'
import { STATUS_OK } from '../abi/status.ts'
import { formatIPv4, parseIPv4 } from './addresses.ts'
import { inContext } from './async-context.ts'
import { enroll, expectRequest } from './drain.ts'
import type { TcpConnection } from './driver/connection.ts'
import type { ListenerOwner, TcpListener } from './driver/listener.ts'
import { kDrain, type ServerAccount } from './endpoint.ts'
import { listenError, nodeError, notFound, validatePort } from './errors.ts'
import { DUPLEX_DEFAULTS, kEndpoint, Socket } from './socket.ts'
import { type FirstSpeaker, Hold, resolveHost, type Stack } from './stack.ts'
import { decodeState } from './state.ts'
import { STATUS_EAFNOSUPPORT } from './status.ts'

/** What `listen` takes besides Node's options. */
export interface CardListenOptions extends net.ListenOptions {
  /**
   * Who speaks first on an accepted connection. `client`: the card keeps a connection to itself until its request has come. `server`: it
   * hands it over at the handshake. `auto`, the default: at the request, or after `placeAfterMs` of silence.
   */
  firstSpeaker?: FirstSpeaker
  /** Milliseconds; the board's setting if absent. */
  placeAfterMs?: number
}

/** The members of net.Server that are not in its types, and that all of Node's servers keep their accounts in. */
interface ServerInternals extends ServerAccount {
  _handle: ListenHandle | null
  _listeningId: number
  _connectionKey: string
  _unref: boolean
  _emitCloseIfDrained(): void
  allowHalfOpen: boolean
  pauseOnConnect: boolean
  noDelay: boolean
  keepAlive: boolean
  keepAliveInitialDelay: number
  highWaterMark: number
}

const FIRST_SPEAKERS = { auto: FIRST_SPEAKER_AUTO, client: FIRST_SPEAKER_CLIENT, server: FIRST_SPEAKER_SERVER }
/** As many as Node asks for when it is not told. */
const DEFAULT_BACKLOG = 511

const OWNER_METHODS = ['onListening', 'onConnection', 'onArrival', 'onListenerLost'] as const

const serverChannel = diagnostics.channel('net.server.socket')

/** True for a `listen` that is not the network's: a Unix socket, a file descriptor, or somebody's handle. */
export function isForeignListen(args: readonly unknown[]): boolean {
  const [first] = args
  if (typeof first === 'string') return !(Number(first) >= 0)
  if (typeof first !== 'object' || first === null) return false
  return ('path' in first && !('port' in first)) || 'fd' in first || '_handle' in first || 'handle' in first
}

/**
 * Has any `net.Server` (an `http.Server`, a `tls.Server`, ...) listen on the card instead of on the machine: `net.Server.prototype.listen` in
 * all its forms but those of `isForeignListen`. Everything else about the server stays Node's own. Throws as Node does.
 */
export function listenOnCard(server: net.Server, stack: Stack, args: readonly unknown[]): void {
  const internals = server as unknown as ServerInternals
  if (internals._handle) {
    throw nodeError(Error, 'ERR_SERVER_ALREADY_LISTEN', 'Listen method has been called more than once without closing.')
  }
  const options = normalizeListen(args, stack)
  enroll(server, stack)
  const last = args[args.length - 1]
  if (typeof last === 'function') server.once('listening', last as () => void)
  const id = ++internals._listeningId
  if (options.signal !== undefined) closeOnAbort(server, options.signal)
  const host = options.host
  // '::' without an interface of its own is how Node itself spells "anywhere"; the card has IPv4 to offer for it.
  const any = !host || (host === '::' && !options.ipv6Only)
  const name = any ? '0.0.0.0' : host
  const resolved = any ? name : resolveHost(stack, name)
  if (resolved !== null && parseIPv4(name) >= 0) {
    internals._handle = new ListenHandle(server, stack, parseIPv4(resolved), options)
    return
  }
  // Names are looked up, and errors come, a tick later, as Node has it.
  process.nextTick(() => {
    if (internals._listeningId !== id) return
    if (resolved !== null) internals._handle = new ListenHandle(server, stack, parseIPv4(resolved), options)
    else if (net.isIPv6(name)) server.emit('error', listenError(STATUS_EAFNOSUPPORT, name, options.port))
    else server.emit('error', notFound(name))
  })
}

/** What stands in a listening server's `_handle`: Node's own methods of net.Server (`close`, `address`, `ref`, ...) work with it. */
class ListenHandle implements ListenerOwner {
  readonly #server: net.Server
  readonly #internals: ServerInternals
  readonly #stack: Stack
  readonly #listener: TcpListener
  readonly #duplexOptions: DuplexOptions
  readonly #address: number
  #port: number
  #closed = false
  /** The card has answered. */
  #listening = false
  #referenced: boolean
  readonly #hold: Hold
  readonly #onNewListener = (event: string | symbol) => {
    if (event === 'migrate') this.#setTakesOver(true)
  }
  readonly #onRemoveListener = (event: string | symbol) => {
    if (event === 'migrate') this.#setTakesOver(this.#server.listenerCount('migrate') > 0)
  }
  #takesOver: boolean

  constructor(server: net.Server, stack: Stack, address: number, options: ListenSettings) {
    const internals = server as unknown as ServerInternals
    this.#server = server
    this.#internals = internals
    this.#stack = stack
    this.#address = address
    this.#port = options.port
    this.#duplexOptions = {
      ...DUPLEX_DEFAULTS,
      allowHalfOpen: internals.allowHalfOpen,
      readableHighWaterMark: internals.highWaterMark,
      writableHighWaterMark: internals.highWaterMark,
    }
    this.#takesOver = server.listenerCount('migrate') > 0
    server.on('newListener', this.#onNewListener)
    server.on('removeListener', this.#onRemoveListener)
    this.#referenced = !internals._unref
    this.#hold = new Hold(stack.references)
    this.#updateHold()
    const owner = stack.asyncContext ? inContext<ListenerOwner>('TCPSERVERWRAP', this, OWNER_METHODS) : this
    this.#listener = stack.driver.listen(owner, {
      address,
      port: options.port,
      backlog: options.backlog,
      firstSpeaker: options.firstSpeaker,
      placeAfterMs: options.placeAfterMs,
      options: this.#options,
    })
  }

  // ── what net.Server calls ──

  getsockname(out: { address?: string; family?: string; port?: number }): number {
    out.address = formatIPv4(this.#address)
    out.family = 'IPv4'
    out.port = this.#port
    return 0
  }

  close(): void {
    if (this.#closed) return
    this.#end()
    this.#listener.close()
  }

  ref(): void {
    this.#referenced = true
    this.#updateHold()
  }

  unref(): void {
    this.#referenced = false
    this.#updateHold()
  }

  hasRef(): boolean {
    return this.#referenced && !this.#closed
  }

  // ── what the card says ──

  onListening(status: number, port: number): void {
    if (this.#closed) return
    if (status !== STATUS_OK) {
      this.#fail(status)
      return
    }
    this.#port = port
    this.#listening = true
    this.#updateHold()
    this.#internals._connectionKey = `4:${formatIPv4(this.#address)}:${port}`
    this.#server.emit('listening')
  }

  onListenerLost(status: number): void {
    this.#fail(status)
    this.#internals._emitCloseIfDrained()
  }

  onConnection(connection: TcpConnection): void {
    const internals = this.#internals
    const server = this.#server
    if (server.maxConnections && internals._connections >= server.maxConnections) {
      server.emit('drop', {
        localAddress: formatIPv4(connection.localAddress),
        localPort: connection.localPort,
        localFamily: 'IPv4',
        remoteAddress: formatIPv4(connection.remoteAddress),
        remotePort: connection.remotePort,
        remoteFamily: 'IPv4',
      })
      connection.close()
      return
    }
    const socket = this.#socketOf(connection)
    server.emit('connection', socket)
    internals[kDrain]?.joined(socket)
    if (serverChannel.hasSubscribers) serverChannel.publish({ socket })
  }

  /** One that is here already is not dropped, however many there are. */
  onArrival(connection: TcpConnection, bytes: Buffer | null): void {
    const server = this.#server
    if (bytes === null) {
      const socket = this.#arrived(connection)
      server.emit('connection', socket)
      expectRequest(server, socket)
      this.#internals[kDrain]?.joined(socket)
      return
    }
    if (server.listenerCount('migrate') === 0) {
      // Its last listener has gone while the connection came.
      connection.abort()
      return
    }
    let state: unknown
    try {
      state = decodeState(bytes)
    } catch (error) {
      connection.abort()
      process.emitWarning(`A connection was handed over with a state that cannot be read: ${(error as Error).message}`)
      return
    }
    const socket = this.#arrived(connection)
    server.emit('migrate', socket, state)
    this.#internals[kDrain]?.joined(socket)
  }

  /** As `#socketOf`. What the card does on its own for a listener's new connections, it does not for one that has its settings already. */
  #arrived(connection: TcpConnection): Socket {
    const { noDelay, keepAlive, keepAliveInitialDelay } = this.#internals
    const socket = this.#socketOf(connection)
    const endpoint = socket[kEndpoint]
    endpoint.noDelay = endpoint.keepAlive = false
    endpoint.setNoDelay(noDelay)
    endpoint.setKeepAlive(keepAlive, keepAliveInitialDelay)
    return socket
  }

  /** The socket of a connection that the card has brought. */
  #socketOf(connection: TcpConnection): Socket {
    const internals = this.#internals
    const socket = new Socket(this.#stack, this.#duplexOptions)
    const endpoint = socket[kEndpoint]
    endpoint.noDelay = internals.noDelay
    endpoint.keepAlive = internals.keepAlive
    endpoint.keepAliveSeconds = internals.keepAliveInitialDelay
    endpoint.accept(connection)
    if (internals.keepAlive && internals.keepAliveInitialDelay > 0)
      connection.setKeepAlive(internals.keepAliveInitialDelay)
    if (internals.pauseOnConnect) socket.pause()
    else socket.read(0)
    internals._connections++
    socket.server = this.#server
    socket._server = internals
    return socket
  }

  /** SOCKET_OPTION_* that the card is told. */
  get #options(): number {
    const { noDelay, keepAlive } = this.#internals
    return (
      (noDelay ? SOCKET_OPTION_NO_DELAY : 0) |
      (keepAlive ? SOCKET_OPTION_KEEP_ALIVE : 0) |
      (this.#takesOver ? SOCKET_OPTION_TAKES_OVER : 0)
    )
  }

  #setTakesOver(on: boolean): void {
    if (this.#takesOver === on) return
    this.#takesOver = on
    this.#listener.setOptions(this.#options)
  }

  #end(): void {
    this.#closed = true
    this.#server.off('newListener', this.#onNewListener)
    this.#server.off('removeListener', this.#onRemoveListener)
    this.#updateHold()
  }

  /** Without a reference too, the program does not end before the card has answered. */
  #updateHold(): void {
    this.#hold.set(!this.#closed && (this.#referenced || !this.#listening))
  }

  #fail(status: number): void {
    const error = listenError(status, formatIPv4(this.#address), this.#port)
    this.#end()
    if (this.#internals._handle === this) this.#internals._handle = null
    this.#server.emit('error', error)
  }
}

interface ListenSettings {
  readonly port: number
  readonly host: string | undefined
  readonly backlog: number
  readonly ipv6Only: boolean
  readonly firstSpeaker: number
  readonly placeAfterMs: number
  readonly signal: AbortSignal | undefined
}

/** ([port][, host][, backlog][, cb]) or (options[, cb]). */
function normalizeListen(args: readonly unknown[], stack: Stack): ListenSettings {
  const [first] = args
  const given: CardListenOptions = typeof first === 'object' && first !== null ? first : { port: first as number }
  const anyPort =
    args.length === 0 ||
    typeof first === 'function' ||
    first === null ||
    given.port === null ||
    given.port === undefined
  if (typeof first === 'object' && first !== null && !('port' in first)) {
    throw nodeError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      `The argument 'options' must have the property "port" or "path". Received ${describe(first)}`,
    )
  }
  const port = anyPort ? 0 : validatePort(given.port, 'options.port')
  const host =
    given === first ? given.host : typeof args[1] === 'string' && !(Number(args[1]) >= 0) ? args[1] : undefined
  const backlog = given.backlog || toNumber(args[1]) || toNumber(args[2]) || DEFAULT_BACKLOG
  const speaker = given.firstSpeaker ?? stack.firstSpeakers?.get(port) ?? 'auto'
  if (!Object.hasOwn(FIRST_SPEAKERS, speaker)) {
    throw nodeError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      `The property 'options.firstSpeaker' must be 'auto', 'client' or 'server'. Received '${speaker}'`,
    )
  }
  return {
    port,
    host,
    backlog,
    ipv6Only: given.ipv6Only === true,
    firstSpeaker: FIRST_SPEAKERS[speaker],
    placeAfterMs: given.placeAfterMs ?? 0,
    signal: (given as { signal?: AbortSignal }).signal,
  }
}

function toNumber(value: unknown): number {
  const number = typeof value === 'function' ? Number.NaN : Number(value)
  return number > 0 ? number : 0
}

function describe(value: object): string {
  return Object.keys(value).length === 0 ? '{}' : JSON.stringify(value)
}

function closeOnAbort(server: net.Server, signal: AbortSignal): void {
  const onAbort = () => server.close()
  if (signal.aborted) process.nextTick(onAbort)
  else {
    signal.addEventListener('abort', onAbort, { once: true })
    server.once('close', () => signal.removeEventListener('abort', onAbort))
  }
}
