import { EVENT_BYTES, EVENT_SEQUENCE, RX_HEADER_BYTES, RX_SEQUENCE } from '../../abi/messages.ts'
import { VIRTQ_DESC_F_WRITE } from '../../abi/virtio.ts'
import { EVENT_STRIDE, type RamLayout, RX_BUFFER_BYTES, RX_STRIDE } from './layout.ts'
import type { Ram } from './ram.ts'
import { QueueFault, Virtqueue } from './virtqueue.ts'

export const RECORD_NONE = 0
export const RECORD_RX = 1
export const RECORD_EVENT = 2

/**
 * What comes from the card: the RX and the event queue, merged into one order by the running number that their records share (abi/messages.ts,
 * EVENT_SEQUENCE).
 */
export class Intake {
  readonly rx: Virtqueue
  readonly event: Virtqueue
  /** Address of the record that `next` found, and how many bytes the card wrote there; good until `publish`. */
  address = 0
  bytes = 0
  rxRecords = 0
  eventRecords = 0

  readonly #words: Uint32Array
  readonly #rxBuffers: number
  readonly #eventBuffers: number
  readonly #rxDoorbell: () => void
  readonly #eventDoorbell: () => void
  #expected = 0

  constructor(ram: Ram, layout: RamLayout, rxDoorbell: () => void, eventDoorbell: () => void) {
    this.rx = new Virtqueue('RX', ram, layout.rx)
    this.event = new Virtqueue('event', ram, layout.event)
    this.#words = ram.words
    this.#rxBuffers = layout.rxBuffers
    this.#eventBuffers = layout.eventBuffers
    this.#rxDoorbell = rxDoorbell
    this.#eventDoorbell = eventDoorbell
  }

  /** Starts over, with all buffers offered to the card; `publish` shows them. */
  reset(): void {
    this.#expected = 0
    this.rx.reset()
    for (let i = 0; i < this.rx.size; i++) {
      this.rx.describe(i, this.#rxBuffers + i * RX_STRIDE, RX_BUFFER_BYTES, VIRTQ_DESC_F_WRITE)
      this.rx.offer(i)
    }
    this.event.reset()
    for (let i = 0; i < this.event.size; i++) {
      this.event.describe(i, this.#eventBuffers + i * EVENT_STRIDE, EVENT_STRIDE, VIRTQ_DESC_F_WRITE)
      this.event.offer(i)
    }
  }

  /**
   * Finds the next record in order and returns RECORD_*. Its buffer goes back to the card at the next `publish`: what is to be kept must be
   * copied before. Throws QueueFault if the card broke a rule.
   */
  next(): number {
    const rx = this.rx.peek()
    if (rx >= 0) {
      const address = this.#rxBuffers + rx * RX_STRIDE
      const bytes = this.rx.usedBytes
      if (bytes < RX_HEADER_BYTES || bytes > RX_BUFFER_BYTES)
        throw new QueueFault(`The card delivered an RX record of ${bytes} bytes.`)
      if (this.#isNext(this.#words[(address + RX_SEQUENCE) >>> 2]!)) {
        this.rx.take()
        this.rx.offer(rx)
        this.address = address
        this.bytes = bytes
        this.rxRecords++
        return RECORD_RX
      }
    }
    const event = this.event.peek()
    if (event < 0) return RECORD_NONE
    const address = this.#eventBuffers + event * EVENT_STRIDE
    const bytes = this.event.usedBytes
    if (bytes < EVENT_BYTES || bytes > EVENT_STRIDE)
      throw new QueueFault(`The card delivered an event of ${bytes} bytes.`)
    if (this.#isNext(this.#words[(address + EVENT_SEQUENCE) >>> 2]!)) {
      this.event.take()
      this.event.offer(event)
      this.address = address
      this.bytes = bytes
      this.eventRecords++
      return RECORD_EVENT
    }
    if (rx >= 0) throw new QueueFault(`The card skipped record ${this.#expected}.`)
    return RECORD_NONE
  }

  /** Gives the buffers of all records so far back to the card. */
  publish(): void {
    if (this.rx.publish()) this.#rxDoorbell()
    if (this.event.publish()) this.#eventDoorbell()
  }

  /** Asks for an interrupt at the next record; true if there is one already. */
  requestInterrupt(): boolean {
    const rx = this.rx.requestInterrupt()
    return this.event.requestInterrupt() || rx
  }

  /** Takes number `sequence` as seen if it is the one expected. One from the future waits for those of the other queue before it. */
  #isNext(sequence: number): boolean {
    if (sequence === this.#expected) {
      this.#expected = (sequence + 1) >>> 0
      return true
    }
    if (((sequence - this.#expected) | 0) < 0) {
      throw new QueueFault(`The card delivered record ${sequence} where ${this.#expected} was due.`)
    }
    return false
  }
}
