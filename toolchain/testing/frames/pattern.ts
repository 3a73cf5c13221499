/** Comparison of packets with what a test expects; see index.ts. */
import type { Packet } from './parse.ts'

export type Pattern<T> = T extends Uint8Array
  ? Uint8Array
  : T extends object
    ? { [K in keyof T]?: Pattern<T[K]> | null }
    : T
/** Fields that a packet must have; `null` = must be absent. Problems must be none unless the pattern names them. */
export type PacketPattern = Pattern<Packet> & { port?: number }

/** What differs, as `tcp.flags: 'SA', not 'RA'`, or null if the packet fits. */
export function difference(actual: Packet, expected: PacketPattern): string | null {
  const { port: _, ...rest } = expected
  return differs(actual, { problems: [], ...rest }, '')
}

function differs(actual: unknown, expected: unknown, path: string): string | null {
  if (expected === undefined) return null
  if (expected === null) return actual === undefined ? null : `${path}: present, not absent`
  if (expected instanceof Uint8Array) {
    const same = actual instanceof Uint8Array && Buffer.compare(actual, expected) === 0
    return same ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  if (typeof expected !== 'object') {
    return Object.is(actual, expected) ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  if (actual === undefined) return `${path}: absent`
  if (Array.isArray(expected)) {
    const same = JSON.stringify(actual) === JSON.stringify(expected)
    return same ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  for (const [key, value] of Object.entries(expected)) {
    const found = differs((actual as Record<string, unknown>)[key], value, path === '' ? key : `${path}.${key}`)
    if (found !== null) return found
  }
  return null
}

function show(value: unknown): string {
  if (value instanceof Uint8Array) {
    const hex = Buffer.from(value.subarray(0, 24)).toString('hex')
    return `${value.length} bytes ${hex}${value.length > 24 ? '...' : ''}`
  }
  return JSON.stringify(value) ?? 'undefined'
}
