import { TRACE_BASE, TRACE_ENTRIES, TRACE_HEAD } from '../../abi/registers.ts'
import { TRACE_ENTRY_BYTES } from '../../abi/rings.ts'
import { TCP_CLOSED, TCP_TIME_WAIT } from '../../abi/tcp.ts'
import {
  DROP_ARP,
  DROP_ETHERNET_SHORT,
  DROP_ETHERNET_TYPE,
  DROP_FRAGMENT,
  DROP_HELD,
  DROP_ICMP_HEADER,
  DROP_IPOS,
  DROP_IPV4_CHECKSUM,
  DROP_IPV4_DESTINATION,
  DROP_IPV4_HEADER,
  DROP_NO_MEMORY,
  DROP_NO_SOCKET,
  DROP_PROTOCOL,
  DROP_TCP_CHECKSUM,
  DROP_TCP_HEADER,
  DROP_TCP_PAWS,
  DROP_TCP_WINDOW,
  DROP_TTL,
  DROP_UDP_CHECKSUM,
  DROP_UDP_HEADER,
  TRACE_ARP,
  TRACE_ATTACH,
  TRACE_BOOT,
  TRACE_DROP,
  TRACE_MIGRATE,
  TRACE_QUEUE,
  TRACE_TCP_RETRANSMIT,
  TRACE_TCP_STATE,
} from '../../abi/trace.ts'
import type { InicMemory } from './memory.ts'

/** One entry of the firmware's trace ring (abi/rings.ts, abi/trace.ts). */
export interface TraceEntry {
  /** Nanoseconds since power-on. */
  timeNs: number
  event: number
  a: number
  b: number
  c: number
  /** For people. */
  text: string
}

const TCP_STATE_NAMES = [
  'CLOSED',
  'SYN-SENT',
  'SYN-RECEIVED',
  'ESTABLISHED',
  'FIN-WAIT-1',
  'FIN-WAIT-2',
  'CLOSE-WAIT',
  'CLOSING',
  'LAST-ACK',
  'TIME-WAIT',
]

const DROP_REASONS = new Map<number, string>([
  [DROP_ETHERNET_SHORT, 'frame too short'],
  [DROP_ETHERNET_TYPE, 'unknown EtherType'],
  [DROP_IPV4_HEADER, 'IPv4 header'],
  [DROP_IPV4_CHECKSUM, 'IPv4 checksum'],
  [DROP_IPV4_DESTINATION, 'not our IPv4 address'],
  [DROP_FRAGMENT, 'fragment'],
  [DROP_TCP_HEADER, 'TCP header'],
  [DROP_TCP_CHECKSUM, 'TCP checksum'],
  [DROP_UDP_HEADER, 'UDP header'],
  [DROP_UDP_CHECKSUM, 'UDP checksum'],
  [DROP_ICMP_HEADER, 'ICMP header'],
  [DROP_NO_SOCKET, 'no socket'],
  [DROP_NO_MEMORY, 'no memory'],
  [DROP_ARP, 'ARP'],
  [DROP_TCP_WINDOW, 'outside the TCP window'],
  [DROP_TCP_PAWS, 'PAWS'],
  [DROP_PROTOCOL, 'unknown IP protocol'],
  [DROP_TTL, 'TTL'],
  [DROP_IPOS, 'ipOS frame'],
  [DROP_HELD, 'too much held for a connection that moves'],
])

/** PHASE_* of firmware/ipos/migration.ts. */
const MOVE_PHASES = ['rests', 'offered', 'committed', 'prepared', 'arriving', 'arrived']

const DECODERS = new Map<number, (a: number, b: number, c: number) => string>([
  [TRACE_BOOT, (_a, b) => `boot, ${b} bytes of memory`],
  [
    TRACE_TCP_STATE,
    (a, b, c) => `tcp ${b} ports ${c & 0xffff}<-${c >>> 16}: ${tcpState(a >>> 8)} -> ${tcpState(a & 0xff)}`,
  ],
  [TRACE_TCP_RETRANSMIT, (a, b, c) => `tcp ${b} retransmits ${c} (${a === 1 ? 'timeout' : a === 2 ? 'fast' : a})`],
  [TRACE_ATTACH, (a, b) => `tcp ${b} attached to queue set ${a}`],
  [TRACE_DROP, (a, b, c) => `dropped: ${DROP_REASONS.get(a) ?? `reason ${a}`} (${b}, ${c})`],
  [TRACE_QUEUE, (a, b, c) => `queue ${a} is ${['disabled', 'enabled', 'broken'][b] ?? b}, epoch ${c}`],
  [
    TRACE_MIGRATE,
    (a, b, c) => `move of tcp ${b}: ${MOVE_PHASES[a & 0xff] ?? a & 0xff}, with server ${a >>> 8}, thread ${c}`,
  ],
  [TRACE_ARP, (a, b, c) => `arp on port ${a}: ${ipv4(b)} ${['', 'learned', 'conflict', 'failed'][c] ?? c}`],
])

/** How many nanoseconds the low 32 bits of the clock count through. */
const WRAP_NS = 4294967296

/** What was read of a trace ring. */
export interface TracePiece {
  /** Oldest first. */
  readonly entries: TraceEntry[]
  /** Where the next reading begins. */
  readonly head: number
  /** Entries that were overwritten before they were read. */
  readonly lost: number
}

/**
 * The newest entries of the trace ring, oldest first, at most `maximum`; none if the ring is off or its registers make no sense.
 * `nowNs` is the time since power-on: an entry holds the low 32 bits alone, so one older than 4.29 s shows a later time.
 */
export function readTrace(memory: InicMemory, nowNs: number, maximum: number): TraceEntry[] {
  const head = memory.register(TRACE_HEAD)
  return readTraceFrom(memory, nowNs, head - Math.min(head, maximum)).entries
}

/** Entries from number `from` on, counted since power-on modulo 2^32, as far as the ring has them still. */
export function readTraceFrom(memory: InicMemory, nowNs: number, from: number): TracePiece {
  const base = memory.register(TRACE_BASE)
  const ringEntries = memory.register(TRACE_ENTRIES)
  const head = memory.register(TRACE_HEAD)
  const usable = ringEntries > 0 && (ringEntries & (ringEntries - 1)) === 0 && (base & 3) === 0
  if (!usable || !memory.holds(base, ringEntries * TRACE_ENTRY_BYTES)) return { entries: [], head, lost: 0 }
  const wanted = (head - from) >>> 0
  const count = Math.min(wanted, ringEntries)
  const entries: TraceEntry[] = []
  for (let n = (head - count) >>> 0; n !== head; n = (n + 1) >>> 0) {
    const at = (base + (n & (ringEntries - 1)) * TRACE_ENTRY_BYTES) >>> 2
    const timeLow = memory.words[at]
    const event = memory.words[at + 1] & 0xffff
    const a = memory.words[at + 1] >>> 16
    const b = memory.words[at + 2]
    const c = memory.words[at + 3]
    const age = (nowNs - timeLow) % WRAP_NS
    entries.push({ timeNs: nowNs - (age < 0 ? age + WRAP_NS : age), event, a, b, c, text: traceText(event, a, b, c) })
  }
  return { entries, head, lost: wanted - count }
}

/** An entry in words. */
export function traceText(event: number, a: number, b: number, c: number): string {
  return DECODERS.get(event)?.(a, b, c) ?? `event ${event} (${a}, ${b}, ${c})`
}

function tcpState(state: number): string {
  return state >= TCP_CLOSED && state <= TCP_TIME_WAIT ? TCP_STATE_NAMES[state] : String(state)
}

function ipv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')
}
