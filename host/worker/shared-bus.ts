import type { Bus } from '../../abi/bus.ts'
import { QUEUE_STATE_DISABLED, QUEUE_STATE_ENABLED, QUEUES_PER_SET } from '../../abi/rings.ts'
import {
  BUS_CARD_STATE,
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_ERROR,
  BUS_QUEUE_NOTIFY,
  BUS_QUEUE_STATE,
  BUS_QUEUE_STRIDE,
} from '../../abi/virtio.ts'

/**
 * A queue set's bus across threads. The worker's side is a Bus to its driver; the farm's side carries what comes to the Bus of the emulator. Between
 * them lie main-board RAM, a block of shared words, and a MessagePort for waking whoever sleeps.
 *
 *   worker                              shared words                        farm
 *   doorbell ──── or ──▶ DOORBELLS ──── exchange ──▶ NOTIFY
 *   register write ────▶ ring of (register, value) ▶ write
 *   handler ◀──── load ─ INTERRUPTS ◀── add ──────── interrupt
 *   read ◀─────────────── CARD_STATE, QUEUE_STATE ◀─ read
 *
 * Either side says in a word whether it sleeps. While both are busy nobody posts a message: each looks at the words in every turn of its
 * event loop, and goes to sleep after the first look that finds nothing. Looking on for longer was tried: on a machine whose cores are all
 * wanted, every microsecond of it is taken from the thread that is waited for, and a round trip took four times as much longer.
 */

// Word indices.
const DOORBELLS = 0 // bit q: queue q was rung
const FARM_SLEEPS = 1
const INTERRUPTS = 2 // counts
const WORKER_SLEEPS = 3
const CARD_STATE = 4
const QUEUE_STATES = 8 // QUEUES_PER_SET words
const QUEUE_ERRORS = 12 // QUEUES_PER_SET words
const WRITES_HEAD = 16 // register writes so far, by the worker
const WRITES_TAIL = 17 // and by the farm
const WRITES = 32 // pairs of register and value
const WRITE_ENTRIES = 128
const WORDS = WRITES + 2 * WRITE_ENTRIES

/** What goes to the worker. */
export interface SharedBusParts {
  readonly ram: SharedArrayBuffer
  readonly words: SharedArrayBuffer
}

/** Where messages go; of a MessagePort. */
export interface Waker {
  postMessage(message: unknown): void
}

/** Runs `look` in every turn of the event loop as long as it finds something; then sleeps. */
class Watch {
  readonly #turn: () => void
  #awake = false

  /** `sleep` tells the other side; false if something came just now. */
  constructor(look: () => boolean, sleep: () => boolean) {
    this.#turn = () => {
      // What `look` throws is an exception of the program, which may survive it.
      let found = true
      try {
        found = look()
      } finally {
        if (found || !sleep()) setImmediate(this.#turn)
        else this.#awake = false
      }
    }
  }

  /** Something has come. */
  wake(): void {
    if (this.#awake) return
    this.#awake = true
    this.#turn()
  }
}

/** The worker's side: a Bus for the driver. */
export class WorkerBus implements Bus {
  readonly ram: Uint8Array
  readonly #words: Int32Array
  readonly #farm: Waker
  readonly #watch: Watch
  /** State that each queue will be in once the farm has carried out what waits. */
  readonly #intended = new Uint8Array(QUEUES_PER_SET)
  #handler: (() => void) | null = null
  #seen = 0

  /** `farm` reaches the other side; call `wake` for every message from there. */
  constructor(parts: SharedBusParts, farm: Waker) {
    this.ram = new Uint8Array(parts.ram)
    this.#words = new Int32Array(parts.words)
    this.#farm = farm
    this.#watch = new Watch(
      () => this.#look(),
      () => sleep(this.#words, WORKER_SLEEPS, () => Atomics.load(this.#words, INTERRUPTS) !== this.#seen),
    )
  }

  /** The farm has something. */
  wake(): void {
    this.#watch.wake()
  }

  onInterrupt(handler: () => void): void {
    this.#handler = handler
  }

  write(register: number, value: number): void {
    const queue = register >>> 6
    if (register === queue * BUS_QUEUE_STRIDE + BUS_QUEUE_NOTIFY) Atomics.or(this.#words, DOORBELLS, 1 << queue)
    else if (register === BUS_INTERRUPT_ACK) return
    else {
      const head = Atomics.load(this.#words, WRITES_HEAD)
      if (head - Atomics.load(this.#words, WRITES_TAIL) >= WRITE_ENTRIES)
        throw new Error('Too many register writes wait for the farm.')
      const at = WRITES + (head & (WRITE_ENTRIES - 1)) * 2
      this.#words[at] = register
      this.#words[at + 1] = value
      if (register === queue * BUS_QUEUE_STRIDE + BUS_QUEUE_ENABLE) {
        this.#intended[queue] = value === 1 ? QUEUE_STATE_ENABLED : QUEUE_STATE_DISABLED
      }
      Atomics.store(this.#words, WRITES_HEAD, head + 1)
    }
    if (Atomics.compareExchange(this.#words, FARM_SLEEPS, 1, 0) === 1) this.#farm.postMessage(null)
  }

  read(register: number): number {
    if (register === BUS_CARD_STATE) return Atomics.load(this.#words, CARD_STATE)
    // Interrupts are acknowledged where they arrive, by the farm's side.
    if (register === BUS_INTERRUPT_STATUS) return 0
    const queue = register >>> 6
    const field = register - queue * BUS_QUEUE_STRIDE
    if (queue < QUEUES_PER_SET && field === BUS_QUEUE_STATE) {
      // The farm shows the state that its writes led to before it counts them as done.
      const pending = Atomics.load(this.#words, WRITES_HEAD) !== Atomics.load(this.#words, WRITES_TAIL)
      return pending ? this.#intended[queue]! : Atomics.load(this.#words, QUEUE_STATES + queue)
    }
    if (queue < QUEUES_PER_SET && field === BUS_QUEUE_ERROR) return Atomics.load(this.#words, QUEUE_ERRORS + queue)
    throw new RangeError(`Register ${register} cannot be read from a worker.`)
  }

  #look(): boolean {
    const interrupts = Atomics.load(this.#words, INTERRUPTS)
    if (interrupts === this.#seen) return false
    this.#seen = interrupts
    this.#handler?.()
    return true
  }
}

/** The farm's side: does on the emulator's Bus what the worker asked for. */
export class FarmBridge {
  readonly parts: SharedBusParts
  readonly #bus: Bus
  readonly #words: Int32Array
  readonly #worker: Waker
  readonly #watch: Watch
  #closed = false

  /** Throws TypeError if the RAM of `bus` is not shared. `worker` reaches the other side; call `wake` for every message from there. */
  constructor(bus: Bus, worker: Waker) {
    const ram = bus.ram.buffer
    if (!(ram instanceof SharedArrayBuffer)) throw new TypeError('A process in a worker needs shared main-board RAM.')
    this.parts = { ram, words: new SharedArrayBuffer(WORDS * 4) }
    this.#bus = bus
    this.#words = new Int32Array(this.parts.words)
    this.#worker = worker
    this.#watch = new Watch(
      () => this.carry(),
      () => sleep(this.#words, FARM_SLEEPS, () => !this.#closed && this.#waiting()),
    )
    this.#words[FARM_SLEEPS] = 1
    this.#words[WORKER_SLEEPS] = 1
    this.#mirror()
    bus.onInterrupt(() => this.#interrupt())
  }

  /** The worker has something. */
  wake(): void {
    if (!this.#closed) this.#watch.wake()
  }

  /** Carries out what the worker has written and rung so far; false if there was nothing. */
  carry(): boolean {
    if (this.#closed || !this.#waiting()) return false
    const words = this.#words
    let tail = Atomics.load(words, WRITES_TAIL)
    const head = Atomics.load(words, WRITES_HEAD)
    for (; tail !== head; tail++) {
      const at = WRITES + (tail & (WRITE_ENTRIES - 1)) * 2
      this.#bus.write(words[at]!, words[at + 1]!)
    }
    this.#mirror()
    Atomics.store(words, WRITES_TAIL, tail)
    const doorbells = Atomics.exchange(words, DOORBELLS, 0)
    for (let q = 0; q < QUEUES_PER_SET; q++) {
      if ((doorbells & (1 << q)) !== 0) this.#bus.write(q * BUS_QUEUE_STRIDE + BUS_QUEUE_NOTIFY, 1)
    }
    return true
  }

  /** The worker is gone, or must be heard no more. */
  close(): void {
    this.#closed = true
  }

  #waiting(): boolean {
    const words = this.#words
    return Atomics.load(words, DOORBELLS) !== 0 || Atomics.load(words, WRITES_HEAD) !== Atomics.load(words, WRITES_TAIL)
  }

  #interrupt(): void {
    this.#bus.write(BUS_INTERRUPT_ACK, this.#bus.read(BUS_INTERRUPT_STATUS))
    if (this.#closed) return
    this.#mirror()
    Atomics.add(this.#words, INTERRUPTS, 1)
    if (Atomics.compareExchange(this.#words, WORKER_SLEEPS, 1, 0) === 1) this.#worker.postMessage(null)
  }

  /** Shows the worker the card's and the queues' states. */
  #mirror(): void {
    Atomics.store(this.#words, CARD_STATE, this.#bus.read(BUS_CARD_STATE))
    for (let q = 0; q < QUEUES_PER_SET; q++) {
      Atomics.store(this.#words, QUEUE_STATES + q, this.#bus.read(q * BUS_QUEUE_STRIDE + BUS_QUEUE_STATE))
      Atomics.store(this.#words, QUEUE_ERRORS + q, this.#bus.read(q * BUS_QUEUE_STRIDE + BUS_QUEUE_ERROR))
    }
  }
}

/** Sets the word that says "I sleep" and returns true, or false if something came in the meantime. */
function sleep(words: Int32Array, word: number, something: () => boolean): boolean {
  Atomics.store(words, word, 1)
  if (!something()) return true
  // Whoever clears it first wakes: we, or the other side by a message that will find us awake.
  Atomics.store(words, word, 0)
  return false
}
