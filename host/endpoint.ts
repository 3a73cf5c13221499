import { AsyncResource } from 'node:async_hooks'
import { MAXIMUM_MIGRATING_BYTES, SOCKET_OPTION_KEEP_ALIVE, SOCKET_OPTION_NO_DELAY } from '../abi/messages.ts'
import { STATUS_EADDRINUSE, STATUS_EADDRNOTAVAIL, STATUS_ENOBUFS, STATUS_ENOTCONN, STATUS_OK } from '../abi/status.ts'
import { formatIPv4 } from './addresses.ts'
import { inContext } from './async-context.ts'
import type { Backlog, ConnectionOwner, Piece, TcpConnection } from './driver/connection.ts'
import { addressError, destroyedError, nodeError, systemError } from './errors.ts'
import { IdleTimer } from './idle-timer.ts'
import { OnRead, type OnReadOptions } from './on-read.ts'
import type { Socket } from './socket.ts'
import { Hold, type Stack } from './stack.ts'
import { STATUS_EALREADY } from './status.ts'
import { unreadBytes } from './unread.ts'

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

/** Where a connection is to move to, and what goes with it. */
export interface MoveTarget {
  /** 0 = the card chooses. */
  readonly address: number
  /** For the application that takes the connection over; null: none, it is as good as a new one there. */
  readonly state: Uint8Array | null
}

/** A move that is going on. */
interface Move {
  readonly resolve: () => void
  readonly reject: (error: Error) => void
  /** Chunks at the front of the Writable's buffer that have gone along. */
  ahead: number
}

/** What `net.Server` and `http.Server` expect of a socket's server. */
export interface ServerAccount {
  _connections: number
  _emitCloseIfDrained?(): void
  /** While `server.drain` goes on. */
  [kDrain]?: DrainObserver | undefined
}

/** Hears of the connections of a server that is being drained. */
export interface DrainObserver {
  /** One was accepted. */
  joined(socket: Socket): void
  /** One has gone; `moved`: to another server. */
  left(moved: boolean): void
}

export const kDrain: unique symbol = Symbol('inic.drain')

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
  #move: Move | null = null
  /** The connection is another server's. */
  #moved = false
  #referenced = true
  readonly #hold: Hold

  constructor(socket: Socket, stack: Stack) {
    this.#socket = socket
    this.stack = stack
    this.#hold = new Hold(stack.references)
  }

  get endpoint(): this {
    return this
  }

  get socket(): Socket {
    return this.#socket
  }

  /** Open, or being opened. */
  get active(): boolean {
    return this.connection !== null
  }

  /** On its way to another server: nothing is read, and what is written waits. */
  get moving(): boolean {
    return this.#move !== null
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
    this.#updateHold()
  }

  /** Takes over a connection that a listener accepted. */
  accept(connection: TcpConnection): void {
    this.#begin()
    connection.owner = this.#owner(true)
    this.connection = this.peer = connection
    this.#updateHold()
  }

  /** Who hears of the connection: this, by way of the asynchronous context that runs now where the process wants that. */
  #owner(accepted: boolean): ConnectionOwner {
    if (!this.stack.asyncContext) return this
    return inContext<ConnectionOwner>('TCPWRAP', this, OWNER_METHODS, accepted)
  }

  #begin(): void {
    this.bytesRead = this.bytesWritten = this.#consumed = 0
    this.#ended = this.resetting = this.#moved = false
    this.peer = null
  }

  onConnected(): void {
    const socket = this.#socket
    const connection = this.connection!
    socket.connecting = false
    this.peer = connection
    this.#updateHold()
    this.touch()
    if (this.keepAlive && this.keepAliveSeconds > 0) connection.setKeepAlive(this.keepAliveSeconds)
    const { address, port } = this.#target!
    socket.emit('connectionAttempt', address, port, 4)
    socket.emit('connect')
    socket.emit('ready')
    if (this.connection !== connection) return
    if (this.#backlog !== null) this.onRoom()
    this.#finishLate()
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
    if (this.#onRead === null || this.connection === null || this.#move !== null) return
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
    if (connection === null || !connection.open) {
      this.#writeAside([{ chunk, encoding }], callback)
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
      this.#wait({ pieces: [data], index: 0, offset: sent, left: data.length - sent }, callback)
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
    if (connection === null || !connection.open) {
      this.#writeAside(pieces, callback)
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
    this.#wait(toBacklog(pieces), callback)
    this.#sendBacklog()
  }

  /** Sends our FIN. */
  finish(callback: WriteCallback): void {
    if (this.#socket.connecting || this.#move !== null) {
      this.#finalCallback = callback
      return
    }
    this.connection?.finish()
    callback()
  }

  /** Sends the FIN that was asked for when it could not be sent. */
  #finishLate(): void {
    const callback = this.#finalCallback
    if (callback === null || this.#move !== null) return
    this.#finalCallback = null
    this.finish(callback)
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

  /** A write that cannot go out: before the connection, or while it moves. */
  #writeAside(pieces: readonly Piece[], callback: WriteCallback): void {
    const move = this.#move
    if (move === null && !this.#socket.connecting) {
      callback(nodeError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'))
      return
    }
    const ahead = move === null ? 0 : Math.min(move.ahead, pieces.length)
    if (ahead > 0) {
      move!.ahead -= ahead
      this.bytesWritten += toBacklog(pieces.slice(0, ahead)).left
      if (ahead === pieces.length) {
        callback()
        return
      }
    }
    this.#wait(toBacklog(pieces.slice(ahead)), callback)
  }

  #wait(backlog: Backlog, callback: WriteCallback): void {
    this.#backlog = backlog
    this.#callback = callback
    this.#updateHold()
  }

  #settleWrite(error: Error | null): void {
    const callback = this.#callback
    this.#backlog = this.#callback = null
    this.#updateHold()
    callback?.(error)
  }

  // ── moving ──

  /** `socket.migrate`, once its arguments are understood. */
  migrate({ address, state }: MoveTarget): Promise<void> {
    const failure = (status: number) =>
      address === 0 ? systemError(status, 'migrate') : addressError(status, 'migrate', formatIPv4(address), undefined)
    const { connection } = this
    const socket = this.#socket
    if (this.#move !== null) return Promise.reject(failure(STATUS_EALREADY))
    const over = socket.writableEnded && connection?.ended === true
    if (connection === null || !connection.open || over) return Promise.reject(failure(STATUS_ENOTCONN))
    const buffered = writableBuffer(socket)
    const queued = [...(this.#backlog === null ? [] : remaining(this.#backlog)), ...toBacklog(buffered).pieces]
    const queuedBytes = queued.reduce((sum, piece) => sum + piece.length, 0)
    if (queuedBytes - connection.sendCredit > MAXIMUM_MIGRATING_BYTES) return Promise.reject(failure(STATUS_ENOBUFS))
    return new Promise((resolve, reject) => {
      const unread = this.#onRead === null ? unreadBytes(socket) : this.#onRead.held
      const move: Move = { resolve, reject, ahead: buffered.length }
      const done = (status: number) => {
        if (this.#move !== move) return
        if (status === STATUS_OK) this.#leave(move)
        else this.#stay(move, failure(status))
      }
      this.#move = move
      this.#updateHold()
      const begun = connection.move({
        address,
        handedOver: state !== null,
        queued,
        finish: socket.writableEnded,
        unread,
        state,
        done: this.stack.asyncContext ? AsyncResource.bind(done) : done,
      })
      if (begun) this.#settleAhead(move)
      else {
        this.#move = null
        this.#updateHold()
        reject(nodeError(Error, 'ERR_INVALID_STATE', 'Invalid state: more is unread than was received'))
      }
    })
  }

  /** Tells the Writable that what it held when the move began has gone. */
  #settleAhead(move: Move): void {
    const socket = this.#socket
    try {
      if (this.#backlog !== null) {
        this.bytesWritten += this.#backlog.left
        this.#settleWrite(null)
      }
      // Corks are the application's: they come off for what is gone, and are there again for what follows.
      const corks = move.ahead > 0 ? socket.writableCorked : 0
      for (let i = 0; i < corks; i++) socket.uncork()
      for (let i = 0; i < corks; i++) socket.cork()
    } catch (error) {
      // Thrown by the application, in a callback of its own; not for whoever has called `migrate`.
      process.nextTick(() => {
        throw error
      })
    }
  }

  #leave(move: Move): void {
    this.#move = null
    this.#moved = true
    this.#socket.destroy()
    move.resolve()
  }

  #stay(move: Move, error: Error): void {
    const socket = this.#socket
    this.#move = null
    this.#updateHold()
    move.reject(error)
    this.touch()
    if (this.#backlog !== null) this.#sendBacklog()
    this.#finishLate()
    // Whoever has asked in vain meanwhile asks again.
    while (socket.readableFlowing && this.#move === null && socket.read() !== null) {}
    if (socket.readableLength > 0 && socket.listenerCount('readable') > 0) socket.emit('readable')
    else socket.read(0)
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
    const move = this.#move
    this.#move = null
    move?.reject(error ?? destroyedError('migrate'))
    if (connection !== null) {
      if (this.resetting) connection.abort()
      else connection.close()
    }
    this.#updateHold()
    // Before those that the Writable still holds.
    if (this.#moved) this.#settleWrite(destroyedError('write'))
    callback(error)
    process.nextTick(emitClose, this, early, error !== null)
    const server = (socket as unknown as { _server: ServerAccount | null })._server
    if (server !== null) {
      server._connections--
      server._emitCloseIfDrained?.()
      server[kDrain]?.left(this.#moved)
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
      this.#timer = new IdleTimer(this.stack.clock, () => {
        if (this.#move === null) this.#socket.emit('timeout')
      })
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
    this.#updateHold()
  }

  /** Without a reference too, the program does not end while it connects, moves, or has written what the card has yet to take. */
  #updateHold(): void {
    const asked = this.#socket.connecting || this.#backlog !== null || this.#move !== null
    this.#hold.set(this.connection !== null && (this.#referenced || asked))
  }
}

function emitClose(endpoint: StreamEndpoint, early: boolean, hadError: boolean): void {
  endpoint.closed(early, hadError)
}

/** What the Writable holds back, the write that it has out excepted. */
export function writableBuffer(socket: Socket): readonly Piece[] {
  return (socket as unknown as { writableBuffer: readonly Piece[] }).writableBuffer
}

/** What is left of `backlog`. */
function remaining({ pieces, index, offset }: Backlog): Uint8Array[] {
  return pieces.slice(index).map((piece, i) => (i === 0 ? piece.subarray(offset) : piece))
}

function toBacklog(pieces: readonly Piece[]): Backlog {
  const bytes = pieces.map(({ chunk, encoding }) => (typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk))
  return { pieces: bytes, index: 0, offset: 0, left: bytes.reduce((sum, piece) => sum + piece.length, 0) }
}
