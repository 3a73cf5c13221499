/** What INIC memory is used for, and the firmware's own counts. */
import {
  DIRECTORY_ARP,
  DIRECTORY_CHUNKS,
  DIRECTORY_COUNTERS,
  DIRECTORY_FORWARDS,
  DIRECTORY_MIGRATIONS,
  DIRECTORY_STATE,
  DIRECTORY_TCBS,
  DIRECTORY_TIME_WAITS,
} from '../../abi/memory.ts'
import type { InicMemoryReader, Row } from './inic-memory.ts'
import { type Table, TableBuilder } from './table.ts'

const HEX_DIGITS = 8

/** How the firmware counts the rows of a pool that are in use. */
const USED: ReadonlyMap<number, (state: Row) => number> = new Map([
  [DIRECTORY_TCBS, (state) => state.number('tcbUsed')],
  [DIRECTORY_TIME_WAITS, (state) => state.number('timeWaitUsed')],
  [DIRECTORY_ARP, (state) => state.number('arpUsed')],
  [DIRECTORY_FORWARDS, (state) => state.number('forwardUsed')],
  [DIRECTORY_MIGRATIONS, (state) => state.number('migrationUsed')],
  [DIRECTORY_CHUNKS, (state) => state.number('chunkCount') - state.number('chunkFreeCount')],
])

/** Pools and tables with their place and size. */
export function readPools(memory: InicMemoryReader): Table {
  const table = new TableBuilder('INIC memory', ['address', 'what', 'bytes a row', 'rows', 'used', 'bytes'])
  const state = memory.row(DIRECTORY_STATE, 0)
  for (const { kind, base, name, stride, count } of [...memory.entries].sort((a, b) => a.base - b.base)) {
    const address = `0x${base.toString(16).padStart(HEX_DIGITS, '0')}`
    const used = (state && USED.get(kind)?.(state)) ?? null
    table.add(() => [address, name, stride, count, used, stride * count])
  }
  return table.build()
}

/** Counters of the firmware that are not 0. */
export function readCounters(memory: InicMemoryReader): Table {
  const table = new TableBuilder('Counters', ['counter', 'value'])
  for (const [name, value] of memory.row(DIRECTORY_COUNTERS, 0)?.entries() ?? []) {
    if (Number(value) !== 0) table.add(() => [name, Number(value)])
  }
  return table.build()
}

/** Lines of a hex dump of `bytes`, which begin at `address`. */
export function hexDump(bytes: Uint8Array, address: number): string[] {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16)
    const digits = Array.from(row, (byte) => byte.toString(16).padStart(2, '0'))
    const text = Array.from(row, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
    const columns = `${digits.slice(0, 8).join(' ').padEnd(23)}  ${digits.slice(8).join(' ').padEnd(23)}`
    lines.push(`${(address + at).toString(16).padStart(HEX_DIGITS, '0')}  ${columns}  |${text}|`)
  }
  return lines
}
