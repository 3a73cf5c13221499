import type { Bus } from '../../abi/bus.ts'
import * as M from '../../abi/messages.ts'
import { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_RX, QUEUE_TX, QUEUES_PER_SET } from '../../abi/rings.ts'
import * as S from '../../abi/status.ts'
import * as V from '../../abi/virtio.ts'
import { HandleTable } from '../../host/driver/handle-table.ts'
import type { End, FakeNetwork, Listener, Udp } from './fake-network.ts'
import { FakeQueue } from './fake-queue.ts'

const LOOPBACK = 0x7f000001
const BROADCAST = 0xffffffff

/** One card without firmware; see FakeNetwork. */
export class FakeCard implements Bus {
  readonly ram: Uint8Array
  readonly network: FakeNetwork
  readonly address: number
  readonly queues: FakeQueue[]
  state: number = V.CARD_RUNNING
  doorbells = 0
  interrupts = 0
  readonly listeners = new Map<number, Listener>()
  readonly ends = new HandleTable<End>()
  readonly udps = new Map<number, Udp>()
  /** Commands for handles that are dead. */
  late = 0
  readonly #buffer: Buffer
  readonly #words: Uint32Array
  readonly #view: DataView
  #handler: (() => void) | null = null
  #line = false
  #status = 0
  #features = 0
  #sequence = 0
  #nextHandle = 1
  #nextPort = 49152
  readonly #waiting = new Set<End>()
  #events: (() => void)[] = []

  constructor(network: FakeNetwork, address: number, buffer: ArrayBuffer | SharedArrayBuffer) {
    this.network = network
    this.address = address
    this.ram = new Uint8Array(buffer)
    this.#buffer = Buffer.from(buffer)
    this.#words = new Uint32Array(buffer)
    this.#view = new DataView(buffer)
    this.queues = Array.from({ length: QUEUES_PER_SET }, () => new FakeQueue(this.ram))
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
    for (const end of this.ends.values()) this.network.find(end.peer.card.address)?.reset(end.peer, S.STATUS_ECONNRESET)
    this.listeners.clear()
    this.ends.clear()
    this.udps.clear()
    this.#waiting.clear()
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
    this.#event((at) => {
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
    for (const end of this.#waiting) this.#deliver(end)
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
    const op = this.#view.getUint16(at + M.COMMAND_OP, true)
    const flags = this.#view.getUint16(at + M.COMMAND_FLAGS, true)
    const socket = this.#words[(at + M.COMMAND_SOCKET) >> 2]!
    const a = this.#words[(at + M.COMMAND_A) >> 2]!
    const b = this.#words[(at + M.COMMAND_B) >> 2]!
    const word = (offset: number) => this.#words[(at + offset) >> 2]!
    switch (op) {
      case M.OP_LISTEN:
        return this.#listen(socket, a, b & 0xffff, word(M.LISTEN_FIRST_SPEAKER), word(M.LISTEN_PLACE_AFTER_MS))
      case M.OP_UNLISTEN:
        return this.#unlisten(socket)
      case M.OP_CONNECT:
        return this.#connect(socket, a, b & 0xffff, word(M.CONNECT_LOCAL_ADDRESS), b >>> 16)
      case M.OP_CANCEL:
        return
      case M.OP_UDP_BIND:
        return this.#udpBind(socket, a, b & 0xffff)
      case M.OP_SET_OPTION: {
        const end = this.ends.get(socket)
        if (end) {
          end.options ??= new Map()
          end.options.set(a, b)
        }
        const udp = this.udps.get(socket)
        if (udp && a === M.OPTION_UDP_BROADCAST) udp.broadcast = b === 1
        if (udp && a === M.OPTION_TTL) udp.ttl = b
        return
      }
      case M.OP_UDP_CLOSE:
        this.udps.delete(socket)
        return
      case M.OP_UDP_SEND:
        return this.#udpSend(socket, a, b, at + M.COMMAND_HEADER_BYTES, length - M.COMMAND_HEADER_BYTES)
      case M.OP_CREDIT: {
        const end = this.ends.get(socket)
        const udp = this.udps.get(socket)
        if (end) {
          end.receiveCredit += a
          end.unconsumed -= a
          if (end.unconsumed < 0) throw new Error('the host returned credit for bytes it never got')
          this.#deliver(end)
        } else if (udp) udp.receiveCredit += a
        else this.late++
        return
      }
    }
    const end = this.ends.get(socket)
    if (end === undefined) {
      this.late++
      return
    }
    switch (op) {
      case M.OP_DATA:
        return this.#data(
          end,
          at + M.COMMAND_HEADER_BYTES,
          length - M.COMMAND_HEADER_BYTES,
          (flags & M.DATA_FLAG_FIN) !== 0,
        )
      case M.OP_CLOSE:
        end.released = true
        if (end.unconsumed > 0 || end.inboxBytes > 0) this.#abort(end)
        else {
          if (!end.finSent) this.#fin(end)
          if (end.finReceived) this.#drop(end)
        }
        return
      case M.OP_ABORT:
        return this.#abort(end)
    }
    throw new Error(`the host sent command ${op}`)
  }

  // ── TCP ──

  #listen(cookie: number, address: number, port: number, firstSpeaker: number, placeAfterMs: number): void {
    const status = this.#bindStatus(address, port, [...this.listeners.values()])
    const chosen = port || this.#ephemeral()
    if (status === S.STATUS_OK)
      this.listeners.set(cookie, { cookie, address, port: chosen, firstSpeaker, placeAfterMs })
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_LISTENING, true)
      this.#view.setUint16(at + M.EVENT_STATUS, status, true)
      this.#view.setUint32(at + M.EVENT_COOKIE, cookie, true)
      this.#view.setUint32(at + M.EVENT_LOCAL_ADDRESS, address, true)
      this.#view.setUint16(at + M.EVENT_LOCAL_PORT, chosen, true)
    })
  }

  #unlisten(cookie: number): void {
    this.listeners.delete(cookie)
    for (const end of [...this.ends.values()]) if (end.unattached?.cookie === cookie) this.#abort(end)
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_UNLISTENED, true)
      this.#view.setUint32(at + M.EVENT_COOKIE, cookie, true)
    })
  }

  #bindStatus(address: number, port: number, taken: { address: number; port: number }[]): number {
    if (address !== 0 && address !== this.address && address !== LOOPBACK) return S.STATUS_EADDRNOTAVAIL
    const clash = taken.some((l) => l.port === port && (l.address === 0 || address === 0 || l.address === address))
    return port !== 0 && clash ? S.STATUS_EADDRINUSE : S.STATUS_OK
  }

  #connect(cookie: number, remoteAddress: number, remotePort: number, localAddress: number, localPort: number): void {
    const target = remoteAddress === LOOPBACK ? this : this.network.find(remoteAddress)
    if (this.network.blackHoles.has(remoteAddress)) return
    const fail = (status: number) =>
      this.#event((at) => {
        this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_CONNECT_FAILED, true)
        this.#view.setUint16(at + M.EVENT_STATUS, status, true)
        this.#view.setUint32(at + M.EVENT_COOKIE, cookie, true)
      })
    if (localAddress !== 0 && localAddress !== this.address && localAddress !== LOOPBACK)
      return fail(S.STATUS_EADDRNOTAVAIL)
    if (target === undefined) return fail(S.STATUS_EHOSTUNREACH)
    const listener = [...target.listeners.values()].find(
      (l) => l.port === remotePort && (l.address === 0 || l.address === remoteAddress),
    )
    if (listener === undefined) return fail(S.STATUS_ECONNREFUSED)
    const address = localAddress || (remoteAddress === LOOPBACK ? LOOPBACK : this.address)
    const mine = this.#newEnd(address, localPort || this.#ephemeral(), remoteAddress, remotePort)
    const theirs = target.#newEnd(remoteAddress, remotePort, address, mine.localPort)
    mine.peer = theirs
    theirs.peer = mine
    theirs.unattached = listener
    this.#announce(mine, M.EVENT_CONNECTED, cookie)
    if (listener.firstSpeaker === M.FIRST_SPEAKER_SERVER) target.attach(theirs)
    else if (listener.firstSpeaker === M.FIRST_SPEAKER_AUTO) {
      this.network.place(theirs, listener.placeAfterMs || this.network.placeAfterMs)
    }
  }

  #newEnd(localAddress: number, localPort: number, remoteAddress: number, remotePort: number): End {
    const credit = this.network.creditBytes
    const end: End = {
      card: this,
      handle: this.#nextHandle++,
      peer: undefined as unknown as End,
      localAddress,
      localPort,
      remoteAddress,
      remotePort,
      unattached: null,
      silence: 0,
      placeAtMs: 0,
      inbox: [],
      inboxBytes: 0,
      finReceived: false,
      endDelivered: false,
      finSent: false,
      released: false,
      receiveCredit: credit,
      unconsumed: 0,
      sendCredit: credit,
      creditOwed: 0,
      options: null,
    }
    this.ends.set(end.handle, end)
    return end
  }

  attach(end: End): void {
    if (end.unattached === null || !this.ends.has(end.handle)) return
    const { cookie } = end.unattached
    end.unattached = null
    this.network.placed(end)
    this.#announce(end, M.EVENT_ACCEPTED, cookie)
    this.#deliver(end)
  }

  #announce(end: End, type: number, cookie: number): void {
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, type, true)
      this.#view.setUint16(at + M.EVENT_STATUS, 0, true)
      this.#view.setUint32(at + M.EVENT_SOCKET, end.handle, true)
      this.#view.setUint32(at + M.EVENT_COOKIE, cookie, true)
      this.#view.setUint32(at + M.EVENT_LOCAL_ADDRESS, end.localAddress, true)
      this.#view.setUint32(at + M.EVENT_REMOTE_ADDRESS, end.remoteAddress, true)
      this.#view.setUint16(at + M.EVENT_LOCAL_PORT, end.localPort, true)
      this.#view.setUint16(at + M.EVENT_REMOTE_PORT, end.remotePort, true)
      this.#view.setUint32(at + M.EVENT_VALUE, end.sendCredit, true)
      this.#view.setUint32(at + M.EVENT_VALUE2, end.receiveCredit, true)
    })
  }

  #data(end: End, at: number, length: number, fin: boolean): void {
    if (end.finSent || end.released) throw new Error('the host sent data after its FIN')
    if (length > M.MAXIMUM_DATA_BYTES) throw new Error(`the host sent ${length} bytes in one record`)
    end.sendCredit -= length
    if (end.sendCredit < 0) throw new Error('the host sent more than its credit')
    const { peer } = end
    if (length > 0 && peer.released) {
      this.#abort(end, true)
      return
    }
    if (length > 0) {
      const chunk = Buffer.allocUnsafe(length)
      this.#buffer.copy(chunk, 0, at, at + length)
      peer.inbox.push(chunk)
      peer.inboxBytes += length
    }
    if (fin) {
      end.finSent = true
      peer.finReceived = true
    }
    peer.card.attach(peer)
    peer.card.#deliver(peer)
    if (fin && end.endDelivered) this.#drop(end)
  }

  #fin(end: End): void {
    end.finSent = true
    end.peer.finReceived = true
    end.peer.card.attach(end.peer)
    end.peer.card.#deliver(end.peer)
  }

  #deliver(end: End): void {
    if (end.unattached !== null || !this.ends.has(end.handle)) return
    if (end.released) {
      if (end.finReceived && end.finSent) this.#drop(end)
      return
    }
    const rx = this.queues[QUEUE_RX]!
    while (
      (end.inboxBytes > 0 && end.receiveCredit > 0) ||
      (end.inboxBytes === 0 && end.finReceived && !end.endDelivered)
    ) {
      // Events that wait come first: the running number says so.
      if (this.#events.length > 0 || rx.available === 0) {
        this.#waiting.add(end)
        return
      }
      const id = rx.next()
      const at = rx.address
      let length = 0
      const most = Math.min(end.receiveCredit, rx.bufferBytes - M.RX_HEADER_BYTES)
      while (end.inbox.length > 0 && length < most) {
        const chunk = end.inbox[0]!
        const part = Math.min(chunk.length, most - length)
        this.ram.set(part === chunk.length ? chunk : chunk.subarray(0, part), at + M.RX_HEADER_BYTES + length)
        if (part === chunk.length) end.inbox.shift()
        else end.inbox[0] = chunk.subarray(part)
        length += part
      }
      end.inboxBytes -= length
      end.receiveCredit -= length
      end.unconsumed += length
      const last = end.inboxBytes === 0 && end.finReceived
      this.#view.setUint16(at + M.RX_TYPE, M.RX_DATA, true)
      this.#view.setUint16(at + M.RX_FLAGS, last ? M.RX_FLAG_END : 0, true)
      this.#view.setUint32(at + M.RX_SOCKET, end.handle, true)
      this.#view.setUint32(at + M.RX_LENGTH, length, true)
      this.#view.setUint32(at + M.RX_SEQUENCE, this.#sequence, true)
      this.#sequence = (this.#sequence + 1) >>> 0
      rx.give(id, M.RX_HEADER_BYTES + length)
      end.peer.card.#returnCredit(end.peer, length)
      if (last) {
        end.endDelivered = true
        if (end.finSent) this.#drop(end)
      }
    }
    this.#waiting.delete(end)
  }

  #returnCredit(end: End, bytes: number): void {
    end.creditOwed += bytes
    if (end.creditOwed < this.network.creditBytes >> 2 || !this.ends.has(end.handle) || end.released) return
    const owed = end.creditOwed
    end.creditOwed = 0
    end.sendCredit += owed
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_CREDIT, true)
      this.#view.setUint32(at + M.EVENT_SOCKET, end.handle, true)
      this.#view.setUint32(at + M.EVENT_VALUE, owed, true)
    })
  }

  /** RST to the peer; to the own host too if it did not ask for it. */
  #abort(end: End, tellHost = false): void {
    this.#drop(end)
    if (tellHost && !end.released) this.#resetEvent(end, S.STATUS_ECONNRESET)
    end.peer.card.reset(end.peer, S.STATUS_ECONNRESET)
  }

  reset(end: End, status: number): void {
    if (!this.ends.has(end.handle)) return
    this.#drop(end)
    if (end.unattached === null && !end.released) this.#resetEvent(end, status)
  }

  #resetEvent(end: End, status: number): void {
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_RESET, true)
      this.#view.setUint16(at + M.EVENT_STATUS, status, true)
      this.#view.setUint32(at + M.EVENT_SOCKET, end.handle, true)
    })
  }

  #drop(end: End): void {
    if (end.unattached !== null) this.network.placed(end)
    this.ends.delete(end.handle)
    this.#waiting.delete(end)
  }

  // ── UDP ──

  #udpBind(cookie: number, address: number, port: number): void {
    const status = this.#bindStatus(address, port, [...this.udps.values()])
    const udp: Udp = {
      card: this,
      handle: this.#nextHandle++,
      address,
      port: port || this.#ephemeral(),
      receiveCredit: this.network.creditBytes,
      broadcast: false,
      ttl: 64,
    }
    if (status === S.STATUS_OK) this.udps.set(udp.handle, udp)
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_UDP_BOUND, true)
      this.#view.setUint16(at + M.EVENT_STATUS, status, true)
      this.#view.setUint32(at + M.EVENT_SOCKET, udp.handle, true)
      this.#view.setUint32(at + M.EVENT_COOKIE, cookie, true)
      this.#view.setUint32(at + M.EVENT_LOCAL_ADDRESS, address, true)
      this.#view.setUint16(at + M.EVENT_LOCAL_PORT, udp.port, true)
      this.#view.setUint32(at + M.EVENT_VALUE2, udp.receiveCredit, true)
    })
  }

  #udpSend(handle: number, address: number, port: number, at: number, length: number): void {
    const from = this.udps.get(handle)
    if (from === undefined) {
      this.late++
      return
    }
    const data = Buffer.from(this.ram.slice(at, at + length).buffer, 0, length)
    const cards =
      address === BROADCAST && from.broadcast
        ? this.network.cards
        : [address === LOOPBACK ? this : this.network.find(address)]
    for (const card of cards) {
      const to = [...(card?.udps.values() ?? [])].find(
        (u) => u.port === port && (u.address === 0 || u.address === address || address === BROADCAST),
      )
      if (to !== undefined)
        to.card.#datagram(to, data, address === LOOPBACK ? LOOPBACK : this.address, from.port, address)
      else if (address !== BROADCAST)
        this.#udpError(from, card ? S.STATUS_ECONNREFUSED : S.STATUS_EHOSTUNREACH, address, port)
    }
  }

  #datagram(to: Udp, data: Buffer, remoteAddress: number, remotePort: number, localAddress: number): void {
    const rx = this.queues[QUEUE_RX]!
    // Datagrams may be lost.
    if (data.length > to.receiveCredit || rx.available === 0 || this.#events.length > 0) return
    to.receiveCredit -= data.length
    const id = rx.next()
    const at = rx.address
    this.#view.setUint32(at + M.RX_TYPE, M.RX_DATAGRAM, true)
    this.#view.setUint32(at + M.RX_SOCKET, to.handle, true)
    this.#view.setUint32(at + M.RX_LENGTH, data.length, true)
    this.#view.setUint32(at + M.RX_SEQUENCE, this.#sequence++, true)
    this.#view.setUint32(at + M.RX_DATAGRAM_REMOTE_ADDRESS, remoteAddress, true)
    this.#view.setUint32(at + M.RX_DATAGRAM_LOCAL_ADDRESS, localAddress, true)
    this.#view.setUint32(at + M.RX_DATAGRAM_REMOTE_PORT, remotePort, true)
    this.ram.set(data, at + M.RX_DATAGRAM_HEADER_BYTES)
    rx.give(id, M.RX_DATAGRAM_HEADER_BYTES + data.length)
  }

  #udpError(udp: Udp, status: number, address: number, port: number): void {
    this.#event((at) => {
      this.#view.setUint16(at + M.EVENT_TYPE, M.EVENT_UDP_ERROR, true)
      this.#view.setUint16(at + M.EVENT_STATUS, status, true)
      this.#view.setUint32(at + M.EVENT_SOCKET, udp.handle, true)
      this.#view.setUint32(at + M.EVENT_REMOTE_ADDRESS, address, true)
      this.#view.setUint16(at + M.EVENT_REMOTE_PORT, port, true)
    })
  }

  // ── events ──

  /** Sends an event now, or when there is a buffer for it. */
  #event(fill: (at: number) => void): void {
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

  #ephemeral(): number {
    this.#nextPort = this.#nextPort === 65535 ? 49152 : this.#nextPort + 1
    return this.#nextPort
  }
}

const done = (): void => {}
