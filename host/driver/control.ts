import { COMMAND_MAXIMUM_BYTES } from '../../abi/messages.ts'
import { CONTROL_SLOT_BYTES, type RamLayout } from './layout.ts'
import type { Ram } from './ram.ts'
import { QueueFault, Virtqueue } from './virtqueue.ts'

/** Commands that may wait for a slot before `post` refuses more. */
const MAXIMUM_WAITING = 65536

/** The control queue: one slot of RAM a descriptor, and a list of commands that wait while all slots are out. */
export class ControlQueue {
  readonly queue: Virtqueue
  /** While true, commands are shown to the card by the one who set it, all at once. */
  held = false
  /** The command that `post` sends, as words: fill it first. */
  readonly command = new Uint32Array(COMMAND_MAXIMUM_BYTES / 4)

  readonly #ram: Ram
  readonly #slots: number
  readonly #doorbell: () => void
  readonly #soon: () => void
  readonly #free: Uint16Array
  #freeCount = 0
  #waiting: Uint32Array[] = []
  /** False before the card runs: commands wait. */
  #open = false

  /** `doorbell` tells the card that the queue has grown; `soon` has `reclaim` called after the code that runs now. */
  constructor(ram: Ram, layout: RamLayout, doorbell: () => void, soon: () => void) {
    this.#ram = ram
    this.#slots = layout.controlSlots
    this.#doorbell = doorbell
    this.#soon = soon
    this.queue = new Virtqueue('control', ram, layout.control)
    this.#free = new Uint16Array(layout.control.size)
  }

  /** Empties the queue. `keepWaiting`: commands posted before the card first ran go out once it does. */
  reset(keepWaiting: boolean): void {
    this.queue.reset()
    this.queue.declineInterrupt()
    this.#freeCount = this.queue.size
    for (let i = 0; i < this.#freeCount; i++) this.#free[i] = i
    if (!keepWaiting) this.#waiting = []
    this.#open = false
  }

  /** From now on commands go to the card. */
  open(): void {
    this.#open = true
    this.reclaim()
  }

  /** Sends the first `bytes` of `command`; false if too many commands wait already. */
  post(bytes: number): boolean {
    if (this.#freeCount === 0) this.#tryReclaim()
    if (this.#freeCount === 0 || !this.#open || this.#waiting.length > 0) {
      if (this.#waiting.length >= MAXIMUM_WAITING) return false
      this.#waiting.push(this.command.slice(0, bytes >>> 2))
      if (this.#open && this.queue.requestInterrupt()) this.#soon()
      return true
    }
    this.#send(this.command, bytes >>> 2)
    this.flush()
    return true
  }

  /** Shows the card what was posted, unless somebody holds the queue. */
  flush(): void {
    if (!this.held && this.queue.publish()) this.#doorbell()
  }

  /** Takes back the slots that the card has fetched, and sends what waits for them. Throws QueueFault. */
  reclaim(): void {
    const queue = this.queue
    do {
      for (let id = queue.peek(); id >= 0; id = queue.peek()) {
        queue.take()
        this.#free[this.#freeCount++] = id
      }
      if (this.#waiting.length === 0 || !this.#open) return
      this.#sendWaiting()
    } while (this.#waiting.length > 0 && queue.requestInterrupt())
  }

  #tryReclaim(): void {
    try {
      this.reclaim()
    } catch (error) {
      // Found in the middle of an application's call; the driver's service will find it again, and deal with it.
      if (!(error instanceof QueueFault)) throw error
      this.#soon()
    }
  }

  #sendWaiting(): void {
    const count = Math.min(this.#waiting.length, this.#freeCount)
    for (let i = 0; i < count; i++) this.#send(this.#waiting[i]!, this.#waiting[i]!.length)
    this.#waiting.splice(0, count)
    if (this.#waiting.length === 0) this.queue.declineInterrupt()
    this.flush()
  }

  #send(command: Uint32Array, words: number): void {
    const id = this.#free[--this.#freeCount]!
    const address = this.#slots + id * CONTROL_SLOT_BYTES
    const at = address >>> 2
    for (let i = 0; i < words; i++) this.#ram.words[at + i] = command[i]!
    this.queue.describe(id, address, words << 2, 0)
    this.queue.offer(id)
  }
}
