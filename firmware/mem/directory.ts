import {
  DIRECTORY_BASE,
  DIRECTORY_COUNT,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BASE,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_ENTRY_COUNT,
  DIRECTORY_ENTRY_KIND,
  DIRECTORY_ENTRY_STRIDE,
  DIRECTORY_MAGIC,
  DIRECTORY_MAXIMUM_ENTRIES,
} from '../../abi/memory.ts'
import { PANIC_TABLE, panic } from '../hal/panic.ts'

/** Writes the table's head; entries follow by `directoryAdd`. */
export function directoryInitialize(): void {
  store<u32>(DIRECTORY_BASE, DIRECTORY_MAGIC)
  store<u32>(DIRECTORY_BASE + DIRECTORY_COUNT, 0)
}

/**
 * Tells the inspector, the debugger and tests of a table of one's own, by the name of its class. A row whose class has a field `inUse` counts
 * where that is not 0.
 *
 * @param stride bytes a row, `offsetof<T>()` at least @param count rows
 */
export function directoryTable<T>(base: u32, stride: u32, count: u32): void {
  directoryAdd(changetype<u32>(nameof<T>()), base, stride, count)
}

/** Tells the inspector where a table or pool stands. @param kind DIRECTORY_* @param stride bytes a row @param count rows */
export function directoryAdd(kind: u32, base: u32, stride: u32, count: u32): void {
  const entries = load<u32>(DIRECTORY_BASE + DIRECTORY_COUNT)
  if (entries >= <u32>DIRECTORY_MAXIMUM_ENTRIES) panic(PANIC_TABLE, kind)
  const entry = DIRECTORY_BASE + DIRECTORY_ENTRIES + entries * DIRECTORY_ENTRY_BYTES
  store<u32>(entry + DIRECTORY_ENTRY_KIND, kind)
  store<u32>(entry + DIRECTORY_ENTRY_BASE, base)
  store<u32>(entry + DIRECTORY_ENTRY_STRIDE, stride)
  store<u32>(entry + DIRECTORY_ENTRY_COUNT, count)
  store<u32>(DIRECTORY_BASE + DIRECTORY_COUNT, entries + 1)
}
