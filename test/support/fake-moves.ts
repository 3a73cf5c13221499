import * as M from '../../abi/messages.ts'
import * as S from '../../abi/status.ts'
import type { FakeCard } from './fake-card.ts'
import type { End, Listener } from './fake-tcp.ts'

/** Bytes of state in one record: small, so that there are several. */
const STATE_PIECE = 20000

/** A connection that its host wants elsewhere. */
export interface Move {
  /** OP_MIGRATE has come: the host is silent now. */
  asked: boolean
  /** Nothing more is delivered. */
  frozen: boolean
  returned: Buffer[]
  state: Buffer[]
  flags: number
  address: number
}

/** A move that a test decides about. */
export interface PendingMove {
  readonly end: End
  readonly move: Move
  /** Carries it out, or fails with a status. */
  finish(status?: number): void
}

/** Moves of connections from a FakeCard to another one: at once, as if the hub were free. */
export class FakeMoves {
  readonly #card: FakeCard

  constructor(card: FakeCard) {
    this.#card = card
  }

  /** False if the command is none of these. */
  command(op: number, flags: number, end: End, address: number, payload: Buffer): boolean {
    end.move ??= { asked: false, frozen: false, returned: [], state: [], flags: 0, address: 0 }
    const { move } = end
    switch (op) {
      case M.OP_RETURN:
        move.returned.push(payload)
        return true
      case M.OP_STATE:
        move.state.push(payload)
        if (lengthOf(move.state) > M.MAXIMUM_STATE_BYTES) throw new Error('the host gave too much state')
        return true
      case M.OP_MIGRATE:
        this.#migrate(end, move, flags, address)
        return true
    }
    return false
  }

  #migrate(end: End, move: Move, flags: number, address: number): void {
    const { network } = this.#card
    const returned = lengthOf(move.returned)
    move.flags = flags
    move.address = address
    if (returned > end.unconsumed) throw new Error('the host returned bytes that it never got, or has consumed')
    if (returned < end.unconsumed) {
      move.frozen = true
      this.#card.event({ type: M.EVENT_MIGRATED, status: S.STATUS_EAGAIN, handle: end.handle })
      return
    }
    move.asked = move.frozen = true
    const finish = (status?: number) => {
      if (this.#card.tcp.ends.get(end.handle) !== end) return
      const result = status ?? this.#place(end, move)
      if (result !== S.STATUS_OK) this.#fail(end, move, result)
      network.wake()
    }
    if (network.holdsMoves) network.moves.push({ end, move, finish })
    else finish()
  }

  /** Looks for the server, and moves there. */
  #place(end: End, move: Move): number {
    const { network } = this.#card
    const handedOver = (move.flags & M.MIGRATE_FLAG_HANDED_OVER) !== 0
    const takes = ({ port, options }: Listener) =>
      port === end.localPort && (!handedOver || (options & M.SOCKET_OPTION_TAKES_OVER) !== 0)
    const candidates = network.cards.filter((card) => card !== this.#card && card.state === this.#card.state)
    if (move.address !== 0 && !candidates.some((card) => card.address === move.address)) return S.STATUS_EHOSTUNREACH
    for (const card of candidates) {
      if ((move.address !== 0 && card.address !== move.address) || card.draining) continue
      const listener = [...card.listeners.values()].find(takes)
      if (listener !== undefined) {
        this.#carry(end, move, card, listener)
        return S.STATUS_OK
      }
    }
    return S.STATUS_ECONNREFUSED
  }

  #carry(end: End, move: Move, card: FakeCard, listener: Listener): void {
    this.#card.tcp.drop(end)
    this.#card.event({ type: M.EVENT_MIGRATED, handle: end.handle })
    const there = card.tcp.newEnd(end.localAddress, end.localPort, end.remoteAddress, end.remotePort)
    there.peer = end.peer
    end.peer.peer = there
    there.inbox = [...move.returned, ...end.inbox]
    there.inboxBytes = lengthOf(there.inbox)
    there.finReceived = end.finReceived
    there.finSent = end.finSent
    there.sendCredit = end.sendCredit
    there.creditOwed = end.creditOwed
    const state = Buffer.concat(move.state)
    card.tcp.announce(there, M.EVENT_ARRIVED, listener.cookie, state.length)
    for (let at = 0; at < state.length; at += STATE_PIECE) {
      const piece = state.subarray(at, at + STATE_PIECE)
      card.rx(M.RX_STATE, at + piece.length === state.length ? M.RX_FLAG_END : 0, there.handle, [piece])
    }
    card.tcp.deliver(there)
  }

  #fail(end: End, move: Move, status: number): void {
    end.move = null
    this.#card.event({ type: M.EVENT_MIGRATED, status, handle: end.handle })
    const returned = lengthOf(move.returned)
    end.inbox = [...move.returned, ...end.inbox]
    end.inboxBytes += returned
    end.unconsumed -= returned
    end.receiveCredit += returned
    if (returned > 0) end.endDelivered = false
    this.#card.tcp.deliver(end)
  }
}

function lengthOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((bytes, piece) => bytes + piece.length, 0)
}
