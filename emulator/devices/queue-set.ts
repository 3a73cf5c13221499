import type { Bus } from '../../abi/bus.ts'
import { QUEUE_EVENT, QUEUE_RX, QUEUE_STATE_DISABLED, QUEUES_PER_SET } from '../../abi/rings.ts'
import {
  BUS_CARD_STATE,
  BUS_FEATURES,
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_AVAIL,
  BUS_QUEUE_BUFFER_BYTES,
  BUS_QUEUE_DESC,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_ERROR,
  BUS_QUEUE_NOTIFY,
  BUS_QUEUE_SIZE,
  BUS_QUEUE_STATE,
  BUS_QUEUE_STRIDE,
  BUS_QUEUE_USED,
  QUEUE_ERROR_NONE,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
} from '../../abi/virtio.ts'
import { HostRam, type QueueLayout, Virtqueue } from './virtqueue.ts'

const FEATURES = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX

/** What a queue set tells the DMA engine. */
export interface QueueSetHost {
  /** CARD_*. */
  readonly cardState: number
  /** The driver rang for queue `queue` of `set`. */
  doorbell(set: QueueSet, queue: number): void
  /** Queue `queue` of `set` was enabled or disabled. */
  reconfigured(set: QueueSet, queue: number): void
  /** The driver broke queue `queue` of `set`. */
  broken(set: QueueSet, queue: number): void
  /** The interrupt line of `set` goes up. */
  interrupt(set: QueueSet): void
}

/**
 * One process's queue set: its RAM, its four virtqueues and the register window through which the driver drives them (abi/virtio.ts).
 */
export class QueueSet implements Bus {
  /** 0..QUEUE_SETS - 1. */
  readonly index: number
  readonly ram: Uint8Array
  /** The same, for the DMA engine. */
  readonly memory: HostRam
  readonly queues: readonly Virtqueue[]
  /** Bit q = queue q rang and has not been drained; DMA engine's. */
  rung = 0
  /** Bit q = queue q has completions to publish; DMA engine's. */
  dirty = 0
  /** What the driver runs when the line goes up; null = nobody listens. */
  handler: (() => void) | null = null

  readonly #host: QueueSetHost
  readonly #layouts: QueueLayout[]
  #features = 0
  #interruptStatus = 0
  #attached = true

  constructor(index: number, buffer: ArrayBufferLike, host: QueueSetHost) {
    const ram = new HostRam(buffer)
    this.index = index
    this.ram = ram.bytes
    this.memory = ram
    this.#host = host
    this.queues = Array.from(
      { length: QUEUES_PER_SET },
      (_, q) => new Virtqueue(ram, q === QUEUE_RX || q === QUEUE_EVENT, () => this.#broke(q)),
    )
    this.#layouts = this.queues.map(() => ({ desc: 0, avail: 0, used: 0, size: 0, bufferBytes: 0, features: 0 }))
  }

  onInterrupt(handler: () => void): void {
    this.handler = handler
  }

  write(register: number, value: number): void {
    const queue = register >>> 6
    if (register === queue * BUS_QUEUE_STRIDE + BUS_QUEUE_NOTIFY && queue < QUEUES_PER_SET) {
      if (this.#attached) this.#host.doorbell(this, queue)
      return
    }
    if (register === BUS_INTERRUPT_ACK) {
      this.#interruptStatus &= ~value
      return
    }
    this.#configure(register, queue, value >>> 0)
  }

  read(register: number): number {
    if (register === BUS_INTERRUPT_STATUS) return this.#interruptStatus
    if (register === BUS_CARD_STATE) return this.#host.cardState
    if (register === BUS_FEATURES) return this.#features
    if (register === BUS_INTERRUPT_ACK) return 0
    const queue = register >>> 6
    const layout = this.#layout(register, queue)
    switch (register - queue * BUS_QUEUE_STRIDE) {
      case BUS_QUEUE_DESC:
        return layout.desc
      case BUS_QUEUE_AVAIL:
        return layout.avail
      case BUS_QUEUE_USED:
        return layout.used
      case BUS_QUEUE_SIZE:
        return layout.size
      case BUS_QUEUE_BUFFER_BYTES:
        return layout.bufferBytes
      case BUS_QUEUE_ENABLE:
        return this.queues[queue].state === QUEUE_STATE_DISABLED ? 0 : 1
      case BUS_QUEUE_NOTIFY:
        return 0
      case BUS_QUEUE_STATE:
        return this.queues[queue].state
      case BUS_QUEUE_ERROR:
        return this.queues[queue].error
      default:
        throw noRegister(register)
    }
  }

  /** Sets status bit `queue` and raises the line if `wanted`. */
  signal(queue: number, wanted: boolean): void {
    this.#interruptStatus |= 1 << queue
    if (wanted) this.#host.interrupt(this)
  }

  /** Raises the line with no queue's bit: the card's state changed. */
  signalCard(): void {
    this.#host.interrupt(this)
  }

  /** Disables every queue: the card stopped. */
  disableAll(): void {
    for (let q = 0; q < QUEUES_PER_SET; q++) this.#disable(q)
  }

  /** The process is gone: its bus does nothing any more. */
  detach(): void {
    this.disableAll()
    this.#attached = false
    this.handler = null
  }

  #configure(register: number, queue: number, value: number): void {
    if (register === BUS_FEATURES) {
      // §3.1.1: features are settled before a queue is set up.
      if (this.queues.every((q) => q.state === QUEUE_STATE_DISABLED)) this.#features = value & FEATURES
      return
    }
    if (register === BUS_INTERRUPT_STATUS || register === BUS_CARD_STATE) return
    const layout = this.#layout(register, queue)
    switch (register - queue * BUS_QUEUE_STRIDE) {
      case BUS_QUEUE_DESC:
        layout.desc = value
        return
      case BUS_QUEUE_AVAIL:
        layout.avail = value
        return
      case BUS_QUEUE_USED:
        layout.used = value
        return
      case BUS_QUEUE_SIZE:
        layout.size = value
        return
      case BUS_QUEUE_BUFFER_BYTES:
        layout.bufferBytes = value
        return
      case BUS_QUEUE_ENABLE:
        if (value === 0) this.#disable(queue)
        else this.#enable(queue, layout)
        return
      case BUS_QUEUE_STATE:
      case BUS_QUEUE_ERROR:
        return
      default:
        throw noRegister(register)
    }
  }

  #enable(queue: number, layout: QueueLayout): void {
    const virtqueue = this.queues[queue]
    if (!this.#attached || virtqueue.state !== QUEUE_STATE_DISABLED) return
    layout.features = this.#features
    virtqueue.enable(layout)
    if (virtqueue.error === QUEUE_ERROR_NONE) this.#host.reconfigured(this, queue)
  }

  #disable(queue: number): void {
    const virtqueue = this.queues[queue]
    this.rung &= ~(1 << queue)
    this.dirty &= ~(1 << queue)
    if (virtqueue.state === QUEUE_STATE_DISABLED) return
    virtqueue.disable()
    this.#host.reconfigured(this, queue)
  }

  #broke(queue: number): void {
    this.rung &= ~(1 << queue)
    this.dirty &= ~(1 << queue)
    this.#host.broken(this, queue)
    this.signal(queue, true)
  }

  #layout(register: number, queue: number): QueueLayout {
    const layout = this.#layouts[queue]
    if (layout === undefined || register < 0 || !Number.isInteger(register)) throw noRegister(register)
    return layout
  }
}

function noRegister(register: number): RangeError {
  return new RangeError(`No register of a queue set is at offset ${register}.`)
}
