import dgram from 'node:dgram'
import { EventEmitter, errorMonitor } from 'node:events'
import { isIPv6 } from 'node:net'
import { UDP_FLAG_REUSE } from '../abi/messages.ts'
import { STATUS_EACCES, STATUS_EINVAL, STATUS_EMSGSIZE, STATUS_ENOBUFS, STATUS_OK } from '../abi/status.ts'
import { formatIPv4, parseIPv4 } from './addresses.ts'
import { inContext } from './async-context.ts'
import { type DatagramOwner, MAXIMUM_DATAGRAM_BYTES, type UdpEndpoint } from './driver/udp.ts'
import {
  addressError,
  argumentTypeError,
  nodeError,
  STATUS_EBADF,
  STATUS_EOPNOTSUPP,
  systemError,
  validatePort,
} from './errors.ts'
import { Hold, type LookupCallback, lookupHost, type Stack } from './stack.ts'
import { STATUS_EAFNOSUPPORT } from './status.ts'

/** Datagrams of one socket that may wait for the card before `send` fails with ENOBUFS. */
const MAXIMUM_WAITING = 1024
/** What `getRecvBufferSize` and its like report until they are told otherwise: Linux's default, bytes. */
const BUFFER_BYTES = 212992
const OWNER_METHODS = ['onBound', 'onDatagram', 'onDatagramError', 'onRoom', 'onLost'] as const
const LIMITED_BROADCAST = 0xffffffff

type SendCallback = (error: Error | null, bytes: number) => void
type Lookup = (host: string, family: number, callback: LookupCallback) => void

/** node:dgram, on the card. */
export interface Dgram {
  readonly Socket: typeof dgram.Socket
  createSocket: typeof dgram.createSocket
}

interface Waiting {
  readonly parts: readonly Uint8Array[]
  readonly bytes: number
  readonly address: number
  readonly port: number
  readonly callback: SendCallback | undefined
}

/** EventEmitter's body with dgram.Socket's prototype: the constructor of that one opens a socket of the machine. */
function BareSocket(this: EventEmitter): void {
  Reflect.apply(EventEmitter as unknown as () => void, this, [])
}
Object.setPrototypeOf(BareSocket.prototype, dgram.Socket.prototype)
Object.setPrototypeOf(BareSocket, dgram.Socket)
// As an EventEmitter to TypeScript: all other members of dgram.Socket are defined anew below.
const Base = BareSocket as unknown as new () => EventEmitter

/**
 * A `dgram.Socket` whose network is the card's: Node's documentation holds, but for IPv4 alone and no multicast groups. Errors that come back
 * from the network (ICMP) are emitted by connected sockets and by none else, as on Linux.
 */
export class Socket extends Base implements DatagramOwner {
  readonly type: string
  readonly #stack: Stack
  readonly #lookup: Lookup
  readonly #reuse: boolean
  #endpoint: UdpEndpoint | null = null
  #bindState: 'unbound' | 'binding' | 'bound' = 'unbound'
  #connectState: 'disconnected' | 'connecting' | 'connected' = 'disconnected'
  #closed = false
  #local = { address: 0, port: 0 }
  #remote = { address: 0, port: 0 }
  /** What was asked for before the socket was bound. */
  #queue: (() => void)[] | null = null
  #waiting: Waiting[] = []
  #waitingBytes = 0
  #broadcast = false
  #recvBufferBytes: number
  #sendBufferBytes: number
  #referenced = true
  readonly #hold: Hold

  constructor(
    stack: Stack,
    type: dgram.SocketType | dgram.SocketOptions,
    listener?: (message: Buffer, info: dgram.RemoteInfo) => void,
  ) {
    super()
    const options: Partial<dgram.SocketOptions> = typeof type === 'object' && type !== null ? type : {}
    const kind = typeof type === 'object' && type !== null ? type.type : type
    if (kind !== 'udp4' && kind !== 'udp6') {
      throw nodeError(TypeError, 'ERR_SOCKET_BAD_TYPE', 'Bad socket type specified. Valid types are: udp4, udp6')
    }
    if (options.lookup !== undefined && typeof options.lookup !== 'function')
      throw argumentTypeError('lookup', 'of type function', options.lookup)
    this.type = kind
    this.#stack = stack
    this.#hold = new Hold(stack.references)
    this.#lookup =
      (options.lookup as Lookup | undefined) ?? ((host, _family, callback) => lookupHost(stack, host, callback))
    this.#reuse = options.reuseAddr === true
    this.#recvBufferBytes = options.recvBufferSize || BUFFER_BYTES
    this.#sendBufferBytes = options.sendBufferSize || BUFFER_BYTES
    if (typeof listener === 'function') this.on('message', listener)
    const signal = (options as { signal?: AbortSignal }).signal
    if (signal !== undefined) this.#closeOnAbort(signal)
  }

  bind(...args: unknown[]): this {
    this.#check()
    if (this.#bindState !== 'unbound') throw nodeError(Error, 'ERR_SOCKET_ALREADY_BOUND', 'Socket is already bound')
    this.#bindState = 'binding'
    const last = args[args.length - 1]
    if (typeof last === 'function') this.#onceListening(last as () => void)
    const [first] = args
    const options: dgram.BindOptions =
      typeof first === 'object' && first !== null ? first : { port: first as number, address: args[1] as string }
    if ('fd' in options && (options.fd as number) > 0)
      throw nodeError(TypeError, 'ERR_INVALID_FD_TYPE', `Unsupported fd type: this socket belongs to the INIC`)
    const port = typeof options.port === 'function' || !options.port ? 0 : validatePort(options.port, 'Port')
    const address =
      typeof options.address === 'string' && options.address !== ''
        ? options.address
        : this.type === 'udp4'
          ? '0.0.0.0'
          : '::'
    if (address === '0.0.0.0') this.#bindTo(0, port)
    else {
      this.#resolve(address, (error, number, ip) => {
        if (this.#closed) return
        if (error !== null) this.#bindFailed(error)
        else if (number < 0) this.#bindFailed(addressError(STATUS_EAFNOSUPPORT, 'bind', ip, port))
        else this.#bindTo(number, port)
      })
    }
    return this
  }

  connect(port: unknown, address?: unknown, callback?: unknown): void {
    const number = validateRemotePort(port)
    const done = (typeof address === 'function' ? address : callback) as (() => void) | undefined
    const host = typeof address === 'function' || address === undefined ? '' : address
    if (typeof host !== 'string') throw argumentTypeError('address', 'of type string', host)
    if (this.#connectState !== 'disconnected')
      throw nodeError(Error, 'ERR_SOCKET_DGRAM_IS_CONNECTED', 'Already connected')
    this.#connectState = 'connecting'
    this.#whenBound(() => this.#connect(number, host, done))
  }

  #connect(port: number, host: string, callback: ((error?: Error) => void) | undefined): void {
    if (callback !== undefined) this.once('connect', callback)
    this.#resolve(host, (error, address, ip) => {
      if (this.#closed) return
      const failure = error ?? (address < 0 ? addressError(STATUS_EAFNOSUPPORT, 'connect', ip, port) : null)
      if (failure === null) {
        this.#connectState = 'connected'
        this.#remote = { address, port }
        process.nextTick(() => this.emit('connect'))
        return
      }
      this.#connectState = 'disconnected'
      process.nextTick(() => {
        if (callback === undefined) {
          this.emit('error', failure)
          return
        }
        this.removeListener('connect', callback)
        callback(failure)
      })
    })
  }

  disconnect(): void {
    this.#checkConnected()
    this.#connectState = 'disconnected'
  }

  /**
   * (message[, callback]), (message, port[, address][, callback]), and both with an offset and a length after the message.
   */
  send(...args: unknown[]): void {
    const connected = this.#connectState === 'connected'
    let [message, ...rest] = args
    // (offset, length, ...) is there, for a connected socket, if the second is a number; for another if a port follows.
    const sliced = connected
      ? typeof rest[1] === 'number'
      : Boolean(rest[3]) || (Boolean(rest[2]) && typeof rest[2] !== 'function')
    if (sliced) {
      message = slice(message, rest[0] as number, rest[1] as number)
      rest = rest.slice(2)
    }
    const callback = rest.find((value) => typeof value === 'function') as SendCallback | undefined
    const [port, address] = rest.filter((value) => typeof value !== 'function')
    if (connected && sliced && (port || address))
      throw nodeError(Error, 'ERR_SOCKET_DGRAM_IS_CONNECTED', 'Already connected')
    const parts = toParts(message)
    const number = connected ? 0 : validateRemotePort(port)
    if (address != null && typeof address !== 'string') throw argumentTypeError('address', 'of type string', address)
    this.#check()
    this.#whenBound(() => {
      if (connected) this.#transmit(parts, this.#remote.address, this.#remote.port, callback)
      else this.#sendTo(parts, (address as string | undefined) ?? '', number, callback)
    })
  }

  sendto(
    message: unknown,
    offset: number,
    length: number,
    port: number,
    address: string,
    callback?: SendCallback,
  ): void {
    this.send(message, offset, length, port, address, callback)
  }

  #sendTo(parts: readonly Uint8Array[], host: string, port: number, callback: SendCallback | undefined): void {
    const number = parseIPv4(host || '127.0.0.1')
    if (number >= 0) {
      this.#transmit(parts, number, port, callback)
      return
    }
    this.#resolve(host, (error, address, ip) => {
      if (this.#closed) return
      const failure = error ?? (address < 0 ? addressError(STATUS_EAFNOSUPPORT, 'send', ip, port) : null)
      if (failure === null) this.#transmit(parts, address, port, callback)
      else if (callback !== undefined) process.nextTick(callback, failure)
      else process.nextTick(() => this.emit('error', failure))
    })
  }

  #transmit(parts: readonly Uint8Array[], address: number, port: number, callback: SendCallback | undefined): void {
    const endpoint = this.#endpoint
    if (this.#closed || endpoint === null) return
    let bytes = 0
    for (const part of parts) bytes += part.length
    let status: number = STATUS_OK
    if (bytes > MAXIMUM_DATAGRAM_BYTES) status = STATUS_EMSGSIZE
    else if (address === LIMITED_BROADCAST && !this.#broadcast) status = STATUS_EACCES
    else if (this.#waiting.length > 0 || !endpoint.send(parts, bytes, address, port)) {
      if (this.#waiting.length < MAXIMUM_WAITING) {
        this.#waiting.push({ parts, bytes, address, port, callback })
        this.#waitingBytes += bytes
        this.#updateHold()
        return
      }
      status = STATUS_ENOBUFS
    }
    // As in Node, a failure to send is told to whoever asked, and to nobody else.
    if (callback === undefined) return
    if (status === STATUS_OK) process.nextTick(callback, null, bytes)
    else process.nextTick(callback, addressError(status, 'send', formatIPv4(address), port))
  }

  close(callback?: () => void): this {
    if (typeof callback === 'function') this.on('close', callback)
    if (this.#queue !== null) {
      this.#queue.push(() => this.close())
      return this
    }
    this.#check()
    this.#end()
    process.nextTick(() => this.emit('close'))
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed) await new Promise<void>((resolve) => this.close(resolve))
  }

  address(): { address: string; family: string; port: number } {
    this.#check()
    if (this.#bindState !== 'bound') throw systemError(STATUS_EBADF, 'getsockname')
    return { address: formatIPv4(this.#local.address), family: 'IPv4', port: this.#local.port }
  }

  remoteAddress(): { address: string; family: string; port: number } {
    this.#check()
    this.#checkConnected()
    return { address: formatIPv4(this.#remote.address), family: 'IPv4', port: this.#remote.port }
  }

  setBroadcast(on: boolean): void {
    if (this.#endpoint === null || this.#bindState !== 'bound') throw systemError(STATUS_EBADF, 'setBroadcast')
    this.#broadcast = Boolean(on)
    this.#endpoint.setBroadcast(this.#broadcast)
  }

  setTTL(ttl: number): number {
    if (typeof ttl !== 'number') throw argumentTypeError('ttl', 'of type number', ttl)
    if (this.#endpoint === null || this.#bindState !== 'bound') throw systemError(STATUS_EBADF, 'setTTL')
    if (!(ttl >= 1 && ttl <= 255)) throw systemError(STATUS_EINVAL, 'setTTL')
    this.#endpoint.setTtl(ttl)
    return ttl
  }

  getRecvBufferSize(): number {
    return this.#recvBufferBytes
  }

  getSendBufferSize(): number {
    return this.#sendBufferBytes
  }

  /** Remembered and reported; how much the card keeps is the board's setting. */
  setRecvBufferSize(bytes: number): void {
    this.#recvBufferBytes = validateBufferSize(bytes)
  }

  setSendBufferSize(bytes: number): void {
    this.#sendBufferBytes = validateBufferSize(bytes)
  }

  getSendQueueSize(): number {
    return this.#waitingBytes
  }

  getSendQueueCount(): number {
    return this.#waiting.length
  }

  ref(): this {
    this.#referenced = true
    this.#updateHold()
    return this
  }

  unref(): this {
    this.#referenced = false
    this.#updateHold()
    return this
  }

  // Groups need IGMP, which the card does not speak.
  setMulticastTTL(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'setMulticastTTL')
  }
  setMulticastLoopback(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'setMulticastLoopback')
  }
  setMulticastInterface(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'setMulticastInterface')
  }
  addMembership(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'addMembership')
  }
  dropMembership(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'dropMembership')
  }
  addSourceSpecificMembership(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'addSourceSpecificMembership')
  }
  dropSourceSpecificMembership(): never {
    throw systemError(STATUS_EOPNOTSUPP, 'dropSourceSpecificMembership')
  }

  // ── what the card says ──

  /** @internal */
  onBound(status: number, address: number, port: number): void {
    if (this.#closed) return
    if (status !== STATUS_OK) {
      this.#endpoint = null
      this.#bindFailed(addressError(status, 'bind', formatIPv4(address), port))
      return
    }
    this.#local = { address, port }
    this.#bindState = 'bound'
    this.#updateHold()
    this.emit('listening')
  }

  /** @internal */
  onDatagram(data: Buffer, remoteAddress: number, remotePort: number): void {
    if (
      this.#connectState === 'connected' &&
      (remoteAddress !== this.#remote.address || remotePort !== this.#remote.port)
    )
      return
    this.emit('message', data, {
      address: formatIPv4(remoteAddress),
      family: 'IPv4',
      port: remotePort,
      size: data.length,
    })
  }

  /** @internal */
  onDatagramError(status: number, remoteAddress: number, remotePort: number): void {
    if (
      this.#connectState !== 'connected' ||
      remoteAddress !== this.#remote.address ||
      remotePort !== this.#remote.port
    )
      return
    this.emit('error', systemError(status, 'recvmsg'))
  }

  /** @internal */
  onRoom(): void {
    let sent = 0
    for (; sent < this.#waiting.length && !this.#closed; sent++) {
      const { parts, bytes, address, port, callback } = this.#waiting[sent]!
      if (this.#endpoint?.send(parts, bytes, address, port) === false) break
      this.#waitingBytes -= bytes
      if (callback !== undefined) process.nextTick(callback, null, bytes)
    }
    this.#waiting.splice(0, sent)
    this.#updateHold()
  }

  /** @internal */
  onLost(status: number): void {
    const error = this.#bindState === 'bound' ? systemError(status, 'recvmsg') : systemError(status, 'bind')
    this.#endpoint = null
    this.#end()
    process.nextTick(() => {
      this.emit('error', error)
      this.emit('close')
    })
  }

  // ── the rest ──

  #bindTo(address: number, port: number): void {
    const owner = this.#stack.asyncContext ? inContext<DatagramOwner>('UDPWRAP', this, OWNER_METHODS) : this
    this.#endpoint = this.#stack.driver.bind(owner, address, port, this.#reuse ? UDP_FLAG_REUSE : 0)
    this.#updateHold()
  }

  #bindFailed(error: Error): void {
    this.#bindState = 'unbound'
    this.#updateHold()
    this.emit('error', error)
  }

  #end(): void {
    this.#closed = true
    this.#waiting = []
    this.#waitingBytes = 0
    this.#endpoint?.close()
    this.#endpoint = null
    this.#updateHold()
  }

  /** Runs `action` now if the socket is bound, otherwise binds it and runs it then; forgets it if that fails. */
  #whenBound(action: () => void): void {
    if (this.#bindState === 'unbound') this.bind({ port: 0, exclusive: true })
    if (this.#bindState === 'bound') {
      action()
      return
    }
    if (this.#queue === null) {
      this.#queue = []
      const onError = () => {
        this.removeListener('listening', onListening)
        this.#queue = null
      }
      const onListening = () => {
        this.removeListener(errorMonitor, onError)
        const queue = this.#queue ?? []
        this.#queue = null
        for (const entry of queue) entry()
      }
      this.once(errorMonitor, onError)
      this.once('listening', onListening)
    }
    this.#queue.push(action)
  }

  /** `address` is -1 for one that is not IPv4; `ip` is what the name resolved to. */
  #resolve(host: string, callback: (error: Error | null, address: number, ip: string) => void): void {
    const name = host || '127.0.0.1'
    // 'localhost' and other names of the table, too, are answered in a later tick, as by dns.lookup.
    if (isIPv6(name)) process.nextTick(callback, null, -1, name)
    else
      this.#lookup(name, this.type === 'udp6' ? 6 : 4, (error, ip) =>
        callback(error, error === null ? parseIPv4(ip) : -1, ip),
      )
  }

  #onceListening(callback: () => void): void {
    const remove = () => {
      this.removeListener('error', remove)
      this.removeListener('listening', onListening)
    }
    const onListening = () => {
      remove()
      callback.call(this)
    }
    this.on('error', remove)
    this.on('listening', onListening)
  }

  #closeOnAbort(signal: AbortSignal): void {
    const onAbort = () => {
      if (!this.#closed) this.close()
    }
    if (signal.aborted) onAbort()
    else {
      signal.addEventListener('abort', onAbort, { once: true })
      this.once('close', () => signal.removeEventListener('abort', onAbort))
    }
  }

  #check(): void {
    if (this.#closed) throw nodeError(Error, 'ERR_SOCKET_DGRAM_NOT_RUNNING', 'Not running')
  }

  #checkConnected(): void {
    if (this.#connectState !== 'connected') throw nodeError(Error, 'ERR_SOCKET_DGRAM_NOT_CONNECTED', 'Not connected')
  }

  /** Without a reference too, the program does not end while the card is asked to bind, or has yet to take a datagram. */
  #updateHold(): void {
    const asked = this.#bindState === 'binding' || this.#waiting.length > 0
    this.#hold.set(this.#endpoint !== null && (this.#referenced || asked))
  }
}

/** The `dgram` module of one process. */
export function createDgram(stack: Stack): Dgram {
  const create = (
    type: dgram.SocketType | dgram.SocketOptions,
    listener?: (message: Buffer, info: dgram.RemoteInfo) => void,
  ) => new Socket(stack, type, listener)
  function BoundSocket(type: dgram.SocketType, listener?: (message: Buffer, info: dgram.RemoteInfo) => void): Socket {
    return create(type, listener)
  }
  BoundSocket.prototype = Socket.prototype
  return {
    Socket: BoundSocket as unknown as typeof dgram.Socket,
    createSocket: create as unknown as typeof dgram.createSocket,
  }
}

function validateBufferSize(bytes: number): number {
  if (bytes >>> 0 !== bytes)
    throw nodeError(TypeError, 'ERR_SOCKET_BAD_BUFFER_SIZE', 'Buffer size must be a positive integer')
  return bytes
}

/** 0 can be bound, and not be sent to. */
function validateRemotePort(port: unknown): number {
  return validatePort(port, 'Port', 1)
}

const MESSAGE_TYPES = 'of type string or an instance of Buffer, TypedArray, or DataView'

function toPart(value: unknown): Uint8Array | null {
  if (typeof value === 'string') return Buffer.from(value)
  if (value instanceof Uint8Array) return value
  return ArrayBuffer.isView(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : null
}

/** A message may be one piece or a list of pieces. */
function toParts(message: unknown): Uint8Array[] {
  if (!Array.isArray(message)) {
    const part = toPart(message)
    if (part === null) throw argumentTypeError('buffer', MESSAGE_TYPES, message)
    return [part]
  }
  return message.map((value) => {
    const part = toPart(value)
    if (part === null) throw argumentTypeError('buffer list arguments', MESSAGE_TYPES, message)
    return part
  })
}

function slice(message: unknown, offset: number, length: number): Uint8Array {
  const part = toPart(message)
  if (part === null) throw argumentTypeError('buffer', MESSAGE_TYPES, message)
  const from = offset >>> 0
  const count = length >>> 0
  if (from > part.length)
    throw nodeError(RangeError, 'ERR_BUFFER_OUT_OF_BOUNDS', '"offset" is outside of buffer bounds')
  if (from + count > part.length)
    throw nodeError(RangeError, 'ERR_BUFFER_OUT_OF_BOUNDS', '"length" is outside of buffer bounds')
  return part.subarray(from, from + count)
}
