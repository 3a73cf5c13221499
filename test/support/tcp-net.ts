/** A card, its host and its network for TCP scripts (tcp-script.ts): frames and records go to the connection that they belong to. */
import test from 'ava'
import * as M from '../../abi/messages.ts'
import { QUEUE_CONTROL, QUEUE_TX, QUEUES_PER_SET } from '../../abi/rings.ts'
import {
  type BareCard,
  type Captured,
  type CardSettings,
  type CommandFields,
  command,
  type EventRecord,
  type ReceiveRecord,
} from './bare-card.ts'
import { CARD, CARD_B, GATEWAY, GATEWAY_B, PEER, PEER_B, type Station, settledCard } from './lan.ts'
import { arpFrame, formatAll, ipNumber, type Packet, parse } from './packets.ts'

/** What a script's connection is to the network: it takes the frames and records that are its own. */
export interface Endpoint {
  takesFrame(packet: Packet): boolean
  onFrame(packet: Packet, timeNs: number): void
  takesRecord(record: EventRecord | ReceiveRecord): boolean
  onRecord(record: EventRecord | ReceiveRecord): void
  /** What came and nobody expected, as lines; empty at the end of a script. */
  left(): string[]
}

/** Settings under which a card is small and quick to boot; a script says what it wants otherwise. */
const SMALL: CardSettings = { memoryBytes: 0x1000000, maximumConnections: 256 }
/** Everything that ends by itself has ended after this time: user timeout, 2 MSL, FIN-WAIT-2 and unattached timeouts. */
const ALL_OVER_MS = 600_000
const LOG_LINES = 60

export interface ListenOptions {
  port?: number
  address?: string
  firstSpeaker?: number
  placeAfterMs?: number
  options?: number
  set?: number
}

export class TcpNet {
  readonly card: BareCard
  readonly endpoints: Endpoint[] = []
  /** Records that no endpoint claims. */
  events: EventRecord[] = []
  /** Frames that are neither ARP nor of an endpoint. */
  strays: { packet: Packet; captured: Captured }[] = []
  /** True: frames that nobody expected are no fault at the end. */
  lenient = false
  /** Stations whose ARP requests are answered. */
  readonly neighbors: Station[] = [PEER, PEER_B, GATEWAY, GATEWAY_B]
  private readonly log: Captured[] = []
  private readonly sequences = new Map<number, number>()
  private readonly baseline: number
  private readonly startNs: number
  private nextCookie = 1
  private readonly sets: number[]

  constructor(settings: CardSettings = {}) {
    this.card = settledCard({ ...SMALL, ...settings })
    this.sets = settings.sets ?? [0]
    this.card.run()
    this.card.records()
    this.baseline = this.card.state('chunkFreeCount')
    this.startNs = this.card.nowNs
  }

  /** Milliseconds since the script began. */
  get nowMs(): number {
    return (this.card.nowNs - this.startNs) / 1e6
  }

  // ── time and frames ──

  /** Puts a frame on the card's port and lets the card work. */
  inject(port: number, frame: Uint8Array): void {
    this.note({ port: port + 100, timeNs: this.card.nowNs, frame })
    this.card.receive(port, frame)
    this.run()
  }

  /** As `inject`, but the card does not look before the next `run`. */
  queue(port: number, frame: Uint8Array): void {
    this.note({ port: port + 100, timeNs: this.card.nowNs, frame })
    this.card.receive(port, frame)
  }

  /** Lets the card do what it has to do at this instant. */
  run(): void {
    for (let again = true; again; ) {
      again = false
      for (const captured of this.card.run()) again = this.take(captured) || again
      this.takeRecords()
    }
  }

  /** Lets time pass. */
  wait(ms: number): void {
    const end = this.card.nowNs + Math.round(ms * 1e6)
    this.run()
    while (this.card.wakeNs <= end) this.step()
    this.card.nowNs = end
  }

  /** Lets time pass until `done`; false if it does not come true within `ms`. */
  waitUntil(ms: number, done: () => boolean): boolean {
    const end = this.card.nowNs + Math.round(ms * 1e6)
    this.run()
    while (!done()) {
      if (this.card.wakeNs > end) {
        this.card.nowNs = end
        return false
      }
      this.step()
    }
    return true
  }

  private step(): void {
    this.card.nowNs = Math.max(this.card.wakeNs, this.card.nowNs)
    this.run()
  }

  /** True if it was answered, so that the card has something to do. */
  private take(captured: Captured): boolean {
    const packet = parse(captured.frame)
    if (packet.arp) return this.answerArp(captured.port, packet)
    this.note(captured)
    if (packet.problems.length > 0) this.fail(`the card sent a bad packet: ${packet.problems.join(', ')}`)
    const endpoint = this.endpoints.find((candidate) => candidate.takesFrame(packet))
    if (endpoint) endpoint.onFrame(packet, captured.timeNs)
    else this.strays.push({ packet, captured })
    return false
  }

  private answerArp(port: number, packet: Packet): boolean {
    const arp = packet.arp!
    const station = this.neighbors.find(({ ip, port: at }) => ip === arp.target && at === port)
    if (arp.operation !== 'request' || !station) return false
    const from = { operation: 'reply', senderMac: station.mac, sender: station.ip } as const
    this.card.receive(port, arpFrame({ ...from, targetMac: arp.senderMac, target: arp.sender }))
    return true
  }

  private note(captured: Captured): void {
    this.log.push(captured)
    if (this.log.length > 4 * LOG_LINES) this.log.splice(0, this.log.length - LOG_LINES)
  }

  /** Throws with the last packets of both directions, decoded. */
  fail(message: string): never {
    const lines = this.log.slice(-LOG_LINES).map(({ port, timeNs, frame }) => {
      const arrow = port >= 100 ? '→ card' : '← card'
      return `  ${((timeNs - this.startNs) / 1e6).toFixed(3).padStart(10)} ms ${arrow} ${formatAll([{ frame }]).trim()}`
    })
    throw new Error(`${message}\nat ${this.nowMs} ms; packets:\n${lines.join('\n') || '  (none)'}`)
  }

  // ── host ──

  private takeRecords(): void {
    for (const record of this.card.records()) {
      const set = record.queue >> 2
      const due = this.sequences.get(set) ?? 0
      if (record.sequence !== due) this.fail(`record ${record.sequence} of set ${set} came where ${due} was due`)
      this.sequences.set(set, due + 1)
      const endpoint = this.endpoints.find((candidate) => candidate.takesRecord(record))
      if (endpoint) endpoint.onRecord(record)
      else if (record.kind === 'event') this.events.push(record)
      else if (!this.lenient) this.fail(`stream bytes for an unknown handle 0x${record.socket.toString(16)}`)
    }
  }

  cookie(): number {
    return this.nextCookie++
  }

  control(fields: CommandFields, set = 0): void {
    this.card.command(set * QUEUES_PER_SET + QUEUE_CONTROL, command(fields))
    this.run()
  }

  stream(fields: CommandFields, set = 0): void {
    this.card.command(set * QUEUES_PER_SET + QUEUE_TX, command(fields))
    this.run()
  }

  /** Listens and returns the listener's cookie. Fails unless the card says OK. */
  listen(options: ListenOptions = {}): number {
    const cookie = this.cookie()
    const fields = [options.firstSpeaker ?? M.FIRST_SPEAKER_CLIENT, options.placeAfterMs ?? 0, 1, options.options ?? 0]
    const a = options.address ? ipNumber(options.address) : 0
    this.control({ op: M.OP_LISTEN, socket: cookie, a, b: (options.port ?? 80) | (128 << 16), fields }, options.set)
    const answer = this.event(M.EVENT_LISTENING)
    if (answer?.cookie !== cookie || answer.status !== 0) this.fail(`listen failed: ${JSON.stringify(answer)}`)
    return cookie
  }

  /** Takes the first event of a type that no connection claimed. */
  event(type: number): EventRecord | undefined {
    const index = this.events.findIndex((event) => event.type === type)
    return index < 0 ? undefined : this.events.splice(index, 1)[0]
  }

  /** Ends a process: its queues are disabled. */
  killProcess(set = 0): void {
    this.card.disableSet(set)
    this.sequences.delete(set)
    this.run()
  }

  // ── what must hold at the end ──

  /** Fails unless every TCB, TIME-WAIT record and chunk is back in its pool. */
  expectClean(): void {
    const wrong: string[] = []
    for (const field of ['tcbUsed', 'timeWaitUsed', 'synReceived', 'outputHead', 'hostHead', 'neighborWaiters']) {
      if (this.card.state(field) !== 0) wrong.push(`${field} is ${this.card.state(field)}, not 0`)
    }
    const free = this.card.state('chunkFreeCount')
    if (free !== this.baseline) wrong.push(`${free} chunks are free, not ${this.baseline}`)
    if (wrong.length > 0) this.fail(`not all came back: ${wrong.join('; ')}`)
  }

  /** The end of every script: nothing unexpected was sent, and nothing is left once the processes are gone and time has passed. */
  finish(): void {
    const left = this.endpoints.flatMap((endpoint) => endpoint.left())
    left.push(...this.strays.map(({ captured }) => formatAll([captured])))
    if (left.length > 0 && !this.lenient) this.fail(`the card sent what the script did not expect:\n${left.join('\n')}`)
    if (this.card.dmaDropped > 0) this.fail(`${this.card.dmaDropped} records found no host buffer`)
    for (const set of this.sets) this.card.disableSet(set)
    this.wait(ALL_OVER_MS)
    this.expectClean()
  }
}

/** One named case; `settings` are the card's. The end is checked by `TcpNet.finish`. */
export function tcpTest(title: string, script: (net: TcpNet) => void, settings: CardSettings = {}): void {
  test(title, (t) => {
    const net = new TcpNet(settings)
    script(net)
    net.finish()
    t.pass()
  })
}

/** The card's station on a port. */
export function cardStation(port: number): Station {
  return port === CARD_B.port ? CARD_B : CARD
}
