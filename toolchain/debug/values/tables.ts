/** Names for what the firmware directory holds, and for registers. */
import { DIRECTORY_CHUNKS, REGISTER_BASE } from '../../../abi/memory.ts'
import { REGISTERS } from '../../../emulator/devices/registers.ts'
import { findClass, type Layouts } from '../../firmware/layouts.ts'
import { directoryFinder, isInside, isOwnClass, readDirectory, type TableExtent } from '../../inspect/directory.ts'
import { type MemoryAccess, wordAt } from '../../inspect/memory-access.ts'
import { HARDWARE_TABLES, type HardwareTable } from './hardware.ts'

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

function table(wanted: string | number, name: string, ...aliases: string[]): TableName {
  const className = typeof wanted === 'string' ? wanted : undefined
  const finder = () => directoryFinder(wanted)
  return { name, aliases, className, single: false, keeper: "the firmware's directory", finder }
}

function object(className: string, name: string): TableName {
  return { ...table(className, name), single: true }
}

/** What ipOS keeps in the firmware directory, in the order in which it is shown. */
const DIRECTORY_TABLES: readonly TableName[] = [
  object('State', 'state'),
  object('Counters', 'counters'),
  table('Tcb', 'tcb', 'tcbs'),
  table('TimeWait', 'timeWait', 'timeWaits'),
  table('Listener', 'listener', 'listeners'),
  table('UdpEndpoint', 'udp', 'udpEndpoint', 'udpEndpoints'),
  table('ArpEntry', 'arp', 'arpEntry', 'arpEntries'),
  table('Interface', 'interface', 'interfaces'),
  table('Forward', 'forward', 'forwards'),
  table('Migration', 'migration', 'migrations'),
  table('Server', 'server', 'servers'),
  table('Application', 'application', 'applications'),
  table('Service', 'service', 'services'),
  table(DIRECTORY_CHUNKS, 'chunk', 'chunks'),
]

/** Rings and what else registers point to. */
const RINGS: readonly TableName[] = HARDWARE_TABLES.map((ring) => ({
  name: ring.name,
  aliases: ring.aliases,
  className: ring.layout.name,
  single: false,
  keeper: 'the registers',
  finder: () => (memory) => hardwareExtent(ring, memory),
}))

export const TABLES: readonly TableName[] = [...DIRECTORY_TABLES, ...RINGS]

const BY_NAME = new Map(TABLES.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name, entry] as const)))

/** A table by its name. One that the firmware keeps for itself has that of its class, in the small: `station[3]` is a `Station`. */
export function tableNamed(name: string, layouts: Layouts | undefined): TableName | undefined {
  const known = BY_NAME.get(name)
  if (known !== undefined || layouts === undefined) return known
  const className = `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`
  if (className === name || !isOwnClass(className) || findClass(layouts, className) === undefined) return undefined
  return table(className, name)
}

/** What the firmware directory holds: what ipOS keeps first, then what is the firmware's own. */
export function directoryTables(memory: MemoryAccess): readonly TableName[] {
  const own = readDirectory(memory).flatMap(({ className }) =>
    className === undefined || !isOwnClass(className) ? [] : [table(className, ownName(className))],
  )
  return [...DIRECTORY_TABLES, ...own]
}

function ownName(className: string): string {
  return `${className.slice(0, 1).toLowerCase()}${className.slice(1)}`
}

function hardwareExtent({ base, entries, layout }: HardwareTable, memory: MemoryAccess): TableExtent | undefined {
  const address = wordAt(memory, base)
  const count = 'count' in entries ? entries.count : wordAt(memory, entries.register)
  if (address === 0 || count === 0) return undefined
  const extent = { base: address, stride: layout.bytes, count }
  return isInside(extent, memory) ? extent : undefined
}

const REGISTER_ADDRESSES = new Map(REGISTERS.map(({ name, offset }) => [name, REGISTER_BASE + offset]))

/** Address of a register, by the name that crash reports have: `MAC1_LINK`. */
export function registerAddress(name: string): number | undefined {
  return REGISTER_ADDRESSES.get(name)
}

export const REGISTER_NAMES: readonly string[] = REGISTERS.map(({ name }) => name)
