/**
 * Send and expect for TCP, in the spirit of packetdrill: the test plays the peer of one connection of the card's, and the
 * application behind it. Sequence numbers are relative: 0 is the SYN, 1 the first byte, on both sides.
 */
import * as M from '../../abi/messages.ts'
import type { EventRecord, ReceiveRecord } from './bare-card.ts'
import { between, PEER, type Station } from './lan.ts'
import { bytes, concat, format, ipNumber, type Packet, type TcpOptions, tcpFrame } from './packets.ts'
import { cardStation, type Endpoint, type TcpNet } from './tcp-net.ts'

export * from './tcp-net.ts'

export interface PeerOptions {
  /** Peer's station, default a neighbour on port 0. */
  peer?: Station
  peerPort?: number
  cardPort?: number
  /** Initial sequence number of the peer; 1000 if not given. */
  iss?: number
  /** Window field of the peer's segments, before scaling. */
  window?: number
  /** Options of the peer's SYN. `timestamps: true` = its own clock. */
  mss?: number | null
  windowScale?: number
  sack?: boolean
  timestamps?: boolean
}

export interface Send {
  flags: string
  /** Default: the next number in order, which then moves on. */
  seq?: number
  /** Default: all that came in order. */
  ack?: number
  window?: number
  /** Text, bytes, or a number of bytes of the stream's pattern. */
  payload?: string | Uint8Array | number
  /** Blocks of the card's sequence numbers. */
  sack?: [number, number][]
  /** null leaves the option out; [TSval, TSecr]. */
  ts?: [number, number] | null
  options?: TcpOptions | Uint8Array
  urgent?: number
  tcpChecksum?: number
}

/** What a segment of the card's must be; what is not named may be anything. PSH counts only where it is named. */
export interface Expect {
  flags?: string
  seq?: number
  ack?: number
  /** Bytes of payload. */
  length?: number
  payload?: string | Uint8Array
  window?: number
  mss?: number | null
  windowScale?: number | null
  sackPermitted?: boolean | null
  /** Blocks of the peer's sequence numbers; null = no option. */
  sack?: [number, number][] | null
  timestamps?: [number, number] | true | null
  urgent?: number
  /** It comes this many milliseconds from now (± 1), and nothing before it. */
  after?: number
}

/** A segment of the card's, with relative numbers. */
export interface Seen {
  flags: string
  seq: number
  ack: number
  length: number
  payload: Uint8Array
  window: number
  mss: number | null
  windowScale: number | null
  sackPermitted: boolean | null
  sack: [number, number][] | null
  timestamps: [number, number] | null
  urgent: number
  timeNs: number
  packet: Packet
}

const u32 = (value: number) => value >>> 0
const i32 = (value: number) => value | 0

/** Bytes `from`..`from + count` of the pattern that streams of tests carry; the first byte of a stream is 1. */
export function pattern(from: number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => ((from + i) * 31 + ((from + i) >> 9) * 7) & 255)
}

export class Conn implements Endpoint {
  readonly net: TcpNet
  readonly options: PeerOptions
  readonly peer: Station
  readonly card: Station
  peerPort: number
  cardPort: number
  iss: number
  /** The card's initial sequence number, once a SYN of its was seen. */
  irs = 0
  /** Relative: what `send` sends next, and what it acknowledges. */
  sndNxt = 0
  rcvNxt = 0
  window: number
  /** Timestamps are on: `send` adds them. */
  stamped = false
  tsRecent = 0
  /** Shift of the peer's own windows. */
  scale = 0
  handle = 0
  cookie = 0
  set = 0
  /** Credits as the card granted them. */
  sendCredit = 0
  receiveCredit = 0
  readonly inbox: Seen[] = []
  readonly events: EventRecord[] = []
  private received: Uint8Array[] = []
  private endSeen = false
  private readonly tsBase = 500_000

  constructor(net: TcpNet, options: PeerOptions = {}) {
    this.net = net
    this.options = options
    this.peer = options.peer ?? PEER
    this.card = cardStation(this.peer.port)
    this.peerPort = options.peerPort ?? 40000 + net.endpoints.length
    this.cardPort = options.cardPort ?? 80
    this.iss = options.iss ?? 1000
    this.window = options.window ?? 65535
    net.endpoints.push(this)
  }

  // ── the network side ──

  takesFrame(packet: Packet): boolean {
    return (
      packet.ipv4?.destination === this.peer.ip &&
      packet.tcp?.destinationPort === this.peerPort &&
      (packet.tcp.sourcePort === this.cardPort || this.cardPort === 0)
    )
  }

  onFrame(packet: Packet, timeNs: number): void {
    const tcp = packet.tcp!
    this.cardPort = tcp.sourcePort
    if (tcp.flags.includes('S')) {
      this.irs = tcp.sequence
      this.rcvNxt = 0
    }
    const seq = i32(tcp.sequence - this.irs)
    const span = tcp.payload.length + (tcp.flags.includes('S') ? 1 : 0) + (tcp.flags.includes('F') ? 1 : 0)
    if (seq <= this.rcvNxt && seq + span > this.rcvNxt) this.rcvNxt = seq + span
    if (tcp.options.timestamps && seq <= this.rcvNxt) this.tsRecent = tcp.options.timestamps[0]
    const relative = ([left, right]: [number, number]): [number, number] => [
      i32(left - this.iss),
      i32(right - this.iss),
    ]
    this.inbox.push({
      flags: tcp.flags,
      seq,
      ack: tcp.flags.includes('A') ? i32(tcp.acknowledgment - this.iss) : 0,
      length: tcp.payload.length,
      payload: tcp.payload,
      window: tcp.window,
      mss: tcp.options.mss ?? null,
      windowScale: tcp.options.windowScale ?? null,
      sackPermitted: tcp.options.sackPermitted ?? null,
      sack: tcp.options.sack?.map(relative) ?? null,
      timestamps: tcp.options.timestamps ?? null,
      urgent: tcp.urgent,
      timeNs,
      packet,
    })
  }

  left(): string[] {
    return this.inbox.map(({ packet }) => `  ${format(packet)}`)
  }

  /** The peer's clock for timestamps, milliseconds. */
  get tsNow(): number {
    return u32(this.tsBase + Math.floor(this.net.nowMs))
  }

  /** The frame of a segment, with what is not given filled in. */
  frame(send: Send): Uint8Array {
    const given = send.payload ?? 0
    const seq = send.seq ?? this.sndNxt
    const payload = typeof given === 'number' ? pattern(seq, given) : typeof given === 'string' ? bytes(given) : given
    const span = payload.length + (send.flags.includes('S') ? 1 : 0) + (send.flags.includes('F') ? 1 : 0)
    if (send.seq === undefined) this.sndNxt += span
    let options: TcpOptions | Uint8Array = send.options ?? {}
    if (!(options instanceof Uint8Array)) {
      options = { ...options }
      const ts = send.ts === undefined ? (this.stamped ? [this.tsNow, this.tsRecent] : null) : send.ts
      if (ts && !options.timestamps) options.timestamps = ts as [number, number]
      if (send.sack) options.sack = send.sack.map(([l, r]) => [u32(this.irs + l), u32(this.irs + r)])
    }
    return tcpFrame({
      ...between(this.peer, this.card),
      sourcePort: this.peerPort,
      destinationPort: this.cardPort,
      flags: send.flags,
      sequence: u32(this.iss + seq),
      acknowledgment: send.flags.includes('A') ? u32(this.irs + (send.ack ?? this.rcvNxt)) : 0,
      window: send.window ?? this.window,
      options,
      payload,
      ...(send.urgent === undefined ? {} : { urgent: send.urgent }),
      ...(send.tcpChecksum === undefined ? {} : { tcpChecksum: send.tcpChecksum }),
    })
  }

  /** The peer sends a segment; the card takes it at once. */
  send(send: Send): void {
    this.net.inject(this.peer.port, this.frame(send))
  }

  /** The peer sends segments so close together that one poll of the card's takes them all. */
  sendAll(...sends: Send[]): void {
    for (const send of sends) this.net.queue(this.peer.port, this.frame(send))
    this.net.run()
  }

  /** The peer's SYN with the options it was made with. */
  sendSyn(flags = 'S', extra: Partial<Send> = {}): void {
    const { mss, windowScale, sack, timestamps } = this.options
    const options: TcpOptions = {}
    if (mss !== null) options.mss = mss ?? 1460
    if (windowScale !== undefined) options.windowScale = windowScale
    if (sack) options.sackPermitted = true
    if (timestamps) options.timestamps = [this.tsNow, flags.includes('A') ? this.tsRecent : 0]
    this.send({ flags, options, ...extra })
  }

  /** Takes the next segment that the card sent and checks it. Fails with all packets decoded. */
  expect(want: Expect): Seen {
    const { net } = this
    const start = net.card.nowNs
    if (want.after !== undefined && this.inbox.length === 0) {
      net.waitUntil(want.after + 2, () => this.inbox.length > 0)
    }
    const seen = this.inbox.shift()
    if (!seen) return net.fail(`${this.name}: nothing came; expected ${JSON.stringify(want)}`)
    const faults: string[] = []
    if (want.after !== undefined) {
      const elapsed = (seen.timeNs - start) / 1e6
      if (Math.abs(elapsed - want.after) > 1) faults.push(`after ${elapsed} ms, not ${want.after}`)
    }
    const { after: _, flags, payload, timestamps, ...plain } = want
    if (flags !== undefined) {
      const order = (text: string) => [...text].sort().join('')
      const actual = flags.includes('P') ? seen.flags : seen.flags.replace('P', '')
      if (order(actual) !== order(flags)) faults.push(`flags ${seen.flags}, not ${flags}`)
    }
    if (payload !== undefined) {
      const expected = typeof payload === 'string' ? bytes(payload) : payload
      if (Buffer.compare(seen.payload, expected) !== 0) faults.push(`payload of ${seen.length} bytes differs`)
    }
    if (timestamps === true ? !seen.timestamps : timestamps !== undefined && !same(seen.timestamps, timestamps)) {
      faults.push(`timestamps ${JSON.stringify(seen.timestamps)}, not ${JSON.stringify(timestamps)}`)
    }
    for (const [name, value] of Object.entries(plain)) {
      const actual = seen[name as keyof Seen]
      if (!same(actual, value)) faults.push(`${name} ${JSON.stringify(actual)}, not ${JSON.stringify(value)}`)
    }
    if (faults.length > 0) net.fail(`${this.name}: ${faults.join('; ')}\n  in ${format(seen.packet)}`)
    return seen
  }

  /** Fails if the card has sent anything, or does within `ms`. */
  expectNothing(ms = 0): void {
    if (ms > 0) this.net.wait(ms)
    else this.net.run()
    if (this.inbox.length > 0) this.net.fail(`${this.name}: expected nothing, but came\n${this.left().join('\n')}`)
  }

  /** Takes all that came so far. */
  drain(): Seen[] {
    this.net.run()
    return this.inbox.splice(0)
  }

  /** Takes the segments with payload that came so far and fails on others than bare ACKs; as [seq, length] pairs. */
  data(): [number, number][] {
    const pairs: [number, number][] = []
    for (const seen of this.drain()) {
      if (/[SFR]/.test(seen.flags)) this.net.fail(`${this.name}: not data: ${format(seen.packet)}`)
      if (seen.length > 0) pairs.push([seen.seq, seen.length])
    }
    return pairs
  }

  private get name(): string {
    return `peer port ${this.peerPort}`
  }

  // ── the host side ──

  takesRecord(record: EventRecord | ReceiveRecord): boolean {
    if (this.handle !== 0 && record.socket === this.handle && record.queue >> 2 === this.set) return true
    if (record.kind !== 'event') return false
    if (record.type === M.EVENT_ACCEPTED) {
      const same = record.remotePort === this.peerPort && record.localPort === this.cardPort
      return this.handle === 0 && same && record.remoteAddress === ipNumber(this.peer.ip)
    }
    const opening = record.type === M.EVENT_CONNECTED || record.type === M.EVENT_CONNECT_FAILED
    return opening && this.cookie !== 0 && record.cookie === this.cookie
  }

  onRecord(record: EventRecord | ReceiveRecord): void {
    if (record.kind === 'receive') {
      if (this.endSeen) this.net.fail('stream bytes after the end')
      if (record.payload.length > 0) this.received.push(record.payload)
      if (record.flags & M.RX_FLAG_END) this.endSeen = true
      return
    }
    this.events.push(record)
    if (record.type === M.EVENT_ACCEPTED || (record.type === M.EVENT_CONNECTED && record.status === 0)) {
      this.handle = record.socket
      this.set = record.queue >> 2
      this.sendCredit = record.value
      this.receiveCredit = record.value2
    }
    if (record.type === M.EVENT_CREDIT) this.sendCredit += record.value
  }

  /** Takes the first event of a type, or fails. */
  expectEvent(type: number, status?: number): EventRecord {
    this.net.run()
    const index = this.events.findIndex((event) => event.type === type)
    const event = this.events[index]
    if (!event) this.net.fail(`no event of type ${type}; there are ${this.events.map((e) => e.type).join(', ')}`)
    if (status !== undefined && event.status !== status) {
      this.net.fail(`event ${type} with status ${event.status}, not ${status}`)
    }
    this.events.splice(index, 1)
    return event
  }

  /** Fails if the host has heard of the connection, now or within `ms`: any event but returned credit, any byte. */
  expectQuietHost(ms = 0): void {
    if (ms > 0) this.net.wait(ms)
    const heard = this.events.filter(({ type }) => type !== M.EVENT_CREDIT).map(({ type }) => `event ${type}`)
    if (this.received.length > 0) heard.push(`${this.received.length} stream records`)
    if (heard.length > 0) this.net.fail(`the host has heard of it: ${heard.join(', ')}`)
  }

  /** Takes the stream bytes that the host has got. */
  read(): Uint8Array {
    this.net.run()
    return concat(...this.received.splice(0))
  }

  /** The bytes that the host has got must be these. */
  expectRead(expected: string | Uint8Array): void {
    const actual = this.read()
    const wanted = typeof expected === 'string' ? bytes(expected) : expected
    if (Buffer.compare(actual, wanted) !== 0) {
      this.net.fail(`the host read ${actual.length} bytes that are not the ${wanted.length} expected`)
    }
  }

  /** The host has been told of the end of the stream. */
  get ended(): boolean {
    return this.endSeen
  }

  expectEnd(): void {
    this.net.run()
    if (!this.endSeen) this.net.fail('the host was not told of the end of the stream')
  }

  /** The application writes. @param data text, bytes or a number of bytes of the pattern from `from` on */
  write(data: string | Uint8Array | number, options: { fin?: boolean; from?: number } = {}): void {
    const payload =
      typeof data === 'number' ? pattern(options.from ?? 1, data) : typeof data === 'string' ? bytes(data) : data
    const flags = options.fin ? M.DATA_FLAG_FIN : 0
    this.net.stream({ op: M.OP_DATA, flags, socket: this.handle, payload }, this.set)
  }

  /** The application ends its stream and goes on reading. */
  end(): void {
    this.write('', { fin: true })
  }

  /** The application lets go. */
  close(): void {
    this.net.stream({ op: M.OP_CLOSE, socket: this.handle }, this.set)
  }

  abort(): void {
    this.net.stream({ op: M.OP_ABORT, socket: this.handle }, this.set)
  }

  /** The application has consumed `count` bytes. */
  credit(count: number): void {
    this.net.stream({ op: M.OP_CREDIT, socket: this.handle, a: count }, this.set)
  }

  setOption(option: number, value: number): void {
    this.net.control({ op: M.OP_SET_OPTION, socket: this.handle, a: option, b: value }, this.set)
  }
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
