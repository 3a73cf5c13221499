import { REGISTER_BASE } from '../../abi/memory.ts'
import {
  DELIVER_BASE,
  DELIVER_ENTRIES,
  DMA_DROPPED,
  FETCH_BASE,
  FETCH_ENTRIES,
  IRQ_FETCH,
  IRQ_QUEUE,
  QUEUE_STATUS_BASE,
} from '../../abi/registers.ts'
import {
  INFO_FIRST,
  INFO_LAST,
  INFO_QUEUE_MASK,
  OWNER_DEVICE,
  OWNER_FIRMWARE,
  QUEUE_CONTROL,
  QUEUE_COUNT,
  QUEUE_SETS,
  QUEUE_STATE_DISABLED,
  QUEUE_STATE_ENABLED,
  QUEUE_STATUS_BYTES,
  QUEUE_TX,
  QUEUES_PER_SET,
} from '../../abi/rings.ts'
import { DescriptorRing } from './descriptor-ring.ts'
import type { InterruptController } from './irq.ts'
import { copyBytes, type FaultLine, hex, type InicMemory } from './memory.ts'
import { QueueSet, type QueueSetHost } from './queue-set.ts'
import { Chain, type HostRam, type Virtqueue } from './virtqueue.ts'

const FETCH_QUEUES = (1 << QUEUE_CONTROL) | (1 << QUEUE_TX)
const DROPPED = (REGISTER_BASE + DMA_DROPPED) >>> 2
const STATUS_BASE = (REGISTER_BASE + QUEUE_STATUS_BASE) >>> 2

/** Counters of the DMA engine since power-on; free-running. */
export interface DmaStatistics {
  /** Records fetched from main-board RAM, and their bytes. */
  fetched: number
  fetchedBytes: number
  /** Records delivered into main-board RAM, and their bytes. */
  delivered: number
  deliveredBytes: number
  /** Records dropped because the host had no buffer. */
  dropped: number
  interrupts: number
}

/** What the DMA engine needs from the board. */
export interface DmaHost {
  /** CARD_*. */
  readonly cardState: number
  /** There is work: the board shall run a slice. */
  wake(): void
  /** Raises the interrupt line of a process. */
  interrupt(set: QueueSet): void
}

/**
 * DMA engine: the only bridge between INIC memory and main-board RAM. Toward the firmware it has a fetch ring, a deliver ring and a
 * table of queue states (abi/rings.ts); toward each process a set of virtqueues (queue-set.ts).
 */
export class DmaEngine implements QueueSetHost {
  fetched = 0
  fetchedBytes = 0
  delivered = 0
  deliveredBytes = 0
  dropped = 0
  interrupts = 0

  readonly #irq: InterruptController
  readonly #host: DmaHost
  readonly #fault: FaultLine
  #memory: InicMemory | null = null
  #words: Uint32Array = new Uint32Array(0)
  readonly #fetchRing: DescriptorRing
  readonly #deliverRing: DescriptorRing

  readonly #sets: (QueueSet | null)[] = new Array(QUEUE_SETS).fill(null)
  /** Those of #sets that are taken. */
  #attached: QueueSet[] = []
  /** Where the search for the next chain goes on, an index into #attached: sets take turns. */
  #turn = 0

  // Queue states shown to the firmware, by queue index.
  #statusBase = 0
  readonly #epochs = new Uint32Array(QUEUE_COUNT)

  // The chain being fetched, and how far it got. A chain may need more descriptors than the firmware has given.
  readonly #fetchChain = new Chain()
  #fetchQueue: Virtqueue | null = null
  #fetchIndex = 0
  #fetchEpoch = 0
  #fetchSegment = 0
  #fetchOffset = 0
  #fetchLeft = 0
  #fetchFirst = 0

  // The record being delivered, and the chain it goes into.
  readonly #deliverChain = new Chain()
  #recordOpen = false
  /** Null while the open record is one to drop. */
  #deliverQueue: Virtqueue | null = null
  #deliverIndex = 0
  #deliverSegment = 0
  #deliverOffset = 0
  #deliverBytes = 0

  constructor(irq: InterruptController, host: DmaHost, fault: FaultLine) {
    this.#irq = irq
    this.#host = host
    this.#fault = fault
    const register = (offset: number) => (REGISTER_BASE + offset) >>> 2
    this.#fetchRing = new DescriptorRing('DMA fetch', register(FETCH_BASE), register(FETCH_ENTRIES), fault)
    this.#deliverRing = new DescriptorRing('DMA deliver', register(DELIVER_BASE), register(DELIVER_ENTRIES), fault)
  }

  powerOn(memory: InicMemory): void {
    this.#memory = memory
    this.#words = memory.words
    this.#fetchRing.powerOn(memory)
    this.#deliverRing.powerOn(memory)
    this.#statusBase = 0
    this.#fetchQueue = null
    this.#recordOpen = false
    this.#deliverQueue = null
    this.fetched = this.fetchedBytes = this.delivered = this.deliveredBytes = this.dropped = this.interrupts = 0
    for (const set of this.#attached) set.signalCard()
  }

  /** The card stopped: every queue is disabled and every process told. */
  stop(): void {
    for (const set of this.#attached) {
      set.disableAll()
      set.signalCard()
    }
  }

  /** Gives a process a queue set over `buffer`; throws RangeError if none is free. */
  attach(buffer: ArrayBufferLike): QueueSet {
    const index = this.#sets.indexOf(null)
    if (index < 0) throw new RangeError(`All ${QUEUE_SETS} queue sets of the card are taken.`)
    const set = new QueueSet(index, buffer, this)
    this.#sets[index] = set
    this.#attached = this.#sets.filter((s) => s !== null)
    return set
  }

  /** Takes a queue set away; throws RangeError if `index` names none. */
  detach(index: number): void {
    const set = this.#sets[index]
    if (!set) throw new RangeError(`No process has queue set ${index}.`)
    set.detach()
    this.#sets[index] = null
    this.#attached = this.#sets.filter((s) => s !== null)
    if (this.#statusBase !== 0)
      for (let q = 0; q < QUEUES_PER_SET; q++) this.#showStatus(index * QUEUES_PER_SET + q, null)
  }

  // ── toward the processes ──

  get cardState(): number {
    return this.#host.cardState
  }

  doorbell(set: QueueSet, queue: number): void {
    const virtqueue = set.queues[queue]
    if (virtqueue.state !== QUEUE_STATE_ENABLED) return
    if (!virtqueue.writable) {
      set.rung |= 1 << queue
      this.#host.wake()
      return
    }
    // Buffers given back: the firmware finds the count at its next poll, and is woken only where it may have run out.
    if (isScarce(virtqueue) && virtqueue.look()) this.#irq.raise(IRQ_QUEUE)
  }

  reconfigured(set: QueueSet, queue: number): void {
    const index = set.index * QUEUES_PER_SET + queue
    this.#epochs[index]++
    const virtqueue = set.queues[queue]
    virtqueue.look()
    if (virtqueue === this.#deliverQueue) this.#deliverQueue = null
    this.#irq.raise(IRQ_QUEUE)
    this.#host.wake()
  }

  broken(): void {
    this.#irq.raise(IRQ_QUEUE)
  }

  interrupt(set: QueueSet): void {
    this.interrupts++
    this.#host.interrupt(set)
  }

  // ── toward the firmware ──

  /** Before a poll: shows counters and queue states. */
  show(): void {
    this.#words[DROPPED] = this.dropped
    if (this.#statusBase === 0) return
    const attached = this.#attached
    for (let s = 0; s < attached.length; s++) {
      const { queues, index } = attached[s]
      for (let q = 0; q < QUEUES_PER_SET; q++) {
        const virtqueue = queues[q]
        if (virtqueue.writable) virtqueue.look()
        if (virtqueue.changed) this.#showStatus(index * QUEUES_PER_SET + q, virtqueue)
      }
    }
  }

  /** After a poll. */
  settle(): void {
    this.#fetchRing.settle()
    this.#deliverRing.settle()
    const base = this.#words[STATUS_BASE]
    if (base !== this.#statusBase) this.#moveStatus(base)
  }

  /** True if `fetch` may find something to do. */
  get rung(): boolean {
    if (this.#fetchQueue !== null) return true
    for (let s = 0; s < this.#attached.length; s++) if ((this.#attached[s].rung & FETCH_QUEUES) !== 0) return true
    return false
  }

  /** Copies records from the processes' RAM into the fetch ring while both sides have some; one round of the ring at most. */
  fetch(): void {
    if (this.rung) this.#fetchRecords()
  }

  #fetchRecords(): void {
    const ring = this.#fetchRing
    const words = this.#words
    let filled = false
    for (let left = ring.entries; left > 0; left--) {
      const at = ring.at
      if (words[at + 3] !== OWNER_DEVICE) {
        this.#declineDoorbells()
        break
      }
      if (this.#fetchQueue === null && !this.#nextChain()) break
      if (!this.#fill(at)) return
      ring.advance()
      filled = true
    }
    if (filled) this.#irq.raise(IRQ_FETCH)
  }

  /** Copies the records that the firmware put into the deliver ring into the processes' RAM; takes all that it owns. */
  deliver(): void {
    if (this.#deliverRing.entries > 0 && this.#words[this.#deliverRing.at + 3] === OWNER_DEVICE) this.#deliverRecords()
  }

  #deliverRecords(): void {
    const ring = this.#deliverRing
    const words = this.#words
    const memory = this.#memory!
    for (let left = ring.entries; left > 0; left--) {
      const at = ring.at
      if (words[at + 3] !== OWNER_DEVICE) return
      const address = words[at]
      const length = words[at + 1]
      const info = words[at + 2]
      if (!memory.holds(address, length)) {
        this.#fault(`DMA: a deliver descriptor names ${length} bytes at ${hex(address)}`)
        return
      }
      if ((info & INFO_FIRST) !== 0) {
        // Queues 2 and 3 of each set, RX and event, are those that the device writes.
        if (this.#recordOpen || (info & INFO_QUEUE_MASK) >= QUEUE_COUNT || (info & 2) === 0) {
          this.#fault(`DMA: a deliver descriptor begins a record wrongly (INFO ${hex(info)})`)
          return
        }
        this.#openRecord(info & INFO_QUEUE_MASK)
      } else if (!this.#recordOpen) {
        this.#fault(`DMA: a deliver descriptor goes on with a record that was not begun (INFO ${hex(info)})`)
        return
      }
      if (this.#deliverQueue !== null) this.#append(address, length)
      if ((info & INFO_LAST) !== 0) this.#closeRecord()
      words[at + 3] = OWNER_FIRMWARE
      memory.wrote((at + 3) << 2, 4)
      ring.advance()
    }
  }

  /** Shows the drivers what was completed in this slice; each process is interrupted once at most. */
  publish(): void {
    for (let s = 0; s < this.#attached.length; s++) {
      const set = this.#attached[s]
      if (set.dirty !== 0) this.#publishSet(set)
    }
  }

  #publishSet(set: QueueSet): void {
    let dirty = set.dirty
    set.dirty = 0
    let wanted = false
    for (let q = 0; dirty !== 0; q++, dirty >>>= 1) {
      if ((dirty & 1) === 0) continue
      const virtqueue = set.queues[q]
      if (virtqueue.publish()) wanted = true
      set.signal(q, false)
      // Scarce buffers: the next one the driver gives back is worth a doorbell.
      if (virtqueue.writable) {
        if (!isScarce(virtqueue)) virtqueue.declineDoorbell()
        else if (virtqueue.requestDoorbell()) this.#irq.raise(IRQ_QUEUE)
      }
    }
    if (wanted) this.interrupt(set)
  }

  statistics(): DmaStatistics {
    const { fetched, fetchedBytes, delivered, deliveredBytes, dropped, interrupts } = this
    return { fetched, fetchedBytes, delivered, deliveredBytes, dropped, interrupts }
  }

  // ── fetch ──

  /** Finds the next chain; the sets take turns, chain by chain. */
  #nextChain(): boolean {
    const attached = this.#attached
    for (let n = attached.length; n > 0; n--) {
      if (this.#turn >= attached.length) this.#turn = 0
      const set = attached[this.#turn++]
      if ((set.rung & FETCH_QUEUES) === 0) continue
      if (this.#openChain(set, QUEUE_CONTROL) || this.#openChain(set, QUEUE_TX)) return true
    }
    return false
  }

  #openChain(set: QueueSet, q: number): boolean {
    const bit = 1 << q
    if ((set.rung & bit) === 0) return false
    const virtqueue = set.queues[q]
    const chain = this.#fetchChain
    if (virtqueue.free === 0 && !virtqueue.look()) virtqueue.requestDoorbell()
    if (!virtqueue.begin(chain)) {
      set.rung &= ~bit
      return false
    }
    virtqueue.take()
    this.#fetchQueue = virtqueue
    this.#fetchIndex = set.index * QUEUES_PER_SET + q
    this.#fetchEpoch = this.#epochs[this.#fetchIndex]
    this.#fetchSegment = 0
    this.#fetchOffset = 0
    this.#fetchLeft = chain.total
    this.#fetchFirst = INFO_FIRST
    return true
  }

  /** Fills the fetch descriptor at word index `at` from the chain being fetched; false = the descriptor is no good. */
  #fill(at: number): boolean {
    const words = this.#words
    const memory = this.#memory!
    const address = words[at]
    const capacity = words[at + 1]
    if (capacity === 0 || !memory.holds(address, capacity)) {
      this.#fault(`DMA: a fetch descriptor names a buffer of ${capacity} bytes at ${hex(address)}`)
      return false
    }
    const index = this.#fetchIndex
    const set = this.#sets[index >>> 2] ?? null
    let stored = 0
    // A queue that was disabled meanwhile ends its record early: the epoch in its status entry says so.
    if (set === null || this.#epochs[index] !== this.#fetchEpoch) this.#fetchLeft = 0
    else {
      stored = Math.min(this.#fetchLeft, capacity)
      this.#gather(set.memory, address, stored)
      this.#fetchLeft -= stored
    }
    let info = index | this.#fetchFirst
    this.#fetchFirst = 0
    if (this.#fetchLeft === 0) {
      info |= INFO_LAST
      this.fetched++
      if (set !== null && this.#epochs[index] === this.#fetchEpoch) {
        this.#fetchQueue!.complete(this.#fetchChain.head, 0)
        set.dirty |= 1 << (index & 3)
      }
      this.#fetchQueue = null
    }
    this.fetchedBytes += stored
    words[at + 1] = stored
    words[at + 2] = info
    words[at + 3] = OWNER_FIRMWARE
    memory.wrote(address, stored)
    memory.wrote((at + 1) << 2, 12)
    return true
  }

  /** Copies the next `length` bytes of the chain being fetched to `address` in INIC memory. */
  #gather(ram: HostRam, address: number, length: number): void {
    const chain = this.#fetchChain
    const memory = this.#memory!
    let to = address
    let left = length
    while (left > 0) {
      const rest = chain.lengths[this.#fetchSegment] - this.#fetchOffset
      const piece = Math.min(rest, left)
      copyBytes(ram, chain.addresses[this.#fetchSegment] + this.#fetchOffset, memory, to, piece)
      to += piece
      left -= piece
      if (piece === rest) {
        this.#fetchSegment++
        this.#fetchOffset = 0
      } else this.#fetchOffset += piece
    }
  }

  /** The firmware has no fetch descriptor free: the engine will look at the rings again by itself. */
  #declineDoorbells(): void {
    for (let s = 0; s < this.#attached.length; s++) {
      const set = this.#attached[s]
      if ((set.rung & (1 << QUEUE_CONTROL)) !== 0) set.queues[QUEUE_CONTROL].declineDoorbell()
      if ((set.rung & (1 << QUEUE_TX)) !== 0) set.queues[QUEUE_TX].declineDoorbell()
    }
  }

  // ── deliver ──

  #openRecord(index: number): void {
    this.#recordOpen = true
    this.#deliverQueue = null
    this.#deliverIndex = index
    const set = this.#sets[index >>> 2]
    if (!set) return
    const virtqueue = set.queues[index & 3]
    if (virtqueue.state !== QUEUE_STATE_ENABLED) return
    if (virtqueue.free === 0) virtqueue.look()
    if (virtqueue.begin(this.#deliverChain)) {
      this.#deliverQueue = virtqueue
      this.#deliverSegment = 0
      this.#deliverOffset = 0
      this.#deliverBytes = 0
    }
  }

  #append(address: number, length: number): void {
    const chain = this.#deliverChain
    if (this.#deliverBytes + length > chain.total) {
      // Longer than the buffer: the record is dropped, and the chain stays for the next one.
      this.#deliverQueue = null
      return
    }
    const ram = this.#sets[this.#deliverIndex >>> 2]!.memory
    const memory = this.#memory!
    this.#deliverBytes += length
    let from = address
    let left = length
    while (left > 0) {
      const rest = chain.lengths[this.#deliverSegment] - this.#deliverOffset
      const piece = Math.min(rest, left)
      copyBytes(memory, from, ram, chain.addresses[this.#deliverSegment] + this.#deliverOffset, piece)
      from += piece
      left -= piece
      if (piece === rest) {
        this.#deliverSegment++
        this.#deliverOffset = 0
      } else this.#deliverOffset += piece
    }
  }

  #closeRecord(): void {
    this.#recordOpen = false
    const virtqueue = this.#deliverQueue
    if (virtqueue === null) {
      this.dropped = (this.dropped + 1) >>> 0
      return
    }
    this.#deliverQueue = null
    virtqueue.take()
    virtqueue.complete(this.#deliverChain.head, this.#deliverBytes)
    this.#sets[this.#deliverIndex >>> 2]!.dirty |= 1 << (this.#deliverIndex & 3)
    this.delivered++
    this.deliveredBytes += this.#deliverBytes
  }

  // ── queue states ──

  #showStatus(index: number, virtqueue: Virtqueue | null): void {
    const words = this.#words
    const at = (this.#statusBase + index * QUEUE_STATUS_BYTES) >>> 2
    words[at] = virtqueue?.available ?? 0
    words[at + 1] = virtqueue?.state ?? QUEUE_STATE_DISABLED
    words[at + 2] = this.#epochs[index]
    words[at + 3] = virtqueue?.bufferBytes ?? 0
    this.#memory!.wrote(at << 2, QUEUE_STATUS_BYTES)
    if (virtqueue !== null) virtqueue.changed = false
  }

  #moveStatus(base: number): void {
    this.#statusBase = 0
    if (base === 0) return
    if ((base & 3) !== 0 || !this.#memory!.holds(base, QUEUE_COUNT * QUEUE_STATUS_BYTES)) {
      this.#fault(`DMA: no queue status table can lie at ${hex(base)}`)
      return
    }
    this.#statusBase = base
    for (let index = 0; index < QUEUE_COUNT; index++)
      this.#showStatus(index, this.#sets[index >>> 2]?.queues[index & 3] ?? null)
  }
}

/** So few buffers that the firmware may soon wait for one. */
function isScarce(virtqueue: Virtqueue): boolean {
  return virtqueue.free < virtqueue.size >>> 2
}
