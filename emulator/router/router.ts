import type { FrameSink, LinkHost } from '../link/link.ts'
import { fragment } from './fragment.ts'
import { FramePool, FrameQueue, LONGEST_FRAME } from './frames.ts'
import { finish, type IcmpError, mayBeTold, RateLimit, turnEcho, writeError } from './icmp.ts'
import { type Neighbor, type NeighborEvents, NeighborTable } from './neighbors.ts'
import { isHostOf, type RouterInterface, RouterPort } from './port.ts'
import { type Route, RouteTable } from './routes.ts'
import {
  ARP_BYTES,
  ARP_ETHERNET_IPV4,
  ARP_LENGTHS,
  ARP_OPERATION,
  ARP_REPLY,
  ARP_REQUEST,
  ARP_SENDER,
  ARP_SENDER_MAC,
  ARP_TARGET,
  ARP_TARGET_MAC,
  adjustChecksum,
  CODE_FRAGMENTATION_NEEDED,
  CODE_HOST,
  CODE_NET,
  CODE_PORT,
  CODE_PROTOCOL,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  ETHERNET_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  headerBytesOf,
  headerProblem,
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL,
  IPV4_TTL,
  isRoutable,
  PROTOCOL_ICMP,
  PROTOCOL_UDP,
  sum,
} from './wire.ts'

/** Frames in the router at once; more are dropped. */
const SLOTS = 1024
/** Of those, frames that wait for an ARP answer: for one neighbour, and in all. */
const WAITING = 16
const WAITING_ALL = 256
/** One bit a port in the routing table's mask. */
const MAXIMUM_PORTS = 32
/** RFC 791: every network carries so much. */
const MINIMUM_MTU = 68
const DEFAULT_ERRORS_PER_SECOND = 100

const NET_UNREACHABLE: IcmpError = { type: ICMP_UNREACHABLE, code: CODE_NET }
const HOST_UNREACHABLE: IcmpError = { type: ICMP_UNREACHABLE, code: CODE_HOST }
const PROTOCOL_UNREACHABLE: IcmpError = { type: ICMP_UNREACHABLE, code: CODE_PROTOCOL }
const PORT_UNREACHABLE: IcmpError = { type: ICMP_UNREACHABLE, code: CODE_PORT }
const FRAGMENTATION_NEEDED: IcmpError = { type: ICMP_UNREACHABLE, code: CODE_FRAGMENTATION_NEEDED }
const TIME_EXCEEDED: IcmpError = { type: ICMP_TIME_EXCEEDED, code: 0 }

/** A route to a network that no port is on; prefix 0 is the default route. */
export interface StaticRoute {
  readonly network: number
  readonly prefix: number
  /** The next router, on the network of one of the ports. */
  readonly via: number
}

export interface RouterOptions {
  readonly interfaces: readonly RouterInterface[]
  readonly routes?: readonly StaticRoute[]
  /** From a frame's arrival to its departure, nanoseconds. Default 0. */
  readonly delayNs?: number
  /** ICMP errors a second. Default 100. */
  readonly errorsPerSecond?: number
}

/** Why frames were dropped; free-running. */
export interface RouterDrops {
  /** Neither IPv4 nor ARP, or malformed ARP. */
  protocol: number
  /** IPv4 header that cannot be meant, and one with a wrong checksum. */
  header: number
  checksum: number
  /** A source that no host has: a group, loopback, our own. */
  source: number
  /** A destination that is not routed: group, broadcast, loopback, link-local, class E. */
  destination: number
  /** An IPv4 packet in a frame to everybody (RFC 1812 §5.3.4). */
  broadcastFrame: number
  timeToLive: number
  noRoute: number
  /** Larger than the MTU of the way out, and not to be fragmented. */
  tooBig: number
  /** The next hop did not answer ARP. */
  unresolved: number
  /** For an address of ours, and nothing that we answer. */
  refused: number
  /** No room: in the router, or among those that wait for ARP. */
  overflow: number
}

/** Counters of a router; free-running. */
export interface RouterStatistics {
  received: number
  /** Packets sent on their way, whole or in fragments; also those that then waited for ARP in vain. */
  forwarded: number
  /** Packets for the router itself that it answered. */
  answered: number
  fragmented: number
  fragments: number
  arpRequests: number
  arpReplies: number
  /** Somebody else used an address of ours. */
  arpConflicts: number
  icmpErrors: number
  /** Errors that the rate limit held back. */
  icmpSuppressed: number
  dropped: RouterDrops
}

/** A neighbour, for people. */
export interface NeighborStatus {
  readonly port: string
  readonly address: number
  readonly state: Neighbor['state']
  /** Six bytes; null while there is none. */
  readonly mac: Uint8Array | null
  /** Since the last answer. */
  readonly ageNs: number
  readonly waiting: number
}

/**
 * An IPv4 router (RFC 1812): ARP on every port, forwarding by longest prefix over connected networks and static routes, TTL, ICMP
 * errors, echo replies, fragmentation. Sources are not checked against routes: replies may lawfully go another way than requests.
 * It answers for itself only what fits in one packet, and takes no part in routing protocols.
 *
 *     port ──frame()──▶ slot ┄┄ delay ┄┄ serve ─┬─ header, destination, route, TTL, MTU ──▶ next hop known ──▶ port
 *                                              │                                          │ unknown: waits for ARP
 *                                              └─ ARP, own addresses                      ▼
 *
 * What comes in waits in a slot of the router's own, for `delayNs` and at least until the sender is done: a switch takes no frame while
 * it hands one out.
 */
export class Router implements NeighborEvents {
  readonly name: string
  readonly ports: readonly RouterPort[]
  readonly #host: LinkHost
  readonly #delayNs: number
  readonly #table: RouteTable
  readonly #neighbors: NeighborTable
  readonly #limit: RateLimit
  readonly #pool = new FramePool(SLOTS)
  readonly #arrived = new FrameQueue()
  readonly #alarm = {
    slot: -1,
    dueNs: Number.POSITIVE_INFINITY,
    sequence: 0,
    precise: true,
    fire: (nowNs: number) => this.#serveArrived(nowNs),
  }
  /** Where fragments are put together: a slot that is never free. */
  readonly #scratch: number
  /** Bits of the ports with a carrier. */
  #up = 0
  #waiting = 0
  #identification = 0
  readonly #counters: Omit<RouterStatistics, 'dropped'> = {
    received: 0,
    forwarded: 0,
    answered: 0,
    fragmented: 0,
    fragments: 0,
    arpRequests: 0,
    arpReplies: 0,
    arpConflicts: 0,
    icmpErrors: 0,
    icmpSuppressed: 0,
  }
  readonly #dropped: RouterDrops = {
    protocol: 0,
    header: 0,
    checksum: 0,
    source: 0,
    destination: 0,
    broadcastFrame: 0,
    timeToLive: 0,
    noRoute: 0,
    tooBig: 0,
    unresolved: 0,
    refused: 0,
    overflow: 0,
  }

  /** Throws RangeError for interfaces or routes that cannot be meant. */
  constructor(name: string, host: LinkHost, options: RouterOptions) {
    const { interfaces, routes = [], delayNs = 0, errorsPerSecond = DEFAULT_ERRORS_PER_SECOND } = options
    if (interfaces.length === 0 || interfaces.length > MAXIMUM_PORTS)
      throw new RangeError(`Router ${name} has ${interfaces.length} ports; it may have 1 to ${MAXIMUM_PORTS}.`)
    if (!Number.isInteger(delayNs) || delayNs < 0)
      throw new RangeError(`Router ${name}: delayNs is ${delayNs}: not a whole number of nanoseconds.`)
    this.name = name
    this.#host = host
    this.#delayNs = delayNs
    this.ports = interfaces.map((item, index) => {
      if (item.mtuBytes < MINIMUM_MTU || item.mtuBytes > LONGEST_FRAME - ETHERNET_HEADER_BYTES)
        throw new RangeError(`Router ${name}: ${item.name} has an MTU of ${item.mtuBytes} bytes.`)
      const receive: FrameSink['frame'] = (memory, offset, length, nowNs) =>
        this.#receive(index, memory, offset, length, nowNs)
      return new RouterPort(`${name}.${item.name}`, item, receive, (up) => this.#setCarrier(index, up))
    })
    this.#table = new RouteTable([
      ...interfaces.map(({ address, prefix }, port) => ({ network: address, prefix, port, via: 0 })),
      ...routes.map((route) => ({ ...route, port: this.#portTowards(route) })),
    ])
    this.#neighbors = new NeighborTable(host, interfaces.length, this)
    this.#limit = new RateLimit(errorsPerSecond)
    this.#scratch = this.#pool.take()
  }

  /** Routes in the order in which they are tried. */
  get routes(): readonly Route[] {
    return this.#table.routes
  }

  /** The ARP cache. */
  neighbors(): NeighborStatus[] {
    const nowNs = this.#host.now()
    return Array.from(this.#neighbors, ({ port, address, state, macHigh, macLow, confirmedNs, waiting }) => ({
      port: this.ports[port].name,
      address: address >>> 0,
      state,
      mac: state === 'incomplete' ? null : macBytes(macHigh, macLow),
      ageNs: nowNs - confirmedNs,
      waiting: waiting.count,
    }))
  }

  statistics(): RouterStatistics {
    return { ...this.#counters, dropped: { ...this.#dropped } }
  }

  #portTowards({ network, prefix, via }: StaticRoute): number {
    const port = this.ports.findIndex(({ address, mask }) => ((address ^ via) & mask) === 0)
    if (port < 0 || this.ports.some(({ address }) => address === (via | 0)))
      throw new RangeError(`Router ${this.name}: the next hop of route ${network}/${prefix} is no neighbour.`)
    return port
  }

  #setCarrier(index: number, up: boolean): void {
    if (up) this.#up |= 1 << index
    else {
      this.#up &= ~(1 << index)
      this.#neighbors.forget(index, this.#host.now())
    }
  }

  // ── arrival ──

  #receive(index: number, memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    this.#counters.received++
    const pool = this.#pool
    const slot = length > LONGEST_FRAME ? -1 : pool.take()
    if (slot < 0) {
      this.#dropped.overflow++
      return
    }
    pool.bytes.set(memory.subarray(offset, offset + length), pool.at(slot))
    pool.length[slot] = length
    pool.port[slot] = index
    pool.dueNs[slot] = nowNs + this.#delayNs
    this.#arrived.push(pool, slot)
    if (this.#alarm.slot < 0) this.#host.setAlarm(this.#alarm, pool.dueNs[this.#arrived.first])
  }

  /** Serves what has had its time. What comes in meanwhile has its turn at the next alarm. */
  #serveArrived(nowNs: number): void {
    const arrived = this.#arrived
    const { dueNs } = this.#pool
    for (let left = arrived.count; left > 0 && dueNs[arrived.first] <= nowNs; left--) {
      this.#serve(arrived.shift(this.#pool), nowNs)
    }
    if (arrived.count > 0) this.#host.setAlarm(this.#alarm, dueNs[arrived.first])
  }

  /** Takes the slot over, as do all below that have it as an argument, unless they say otherwise. */
  #serve(slot: number, nowNs: number): void {
    const type = this.#pool.view.getUint16(this.#pool.at(slot) + ETHERNET_TYPE)
    if (type === ETHERTYPE_IPV4) this.#ipv4(slot, nowNs)
    else if (type === ETHERTYPE_ARP) this.#arp(slot, nowNs)
    else this.#drop(slot, 'protocol')
  }

  // ── IPv4 ──

  #ipv4(slot: number, nowNs: number): void {
    const { view, bytes, length, port } = this.#pool
    const frame = this.#pool.at(slot)
    const at = frame + ETHERNET_HEADER_BYTES
    const problem = headerProblem(view, at, length[slot] - ETHERNET_HEADER_BYTES)
    if (problem !== 0) return this.#drop(slot, problem)
    // RFC 1812 §5.3.4, and every group frame is to more than us.
    if (bytes[frame] & 1) return this.#drop(slot, 'broadcastFrame')
    const source = view.getInt32(at + IPV4_SOURCE)
    const destination = view.getInt32(at + IPV4_DESTINATION)
    const incoming = this.ports[port[slot]]
    // RFC 1812 §5.3.7: what no host sends.
    if (!isRoutable(source) || this.#isOwn(source) || source === incoming.broadcast) return this.#drop(slot, 'source')
    if (this.#isOwn(destination)) return this.#answer(slot, nowNs)
    if (!isRoutable(destination)) return this.#drop(slot, 'destination')
    const found = this.#table.find(destination, this.#up)
    if (found < 0) return this.#refuse(slot, 'noRoute', NET_UNREACHABLE, 0, nowNs)
    const route = this.#table.routes[found]
    const outgoing = this.ports[route.port]
    // RFC 2644: a broadcast on another network is not made for strangers.
    if (route.via === 0 && outgoing.isNobody(destination)) return this.#drop(slot, 'destination')
    const ttl = view.getUint8(at + IPV4_TTL)
    if (ttl <= 1) return this.#refuse(slot, 'timeToLive', TIME_EXCEEDED, 0, nowNs)
    const total = view.getUint16(at + IPV4_TOTAL)
    if (total > outgoing.mtuBytes && view.getUint16(at + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT)
      return this.#refuse(slot, 'tooBig', FRAGMENTATION_NEEDED, outgoing.mtuBytes, nowNs)
    const before = view.getUint16(at + IPV4_TTL)
    view.setUint8(at + IPV4_TTL, ttl - 1)
    const checksum = adjustChecksum(view.getUint16(at + IPV4_CHECKSUM), before, before - 0x100)
    view.setUint16(at + IPV4_CHECKSUM, checksum)
    // Padding stays behind.
    length[slot] = ETHERNET_HEADER_BYTES + total
    this.#counters.forwarded++
    this.#send(slot, route, destination, nowNs)
  }

  /** A packet for one of our own addresses. */
  #answer(slot: number, nowNs: number): void {
    const { view, bytes } = this.#pool
    const at = this.#pool.at(slot) + ETHERNET_HEADER_BYTES
    if (view.getUint16(at + IPV4_FRAGMENT) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK))
      return this.#drop(slot, 'refused')
    const protocol = view.getUint8(at + IPV4_PROTOCOL)
    if (protocol !== PROTOCOL_ICMP) {
      const error = protocol === PROTOCOL_UDP ? PORT_UNREACHABLE : PROTOCOL_UNREACHABLE
      return this.#refuse(slot, 'refused', error, 0, nowNs)
    }
    const headerBytes = headerBytesOf(view, at)
    const message = at + headerBytes
    const messageBytes = view.getUint16(at + IPV4_TOTAL) - headerBytes
    if (messageBytes < ICMP_HEADER_BYTES || sum(view, message, messageBytes) !== 0xffff)
      return this.#drop(slot, 'refused')
    if (view.getUint16(message) !== ICMP_ECHO_REQUEST << 8) return this.#drop(slot, 'refused')
    // RFC 1812 §4.3.3.6: the reply comes from the address that was asked.
    const asked = view.getInt32(at + IPV4_DESTINATION)
    this.#pool.length[slot] = ETHERNET_HEADER_BYTES + turnEcho(bytes, view, at, this.#identify())
    if (this.#sendOwn(slot, asked, nowNs)) this.#counters.answered++
  }

  /** Drops the packet and tells its source why, where the rules allow that. */
  #refuse(slot: number, reason: keyof RouterDrops, error: IcmpError, mtuBytes: number, nowNs: number): void {
    const pool = this.#pool
    const about = pool.at(slot) + ETHERNET_HEADER_BYTES
    if (mayBeTold(pool.view, about) && !this.#isOwn(pool.view.getInt32(about + IPV4_SOURCE))) {
      const told = pool.take()
      if (told < 0) this.#dropped.overflow++
      else if (!this.#limit.take(nowNs)) {
        this.#counters.icmpSuppressed++
        pool.give(told)
      } else {
        const to = pool.at(told) + ETHERNET_HEADER_BYTES
        const bytes = writeError(pool.bytes, pool.view, to, about, error, mtuBytes, this.#identify())
        pool.length[told] = ETHERNET_HEADER_BYTES + bytes
        if (this.#sendOwn(told, 0, nowNs)) this.#counters.icmpErrors++
      }
    }
    this.#drop(slot, reason)
  }

  /** Sends a packet that we made. @param source own address; 0 = that of the port it leaves by (RFC 1812 §4.3.2.4) */
  #sendOwn(slot: number, source: number, nowNs: number): boolean {
    const { view } = this.#pool
    const at = this.#pool.at(slot) + ETHERNET_HEADER_BYTES
    const destination = view.getInt32(at + IPV4_DESTINATION)
    const found = this.#table.find(destination, this.#up)
    if (found < 0) {
      this.#drop(slot, 'noRoute')
      return false
    }
    const route = this.#table.routes[found]
    finish(view, at, source || this.ports[route.port].address)
    this.#send(slot, route, destination, nowNs)
    return true
  }

  #identify(): number {
    this.#identification = (this.#identification + 1) & 0xffff
    return this.#identification
  }

  #isOwn(address: number): boolean {
    for (let n = 0; n < this.ports.length; n++) if (this.ports[n].address === address) return true
    return false
  }

  // ── departure ──

  /** Sends a packet by its route, or has it wait for the next hop's MAC address. */
  #send(slot: number, { port, via }: Route, destination: number, nowNs: number): void {
    const neighbor = this.#neighbors.lookup(port, via === 0 ? destination : via | 0, nowNs)
    if (neighbor.state !== 'incomplete') return this.#transmit(slot, neighbor, nowNs)
    const { waiting } = neighbor
    // The newest are worth most (RFC 1122 §2.3.2.2).
    if (waiting.count === WAITING) this.#dropWaiting(waiting)
    if (this.#waiting === WAITING_ALL) return this.#drop(slot, 'overflow')
    this.#waiting++
    waiting.push(this.#pool, slot)
  }

  #transmit(slot: number, { port, macHigh, macLow }: Neighbor, nowNs: number): void {
    const pool = this.#pool
    const frame = pool.at(slot)
    const outgoing = this.ports[port]
    writeAddresses(pool.view, frame, macHigh, macLow, outgoing, ETHERTYPE_IPV4)
    if (pool.length[slot] - ETHERNET_HEADER_BYTES <= outgoing.mtuBytes)
      outgoing.outlet.frame(pool.bytes, frame, pool.length[slot], nowNs)
    else this.#transmitFragments(frame, outgoing, nowNs)
    pool.give(slot)
  }

  #transmitFragments(frame: number, outgoing: RouterPort, nowNs: number): void {
    const { bytes, view } = this.#pool
    const to = this.#pool.at(this.#scratch)
    bytes.copyWithin(to, frame, frame + ETHERNET_HEADER_BYTES)
    this.#counters.fragmented++
    const at = frame + ETHERNET_HEADER_BYTES
    fragment(bytes, view, at, outgoing.mtuBytes, to + ETHERNET_HEADER_BYTES, (length) => {
      this.#counters.fragments++
      outgoing.outlet.frame(bytes, to, ETHERNET_HEADER_BYTES + length, nowNs)
    })
  }

  #drop(slot: number, reason: keyof RouterDrops): void {
    this.#dropped[reason]++
    this.#pool.give(slot)
  }

  #dropWaiting(waiting: FrameQueue): void {
    this.#waiting--
    this.#drop(waiting.shift(this.#pool), 'overflow')
  }

  // ── ARP ──

  #arp(slot: number, nowNs: number): void {
    const { view, length } = this.#pool
    const frame = this.#pool.at(slot)
    const at = frame + ETHERNET_HEADER_BYTES
    const operation = view.getUint16(at + ARP_OPERATION)
    const fits =
      length[slot] >= ETHERNET_HEADER_BYTES + ARP_BYTES &&
      view.getUint32(at) === ARP_ETHERNET_IPV4 &&
      view.getUint16(at + 4) === ARP_LENGTHS &&
      (operation === ARP_REQUEST || operation === ARP_REPLY)
    const index = this.#pool.port[slot]
    const incoming = this.ports[index]
    const macHigh = view.getUint16(at + ARP_SENDER_MAC)
    const macLow = view.getUint32(at + ARP_SENDER_MAC + 2)
    if (!fits || macHigh & 0x100 || (macHigh | macLow) === 0) return this.#drop(slot, 'protocol')
    const sender = view.getInt32(at + ARP_SENDER)
    const forUs = operation === ARP_REQUEST && view.getInt32(at + ARP_TARGET) === incoming.address
    if (sender === incoming.address) {
      this.#counters.arpConflicts++
      this.#pool.give(slot)
      return
    }
    // A sender address of 0 is somebody about to take the address that he asks for (RFC 5227 §2.1.1): answer, learn nothing.
    if (sender !== 0) {
      if (!isHostOf(incoming, sender)) return this.#drop(slot, 'protocol')
      this.#neighbors.heard(index, sender, macHigh, macLow, forUs, nowNs)
    }
    if (forUs) {
      this.#counters.arpReplies++
      this.#writeArp(frame, incoming, ARP_REPLY, macHigh, macLow, macHigh, macLow, sender)
      incoming.outlet.frame(this.#pool.bytes, frame, ETHERNET_HEADER_BYTES + ARP_BYTES, nowNs)
    }
    this.#pool.give(slot)
  }

  #writeArp(
    frame: number,
    outgoing: RouterPort,
    operation: number,
    toHigh: number,
    toLow: number,
    targetHigh: number,
    targetLow: number,
    target: number,
  ): void {
    const { view } = this.#pool
    const at = frame + ETHERNET_HEADER_BYTES
    writeAddresses(view, frame, toHigh, toLow, outgoing, ETHERTYPE_ARP)
    view.setUint32(at, ARP_ETHERNET_IPV4)
    view.setUint16(at + 4, ARP_LENGTHS)
    view.setUint16(at + ARP_OPERATION, operation)
    view.setUint16(at + ARP_SENDER_MAC, outgoing.macHigh)
    view.setUint32(at + ARP_SENDER_MAC + 2, outgoing.macLow)
    view.setInt32(at + ARP_SENDER, outgoing.address)
    view.setUint16(at + ARP_TARGET_MAC, targetHigh)
    view.setUint32(at + ARP_TARGET_MAC + 2, targetLow)
    view.setInt32(at + ARP_TARGET, target)
  }

  // ── for the ARP cache ──

  ask({ port, address, macHigh, macLow }: Neighbor, unicast: boolean, nowNs: number): void {
    this.#counters.arpRequests++
    const frame = this.#pool.at(this.#scratch)
    const outgoing = this.ports[port]
    const [high, low] = unicast ? [macHigh, macLow] : [0xffff, 0xffffffff]
    this.#writeArp(frame, outgoing, ARP_REQUEST, high, low, unicast ? macHigh : 0, unicast ? macLow : 0, address)
    outgoing.outlet.frame(this.#pool.bytes, frame, ETHERNET_HEADER_BYTES + ARP_BYTES, nowNs)
  }

  resolved(neighbor: Neighbor, nowNs: number): void {
    const { waiting } = neighbor
    for (let slot = waiting.shift(this.#pool); slot >= 0; slot = waiting.shift(this.#pool)) {
      this.#waiting--
      this.#transmit(slot, neighbor, nowNs)
    }
  }

  failed({ waiting }: Neighbor, nowNs: number): void {
    for (let slot = waiting.shift(this.#pool); slot >= 0; slot = waiting.shift(this.#pool)) {
      this.#waiting--
      this.#refuse(slot, 'unresolved', HOST_UNREACHABLE, 0, nowNs)
    }
  }
}

function writeAddresses(
  view: DataView,
  frame: number,
  toHigh: number,
  toLow: number,
  from: RouterPort,
  type: number,
): void {
  view.setUint16(frame, toHigh)
  view.setUint32(frame + 2, toLow)
  view.setUint16(frame + ETHERNET_SOURCE, from.macHigh)
  view.setUint32(frame + ETHERNET_SOURCE + 2, from.macLow)
  view.setUint16(frame + ETHERNET_TYPE, type)
}

function macBytes(high: number, low: number): Uint8Array {
  return Uint8Array.of(high >>> 8, high & 0xff, low >>> 24, (low >>> 16) & 0xff, (low >>> 8) & 0xff, low & 0xff)
}
