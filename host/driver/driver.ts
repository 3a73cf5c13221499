import type { Bus } from '../../abi/bus.ts'
import {
  CONNECT_BYTES,
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
  LISTEN_BYTES,
  OP_CANCEL,
  OP_CONNECT,
  OP_LISTEN,
  OP_LISTENER_OPTIONS,
  OP_SET_OPTION,
  OP_UDP_BIND,
  OP_UNLISTEN,
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
import { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_RX, QUEUE_TX } from '../../abi/rings.ts'
import { STATUS_EIO, STATUS_OK } from '../../abi/status.ts'
import {
  BUS_CARD_STATE,
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_NOTIFY,
  BUS_QUEUE_STRIDE,
  CARD_RUNNING,
} from '../../abi/virtio.ts'
import { STATUS_ENETDOWN } from '../status.ts'
import { Arrivals } from './arrivals.ts'
import {
  type BoardState,
  boardStateCommand,
  drainCommand,
  type ProcessState,
  processStateCommand,
} from './board-commands.ts'
import { type ConnectionHost, type ConnectionOwner, TcpConnection } from './connection.ts'
import { ControlQueue } from './control.ts'
import { Datagrams } from './datagrams.ts'
import { failConnect, loseEndpoint, NOBODY, resetConnection, runAll } from './endings.ts'
import { CardFlash } from './flash.ts'
import { HandleTable } from './handle-table.ts'
import { Intake, RECORD_NONE, RECORD_RX } from './intake.ts'
import { EVENT_STRIDE, layoutRam, type RamLayout, RX_BUFFER_BYTES } from './layout.ts'
import { type ListenerHost, type ListenerOwner, type ListenRequest, TcpListener } from './listener.ts'
import { Ram } from './ram.ts'
import { disableQueue, enableQueue, explainQueue } from './registers.ts'
import { TxQueue } from './tx.ts'
import { type DatagramHost, type DatagramOwner, UdpEndpoint } from './udp.ts'
import { QueueFault, queueIsIdle } from './virtqueue.ts'

/**
 *   waiting ──card runs──▶ running ──card stops──▶ stopped ──card runs──▶ running
 *                             └──a queue breaks──▶ broken
 *   any ──close()──▶ closed
 */
export type DriverState = 'waiting' | 'running' | 'stopped' | 'broken' | 'closed'

export interface DriverOptions {
  /** For the card's Listening Sockets table. */
  readonly processId?: number
  /** A queue broke: the driver has given up, all sockets have failed. Without it the error is thrown, uncaught. */
  readonly onFault?: (error: QueueFault) => void
  /** The card runs, for the first time or again: what is no socket's has to be told to it. */
  readonly onStart?: () => void
}

/** Records that are worked off before their buffers go back, so that the card, on a thread of its own, need not wait for all. */
const PUBLISH_EVERY = 32

/**
 * Driver of one queue set (abi/virtio.ts, abi/messages.ts): turns calls into commands and records into calls. One doorbell a batch: what an
 * interrupt's service sends goes out when it ends; what is sent at another time goes out at once, and the ring's event index keeps all
 * but the first doorbell back until the card has looked.
 */
export class Driver implements ConnectionHost, DatagramHost, ListenerHost {
  readonly ram: Ram
  readonly tx: TxQueue
  readonly control: ControlQueue
  readonly intake: Intake
  /** The slot of the card's flash that updates are written to. */
  readonly flash: CardFlash
  interrupts = 0
  doorbells = 0
  /** Records for sockets that had let go already. */
  staleRecords = 0

  readonly #bus: Bus
  readonly #layout: RamLayout
  readonly #processId: number
  readonly #onFault: (error: QueueFault) => void
  readonly #onStart: (() => void) | undefined
  readonly #serveSoon: () => void
  #state: DriverState = 'waiting'
  #serving = false
  #serviceDue = false
  #lastCookie = 0

  // Who is where: by cookie until the card has named a handle, by handle after that.
  readonly #connecting = new HandleTable<TcpConnection>()
  readonly #connections = new HandleTable<TcpConnection>()
  readonly #listeners = new HandleTable<TcpListener>()
  readonly #datagrams: Datagrams
  readonly #arrivals = new Arrivals()

  /** Takes the queue set over. Throws RangeError if its RAM is too small. */
  constructor(bus: Bus, options: DriverOptions = {}) {
    this.#bus = bus
    this.ram = new Ram(bus.ram)
    this.#datagrams = new Datagrams(this.ram, this)
    this.#layout = layoutRam(bus.ram.byteLength)
    this.#processId = options.processId ?? 0
    this.#onFault =
      options.onFault ??
      ((error) => {
        throw error
      })
    this.#onStart = options.onStart
    this.#serveSoon = () => {
      this.#serviceDue = false
      this.#serve()
    }
    const soon = () => this.#scheduleService()
    this.tx = new TxQueue(this.ram, this.#layout, () => this.#ring(QUEUE_TX), soon)
    this.control = new ControlQueue(this.ram, this.#layout, () => this.#ring(QUEUE_CONTROL), soon)
    this.intake = new Intake(
      this.ram,
      this.#layout,
      () => this.#ring(QUEUE_RX),
      () => this.#ring(QUEUE_EVENT),
    )
    this.flash = new CardFlash(this.tx, () => this.#state === 'running')
    bus.onInterrupt(() => this.#onInterrupt())
    if (bus.read(BUS_CARD_STATE) === CARD_RUNNING) this.#start()
  }

  get state(): DriverState {
    return this.#state
  }

  /** Sockets of all kinds that the driver knows. */
  get sockets(): number {
    return this.#connecting.size + this.#connections.size + this.#listeners.size + this.#datagrams.size
  }

  /** True once the card has taken everything that was sent, or will take nothing more. */
  get drained(): boolean {
    if (this.#state !== 'running') return true
    return !this.tx.hasWaiters && queueIsIdle(this.ram, this.#layout.tx) && queueIsIdle(this.ram, this.#layout.control)
  }

  /** Connects to `remoteAddress`; a local address or port of 0 is chosen by the card. `options`: SOCKET_OPTION_*. The answer goes to `owner`. */
  connect(
    owner: ConnectionOwner,
    remoteAddress: number,
    remotePort: number,
    localAddress: number,
    localPort: number,
    options: number,
  ): TcpConnection {
    const cookie = this.#nextCookie()
    const connection = new TcpConnection(this, owner, cookie)
    connection.remoteAddress = remoteAddress
    connection.remotePort = remotePort
    this.#connecting.set(cookie, connection)
    const command = this.control.command
    command[0] = OP_CONNECT
    command[1] = cookie
    command[2] = remoteAddress
    command[3] = remotePort | (localPort << 16)
    command[4] = localAddress
    command[5] = options
    if (!this.#post(CONNECT_BYTES)) {
      process.nextTick(() => {
        if (this.#connecting.delete(cookie)) failConnect(connection, this.#downStatus)
      })
    }
    return connection
  }

  /** Listens; the answer goes to `owner`. */
  listen(owner: ListenerOwner, request: ListenRequest): TcpListener {
    const cookie = this.#nextCookie()
    const listener = new TcpListener(owner, cookie, this)
    this.#listeners.set(cookie, listener)
    const command = this.control.command
    command[0] = OP_LISTEN
    command[1] = cookie
    command[2] = request.address
    command[3] = request.port | (Math.min(request.backlog, 0xffff) << 16)
    command[4] = request.firstSpeaker
    command[5] = request.placeAfterMs
    command[6] = this.#processId
    command[7] = request.options
    if (!this.#post(LISTEN_BYTES)) {
      process.nextTick(() => {
        if (this.#listeners.delete(cookie)) owner.onListening(this.#downStatus, request.port)
      })
    }
    return listener
  }

  /** Binds an endpoint of UDP; `flags`: UDP_FLAG_*. The answer goes to `owner`. */
  bind(owner: DatagramOwner, address: number, port: number, flags: number): UdpEndpoint {
    const cookie = this.#nextCookie()
    const endpoint = new UdpEndpoint(this, owner, cookie)
    this.#datagrams.add(endpoint)
    if (!this.#command(OP_UDP_BIND, cookie, address, port | (flags << 16))) {
      process.nextTick(() => {
        if (this.#datagrams.remove(endpoint)) owner.onBound(this.#downStatus, address, port)
      })
    }
    return endpoint
  }

  /** Connections that are open, in no order. */
  connections(): TcpConnection[] {
    return this.#connections.values()
  }

  /** Tells the card how the main board is. */
  reportBoard(state: BoardState): void {
    this.#post(boardStateCommand(this.control.command, state))
  }

  /** Tells the card how a process is. */
  reportProcess(state: ProcessState): void {
    this.#post(processStateCommand(this.control.command, state))
  }

  /** While on, nothing new is placed on this server. */
  drain(on: boolean): void {
    this.#post(drainCommand(this.control.command, on))
  }

  /** The process ends: the queues are disabled, by which the card knows, and sockets hear no more. */
  close(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#forgetAll()
    this.flash.fail(STATUS_ENETDOWN)
    for (let q = QUEUE_CONTROL; q <= QUEUE_EVENT; q++) disableQueue(this.#bus, q)
  }

  // ── for connections, listeners and endpoints ──

  forget(connection: TcpConnection): void {
    this.#connections.delete(connection.handle)
  }

  cancel(connection: TcpConnection): void {
    if (this.#connecting.delete(connection.cookie)) this.#command(OP_CANCEL, connection.cookie, 0, 0)
  }

  unbind(endpoint: UdpEndpoint): void {
    this.#datagrams.remove(endpoint)
  }

  setOption(handle: number, option: number, value: number): void {
    this.#command(OP_SET_OPTION, handle, option, value)
  }

  unlisten(listener: TcpListener): void {
    if (this.#listeners.delete(listener.cookie)) this.#command(OP_UNLISTEN, listener.cookie, 0, 0)
  }

  isListening(listener: TcpListener): boolean {
    return this.#listeners.get(listener.cookie) === listener
  }

  setListenerOptions(listener: TcpListener, options: number): void {
    if (this.isListening(listener)) this.#command(OP_LISTENER_OPTIONS, listener.cookie, options, 0)
  }

  // ── commands ──

  #command(op: number, socket: number, a: number, b: number): boolean {
    const command = this.control.command
    command[0] = op
    command[1] = socket
    command[2] = a
    command[3] = b
    return this.#post(16)
  }

  /** False if the card is gone for good, or too many commands wait already. */
  #post(bytes: number): boolean {
    if (this.#state !== 'running' && this.#state !== 'waiting') return false
    return this.control.post(bytes)
  }

  get #downStatus(): number {
    return this.#state === 'broken' ? STATUS_EIO : STATUS_ENETDOWN
  }

  #nextCookie(): number {
    do this.#lastCookie = (this.#lastCookie + 1) >>> 0
    while (
      this.#lastCookie === 0 ||
      this.#listeners.has(this.#lastCookie) ||
      this.#connecting.has(this.#lastCookie) ||
      this.#datagrams.hasCookie(this.#lastCookie)
    )
    return this.#lastCookie
  }

  #ring(queue: number): void {
    this.doorbells++
    this.#bus.write(queue * BUS_QUEUE_STRIDE + BUS_QUEUE_NOTIFY, 1)
  }

  // ── life of the card ──

  #start(): void {
    this.tx.reset()
    this.control.reset(this.#state === 'waiting')
    this.intake.reset()
    const { control, tx, rx, event } = this.#layout
    enableQueue(this.#bus, QUEUE_RX, rx, RX_BUFFER_BYTES)
    enableQueue(this.#bus, QUEUE_EVENT, event, EVENT_STRIDE)
    enableQueue(this.#bus, QUEUE_TX, tx, 0)
    enableQueue(this.#bus, QUEUE_CONTROL, control, 0)
    this.#state = 'running'
    this.intake.publish()
    this.intake.requestInterrupt()
    this.control.open()
    this.#onStart?.()
  }

  /** The card stopped, or a queue broke: every socket fails with `status`. */
  #stop(state: DriverState, status: number): void {
    this.#state = state
    for (let q = QUEUE_CONTROL; q <= QUEUE_EVENT; q++) disableQueue(this.#bus, q)
    this.tx.reset()
    this.control.reset(false)
    const victims = [
      ...this.#connecting.values().map((c) => () => failConnect(c, status)),
      ...this.#connections.values().map((c) => () => resetConnection(c, status)),
      ...this.#listeners.values().map((l) => () => l.owner.onListenerLost(status)),
      ...this.#datagrams.takeAll().map((e) => () => loseEndpoint(e, status)),
      () => this.flash.fail(status),
    ]
    this.#forgetAll()
    runAll(victims)
  }

  #forgetAll(): void {
    for (const table of [this.#connecting, this.#connections, this.#listeners]) table.clear()
    this.#datagrams.takeAll()
    this.#arrivals.clear()
  }

  /** Follows the card's state. */
  #followCard(): void {
    const running = this.#bus.read(BUS_CARD_STATE) === CARD_RUNNING
    if (running && (this.#state === 'waiting' || this.#state === 'stopped')) this.#start()
    else if (!running && this.#state === 'running') this.#stop('stopped', STATUS_ENETDOWN)
  }

  /** An interrupt that no record explains: a queue is broken, or the card was restarted so quickly that it runs again. */
  #examineQueues(): void {
    for (let q = QUEUE_CONTROL; q <= QUEUE_EVENT; q++) {
      const trouble = explainQueue(this.#bus, q)
      if (trouble === null) continue
      if (trouble === '') {
        this.#stop('stopped', STATUS_ENETDOWN)
        this.#followCard()
      } else this.#break(new QueueFault(trouble))
      return
    }
  }

  #break(fault: QueueFault): void {
    try {
      this.#stop('broken', STATUS_EIO)
    } finally {
      this.#onFault(fault)
    }
  }

  // ── interrupt service ──

  #onInterrupt(): void {
    this.interrupts++
    this.#bus.write(BUS_INTERRUPT_ACK, this.#bus.read(BUS_INTERRUPT_STATUS))
    if (this.#serving) {
      this.#scheduleService()
      return
    }
    this.#followCard()
    if (this.#state === 'running' && !this.#serve()) this.#examineQueues()
  }

  #scheduleService(): void {
    if (this.#serviceDue) return
    this.#serviceDue = true
    process.nextTick(this.#serveSoon)
  }

  /** Works off what the card has sent, in order; false if there was nothing. What an application throws goes on to the caller, the rest waits a tick. */
  #serve(): boolean {
    if (this.#serving || this.#state !== 'running') return true
    const { intake, tx, control } = this
    this.#serving = tx.held = control.held = true
    let records = 0
    let finished = false
    let fault: QueueFault | null = null
    try {
      tx.reclaim()
      control.reclaim()
      if (tx.hasWaiters) {
        tx.wake()
        records++
      }
      for (;;) {
        const kind = intake.next()
        if (kind === RECORD_NONE) {
          if (this.#state !== 'running' || !intake.requestInterrupt()) break
          continue
        }
        if (kind === RECORD_RX) this.#receive(intake.address, intake.bytes)
        else this.#event(intake.address >>> 2)
        // Not before: the card, on a thread of its own, may write to the buffer at once.
        if ((++records & (PUBLISH_EVERY - 1)) === 0) intake.publish()
      }
      finished = true
    } catch (error) {
      if (!(error instanceof QueueFault)) throw error
      fault = error
    } finally {
      this.#serving = tx.held = control.held = false
      if (this.#state === 'running' && fault === null) {
        intake.publish()
        tx.flush()
        control.flush()
        if (!finished) this.#scheduleService()
      }
    }
    if (fault !== null) this.#break(fault)
    return records > 0 || fault !== null
  }

  #receive(address: number, bytes: number): void {
    const words = this.ram.words
    const kind = words[(address + RX_TYPE) >>> 2]!
    const handle = words[(address + RX_SOCKET) >>> 2]!
    const length = words[(address + RX_LENGTH) >>> 2]!
    if ((kind & 0xffff) === RX_DATA) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes in a record of ${bytes}.`)
      const connection = this.#connections.get(handle)
      if (connection === undefined) {
        this.staleRecords++
        return
      }
      const data = length === 0 ? null : this.ram.copy(address + RX_HEADER_BYTES, length)
      const end = ((kind >>> ((RX_FLAGS - RX_TYPE) * 8)) & RX_FLAG_END) !== 0
      if (!connection.deliver(data, end))
        throw new QueueFault(`The card delivered ${length} bytes that socket ${handle} had no credit for.`)
      return
    }
    if ((kind & 0xffff) === RX_STATE) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes of state in a record of ${bytes}.`)
      const piece = this.ram.copy(address + RX_HEADER_BYTES, length)
      const last = ((kind >>> ((RX_FLAGS - RX_TYPE) * 8)) & RX_FLAG_END) !== 0
      if (!this.#arrivals.piece(handle, piece, last)) this.staleRecords++
      return
    }
    if ((kind & 0xffff) === RX_FLASH) {
      if (length > bytes - RX_HEADER_BYTES)
        throw new QueueFault(`The card delivered ${length} bytes of flash in a record of ${bytes}.`)
      const piece = this.ram.copy(address + RX_HEADER_BYTES, length)
      if (!this.flash.answered(handle, STATUS_OK, 0, piece)) this.staleRecords++
      return
    }
    if ((kind & 0xffff) !== RX_DATAGRAM)
      throw new QueueFault(`The card delivered an RX record of type ${kind & 0xffff}.`)
    if (!this.#datagrams.receive(address, bytes, handle, length)) this.staleRecords++
  }

  /** `at`: word index of the event. */
  #event(at: number): void {
    const words = this.ram.words
    const type = words[at + (EVENT_TYPE >>> 2)]! & 0xffff
    const status = words[at + (EVENT_TYPE >>> 2)]! >>> ((EVENT_STATUS - EVENT_TYPE) * 8)
    const handle = words[at + (EVENT_SOCKET >>> 2)]!
    const cookie = words[at + (EVENT_COOKIE >>> 2)]!
    switch (type) {
      case EVENT_CREDIT: {
        const connection = this.#connections.get(handle)
        if (connection === undefined) this.staleRecords++
        else connection.addSendCredit(words[at + (EVENT_VALUE >>> 2)]!)
        return
      }
      case EVENT_ACCEPTED: {
        const connection = this.#open(new TcpConnection(this, NOBODY, 0), at)
        const listener = this.#listeners.get(cookie)
        if (listener === undefined) connection.abort()
        else listener.owner.onConnection(connection)
        return
      }
      case EVENT_ARRIVED: {
        const connection = this.#open(new TcpConnection(this, NOBODY, 0), at)
        const listener = this.#listeners.get(cookie)
        if (listener === undefined) connection.abort()
        else this.#arrivals.begin(connection, listener, words[at + (EVENT_VALUE3 >>> 2)]!)
        return
      }
      case EVENT_MIGRATED: {
        const connection = this.#connections.get(handle)
        if (connection === undefined) this.staleRecords++
        else connection.migrated(status)
        return
      }
      case EVENT_CONNECTED: {
        const connection = this.#connecting.get(cookie)
        if (connection === undefined) {
          // Cancelled while the card's answer was on its way.
          this.#open(new TcpConnection(this, NOBODY, 0), at).abort()
          return
        }
        this.#connecting.delete(cookie)
        this.#open(connection, at)
        connection.owner.onConnected()
        return
      }
      case EVENT_CONNECT_FAILED: {
        const connection = this.#connecting.get(cookie)
        if (connection === undefined) return
        this.#connecting.delete(cookie)
        failConnect(connection, status)
        return
      }
      case EVENT_RESET: {
        const connection = this.#connections.get(handle)
        if (connection === undefined) {
          this.staleRecords++
          return
        }
        this.#connections.delete(handle)
        this.#arrivals.forget(handle)
        resetConnection(connection, status)
        return
      }
      case EVENT_LISTENING: {
        const listener = this.#listeners.get(cookie)
        if (listener === undefined) return
        if (status !== STATUS_OK) this.#listeners.delete(cookie)
        listener.owner.onListening(status, this.#port(at, EVENT_LOCAL_PORT))
        return
      }
      case EVENT_UNLISTENED:
        return
      case EVENT_UDP_BOUND:
        if (status === STATUS_OK && this.#datagrams.hasCookie(cookie)) this.#checkHandle(handle)
        this.#datagrams.bound(at, status, handle, cookie)
        return
      case EVENT_FLASH:
        if (!this.flash.answered(cookie, status, words[at + (EVENT_VALUE >>> 2)]!, null)) this.staleRecords++
        return
      case EVENT_UDP_ERROR:
        if (!this.#datagrams.failed(at, status, handle)) this.staleRecords++
        return
      default:
        throw new QueueFault(`The card sent an event of type ${type}, which this driver does not know.`)
    }
  }

  /** Takes handle, addresses and credit of a new connection from the event at word `at`. */
  #open(connection: TcpConnection, at: number): TcpConnection {
    const words = this.ram.words
    const handle = words[at + (EVENT_SOCKET >>> 2)]!
    this.#checkHandle(handle)
    connection.localAddress = words[at + (EVENT_LOCAL_ADDRESS >>> 2)]!
    connection.remoteAddress = words[at + (EVENT_REMOTE_ADDRESS >>> 2)]!
    connection.localPort = this.#port(at, EVENT_LOCAL_PORT)
    connection.remotePort = this.#port(at, EVENT_REMOTE_PORT)
    // Below 0 if its host has overdrawn it, elsewhere, before it moved here.
    const sendCredit = words[at + (EVENT_VALUE >>> 2)]! | 0
    connection.begin(handle, sendCredit, words[at + (EVENT_VALUE2 >>> 2)]!)
    this.#connections.set(handle, connection)
    return connection
  }

  #port(at: number, field: number): number {
    return this.ram.halves[(at << 1) + (field >>> 1)]!
  }

  #checkHandle(handle: number): void {
    if (handle === 0 || this.#connections.has(handle) || this.#datagrams.hasHandle(handle)) {
      throw new QueueFault(`The card named socket ${handle}, which is ${handle === 0 ? 'none' : 'taken'}.`)
    }
  }
}
