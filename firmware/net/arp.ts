import { DIRECTORY_ARP } from '../../abi/memory.ts'
import { MAC_PORTS } from '../../abi/registers.ts'
import { STATUS_EHOSTUNREACH } from '../../abi/status.ts'
import { DROP_ARP, TRACE_ARP } from '../../abi/trace.ts'
import { transmitClaim, transmitCommit } from '../hal/mac.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { msReached } from '../hal/timer.ts'
import { drop, trace } from '../hal/trace.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { counters, state } from '../state.ts'
import { tcpNeighborFailed, tcpNeighborResolved } from '../tcp/neighbor.ts'
import {
  ARP_BYTES,
  ARP_REPLY,
  ARP_REQUEST,
  arpIsIpv4,
  arpOperation,
  arpSender,
  arpSenderMac,
  arpTarget,
  arpWrite,
} from '../wire/arp.ts'
import { ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ethernetWrite, MAC_BROADCAST, macIsGroup } from '../wire/ethernet.ts'
import { IPV4_LIMITED_BROADCAST, ipv4IsLoopback, ipv4IsUnicast } from '../wire/ipv4.ts'
import { isOnLink, netInterface } from './interface.ts'
import { pendingDrop, pendingSend } from './output.ts'
import { netTimerAt } from './timers.ts'

/**
 * ARP cache (RFC 826, RFC 1122 §2.3.2, RFC 5227).
 *
 *      ARP_FREE ──lookup──> INCOMPLETE ──answer──> REACHABLE ──lookup after 60 s──> PROBE
 *                   ^  │3 requests unanswered          ^ └──────────answer────────────┘ │
 *            lookup │  v                               │                                │3 unanswered
 *                   FAILED ────────answer──────────────┘     INCOMPLETE (in use) or FREE <┘
 */
const ARP_FREE: u32 = 0
const INCOMPLETE: u32 = 1
const REACHABLE: u32 = 2
const PROBE: u32 = 3
const FAILED: u32 = 4

const ARP_ENTRIES: u32 = 256
/** Stride of the table, bytes. */
const ARP_ENTRY_BYTES: u32 = 48
/** Rows: one that names nothing, the broadcast address, and the cache. */
const ARP_ROWS: u32 = ARP_ENTRIES + 2
/** The entry whose MAC address is the broadcast address. */
const ARP_BROADCAST: u32 = 1
const BUCKETS: u32 = 256

/** How long an answer is trusted, milliseconds (RFC 1122 §2.3.2.1 suggests a minute). */
const REACHABLE_MS: u32 = 60000
/** Between two requests for one address (RFC 1122 §2.3.2.1: at most one a second)... */
const RETRY_MS: u32 = 1000
const TRIES: u32 = 3
/** ...but for these ahead of them, by broadcast: a connection that moves here, and its client, do not wait a second for one lost frame. */
const QUICK_RETRY_MS: u32 = 2
const QUICK_TRIES: u32 = 2
/** An entry that nobody asked for during this time goes. */
const IDLE_MS: u32 = 600000
/** Unresolved entries beyond this number are the first to go, so that a sweep of addresses cannot empty the cache. */
const INCOMPLETE_LIMIT: u32 = 64

// RFC 5227 §1.1.
const ANNOUNCE_NUM: u32 = 2
const ANNOUNCE_INTERVAL_MS: u32 = 2000
const DEFEND_INTERVAL_MS: u32 = 10000

const TRACE_LEARNED: u32 = 1
const TRACE_CONFLICT: u32 = 2
const TRACE_FAILED: u32 = 3

@unmanaged
export class ArpEntry {
  /** 48-bit number, first byte highest. */
  mac: u64
  address: u32
  /** Next entry of the bucket, or of the free list. */
  next: u32
  /** REACHABLE: when it was confirmed. Otherwise: when the last request went out. */
  sinceMs: u32
  /** Last lookup; before the first one, when the entry was made. */
  usedMs: u32
  /** Packets that wait for the answer (net/output.ts): chunks. */
  queueHead: u32
  queueTail: u32
  queuePackets: u16
  queueDatagrams: u16
  netInterface: u8
  state: u8
  tries: u8
  /** 1 once we looked it up ourselves. */
  used: u8
}

/** @param index of a row, as from `arpLookup` */
export function arpEntry(index: u32): ArpEntry {
  return changetype<ArpEntry>(state().arpBase + index * ARP_ENTRY_BYTES)
}

export function arpInitialize(): void {
  if (offsetof<ArpEntry>() > ARP_ENTRY_BYTES) panic(PANIC_POOL, offsetof<ArpEntry>())
  const st = state()
  st.arpBase = carve(ARP_ROWS * ARP_ENTRY_BYTES)
  directoryAdd(DIRECTORY_ARP, st.arpBase, ARP_ENTRY_BYTES, ARP_ROWS)
  st.arpBuckets = carve(BUCKETS * 4)
  arpEntry(ARP_BROADCAST).mac = MAC_BROADCAST
  for (let i: u32 = ARP_BROADCAST + 1; i < ARP_ROWS - 1; i++) arpEntry(i).next = i + 1
  st.arpFree = ARP_BROADCAST + 1
}

function bucketOf(interfaceIndex: u32, address: u32): u32 {
  const st = state()
  const hash = ((address ^ <u32>st.hashKey0) * 0x9e3779b1 + interfaceIndex) * 0x85ebca6b
  return st.arpBuckets + (hash >>> 24) * 4
}

/** Index of the entry for an address, whatever its state, or 0. */
export function arpFind(interfaceIndex: u32, address: u32): u32 {
  let index = load<u32>(bucketOf(interfaceIndex, address))
  while (index) {
    const entry = arpEntry(index)
    if (entry.address == address && <u32>entry.netInterface == interfaceIndex) break
    index = entry.next
  }
  return index
}

/**
 * Index of the entry that holds the neighbour's MAC address, or 0 while it is not known: then a request is on its way, and
 * `tcpNeighborResolved` or `tcpNeighborFailed` follows, the latter also if the table needs the place. The index is good
 * until the caller returns to the poll loop.
 *
 * @param address the next hop; broadcast addresses have an entry too
 */
export function arpLookup(interfaceIndex: u32, address: u32): u32 {
  if (interfaceIndex == LOOPBACK_PORT) return ARP_BROADCAST
  const now = state().nowMs
  let index = arpFind(interfaceIndex, address)
  if (!index) {
    const ni = netInterface(interfaceIndex)
    if (!ni.address) return 0
    if (address == IPV4_LIMITED_BROADCAST || address == ni.broadcast) return ARP_BROADCAST
    index = allocate(interfaceIndex, address)
    if (!index) return 0
    const fresh = arpEntry(index)
    fresh.used = 1
    resolve(fresh)
    return 0
  }
  const entry = arpEntry(index)
  entry.usedMs = now
  entry.used = 1
  const current: u32 = entry.state
  if (current == REACHABLE) {
    if (now - entry.sinceMs >= REACHABLE_MS) probe(entry)
    return index
  }
  if (current == PROBE) return index
  if (current == FAILED) resolve(entry)
  return 0
}

/** Starts to ask for an address by broadcast. The last request, if there was one, had its RETRY_MS. */
function resolve(entry: ArpEntry): void {
  entry.state = <u8>INCOMPLETE
  entry.tries = 0
  state().arpIncomplete++
  ask(entry)
}

/** The entry is old: still used, while its owner is asked by unicast (RFC 1122 §2.3.2.1 method 2). */
function probe(entry: ArpEntry): void {
  entry.state = <u8>PROBE
  entry.tries = 0
  ask(entry)
}

function ask(entry: ArpEntry): void {
  const now = state().nowMs
  const index: u32 = entry.netInterface
  const ni = netInterface(index)
  const unicast = <u32>entry.state == PROBE
  entry.tries++
  entry.sinceMs = now
  netTimerAt(now + retryMs(entry))
  sendArp(index, ARP_REQUEST, unicast ? entry.mac : MAC_BROADCAST, ni.address, unicast ? entry.mac : 0, entry.address)
  counters().arpRequests++
}

/** How long the last request may go without an answer. */
function retryMs(entry: ArpEntry): u32 {
  return <u32>entry.state == INCOMPLETE && <u32>entry.tries <= QUICK_TRIES ? QUICK_RETRY_MS : RETRY_MS
}

function sendArp(index: u32, operation: u32, destination: u64, sender: u32, targetMac: u64, target: u32): void {
  const frame = transmitClaim(index)
  // A full ring is as good as a frame lost on the wire: requests are repeated, replies asked for again.
  if (!frame) return
  const mac = netInterface(index).mac
  ethernetWrite(frame, destination, mac, ETHERTYPE_ARP)
  arpWrite(frame + ETHERNET_HEADER_BYTES, operation, mac, sender, targetMac, target)
  transmitCommit(index, ETHERNET_HEADER_BYTES + ARP_BYTES)
}

/** Takes one ARP packet. @param bytes that are there, padding included */
export function arpInput(port: u32, packet: u32, bytes: u32): void {
  if (bytes < ARP_BYTES || !arpIsIpv4(packet)) {
    drop(DROP_ARP, port, bytes)
    return
  }
  const ni = netInterface(port)
  const operation = arpOperation(packet)
  const mac = arpSenderMac(packet)
  const sender = arpSender(packet)
  const target = arpTarget(packet)
  if (!ni.address || mac == ni.mac) return
  if (operation == 0 || operation > ARP_REPLY || mac == 0 || macIsGroup(mac)) {
    drop(DROP_ARP, port, operation)
    return
  }
  if (sender == ni.address) {
    conflict(port)
    return
  }
  const forUs = operation == ARP_REQUEST && target == ni.address
  // A sender address of 0 is somebody about to take the address that he asks for (RFC 5227 §2.1.1): answer, learn nothing.
  if (sender != 0) {
    if (!ipv4IsUnicast(sender) || ipv4IsLoopback(sender) || sender == ni.broadcast) {
      drop(DROP_ARP, port, sender)
      return
    }
    // RFC 826: what is known is brought up to date by any packet; what is new is learned from those that speak to us.
    // An answer that nobody asked for finds no entry, and so teaches nothing.
    let index = arpFind(port, sender)
    if (!index && forUs && isOnLink(ni, sender)) index = allocate(port, sender)
    if (index) learn(index, mac)
  }
  if (forUs) {
    sendArp(port, ARP_REPLY, mac, ni.address, mac, sender)
    counters().arpReplies++
  }
}

function learn(index: u32, mac: u64): void {
  const st = state()
  const entry = arpEntry(index)
  const before: u32 = entry.state
  const port: u32 = entry.netInterface
  const address = entry.address
  if (entry.mac != mac) trace(TRACE_ARP, port, address, TRACE_LEARNED)
  entry.mac = mac
  entry.state = <u8>REACHABLE
  entry.sinceMs = st.nowMs
  if (before == INCOMPLETE) {
    st.arpIncomplete--
    pendingSend(index)
    tcpNeighborResolved(port, address)
  }
}

/** Somebody else uses our address: we keep it and say so, at most once in DEFEND_INTERVAL_MS (RFC 5227 §2.4 (c)). */
function conflict(port: u32): void {
  const now = state().nowMs
  const ni = netInterface(port)
  trace(TRACE_ARP, port, ni.address, TRACE_CONFLICT)
  counters().arpConflicts++
  if (ni.defended && now - ni.defendedMs < DEFEND_INTERVAL_MS) return
  ni.defended = 1
  ni.defendedMs = now
  announce(port)
}

/** An ARP announcement: a request for our own address (RFC 5227 §2.3). */
function announce(port: u32): void {
  const ni = netInterface(port)
  sendArp(port, ARP_REQUEST, MAC_BROADCAST, ni.address, 0, ni.address)
}

/** The interface has come up: announce its address, and ask old neighbours again before they are trusted for long. */
export function arpAnnounceStart(port: u32): void {
  const st = state()
  const ni = netInterface(port)
  if (!ni.address) return
  ni.announcements = ANNOUNCE_NUM
  ni.announceMs = st.nowMs
  netTimerAt(st.nowMs)
  for (let i: u32 = ARP_BROADCAST + 1; i < ARP_ROWS; i++) {
    const entry = arpEntry(i)
    if (<u32>entry.netInterface == port && <u32>entry.state == REACHABLE) entry.sinceMs = st.nowMs - REACHABLE_MS
  }
}

/** Serves announcements, requests that had no answer, and entries that nobody uses; arms the next. */
export function arpTimers(): void {
  const st = state()
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) announcements(i)
  if (!st.arpUsed) return
  const sweep = msReached(st.nowMs, st.arpSweepMs)
  if (sweep) st.arpSweepMs = st.nowMs + IDLE_MS
  for (let i: u32 = ARP_BROADCAST + 1; i < ARP_ROWS; i++) {
    const entry = arpEntry(i)
    const current: u32 = entry.state
    if (current == INCOMPLETE || current == PROBE) {
      const tries = current == INCOMPLETE ? QUICK_TRIES + TRIES : TRIES
      const wait = retryMs(entry)
      if (st.nowMs - entry.sinceMs < wait) netTimerAt(entry.sinceMs + wait)
      else if (<u32>entry.tries < tries) ask(entry)
      else unanswered(i)
    } else if (sweep && current != ARP_FREE && st.nowMs - entry.usedMs >= IDLE_MS) release(i)
  }
  if (st.arpUsed) netTimerAt(st.arpSweepMs)
}

function announcements(port: u32): void {
  const now = state().nowMs
  const ni = netInterface(port)
  if (!ni.announcements || !ni.linkUp) return
  if (msReached(now, ni.announceMs)) {
    announce(port)
    ni.announcements--
    ni.announceMs = now + ANNOUNCE_INTERVAL_MS
  }
  if (ni.announcements) netTimerAt(ni.announceMs)
}

/** The last request had its time. */
function unanswered(index: u32): void {
  const st = state()
  const entry = arpEntry(index)
  if (<u32>entry.state == PROBE) {
    // The owner may have a new MAC address; who still sends to it waits for the broadcast's answer.
    if (st.nowMs - entry.usedMs < TRIES * RETRY_MS) resolve(entry)
    else release(index)
    return
  }
  st.arpIncomplete--
  entry.state = <u8>FAILED
  pendingDrop(index, STATUS_EHOSTUNREACH)
  failed(entry.netInterface, entry.address)
}

function failed(port: u32, address: u32): void {
  trace(TRACE_ARP, port, address, TRACE_FAILED)
  counters().arpFailures++
  tcpNeighborFailed(port, address)
}

/** A new entry without a MAC address, in its bucket, state FAILED; an old one makes room. Returns 0 if that is not possible. */
function allocate(interfaceIndex: u32, address: u32): u32 {
  const st = state()
  if (!st.arpFree) evict()
  const index = st.arpFree
  if (!index) return 0
  const entry = arpEntry(index)
  st.arpFree = entry.next
  if (!st.arpUsed) {
    st.arpSweepMs = st.nowMs + IDLE_MS
    netTimerAt(st.arpSweepMs)
  }
  st.arpUsed++
  const bucket = bucketOf(interfaceIndex, address)
  entry.mac = 0
  entry.address = address
  entry.netInterface = <u8>interfaceIndex
  entry.state = <u8>FAILED
  entry.used = 0
  entry.usedMs = st.nowMs
  entry.sinceMs = st.nowMs
  entry.next = load<u32>(bucket)
  store<u32>(bucket, index)
  return index
}

/** Makes room: first what failed, then what we never used, then addresses of a sweep, then what was used longest ago. */
function evict(): void {
  const st = state()
  const crowded = st.arpIncomplete > INCOMPLETE_LIMIT
  let victim: u32 = 0
  let lowest = u64.MAX_VALUE
  for (let i: u32 = ARP_BROADCAST + 1; i < ARP_ROWS; i++) {
    const entry = arpEntry(i)
    const current: u32 = entry.state
    let rank: u64 = 3
    if (current == FAILED) rank = 0
    else if (current == INCOMPLETE) rank = crowded ? 2 : 4
    else if (!entry.used) rank = 1
    const score = (rank << 32) | (0xffffffff - (st.nowMs - entry.usedMs))
    if (score < lowest) {
      lowest = score
      victim = i
    }
  }
  const entry = arpEntry(victim)
  if (<u32>entry.state != INCOMPLETE) {
    release(victim)
    return
  }
  const port: u32 = entry.netInterface
  const address = entry.address
  st.arpIncomplete--
  pendingDrop(victim, STATUS_EHOSTUNREACH)
  release(victim)
  failed(port, address)
}

/** Takes an entry out of its bucket. Nothing may wait for it. */
function release(index: u32): void {
  const st = state()
  const entry = arpEntry(index)
  let link = bucketOf(entry.netInterface, entry.address)
  while (load<u32>(link) != index) link = changetype<u32>(arpEntry(load<u32>(link))) + <u32>offsetof<ArpEntry>('next')
  store<u32>(link, entry.next)
  entry.state = <u8>ARP_FREE
  entry.next = st.arpFree
  st.arpFree = index
  st.arpUsed--
}
