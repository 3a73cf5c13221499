import { SOCKET_OPTION_KEEP_ALIVE, SOCKET_OPTION_NO_DELAY } from '../abi/messages.ts'
import { STATUS_EADDRINUSE, STATUS_EADDRNOTAVAIL } from '../abi/status.ts'
import { formatIPv4 } from './addresses.ts'
import { inContext } from './async-context.ts'
import type { Backlog, ConnectionOwner, Piece, TcpConnection } from './driver/connection.ts'
import { addressError, nodeError, systemError } from './errors.ts'
import { IdleTimer } from './idle-timer.ts'
import { OnRead, type OnReadOptions } from './on-read.ts'
import type { Socket } from './socket.ts'
import type { Stack } from './stack.ts'

/** Idle time before the first keep-alive probe when the application names none, seconds: the least that RFC 1122 §4.2.3.6 allows. */
const DEFAULT_KEEP_ALIVE_SECONDS = 7200

const OWNER_METHODS = ['onConnected', 'onConnectFailed', 'onData', 'onEnd', 'onRoom', 'onReset'] as const

export type WriteCallback = (error?: Error | null) => void

/** Where a socket connects to, for its error messages. */
interface Target {
  readonly address: string
  readonly port: number
  /** As the application gave them, if it did. */
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
}

/** What `net.Server` and `http.Server` expect of a socket's server. */
export interface ServerAccount {
  _connections: number
  _emitCloseIfDrained?(): void
}

/**
 * The card's side of a `Socket`: turns what the connection says into what a Duplex does, and the other way round. One for the life of
 * the socket; a socket that connects again gets a new connection in the same endpoint.
 */
export class StreamEndpoint implements ConnectionOwner {
  readonly stack: Stack
  connection: TcpConnection | null = null
  /** Who the other end is, or was: the connection, once it is open, and after the socket has let go of it. */
  peer: TcpConnection | null = null
  noDelay = false
  keepAlive = false
  /** 0 = the default. */
  keepAliveSeconds = 0
  bytesRead = 0
  /** Bytes that the card has taken. */
  bytesWritten = 0
  /** `destroy` resets the connection instead of closing it. */
  resetting = false

  readonly #socket: Socket
  #target: Target | null = null
  /** Bytes that the application has consumed, by the Readable's own count. */
  #consumed = 0
  /** The one write that the Writable has out, while it waits for the connection or for room. */
  #backlog: Backlog | null = null
  #callback: WriteCallback | null = null
  /** `end` came before the connection. */
  #finalCallback: WriteCallback | null = null
  #ended = false
  #timer: IdleTimer | null = null
  #onRead: OnRead | null = null
  #referenced = true
  #holding = false

  constructor(socket: Socket, stack: Stack) {
    this.#socket = socket
    this.stack = stack
  }

  /** Open, or being opened. */
  get active(): boolean {
    return this.connection !== null
  }

  /** Bytes of the pending write that the card has not taken. */
  get pendingBytes(): number {
    return this.#backlog === null ? 0 : this.#backlog.left
  }

  // ── opening ──

  /** Sends the SYN. `localAddress` and `localPort` as the application gave them; 0 for what it did not. */
  connect(
    remoteAddress: number,
    port: number,
    localAddress: number,
    local: { localAddress?: string | undefined; localPort?: number | undefined },
  ): void {
    this.#begin()
    this.#target = {
      address: formatIPv4(remoteAddress),
      port,
      localAddress: local.localAddress,
      localPort: local.localPort,
    }
    let options = this.noDelay ? SOCKET_OPTION_NO_DELAY : 0
    if (this.keepAlive) options |= SOCKET_OPTION_KEEP_ALIVE
    this.connection = this.stack.driver.connect(
      this.#owner(false),
      remoteAddress,
      port,
      localAddress,
      local.localPort ?? 0,
      options,
    )
  }

  /** Takes over a connection that a listener accepted. */
  accept(connection: TcpConnection): void {
    this.#begin()
    connection.owner = this.#owner(true)
    this.connection = this.peer = connection
  }

  /** Who hears of the connection: this, by way of the asynchronous context that runs now where the process wants that. */
  #owner(accepted: boolean): ConnectionOwner {
    return this.stack.asyncContext ? inContext<ConnectionOwner>('TCPWRAP', this, OWNER_METHODS, accepted) : this
  }

  #begin(): void {
    this.bytesRead = this.bytesWritten = this.#consumed = 0
    this.#ended = this.resetting = false
    this.peer = null
    this.#hold(this.#referenced)
  }

  onConnected(): void {
    const socket = this.#socket
    const connection = this.connection!
    socket.connecting = false
    this.peer = connection
    this.touch()
    if (this.keepAlive && this.keepAliveSeconds > 0) connection.setKeepAlive(this.keepAliveSeconds)
    const { address, port } = this.#target!
    socket.emit('connectionAttempt', address, port, 4)
    socket.emit('connect')
    socket.emit('ready')
    if (this.connection !== connection) return
    if (this.#backlog !== null) this.onRoom()
    if (this.#finalCallback !== null) {
      const callback = this.#finalCallback
      this.#finalCallback = null
      this.finish(callback)
    }
    if (!socket.isPaused()) socket.read(0)
  }

  onConnectFailed(status: number): void {
    const { address, port, localAddress, localPort } = this.#target!
    const bound = localAddress !== undefined || localPort !== undefined
    const atBind = bound && (status === STATUS_EADDRINUSE || status === STATUS_EADDRNOTAVAIL)
    const local = localAddress !== undefined && localPort !== undefined ? `${localAddress}:${localPort}` : undefined
    const error = atBind
      ? addressError(status, 'bind', localAddress ?? '0.0.0.0', localPort)
      : addressError(status, 'connect', address, port, local)
    if (!atBind && localAddress !== undefined && localPort !== undefined)
      Object.assign(error, { localAddress, localPort })
    this.#socket.emit('connectionAttempt', address, port, 4)
    this.#socket.emit('connectionAttemptFailed', address, port, 4, error)
    this.#socket.destroy(error)
  }

  // ── reading ──

  onData(data: Buffer): void {
    this.bytesRead += data.length
    this.touch()
    if (this.#onRead === null) this.#socket.push(data)
    else this.#onRead.push(data)
    this.settle()
  }

  onEnd(): void {
    this.#ended = true
    if (this.#onRead === null || this.#onRead.heldBytes === 0) this.#endReading()
  }

  #endReading(): void {
    this.#socket.push(null)
    // With nothing left unread, 'end' comes although nobody reads.
    this.#socket.read(0)
  }

  /** Returns credit for what the application has taken since the last time. */
  settle(): void {
    const unread = this.#onRead === null ? this.#socket.readableLength : this.#onRead.heldBytes
    const consumed = this.bytesRead - unread
    if (consumed <= this.#consumed) return
    this.connection?.consume(consumed - this.#consumed)
    this.#consumed = consumed
  }

  /** True while bytes are unread, and `settle` may find some that have been read. */
  get unsettled(): boolean {
    return this.#consumed < this.bytesRead
  }

  /** Data goes to `onread` from now on (net.Socket's option). */
  setOnRead(options: OnReadOptions): void {
    this.#onRead = new OnRead(options)
  }

  pauseOnRead(): void {
    this.#onRead?.pause()
  }

  resumeOnRead(): void {
    if (this.#onRead === null || this.connection === null) return
    const held = this.#onRead.heldBytes
    this.#onRead.resume()
    this.settle()
    if (this.#ended && held > 0 && this.#onRead.heldBytes === 0) this.#endReading()
  }

  onReset(status: number): void {
    this.#socket.destroy(systemError(status, this.#ended ? 'write' : 'read'))
  }

  // ── writing ──

  write(chunk: Uint8Array | string, encoding: BufferEncoding, callback: WriteCallback): void {
    const connection = this.connection
    if (connection === null || connection.connecting) {
      this.#writeEarly([{ chunk, encoding }], callback)
      return
    }
    this.touch()
    let data: Uint8Array
    if (typeof chunk === 'string') {
      const bytes = Buffer.byteLength(chunk, encoding)
      if (connection.sendText(chunk, encoding, bytes)) {
        this.bytesWritten += bytes
        callback()
        return
      }
      data = Buffer.from(chunk, encoding)
    } else data = chunk
    const sent = connection.send(data)
    this.bytesWritten += sent
    if (sent === data.length) callback()
    else {
      this.#backlog = { pieces: [data], index: 0, offset: sent, left: data.length - sent }
      this.#callback = callback
    }
  }

  /** Writes `chunk` if the card takes all of it now; false, and nothing is written, if it does not. */
  writeWhole(chunk: Uint8Array): boolean {
    const connection = this.connection
    if (connection === null || chunk.length === 0 || !connection.sendWhole(chunk)) return false
    this.touch()
    this.bytesWritten += chunk.length
    return true
  }

  writev(pieces: readonly Piece[], callback: WriteCallback): void {
    const connection = this.connection
    if (connection === null || connection.connecting) {
      this.#writeEarly(pieces, callback)
      return
    }
    this.touch()
    let bytes = 0
    for (const { chunk, encoding } of pieces) {
      bytes += typeof chunk === 'string' ? Buffer.byteLength(chunk, encoding) : chunk.length
    }
    if (connection.sendPieces(pieces, bytes)) {
      this.bytesWritten += bytes
      callback()
      return
    }
    this.#backlog = toBacklog(pieces)
    this.#callback = callback
    this.#sendBacklog()
  }

  /** Sends our FIN. */
  finish(callback: WriteCallback): void {
    if (this.#socket.connecting) {
      this.#finalCallback = callback
      return
    }
    this.connection?.finish()
    callback()
  }

  onRoom(): void {
    if (this.#backlog === null) return
    this.touch()
    this.#sendBacklog()
  }

  #sendBacklog(): void {
    const backlog = this.#backlog!
    const before = backlog.left
    this.connection!.sendBacklog(backlog)
    this.bytesWritten += before - backlog.left
    if (backlog.left === 0) this.#settleWrite(null)
  }

  #writeEarly(pieces: readonly Piece[], callback: WriteCallback): void {
    if (!this.#socket.connecting) {
      callback(nodeError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'))
      return
    }
    this.#backlog = toBacklog(pieces)
    this.#callback = callback
  }

  #settleWrite(error: Error | null): void {
    const callback = this.#callback
    this.#backlog = this.#callback = null
    callback?.(error)
  }

  // ── closing ──

  /** The socket is destroyed: lets go of the connection, and says `close` when the error has been said. */
  destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const socket = this.#socket
    const early = socket.connecting
    socket.connecting = false
    this.#timer?.clear()
    const connection = this.connection
    this.connection = null
    this.#finalCallback = null
    if (connection !== null) {
      if (this.resetting) connection.abort()
      else connection.close()
    }
    this.#hold(false)
    callback(error)
    process.nextTick(emitClose, this, early, error !== null)
    const server = (socket as unknown as { _server: ServerAccount | null })._server
    if (server !== null) {
      server._connections--
      server._emitCloseIfDrained?.()
    }
  }

  /** A tick after `destroy`. */
  closed(early: boolean, hadError: boolean): void {
    // Node reports a write that was on its way when the socket was destroyed as done, one that never could start as failed.
    if (this.#callback !== null) {
      this.#settleWrite(
        early
          ? nodeError(
              Error,
              'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
              'Socket closed before the connection was established',
            )
          : null,
      )
    }
    this.#socket.emit('close', hadError)
  }

  // ── the rest ──

  setTimeout(timeoutMs: number): void {
    if (this.#timer === null) {
      if (timeoutMs === 0) return
      this.#timer = new IdleTimer(this.stack.clock, () => this.#socket.emit('timeout'))
    }
    this.#timer.set(timeoutMs)
  }

  touch(): void {
    if (this.#timer !== null) this.#timer.touch()
  }

  setNoDelay(on: boolean): void {
    if (this.noDelay === on) return
    this.noDelay = on
    this.connection?.setNoDelay(on)
  }

  setKeepAlive(on: boolean, idleSeconds: number): void {
    if (this.keepAlive === on && (!on || this.keepAliveSeconds === idleSeconds)) return
    this.keepAlive = on
    this.keepAliveSeconds = idleSeconds
    this.connection?.setKeepAlive(on ? idleSeconds || DEFAULT_KEEP_ALIVE_SECONDS : 0)
  }

  setReferenced(on: boolean): void {
    this.#referenced = on
    if (this.connection !== null) this.#hold(on)
  }

  #hold(on: boolean): void {
    if (this.#holding === on) return
    this.#holding = on
    if (on) this.stack.references.hold()
    else this.stack.references.release()
  }
}

function emitClose(endpoint: StreamEndpoint, early: boolean, hadError: boolean): void {
  endpoint.closed(early, hadError)
}

function toBacklog(pieces: readonly Piece[]): Backlog {
  const bytes = pieces.map(({ chunk, encoding }) => (typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk))
  return { pieces: bytes, index: 0, offset: 0, left: bytes.reduce((sum, piece) => sum + piece.length, 0) }
}
