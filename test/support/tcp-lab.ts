/**
 * Two cards joined by a bad wire, in virtual time: each with a host that writes, reads and checks the pattern of tcp-script.ts.
 * A run is a function of its settings and its seed.
 */
import * as M from '../../abi/messages.ts'
import { QUEUE_CONTROL, QUEUE_TX } from '../../abi/rings.ts'
import { BareCard, type CardRecord, type CardSettings, type CommandFields, command } from './bare-card.ts'
import { format, ipNumber } from './packets.ts'

/** What the wire does to frames; chances are 0..1. */
export interface WireSettings {
  /** One way, milliseconds. */
  delayMs?: number
  loss?: number
  duplication?: number
  /** Chance that a frame takes up to `jitterMs` longer, so that others overtake it. */
  reordering?: number
  jitterMs?: number
  corruption?: number
  /** Bytes a millisecond in each direction; a queue of `queueBytes` before it. */
  rate?: number
  queueBytes?: number
}

/** xorshift128 with a splitmix start: good enough for losses. */
export class Random {
  private readonly s = new Uint32Array(4)

  constructor(seed: number) {
    for (let i = 0, x = seed >>> 0; i < 4; i++) {
      x = (x + 0x9e3779b9) >>> 0
      let z = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      this.s[i] = z ^ (z >>> 16)
    }
  }

  next(): number {
    const s = this.s
    let t = s[3]!
    t ^= t << 11
    t ^= t >>> 8
    s[3] = s[2]!
    s[2] = s[1]!
    s[1] = s[0]!
    s[0] = t ^ s[0]! ^ (s[0]! >>> 19)
    return s[0]! / 0x100000000
  }

  below(n: number): number {
    return Math.floor(this.next() * n)
  }

  chance(p: number): boolean {
    return p > 0 && this.next() < p
  }
}

/** Two periods of the pattern, so that any record is one piece of it. */
const PATTERN_MASK = 0x1ffff
const PATTERN = new Uint8Array(2 * (PATTERN_MASK + 1)).map((_, i) => (i * 31 + (i >> 9) * 7) & 255)

/** One end of a connection as its application sees it. */
export class Flow {
  readonly side: Side
  readonly name: string
  handle = 0
  cookie = 0
  /** Bytes that it will write, has written, and has read. */
  readonly total: number
  written = 0
  readBytes = 0
  credit = 0
  connected = false
  ended = false
  finished = false
  /** Status of a failure or reset, 0 = none. */
  status = 0
  /** Largest write; credit is returned after so many bytes are read. */
  chunk = 16384
  creditEvery = 4096
  private owed = 0

  constructor(side: Side, name: string, total: number) {
    this.side = side
    this.name = name
    this.total = total
  }

  get done(): boolean {
    return this.status !== 0 || (this.ended && this.finished)
  }

  /** Writes what credit allows, and FIN at the end. */
  pump(): void {
    if (!this.connected || this.finished || this.status !== 0) return
    while (this.credit > 0 && this.written < this.total) {
      const bytes = Math.min(this.credit, this.chunk, this.total - this.written)
      const from = this.written & PATTERN_MASK
      this.side.stream({ op: M.OP_DATA, socket: this.handle, payload: PATTERN.subarray(from, from + bytes) })
      this.written += bytes
      this.credit -= bytes
    }
    if (this.written === this.total) {
      this.side.stream({ op: M.OP_DATA, flags: M.DATA_FLAG_FIN, socket: this.handle })
      this.finished = true
    }
  }

  take(payload: Uint8Array, end: boolean): void {
    const from = this.readBytes & PATTERN_MASK
    if (Buffer.compare(payload, PATTERN.subarray(from, from + payload.length)) !== 0) {
      throw new Error(`${this.name}: the bytes from ${this.readBytes} on are wrong`)
    }
    if (this.ended) throw new Error(`${this.name}: bytes after the end`)
    this.readBytes += payload.length
    this.owed += payload.length
    this.ended = end
    if (this.owed >= this.creditEvery && !end) {
      this.side.stream({ op: M.OP_CREDIT, socket: this.handle, a: this.owed })
      this.owed = 0
    }
  }
}

export class Side {
  readonly card: BareCard
  readonly ip: string
  readonly flows: Flow[] = []
  readonly byHandle = new Map<number, Flow>()
  readonly byCookie = new Map<number, Flow>()
  /** Makes the application's end of an accepted connection. */
  accept: (remotePort: number) => Flow = () => {
    throw new Error('nobody accepts')
  }
  baseline = 0
  private sequence = 0
  private cookies = 1

  constructor(settings: CardSettings, ip: string, mac: string, mtu: number) {
    const ours = { address: ip, prefix: 24, mac, mtu }
    this.ip = ip
    this.card = new BareCard({
      memoryBytes: 0x1000000,
      maximumConnections: 512,
      mslMs: 1000,
      ...settings,
      interfaces: [ours],
    })
  }

  stream(fields: CommandFields): void {
    this.card.command(QUEUE_TX, command(fields))
  }

  control(fields: CommandFields): void {
    this.card.command(QUEUE_CONTROL, command(fields))
  }

  listen(port: number, firstSpeaker = M.FIRST_SPEAKER_SERVER): void {
    this.control({ op: M.OP_LISTEN, socket: this.cookies++, b: port, fields: [firstSpeaker, 0, 1, 0] })
  }

  connect(to: Side, port: number, flow: Flow): void {
    flow.cookie = this.cookies++
    this.flows.push(flow)
    this.byCookie.set(flow.cookie, flow)
    this.control({ op: M.OP_CONNECT, socket: flow.cookie, a: ipNumber(to.ip), b: port, fields: [0, 0] })
  }

  /** Gives the records to the flows; true if there were any. */
  serve(): boolean {
    const records = this.card.records()
    for (const record of records) this.record(record)
    for (const flow of this.flows) flow.pump()
    return records.length > 0
  }

  private record(record: CardRecord): void {
    if (record.sequence !== this.sequence) throw new Error(`record ${record.sequence} where ${this.sequence} was due`)
    this.sequence++
    if (record.kind === 'receive') {
      const flow = this.byHandle.get(record.socket)
      if (!flow) throw new Error('stream bytes for an unknown handle')
      flow.take(record.payload, (record.flags & M.RX_FLAG_END) !== 0)
      return
    }
    const { type, socket, cookie, status, value, value2 } = record
    if (type === M.EVENT_LISTENING && status !== 0) throw new Error(`listen: status ${status}`)
    if (type === M.EVENT_ACCEPTED || (type === M.EVENT_CONNECTED && status === 0)) {
      const flow = type === M.EVENT_ACCEPTED ? this.accept(record.remotePort) : this.byCookie.get(cookie)!
      if (type === M.EVENT_ACCEPTED) this.flows.push(flow)
      flow.handle = socket
      flow.credit = value
      flow.creditEvery = Math.min(flow.creditEvery, value2 >>> 2)
      flow.connected = true
      this.byHandle.set(socket, flow)
    }
    if (type === M.EVENT_CONNECT_FAILED) this.byCookie.get(cookie)!.status = status
    const flow = this.byHandle.get(socket)
    if (type === M.EVENT_CREDIT && flow) flow.credit += value
    if (type === M.EVENT_RESET && flow) flow.status = status
  }
}

interface Travelling {
  timeNs: number
  order: number
  to: 0 | 1
  frame: Uint8Array
}

export interface LabSettings {
  wire?: WireSettings
  seed: number
  a?: CardSettings
  b?: CardSettings
  mtu?: number
}

export class Lab {
  readonly sides: [Side, Side]
  readonly random: Random
  nowNs = 0
  frames = 0
  private readonly wire: WireSettings
  private travelling: Travelling[] = []
  private order = 0
  private readonly busyNs = [0, 0]
  private readonly log: string[] = []

  constructor({ wire = {}, seed, a = {}, b = {}, mtu = 0 }: LabSettings) {
    this.wire = wire
    this.random = new Random(seed)
    this.sides = [
      new Side({ seed, ...a }, '192.0.2.1', '02:00:00:00:00:01', mtu),
      new Side({ seed: seed + 1, ...b }, '192.0.2.2', '02:00:00:00:00:02', mtu),
    ]
    this.settle()
    for (const side of this.sides) side.baseline = side.card.state('chunkFreeCount')
  }

  get nowMs(): number {
    return this.nowNs / 1e6
  }

  /** The last frames, one a line. */
  get packets(): string {
    return this.log.slice(-30).join('\n')
  }

  /** Runs until `done` or `ms` are over; true if done. */
  run(ms: number, done: () => boolean = () => false): boolean {
    const end = this.nowNs + ms * 1e6
    for (;;) {
      this.settle()
      if (done()) return true
      const next = Math.min(this.travelling[0]?.timeNs ?? Infinity, ...this.sides.map(({ card }) => card.wakeNs))
      if (next > end) {
        this.nowNs = end
        return false
      }
      this.nowNs = Math.max(next, this.nowNs)
      while (this.travelling.length > 0 && this.travelling[0]!.timeNs <= this.nowNs) {
        const { to, frame } = this.travelling.shift()!
        this.sides[to].card.receive(0, frame)
      }
    }
  }

  /** Both sides do what there is to do at this instant. */
  private settle(): void {
    for (let again = true; again; ) {
      again = false
      for (const [i, side] of this.sides.entries()) {
        side.card.nowNs = this.nowNs
        for (const { frame } of side.card.run()) this.send(frame, i === 0 ? 1 : 0)
        if (side.serve()) again = true
      }
    }
  }

  private send(frame: Uint8Array, to: 0 | 1): void {
    const { delayMs = 0, loss = 0, duplication = 0, reordering = 0, jitterMs = 5, corruption = 0, rate } = this.wire
    this.frames++
    const note = (what: string) => {
      if (this.log.length > 300) this.log.splice(0, 200)
      this.log.push(`  ${this.nowMs.toFixed(3).padStart(10)} ms ${what.padEnd(8)} ${format(frame)}`)
    }
    if (this.random.chance(loss)) {
      note('lost')
      return
    }
    let timeNs = this.nowNs + Math.round(delayMs * 1e6)
    if (rate) {
      const start = Math.max(this.nowNs, this.busyNs[to]!)
      if ((start - this.nowNs) * 1e-6 * rate > (this.wire.queueBytes ?? 100_000)) {
        note('queue')
        return
      }
      this.busyNs[to] = start + (frame.length / rate) * 1e6
      timeNs += Math.round(this.busyNs[to]! - this.nowNs)
    }
    if (this.random.chance(reordering)) timeNs += Math.round(this.random.next() * jitterMs * 1e6)
    let sent = frame
    // What the checksums of IP and TCP cover; ARP has none.
    if (frame[12] === 8 && frame[13] === 0 && this.random.chance(corruption)) {
      sent = frame.slice()
      const at = 14 + this.random.below(frame.length - 14)
      sent[at]! ^= 1 << this.random.below(8)
      note('damaged')
    } else note('sent')
    this.put(sent, to, timeNs)
    if (this.random.chance(duplication)) this.put(sent, to, timeNs + Math.round(this.random.next() * 2e6))
  }

  private put(frame: Uint8Array, to: 0 | 1, timeNs: number): void {
    const item = { timeNs, order: this.order++, to, frame }
    let at = this.travelling.length
    while (at > 0 && this.travelling[at - 1]!.timeNs > timeNs) at--
    this.travelling.splice(at, 0, item)
  }

  /** After all connections are over: everything must be back in its pool. Throws with what is missing. */
  expectClean(ms = 400_000): void {
    this.run(ms)
    for (const { card, baseline, ip } of this.sides) {
      for (const field of ['tcbUsed', 'timeWaitUsed', 'synReceived', 'outputHead', 'hostHead', 'neighborWaiters']) {
        if (card.state(field) !== 0) throw new Error(`${ip}: ${field} is ${card.state(field)}, not 0`)
      }
      const free = card.state('chunkFreeCount')
      if (free !== baseline) throw new Error(`${ip}: ${free} chunks are free, not ${baseline}`)
    }
  }
}
