/**
 * One run of a scenario with faults at named places: frame k, counted from the first that any board sends once the scenario has begun, or
 * slice k of a server. Runs are deterministic, so frame k of a run with a fault at k is frame k of the run without.
 */

import { DIRECTORY_STATE } from '../../abi/memory.ts'
import { CARD_RUNNING } from '../../abi/virtio.ts'
import { formatCrash } from '../../emulator/crash.ts'
import type { Copy, Inspector, Interposer, Passage } from '../../emulator/link/interposer.ts'
import {
  Conversation,
  type ConversationOptions,
  Ledger,
  type Plan,
  PORT_SERVER_FIRST,
  serveConversations,
} from '../../toolchain/soak/conversation.ts'
import { Monitor } from '../../toolchain/soak/monitor.ts'
import { describeFrame } from './describe-frame.ts'
import { FarmKit, type FarmKitOptions, type Node } from './farm-kit.ts'

// ── faults ──

export type Fault =
  | { readonly kind: 'drop' | 'twice' | 'swap' | 'corrupt'; readonly at: number }
  /** The frame comes once more, or only, so much later. */
  | { readonly kind: 'again' | 'delay'; readonly at: number; readonly ms: number }
  /** Every frame of the hub from this one on, the answers included, comes once more so much later. */
  | { readonly kind: 'replay'; readonly at: number; readonly ms: number }
  /** From this frame on the hub carries nothing; `ms` absent: for ever. */
  | { readonly kind: 'cut'; readonly at: number; readonly ms?: number }
  /** The server is switched off after this slice of its own; `ms`: and on again. */
  | { readonly kind: 'off'; readonly server: number; readonly at: number; readonly ms?: number }

/** As in the replay command: `drop/17`, `delay300/17`, `cut/17`, `off2/33`, `off2-on1000/33`. */
export function faultName(fault: Fault): string {
  const { kind, at } = fault
  if (kind === 'off') return `off${fault.server}${fault.ms === undefined ? '' : `-on${fault.ms}`}/${at}`
  const ms = 'ms' in fault && fault.ms !== undefined ? fault.ms : ''
  return `${kind}${ms}/${at}`
}

/** The opposite of `faultName`. Throws for what is no fault. */
export function parseFault(text: string): Fault {
  const off = /^off(\d+)(?:-on(\d+))?\/(\d+)$/.exec(text)
  if (off) {
    const ms = off[2] === undefined ? {} : { ms: Number(off[2]) }
    return { kind: 'off', server: Number(off[1]), at: Number(off[3]), ...ms }
  }
  const other = /^(drop|twice|swap|corrupt|again|delay|replay|cut)(\d+)?\/(\d+)$/.exec(text)
  if (!other) throw new Error(`no fault: ${text}`)
  const ms = other[2] === undefined ? {} : { ms: Number(other[2]) }
  return { kind: other[1], at: Number(other[3]), ...ms } as Fault
}

/** True if every conversation must come to its end all the same. */
export function areHarmless(faults: readonly Fault[]): boolean {
  // Two cuts may last as long as a lease between them.
  if (faults.filter(({ kind }) => kind === 'cut').length > 1) return false
  return faults.every(({ kind, ...fault }) => {
    if (kind === 'off') return false
    return kind !== 'cut' || ('ms' in fault && fault.ms !== undefined && fault.ms < LEASE_MS / 2)
  })
}

// ── scenarios ──

export interface ScenarioPlan extends Plan {
  readonly localPort?: number
  /** It begins when that one is over. */
  readonly after?: number
}

export interface Scenario {
  readonly name: string
  readonly options?: FarmKitOptions
  /** Connections before: server n + 1 has the next turn. Default 1. */
  readonly turns?: number
  readonly plans: readonly ScenarioPlan[]
  /** How it goes without faults: live moves, and where each connection is served at first. */
  readonly goes: { readonly moved: number; readonly servedOn: readonly string[] }
}

export interface Outcome {
  readonly violations: readonly string[]
  /** Of each conversation. */
  readonly statuses: readonly string[]
  /** What was sent while the scenario lasted. */
  readonly frames: readonly string[]
  /** Of each server in that time. */
  readonly slices: readonly number[]
  readonly moved: number
  readonly servedOn: readonly (string | undefined)[]
  readonly virtualMs: number
}

const LEASE_MS = 2000
const MEMORY_BYTES = 16 << 20
const RAM_BYTES = 2 << 20
/** A conversation is over by then whatever happens: keep-alive gives up after 10 s and nine intervals of 75 s. */
const DEADLINE_MS = 800_000
/** A port that was used a moment ago is asked for again. */
const PORT_RETRY_MS = 20
/** The last frames: release, TIME-WAIT. */
const AFTERMATH_MS = 500
/** By then the leases, the repetitions and two looks at each resting row are over. */
const QUIET_MS = 200_000
const POOLS = ['tcbUsed', 'forwardUsed', 'migrationUsed', 'timeWaitUsed', 'hostCount', 'synReceived']
const ROUND_ROBIN = 3
const SMALL_TALK = { rounds: [{ upload: 0, download: 100 }], ends: 'client' } as const

/** Runs a scenario with these faults in it. */
export async function runCase(scenario: Scenario, faults: readonly Fault[]): Promise<Outcome> {
  const run = new Run(scenario, faults)
  try {
    return await run.go()
  } finally {
    await run.close()
  }
}

class Run implements Inspector {
  readonly #scenario: Scenario
  readonly #faults: readonly Fault[]
  readonly #kit: FarmKit
  readonly #ledger: Ledger
  readonly #monitor: Monitor
  readonly #frames: string[] = []
  #armed = false
  /** By their plans. */
  readonly #own: Conversation[] = []
  /** Cuts of the hub that last. */
  #cuts = 0
  #slicesBefore: number[] = []
  #pending: Extract<Fault, { kind: 'off' }>[] = []

  constructor(scenario: Scenario, faults: readonly Fault[]) {
    this.#scenario = scenario
    this.#faults = faults
    const { boot, clientBoot, ...options } = scenario.options ?? {}
    const small = { maximumConnections: 64, leaseMs: LEASE_MS, stateIntervalMs: 250 }
    this.#kit = new FarmKit({
      servers: 2,
      memoryBytes: MEMORY_BYTES,
      ramBytes: RAM_BYTES,
      firstSpeakers: new Map([[PORT_SERVER_FIRST, 'server']]),
      inspector: this,
      ...options,
      boot: { ...small, placement: ROUND_ROBIN, forwardEntries: 256, ...boot },
      clientBoot: { ...small, ...clientBoot },
    })
    this.#ledger = new Ledger(() => this.#kit.farm.now())
    const nowMs = () => this.#ledger.nowMs
    this.#monitor = new Monitor(this.#kit.servers, this.#kit.clients, nowMs, (what) => this.#ledger.violate(what))
    this.#kit.farm.on('crash', (_board, report) => this.#ledger.violate(formatCrash(report).join('\n')))
  }

  async go(): Promise<Outcome> {
    const kit = this.#kit
    const ledger = this.#ledger
    for (const server of kit.servers) serveConversations(server, ledger)
    await kit.settle()
    for (let n = 0; n < (this.#scenario.turns ?? 1); n++) await this.#smallTalk([kit.server(1)])
    const before = pools(kit.server(1))
    this.#slicesBefore = kit.servers.map(({ board }) => board.slices)
    this.#pending = this.#faults.filter((fault) => fault.kind === 'off')
    this.#armed = true
    for (const [n, { after }] of this.#scenario.plans.entries()) if (after === undefined) this.#begin(n)
    const own = this.#own
    const isOver = ({ status }: Conversation) => status !== 'open' && status !== 'EADDRINUSE'
    await this.#within(DEADLINE_MS, () => own.length === this.#scenario.plans.length && own.every(isOver))
    await this.#runFor(AFTERMATH_MS)
    this.#armed = false
    this.#pending = []
    const slices = kit.servers.map(({ board }, n) => board.slices - this.#slicesBefore[n]!)
    const virtualMs = ledger.nowMs
    for (const conversation of own) {
      if (conversation.status === 'open') ledger.violate(`${conversation} hangs`)
      else if (conversation.status !== 'complete' && areHarmless(this.#faults))
        ledger.violate(`${conversation} ended with ${conversation.status}`)
    }
    const statuses = own.map(({ status }) => status)
    const servedOn = own.map(({ id }) => ledger.served(id, 0))
    await this.#afterwards(before)
    return {
      violations: ledger.violations.map(({ ms, what }) => `${ms.toFixed(3)} ms: ${what}`),
      statuses,
      frames: this.#frames,
      slices,
      moved: ledger.moved,
      servedOn,
      virtualMs,
    }
  }

  async close(): Promise<void> {
    await this.#kit.close()
  }

  /** Connections that must succeed, one to each of `servers`, all at once. */
  async #smallTalk(servers: readonly Node[]): Promise<void> {
    const { port } = this.#scenario.plans[0]!
    const talks = servers.map(({ address }) => this.#converse({ ...SMALL_TALK, port }, { to: address }))
    await this.#within(DEADLINE_MS, () => talks.every(({ status }) => status !== 'open'))
    for (const talk of talks)
      if (talk.status !== 'complete') this.#ledger.violate(`${talk} without faults ended with ${talk.status}`)
    await this.#runFor(AFTERMATH_MS)
  }

  /** Conversation n of the scenario. */
  #begin(n: number): void {
    const { plans } = this.#scenario
    const { localPort, after: _, ...plan } = plans[n]!
    const options = { to: this.#kit.server(1).address, ...(localPort !== undefined && { localPort }) }
    const conversation = this.#converse(plan, options)
    this.#own[n] = conversation
    conversation.onClose = () => {
      if (conversation.status === 'EADDRINUSE') this.#later(PORT_RETRY_MS, () => this.#begin(n))
      else for (const [next, { after }] of plans.entries()) if (after === n) this.#begin(next)
    }
  }

  #later(ms: number, callback: () => void): void {
    this.#kit.client().board.hostClock.schedule(ms * 1e6, callback)
  }

  #converse(plan: Plan, options: ConversationOptions): Conversation {
    return new Conversation(this.#ledger, this.#kit.client(), plan, options)
  }

  /** Nothing is left, and everything works. */
  async #afterwards(before: Record<string, number>): Promise<void> {
    const ledger = this.#ledger
    const alive = this.#kit.servers.filter(({ board }) => board.serving)
    await this.#runFor(QUIET_MS)
    if (this.#faults.some(({ kind }) => kind === 'cut' || kind === 'off')) {
      await this.#smallTalk([...alive, ...alive])
      await this.#runFor(QUIET_MS)
    }
    for (const node of alive) {
      const after = pools(node)
      for (const [name, value] of Object.entries(after))
        if (value !== before[name]) ledger.violate(`${node.name} has ${name} ${value} left, and had ${before[name]}`)
    }
    if (ledger.serverEnds !== 0) ledger.violate(`applications hold ${ledger.serverEnds} connections`)
  }

  async #runFor(ms: number): Promise<void> {
    await this.#within(ms, () => false)
  }

  /** Until it is over, and so long at most. */
  async #within(ms: number, isOver: () => boolean): Promise<void> {
    const { farm } = this.#kit
    const endNs = farm.now() + ms * 1e6
    // The clock stops there, whatever else happens.
    this.#later(ms, () => {})
    await farm.run(() => {
      this.#switchOff()
      return isOver() || farm.now() >= endNs
    })
  }

  /** Between two events: whose slice has come. */
  #switchOff(): void {
    for (const fault of this.#pending) {
      const server = this.#kit.server(fault.server)
      const { board } = server
      if (board.busy || board.slices - this.#slicesBefore[fault.server - 1]! < fault.at) continue
      this.#pending = this.#pending.filter((other) => other !== fault)
      board.powerOff()
      if (fault.ms !== undefined)
        this.#later(fault.ms, () => {
          if (board.cardState === CARD_RUNNING) return
          this.#kit.powerOnServer(server)
          this.#monitor.restarted(server)
          serveConversations(server, this.#ledger)
        })
    }
  }

  // ── frames ──

  inspect(interposer: Interposer, passage: Passage, frame: Uint8Array): readonly Copy[] | null {
    const isHub = interposer.name.endsWith('.hub')
    if (passage === 'in' && this.#armed) {
      const at = this.#frames.push(`${isHub ? 'hub' : 'lan'} ${describeFrame(frame)}`) - 1
      const copies = this.#faultsAt(at, isHub, frame)
      if (copies !== null) return copies
    }
    return isHub && this.#cuts > 0 ? [] : null
  }

  #faultsAt(at: number, isHub: boolean, frame: Uint8Array): readonly Copy[] | null {
    for (const fault of this.#faults) {
      if (fault.kind === 'replay' && isHub && at >= fault.at) return [{}, { delayNs: fault.ms * 1e6 }]
      if (fault.kind === 'off' || fault.kind === 'replay' || fault.at !== at) continue
      if (fault.kind === 'cut') this.#cutHub(fault.ms)
      else return copiesOf(fault, frame)
    }
    return null
  }

  #cutHub(ms: number | undefined): void {
    this.#cuts++
    if (ms !== undefined)
      this.#later(ms, () => {
        this.#cuts--
      })
  }
}

function copiesOf(fault: Exclude<Fault, { kind: 'off' | 'cut' | 'replay' }>, frame: Uint8Array): readonly Copy[] {
  switch (fault.kind) {
    case 'drop':
      return []
    case 'twice':
      return [{}, {}]
    case 'swap':
      return [{ afterNext: true, delayNs: 1e9 }]
    case 'corrupt':
      return [{ flip: HEADER_BITS + ((fault.at * 7919) % (frame.length * 8 - HEADER_BITS)) }]
    case 'again':
      return [{}, { delayNs: fault.ms * 1e6 }]
    case 'delay':
      return [{ delayNs: fault.ms * 1e6 }]
  }
}

/** What comes before is covered by no checksum but the wire's own. */
const HEADER_BITS = 14 * 8

/** What is in use of a card's pools. */
function pools(node: Node): Record<string, number> {
  const [state] = node.rows(DIRECTORY_STATE)
  return Object.fromEntries([...POOLS, 'chunkFreeCount'].map((name) => [name, state!.number(name)]))
}
