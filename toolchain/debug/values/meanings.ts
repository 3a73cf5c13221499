/**
 * What numbers of the firmware's classes mean beyond their type. The layouts know names and types; that `state` of a Tcb is a state
 * of TCP, and `nextHop` an IPv4 address, is the convention of the sources, and written down here and nowhere else.
 */
import {
  OWNER_DEVICE,
  OWNER_FIRMWARE,
  QUEUE_STATE_BROKEN,
  QUEUE_STATE_DISABLED,
  QUEUE_STATE_ENABLED,
} from '../../../abi/rings.ts'
import { formatIpv4 } from '../../config/addresses.ts'
import { queueStateName, tcpStateName } from '../../inspect/names.ts'
import type { Scalar } from './types.ts'

export type Meaning =
  | { readonly kind: 'ip' }
  /** The low 48 bits, first byte highest. */
  | { readonly kind: 'mac' }
  | { readonly kind: 'tcp state' }
  /** One of these words, by number; the state of a queue is the same for every firmware. */
  | { readonly kind: 'words'; readonly words: Readonly<Record<number, string>> }
  /** One of these constants. */
  | { readonly kind: 'names'; readonly names: readonly string[] }
  /** Bits that these constants, or all that begin so, name. */
  | { readonly kind: 'bits'; readonly names: readonly string[]; readonly prefix?: string }
  /** Number of a row of the table of this name; 0 = none. */
  | { readonly kind: 'row'; readonly table: string }
  /** An address or a number of bits: hexadecimal alone. */
  | { readonly kind: 'hex' }

export const IP: Meaning = { kind: 'ip' }
export const MAC: Meaning = { kind: 'mac' }

function names(...list: string[]): Meaning {
  return { kind: 'names', names: list }
}

function bits(prefix: string, ...list: string[]): Meaning {
  return { kind: 'bits', names: list, prefix }
}

function row(table: string): Meaning {
  return { kind: 'row', table }
}

const TCB = row('tcb')
const HEX: Meaning = { kind: 'hex' }

const OWNERS: Meaning = { kind: 'words', words: { [OWNER_FIRMWARE]: 'firmware', [OWNER_DEVICE]: 'device' } }
const QUEUE_STATES = [QUEUE_STATE_DISABLED, QUEUE_STATE_ENABLED, QUEUE_STATE_BROKEN]

/** By class and field. */
const FIELDS: Readonly<Record<string, Meaning>> = {
  'FrameDescriptor.address': HEX,
  'FrameDescriptor.owner': OWNERS,
  'Descriptor.address': HEX,
  'Descriptor.info': HEX,
  'Descriptor.owner': OWNERS,
  'QueueStatus.state': {
    kind: 'words',
    words: Object.fromEntries(QUEUE_STATES.map((state) => [state, queueStateName(state)])),
  },
  'TraceEntry.event': names(
    'TRACE_BOOT',
    'TRACE_TCP_STATE',
    'TRACE_TCP_RETRANSMIT',
    'TRACE_ATTACH',
    'TRACE_DROP',
    'TRACE_QUEUE',
    'TRACE_ARP',
    'TRACE_MIGRATE',
  ),
  'Tcb.state': { kind: 'tcp state' },
  'Tcb.flags': bits('F_'),
  'Tcb.timers': {
    kind: 'bits',
    names: ['TIMER_RETRANSMIT', 'TIMER_PERSIST', 'TIMER_DELAYED_ACK', 'TIMER_KEEP_ALIVE', 'TIMER_STATE'],
  },
  'Tcb.handle': HEX,
  'Tcb.nextHop': IP,
  'Tcb.arpEntry': row('arp'),
  'Tcb.netInterface': row('interface'),
  'Tcb.migration': row('migration'),
  'Tcb.outputNext': TCB,
  'Tcb.hostNext': TCB,
  'Tcb.neighborNext': TCB,
  'Tcb.timerNext': TCB,
  'Tcb.timerPrevious': TCB,
  'TimeWait.netInterface': row('interface'),
  'TimeWait.older': row('timeWait'),
  'TimeWait.newer': row('timeWait'),
  'State.outputHead': TCB,
  'State.outputTail': TCB,
  'State.hostHead': TCB,
  'State.hostTail': TCB,
  'State.openRecordTcb': TCB,
  'State.timeWaitOldest': row('timeWait'),
  'State.timeWaitNewest': row('timeWait'),
  'State.congestionControl': names('CONGESTION_DEFAULT', 'CONGESTION_NEWRENO', 'CONGESTION_CUBIC'),
  'State.placement': names(
    'PLACEMENT_DEFAULT',
    'PLACEMENT_LEAST_LOADED',
    'PLACEMENT_LOCAL_FIRST',
    'PLACEMENT_ROUND_ROBIN',
    'PLACEMENT_LOCAL_ONLY',
  ),
  'State.flags': bits('BOOT_FLAG_'),
  'State.iposEtherType': HEX,
  'Forward.kind': names(
    'FORWARD_FREE',
    'FORWARD_RESERVED',
    'FORWARDING',
    'FORWARD_MOVED',
    'FORWARD_RELEASING',
    'FORWARD_LOST',
    'FORWARD_ASKING',
    'FORWARD_GUEST',
    'FORWARD_LOCAL',
  ),
  'Forward.protocol': names('IPOS_TCP', 'IPOS_UDP'),
  'Forward.list': names('LIST_NONE', 'LIST_REPEAT', 'LIST_REST'),
  'Forward.peer': row('server'),
  'Forward.entry': row('server'),
  'Migration.phase': names(
    'PHASE_RESTING',
    'PHASE_OFFERED',
    'PHASE_COMMITTED',
    'PHASE_PREPARED',
    'PHASE_ARRIVING',
    'PHASE_ARRIVED',
  ),
  'Migration.flags': bits('MOVE_'),
  'Migration.tcb': TCB,
  'Migration.peer': row('server'),
  'Migration.entry': row('server'),
  'Migration.forward': row('forward'),
  'Naming.client': IP,
  'Naming.server': IP,
  'Naming.protocol': names('IPOS_TCP', 'IPOS_UDP'),
  'Past.client': IP,
  'Server.address0': IP,
  'Server.address1': IP,
  'Server.address2': IP,
  'Server.flags': { kind: 'bits', names: ['STATE_FLAG_DRAINING'] },
  'Server.status': { kind: 'bits', names: ['SERVER_UP', 'SERVER_LEASED', 'SERVER_KNOWN'] },
  'Service.protocol': names('IPOS_TCP', 'IPOS_UDP'),
  'ArpEntry.state': names('ARP_FREE', 'INCOMPLETE', 'REACHABLE', 'PROBE', 'FAILED'),
  'ArpEntry.netInterface': row('interface'),
  'Interface.gateway': IP,
  'Interface.mask': IP,
  'Interface.broadcast': IP,
  'Interface.flags': { kind: 'bits', names: ['INTERFACE_ENABLED', 'INTERFACE_HUB'] },
  'Reassembly.source': IP,
  'Reassembly.destination': IP,
  'Listener.firstSpeaker': names('FIRST_SPEAKER_AUTO', 'FIRST_SPEAKER_CLIENT', 'FIRST_SPEAKER_SERVER'),
  'Listener.options': bits('SOCKET_OPTION_'),
  'UdpEndpoint.flags': { kind: 'bits', names: ['FLAG_USED', 'FLAG_BROADCAST', 'FLAG_SERVICE'] },
}

/** What the field of a class means; by its name alone where the class says nothing. */
export function fieldMeaning(className: string, field: string, type: string): Meaning | undefined {
  const known = FIELDS[`${className}.${field}`]
  if (known) return known
  if (type === 'u64' && field === 'mac') return MAC
  if (type !== 'u32') return undefined
  if (field === 'address' || /Address$/.test(field)) return IP
  return /(Base|Buckets|Head|Tail|Buffers?|Slots|Bitmap)$/.test(field) ? HEX : undefined
}

/** What a local or global means by its name: as fields go, for the names that can mean nothing else. */
export function nameMeaning(name: string, type: string): Meaning | undefined {
  if (type !== 'u32') return undefined
  return /^(remote|local)$|Address$/.test(name) ? IP : undefined
}

/** The value in words; undefined if this one has none. */
export function meaningText(
  meaning: Meaning,
  value: Scalar,
  constants: ReadonlyMap<string, number>,
): string | undefined {
  switch (meaning.kind) {
    case 'ip':
      return formatIpv4(Number(value) >>> 0)
    case 'mac':
      return macText(BigInt(value))
    case 'tcp state':
      return tcpStateName(Number(value))
    case 'words':
      return meaning.words[Number(value)]
    case 'names':
      return meaning.names.find((name) => constants.get(name) === Number(value))
    case 'bits':
      return bitsText(meaning, Number(value) >>> 0, constants)
    case 'row':
      return Number(value) === 0 ? 'none' : `${meaning.table}[${value}]`
    case 'hex':
      return undefined
  }
}

export function macText(value: bigint): string {
  return Array.from({ length: 6 }, (_, index) =>
    Number((value >> BigInt(40 - index * 8)) & 0xffn)
      .toString(16)
      .padStart(2, '0'),
  ).join(':')
}

function bitsText(
  { names, prefix }: { readonly names: readonly string[]; readonly prefix?: string },
  value: number,
  constants: ReadonlyMap<string, number>,
): string {
  let left = value
  const set: string[] = []
  for (const name of prefix === undefined ? names : constantsWith(prefix, constants)) {
    const bit = (constants.get(name) ?? 0) >>> 0
    // One bit each: what has several is a mask or a number.
    if (bit === 0 || (bit & (bit - 1)) !== 0 || (left & bit) === 0) continue
    set.push(name)
    left = (left & ~bit) >>> 0
  }
  if (left !== 0 || set.length === 0) set.push(left === 0 ? '0' : `0x${left.toString(16)}`)
  return set.join(' | ')
}

const PREFIXED = new WeakMap<ReadonlyMap<string, number>, Map<string, readonly string[]>>()

function constantsWith(prefix: string, constants: ReadonlyMap<string, number>): readonly string[] {
  let known = PREFIXED.get(constants)
  if (known === undefined) {
    known = new Map()
    PREFIXED.set(constants, known)
  }
  let found = known.get(prefix)
  if (found === undefined) {
    found = [...constants.keys()].filter((name) => name.startsWith(prefix))
    known.set(prefix, found)
  }
  return found
}
