import type net from 'node:net'
import { DIRECTORY_STATE } from '../../abi/memory.ts'
import { CARD_RUNNING } from '../../abi/virtio.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { formatCrash } from '../../emulator/crash.ts'
import type { Copy, Inspector, Interposer, Passage } from '../../emulator/link/interposer.ts'
import { RandomSource, type RandomStream } from '../../emulator/random.ts'
import type { FarmFirmware } from '../testing/firmware.ts'
import { VirtualFarm } from '../testing/virtual-farm.ts'
import type { VirtualNode } from '../testing/virtual-node.ts'
import { drawPlan, spread } from './churn.ts'
import { Conversation, Ledger, PORT_SERVER_FIRST, serveConversations, type Violation } from './conversation.ts'
import { Leases } from './leases.ts'
import { Monitor } from './monitor.ts'
import { Recorder } from './recorder.ts'
import { CALM, type Conditions, Weather } from './weather.ts'

const HOUR_MS = 3600_000
/** Of `VirtualNode.cables`. */
const LAN = 0
const HUB = 1
const MEMORY_BYTES = 32 << 20
const CONNECTIONS = 512
const CLIENTS = 2
/** Between two connections, and between two disasters, on average. */
const ARRIVAL_MS = 2000
const DISASTER_MS = 20_000
/** Everything is looked at so often, once all has come to rest. */
const STRETCH_MS = 30 * 60_000
/**
 * By then whatever began has come to an end: keep-alive gives up after 10 s and nine intervals of 75 s, a sender after 5 minutes, rows
 * of the Forward table after two minutes.
 */
const PATIENCE_MS = 1_500_000
const REST_MS = 1_200_000
const LEASE_MS = 2000
const MSL_MS = 1000
/** A server is asked for less than this to take a connection. */
const OFFERED_MS = 200
/** Late copies: of TCP's own packets less than its MSL, of the hub's less than its maximum packet lifetime. */
const LAN_ECHO_MS = 900
const HUB_ECHO_MS = 55_000
const POOLS = ['tcbUsed', 'forwardUsed', 'migrationUsed', 'timeWaitUsed', 'hostCount', 'synReceived', 'chunkFreeCount']
/** Where a LAN does not carry: nobody answers ARP, or a server that is a client has no carrier. */
const NOT_REACHED = ['EHOSTUNREACH', 'ENETDOWN']
const SHOWN = 20
/** Disasters that a violation may come from. */
const BEFORE_MS = 120_000
const PROGRESS_MS = 60_000
const ROUND_ROBIN = 3
const LEAST_LOADED = 1
const LOCAL_FIRST = 2

export interface SoakOptions {
  readonly seed: string
  readonly hours: number
  readonly servers?: number
  readonly cpu?: CpuKind
  /** File for the frames of the last stretch, as pcapng. */
  readonly capture?: string
  /** Called now and then with the simulated time. */
  onProgress?(virtualMs: number): void
}

export interface SoakReport {
  readonly seed: string
  readonly servers: number
  readonly virtualMs: number
  readonly conversations: number
  /** How they ended: `complete`, or what the client saw. */
  readonly endings: Readonly<Record<string, number>>
  /** How many of them need not have come to a good end, for what had happened to their servers. */
  readonly excused: number
  readonly moved: number
  /** Live moves that failed, by the code that the application saw. */
  readonly stayed: Readonly<Record<string, number>>
  readonly disasters: Readonly<Record<string, number>>
  readonly framesStruck: number
  readonly violations: readonly Violation[]
  /** Disasters of the minutes before the first violation. */
  readonly before: readonly Violation[]
}

/**
 * Runs a farm in virtual time under connections of all kinds and all kinds of faults, drawn from the seed, and watches what must
 * never happen. Ends at the first look after a violation.
 */
export async function soak(firmware: FarmFirmware, options: SoakOptions): Promise<SoakReport> {
  const run = new Soak(firmware, options)
  try {
    return await run.go()
  } finally {
    await run.close()
  }
}

class Soak implements Inspector {
  readonly #options: SoakOptions
  readonly #farm: VirtualFarm
  readonly #weather: Weather
  readonly #recorder: Recorder | undefined
  readonly #monitor: Monitor
  readonly #leases: Leases
  readonly #ledger: Ledger
  readonly #churn: RandomStream
  readonly #fate: RandomStream
  readonly #endings: Record<string, number> = {}
  readonly #disasters: Record<string, number> = {}
  /** What happened in this stretch. */
  #log: Violation[] = []
  readonly #before = new Map<VirtualNode, Record<string, number>>()
  readonly #listeners = new Map<VirtualNode, net.Server[]>()
  /** What has begun and will end by itself: to be undone before all is looked at. */
  readonly #undo = new Set<() => void>()
  #conversations = 0
  #stormy = false
  #lanHiddenMs = 0
  /** Until when a server may not hear what another one says to it. */
  #hubDeafMs = 0
  /** Of those that have ended: how many were free to fail. */
  #excused = 0

  constructor(firmware: FarmFirmware, options: SoakOptions) {
    this.#options = options
    const { seed, servers = 3, cpu, capture } = options
    const source = new RandomSource(seed)
    this.#churn = source.stream('churn')
    this.#fate = source.stream('fate')
    const placement = [ROUND_ROBIN, LEAST_LOADED, LOCAL_FIRST][this.#fate.below(3)]!
    this.#weather = new Weather(source.stream('weather'))
    if (capture !== undefined) this.#recorder = new Recorder(capture)
    const queueFrames = 1024
    this.#farm = new VirtualFarm(firmware, {
      ...{ seed, servers, clients: CLIENTS, memoryBytes: MEMORY_BYTES, inspector: this },
      ...(cpu !== undefined && { cpu }),
      lan: { delayNs: Math.round(spread(this.#fate, 10_000, 5e6)), queueFrames },
      hub: { delayNs: Math.round(spread(this.#fate, 5000, 1e6)), queueFrames },
      firstSpeakers: new Map([[PORT_SERVER_FIRST, 'server']]),
      boot: { maximumConnections: CONNECTIONS, leaseMs: LEASE_MS, mslMs: MSL_MS, placement },
      clientBoot: { maximumConnections: CONNECTIONS, mslMs: MSL_MS },
    })
    const farm = this.#farm.farm
    this.#ledger = new Ledger(() => farm.now())
    const nowMs = () => this.#ledger.nowMs
    this.#monitor = new Monitor(this.#farm.servers, this.#farm.clients, nowMs, (what) => this.#violate(what))
    this.#ledger.onStay = ({ name }, code) => {
      if (code === 'ETIMEDOUT' && nowMs() > this.#hubDeafMs)
        this.#violate(`${name} had no answer to a move in fair weather`)
    }
    this.#leases = new Leases(this.#farm.servers, LEASE_MS, nowMs, (a, b) => this.#harm([a, b]))
    farm.on('crash', (_board, report) => this.#violate(formatCrash(report).join('\n')))
  }

  async go(): Promise<SoakReport> {
    const { seed, hours } = this.#options
    const { servers, clients } = this.#farm
    for (const server of servers) this.#serve(server)
    await this.#farm.settle()
    for (const node of [...servers, ...clients]) this.#before.set(node, pools(node))
    while (this.#ledger.nowMs < hours * HOUR_MS && this.#ledger.violations.length === 0) await this.#stretch()
    return {
      ...{ seed, servers: servers.length, virtualMs: this.#ledger.nowMs },
      ...{ conversations: this.#conversations, endings: this.#endings },
      excused: this.#excused,
      ...{ moved: this.#ledger.moved, stayed: this.#ledger.stayed },
      ...{ disasters: this.#disasters, framesStruck: this.#weather.struck },
      violations: this.#ledger.violations.slice(0, SHOWN),
      before: this.#beforeViolation(),
    }
  }

  #beforeViolation(): Violation[] {
    const [first] = this.#ledger.violations
    if (first === undefined) return []
    return this.#log.filter(({ ms }) => ms <= first.ms && ms > first.ms - BEFORE_MS)
  }

  async close(): Promise<void> {
    await this.#farm.close()
    this.#recorder?.close()
  }

  #serve(server: VirtualNode): void {
    this.#listeners.set(server, serveConversations(server, this.#ledger))
  }

  #violate(what: string): void {
    if (this.#ledger.violations.length < SHOWN) this.#ledger.violate(what)
  }

  inspect(interposer: Interposer, passage: Passage, frame: Uint8Array, nowNs: number): readonly Copy[] | null {
    const copies = this.#weather.inspect(interposer, passage, frame)
    const cable = this.#farm.farm.cables.get(interposer.name)!
    if (passage === 'out' && (copies?.length === 0 || cable.isCut)) return copies
    this.#recorder?.write(cable.name, passage, frame, nowNs)
    const server = this.#farm.servers.find(({ cables }) => cables[HUB] === cable)
    if (server !== undefined) this.#leases.pass(server, passage, frame)
    return copies
  }

  // ── time ──

  #later(ms: number, callback: () => void): void {
    this.#farm.client().board.hostClock.schedule(ms * 1e6, callback)
  }

  async #run(ms: number): Promise<void> {
    const end = this.#ledger.nowMs + ms
    while (this.#ledger.nowMs < end) {
      await this.#farm.run(Math.min(PROGRESS_MS, end - this.#ledger.nowMs))
      this.#options.onProgress?.(this.#ledger.nowMs)
    }
  }

  /** Half an hour of storms, then silence; nothing may be left. */
  async #stretch(): Promise<void> {
    this.#recorder?.restart()
    this.#log = []
    this.#stormy = true
    this.#arrive()
    this.#strike()
    await this.#run(STRETCH_MS)
    this.#stormy = false
    for (const undo of [...this.#undo]) undo()
    const { conversations } = this.#ledger
    const isOver = () => [...conversations.values()].every(({ status }) => status !== 'open')
    for (let ms = 0; ms < PATIENCE_MS && !isOver(); ms += 10_000) await this.#run(10_000)
    for (const conversation of conversations.values())
      if (conversation.status === 'open') this.#violate(`${conversation} hangs since ${conversation.startMs} ms`)
    await this.#run(REST_MS)
    this.#look()
    this.#ledger.forget()
    this.#monitor.forget()
  }

  #look(): void {
    for (const [node, before] of this.#before) {
      for (const [name, value] of Object.entries(pools(node)))
        if (value !== before[name]) this.#violate(`${node.name} has ${name} ${value} left, and had ${before[name]}`)
    }
    if (this.#ledger.serverEnds !== 0) this.#violate(`applications hold ${this.#ledger.serverEnds} connections`)
  }

  // ── connections ──

  /** The next connection, and those after it. */
  #arrive(): void {
    this.#later(exponential(this.#churn, ARRIVAL_MS), () => {
      if (!this.#stormy) return
      this.#begin()
      this.#arrive()
    })
  }

  #begin(): void {
    const random = this.#churn
    const { servers, clients } = this.#farm
    const plan = drawPlan(
      random,
      servers.map(({ name }) => name),
    )
    const entry = servers[random.below(servers.length)]!
    // A server may be the client of another one.
    const node = random.chance(0.05)
      ? servers[(servers.indexOf(entry) + 1) % servers.length]!
      : clients[random.below(clients.length)]!
    const localPort = random.chance(0.1) ? { localPort: 5000 + random.below(4) } : {}
    if (node.board.cardState !== CARD_RUNNING) return
    this.#conversations++
    const conversation = new Conversation(this.#ledger, node, plan, { to: entry.address, ...localPort })
    for (const server of [entry, node]) {
      conversation.involve(server)
      if (server.board.cardState !== CARD_RUNNING) conversation.mayFail = true
    }
    conversation.mayNotConnect = conversation.startMs < this.#lanHiddenMs
    conversation.onClose = () => this.#over(conversation)
  }

  #over(conversation: Conversation): void {
    const { status } = conversation
    this.#leases.look()
    this.#endings[status] = (this.#endings[status] ?? 0) + 1
    if (conversation.mayFail) this.#excused++
    if (status === 'complete' || conversation.mayFail) return
    if (status === 'EADDRINUSE' && conversation.choosesPort) return
    if (NOT_REACHED.includes(status) && !conversation.isConnected && conversation.mayNotConnect) return
    this.#violate(`${conversation} ended with ${status} in fair weather`)
  }

  // ── disasters ──

  #strike(): void {
    this.#later(exponential(this.#fate, DISASTER_MS), () => {
      if (!this.#stormy) return
      this.#disaster()
      this.#strike()
    })
  }

  #disaster(): void {
    const random = this.#fate
    const disasters: readonly [string, () => void][] = [
      ['rain', () => this.#rain()],
      ['rain', () => this.#rain()],
      ['rain', () => this.#rain()],
      ['hub cut', () => this.#cut(HUB)],
      ['hub silent', () => this.#silence('hub')],
      ['LAN cut', () => this.#cut(LAN)],
      ['LAN silent', () => this.#silence('lan')],
      ['hub out', () => this.#hubOut()],
      ['power', () => this.#power()],
      ['power', () => this.#power()],
      ['drain', () => this.#drain()],
      ['drain', () => this.#drain()],
    ]
    const [name, happens] = disasters[random.below(disasters.length)]!
    this.#disasters[name] = (this.#disasters[name] ?? 0) + 1
    happens()
  }

  /** For so long: `undo` ends it, sooner if all is to be looked at. */
  #for(ms: number, what: string, undo: () => void): void {
    this.#log.push({ ms: this.#ledger.nowMs, what: `${what} for ${Math.round(ms)} ms` })
    const once = () => {
      if (this.#undo.delete(once)) undo()
    }
    this.#undo.add(once)
    this.#later(ms, once)
  }

  /** Conversations that have to do with all of these servers may be lost. */
  #harm(servers: readonly VirtualNode[]): void {
    for (const conversation of this.#ledger.conversations.values())
      if (servers.every((server) => conversation.concerns(server))) conversation.mayFail = true
  }

  /** For so long a client's ARP may stay without an answer, which ends what it opens, and nothing else. */
  #hideLan(ms: number): void {
    this.#lanHiddenMs = Math.max(this.#lanHiddenMs, this.#ledger.nowMs + ms)
    for (const conversation of this.#ledger.conversations.values())
      if (!conversation.isConnected) conversation.mayNotConnect = true
  }

  /** For so long, and as long as a connection packet is repeated, a move may find nobody. */
  #deafen(ms: number): void {
    this.#hubDeafMs = Math.max(this.#hubDeafMs, this.#ledger.nowMs + ms + OFFERED_MS)
  }

  #server(): VirtualNode {
    return this.#farm.servers[this.#fate.below(this.#farm.servers.length)]!
  }

  #rain(): void {
    const random = this.#fate
    const ms = spread(random, 1000, 40_000)
    const heavy = random.chance(0.2)
    const draw = (echoMs: number): Conditions => {
      const chance = () => (random.chance(0.4) ? spread(random, 0.001, heavy ? 0.3 : 0.04) : 0)
      return {
        ...{ loss: chance(), duplication: chance(), echo: chance(), echoMs, corruption: chance() },
        ...{ delay: chance(), delayMs: spread(random, 0.1, 500), swap: chance() },
      }
    }
    const where = random.below(3)
    if (where !== 0) {
      this.#weather.lan = draw(LAN_ECHO_MS)
      this.#hideLan(ms)
    }
    if (where !== 1) {
      this.#weather.hub = draw(HUB_ECHO_MS)
      this.#deafen(ms)
    }
    const places = ['hub', 'LAN', 'LAN and hub']
    this.#for(ms, `${heavy ? 'heavy ' : ''}rain on ${places[where]}`, () => {
      this.#weather.lan = CALM
      this.#weather.hub = CALM
    })
  }

  /** A server's cable is pulled: both ends notice. */
  #cut(which: number): void {
    const ms = spread(this.#fate, 10, 10_000)
    const cable = this.#server().cables[which]!
    if (which === LAN) this.#hideLan(ms)
    else this.#deafen(ms)
    cable.cut()
    this.#for(ms, `${cable.name} cut`, () => cable.mend())
  }

  /** A server's cable carries nothing, and nobody notices. */
  #silence(network: string): void {
    const ms = spread(this.#fate, 10, 10_000)
    const cable = `${this.#server().name}.${network}`
    if (network === 'lan') this.#hideLan(ms)
    else this.#deafen(ms)
    this.#weather.silence(cable, true)
    this.#for(ms, `${cable} silent`, () => this.#weather.silence(cable, false))
  }

  #hubOut(): void {
    const ms = spread(this.#fate, 10, 20_000)
    const cables = this.#farm.servers.map(({ name }) => `${name}.hub`)
    this.#deafen(ms)
    for (const cable of cables) this.#weather.silence(cable, true)
    this.#for(ms, 'all of the hub silent', () => {
      for (const cable of cables) this.#weather.silence(cable, false)
    })
  }

  #power(): void {
    const server = this.#server()
    if (server.board.cardState !== CARD_RUNNING) return
    const ms = this.#fate.chance(0.2) ? 0 : spread(this.#fate, 1, 20_000)
    this.#harm([server])
    this.#leases.ended(server)
    // Until it is believed that it has begun anew, it is told what is for its former life.
    this.#deafen(ms + 2 * LEASE_MS)
    server.board.powerOff()
    this.#for(ms, `${server.name} off`, () => {
      this.#farm.powerOnServer(server)
      this.#monitor.restarted(server)
      this.#serve(server)
    })
  }

  /** A server gets rid of its connections, and takes them again. */
  #drain(): void {
    const server = this.#server()
    if (server.board.cardState !== CARD_RUNNING) return
    const ms = spread(this.#fate, 100, 20_000)
    this.#log.push({ ms: this.#ledger.nowMs, what: `${server.name} drained, ${Math.round(ms)} ms` })
    for (const listener of this.#listeners.get(server)!) listener.drain({ timeoutMs: ms }).catch(() => {})
  }
}

function exponential(random: RandomStream, mean: number): number {
  return -mean * Math.log(1 - random.below(1e6) / 1e6)
}

/** What is in use of a card's pools. */
function pools(node: VirtualNode): Record<string, number> {
  const [state] = node.rows(DIRECTORY_STATE)
  return Object.fromEntries(POOLS.map((name) => [name, state!.number(name)]))
}
