import {
  COMMAND_A,
  COMMAND_B,
  COMMAND_FLAGS,
  COMMAND_HEADER_BYTES,
  COMMAND_OP,
  COMMAND_SOCKET,
} from '../../abi/messages.ts'
import { Arena } from './arena.ts'
import type { RamLayout } from './layout.ts'
import type { Ram } from './ram.ts'
import { QueueFault, Virtqueue } from './virtqueue.ts'

/** Somebody who found the TX queue full. */
export interface TxWaiter {
  /** There is room again; may `wait` again. */
  onTxRoom(): void
}

/** The TX queue: records of a header and a payload in one piece, first in, first out. */
export class TxQueue {
  readonly queue: Virtqueue
  readonly ram: Ram
  /** While true, records are shown to the card by the one who set it, all at once. */
  held = false
  records = 0
  /** How often somebody found the queue full. */
  stalls = 0

  readonly #arena: Arena
  readonly #doorbell: () => void
  readonly #soon: () => void
  /** Free descriptors, a stack: the one used last is the one in the cache. */
  readonly #free: Uint16Array
  #freeCount = 0
  #waiters: TxWaiter[] = []
  #waitersTaken = 0

  /** `doorbell` tells the card that the queue has grown; `soon` has `wake` called after the code that runs now. */
  constructor(ram: Ram, layout: RamLayout, doorbell: () => void, soon: () => void) {
    this.ram = ram
    this.queue = new Virtqueue('TX', ram, layout.tx)
    this.#arena = new Arena(layout.txArena, layout.txArenaBytes, layout.tx.size)
    this.#doorbell = doorbell
    this.#soon = soon
    this.#free = new Uint16Array(layout.tx.size)
    this.reset()
  }

  reset(): void {
    this.queue.reset()
    this.queue.declineInterrupt()
    this.#arena.reset()
    this.#freeCount = this.queue.size
    for (let i = 0; i < this.#freeCount; i++) this.#free[i] = this.#freeCount - 1 - i
    this.#waiters = []
    this.#waitersTaken = 0
  }

  /**
   * Adds a record and returns the address for its payload, or -1 if the queue is full. The payload must be stored before `flush`, which
   * must follow.
   */
  append(op: number, flags: number, socket: number, a: number, b: number, payloadBytes: number): number {
    const length = COMMAND_HEADER_BYTES + payloadBytes
    const address = this.#allocate(length)
    if (address < 0) return -1
    const id = this.#free[--this.#freeCount]!
    const { halves, words } = this.ram
    halves[(address + COMMAND_OP) >>> 1] = op
    halves[(address + COMMAND_FLAGS) >>> 1] = flags
    words[(address + COMMAND_SOCKET) >>> 2] = socket
    words[(address + COMMAND_A) >>> 2] = a
    words[(address + COMMAND_B) >>> 2] = b
    this.queue.describe(id, address, length, 0)
    this.queue.offer(id)
    this.records++
    return address + COMMAND_HEADER_BYTES
  }

  /** Shows the card what was appended, unless somebody holds the queue. */
  flush(): void {
    if (!this.held && this.queue.publish()) this.#doorbell()
  }

  /** `waiter.onTxRoom` runs once when there is room again. Not twice for the same waiter at a time: that is the caller's to know. */
  wait(waiter: TxWaiter): void {
    this.stalls++
    this.#waiters.push(waiter)
    if (this.#requestInterrupt()) this.#soon()
  }

  /** Takes back what the card has fetched. Throws QueueFault. */
  reclaim(): void {
    const queue = this.queue
    for (let id = queue.peek(); id >= 0; id = queue.peek()) {
      queue.take()
      this.#arena.release(id)
      this.#free[this.#freeCount++] = id
    }
  }

  /** Lets those who wait go on, in their order, while there is room. Throws what a waiter throws. */
  wake(): void {
    while (this.#waiters.length > 0) {
      while (this.#freeCount > 0 && this.#waitersTaken < this.#waiters.length) {
        const stalls = this.stalls
        this.#takeWaiter().onTxRoom()
        if (this.stalls !== stalls) break
      }
      if (this.#waiters.length > 0 && !this.#requestInterrupt()) return
      this.reclaim()
    }
    this.queue.declineInterrupt()
  }

  get hasWaiters(): boolean {
    return this.#waiters.length > 0
  }

  #takeWaiter(): TxWaiter {
    const waiter = this.#waiters[this.#waitersTaken++]!
    if (this.#waitersTaken === this.#waiters.length) {
      this.#waiters = []
      this.#waitersTaken = 0
    }
    return waiter
  }

  /** For half of what is out, so that a full queue costs few interrupts; true if there is something to take back already. */
  #requestInterrupt(): boolean {
    return this.queue.requestInterrupt(Math.max(1, this.queue.inFlight >>> 1))
  }

  #allocate(length: number): number {
    if (this.#freeCount > 0) {
      const address = this.#arena.allocate(this.#free[this.#freeCount - 1]!, length)
      if (address >= 0) return address
    }
    try {
      this.reclaim()
    } catch (error) {
      // Found in the middle of an application's write; the driver's service will find it again, and deal with it.
      if (!(error instanceof QueueFault)) throw error
      this.#soon()
      return -1
    }
    if (this.#freeCount === 0) return -1
    return this.#arena.allocate(this.#free[this.#freeCount - 1]!, length)
  }
}
