/** Names for what the firmware directory holds, and for registers. */
import {
  DIRECTORY_APPLICATIONS,
  DIRECTORY_ARP,
  DIRECTORY_BASE,
  DIRECTORY_CHUNKS,
  DIRECTORY_COUNT,
  DIRECTORY_COUNTERS,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BASE,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_ENTRY_COUNT,
  DIRECTORY_ENTRY_KIND,
  DIRECTORY_ENTRY_STRIDE,
  DIRECTORY_FORWARDS,
  DIRECTORY_INTERFACES,
  DIRECTORY_LISTENERS,
  DIRECTORY_MAGIC,
  DIRECTORY_MAXIMUM_ENTRIES,
  DIRECTORY_MIGRATIONS,
  DIRECTORY_SERVERS,
  DIRECTORY_SERVICES,
  DIRECTORY_STATE,
  DIRECTORY_TCBS,
  DIRECTORY_TIME_WAITS,
  DIRECTORY_UDP_ENDPOINTS,
  REGISTER_BASE,
} from '../../../abi/memory.ts'
import { REGISTERS } from '../../../emulator/devices/registers.ts'
import type { ClassLayout } from '../../firmware/layouts.ts'
import { readerOf, U32 } from './type-model.ts'
import type { MemoryAccess } from './types.ts'

export interface TableName {
  readonly kind: number
  /** As it is shown. */
  readonly name: string
  /** Other names that mean it. */
  readonly aliases: readonly string[]
  /** Of a row; undefined for bytes. */
  readonly className: string | undefined
  /** There is one row: its fields are the table's own, `state.nowMs`. */
  readonly single: boolean
}

function table(kind: number, className: string | undefined, name: string, ...aliases: string[]): TableName {
  return { kind, name, aliases, className, single: false }
}

export const TABLES: readonly TableName[] = [
  { kind: DIRECTORY_STATE, name: 'state', aliases: [], className: 'State', single: true },
  { kind: DIRECTORY_COUNTERS, name: 'counters', aliases: [], className: 'Counters', single: true },
  table(DIRECTORY_TCBS, 'Tcb', 'tcb', 'tcbs'),
  table(DIRECTORY_TIME_WAITS, 'TimeWait', 'timeWait', 'timeWaits'),
  table(DIRECTORY_LISTENERS, 'Listener', 'listener', 'listeners'),
  table(DIRECTORY_UDP_ENDPOINTS, 'UdpEndpoint', 'udp', 'udpEndpoint', 'udpEndpoints'),
  table(DIRECTORY_ARP, 'ArpEntry', 'arp', 'arpEntry', 'arpEntries'),
  table(DIRECTORY_INTERFACES, 'Interface', 'interface', 'interfaces'),
  table(DIRECTORY_FORWARDS, 'Forward', 'forward', 'forwards'),
  table(DIRECTORY_MIGRATIONS, 'Migration', 'migration', 'migrations'),
  table(DIRECTORY_SERVERS, 'Server', 'server', 'servers'),
  table(DIRECTORY_APPLICATIONS, 'Application', 'application', 'applications'),
  table(DIRECTORY_SERVICES, 'Service', 'service', 'services'),
  table(DIRECTORY_CHUNKS, undefined, 'chunk', 'chunks'),
]

const BY_NAME = new Map(TABLES.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name, entry] as const)))

export function tableNamed(name: string): TableName | undefined {
  return BY_NAME.get(name)
}

/** Where a table stands. */
export interface TableExtent {
  readonly base: number
  readonly stride: number
  readonly count: number
}

const word = readerOf(U32)

/**
 * Where a directory entry of this kind says that its table stands; undefined if there is none, or it lies outside of INIC memory. Made
 * for one table: it remembers the entry's place and looks whether it is still there.
 */
export function tableFinder(kind: number): (memory: MemoryAccess) => TableExtent | undefined {
  let known = 0
  const read = (memory: MemoryAccess, address: number) => Number(word(memory, address) ?? 0)
  const isAt = (memory: MemoryAccess, index: number) =>
    read(memory, entryAddress(index) + DIRECTORY_ENTRY_KIND) === kind
  return (memory) => {
    if (read(memory, DIRECTORY_BASE) !== DIRECTORY_MAGIC) return undefined
    const count = Math.min(read(memory, DIRECTORY_BASE + DIRECTORY_COUNT), DIRECTORY_MAXIMUM_ENTRIES)
    if (known >= count || !isAt(memory, known)) {
      known = 0
      while (known < count && !isAt(memory, known)) known++
      if (known >= count) return undefined
    }
    const entry = entryAddress(known)
    const extent = {
      base: read(memory, entry + DIRECTORY_ENTRY_BASE),
      stride: read(memory, entry + DIRECTORY_ENTRY_STRIDE),
      count: read(memory, entry + DIRECTORY_ENTRY_COUNT),
    }
    return extent.base + extent.stride * extent.count <= memory.size ? extent : undefined
  }
}

function entryAddress(index: number): number {
  return DIRECTORY_BASE + DIRECTORY_ENTRIES + index * DIRECTORY_ENTRY_BYTES
}

/** False for a class larger than the table's rows: then it is another class of that name. */
export function fitsRows(layout: ClassLayout, extent: TableExtent): boolean {
  return layout.bytes <= extent.stride
}

const REGISTER_ADDRESSES = new Map(REGISTERS.map(({ name, offset }) => [name, REGISTER_BASE + offset]))

/** Address of a register, by the name that crash reports have: `MAC1_LINK`. */
export function registerAddress(name: string): number | undefined {
  return REGISTER_ADDRESSES.get(name)
}

/** Name of the register at an address. */
export function registerAt(address: number): string | undefined {
  return REGISTERS.find(({ offset }) => REGISTER_BASE + offset === address)?.name
}

export const REGISTER_NAMES: readonly string[] = REGISTERS.map(({ name }) => name)
