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
import { HARDWARE_TABLES, type HardwareTable } from './hardware.ts'
import { readerOf, U32 } from './type-model.ts'
import type { MemoryAccess } from './types.ts'

/** Where a table stands. */
export interface TableExtent {
  readonly base: number
  readonly stride: number
  readonly count: number
}

/** Finds a table in some memory; undefined if it is not there, or not wholly within INIC memory. */
export type TableFinder = (memory: MemoryAccess) => TableExtent | undefined

export interface TableName {
  /** As it is shown. */
  readonly name: string
  /** Other names that mean it. */
  readonly aliases: readonly string[]
  /** Of a row; undefined for bytes. */
  readonly className: string | undefined
  /** There is one row: its fields are the table's own, `state.nowMs`. */
  readonly single: boolean
  /** What keeps it, for errors. */
  readonly keeper: string
  /** A finder of its own for everybody who asks often. */
  readonly finder: () => TableFinder
}

function table(kind: number, className: string | undefined, name: string, ...aliases: string[]): TableName {
  const finder = () => directoryFinder(kind)
  return { name, aliases, className, single: false, keeper: "the firmware's directory", finder }
}

function object(kind: number, className: string, name: string): TableName {
  return { ...table(kind, className, name), single: true }
}

/** What the firmware directory can hold, in the order in which it is shown. */
export const DIRECTORY_TABLES: readonly TableName[] = [
  object(DIRECTORY_STATE, 'State', 'state'),
  object(DIRECTORY_COUNTERS, 'Counters', 'counters'),
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

/** Rings and what else registers point to. */
export const RINGS: readonly TableName[] = HARDWARE_TABLES.map((ring) => ({
  name: ring.name,
  aliases: ring.aliases,
  className: ring.layout.name,
  single: false,
  keeper: 'the registers',
  finder: () => (memory) => hardwareExtent(ring, memory),
}))

export const TABLES: readonly TableName[] = [...DIRECTORY_TABLES, ...RINGS]

const BY_NAME = new Map(TABLES.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name, entry] as const)))

export function tableNamed(name: string): TableName | undefined {
  return BY_NAME.get(name)
}

const word = readerOf(U32)

function read(memory: MemoryAccess, address: number): number {
  return Number(word(memory, address) ?? 0)
}

function within(extent: TableExtent, memory: MemoryAccess): TableExtent | undefined {
  return extent.base + extent.stride * extent.count <= memory.size ? extent : undefined
}

/** Remembers the place of its directory entry, and looks whether it is still there. */
function directoryFinder(kind: number): TableFinder {
  let known = 0
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
    return within(extent, memory)
  }
}

function hardwareExtent({ base, entries, layout }: HardwareTable, memory: MemoryAccess): TableExtent | undefined {
  const address = read(memory, base)
  const count = 'count' in entries ? entries.count : read(memory, entries.register)
  if (address === 0 || count === 0) return undefined
  return within({ base: address, stride: layout.bytes, count }, memory)
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

export const REGISTER_NAMES: readonly string[] = REGISTERS.map(({ name }) => name)
