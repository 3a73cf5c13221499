import type { Bus } from '../../abi/bus.ts'
import * as M from '../../abi/messages.ts'
import { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_RX, QUEUE_TX, QUEUES_PER_SET } from '../../abi/rings.ts'
import * as S from '../../abi/status.ts'
import * as V from '../../abi/virtio.ts'
import type { FakeNetwork } from './fake-network.ts'
import { FakeQueue } from './fake-queue.ts'
import { FakeTcp } from './fake-tcp.ts'
import { FakeUdp } from './fake-udp.ts'

export const LOOPBACK = 0x7f000001

/** An event that goes to the host; what is left out is 0. */
export interface EventFields {
  type: number
  status?: number
  handle?: number
  cookie?: number
  localAddress?: number
  remoteAddress?: number
  localPort?: number
  remotePort?: number
  value?: number
  value2?: number
  value3?: number
}

/** One card without firmware; see FakeNetwork. */
export class FakeCard implements Bus {
  readonly ram: Uint8Array
  readonly network: FakeNetwork
  readonly address: number
  readonly queues: FakeQueue[]
  state: number = V.CARD_RUNNING
  doorbells = 0
  interrupts = 0
  readonly tcp = new FakeTcp(this)
  readonly udp = new FakeUdp(this)
  /** What the host has said of its board, as words from byte 16 of the command, oldest first; and of processes, by their ids. */
  readonly boardStates: number[][] = []
  readonly processStates = new Map<number, { memoryKib: number; cpuPermille: number }>()
  draining = false
  /** Commands for handles that are dead. */
  late = 0
  readonly #words: Uint32Array
  readonly #view: DataView
  #handler: (() => void) | null = null
  #line = false
  #status = 0
  #features = 0
  #sequence = 0
  #nextHandle = 1
  #nextPort = 49152
  #events: (() => void)[] = []

  constructor(network: FakeNetwork, address: number, buffer: ArrayBuffer | SharedArrayBuffer) {
    this.network = network
    this.address = address
    this.ram = new Uint8Array(buffer)
    this.#words = new Uint32Array(buffer)
    this.#view = new DataView(buffer)
    this.queues = Array.from({ length: QUEUES_PER_SET }, () => new FakeQueue(this.ram))
  }

  get listeners(): FakeTcp['listeners'] {
    return this.tcp.listeners
  }

  get ends(): FakeTcp['ends'] {
    return this.tcp.ends
  }

  // ── Bus ──

  onInterrupt(handler: () => void): void {
    this.#handler = handler
  }

  read(register: number): number {
    if (register === V.BUS_CARD_STATE) return this.state
    if (register === V.BUS_INTERRUPT_STATUS) return this.#status
    if (register === V.BUS_FEATURES) return this.#features
    const queue = this.queues[register >> 6]!
    switch (register & 63) {
      case V.BUS_QUEUE_STATE:
        return queue.state
      case V.BUS_QUEUE_ERROR:
        return queue.error
      case V.BUS_QUEUE_ENABLE:
        return queue.enabled ? 1 : 0
    }
    throw new RangeError(`no register ${register}`)
  }

  write(register: number, value: number): void {
    if (register === V.BUS_INTERRUPT_ACK) {
      this.#status &= ~value
      return
    }
    if (register === V.BUS_FEATURES) {
      this.#features = value
      return
    }
    const queue = this.queues[register >> 6]!
    switch (register & 63) {
      case V.BUS_QUEUE_DESC:
        queue.desc = value
        return
      case V.BUS_QUEUE_AVAIL:
        queue.avail = value
        return
      case V.BUS_QUEUE_USED:
        queue.used = value
        return
      case V.BUS_QUEUE_SIZE:
        queue.size = value
        return
      case V.BUS_QUEUE_BUFFER_BYTES:
        queue.bufferBytes = value
        return
      case V.BUS_QUEUE_ENABLE:
        if (value === 1) {
          queue.enable()
          if (this.queues.every((q) => q.enabled)) this.#sequence = 0
        } else queue.disable()
        return
      case V.BUS_QUEUE_NOTIFY:
        this.doorbells++
        this.network.wake()
        return
    }
    throw new RangeError(`no register ${register}`)
  }

  // ── for tests ──

  /** The firmware crashes. */
  stop(): void {
    this.state = V.CARD_STOPPED
    this.tcp.stop()
    this.udp.endpoints.clear()
    this.draining = false
    this.#events = []
    for (const queue of this.queues) queue.disable()
    this.#line = true
    this.network.wake()
  }

  /** The firmware boots again. */
  start(): void {
    this.state = V.CARD_RUNNING
    this.#line = true
    this.network.wake()
  }

  /** Pretends that the driver broke a rule. */
  breakQueue(queue: number, error: number): void {
    this.queues[queue]!.state = 2
    this.queues[queue]!.error = error
    this.#line = true
    this.network.wake()
  }

  /** Sends an event as it is given: fields by their offsets, 32 bits each; leaves out `skip` numbers before it. */
  rawEvent(fields: Record<number, number>, skip = 0): void {
    this.#sequence += skip
    this.#send((at) => {
      for (const [offset, value] of Object.entries(fields)) this.#view.setUint32(at + Number(offset), value, true)
    })
    this.network.wake()
  }

  /** Puts an entry into a used ring that no chain stands for. */
  rawUsed(queue: number, id: number, bytes: number): void {
    this.queues[queue]!.give(id, bytes)
    this.#line = true
    this.network.wake()
  }

  /** Delivers an RX record as it is given. */
  rawRx(type: number, socket: number, length: number, payload: Uint8Array, sequence?: number): void {
    const id = this.queues[QUEUE_RX]!.next()
    const at = this.queues[QUEUE_RX]!.address
    this.#view.setUint32(at + M.RX_TYPE, type, true)
    this.#view.setUint32(at + M.RX_SOCKET, socket, true)
    this.#view.setUint32(at + M.RX_LENGTH, length, true)
    this.#view.setUint32(at + M.RX_SEQUENCE, sequence ?? this.#sequence++, true)
    this.ram.set(payload, at + M.RX_HEADER_BYTES)
    this.queues[QUEUE_RX]!.give(id, M.RX_HEADER_BYTES + payload.length)
    this.network.wake()
  }

  // ── a slice ──

  work(): void {
    if (this.state !== V.CARD_RUNNING) return
    for (const q of [QUEUE_CONTROL, QUEUE_TX]) {
      const queue = this.queues[q]!
      do {
        for (let id = queue.next(); id >= 0; id = queue.next()) {
          this.#command(queue.address, queue.length)
          queue.give(id, 0)
        }
      } while (queue.requestDoorbell())
    }
  }

  deliverPending(): void {
    for (let i = 0; i < this.#events.length; i++) {
      if (this.queues[QUEUE_EVENT]!.available === 0) break
      this.#events[i]!()
      this.#events[i] = done
    }
    this.#events = this.#events.filter((event) => event !== done)
    this.tcp.deliverPending()
    this.queues[QUEUE_RX]!.requestDoorbell()
    this.queues[QUEUE_EVENT]!.requestDoorbell()
  }

  publish(): void {
    this.queues.forEach((queue, q) => {
      if (!queue.publish()) return
      this.#status |= 1 << q
      this.#line = true
    })
  }

  interrupt(): void {
    if (!this.#line || this.#handler === null) return
    this.#line = false
    this.interrupts++
    this.#handler()
  }

  #command(at: number, length: number): void {
    const word = (offset: number) => this.#words[(at + offset) >> 2]!
    const op = this.#view.getUint16(at + M.COMMAND_OP, true)
    const flags = this.#view.getUint16(at + M.COMMAND_FLAGS, true)
    const socket = word(M.COMMAND_SOCKET)
    const a = word(M.COMMAND_A)
    const b = word(M.COMMAND_B)
    const payload = () => Buffer.from(this.ram.subarray(at + M.COMMAND_HEADER_BYTES, at + length))
    switch (op) {
      case M.OP_LISTEN:
        return this.tcp.listen(socket, a, b & 0xffff, {
          firstSpeaker: word(M.LISTEN_FIRST_SPEAKER),
          placeAfterMs: word(M.LISTEN_PLACE_AFTER_MS),
          options: word(M.LISTEN_OPTIONS),
        })
      case M.OP_UNLISTEN:
        return this.tcp.unlisten(socket)
      case M.OP_LISTENER_OPTIONS:
        this.listeners.get(socket)!.options = a
        return
      case M.OP_CONNECT:
        return this.tcp.connect(socket, a, b & 0xffff, word(M.CONNECT_LOCAL_ADDRESS), b >>> 16)
      case M.OP_CANCEL:
        return
      case M.OP_SET_OPTION:
        this.tcp.setOption(socket, a, b)
        this.udp.setOption(socket, a, b)
        return
      case M.OP_BOARD_STATE:
        this.boardStates.push([...this.#words.subarray((at + M.BOARD_STATE_CPU) >> 2, (at + M.BOARD_STATE_BYTES) >> 2)])
        return
      case M.OP_PROCESS_STATE:
        this.processStates.set(a, { memoryKib: word(M.PROCESS_STATE_MEMORY), cpuPermille: word(M.PROCESS_STATE_CPU) })
        return
      case M.OP_DRAIN:
        this.draining = a === 1
        return
      case M.OP_UDP_BIND:
        return this.udp.bind(socket, a, b & 0xffff)
      case M.OP_UDP_CLOSE:
        this.udp.endpoints.delete(socket)
        return
      case M.OP_UDP_SEND:
        return this.udp.send(socket, a, b, payload())
      case M.OP_CREDIT:
        if (!this.tcp.credit(socket, a) && !this.udp.credit(socket, a)) this.late++
        return
    }
    if (!this.tcp.command(op, flags, socket, a, payload())) throw new Error(`the host sent command ${op}`)
  }

  // ── for TCP and UDP ──

  newHandle(): number {
    return this.#nextHandle++
  }

  ephemeral(): number {
    this.#nextPort = this.#nextPort === 65535 ? 49152 : this.#nextPort + 1
    return this.#nextPort
  }

  /** Whether one may bind to an address and port, beside those that have. */
  bindStatus(address: number, port: number, taken: { address: number; port: number }[]): number {
    if (address !== 0 && address !== this.address && address !== LOOPBACK) return S.STATUS_EADDRNOTAVAIL
    const clash = taken.some((l) => l.port === port && (l.address === 0 || address === 0 || l.address === address))
    return port !== 0 && clash ? S.STATUS_EADDRINUSE : S.STATUS_OK
  }

  /** Sends an event now, or when there is a buffer for it. */
  event(fields: EventFields): void {
    this.#send((at) => {
      const half = (offset: number, value = 0) => this.#view.setUint16(at + offset, value, true)
      const word = (offset: number, value = 0) => this.#view.setUint32(at + offset, value, true)
      half(M.EVENT_TYPE, fields.type)
      half(M.EVENT_STATUS, fields.status)
      word(M.EVENT_SOCKET, fields.handle)
      word(M.EVENT_COOKIE, fields.cookie)
      word(M.EVENT_LOCAL_ADDRESS, fields.localAddress)
      word(M.EVENT_REMOTE_ADDRESS, fields.remoteAddress)
      half(M.EVENT_LOCAL_PORT, fields.localPort)
      half(M.EVENT_REMOTE_PORT, fields.remotePort)
      word(M.EVENT_VALUE, fields.value)
      word(M.EVENT_VALUE2, fields.value2)
      word(M.EVENT_VALUE3, fields.value3)
    })
  }

  #send(fill: (at: number) => void): void {
    const send = () => {
      const queue = this.queues[QUEUE_EVENT]!
      const id = queue.next()
      const at = queue.address
      this.ram.fill(0, at, at + M.EVENT_BYTES)
      fill(at)
      this.#view.setUint32(at + M.EVENT_SEQUENCE, this.#sequence, true)
      this.#sequence = (this.#sequence + 1) >>> 0
      queue.give(id, M.EVENT_BYTES)
    }
    if (this.#events.length > 0 || this.queues[QUEUE_EVENT]!.available === 0) this.#events.push(send)
    else send()
  }

  /** True if an RX record may go out now: events that wait come first, the running number says so. */
  get rxRoom(): boolean {
    return this.#events.length === 0 && this.queues[QUEUE_RX]!.available > 0
  }

  /** Bytes of payload that an RX record takes. */
  get rxPayloadBytes(): number {
    return this.queues[QUEUE_RX]!.bufferBytes - M.RX_HEADER_BYTES
  }

  /** Sends an RX record; `length` is what its header says of `pieces`. */
  rx(
    type: number,
    flags: number,
    handle: number,
    pieces: readonly Uint8Array[],
    length = pieces.reduce((bytes, piece) => bytes + piece.length, 0),
  ): void {
    const queue = this.queues[QUEUE_RX]!
    const id = queue.next()
    if (id < 0) throw new Error('no RX buffer is left')
    const at = queue.address
    this.#view.setUint16(at + M.RX_TYPE, type, true)
    this.#view.setUint16(at + M.RX_FLAGS, flags, true)
    this.#view.setUint32(at + M.RX_SOCKET, handle, true)
    this.#view.setUint32(at + M.RX_LENGTH, length, true)
    this.#view.setUint32(at + M.RX_SEQUENCE, this.#sequence, true)
    this.#sequence = (this.#sequence + 1) >>> 0
    let end = at + M.RX_HEADER_BYTES
    for (const piece of pieces) {
      this.ram.set(piece, end)
      end += piece.length
    }
    queue.give(id, end - at)
  }
}

const done = (): void => {}
