import { CARD_RUNNING } from '../../abi/virtio.ts'
import { HandleTable } from '../../host/driver/handle-table.ts'
import { FakeCard } from './fake-card.ts'
import type { PendingMove } from './fake-moves.ts'
import type { End } from './fake-tcp.ts'

export interface FakeNetworkOptions {
  /** Runs a slice of all cards soon. */
  defer?: (slice: () => void) => void
  /** Bytes of credit that a new socket gets, each way. */
  creditBytes?: number
  /** Silence after which a connection to an 'auto' listener is handed over, milliseconds. */
  placeAfterMs?: number
}

/**
 * Cards without firmware, and the network between them: they follow abi/messages.ts, deliver everything at once, and hold the driver to the
 * contract (a host that sends without credit, or to a queue in the wrong way, makes the slice throw).
 */
export class FakeNetwork {
  readonly cards: FakeCard[] = []
  /** Addresses that swallow every SYN. */
  readonly blackHoles = new Set<number>()
  readonly creditBytes: number
  readonly placeAfterMs: number
  /** Moves wait in `moves` until a test finishes them. */
  holdsMoves = false
  readonly moves: PendingMove[] = []
  /** Slices run so far. */
  slices = 0
  readonly #defer: (slice: () => void) => void
  #due = false
  readonly #silent = new HandleTable<End>()
  #lastSilent = 0
  #silenceTimer: NodeJS.Timeout | null = null

  constructor(options: FakeNetworkOptions = {}) {
    this.#defer = options.defer ?? setImmediate
    this.creditBytes = options.creditBytes ?? 262144
    this.placeAfterMs = options.placeAfterMs ?? 2
  }

  addCard(address: number, ramBytes = 32 << 20, shared = false): FakeCard {
    const card = new FakeCard(this, address, shared ? new SharedArrayBuffer(ramBytes) : new ArrayBuffer(ramBytes))
    this.cards.push(card)
    return card
  }

  find(address: number): FakeCard | undefined {
    return this.cards.find((card) => card.address === address && card.state === CARD_RUNNING)
  }

  /** Hands `end` over after `delayMs` of silence; one timer serves all ends, so that the fake costs no more than it must. */
  place(end: End, delayMs: number): void {
    end.silence = ++this.#lastSilent
    end.placeAtMs = performance.now() + delayMs
    this.#silent.set(end.silence, end)
    this.#silenceTimer ??= setTimeout(this.#placeSilent, delayMs)
  }

  readonly #placeSilent = (): void => {
    this.#silenceTimer = null
    const now = performance.now()
    for (const end of this.#silent.values()) if (end.placeAtMs <= now) end.card.tcp.attach(end)
    if (this.#silent.size > 0) this.#silenceTimer = setTimeout(this.#placeSilent, 1)
    this.wake()
  }

  /** It spoke, or it is gone. */
  placed(end: End): void {
    this.#silent.delete(end.silence)
  }

  wake(): void {
    if (this.#due) return
    this.#due = true
    this.#defer(this.#slice)
  }

  readonly #slice = (): void => {
    this.#due = false
    this.slices++
    for (const card of this.cards) card.work()
    for (const card of this.cards) card.deliverPending()
    for (const card of this.cards) card.publish()
    for (const card of this.cards) card.interrupt()
  }
}
