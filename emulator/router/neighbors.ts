import type { Alarm, LinkHost } from '../link/link.ts'
import { FrameQueue } from './frames.ts'

/** How long an answer is trusted, nanoseconds (RFC 1122 §2.3.2.1 suggests a minute). */
const REACHABLE_NS = 60e9
/** An address not confirmed for so long is asked for by broadcast, as if it had never been known. */
const FORGET_NS = 600e9
/** Between two requests for one address (RFC 1122 §2.3.2.1: at most one a second). */
const RETRY_NS = 1e9
const TRIES = 3
/** Entries; the one not used for longest makes room. */
const MAXIMUM_NEIGHBORS = 1024
/** Entries without an answer: a sweep over addresses pushes out its own. */
const MAXIMUM_UNANSWERED = 128

/**
 * A station on a port's link.
 *
 *     ──lookup──▶ incomplete ──answer──▶ reachable ──lookup after 60 s──▶ probe ──3 requests unanswered──▶ incomplete
 *                     │                      ▲                              │
 *                     └─ 3 unanswered: gone  └────────────answer────────────┘
 */
export class Neighbor {
  readonly port: number
  /** As a signed 32-bit number. */
  readonly address: number
  state: 'incomplete' | 'reachable' | 'probe' = 'incomplete'
  /** The MAC address: first two bytes, last four. */
  macHigh = 0
  macLow = 0
  confirmedNs = 0
  usedNs: number
  /** Requests since the last answer, and when the next is due. */
  tries = 0
  dueNs = Number.POSITIVE_INFINITY
  /** Frames that wait for the answer. */
  readonly waiting = new FrameQueue()

  constructor(port: number, address: number, nowNs: number) {
    this.port = port
    this.address = address
    this.usedNs = nowNs
  }
}

/** What the table has others do. */
export interface NeighborEvents {
  /** Send an ARP request: by unicast to an old address, otherwise by broadcast. */
  ask(neighbor: Neighbor, unicast: boolean, nowNs: number): void
  /** What waits can go. */
  resolved(neighbor: Neighbor, nowNs: number): void
  /** What waits cannot be delivered. */
  failed(neighbor: Neighbor, nowNs: number): void
}

/** ARP cache of a router (RFC 826, RFC 1122 §2.3.2, RFC 1812 §3.3.2). Entries age when they are looked up: an idle router sets no alarm. */
export class NeighborTable implements Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = false

  readonly #host: LinkHost
  readonly #events: NeighborEvents
  readonly #ports: readonly Map<number, Neighbor>[]
  /** Entries that have been asked for and have not answered, in the order in which their next request is due. */
  readonly #unanswered = new Set<Neighbor>()
  #count = 0

  constructor(host: LinkHost, ports: number, events: NeighborEvents) {
    this.#host = host
    this.#events = events
    this.#ports = Array.from({ length: ports }, () => new Map())
  }

  /** The entry for an address, made and asked for if need be. Its MAC address is good unless it is `incomplete`. */
  lookup(port: number, address: number, nowNs: number): Neighbor {
    const neighbor = this.#ports[port].get(address)
    if (neighbor === undefined) {
      const fresh = this.#add(port, address, nowNs)
      this.#ask(fresh, nowNs)
      return fresh
    }
    neighbor.usedNs = nowNs
    if (neighbor.state === 'reachable') {
      const ageNs = nowNs - neighbor.confirmedNs
      if (ageNs >= REACHABLE_NS) {
        neighbor.state = ageNs >= FORGET_NS ? 'incomplete' : 'probe'
        neighbor.tries = 0
        this.#ask(neighbor, nowNs)
      }
    }
    return neighbor
  }

  /**
   * A station said who it is. What is known is brought up to date (RFC 826); what is not is learned from those that `speakToUs`: an
   * answer that nobody asked for teaches nothing.
   */
  heard(port: number, address: number, macHigh: number, macLow: number, speaksToUs: boolean, nowNs: number): void {
    const neighbor = this.#ports[port].get(address) ?? (speaksToUs ? this.#add(port, address, nowNs) : undefined)
    if (neighbor === undefined) return
    neighbor.macHigh = macHigh
    neighbor.macLow = macLow
    neighbor.confirmedNs = nowNs
    neighbor.state = 'reachable'
    if (this.#unanswered.delete(neighbor)) this.#arm()
    if (neighbor.waiting.count > 0) this.#events.resolved(neighbor, nowNs)
  }

  /** The port's link went down: who was there may be gone. */
  forget(port: number, nowNs: number): void {
    for (const neighbor of [...this.#ports[port].values()]) this.#drop(neighbor, nowNs)
  }

  /** Every entry, by port and in the order in which they were made. */
  *[Symbol.iterator](): Generator<Neighbor> {
    for (const port of this.#ports) yield* port.values()
  }

  fire(nowNs: number): void {
    for (const neighbor of this.#unanswered) {
      if (neighbor.dueNs > nowNs) break
      if (neighbor.tries < TRIES) this.#ask(neighbor, nowNs)
      else if (neighbor.state === 'probe' && nowNs - neighbor.usedNs < TRIES * RETRY_NS) {
        // Its owner may have a new MAC address; who still sends to it waits for the answer.
        neighbor.state = 'incomplete'
        neighbor.tries = 0
        this.#ask(neighbor, nowNs)
      } else this.#drop(neighbor, nowNs)
    }
    this.#arm()
  }

  #ask(neighbor: Neighbor, nowNs: number): void {
    neighbor.tries++
    neighbor.dueNs = nowNs + RETRY_NS
    // To the end: all wait equally long, so the set stays in order.
    this.#unanswered.delete(neighbor)
    this.#unanswered.add(neighbor)
    this.#arm()
    this.#events.ask(neighbor, neighbor.state === 'probe', nowNs)
  }

  #arm(): void {
    const [first] = this.#unanswered
    if (first === undefined) this.#host.clearAlarm(this)
    else if (this.slot < 0 || this.dueNs !== first.dueNs) this.#host.setAlarm(this, first.dueNs)
  }

  #add(port: number, address: number, nowNs: number): Neighbor {
    if (this.#unanswered.size >= MAXIMUM_UNANSWERED) {
      const [oldest] = this.#unanswered
      this.#drop(oldest, nowNs)
    }
    if (this.#count >= MAXIMUM_NEIGHBORS) {
      let idlest: Neighbor | undefined
      for (const neighbor of this) if (idlest === undefined || neighbor.usedNs < idlest.usedNs) idlest = neighbor
      this.#drop(idlest!, nowNs)
    }
    const neighbor = new Neighbor(port, address, nowNs)
    this.#ports[port].set(address, neighbor)
    this.#count++
    return neighbor
  }

  #drop(neighbor: Neighbor, nowNs: number): void {
    this.#ports[neighbor.port].delete(neighbor.address)
    this.#unanswered.delete(neighbor)
    this.#count--
    this.#events.failed(neighbor, nowNs)
  }
}
