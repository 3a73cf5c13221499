import {
  DATA_FLAG_FIN,
  MAXIMUM_DATA_BYTES,
  OP_ABORT,
  OP_CLOSE,
  OP_CREDIT,
  OP_DATA,
  OPTION_KEEP_ALIVE,
  OPTION_NO_DELAY,
} from '../../abi/messages.ts'
import { STATUS_ENOTCONN, STATUS_OK } from '../../abi/status.ts'
import { Departure, type MoveRequest } from './departure.ts'
import type { TxQueue, TxWaiter } from './tx.ts'

/** What a connection tells its socket. All of it comes from the driver's interrupt service, never from within a call of the socket's own. */
export interface ConnectionOwner {
  /** Who that is, for those who look for it among the driver's connections. */
  readonly endpoint?: object
  /** Connected; addresses, ports and credit are there. */
  onConnected(): void
  /** Refused or given up, with STATUS_*; the connection is dead. */
  onConnectFailed(status: number): void
  /** Stream bytes, the receiver's own copy; `consume` them once the application has them. */
  onData(data: Buffer): void
  /** The peer's FIN: no more data. */
  onEnd(): void
  /** `send` takes bytes again after it took fewer than it was given. */
  onRoom(): void
  /** Reset by the peer or by the card, with STATUS_*; the connection is dead. */
  onReset(status: number): void
}

/** What a connection needs of the driver. */
export interface ConnectionHost {
  readonly tx: TxQueue
  /** The handle is dead on both sides. */
  forget(connection: TcpConnection): void
  cancel(connection: TcpConnection): void
  setOption(handle: number, option: number, value: number): void
}

/** A piece of a stream to send, as a Writable hands it over: bytes, or a string with its encoding. */
export interface Piece {
  readonly chunk: Uint8Array | string
  readonly encoding: BufferEncoding
}

/** Bytes that wait to be sent, and how far that got. */
export interface Backlog {
  readonly pieces: readonly Uint8Array[]
  /** The piece that is next, and the offset in it. */
  index: number
  offset: number
  /** Bytes from there to the end. */
  left: number
}

// Phase.
const CONNECTING = 0
const OPEN = 1
const DEAD = 2
const MOVING = 3

// What waits for room in the TX queue.
const WANT_CREDIT = 1
const WANT_FIN = 2
const WANT_CLOSE = 4
const WANT_ABORT = 8
const WANT_ROOM = 16

/**
 * One TCP connection as the card's messages show it (abi/messages.ts, "Life of a handle"): credit both ways, order on the TX queue, and the
 * moment at which the handle is dead. It knows nothing of streams or events; `ConnectionOwner` does.
 */
export class TcpConnection implements TxWaiter {
  owner: ConnectionOwner
  readonly cookie: number
  handle = 0
  localAddress = 0
  localPort = 0
  remoteAddress = 0
  remotePort = 0
  /** Bytes of payload that the card takes now. */
  sendCredit = 0
  /** Bytes that the card may still deliver. */
  receiveCredit = 0

  readonly #host: ConnectionHost
  readonly #tx: TxQueue
  #phase = CONNECTING
  #wants = 0
  #waiting = false
  /** Our FIN was asked for; it was sent; the peer's came. */
  #finished = false
  #finSent = false
  #ended = false
  /** Consumed, and not returned to the card yet: bytes. */
  #owed = 0
  #owedLimit = 0
  /** Receive credit at the start. */
  #window = 0
  /** Set while it moves to another server. */
  #departure: Departure | null = null
  /** A move failed after the peer's end was delivered: it may be delivered again. */
  #endAgain = false

  constructor(host: ConnectionHost, owner: ConnectionOwner, cookie: number) {
    this.#host = host
    this.#tx = host.tx
    this.owner = owner
    this.cookie = cookie
  }

  get connecting(): boolean {
    return this.#phase === CONNECTING
  }

  get dead(): boolean {
    return this.#phase === DEAD
  }

  /** The peer's FIN has come. */
  get ended(): boolean {
    return this.#ended
  }

  /** True while it may be used: it is not being opened, on its way to another server, or gone. */
  get open(): boolean {
    return this.#phase === OPEN
  }

  /** Driver: the card named a handle for it. */
  begin(handle: number, sendCredit: number, receiveCredit: number): void {
    this.handle = handle
    this.sendCredit = sendCredit
    this.receiveCredit = receiveCredit
    // Returning credit costs a record; a quarter of the window at a time keeps the sender going and the records few.
    this.#owedLimit = receiveCredit >>> 2
    this.#window = receiveCredit
    this.#phase = OPEN
  }

  /** Driver: the card delivered data, with `end` its FIN behind it. False if it may not: no credit for so much, or data after the end. */
  deliver(data: Buffer | null, end: boolean): boolean {
    if (this.#ended || this.#departure !== null) return this.#deliverAside(data, end)
    if (data !== null) {
      if (data.length > this.receiveCredit) return false
      this.receiveCredit -= data.length
      this.owner.onData(data)
    }
    // The owner may have let go of the connection just now.
    if (end && this.#phase === OPEN) this.#end()
    return true
  }

  /** Driver: the card returned send credit. */
  addSendCredit(bytes: number): void {
    this.sendCredit = Math.min(this.sendCredit + bytes, 0x7fffffff)
    if ((this.#wants & WANT_ROOM) !== 0 && !this.#waiting) {
      this.#wants &= ~WANT_ROOM
      this.owner.onRoom()
    }
  }

  /** Driver: the handle is dead without a word from us; telling the owner is the caller's. */
  kill(): void {
    this.#phase = DEAD
    this.#wants = 0
    this.#stopMoving()
  }

  /** Driver: the card's answer to OP_MIGRATE. */
  migrated(status: number): void {
    const departure = this.#departure
    if (departure === null || !departure.answered(status)) return
    if (status === STATUS_OK) {
      this.#departure = null
      this.#phase = DEAD
      this.#host.forget(this)
      departure.request.done(status)
      return
    }
    // It takes its bytes back into the stream, and delivers them once more.
    this.receiveCredit += departure.returned
    if (departure.returned === 0) this.#stay(departure)
  }

  /**
   * Sends `data` and returns how many bytes credit and TX queue took, copied; if not all, `onRoom` follows once more will be taken.
   */
  send(data: Uint8Array): number {
    if (this.#phase !== OPEN) return 0
    let sent = 0
    while (sent < data.length) {
      const bytes = Math.min(data.length - sent, this.sendCredit, MAXIMUM_DATA_BYTES)
      const address = this.#appendData(bytes)
      if (address < 0) break
      this.#tx.ram.bytes.set(bytes === data.length ? data : data.subarray(sent, sent + bytes), address)
      sent += bytes
    }
    if (sent > 0) this.#tx.flush()
    return sent
  }

  /** Sends what is left of `backlog`, as `send` does, in records that gather as many pieces as fit. */
  sendBacklog(backlog: Backlog): void {
    if (this.#phase !== OPEN) return
    const ram = this.#tx.ram.bytes
    const before = backlog.left
    while (backlog.left > 0) {
      const bytes = Math.min(backlog.left, this.sendCredit, MAXIMUM_DATA_BYTES)
      const address = this.#appendData(bytes)
      if (address < 0) break
      for (let at = 0; at < bytes; ) {
        const piece = backlog.pieces[backlog.index]!
        const part = piece.subarray(backlog.offset, backlog.offset + bytes - at)
        ram.set(part, address + at)
        at += part.length
        backlog.offset += part.length
        if (backlog.offset === piece.length) {
          backlog.index++
          backlog.offset = 0
        }
      }
      backlog.left -= bytes
    }
    if (backlog.left < before) this.#tx.flush()
  }

  /** Sends `data` in one record. False, and nothing is sent, if it does not fit into one now. */
  sendWhole(data: Uint8Array): boolean {
    if (!this.#takesWhole(data.length)) return false
    const address = this.#appendData(data.length)
    if (address < 0) return false
    this.#tx.ram.bytes.set(data, address)
    this.#tx.flush()
    return true
  }

  /** Sends `text`, which is `bytes` long in `encoding`, in one record. False, and nothing is sent, if it does not fit into one now. */
  sendText(text: string, encoding: BufferEncoding, bytes: number): boolean {
    if (!this.#takesWhole(bytes)) return false
    const address = this.#appendData(bytes)
    if (address < 0) return false
    this.#tx.ram.buffer.write(text, address, bytes, encoding)
    this.#tx.flush()
    return true
  }

  /** Sends `pieces`, `bytes` long together, in one record. False, and nothing is sent, if they do not fit into one now. */
  sendPieces(pieces: readonly Piece[], bytes: number): boolean {
    if (!this.#takesWhole(bytes)) return false
    const address = this.#appendData(bytes)
    if (address < 0) return false
    const ram = this.#tx.ram
    let at = address
    for (const { chunk, encoding } of pieces) {
      if (typeof chunk === 'string') {
        at += ram.buffer.write(chunk, at, address + bytes - at, encoding)
      } else {
        ram.bytes.set(chunk, at)
        at += chunk.length
      }
    }
    this.#tx.flush()
    return true
  }

  /**
   * Moves to another server; `request.done` hears how that went. Until then the owner hears of nothing but a reset, and nothing can be sent.
   * False, and nothing has happened, if more is unread than the card knows to be: what was consumed cannot go back.
   */
  move(request: MoveRequest): boolean {
    let bytes = 0
    for (const piece of request.unread) bytes += piece.length
    // The card holds it against us exactly: what it delivered was consumed or goes back.
    const consumed = this.#window - this.receiveCredit - bytes
    if (consumed < 0) return false
    const { sendCredit } = this
    for (const piece of request.queued) this.sendCredit -= piece.length
    this.receiveCredit += consumed
    this.#owed -= consumed
    const finish = (request.finish || this.#finished) && !this.#finSent
    if (finish) this.#finished = this.#finSent = true
    this.#wants = 0
    this.#phase = MOVING
    this.#departure = new Departure(this.#tx, this.handle, { ...request, finish })
    this.#departure.begin(sendCredit, consumed)
    return true
  }

  /** Ends our side of the stream: FIN, after what was sent. */
  finish(): void {
    if (this.#phase !== OPEN || this.#finished) return
    this.#finished = true
    this.#sendFin()
  }

  /** The application has taken `bytes` of what was delivered; they become credit again, for the card, in due course. */
  consume(bytes: number): void {
    this.#owed += bytes
    if (this.#owed >= this.#owedLimit && this.#phase === OPEN && !this.#ended) this.#returnCredit()
  }

  /** Lets go: what was sent goes out, and a FIN; data that comes now, or was not consumed, is answered with RST. The owner hears no more. */
  close(): void {
    // The card tells from the credit whether all data was consumed; the small change decides between FIN and RST.
    if (this.#phase === OPEN && this.#owed > 0) this.#returnCredit()
    if (this.#phase === MOVING) this.abort()
    else this.#leave(OP_CLOSE, WANT_CLOSE)
  }

  /** Resets the connection. The owner hears no more. */
  abort(): void {
    this.#leave(OP_ABORT, WANT_ABORT)
  }

  setNoDelay(on: boolean): void {
    this.#setOption(OPTION_NO_DELAY, on ? 1 : 0)
  }

  /** Idle seconds before the first probe; 0 = off. */
  setKeepAlive(idleSeconds: number): void {
    this.#setOption(OPTION_KEEP_ALIVE, idleSeconds)
  }

  onTxRoom(): void {
    this.#waiting = false
    const wants = this.#wants
    this.#wants = 0
    if ((wants & WANT_CREDIT) !== 0) this.#returnCredit()
    if ((wants & WANT_FIN) !== 0) this.#sendFin()
    if ((wants & WANT_CLOSE) !== 0) this.#post(OP_CLOSE, WANT_CLOSE)
    if ((wants & WANT_ABORT) !== 0) this.#post(OP_ABORT, WANT_ABORT)
    if ((wants & WANT_ROOM) === 0 || this.#phase !== OPEN) return
    if (this.#waiting) this.#wants |= WANT_ROOM
    else this.owner.onRoom()
  }

  #setOption(option: number, value: number): void {
    if (this.#phase === OPEN) this.#host.setOption(this.handle, option, value)
    else this.#departure?.options.push([option, value])
  }

  /** `deliver` where something is out of the ordinary: the stream has ended, or it moves. */
  #deliverAside(data: Buffer | null, end: boolean): boolean {
    const departure = this.#departure
    if (departure === null) {
      if (data !== null || !this.#endAgain) return false
      this.#endAgain = false
      return true
    }
    let bytes = data === null ? 0 : data.length
    if (bytes > this.receiveCredit) return false
    this.receiveCredit -= bytes
    if (departure.failed === STATUS_OK) {
      if (this.#ended || departure.ended) return false
      if (bytes > 0) departure.held.push(data!)
      departure.ended = end
      if (end && this.#finSent) this.#overtaken(departure)
      return true
    }
    const known = Math.min(bytes, departure.returned)
    departure.returned -= known
    bytes -= known
    if (departure.returned === 0) this.#stay(departure)
    if (this.#ended) {
      if (end) this.#endAgain = false
      return bytes === 0
    }
    if (bytes > 0 && this.#phase === OPEN) this.owner.onData(data!.subarray(known))
    if (end && this.#phase === OPEN) this.#end()
    return true
  }

  /** The move has failed, and what went back to the card is here again. */
  #stay(departure: Departure): void {
    this.#departure = null
    this.#phase = OPEN
    this.#endAgain = this.#ended || departure.ended
    for (const [option, value] of departure.options) this.#host.setOption(this.handle, option, value)
    for (const data of departure.held) if (this.#phase === OPEN) this.owner.onData(data)
    if (departure.ended && this.#phase === OPEN) this.#end()
    departure.request.done(departure.failed)
  }

  /** The peer's end came although ours is sent: the handle was dead before the card heard of the move. */
  #overtaken(departure: Departure): void {
    departure.cancel()
    departure.returned = 0
    departure.failed = STATUS_ENOTCONN
    this.#stay(departure)
  }

  #end(): void {
    this.#ended = true
    this.#dieIfDone()
    this.owner.onEnd()
  }

  #stopMoving(): void {
    this.#departure?.cancel()
    this.#departure = null
  }

  #takesWhole(bytes: number): boolean {
    return this.#phase === OPEN && bytes <= this.sendCredit && bytes <= MAXIMUM_DATA_BYTES
  }

  /** Appends a data record; -1, and `onRoom` to follow, if credit or queue does not take it. A move that failed may have overdrawn the credit. */
  #appendData(bytes: number): number {
    if (bytes <= 0) {
      this.#wants |= WANT_ROOM
      return -1
    }
    const address = this.#tx.append(OP_DATA, 0, this.handle, 0, 0, bytes)
    if (address < 0) this.#want(WANT_ROOM)
    else this.sendCredit -= bytes
    return address
  }

  #sendFin(): void {
    if (this.#tx.append(OP_DATA, DATA_FLAG_FIN, this.handle, 0, 0, 0) < 0) {
      this.#want(WANT_FIN)
      return
    }
    this.#finSent = true
    this.#tx.flush()
    this.#dieIfDone()
  }

  #returnCredit(): void {
    if (this.#tx.append(OP_CREDIT, 0, this.handle, this.#owed, 0, 0) < 0) {
      this.#want(WANT_CREDIT)
      return
    }
    this.receiveCredit += this.#owed
    this.#owed = 0
    this.#tx.flush()
  }

  #leave(op: number, want: number): void {
    if (this.#phase === CONNECTING) {
      this.#phase = DEAD
      this.#host.cancel(this)
    } else if (this.#phase === OPEN || this.#phase === MOVING) {
      this.#stopMoving()
      this.#phase = DEAD
      this.#wants &= WANT_CREDIT
      this.#host.forget(this)
      this.#post(op, want)
    }
  }

  #post(op: number, want: number): void {
    if (this.#tx.append(op, 0, this.handle, 0, 0, 0) < 0) this.#want(want)
    else this.#tx.flush()
  }

  #want(want: number): void {
    this.#wants |= want
    if (this.#waiting) return
    this.#waiting = true
    this.#tx.wait(this)
  }

  #dieIfDone(): void {
    if (!this.#finSent || !this.#ended || this.#phase !== OPEN) return
    this.#phase = DEAD
    this.#host.forget(this)
  }
}
