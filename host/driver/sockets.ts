import {
  EVENT_ACCEPTED,
  EVENT_ARRIVED,
  EVENT_CONNECT_FAILED,
  EVENT_CONNECTED,
  EVENT_COOKIE,
  EVENT_CREDIT,
  EVENT_FLASH,
  EVENT_LISTENING,
  EVENT_LOCAL_ADDRESS,
  EVENT_LOCAL_PORT,
  EVENT_MIGRATED,
  EVENT_REMOTE_ADDRESS,
  EVENT_REMOTE_PORT,
  EVENT_RESET,
  EVENT_SOCKET,
  EVENT_STATUS,
  EVENT_TYPE,
  EVENT_UDP_BOUND,
  EVENT_UDP_ERROR,
  EVENT_UNLISTENED,
  EVENT_VALUE,
  EVENT_VALUE2,
  EVENT_VALUE3,
  RX_DATA,
  RX_DATAGRAM,
  RX_FLAG_END,
  RX_FLAGS,
  RX_FLASH,
  RX_HEADER_BYTES,
  RX_LENGTH,
  RX_SOCKET,
  RX_STATE,
  RX_TYPE,
} from '../../abi/messages.ts'
import { STATUS_OK } from '../../abi/status.ts'
import { Arrivals } from './arrivals.ts'
import { type ConnectionHost, TcpConnection } from './connection.ts'
import { Datagrams } from './datagrams.ts'
import { failConnect, loseEndpoint, NOBODY, resetConnection } from './endings.ts'
import type { CardFlash } from './flash.ts'
import { HandleTable } from './handle-table.ts'
import type { TcpListener } from './listener.ts'
import type { Ram } from './ram.ts'
import type { DatagramHost } from './udp.ts'
import { QueueFault } from './virtqueue.ts'

/**
 * The sockets of one queue set, and what the card's records mean to them. By cookie until the card has named a handle, by handle after
 * that.
 */
export class Sockets {
  readonly connecting = new HandleTable<TcpConnection>()
  readonly connections = new HandleTable<TcpConnection>()
  readonly listeners = new HandleTable<TcpListener>()
  readonly datagrams: Datagrams
  /** Records for sockets that had let go already. */
  staleRecords = 0
  readonly #arrivals = new Arrivals()
  readonly #ram: Ram
  readonly #host: ConnectionHost
  readonly #flash: CardFlash
  #lastCookie = 0

  constructor(ram: Ram, host: ConnectionHost & DatagramHost, flash: CardFlash) {
    this.#ram = ram
    this.#host = host
    this.#flash = flash
    this.datagrams = new Datagrams(ram, host)
  }

  get size(): number {
    return this.connecting.size + this.connections.size + this.listeners.size + this.datagrams.size
  }

  /** A name for a socket until the card gives it one. */
  nextCookie(): number {
    do this.#lastCookie = (this.#lastCookie + 1) >>> 0
    while (
      this.#lastCookie === 0 ||
      this.listeners.has(this.#lastCookie) ||
      this.connecting.has(this.#lastCookie) ||
      this.datagrams.hasCookie(this.#lastCookie)
    )
    return this.#lastCookie
  }

  /** What is to be run for all of them to fail with `status`: they are forgotten already. */
  fail(status: number): (() => void)[] {
    const victims = [
      ...this.connecting.values().map((c) => () => failConnect(c, status)),
      ...this.connections.values().map((c) => () => resetConnection(c, status)),
      ...this.listeners.values().map((l) => () => l.owner.onListenerLost(status)),
      ...this.datagrams.takeAll().map((e) => () => loseEndpoint(e, status)),
    ]
    this.clear()
    return victims
  }

  clear(): void {
    for (const table of [this.connecting, this.connections, this.listeners]) table.clear()
    this.datagrams.takeAll()
    this.#arrivals.clear()
  }

  /** A record of the RX queue. @throws QueueFault */
  receive(address: number, bytes: number): void {
    const words = this.#ram.words
    const kind = words[(address + RX_TYPE) >>> 2]!
    const handle = words[(address + RX_SOCKET) >>> 2]!
    const length = words[(address + RX_LENGTH) >>> 2]!
    if ((kind & 0xffff) === RX_DATA) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes in a record of ${bytes}.`)
      const connection = this.connections.get(handle)
      if (connection === undefined) {
        this.staleRecords++
        return
      }
      const data = length === 0 ? null : this.#ram.copy(address + RX_HEADER_BYTES, length)
      const end = ((kind >>> ((RX_FLAGS - RX_TYPE) * 8)) & RX_FLAG_END) !== 0
      if (!connection.deliver(data, end))
        throw new QueueFault(`The card delivered ${length} bytes that socket ${handle} had no credit for.`)
      return
    }
    if ((kind & 0xffff) === RX_STATE) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes of state in a record of ${bytes}.`)
      const piece = this.#ram.copy(address + RX_HEADER_BYTES, length)
      const last = ((kind >>> ((RX_FLAGS - RX_TYPE) * 8)) & RX_FLAG_END) !== 0
      if (!this.#arrivals.piece(handle, piece, last)) this.staleRecords++
      return
    }
    if ((kind & 0xffff) === RX_FLASH) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes of flash in a record of ${bytes}.`)
      const piece = this.#ram.copy(address + RX_HEADER_BYTES, length)
      if (!this.#flash.answered(handle, STATUS_OK, 0, piece)) this.staleRecords++
      return
    }
    if ((kind & 0xffff) !== RX_DATAGRAM)
      throw new QueueFault(`The card delivered an RX record of type ${kind & 0xffff}.`)
    if (!this.datagrams.receive(address, bytes, handle, length)) this.staleRecords++
  }

  /** A record of the event queue; `at` is its word index. @throws QueueFault */
  event(at: number): void {
    const words = this.#ram.words
    const type = words[at + (EVENT_TYPE >>> 2)]! & 0xffff
    const status = words[at + (EVENT_TYPE >>> 2)]! >>> ((EVENT_STATUS - EVENT_TYPE) * 8)
    const handle = words[at + (EVENT_SOCKET >>> 2)]!
    const cookie = words[at + (EVENT_COOKIE >>> 2)]!
    switch (type) {
      case EVENT_CREDIT: {
        const connection = this.connections.get(handle)
        if (connection === undefined) this.staleRecords++
        else connection.addSendCredit(words[at + (EVENT_VALUE >>> 2)]!)
        return
      }
      case EVENT_ACCEPTED: {
        const connection = this.#open(new TcpConnection(this.#host, NOBODY, 0), at)
        const listener = this.listeners.get(cookie)
        if (listener === undefined) connection.abort()
        else listener.owner.onConnection(connection)
        return
      }
      case EVENT_ARRIVED: {
        const connection = this.#open(new TcpConnection(this.#host, NOBODY, 0), at)
        const listener = this.listeners.get(cookie)
        if (listener === undefined) connection.abort()
        else this.#arrivals.begin(connection, listener, words[at + (EVENT_VALUE3 >>> 2)]!)
        return
      }
      case EVENT_MIGRATED: {
        const connection = this.connections.get(handle)
        if (connection === undefined) this.staleRecords++
        else connection.migrated(status)
        return
      }
      case EVENT_CONNECTED: {
        const connection = this.connecting.get(cookie)
        if (connection === undefined) {
          // Cancelled while the card's answer was on its way.
          this.#open(new TcpConnection(this.#host, NOBODY, 0), at).abort()
          return
        }
        this.connecting.delete(cookie)
        this.#open(connection, at)
        connection.owner.onConnected()
        return
      }
      case EVENT_CONNECT_FAILED: {
        const connection = this.connecting.get(cookie)
        if (connection === undefined) return
        this.connecting.delete(cookie)
        failConnect(connection, status)
        return
      }
      case EVENT_RESET: {
        const connection = this.connections.get(handle)
        if (connection === undefined) {
          this.staleRecords++
          return
        }
        this.connections.delete(handle)
        this.#arrivals.forget(handle)
        resetConnection(connection, status)
        return
      }
      case EVENT_LISTENING: {
        const listener = this.listeners.get(cookie)
        if (listener === undefined) return
        if (status !== STATUS_OK) this.listeners.delete(cookie)
        listener.owner.onListening(status, this.#port(at, EVENT_LOCAL_PORT))
        return
      }
      case EVENT_UNLISTENED:
        return
      case EVENT_UDP_BOUND:
        if (status === STATUS_OK && this.datagrams.hasCookie(cookie)) this.#checkHandle(handle)
        this.datagrams.bound(at, status, handle, cookie)
        return
      case EVENT_FLASH:
        if (!this.#flash.answered(cookie, status, words[at + (EVENT_VALUE >>> 2)]!, null)) this.staleRecords++
        return
      case EVENT_UDP_ERROR:
        if (!this.datagrams.failed(at, status, handle)) this.staleRecords++
        return
      default:
        throw new QueueFault(`The card sent an event of type ${type}, which this driver does not know.`)
    }
  }

  /** Takes handle, addresses and credit of a new connection from the event at word `at`. */
  #open(connection: TcpConnection, at: number): TcpConnection {
    const words = this.#ram.words
    const handle = words[at + (EVENT_SOCKET >>> 2)]!
    this.#checkHandle(handle)
    connection.localAddress = words[at + (EVENT_LOCAL_ADDRESS >>> 2)]!
    connection.remoteAddress = words[at + (EVENT_REMOTE_ADDRESS >>> 2)]!
    connection.localPort = this.#port(at, EVENT_LOCAL_PORT)
    connection.remotePort = this.#port(at, EVENT_REMOTE_PORT)
    // Below 0 if its host has overdrawn it, elsewhere, before it moved here.
    const sendCredit = words[at + (EVENT_VALUE >>> 2)]! | 0
    connection.begin(handle, sendCredit, words[at + (EVENT_VALUE2 >>> 2)]!)
    this.connections.set(handle, connection)
    return connection
  }

  #port(at: number, field: number): number {
    return this.#ram.halves[(at << 1) + (field >>> 1)]!
  }

  #checkHandle(handle: number): void {
    if (handle === 0 || this.connections.has(handle) || this.datagrams.hasHandle(handle)) {
      throw new QueueFault(`The card named socket ${handle}, which is ${handle === 0 ? 'none' : 'taken'}.`)
    }
  }
}
