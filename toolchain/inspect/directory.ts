/** The firmware directory: where in INIC memory the firmware keeps its tables and pools, and of which class their rows are. */
import {
  CARVE_BASE,
  CONSTANTS_BASE,
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
} from '../../abi/memory.ts'
import type { ClassLayout } from '../firmware/layouts.ts'
import { type MemoryAccess, wordAt } from './memory-access.ts'

/** Class of the rows of each kind; undefined for bytes. */
const CLASSES: ReadonlyMap<number, string | undefined> = new Map([
  [DIRECTORY_STATE, 'State'],
  [DIRECTORY_COUNTERS, 'Counters'],
  [DIRECTORY_TCBS, 'Tcb'],
  [DIRECTORY_TIME_WAITS, 'TimeWait'],
  [DIRECTORY_LISTENERS, 'Listener'],
  [DIRECTORY_UDP_ENDPOINTS, 'UdpEndpoint'],
  [DIRECTORY_ARP, 'ArpEntry'],
  [DIRECTORY_INTERFACES, 'Interface'],
  [DIRECTORY_FORWARDS, 'Forward'],
  [DIRECTORY_MIGRATIONS, 'Migration'],
  [DIRECTORY_SERVERS, 'Server'],
  [DIRECTORY_APPLICATIONS, 'Application'],
  [DIRECTORY_SERVICES, 'Service'],
  [DIRECTORY_CHUNKS, undefined],
])

/** Longest class name of a table, bytes. */
const MAXIMUM_NAME_BYTES = 256

/** Where a table stands. */
export interface TableExtent {
  readonly base: number
  /** Bytes from one row to the next. */
  readonly stride: number
  readonly count: number
}

export interface DirectoryEntry extends TableExtent {
  readonly kind: number
  /** Of a row; undefined for bytes. */
  readonly className: string | undefined
}

/** Entries whose range lies inside memory; none if the firmware keeps no directory. */
export function readDirectory(memory: MemoryAccess): DirectoryEntry[] {
  const entries = Array.from({ length: entryCount(memory) }, (_, index) => {
    const kind = kindAt(memory, index)
    return entryAt(memory, index, kind, classOf(memory, kind))
  })
  return entries.filter((entry) => isInside(entry, memory))
}

/**
 * Finds one entry, by its class or else by its kind, for somebody who asks often: it remembers where that is, and looks whether it is
 * there still. Undefined if it is nowhere, or not wholly within memory.
 */
export function directoryFinder(wanted: string | number): (memory: MemoryAccess) => DirectoryEntry | undefined {
  let known: DirectoryEntry | undefined
  let place = 0
  return (memory) => {
    const count = entryCount(memory)
    if (known === undefined || place >= count || kindAt(memory, place) !== known.kind) {
      known = undefined
      for (place = 0; place < count; place++) {
        const kind = kindAt(memory, place)
        const className = classOf(memory, kind)
        if (wanted !== (typeof wanted === 'string' ? className : kind)) continue
        known = entryAt(memory, place, kind, className)
        break
      }
    } else known = entryAt(memory, place, known.kind, known.className)
    return known !== undefined && isInside(known, memory) ? known : undefined
  }
}

/** True for a class that the firmware names by itself (firmware/mem/directory.ts): none of ipOS's tables. */
export function isOwnClass(className: string): boolean {
  return ![...CLASSES.values()].includes(className)
}

/** False for a class larger than the table's rows: then it is another class of that name. */
export function fitsRows(layout: ClassLayout, { stride }: TableExtent): boolean {
  return layout.bytes <= stride
}

export function isInside({ base, stride, count }: TableExtent, memory: MemoryAccess): boolean {
  return base + stride * count <= memory.size
}

function entryCount(memory: MemoryAccess): number {
  if (wordAt(memory, DIRECTORY_BASE) !== DIRECTORY_MAGIC) return 0
  return Math.min(wordAt(memory, DIRECTORY_BASE + DIRECTORY_COUNT), DIRECTORY_MAXIMUM_ENTRIES)
}

function addressOf(index: number): number {
  return DIRECTORY_BASE + DIRECTORY_ENTRIES + index * DIRECTORY_ENTRY_BYTES
}

function kindAt(memory: MemoryAccess, index: number): number {
  return wordAt(memory, addressOf(index) + DIRECTORY_ENTRY_KIND)
}

function entryAt(memory: MemoryAccess, index: number, kind: number, className: string | undefined): DirectoryEntry {
  const at = addressOf(index)
  return {
    kind,
    className,
    base: wordAt(memory, at + DIRECTORY_ENTRY_BASE),
    stride: wordAt(memory, at + DIRECTORY_ENTRY_STRIDE),
    count: wordAt(memory, at + DIRECTORY_ENTRY_COUNT),
  }
}

/** A kind that is none of ours is the address of a class name, UTF-16, its length in the word before it. */
function classOf(memory: MemoryAccess, kind: number): string | undefined {
  if (CLASSES.has(kind)) return CLASSES.get(kind)
  if (kind < CONSTANTS_BASE + 4 || kind > CARVE_BASE || kind % 2 !== 0) return undefined
  const bytes = wordAt(memory, kind - 4)
  if (bytes === 0 || bytes > MAXIMUM_NAME_BYTES || kind + bytes > CARVE_BASE) return undefined
  return new TextDecoder('utf-16le').decode(memory.read(kind, bytes))
}
