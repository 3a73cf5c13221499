import type { RandomStream } from '../random.ts'
import type { Alarm, FrameSink, LinkHost, LinkStatistics } from './link.ts'

/** What a wire does to frames; drawn from the farm's seed. */
export interface WireOptions {
  /** One-way delay, nanoseconds. */
  delayNs?: number
  /** Extra delay, drawn evenly from 0 up to this; frames keep their order. */
  jitterNs?: number
  /** Bits a second, 0 = unlimited. A frame takes 24 bytes more than its length (preamble, FCS, gap), and 84 at least (IEEE 802.3 §4.4.2). */
  rateBps?: number
  /** Probability that a frame is lost. */
  loss?: number
  /** Probability that a frame arrives twice. */
  duplication?: number
  /** Probability that a frame is held back while later ones pass. */
  reordering?: number
  /** How long a frame is held back, nanoseconds. Default 1 ms. */
  reorderNs?: number
  /** Probability that one bit of a frame is turned over. */
  corruption?: number
  /** Frames in the wire at once, at most 65536; more are dropped and counted. Default 1024. */
  queueFrames?: number
}

const SLOT_BYTES = 2048
const DEFAULT_QUEUE_FRAMES = 1024
const DEFAULT_REORDER_NS = 1e6
/** Preamble and start delimiter 8, frame check sequence 4, inter-packet gap 12. */
const OVERHEAD_BYTES = 24
const MINIMUM_FRAME_BYTES = 60

/**
 * One direction of a cable. Without impairments a frame goes straight through, uncopied; otherwise it waits in a slab made at the
 * first such frame, in the order of arrival times.
 */
export class Wire implements FrameSink, Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = true

  /** Sees each frame as it is sent into the wire. */
  capture: FrameSink | null = null

  #frames = 0
  #bytes = 0
  #overflowed = 0
  #lost = 0
  #duplicated = 0
  #reordered = 0
  #corrupted = 0
  #cutFrames = 0

  readonly #host: LinkHost
  readonly #random: RandomStream
  readonly #sink: FrameSink
  readonly #name: string
  #isCut = false
  #straight = true
  #delayNs = 0
  #jitterNs = 0
  #nsPerByte = 0
  #loss = 0
  #duplication = 0
  #reordering = 0
  #reorderNs = DEFAULT_REORDER_NS
  #corruption = 0
  #capacity = DEFAULT_QUEUE_FRAMES

  /** When the sender's last bit leaves, nanoseconds. */
  #lineFreeNs = Number.NEGATIVE_INFINITY
  /** Latest arrival of a frame in order, nanoseconds: jitter does not reorder. */
  #lastArrivalNs = Number.NEGATIVE_INFINITY

  // Slab and heap of frames under way, by arrival and then by order of sending.
  #slab: Uint8Array | null = null
  #lengths = new Uint16Array(0)
  #arrivalNs = new Float64Array(0)
  #order = new Float64Array(0)
  /** Slots of the slab: [0, #queued) is the heap, the rest are free. */
  #slots = new Uint32Array(0)
  #queued = 0
  #sent = 0

  constructor(name: string, host: LinkHost, random: RandomStream, sink: FrameSink) {
    this.#name = name
    this.#host = host
    this.#random = random
    this.#sink = sink
  }

  /** Sets the options given and leaves the others as they are. Throws RangeError for a value out of range. */
  impair(options: WireOptions): void {
    const checked = (name: keyof WireOptions, limit: number): number => {
      const value = options[name]!
      if (!(value >= 0 && value <= limit))
        throw new RangeError(`${this.#name}: ${name} is ${value}; it is between 0 and ${limit}.`)
      return value
    }
    if (options.delayNs !== undefined) this.#delayNs = checked('delayNs', 1e13)
    if (options.jitterNs !== undefined) this.#jitterNs = checked('jitterNs', 1e13)
    if (options.rateBps !== undefined) {
      const rateBps = checked('rateBps', 1e15)
      if (rateBps !== 0 && rateBps < 1)
        throw new RangeError(`${this.#name}: rateBps is ${rateBps}; give bits a second, or 0 for no limit.`)
      this.#nsPerByte = rateBps === 0 ? 0 : 8e9 / rateBps
    }
    if (options.loss !== undefined) this.#loss = checked('loss', 1)
    if (options.duplication !== undefined) this.#duplication = checked('duplication', 1)
    if (options.reordering !== undefined) this.#reordering = checked('reordering', 1)
    if (options.reorderNs !== undefined) this.#reorderNs = checked('reorderNs', 1e13)
    if (options.corruption !== undefined) this.#corruption = checked('corruption', 1)
    if (options.queueFrames !== undefined) {
      const frames = checked('queueFrames', 65536)
      if (!Number.isInteger(frames) || frames === 0)
        throw new RangeError(`${this.#name}: queueFrames is ${frames}; it is a whole number from 1.`)
      if (this.#slab !== null && frames !== this.#capacity)
        throw new RangeError(`${this.#name}: queueFrames cannot change once frames are queued.`)
      this.#capacity = frames
    }
    const delays = this.#delayNs + this.#jitterNs + this.#nsPerByte > 0
    const chances = this.#loss + this.#duplication + this.#reordering + this.#corruption > 0
    this.#straight = !delays && !chances && !this.#isCut
  }

  /** Frames sent into a wire that is cut are lost; those under way arrive. */
  set cut(cut: boolean) {
    this.#isCut = cut
    this.impair({})
  }

  get cut(): boolean {
    return this.#isCut
  }

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    this.#frames++
    this.#bytes += length
    if (this.capture !== null) this.capture.frame(memory, offset, length, nowNs)
    // Frames under way when the impairments were taken away are not overtaken.
    if (this.#straight && this.#queued === 0) this.#sink.frame(memory, offset, length, nowNs)
    else this.#impaired(memory, offset, length, nowNs)
  }

  fire(nowNs: number): void {
    const slab = this.#slab!
    while (this.#queued > 0 && this.#arrivalNs[this.#slots[0]] <= nowNs) {
      const slot = this.#pop()
      this.#sink.frame(slab, slot * SLOT_BYTES, this.#lengths[slot], nowNs)
    }
    if (this.#queued > 0) this.#host.setAlarm(this, this.#arrivalNs[this.#slots[0]])
  }

  /** Forgets the frames under way. */
  clear(): void {
    this.#queued = 0
    this.#host.clearAlarm(this)
  }

  statistics(): LinkStatistics {
    return {
      frames: this.#frames,
      bytes: this.#bytes,
      overflowed: this.#overflowed,
      lost: this.#lost,
      duplicated: this.#duplicated,
      reordered: this.#reordered,
      corrupted: this.#corrupted,
      cut: this.#cutFrames,
    }
  }

  #impaired(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    if (this.#isCut) {
      this.#cutFrames++
      return
    }
    // The sender's line is busy for the frame whether it is lost further on or not.
    let leavesNs = nowNs
    if (this.#nsPerByte > 0) {
      const bytes = Math.max(length, MINIMUM_FRAME_BYTES) + OVERHEAD_BYTES
      if (this.#queued === this.#capacity) {
        this.#overflowed++
        return
      }
      if (this.#lineFreeNs > leavesNs) leavesNs = this.#lineFreeNs
      leavesNs += bytes * this.#nsPerByte
      this.#lineFreeNs = leavesNs
    }
    if (this.#random.chance(this.#loss)) {
      this.#lost++
      return
    }
    let arrivalNs = Math.ceil(leavesNs) + this.#delayNs
    if (this.#jitterNs > 0) arrivalNs += this.#random.below(this.#jitterNs)
    if (this.#random.chance(this.#reordering)) {
      this.#reordered++
      arrivalNs += this.#reorderNs
    } else {
      if (arrivalNs < this.#lastArrivalNs) arrivalNs = this.#lastArrivalNs
      this.#lastArrivalNs = arrivalNs
    }
    const corrupt = this.#random.chance(this.#corruption)
    this.#enqueue(memory, offset, length, arrivalNs, corrupt)
    if (this.#random.chance(this.#duplication)) {
      this.#duplicated++
      this.#enqueue(memory, offset, length, arrivalNs, false)
    }
  }

  #enqueue(memory: Uint8Array, offset: number, length: number, arrivalNs: number, corrupt: boolean): void {
    if (this.#queued === this.#capacity || length > SLOT_BYTES) {
      this.#overflowed++
      return
    }
    const slab = this.#slab ?? this.#makeSlab()
    const slot = this.#slots[this.#queued]
    slab.set(memory.subarray(offset, offset + length), slot * SLOT_BYTES)
    this.#lengths[slot] = length
    if (corrupt) {
      this.#corrupted++
      const bit = this.#random.below(length * 8)
      slab[slot * SLOT_BYTES + (bit >>> 3)] ^= 1 << (bit & 7)
    }
    this.#arrivalNs[slot] = arrivalNs
    this.#order[slot] = this.#sent++
    this.#push(slot)
    // The heap's first may have changed; the alarm is moved only if it is later than that.
    const dueNs = this.#arrivalNs[this.#slots[0]]
    if (this.slot < 0 || dueNs < this.dueNs) this.#host.setAlarm(this, dueNs)
  }

  #makeSlab(): Uint8Array {
    this.#slab = new Uint8Array(this.#capacity * SLOT_BYTES)
    this.#lengths = new Uint16Array(this.#capacity)
    this.#arrivalNs = new Float64Array(this.#capacity)
    this.#order = new Float64Array(this.#capacity)
    this.#slots = Uint32Array.from({ length: this.#capacity }, (_, slot) => slot)
    return this.#slab
  }

  #earlier(a: number, b: number): boolean {
    const difference = this.#arrivalNs[a] - this.#arrivalNs[b]
    return difference < 0 || (difference === 0 && this.#order[a] < this.#order[b])
  }

  #push(slot: number): void {
    const slots = this.#slots
    let place = this.#queued++
    while (place > 0) {
      const parent = (place - 1) >>> 1
      if (!this.#earlier(slot, slots[parent])) break
      slots[place] = slots[parent]
      place = parent
    }
    slots[place] = slot
  }

  #pop(): number {
    const slots = this.#slots
    const first = slots[0]
    const last = slots[--this.#queued]
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= this.#queued) break
      if (child + 1 < this.#queued && this.#earlier(slots[child + 1], slots[child])) child++
      if (!this.#earlier(slots[child], last)) break
      slots[place] = slots[child]
      place = child
    }
    slots[place] = last
    slots[this.#queued] = first
    return first
  }
}
