import * as M from '../../abi/messages.ts'
import * as S from '../../abi/status.ts'
import { HandleTable } from '../../host/driver/handle-table.ts'
import { type FakeCard, LOOPBACK } from './fake-card.ts'
import { FakeMoves, type Move } from './fake-moves.ts'

/** A listening socket. */
export interface Listener {
  cookie: number
  address: number
  port: number
  firstSpeaker: number
  placeAfterMs: number
  /** SOCKET_OPTION_* */
  options: number
}

/** One end of a connection, on one card. */
export interface End {
  card: FakeCard
  handle: number
  peer: End
  localAddress: number
  localPort: number
  remoteAddress: number
  remotePort: number
  /** The listener while the host has not been told. */
  unattached: Listener | null
  /** While it waits to be handed over for its silence: its number, and when. */
  silence: number
  placeAtMs: number
  inbox: Buffer[]
  inboxBytes: number
  /** The peer has sent its FIN; it was delivered; the host has sent its own. */
  finReceived: boolean
  endDelivered: boolean
  finSent: boolean
  /** The host has let go. */
  released: boolean
  /** Bytes that may be delivered; bytes delivered and not returned. */
  receiveCredit: number
  unconsumed: number
  /** Bytes that the host may send; bytes to be returned to it. */
  sendCredit: number
  creditOwed: number
  options: Map<number, number> | null
  /** What the host has given for a move, from the first record on. */
  move: Move | null
}

/** The TCP of a FakeCard. */
export class FakeTcp {
  readonly listeners = new Map<number, Listener>()
  readonly ends = new HandleTable<End>()
  readonly moves: FakeMoves
  readonly #card: FakeCard
  readonly #waiting = new Set<End>()

  constructor(card: FakeCard) {
    this.#card = card
    this.moves = new FakeMoves(card)
  }

  /** The firmware crashes: peers hear of it, the host by the card's state. */
  stop(): void {
    for (const end of this.ends.values())
      this.#card.network.find(end.peer.card.address)?.tcp.reset(end.peer, S.STATUS_ECONNRESET)
    this.listeners.clear()
    this.ends.clear()
    this.#waiting.clear()
  }

  /** Goes on where there was no buffer. */
  deliverPending(): void {
    for (const end of this.#waiting) this.deliver(end)
  }

  // ── control queue ──

  listen(cookie: number, address: number, port: number, given: Partial<Listener>): void {
    const card = this.#card
    const status = card.bindStatus(address, port, [...this.listeners.values()])
    const chosen = port || card.ephemeral()
    if (status === S.STATUS_OK)
      this.listeners.set(cookie, {
        cookie,
        address,
        port: chosen,
        firstSpeaker: 0,
        placeAfterMs: 0,
        options: 0,
        ...given,
      })
    card.event({ type: M.EVENT_LISTENING, status, cookie, localAddress: address, localPort: chosen })
  }

  unlisten(cookie: number): void {
    this.listeners.delete(cookie)
    for (const end of [...this.ends.values()]) if (end.unattached?.cookie === cookie) this.#abort(end)
    this.#card.event({ type: M.EVENT_UNLISTENED, cookie })
  }

  connect(cookie: number, remoteAddress: number, remotePort: number, localAddress: number, localPort: number): void {
    const card = this.#card
    const target = remoteAddress === LOOPBACK ? card : card.network.find(remoteAddress)
    if (card.network.blackHoles.has(remoteAddress)) return
    const fail = (status: number) => card.event({ type: M.EVENT_CONNECT_FAILED, status, cookie })
    if (localAddress !== 0 && localAddress !== card.address && localAddress !== LOOPBACK)
      return fail(S.STATUS_EADDRNOTAVAIL)
    if (target === undefined) return fail(S.STATUS_EHOSTUNREACH)
    const listener = [...target.listeners.values()].find(
      (l) => l.port === remotePort && (l.address === 0 || l.address === remoteAddress),
    )
    if (listener === undefined) return fail(S.STATUS_ECONNREFUSED)
    const address = localAddress || (remoteAddress === LOOPBACK ? LOOPBACK : card.address)
    const mine = this.newEnd(address, localPort || card.ephemeral(), remoteAddress, remotePort)
    const theirs = target.tcp.newEnd(remoteAddress, remotePort, address, mine.localPort)
    mine.peer = theirs
    theirs.peer = mine
    theirs.unattached = listener
    this.announce(mine, M.EVENT_CONNECTED, cookie)
    if (listener.firstSpeaker === M.FIRST_SPEAKER_SERVER) target.tcp.attach(theirs)
    else if (listener.firstSpeaker === M.FIRST_SPEAKER_AUTO) {
      card.network.place(theirs, listener.placeAfterMs || card.network.placeAfterMs)
    }
  }

  setOption(handle: number, option: number, value: number): void {
    const end = this.ends.get(handle)
    if (end === undefined) return
    end.options ??= new Map()
    end.options.set(option, value)
  }

  newEnd(localAddress: number, localPort: number, remoteAddress: number, remotePort: number): End {
    const credit = this.#card.network.creditBytes
    const end: End = {
      card: this.#card,
      handle: this.#card.newHandle(),
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
      move: null,
    }
    this.ends.set(end.handle, end)
    return end
  }

  attach(end: End): void {
    if (end.unattached === null || !this.ends.has(end.handle)) return
    const { cookie } = end.unattached
    end.unattached = null
    this.#card.network.placed(end)
    this.announce(end, M.EVENT_ACCEPTED, cookie)
    this.deliver(end)
  }

  announce(end: End, type: number, cookie: number, stateBytes = 0): void {
    const { handle, localAddress, remoteAddress, localPort, remotePort, sendCredit, receiveCredit } = end
    this.#card.event({
      type,
      handle,
      cookie,
      localAddress,
      remoteAddress,
      localPort,
      remotePort,
      value: sendCredit,
      value2: receiveCredit,
      value3: stateBytes,
    })
  }

  // ── TX queue ──

  /** True if there is such an end. */
  credit(handle: number, bytes: number): boolean {
    const end = this.ends.get(handle)
    if (end === undefined) return false
    this.#checkStill(end)
    end.receiveCredit += bytes
    end.unconsumed -= bytes
    if (end.unconsumed < 0) throw new Error('the host returned credit for bytes it never got')
    this.deliver(end)
    return true
  }

  /** False if the command is none of a connection's. */
  command(op: number, flags: number, handle: number, a: number, payload: Buffer): boolean {
    const end = this.ends.get(handle)
    if (end === undefined) {
      this.#card.late++
      return true
    }
    if (op !== M.OP_ABORT) this.#checkStill(end)
    switch (op) {
      case M.OP_DATA:
        this.#data(end, payload, flags)
        return true
      case M.OP_CLOSE:
        end.released = true
        if (end.unconsumed > 0 || end.inboxBytes > 0) this.#abort(end)
        else {
          if (!end.finSent) this.#fin(end)
          if (end.finReceived) this.drop(end)
        }
        return true
      case M.OP_ABORT:
        this.#abort(end)
        return true
    }
    return this.moves.command(op, flags, end, a, payload)
  }

  #checkStill(end: End): void {
    if (end.move?.asked) throw new Error('the host sent something for a connection that moves')
  }

  #data(end: End, data: Buffer, flags: number): void {
    const fin = (flags & M.DATA_FLAG_FIN) !== 0
    if (end.finSent || end.released) throw new Error('the host sent data after its FIN')
    if (data.length > M.MAXIMUM_DATA_BYTES) throw new Error(`the host sent ${data.length} bytes in one record`)
    end.sendCredit -= data.length
    const overdraft = (flags & M.DATA_FLAG_MIGRATING) !== 0 ? M.MAXIMUM_MIGRATING_BYTES : 0
    if (end.sendCredit < -overdraft) throw new Error('the host sent more than its credit')
    const { peer } = end
    if (data.length > 0 && peer.released) {
      this.#abort(end, true)
      return
    }
    if (data.length > 0) {
      peer.inbox.push(data)
      peer.inboxBytes += data.length
    }
    if (fin) {
      end.finSent = true
      peer.finReceived = true
    }
    peer.card.tcp.attach(peer)
    peer.card.tcp.deliver(peer)
    if (fin && end.endDelivered) this.drop(end)
  }

  #fin(end: End): void {
    end.finSent = true
    end.peer.finReceived = true
    end.peer.card.tcp.attach(end.peer)
    end.peer.card.tcp.deliver(end.peer)
  }

  // ── to the host ──

  deliver(end: End): void {
    const card = this.#card
    if (end.unattached !== null || !this.ends.has(end.handle)) return
    if (end.released) {
      if (end.finReceived && end.finSent) this.drop(end)
      return
    }
    if (end.move?.frozen) return
    while (
      (end.inboxBytes > 0 && end.receiveCredit > 0) ||
      (end.inboxBytes === 0 && end.finReceived && !end.endDelivered)
    ) {
      if (!card.rxRoom) {
        this.#waiting.add(end)
        return
      }
      const most = Math.min(end.receiveCredit, card.rxPayloadBytes)
      const pieces: Buffer[] = []
      let length = 0
      while (end.inbox.length > 0 && length < most) {
        const chunk = end.inbox[0]!
        const part = chunk.subarray(0, most - length)
        pieces.push(part)
        length += part.length
        if (part.length === chunk.length) end.inbox.shift()
        else end.inbox[0] = chunk.subarray(part.length)
      }
      end.inboxBytes -= length
      end.receiveCredit -= length
      end.unconsumed += length
      const last = end.inboxBytes === 0 && end.finReceived
      card.rx(M.RX_DATA, last ? M.RX_FLAG_END : 0, end.handle, pieces)
      end.peer.card.tcp.#returnCredit(end.peer, length)
      if (last) {
        end.endDelivered = true
        if (end.finSent) this.drop(end)
      }
    }
    this.#waiting.delete(end)
  }

  #returnCredit(end: End, bytes: number): void {
    end.creditOwed += bytes
    if (end.creditOwed < this.#card.network.creditBytes >> 2 || !this.ends.has(end.handle) || end.released) return
    const owed = end.creditOwed
    end.creditOwed = 0
    end.sendCredit += owed
    this.#card.event({ type: M.EVENT_CREDIT, handle: end.handle, value: owed })
  }

  /** RST to the peer; to the own host too if it did not ask for it. */
  #abort(end: End, tellHost = false): void {
    this.drop(end)
    if (tellHost && !end.released) this.#resetEvent(end, S.STATUS_ECONNRESET)
    end.peer.card.tcp.reset(end.peer, S.STATUS_ECONNRESET)
  }

  reset(end: End, status: number): void {
    if (!this.ends.has(end.handle)) return
    this.drop(end)
    if (end.unattached === null && !end.released) this.#resetEvent(end, status)
  }

  #resetEvent(end: End, status: number): void {
    this.#card.event({ type: M.EVENT_RESET, status, handle: end.handle })
  }

  drop(end: End): void {
    if (end.unattached !== null) this.#card.network.placed(end)
    this.ends.delete(end.handle)
    this.#waiting.delete(end)
  }
}
