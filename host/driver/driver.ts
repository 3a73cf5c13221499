import type { Bus } from '../../abi/bus.ts'
import {
  CONNECT_BYTES,
  LISTEN_BYTES,
  OP_CANCEL,
  OP_CONNECT,
  OP_LISTEN,
  OP_LISTENER_OPTIONS,
  OP_SET_OPTION,
  OP_UDP_BIND,
  OP_UNLISTEN,
} from '../../abi/messages.ts'
import { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_RX, QUEUE_TX } from '../../abi/rings.ts'
import { STATUS_EIO } from '../../abi/status.ts'
import {
  BUS_CARD_STATE,
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_NOTIFY,
  BUS_QUEUE_STRIDE,
  CARD_RUNNING,
} from '../../abi/virtio.ts'
import { STATUS_ENETDOWN } from '../status.ts'
import {
  type BoardState,
  boardStateCommand,
  drainCommand,
  type ProcessState,
  processStateCommand,
} from './board-commands.ts'
import { type ConnectionHost, type ConnectionOwner, TcpConnection } from './connection.ts'
import { ControlQueue } from './control.ts'
import { failConnect, runAll } from './endings.ts'
import { CardFlash } from './flash.ts'
import { Intake, RECORD_NONE, RECORD_RX } from './intake.ts'
import { EVENT_STRIDE, layoutRam, type RamLayout, RX_BUFFER_BYTES } from './layout.ts'
import { type ListenerHost, type ListenerOwner, type ListenRequest, TcpListener } from './listener.ts'
import { Ram } from './ram.ts'
import { disableQueue, enableQueue, explainQueue } from './registers.ts'
import { Sockets } from './sockets.ts'
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

  readonly #sockets: Sockets
  readonly #bus: Bus
  readonly #layout: RamLayout
  readonly #processId: number
  readonly #onFault: (error: QueueFault) => void
  readonly #onStart: (() => void) | undefined
  readonly #serveSoon: () => void
  #state: DriverState = 'waiting'
  #serving = false
  #serviceDue = false

  /** Takes the queue set over. Throws RangeError if its RAM is too small. */
  constructor(bus: Bus, options: DriverOptions = {}) {
    this.#bus = bus
    this.ram = new Ram(bus.ram)
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
    this.#sockets = new Sockets(this.ram, this, this.flash)
    bus.onInterrupt(() => this.#onInterrupt())
    if (bus.read(BUS_CARD_STATE) === CARD_RUNNING) this.#start()
  }

  get state(): DriverState {
    return this.#state
  }

  /** Sockets of all kinds that the driver knows. */
  get sockets(): number {
    return this.#sockets.size
  }

  /** Records for sockets that had let go already. */
  get staleRecords(): number {
    return this.#sockets.staleRecords
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
    const cookie = this.#sockets.nextCookie()
    const connection = new TcpConnection(this, owner, cookie)
    connection.remoteAddress = remoteAddress
    connection.remotePort = remotePort
    this.#sockets.connecting.set(cookie, connection)
    const command = this.control.command
    command[0] = OP_CONNECT
    command[1] = cookie
    command[2] = remoteAddress
    command[3] = remotePort | (localPort << 16)
    command[4] = localAddress
    command[5] = options
    if (!this.#post(CONNECT_BYTES)) {
      process.nextTick(() => {
        if (this.#sockets.connecting.delete(cookie)) failConnect(connection, this.#downStatus)
      })
    }
    return connection
  }

  /** Listens; the answer goes to `owner`. */
  listen(owner: ListenerOwner, request: ListenRequest): TcpListener {
    const cookie = this.#sockets.nextCookie()
    const listener = new TcpListener(owner, cookie, this)
    this.#sockets.listeners.set(cookie, listener)
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
        if (this.#sockets.listeners.delete(cookie)) owner.onListening(this.#downStatus, request.port)
      })
    }
    return listener
  }

  /** Binds an endpoint of UDP; `flags`: UDP_FLAG_*. The answer goes to `owner`. */
  bind(owner: DatagramOwner, address: number, port: number, flags: number): UdpEndpoint {
    const cookie = this.#sockets.nextCookie()
    const endpoint = new UdpEndpoint(this, owner, cookie)
    this.#sockets.datagrams.add(endpoint)
    if (!this.#command(OP_UDP_BIND, cookie, address, port | (flags << 16))) {
      process.nextTick(() => {
        if (this.#sockets.datagrams.remove(endpoint)) owner.onBound(this.#downStatus, address, port)
      })
    }
    return endpoint
  }

  /** Connections that are open, in no order. */
  connections(): TcpConnection[] {
    return this.#sockets.connections.values()
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
    this.#sockets.clear()
    this.flash.fail(STATUS_ENETDOWN)
    for (let q = QUEUE_CONTROL; q <= QUEUE_EVENT; q++) disableQueue(this.#bus, q)
  }

  // ── for connections, listeners and endpoints ──

  forget(connection: TcpConnection): void {
    this.#sockets.connections.delete(connection.handle)
  }

  cancel(connection: TcpConnection): void {
    if (this.#sockets.connecting.delete(connection.cookie)) this.#command(OP_CANCEL, connection.cookie, 0, 0)
  }

  unbind(endpoint: UdpEndpoint): void {
    this.#sockets.datagrams.remove(endpoint)
  }

  setOption(handle: number, option: number, value: number): void {
    this.#command(OP_SET_OPTION, handle, option, value)
  }

  unlisten(listener: TcpListener): void {
    if (this.#sockets.listeners.delete(listener.cookie)) this.#command(OP_UNLISTEN, listener.cookie, 0, 0)
  }

  isListening(listener: TcpListener): boolean {
    return this.#sockets.listeners.get(listener.cookie) === listener
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

  #ring(queue: number): void {
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
    runAll([...this.#sockets.fail(status), () => this.flash.fail(status)])
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
        if (kind === RECORD_RX) this.#sockets.receive(intake.address, intake.bytes)
        else this.#sockets.event(intake.address >>> 2)
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
}
